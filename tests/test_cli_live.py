"""Runs in processes of their own: signals, terminals, and what other processes see of them and ask of them.

Nothing here waits for time to pass: tasks wait for files, and tests for what is printed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cliutil import Terminal, a_repo, as_json, end_all, ok, run_cli, start
from gitutil import git, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield a_repo(tmp_path, monkeypatch)
    end_all()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that tasks wait for."""
    return tmp_path / "gate"


def plan_of(root: Path, gate: Path, plan: str) -> None:
    wait = f"until [ -e {gate} ]; do sleep 0.02; done"
    write(root, {"plan.yaml": plan.replace("WAIT", wait)})


TWO = """\
max_concurrency: 1
tasks:
  first: {run: "echo begun; WAIT; echo 1 > first.txt", priority: 1}
  second: {run: "echo 2 > second.txt"}
"""


class Json:
    """A run in a process of its own, that prints JSON."""

    def __init__(self, root: Path, *args: str) -> None:
        self.process = start(*args, "--json", cwd=root)
        assert self.process.stdout is not None
        self._lines = iter(self.process.stdout)
        self.seen: list[dict[str, Any]] = []
        self.run = str(self.until(lambda entry: entry["type"] == "version")["run"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for line in self._lines:
            self.seen.append(json.loads(line))
            yield self.seen[-1]

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for entry in self:
            if wanted(entry):
                return entry
        assert self.process.stderr is not None
        raise AssertionError(f"it ended without that: {self.seen}\n{self.process.stderr.read()}")

    def until_said(self, task: str, message: str) -> None:
        """Wait until a task's agent has said this."""
        self.until(lambda entry: entry.get("task") == task and message in str(entry.get("message")))

    def until_state(self, task: str, state: str) -> None:
        self.until(lambda entry: entry.get("task") == task and entry.get("state") == state)

    def end(self) -> dict[str, Any]:
        """The result."""
        result = self.until(lambda entry: entry["type"] == "result")
        self.process.communicate(timeout=60)
        assert self.process.returncode == result["exit_code"]
        return result

    def states(self) -> dict[str, str]:
        return {task["id"]: task["state"] for task in self.end()["tasks"]}


def test_ctrl_c_once_lets_agents_finish_and_land_and_resume_goes_on(root: Path, gate: Path) -> None:
    plan_of(root, gate, TWO)
    run = Json(root, "run")
    run.until_said("first", "begun")
    run.process.send_signal(signal.SIGINT)
    notice = run.until(lambda entry: entry["type"] == "notice")
    assert notice["message"] == "stopping: 1 at work finish and land first; Ctrl-C again stops them now"
    gate.touch()
    result = run.end()
    assert result["exit_code"] == 130
    assert result["state"] == "interrupted"
    assert {task["id"]: task["state"] for task in result["tasks"]} == {
        "first": "succeeded",
        "second": "ready",
    }
    again = run_cli("resume")
    assert again.exit_code == 0, again.output
    assert {task["id"]: task["attempts"] for task in as_json("status", "--json")["tasks"]} == {
        "first": 1,
        "second": 1,
    }


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP]])
def test_twice_or_a_harder_signal_stops_agents_and_pins_their_work(
    root: Path, gate: Path, signals: list[signal.Signals]
) -> None:
    plan_of(root, gate, TWO.replace("echo begun;", "echo half > half.txt; echo begun;"))
    run = Json(root, "run")
    run.until_said("first", "begun")
    for number in signals:
        run.process.send_signal(number)
        run.until(lambda entry: entry["type"] == "notice")
    run.until_state("first", "ready")
    assert run.states() == {"first": "ready", "second": "ready"}
    assert run.process.returncode == 130
    assert git(root, "show", f"refs/agentful/{run.run}/first/1:half.txt") == "half"
    gate.touch()
    again = run_cli("resume")
    assert again.exit_code == 0, again.output
    assert as_json("status", "--json")["state"] == "succeeded"


def test_more_ctrl_c_does_no_harm(root: Path, gate: Path) -> None:
    # A stubborn agent: it takes more than one signal to end it.
    stubborn = TWO.replace("echo begun;", "trap '' TERM INT; echo begun;")
    plan_of(root, gate, stubborn)
    run = Json(root, "run")
    run.until_said("first", "begun")
    for _ in range(5):
        run.process.send_signal(signal.SIGINT)
        run.until(lambda entry: entry["type"] in ("notice", "result"))
        if run.seen[-1]["type"] == "result":
            break
    run.process.communicate(timeout=60)
    assert run.process.returncode == 130
    assert as_json("status", "--json")["state"] == "interrupted"


def test_a_killed_run_is_resumed(root: Path, gate: Path) -> None:
    plan_of(root, gate, TWO)
    run = Json(root, "run")
    run.until_said("first", "begun")
    run.process.kill()
    run.process.communicate(timeout=60)
    assert as_json("status", "--json")["state"] == "interrupted"
    gate.touch()
    again = run_cli("resume", "--json")
    assert again.exit_code == 0, again.output
    assert git(root, "show", f"agentful/{run.run}:first.txt") == "1"


def test_a_reader_that_goes_away_does_not_stop_the_run(root: Path, gate: Path) -> None:
    plan_of(root, gate, TWO)
    run = Json(root, "run")
    run.until_said("first", "begun")
    assert run.process.stdout is not None
    run.process.stdout.close()
    gate.touch()
    run.process.wait(timeout=60)
    assert as_json("status", "--json")["state"] == "succeeded"


def test_what_other_processes_see_and_ask(root: Path, gate: Path) -> None:
    plan_of(
        root,
        gate,
        """\
max_concurrency: 3
on_failure: decide
tasks:
  slow: {run: "echo begun; WAIT; echo done > slow.txt"}
  asks: {run: "test -e ok.txt"}
  other: {run: "WAIT"}
  last: {run: "true", needs: [asks]}
""",
    )
    run = Json(root, "run")
    run.until_said("slow", "begun")
    if not any(entry["type"] == "decision" for entry in run.seen):
        run.until(lambda entry: entry["type"] == "decision")
    assert as_json("status", "--json")["state"] == "running"
    assert "agentful watch" in ok("status")
    refused = run_cli("resume", run.run)
    assert refused.exit_code == 2
    assert f"process {run.process.pid}" in refused.stderr
    assert "needs asks" in ok("explain", "last")
    assert run_cli("retry", "slow").exit_code == 2
    assert "slow is at work" in run_cli("diff", "slow").stderr
    assert ok("cancel", "other") == "other: cancelled\n"
    assert ok("decide", "d1", "skip") == f"d1: Skip and continue; run {run.run} goes on\n"
    run.until_state("last", "skipped")
    follower = start("logs", "slow", "-f", cwd=root)
    assert follower.stdout is not None
    assert "attempt 1" in follower.stdout.readline()
    assert follower.stdout.readline() == "begun\n"
    watcher = start("watch", cwd=root)
    assert watcher.stderr is not None
    assert watcher.stderr.readline() == f"watching {run.run}; Ctrl-C leaves, and the run goes on\n"
    gate.touch()
    assert run.states() == {"slow": "succeeded", "asks": "skipped", "other": "cancelled", "last": "skipped"}
    follower.communicate(timeout=60)
    assert follower.returncode == 0
    said, shown = watcher.communicate(timeout=60)
    assert watcher.returncode == 1
    assert "done slow shell" in shown
    assert "1 of 4 tasks done" in said


@pytest.mark.parametrize("drain", [False, True])
def test_stop_from_another_process(root: Path, gate: Path, drain: bool) -> None:
    plan_of(root, gate, TWO)
    run = Json(root, "run")
    run.until_said("first", "begun")
    stopper = start("stop", *(["--drain"] if drain else []), cwd=root)
    if drain:
        assert stopper.stderr is not None
        assert "waiting for its agents to finish" in stopper.stderr.readline()
        gate.touch()
    said, _ = stopper.communicate(timeout=60)
    assert stopper.returncode == 0
    done = "1 of 2 tasks done" if drain else "0 of 2 tasks done"
    assert said == f"run {run.run} has stopped, {done}; agentful resume {run.run} goes on\n"
    assert run.end()["exit_code"] == 130


def test_a_live_run_takes_up_what_is_tried_again(root: Path, gate: Path, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    plan_of(root, gate, f"tasks: {{slow: {{run: 'WAIT'}}, bad: {{run: 'test -e {mended}', retries: 0}}}}")
    run = Json(root, "run")
    run.until_state("bad", "failed")
    mended.touch()
    assert ok("retry") == f"run {run.run} runs bad again\n"
    run.until_state("bad", "succeeded")
    gate.touch()
    assert run.states() == {"slow": "succeeded", "bad": "succeeded"}


def test_two_runs_at_once(root: Path, gate: Path) -> None:
    plan_of(root, gate, TWO)
    one, two = Json(root, "run"), Json(root, "run")
    one.until_said("first", "begun")
    two.until_said("first", "begun")
    gate.touch()
    assert one.end()["exit_code"] == two.end()["exit_code"] == 0
    assert len(ok("runs").splitlines()) == 2


# --- on a terminal --------------------------------------------------------------------------------


def test_the_board_on_a_terminal(root: Path, gate: Path) -> None:
    plan_of(root, gate, f"title: A title\n{TWO}")
    terminal = Terminal("run", cwd=root)
    terminal.until("begun")
    terminal.until("Ctrl-C: let the running agents finish, then stop")
    assert "WORKING" in terminal.said
    gate.touch()
    assert terminal.end() == 0, terminal.said
    assert "2 of 2 tasks done" in terminal.said.split("WORKING")[-1]


def test_ctrl_c_on_a_terminal(root: Path, gate: Path) -> None:
    plan_of(root, gate, TWO)
    terminal = Terminal("run", cwd=root)
    terminal.until("begun")
    terminal.type("\x03")
    terminal.until("Ctrl-C again stops them now")
    terminal.type("\x03")
    assert terminal.end() == 130, terminal.said
    run = as_json("status", "--json")["run"]
    assert f"resume with: agentful resume {run}" in terminal.said


ASK = "tasks: {a: {run: 'test -e ok'}, b: {run: touch ok}, c: {run: 'true', needs: [a]}}"


def test_a_person_is_asked_on_a_terminal(root: Path, gate: Path) -> None:
    plan_of(root, gate, ASK)
    terminal = Terminal("run", "--on-failure", "decide", "-j", "1", cwd=root, NO_COLOR="1")
    terminal.until("a number, or Enter to leave it open:")
    terminal.type("7\n")
    terminal.until("that is none of the 4 answers")
    terminal.type("1\n")
    assert terminal.end() == 0, terminal.said
    assert "3 of 3 tasks done" in terminal.said


def test_a_person_may_leave_it_open_or_answer_elsewhere(root: Path, gate: Path) -> None:
    plan_of(root, gate, ASK)
    terminal = Terminal("run", "--on-failure", "decide", "-j", "1", cwd=root)
    terminal.until("leave it open:")
    terminal.type("\n")
    assert terminal.end() == 3, terminal.said
    run = as_json("status", "--json")["run"]
    assert f"agentful decide d1 NUMBER --run {run}, then agentful resume {run}" in terminal.said
    terminal = Terminal("resume", cwd=root)
    terminal.until("leave it open:")
    assert ok("decide", "d1", "1") == f"d1: Try again; run {run} goes on\n"
    assert terminal.end() == 0, terminal.said


def test_a_run_that_asks_can_be_stopped(root: Path, gate: Path) -> None:
    plan_of(root, gate, ASK)
    terminal = Terminal("run", "--on-failure", "decide", "-j", "1", cwd=root)
    terminal.until("leave it open:")
    said, _ = start("stop", cwd=root).communicate(timeout=60)
    assert "has stopped" in said
    assert terminal.end() == 3, terminal.said


def test_watch_on_a_terminal_is_left_by_ctrl_c(root: Path, gate: Path) -> None:
    plan_of(root, gate, TWO)
    run = Json(root, "run")
    run.until_said("first", "begun")
    terminal = Terminal("watch", cwd=root)
    terminal.until("Ctrl-C leaves; the run goes on")
    terminal.until("begun")
    terminal.type("\x03")
    assert terminal.end() == 0, terminal.said
    assert run.process.poll() is None
    gate.touch()
    assert run.end()["exit_code"] == 0


def test_clean_asks_on_a_terminal(root: Path, gate: Path) -> None:
    plan_of(root, gate, "tasks: {a: {run: touch a}}")
    assert run_cli("run", "--land").exit_code == 0
    terminal = Terminal("clean", cwd=root)
    terminal.until("[y/N]")
    terminal.type("n\n")
    assert terminal.end() == 0
    assert "nothing was removed" in terminal.said
    terminal = Terminal("clean", cwd=root)
    terminal.until("[y/N]")
    terminal.type("y\n")
    assert terminal.end() == 0
    assert "removed 2 of 2" in terminal.said


def test_a_pipe_that_closed_is_no_bug(root: Path, gate: Path) -> None:
    read, written = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "agentful", "completion", "bash"]
    process = subprocess.Popen(argv, cwd=root, stdout=written, stderr=subprocess.PIPE, text=True)
    os.close(written)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == ""
