"""Killed at exactly this instruction, then resumed: what had ended is not run again, and lands once.

Each test starts this file as a program, which carries a run out and kills itself at the given point.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentful.core.view import RunView
from agentful.errors import JournalError
from agentful.events import TaskChanged, Trigger
from agentful.model import Options, State, Task
from agentful.runtime import proctree
from agentful.runtime.attempt import Attempts
from agentful.runtime.git import Repository
from agentful.runtime.journal import JournalFile, SqliteJournal
from agentful.runtime.landing import Landings
from agentful.runtime.run import BRANCHES, LiveRun, RunSpec, journal_of
from agentful.runtime.workspace import Workspaces
from gitutil import git, make_repo, state_of
from runutil import Ran, enter, resume

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = "r-crash"
OPTIONS = Options(max_concurrency=2, checks=("test -f a.txt",), retry_delay=0.01, on_conflict="fail")


def tasks_of(root: Path) -> tuple[Task, ...]:
    """Every start is one line in a file outside; the first start of ``slow`` does not end by itself."""
    place = root.parent
    note = f'echo "$AGENTFUL_TASK" >> {place}/starts'
    slow = f"{note}; echo part > part.txt; if [ ! -e {place}/again ]; then echo at work; sleep 1000; fi"
    return (
        Task(id="one", run=f"{note}; echo one > one.txt"),
        Task(id="two", run=f"{note}; echo two > two.txt", needs=("one",)),
        Task(id="slow", run=f"{slow}; echo whole > slow.txt", needs=("two",)),
    )


# --- the program that dies ------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()  # a thread may get this far before the whole process is gone


def around(owner: type, name: str, at: Callable[..., bool], *, before: bool = False) -> None:
    """Die before or after a call of a method, where ``at`` says so of its arguments."""
    real = getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        if before and at(*args, **kwargs):
            die()
        value = real(*args, **kwargs)
        if not before and at(*args, **kwargs):
            die()
        return value

    setattr(owner, name, dying)


def around_async(owner: type, name: str) -> None:
    real = getattr(owner, name)

    async def dying(*args: Any, **kwargs: Any) -> Any:
        value = await real(*args, **kwargs)
        die()
        return value

    setattr(owner, name, dying)


def writes(trigger: Trigger) -> Callable[..., bool]:
    return lambda _journal, steps: any(isinstance(t, TaskChanged) and t.trigger is trigger for t in steps)


def lands(_repo: Repository, name: str, *_: object, message: str = "") -> bool:
    return name.startswith(BRANCHES) and "land" in message


def always(*_: object, **__: object) -> bool:
    return True


def progress(run: LiveRun) -> None:
    run.on_progress(lambda task, _event: die() if task == "slow" else None)


POINTS: dict[str, Callable[[], None]] = {
    "row": lambda: around(JournalFile, "create_run", always),
    "branch": lambda: around(Repository, "update_ref", lambda *_, message="": "begin" in message),
    "submitted": lambda: around(SqliteJournal, "append", always),
    "opened": lambda: around(Workspaces, "open", always),
    "pinned": lambda: around(Workspaces, "keep", always),
    "finished": lambda: around(SqliteJournal, "append", writes(Trigger.FINISHED)),
    "checked": lambda: around_async(Landings, "check"),
    "before prepared": lambda: around(SqliteJournal, "append", writes(Trigger.PREPARED), before=True),
    "prepared": lambda: around(SqliteJournal, "append", writes(Trigger.PREPARED)),
    "before moved": lambda: around(Repository, "update_ref", lands, before=True),
    "moved": lambda: around(Repository, "update_ref", lands),
    "before landed": lambda: around(SqliteJournal, "append", writes(Trigger.LANDED), before=True),
    "landed": lambda: around(SqliteJournal, "append", writes(Trigger.LANDED)),
    # While it takes up a run that had been killed before:
    "swept": lambda: around(LiveRun, "_clear_up", always),
    "recovered": lambda: around_async(Attempts, "recover"),
    "resumed": lambda: around(SqliteJournal, "append", always),
}


def count_down(number: int) -> None:
    """Die at the so-manieth moment at which something becomes durable, just before it or just after."""
    left = [number]

    def at(*_: object, **__: object) -> bool:
        left[0] -= 1
        return left[0] == 0

    for owner, name in ((SqliteJournal, "append"), (Repository, "update_ref"), (JournalFile, "create_run")):
        around(owner, name, at, before=True)
        around(owner, name, at)


def main(point: str, root: Path, again: bool) -> None:
    count_down(int(point)) if point.isdigit() else POINTS.get(point, lambda: None)()
    repo = Repository.discover(root)
    if again:
        run = LiveRun.resume(repo, RUN)
    else:
        run = LiveRun.create(repo, RunSpec(tasks=tasks_of(root), options=OPTIONS), run_id=RUN)
    if point == "at work":
        progress(run)
    enter(run)


# --- the tests ------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo", {"a.txt": "a\n"})


def die_at(root: Path, point: str | int, *, again: bool = False) -> bool:
    """Whether it died; else it ended well."""
    done = subprocess.run(
        [sys.executable, __file__, str(point), root, "again" if again else ""],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode != 0


def starts(root: Path) -> Counter[str]:
    file = root.parent / "starts"
    return Counter(file.read_text().split() if file.exists() else [])


def the_users(root: Path) -> tuple[str, ...]:
    """Status, branch, configuration and index of the user's."""
    status, _, head, config, index, _ = state_of(root)
    return status.replace("!! .agentful/", "").strip(), head, config, index


def go_on(root: Path) -> None:
    """From now on, ``slow`` ends by itself."""
    (root.parent / "again").touch()


def assert_all_landed_once(root: Path, ran: Ran) -> None:
    assert [ran[i].state for i in ("one", "two", "slow")] == [State.SUCCEEDED] * 3
    keys = [c.trailers["Task-Key"] for c in ran.repo.commits(f"main..{ran.branch}")]
    assert sorted(keys) == sorted(f"{RUN}/{i}" for i in ("one", "two", "slow"))
    assert ran.files() == {
        "a.txt": "a",
        "one.txt": "one",
        "two.txt": "two",
        "part.txt": "part",
        "slow.txt": "whole",
    }
    assert not proctree.marked(RUN)
    kept = ran.from_journal()
    assert {i: r.tell() for i, r in kept.records.items()} == {
        i: r.tell() for i, r in ran.view.records.items()
    }
    assert not Workspaces(ran.repo, RUN).existing()
    assert git(root, "fsck", "--connectivity-only", "--no-dangling", check=False) == ""


@pytest.mark.parametrize(
    ("point", "ended"),
    [
        ("submitted", False),
        ("opened", False),
        ("pinned", True),
        ("finished", True),
        ("checked", True),
        ("before prepared", True),
        ("prepared", True),
        ("before moved", True),
        ("moved", True),
        ("before landed", True),
        ("landed", True),
    ],
)
def test_killed_there_it_goes_on(root: Path, point: str, ended: bool) -> None:
    go_on(root)
    before = the_users(root)
    assert die_at(root, point)
    assert starts(root) == ({"one": 1} if ended else {})
    ran = resume(root, RUN)
    assert_all_landed_once(root, ran)
    assert starts(root) == {"one": 1, "two": 1, "slow": 1}, "what had ended is not run again"
    assert ran["one"].attempts == (1 if ended else 2)
    assert the_users(root) == before


@pytest.mark.parametrize("point", ["row", "branch"])
def test_killed_before_there_was_a_task(root: Path, point: str) -> None:
    """Nothing had been promised yet: no trace is left, and a new run begins."""
    assert die_at(root, point)
    ran = resume(root, RUN)
    assert ran.view.total == 0
    assert ran.repo.refs("refs/heads/agentful/") == {}
    with journal_of(ran.repo) as journal:
        assert journal.run(RUN) is None
        with pytest.raises(JournalError):
            journal.find(RUN)
    assert starts(root) == {}


def test_killed_at_work_its_partial_work_is_pinned_and_it_runs_again(root: Path) -> None:
    assert die_at(root, "at work")
    assert starts(root) == {"one": 1, "two": 1, "slow": 1}
    go_on(root)
    ran = resume(root, RUN)
    assert_all_landed_once(root, ran)
    assert starts(root) == {"one": 1, "two": 1, "slow": 2}
    pin = ran.repo.ref(f"refs/agentful/{RUN}/slow/1")
    assert pin is not None
    assert ran.files(pin)["part.txt"] == "part"
    assert "slow.txt" not in ran.files(pin)
    assert ran.triggers("slow") == ["lost", "started", "finished", "prepared", "landed"]


@pytest.mark.parametrize("point", ["swept", "recovered", "resumed"])
def test_killed_while_resuming(root: Path, point: str) -> None:
    assert die_at(root, "at work")
    go_on(root)
    for _ in range(2):
        assert die_at(root, point, again=True)
        assert starts(root)["slow"] == 1 or point == "resumed"
    ran = resume(root, RUN)
    assert_all_landed_once(root, ran)
    assert (starts(root)["one"], starts(root)["two"]) == (1, 1)
    assert ran.repo.ref(f"refs/agentful/{RUN}/slow/1") is not None


def test_an_ended_attempt_is_recovered_also_when_that_is_killed(root: Path) -> None:
    go_on(root)
    assert die_at(root, "pinned")
    assert die_at(root, "recovered", again=True)
    assert die_at(root, "resumed", again=True)
    ran = resume(root, RUN)
    assert_all_landed_once(root, ran)
    assert starts(root) == {"one": 1, "two": 1, "slow": 1}


@pytest.mark.slow
def test_killed_at_every_moment_that_something_becomes_durable(tmp_path: Path) -> None:
    number = 1
    while True:
        root = make_repo(tmp_path / str(number) / "repo", {"a.txt": "a\n"})
        go_on(root)
        if not die_at(root, number):
            break
        repo = Repository.discover(root)
        with journal_of(repo) as journal:
            there = journal.run(RUN) is not None and RunView(journal.read(RUN)[0]).total == 3
        if there:
            ran = resume(root, RUN)
            assert_all_landed_once(root, ran)
            # Only who is killed between an agent's end and its pin has to run it again.
            assert sum(starts(root).values()) <= 4
        else:
            assert starts(root) == {}
        number += 1
    assert number > 30


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), bool(sys.argv[3]))
