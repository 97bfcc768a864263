from __future__ import annotations

import json

from agentful.events import (
    AttemptLost,
    CancelRequested,
    DecisionAnswered,
    Interrupted,
    LandingRejected,
    RetryRequested,
)
from agentful.model import Reason, Task
from agentful.progress import JsonPrinter, PlainPrinter, iso, plain_line, status_document
from progressutil import START, Story, busy_story


def plain(story: Story) -> list[str]:
    lines: list[str] = []
    PlainPrinter(story.view, START, lines.append)(story.transitions)
    return lines


def test_a_run_as_plain_lines() -> None:
    story = busy_story()
    story.tell(DecisionAnswered(START + 130, "d1", "JWT"))
    assert plain(story) == [
        "[+0s] start api backend",
        "[+0s] start ui frontend",
        "[+0s] start cli backend",
        "[+0s] start auth backend",
        "[+0s] start docs writer",
        "[+1m] done docs writer docs-land, 2 files",
        "[+1m20s] decision d1: Sessions or JWT? [1] Sessions [2] JWT (agentful decide d1 NUMBER)",
        "[+1m30s] retry cli backend in 1s after agent failed: exit code 1",
        "[+1m32s] start cli backend, attempt 2",
        "[+2m] failed cli backend: agent failed: exit code 2",
        "[+2m] skipped e2e tester: need failed: cli failed",
        "[+2m10s] decided d1: JWT",
        "[+2m10s] start auth backend, attempt 2",
    ]


def test_the_other_ends_of_a_task() -> None:
    story = Story(
        Task("a", "x", id="lost"),
        Task("a", "x", id="stopped"),
        Task("a", "x", id="gone"),
        Task("a", "x", id="clash"),
        Task(run="true", id="check", reads_only=True),
        max_concurrency=9,
    )
    story.tell(AttemptLost(START + 1, "lost", 1, "a full disk"))
    story.tell(CancelRequested(START + 2, ("gone",)))
    story.fail("gone", 3, "ended")
    story.tell(RetryRequested(START + 4, ("gone",)))
    story.finish("clash", 5)
    story.tell(LandingRejected(START + 6, "clash", Reason.CONFLICT, "a.py conflicts", "", ("a.py",), "lost"))
    story.finish("check", 7)
    story.tell(Interrupted(START + 8))
    story.fail("stopped", 9, "ended")
    lines = plain(story)
    assert "[+1s] lost lost a: lost: a full disk" in lines
    assert "[+2s] stopping gone a: cancelled" in lines
    assert "[+3s] cancelled gone a: cancelled" in lines
    assert "[+4s] again gone a" in lines
    assert "[+6s] retry clash a after conflict: a.py conflicts" in lines
    assert "[+7s] done check shell, nothing to land" in lines
    assert "[+9s] stopped stopped a; a resume runs it again" in lines


def test_a_plain_line_is_one_short_line() -> None:
    story = Story(Task("a", "x", id="one"))
    story.fail("one", 1, "line\n\x1b[2J" + "x" * 10_000)
    line = plain_line(story.transitions[-1], story.view, START)
    assert line is not None
    assert len(line) < 320
    assert "\n" not in line
    assert "\x1b" not in line


def test_iso() -> None:
    assert iso(None) is None
    assert iso(1_768_905_000.0) == "2026-01-20T10:30:00.000Z"


def test_status_document_is_the_documented_one() -> None:
    story = busy_story()
    document = status_document(story.view, run="r-1", branch="agentful/r-1", live=True)
    assert {key: document[key] for key in ("version", "run", "state", "branch")} == {
        "version": 1,
        "run": "r-1",
        "state": "running",
        "branch": "agentful/r-1",
    }
    docs = next(task for task in document["tasks"] if task["id"] == "docs")
    wanted = {"id", "agent", "state", "reason", "attempts", "commit", "started_at", "duration_ms", "usage"}
    assert wanted <= docs.keys()
    assert docs["state"] == "succeeded"
    assert docs["commit"] == "docs-landed"
    assert docs["started_at"] == iso(START)
    assert docs["duration_ms"] == 60_000
    cli = next(task for task in document["tasks"] if task["id"] == "cli")
    assert (cli["state"], cli["reason"], cli["attempts"]) == ("failed", "agent_failed", 2)
    assert document["decisions"][0] | {"asked_at": 0} == {
        "id": "d1",
        "question": "Sessions or JWT?",
        "options": ["Sessions", "JWT"],
        "blocking": ["auth"],
        "status": "pending",
        "context": "asked by backend in attempt 1",
        "answer": None,
        "asked_at": 0,
    }


def test_a_run_as_json_lines() -> None:
    story = busy_story()
    story.tell(DecisionAnswered(START + 130, "d1", "JWT"))
    lines: list[str] = []
    printer = JsonPrinter(story.view, lines.append)
    printer.begin(run="r-1", branch="agentful/r-1", base="abc", title="t", at=START)
    printer(story.transitions)
    printer.notice("careful", START)
    printer.result(status_document(story.view, run="r-1", branch="agentful/r-1", live=False), 130)
    found = [json.loads(line) for line in lines]
    assert found[0]["type"] == "version"
    assert found[0]["version"] == 1
    assert found[-1]["type"] == "result"
    assert found[-1]["exit_code"] == 130
    assert found[-1]["state"] == "interrupted"
    assert {entry["type"] for entry in found} == {
        "version",
        "task_added",
        "task",
        "decision",
        "notice",
        "result",
    }
    landed = next(entry for entry in found if entry.get("trigger") == "landed")
    assert (landed["task"], landed["state"], landed["commit"]) == ("docs", "succeeded", "docs-landed")
    answered = [entry for entry in found if entry["type"] == "decision"][-1]
    assert (answered["status"], answered["answer"]) == ("resolved", "JWT")


def test_a_chatty_agent_is_told_of_once_a_second() -> None:
    lines: list[str] = []
    printer = JsonPrinter(Story(Task("a", "x", id="one")).view, lines.append)
    for tenth in range(30):
        printer.progress("one", None, f"line {tenth}", START + tenth / 10)
    assert len(lines) == 3
    printer.progress("one", 10.0, "", START + 3)
    printer.progress("one", 20.0, "", START + 3)
    printer.progress("one", 20.0, "", START + 3)
    assert [json.loads(line)["percentage"] for line in lines[3:]] == [10.0, 20.0]
