"""One run from its beginning to its end: where it runs, what others ask of it, and what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agentful.core.scheduler import RETRY, SKIP
from agentful.drivers.base import AgentMessage
from agentful.errors import AgentfulError, ConfigError, GitError, JournalError, PlanError, RunLocked
from agentful.events import DecisionOpened, TaskChanged, Trigger
from agentful.model import Options, Reason, State, Task
from agentful.runtime import proctree
from agentful.runtime.git import Repository
from agentful.runtime.inbox import Inbox
from agentful.runtime.run import LiveRun, RunSpec, folder_of, inbox_of, journal_of
from agentful.runtime.workspace import Workspaces
from gitutil import commit, git, make_repo, state_of
from runutil import Ran, carry_out, enter, resume, sh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from agentful.events import Transition

OPTIONS = Options(max_concurrency=2, retries=0, retry_delay=0.01, on_conflict="fail", on_failure="fail")
PAINTER = (
    'if grep -q blue "$AGENTFUL_PROMPT_FILE"; then echo blue > colour; else echo "::ask Which colour?"; fi'
)
ONE = [Task(id="t", run="echo t > t")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo", {"a.txt": "a\n"})


def create(root: Path, *tasks: Task, **more: Any) -> LiveRun:
    spec = RunSpec(tasks=tasks or tuple(ONE), options=more.pop("options", OPTIONS))
    return LiveRun.create(Repository.discover(root), spec, **more)


def changed(changes: Sequence[Transition], trigger: Trigger, task: str | None = None) -> bool:
    return any(
        isinstance(c, TaskChanged) and c.trigger is trigger and task in (None, c.task_id) for c in changes
    )


class Outside(threading.Thread):
    """Somebody else, with a connection of their own, who asks things of a live run and waits for answers."""

    def __init__(self, run: LiveRun, *requests: tuple[str, Any], then: Callable[[], object] | None = None):
        super().__init__(daemon=True)
        self.repo, self.id, self.requests, self.then = run.repo, run.info.id, requests, then
        self.answers: list[Any] = []

    def run(self) -> None:
        with journal_of(self.repo) as journal:
            inbox = inbox_of(self.repo, journal, self.id)
            for kind, payload in self.requests:
                request = inbox.wait(inbox.send(kind, payload), 30)
                self.answers.append(request.answer if request else "no answer")
        if self.then is not None:
            self.then()


def outside(
    trigger: Trigger,
    *requests: tuple[str, Any],
    then: Callable[[], object] | None = None,
    task: str | None = None,
) -> tuple[Callable[..., None], list[Outside]]:
    """What to hand to a run so that others ask for these things when this happens."""
    started: list[Outside] = []

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        if not started and changed(changes, trigger, task):
            started.append(Outside(run, *requests, then=then))
            started[0].start()

    return act, started


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A FIFO: whoever reads it waits until it is opened."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


_HELD: list[int] = []
"""Kept open, or what was written would be gone before it is read."""


def opening(gate: Path) -> Callable[[], object]:
    def open_() -> None:
        # For both, so that it waits for nobody: where no reader is left, nothing is to be opened.
        fd = os.open(gate, os.O_RDWR)
        os.write(fd, b"go\n")
        _HELD.append(fd)

    return open_


# --- where it runs --------------------------------------------------------------------------------


def test_nothing_of_the_users_changes_but_the_hidden_folder(root: Path) -> None:
    (root / "a.txt").write_text("mine\n")
    (root / "new").write_text("mine\n")
    git(root, "add", "new")
    git(root, "stash", "list")
    before = state_of(root)
    ran = carry_out(root, ONE, options=OPTIONS)
    after = state_of(root)
    assert ran["t"].ok
    assert ran.files() == {"a.txt": "a", "t": "t"}, "from what is committed"
    assert after[0].replace("!! .agentful/", "").split() == before[0].split()
    assert after[2:] == before[2:]
    assert "/.agentful" in (root / ".git" / "info" / "exclude").read_text()
    assert git(root, "status", "--porcelain").split() == ["M", "a.txt", "A", "new"]
    assert (root / ".agentful").stat().st_mode & 0o077 == 0, "nobody else may read what agents print"
    carry_out(root, ONE, options=OPTIONS)
    assert (root / ".git" / "info" / "exclude").read_text().count("/.agentful") == 1


@pytest.mark.parametrize("how", ["detached", "subfolder", "worktree", "space", "sha256"])
def test_wherever_it_is_started(tmp_path: Path, how: str) -> None:
    options = ("--object-format=sha256",) if how == "sha256" else ()
    root = make_repo(
        tmp_path / ("re po é" if how == "space" else "repo"), {"sub/a.txt": "a\n"}, options=options
    )
    where = root
    if how == "detached":
        git(root, "checkout", "-q", "--detach")
    elif how == "subfolder":
        where = root / "sub"
    elif how == "worktree":
        where = tmp_path / "linked"
        git(root, "worktree", "add", "-q", "-b", "other", str(where))
    ran = carry_out(where, ONE, options=OPTIONS)
    assert ran["t"].ok, ran["t"].message
    assert ran.files() == {"sub/a.txt": "a", "t": "t"}
    assert folder_of(ran.repo) == root / ".agentful"
    assert git(where, "status", "--porcelain") == ""


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q")
    with pytest.raises(AgentfulError):
        create(root)
    assert not (root / ".agentful" / "journal.db").exists()


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Repository.discover(tmp_path)


def test_an_impossible_plan_leaves_no_trace(root: Path) -> None:
    before = state_of(root)
    with pytest.raises(PlanError):
        create(root, Task(id="a", run="x", needs=("b",)), Task(id="b", run="x", needs=("a",)))
    with pytest.raises(GitError):
        LiveRun.create(Repository.discover(root), RunSpec(tasks=tuple(ONE), base="no-such-revision"))
    assert state_of(root) == before


def test_it_begins_at_the_revision_that_is_asked_for(root: Path) -> None:
    first = git(root, "rev-parse", "HEAD")
    commit(root, "later", {"later": "x\n"})
    run = LiveRun.create(Repository.discover(root), RunSpec(tasks=tuple(ONE), base="HEAD~1"))
    assert run.info.base == first
    assert enter(run).files() == {"a.txt": "a", "t": "t"}


def test_two_runs_at_once_in_one_repository(root: Path, gate: Path) -> None:
    other: list[Ran] = []
    started: list[threading.Thread] = []

    def carry() -> None:
        try:
            other.append(carry_out(root, [Task(id="t", run="echo second > second")], options=OPTIONS))
        finally:
            opening(gate)()

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        if not started and changed(changes, Trigger.STARTED):
            started.append(threading.Thread(target=carry, daemon=True))
            started[0].start()

    tasks = [Task(id="t", run=f"read x < {gate}; echo first > first")]
    ran = carry_out(root, tasks, options=OPTIONS, act=act)
    assert ran["t"].ok
    assert ran.files() == {"a.txt": "a", "first": "first"}
    assert other[0]["t"].ok
    assert ran.files(other[0].branch) == {"a.txt": "a", "second": "second"}


def test_a_run_is_carried_out_by_one_process_at_a_time(root: Path) -> None:
    refused: list[str] = []

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        with pytest.raises(RunLocked) as raised:
            LiveRun.resume(run.repo, run.info.id)
        refused.append(str(raised.value))
        code = (
            "import sys; from agentful.runtime.run import *; from agentful.runtime.git import Repository\n"
            f"LiveRun.resume(Repository.discover({str(root)!r}), {run.info.id!r})"
        )
        if len(refused) == 1:
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            assert "RunLocked" in done.stderr

    ran = carry_out(root, ONE, options=OPTIONS, act=act)
    assert ran["t"].ok
    assert str(os.getpid()) in refused[0]
    with pytest.raises(JournalError):
        LiveRun.resume(ran.repo, "r-none")
    assert resume(root, ran.id)["t"].ok, "once it has ended, it may be"


# --- stopping and going on ------------------------------------------------------------------------


def test_drain_from_outside(root: Path, gate: Path) -> None:
    tasks = [Task(id="a", run=f"read x < {gate}; echo a > a"), Task(id="b", run="echo b > b", needs=("a",))]
    act, others = outside(Trigger.STARTED, ("stop", {"mode": "drain"}), then=opening(gate))
    ran = carry_out(root, tasks, options=OPTIONS, act=act)
    assert others[0].answers == [{"ok": True}]
    assert (ran["a"].state, ran["b"].state) == (State.SUCCEEDED, State.READY)
    again = resume(root, ran.id)
    assert again["b"].ok
    assert again.triggers("a") == []


def test_stop_from_outside_and_resume_with_other_options(root: Path, gate: Path) -> None:
    note = f'echo "$AGENTFUL_TASK" >> {root.parent}/starts; echo part > $AGENTFUL_TASK.part'
    tasks = [
        Task(
            id=i, run=f"{note}; if [ ! -e {root.parent}/again ]; then echo hi; sleep 1000; fi; echo {i} > {i}"
        )
        for i in ("a", "b")
    ]
    act, others = outside(Trigger.STARTED, ("stop", {"mode": "stop"}))
    ran = carry_out(root, tasks, options=OPTIONS, act=act)
    assert others[0].answers == [{"ok": True}]
    assert {ran[i].state for i in ("a", "b")} == {State.READY}
    assert not proctree.marked(ran.id)
    (root.parent / "again").touch()
    again = resume(root, ran.id, options=lambda o: Options(max_concurrency=1, checks=("false",), retries=0))
    assert {again[i].reason for i in ("a", "b")} == {Reason.CHECKS_FAILED}
    with journal_of(again.repo) as journal:
        info = journal.find(again.id)
    assert (info.options.max_concurrency, info.options.checks) == (1, ("false",))


def test_pause_and_unpause_from_outside(root: Path, gate: Path) -> None:
    tasks = [Task(id="a", run=f"read x < {gate}; echo a > a"), Task(id="b", run="echo b > b", needs=("a",))]
    act, others = outside(Trigger.STARTED, ("pause", None), ("unpause", None), then=opening(gate))
    ran = carry_out(root, tasks, options=OPTIONS, act=act)
    assert others[0].answers == [{"ok": True}] * 2
    assert ran["b"].ok


def test_cancel_retry_and_nonsense_from_outside(root: Path, gate: Path) -> None:
    tasks = [
        Task(id="slow", run=f"read x < {gate}; echo slow > slow"),
        Task(id="bad", run="exit 1"),
        Task(id="later", run="echo later > later", needs=("slow",)),
    ]
    nonsense = [
        ("cancel", {"tasks": ["nobody"]}),
        ("cancel", {"tasks": 7}),
        ("cancel", {"tasks": [["later"]]}),
        ("cancel", {"tasks": "later"}),
        ("cancel", ["later"]),
        ("retry", {}),
        ("retry", {"tasks": ["nobody"]}),
        ("retry", {"tasks": None}),
        ("retry", {"tasks": "bad"}),
        ("retry", {"tasks": {"bad": 1}}),
        ("decide", {"id": "d-none", "answer": "x"}),
        ("decide", {"id": []}),
        ("decide", None),
        ("stop", {"mode": "sideways"}),
        ("make coffee", {"sugar": True}),
        ("", None),
    ]
    act, others = outside(
        Trigger.GAVE_UP,
        *nonsense,
        ("cancel", {"tasks": ["later"]}),
        ("retry", {"tasks": ["bad"]}),
        then=opening(gate),
        task="bad",
    )
    ran = carry_out(root, tasks, options=OPTIONS, act=act)
    others[0].join(30)
    answers = others[0].answers
    for request, answer in zip(nonsense, answers, strict=False):
        assert answer["ok"] is False, request
        assert answer["error"], request
    assert answers[len(nonsense) :] == [{"ok": True}] * 2
    assert ran["slow"].ok
    assert ran["later"].state is State.CANCELLED
    assert ran.triggers("bad").count("started") == 2


def test_a_decision_is_answered_from_outside(root: Path, gate: Path) -> None:
    others: list[Outside] = []

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        for change in changes:
            if isinstance(change, DecisionOpened):
                asked = {"id": change.decision.id, "answer": "blue"}
                others.append(Outside(run, ("decide", asked), ("decide", asked), then=opening(gate)))
                others[0].start()

    tasks = [Task("painter", "paint", id="p"), Task(id="slow", run=f"read x < {gate}; echo s > s")]
    ran = carry_out(root, tasks, agents=[sh("painter", PAINTER)], options=OPTIONS, act=act)
    assert ran["p"].ok
    assert ran.files()["colour"] == "blue"
    assert others[0].answers[0] == {"ok": True}
    assert others[0].answers[1]["ok"] is False


@pytest.mark.parametrize("edit", ["answer", "broken"])
def test_a_decision_is_answered_in_the_file_between_two_runs(root: Path, edit: str) -> None:
    ran = carry_out(
        root, [Task("painter", "paint", id="p")], agents=[sh("painter", PAINTER)], options=OPTIONS
    )
    assert ran["p"].state is State.BLOCKED
    path = root / ".agentful" / "decisions.json"
    document = json.loads(path.read_text())
    if edit == "answer":
        document["decisions"][0] |= {"status": "resolved", "resolution": "blue"}
        path.write_text(json.dumps(document))
        again = resume(root, ran.id)
        assert again["p"].ok
        assert again.files()["colour"] == "blue"
    else:
        path.write_text('{"decisions": [')
        os.utime(path, (1, 1))  # one that is quite new may still be being written
        again = resume(root, ran.id)
        assert again["p"].state is State.BLOCKED
        assert any("decisions.json" in problem for problem in again.problems)
        assert json.loads(path.read_text())["decisions"][0]["status"] == "pending"
        assert list(path.parent.glob("decisions*backup*")), "and what was there is kept aside"


def test_requests_that_came_while_nobody_listened(root: Path) -> None:
    ran = carry_out(root, [Task(id="bad", run="exit 1")], options=OPTIONS)
    with journal_of(ran.repo) as journal:
        sent = inbox_of(ran.repo, journal, ran.id).send("retry", {"tasks": ["bad"]})
        again = resume(root, ran.id)
        request = journal.request(sent)
    assert request is not None
    assert request.answer == {"ok": True}
    assert "started" in again.triggers("bad")


def test_a_request_that_cannot_be_answered_ends_nothing(root: Path, gate: Path, monkeypatch: Any) -> None:
    def done(self: Inbox, request: Any, answer: Any = None) -> None:
        opening(gate)()
        raise JournalError("the disk is full")

    monkeypatch.setattr(Inbox, "done", done)

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        if changed(changes, Trigger.STARTED):
            with journal_of(run.repo) as journal:
                inbox_of(run.repo, journal, run.info.id).send("pause")

    ran = carry_out(root, [Task(id="a", run=f"read x < {gate}; echo a > a")], options=OPTIONS, act=act)
    assert ran["a"].ok
    assert any("disk is full" in problem for problem in ran.problems)


# --- cancelling, failing fast, time ---------------------------------------------------------------


@pytest.mark.parametrize(
    "trigger", [Trigger.NEEDS_MET, Trigger.STARTED, Trigger.FINISHED, Trigger.PREPARED, Trigger.LANDED]
)
def test_cancel_in_every_state(root: Path, trigger: Trigger) -> None:
    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        if changed(changes, trigger, "a"):
            run.cancel()

    options = Options(max_concurrency=1, checks=("test -e a.txt",), retries=0)
    tasks = [Task(id="a", run="echo a > a"), Task(id="b", run="echo b > b", needs=("a",))]
    ran = carry_out(root, tasks, options=options, act=act)
    assert not proctree.marked(ran.id)
    states = (ran["a"].state, ran["b"].state)
    assert all(state.settled for state in states)
    assert ("a" in ran.files()) == (ran["a"].state is State.SUCCEEDED), "in the branch if and only if landed"
    assert ran["b"].state in (State.CANCELLED, State.SKIPPED)
    kept = ran.from_journal()
    assert (kept.records["a"].state, kept.records["b"].state) == states
    assert not Workspaces(ran.repo, ran.id).existing()


def test_a_check_is_stopped_by_a_cancel(root: Path, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    os.mkfifo(flag)

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        if changed(changes, Trigger.FINISHED, "a"):

            def when_it_runs() -> None:
                flag.read_text()
                with journal_of(run.repo) as journal:
                    inbox_of(run.repo, journal, run.info.id).send("cancel", {"tasks": None})

            threading.Thread(target=when_it_runs, daemon=True).start()

    options = Options(checks=(f"echo x > {flag}; sleep 1000",), retries=0)
    ran = carry_out(root, [Task(id="a", run="echo a > a")], options=options, act=act)
    assert ran["a"].state is State.CANCELLED
    assert "a" not in ran.files()
    assert not proctree.marked(ran.id)
    assert not Workspaces(ran.repo, ran.id).existing()


def test_fail_fast_pins_partial_work(root: Path, gate: Path) -> None:
    tasks = [
        Task(id="slow", run=f"echo part > part; echo x > {gate}; sleep 1000"),
        Task(id="bad", run=f"read x < {gate}; exit 1"),
    ]
    options = Options(max_concurrency=2, fail_fast=True, retries=0, on_failure="fail")
    ran = carry_out(root, tasks, options=options)
    assert ran["bad"].state is State.FAILED
    assert ran["slow"].state is State.CANCELLED
    assert ran["slow"].commit is not None
    assert ran.files(ran["slow"].commit)["part"] == "part"


def test_the_time_of_a_task_and_of_the_run(root: Path) -> None:
    ran = carry_out(root, [Task(id="t", run="echo part > part; sleep 1000", timeout=0.3)], options=OPTIONS)
    assert (ran["t"].state, ran["t"].reason) == (State.FAILED, Reason.TIMEOUT)
    assert ran["t"].commit is not None
    options = Options(timeout=0.3, retries=0)
    ran = carry_out(
        root, [Task(id="t", run="sleep 1000"), Task(id="u", run="x", needs=("t",))], options=options
    )
    assert not ran["t"].ok
    assert not ran["u"].ok
    assert ran["t"].state.settled
    assert ran["u"].state.settled
    assert not proctree.marked(ran.id)


# --- the state files ------------------------------------------------------------------------------


def test_state_files_can_be_read_at_any_instant_and_are_true_at_the_end(root: Path) -> None:
    names = ("state.json", "completion.json", "decisions.json")
    ended = threading.Event()
    read = [0]
    trouble: list[str] = []

    def reader() -> None:
        while not ended.is_set():
            for name in names:
                try:
                    document = json.loads((root / ".agentful" / name).read_text())
                except FileNotFoundError:
                    continue
                except ValueError as error:
                    trouble.append(f"{name}: {error}")
                else:
                    read[0] += isinstance(document, dict)

    thread = threading.Thread(target=reader)
    thread.start()
    tasks = [Task(id=f"t{n}", run=f"echo {n} > f{n}; [ {n} != 3 ]") for n in range(6)]
    try:
        ran = carry_out(root, tasks, options=OPTIONS)
    finally:
        ended.set()
        thread.join()
    assert trouble == []
    assert read[0] > 0
    features = json.loads((root / ".agentful" / "completion.json").read_text())["features"]
    assert {i for i, f in features.items() if f["status"] == "complete"} == {f"t{n}" for n in (0, 1, 2, 4, 5)}
    assert ran.from_journal().records["t3"].state is State.FAILED


# --- the disk is full -----------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MB, to be root for."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can make a small disk to fill")
    args = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if subprocess.run(args, capture_output=True, check=False).returncode != 0:
        pytest.skip("this root may not mount a small disk to fill")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("where", ["repository", "workspaces", "both"])
def test_a_full_disk(small: Path, tmp_path: Path, where: str, monkeypatch: Any, capfd: Any) -> None:
    root = make_repo((tmp_path if where == "workspaces" else small) / "repo", {"a.txt": "a\n"})
    if where != "repository":
        monkeypatch.setenv("AGENTFUL_WORKSPACES", str(small / "w"))
    ballast = small / "ballast"
    fill = f"if [ ! -e {tmp_path}/filled ]; then touch {tmp_path}/filled; cat /dev/zero > {ballast}; fi"
    tasks = [
        Task(id="before", run="echo before > before"),
        Task(id="full", run=f"echo full > full; {fill} 2>/dev/null; true", needs=("before",)),
        Task(id="after", run="echo after > after", needs=("full",)),
    ]
    run = create(root, *tasks, options=Options(max_concurrency=1, retry_delay=0.01, retries=0))
    try:
        enter(run)
    except AgentfulError as error:
        assert "full" in str(error) or "space" in str(error)  # noqa: PT017
    assert "Traceback" not in capfd.readouterr().err
    ballast.unlink()
    again = resume(root, run.info.id)
    if not again["after"].ok:
        with journal_of(again.repo) as journal:
            inbox_of(again.repo, journal, again.id).send("retry", {"tasks": ["full"]})
        again = resume(root, run.info.id)
    assert again["after"].ok, (again["full"].message, again["after"].message)
    assert again.files() == {"a.txt": "a", "before": "before", "full": "full", "after": "after"}
    subjects = again.log()
    assert len(subjects) == len(set(subjects)) == 3
    assert git(root, "fsck", "--connectivity-only", "--no-dangling", check=False) == ""
    assert "Traceback" not in capfd.readouterr().err


# --- what a watcher may do ------------------------------------------------------------------------


def test_a_watcher_that_raises_ends_the_run_and_a_resume_goes_on(root: Path) -> None:
    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        if changed(changes, Trigger.FINISHED):
            raise ZeroDivisionError

    run = create(root)
    with pytest.raises(ZeroDivisionError):
        enter(run, act)
    assert not proctree.marked(run.info.id)
    again = resume(root, run.info.id)
    assert again["t"].ok
    assert again["t"].attempts == 1
    assert again.log() == ["echo t > t"]


def test_leaving_early_keeps_what_there_is(root: Path) -> None:
    class Enough(Exception):
        pass

    def watch(run: LiveRun, changes: Sequence[Transition]) -> None:
        if changed(changes, Trigger.STARTED):
            run.on_progress(lambda _task, event: enough(run) if isinstance(event, AgentMessage) else None)

    def enough(run: LiveRun) -> None:
        run.engine.error = Enough()
        run.engine._end()

    tasks = [Task(id="t", run="echo part > part; echo here; sleep 1000")]
    run = create(root, *tasks)
    with pytest.raises(Enough):
        enter(run, watch)
    assert not proctree.marked(run.info.id)
    pin = run.repo.ref(f"refs/agentful/{run.info.id}/t/1")
    assert pin is not None
    assert git(root, "show", f"{pin}:part") == "part"


def test_answers_of_the_failure_decision(root: Path) -> None:
    answers = iter([RETRY, SKIP])

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        for change in changes:
            if isinstance(change, DecisionOpened):
                run.answer(change.decision.id, next(answers))

    options = Options(retries=0, retry_delay=0.01, on_failure="decide")
    ran = carry_out(root, [Task(id="bad", run="exit 1")], options=options, act=act)
    assert (ran["bad"].state, ran.triggers("bad").count("started")) == (State.SKIPPED, 2)
