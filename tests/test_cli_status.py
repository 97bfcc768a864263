from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agentful.events import AttemptAsked
from agentful.model import Task
from cliutil import a_repo, as_json, ok, run_cli, write_run
from progressutil import START, Story, busy_story

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return a_repo(tmp_path, monkeypatch)


def done_story() -> Story:
    story = Story(
        Task("a", "x", id="one", estimate=60.0), Task("b", "y", id="two", estimate=60.0), max_concurrency=2
    )
    story.land("one", 60)
    story.land("two", 90)
    return story


def test_status_json_of_a_run_that_nobody_carries_out(root: Path) -> None:
    write_run(root, busy_story())
    document = as_json("status", "--json")
    assert document["version"] == 1
    assert document["run"] == "r-111111"
    assert document["state"] == "interrupted"
    assert document["branch"] == "agentful/r-111111"
    assert [task["id"] for task in document["tasks"]] == [
        "api",
        "ui",
        "auth",
        "docs",
        "cli",
        "fast",
        "tests",
        "e2e",
    ]
    assert [task["state"] for task in document["tasks"]] == [
        "running",
        "running",
        "blocked",
        "succeeded",
        "failed",
        "ready",
        "waiting",
        "skipped",
    ]
    assert document["decisions"][0]["status"] == "pending"


def test_status_for_people(root: Path) -> None:
    write_run(root, busy_story())
    said = ok("status")
    assert "NEEDS YOU" in said
    assert "[1] Sessions  [2] JWT" in said
    assert "nobody carries it out; agentful resume r-111111 goes on" in said
    assert "\x1b" not in said


def test_status_of_a_run_that_has_ended(root: Path) -> None:
    write_run(root, done_story())
    assert ok("status").splitlines() == [
        "r-111111: 2 of 2 tasks done, 2 landed on agentful/r-111111 in 1m30s",
        " ✓ done 2: one, two",
        "time   1m30s, predicted 1m, one by one about 2m30s: parallel saved 1m (1.7 times as fast)",
        "next   agentful land r-111111",
    ]
    assert as_json("status", "--json")["state"] == "succeeded"


def test_status_tells_the_outcome_by_its_exit_code_only_when_asked(root: Path) -> None:
    failed = Story(Task("a", "x", id="one"))
    failed.fail("one", 1, "no")
    waiting = Story(Task("a", "x", id="one"))
    waiting.tell(AttemptAsked(START + 1, "one", 1, "Which?"))
    for run, story, code in [
        ("r-aaaaaa", done_story(), 0),
        ("r-bbbbbb", failed, 1),
        ("r-cccccc", waiting, 3),
        ("r-dddddd", busy_story(), 130),
    ]:
        write_run(root, story, run)
        assert run_cli("status", run).exit_code == 0
        assert run_cli("status", run, "--exit-code").exit_code == code
        assert run_cli("status", run, "--exit-code", "--json").exit_code == code


def test_a_run_is_named_by_the_start_of_its_id(root: Path) -> None:
    write_run(root, done_story(), "r-ab1234")
    write_run(root, done_story(), "r-ac1234")
    assert as_json("status", "ab", "--json")["run"] == "r-ab1234"
    assert as_json("status", "--json")["run"] == "r-ac1234"
    result = run_cli("status", "r-a")
    assert result.exit_code == 2
    assert "could be any of 2 runs" in result.stderr
    result = run_cli("status", "nope")
    assert result.exit_code == 2
    assert "there is no run 'nope'" in result.stderr


def test_runs(root: Path) -> None:
    assert ok("runs") == "no runs yet; `agentful run PLAN` starts one\n"
    write_run(root, done_story(), "r-aaaaaa", title="First \x1b[31mrun")
    write_run(root, busy_story(), "r-bbbbbb", title="Second")
    second, first = ok("runs").splitlines()
    assert second.startswith("r-bbbbbb")
    assert "interrupted" in second
    assert "1/8 done" in second
    assert "succeeded" in first
    assert first.endswith("First run")
    document = as_json("runs", "--json")
    assert [(run["run"], run["state"], run["succeeded"]) for run in document["runs"]] == [
        ("r-bbbbbb", "interrupted", 1),
        ("r-aaaaaa", "succeeded", 2),
    ]
    result = run_cli("runs", "-n", "1")
    assert result.stdout.count("\n") == 1
    assert "and 1 older" in result.stderr


def test_watch_of_a_run_that_nobody_carries_out(root: Path) -> None:
    write_run(root, done_story())
    result = run_cli("watch")
    assert result.exit_code == 0
    assert "nobody carries out r-111111" in result.stderr
    assert "2 of 2 tasks done" in result.stdout


@pytest.mark.parametrize(
    "command", ["status", "watch", "logs x", "diff x", "explain x", "land", "resume", "retry x"]
)
def test_no_run_yet(root: Path, command: str) -> None:
    result = run_cli(*command.split())
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: there ")
    assert not (root / ".agentful" / "journal.db").exists()


@pytest.mark.parametrize(
    "command", ["status", "runs", "decide", "stop", "clean", "recover", "land", "resume"]
)
def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    a_repo(tmp_path, monkeypatch)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = run_cli(command)
    assert result.exit_code == 2
    assert "not a git repository" in result.stderr


def test_a_damaged_journal_is_told_of(root: Path) -> None:
    write_run(root, done_story())
    (root / ".agentful" / "journal.db").write_bytes(b"no database at all, but long enough to be one" * 99)
    for name in ("journal.db-wal", "journal.db-shm"):
        (root / ".agentful" / name).unlink(missing_ok=True)
    result = run_cli("runs")
    assert result.exit_code == 1
    assert "is damaged" in result.stderr
