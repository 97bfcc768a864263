"""One attempt: agents that misbehave in every way we know, and what is kept of their work."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentful.drivers.base import AgentMessage, Outcome
from agentful.drivers.python import PythonDriver
from agentful.errors import GitError, WorkspaceError
from agentful.events import DecisionOpened, TaskChanged, Trigger
from agentful.model import Agent, Options, Reason, State, Task
from agentful.runtime import logs, proctree
from agentful.runtime.attempt import Tail
from agentful.runtime.snapshot import Inspector
from agentful.runtime.workspace import Workspaces
from gitutil import git, make_repo, state_of
from runutil import Ran, carry_out, resume, sh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentful.drivers.base import Attempt
    from agentful.events import Transition
    from agentful.runtime.run import LiveRun

PYTHON = sys.executable
ONCE = Options(retries=0, retry_delay=0.01, on_conflict="fail")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo", {"a.txt": "a\n", "src/b.txt": "b\n"})


def one(root: Path, script: str, **fields: Any) -> Ran:
    """Carry out a single agent that is this script."""
    options = fields.pop("options", ONCE)
    act = fields.pop("act", None)
    return carry_out(
        root,
        [Task("agent", "do it", id="t", **fields)],
        agents=[sh("agent", script)],
        options=options,
        act=act,
    )


def log_of(root: Path, run: str, name: str = "t.1") -> list[dict[str, Any]]:
    return list(logs.read(root / ".agentful" / "logs" / run / f"{name}.jsonl"))


def when(trigger: Trigger, then: Callable[[LiveRun], object]) -> Callable[..., None]:
    """Do something the first time that this happens."""
    done: list[bool] = []

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        for change in changes:
            if isinstance(change, TaskChanged) and change.trigger is trigger and not done:
                done.append(True)
                then(run)

    return act


# --- what is printed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("w(b'x' * 99 + b'\\n') or 0 for _ in range(300_000)", id="30 MB of lines"),
        pytest.param("w(b'x' * 1_000_000) for _ in range(50)", id="one line of 50 MB"),
        pytest.param("w(bytes(range(256))) for _ in range(2_000)", id="binary"),
        pytest.param("w(b'\\n' * 1000) for _ in range(100)", id="empty lines"),
        pytest.param("w(b'\\xff\\xfe\\x00::progress \\xff\\n{\"type\":') for _ in range(100)", id="torn"),
    ],
)
def test_prints(root: Path, code: str) -> None:
    ran = one(root, f'{PYTHON} -c "import sys; w = sys.stdout.buffer.write; [{code}]" && echo t > t')
    assert ran["t"].ok, ran["t"].message
    log = root / ".agentful" / "logs" / ran.id / "t.1.jsonl"
    assert log.stat().st_size <= logs.MOST + 4096
    assert all(isinstance(entry, dict) for entry in logs.read(log))


@pytest.mark.slow
def test_prints_100_megabytes(root: Path) -> None:
    code = "import sys; [sys.stdout.write('x' * 999 + chr(10)) for _ in range(100_000)]"
    ran = one(root, f'{PYTHON} -c "{code}" && echo t > t')
    assert ran["t"].ok
    log = root / ".agentful" / "logs" / ran.id / "t.1.jsonl"
    assert log.stat().st_size <= logs.MOST + 4096
    assert "too much" in list(logs.read(log))[-1]["note"]


def test_prints_nothing_and_does_something(root: Path) -> None:
    ran = one(root, "echo t > t")
    assert ran["t"].ok
    assert [e["type"] for e in log_of(root, ran.id) if "type" in e] == ["attempt"]


def test_the_tail_is_bounded() -> None:
    tail = Tail(lines=3, width=5)
    for number in range(1000):
        tail.add(f"{number} and more")
    assert tail.text() == "997 a\n998 a\n999 a"


def test_a_failure_tells_the_end_of_what_was_printed(root: Path) -> None:
    ran = one(root, "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; done; exit 3")
    assert (ran["t"].state, ran["t"].reason) == (State.FAILED, Reason.AGENT_FAILED)
    assert "line 100" in ran["t"].detail
    assert "line 1\n" not in ran["t"].detail


def test_the_next_attempt_is_told_what_went_wrong(root: Path) -> None:
    script = f'cp "$AGENTFUL_PROMPT_FILE" {root.parent}/p$AGENTFUL_ATTEMPT; echo no such luck; exit 3'
    ran = one(root, script, options=Options(retries=1, retry_delay=0.0, on_failure="fail"))
    assert ran["t"].attempts == 2
    assert "no such luck" not in (root.parent / "p1").read_text()
    assert "no such luck" in (root.parent / "p2").read_text()


def test_summary_and_outputs_are_handed_over(root: Path) -> None:
    prompts = root.parent / "prompt"
    agents = [
        sh("first", "echo x > x; echo '::output port 8080'; echo '::summary I made the port configurable'"),
        sh("second", f'cp "$AGENTFUL_PROMPT_FILE" {prompts}; echo y > y'),
    ]
    tasks = [Task("first", "do", id="one"), Task("second", "do", id="two", needs=("one",))]
    ran = carry_out(root, tasks, agents=agents, options=ONCE)
    assert ran["two"].ok
    told = prompts.read_text()
    assert "8080" in told
    assert "I made the port configurable" in told


# --- processes ------------------------------------------------------------------------------------

DAEMONS = (
    "(trap '' TERM HUP; setsid sh -c 'trap \"\" TERM; sleep 1000 & sleep 1000' >/dev/null 2>&1 &) ; "
    f'{PYTHON} -c "import os, time\nif not os.fork():\n os.setsid()\n if not os.fork(): time.sleep(1000)"'
    " >/dev/null 2>&1 & "
    "setsid sleep 1000 & "
)


def test_no_daemon_outlives_its_attempt(root: Path) -> None:
    ran = one(root, f"{DAEMONS} echo t > t; exit 0")
    assert ran["t"].ok
    assert not proctree.marked(ran.id)


def test_no_daemon_outlives_a_cancel_or_a_deaf_agent(root: Path) -> None:
    script = f"trap '' TERM INT HUP; echo part > part; {DAEMONS} echo ready; sleep 1000 & wait; sleep 1000"

    def watch(run: LiveRun) -> None:
        run.on_progress(lambda _task, event: run.cancel() if isinstance(event, AgentMessage) else None)

    ran = one(root, script, act=when(Trigger.STARTED, watch))
    assert (ran["t"].state, ran["t"].reason) == (State.CANCELLED, Reason.CANCELLED)
    assert not proctree.marked(ran.id)
    assert ran["t"].commit is not None
    assert ran.files(ran["t"].commit)["part"] == "part", "its partial work is pinned"


def test_no_daemon_outlives_a_timeout(root: Path) -> None:
    ran = one(root, f"{DAEMONS} echo part > part; sleep 1000", timeout=0.4)
    assert (ran["t"].state, ran["t"].reason) == (State.FAILED, Reason.TIMEOUT)
    assert not proctree.marked(ran.id)
    assert ran["t"].commit is not None
    assert ran.files(ran["t"].commit)["part"] == "part"


@pytest.mark.parametrize("command", ["no-such-agent-anywhere", "/no/such/agent"])
def test_an_agent_that_is_not_there(root: Path, command: str) -> None:
    ran = carry_out(
        root, [Task("gone", "x", id="t")], agents=[Agent(name="gone", command=(command,))], options=ONCE
    )
    assert (ran["t"].state, ran["t"].reason) == (State.FAILED, Reason.AGENT_MISSING)
    assert command in ran["t"].message


def test_asks_and_ends(root: Path) -> None:
    asked: list[str] = []

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        for change in changes:
            if isinstance(change, DecisionOpened):
                asked.append(change.decision.question)
                run.answer(change.decision.id, "tabs")

    script = (
        'if grep -q tabs "$AGENTFUL_PROMPT_FILE"; then echo tabs > style; exit 0; fi; '
        "echo half > half; echo '::ask Tabs or spaces?'; exit 0"
    )
    ran = one(root, script, act=act)
    assert asked == ["Tabs or spaces?"]
    assert ran["t"].ok
    assert ran.files()["style"] == "tabs"
    pin = ran.repo.ref(f"refs/agentful/{ran.id}/t/1")
    assert pin is not None
    assert ran.files(pin)["half"] == "half"


# --- what is done to the workspace ----------------------------------------------------------------

EVIL = "mkdir -p {0}/hooks; printf '#!/bin/sh\\ntouch {1}/evil' > {0}/hooks/{2}; chmod +x {0}/hooks/{2}"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("git add -A; git commit -qm mine", id="commits by itself"),
        pytest.param("git checkout -qb other; git add -A; git commit -qm mine", id="switches branches"),
        pytest.param("git checkout -q --orphan other; git rm -rqf --cached .", id="orphan branch"),
        pytest.param("git stash -uq; git stash pop -q", id="stashes"),
        pytest.param("rm -rf .git", id="deletes .git"),
        pytest.param("rm -rf .git; echo 'gitdir: /tmp/evil' > .git", id="replaces .git by a file"),
        pytest.param("rm -rf .git; ln -s /etc .git", id="replaces .git by a link"),
        pytest.param("echo rubbish > .git/index; echo rubbish > .git/HEAD", id="breaks .git"),
        pytest.param(
            "git config core.fsmonitor 'touch ../evil'; git config core.hooksPath /tmp; "
            "git config filter.x.clean 'touch ../evil; cat'",
            id="writes configuration",
        ),
        pytest.param("touch .git/index.lock; touch .git/HEAD.lock", id="leaves locks"),
    ],
)
def test_whatever_is_done_to_its_git_the_work_lands(root: Path, script: str) -> None:
    before = state_of(root)[2:5]
    ran = one(root, f"echo t > t; echo changed > a.txt; rm src/b.txt; {script}")
    assert ran["t"].ok, (ran["t"].message, ran["t"].detail)
    assert ran.files() == {"a.txt": "changed", "t": "t"}
    assert [c.subject for c in ran.repo.commits(f"main..{ran.branch}")] == ["do it"]
    assert state_of(root)[2:5] == before
    assert not list(root.parent.rglob("evil"))


@pytest.mark.parametrize(
    "hook", ["pre-commit", "post-checkout", "reference-transaction", "post-index-change"]
)
def test_hooks_of_an_agent_run_nowhere(root: Path, hook: str) -> None:
    evil = EVIL.format(".git", root.parent, hook)
    ran = one(root, f"{evil}; echo t > t")
    assert ran["t"].ok
    assert not (root.parent / "evil").exists()


def test_a_nested_repository_is_kept_as_files(root: Path) -> None:
    who = "-c user.name=x -c user.email=x@x"
    ran = one(root, f"mkdir sub; cd sub; git init -q; echo n > n; git add n; git {who} commit -qm n")
    assert ran["t"].ok, ran["t"].message
    assert ran.files()["sub/n"] == "n"


def test_without_write_permission(root: Path) -> None:
    ran = one(root, "echo t > src/t; chmod 500 src; chmod 400 a.txt; chmod 500 .")
    assert ran["t"].ok
    assert ran.files()["src/t"] == "t"
    assert not Workspaces(ran.repo, ran.id).existing(), "and it could be removed"


def test_links_out_of_the_tree_stay_links(root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret\n")
    ran = one(root, f"ln -s {outside} out; ln -s /etc/passwd p; rm -rf src; ln -s {outside} src")
    assert ran["t"].ok
    assert ran.files() == {"a.txt": "a", "out": str(outside), "p": "/etc/passwd", "src": str(outside)}
    assert (outside / "secret").read_text() == "secret\n"


@pytest.mark.parametrize(
    "script", ['rm -rf "$PWD"', 'd="$PWD"; cd ..; rm -rf "$d"; touch "$d"', 'd="$PWD"; cd ..; mv "$d" away']
)
def test_deletes_its_workspace(root: Path, script: str) -> None:
    ran = one(root, f"echo t > t; {script}; exit 0")
    assert (ran["t"].state, ran["t"].reason) == (State.FAILED, Reason.WORKSPACE)
    assert "is gone" in ran["t"].message
    assert git(root, "status", "--porcelain") == ""


# --- functions ------------------------------------------------------------------------------------


def call(root: Path, function: Callable[..., object], act: Any = None, **fields: Any) -> Ran:
    return carry_out(
        root,
        [Task("f", "x", id="t", **fields)],
        agents=[Agent(name="f")],
        options=ONCE,
        driver_for=lambda _agent: PythonDriver(function),
        act=act,
    )


def raising(error: BaseException) -> Callable[[Attempt], None]:
    def function(attempt: Attempt) -> None:
        Path(attempt.workspace, "t").write_text("t")
        raise error

    return function


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        SystemExit(3),
        StopIteration(),
        KeyError("k"),
        OSError("cannot open \udcff.txt"),
        asyncio.CancelledError("its own"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_function_raises_is_a_failure(root: Path, error: BaseException) -> None:
    ran = call(root, raising(error))
    assert ran["t"].state is State.FAILED, ran.triggers("t")
    assert ran["t"].reason is Reason.AGENT_FAILED
    assert ran["t"].commit is not None
    assert ran.files(ran["t"].commit)["t"] == "t"


def test_what_an_async_function_raises_is_a_failure(root: Path) -> None:
    async def function(attempt: Attempt) -> None:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    ran = call(root, function)
    assert (ran["t"].state, ran["t"].reason) == (State.FAILED, Reason.AGENT_FAILED)


def test_an_outcome_that_cannot_be_written_down_is_a_failure(root: Path) -> None:
    def function(attempt: Attempt) -> Outcome:
        Path(attempt.workspace, "t").write_text("t")
        return Outcome(ok=True, outputs={"x": object()})

    ran = call(root, function)
    assert (ran["t"].state, ran["t"].reason) == (State.FAILED, Reason.AGENT_FAILED), ran.triggers("t")
    assert "cannot be written down" in ran["t"].message
    assert ran["t"].commit is not None


def test_a_plain_function_that_goes_on_after_it_was_stopped(root: Path) -> None:
    """Nothing can end a thread. Its task ends all the same, with what there was by then."""
    go, gone = threading.Event(), threading.Event()

    def function(attempt: Attempt, emit: Any) -> None:
        place = Path(attempt.workspace)
        (place / "part").write_text("part")
        emit(AgentMessage("ready"))
        go.wait(30)
        try:
            (place / "late").write_text("late")
        except OSError:
            gone.set()

    def watch(run: LiveRun) -> None:
        run.on_progress(lambda _task, _event: run.cancel())

    ran = call(root, function, act=when(Trigger.STARTED, watch))
    go.set()
    assert ran["t"].state is State.CANCELLED
    assert ran["t"].commit is not None
    assert set(ran.files(ran["t"].commit)) == {"a.txt", "src/b.txt", "part"}
    assert gone.wait(30)


# --- nothing is lost --------------------------------------------------------------------------------


def failing_capture(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The disk is full, so many times, when a workspace is to be captured."""
    real, left = Inspector.capture, [times]

    def capture(self: Inspector, *args: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise GitError(("add",), 128, "No space left on device")
        return real(self, *args)

    monkeypatch.setattr(Inspector, "capture", capture)


def test_work_that_cannot_be_pinned_stays_where_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        failing_capture(patch, 1000)
        ran = one(root, "echo precious > t")
    assert ran["t"].state is State.FAILED
    kept = Workspaces(ran.repo, ran.id).existing()
    assert len(kept) == ran["t"].attempts, "no workspace goes whose work is nowhere else"
    assert (kept[0].path / "t").read_text() == "precious\n"
    assert str(kept[-1].path) in ran["t"].message

    again = resume(root, ran.id)
    pin = again.repo.ref(f"refs/agentful/{ran.id}/t/1")
    assert pin is not None, "a resume pins it as soon as that can be done"
    assert ran.files(pin)["t"] == "precious"
    assert not Workspaces(ran.repo, ran.id).existing()


def test_a_full_disk_is_no_fault_of_the_work(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_capture(monkeypatch, 3)
    ran = one(root, "echo t > t")
    assert ran["t"].ok
    assert ran["t"].attempts == 2
    assert "lost" in ran.triggers("t")


def test_a_workspace_that_cannot_be_opened_is_no_fault_of_the_work(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = Workspaces.open, [1]

    def open_(self: Workspaces, name: str, commit: str) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise WorkspaceError("No space left on device")
        return real(self, name, commit)

    monkeypatch.setattr(Workspaces, "open", open_)
    ran = one(root, "echo t > t")
    assert ran["t"].ok
    assert ran.triggers("t")[:4] == ["needs_met", "started", "lost", "started"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_worktreeinclude_that_cannot_be_read(root: Path) -> None:
    (root / ".gitignore").write_text("secret\n")
    (root / "secret").write_text("s")
    (root / "secret").chmod(0)
    (root / ".worktreeinclude").write_text("secret\n")
    ran = one(root, "echo t > t")
    assert ran["t"].state is State.FAILED
    assert "secret" in ran["t"].message


def test_ignored_files_and_setup_commands_come_first(root: Path) -> None:
    (root / ".git" / "info" / "exclude").write_text("local.env\n")
    (root / "local.env").write_text("KEY=1\n")
    (root / ".worktreeinclude").write_text("local.env\n")
    ran = carry_out(
        root,
        [Task(id="t", run="cat local.env made > t")],
        setup=["cp local.env made", "test -f made"],
        options=ONCE,
    )
    assert ran["t"].ok, ran["t"].detail
    assert ran.files()["t"] == "KEY=1\nKEY=1"
    assert "local.env" not in ran.files()


def test_a_setup_command_that_fails(root: Path) -> None:
    ran = carry_out(root, [Task(id="t", run="echo t > t")], setup=["echo why; exit 9"], options=ONCE)
    assert (ran["t"].state, ran["t"].reason) == (State.FAILED, Reason.SETUP_FAILED)
    assert "why" in ran["t"].detail
    assert "9" in ran["t"].message


def test_secrets_are_taken_out_of_the_log(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-" + "Ab3dEf6hIj9l" * 3
    agent = sh(
        "agent", 'echo "key $MY_API_KEY"; echo "key $MY_API_KEY" >&2; exit 1', env={"MY_API_KEY": secret}
    )
    ran = carry_out(root, [Task("agent", f"use {secret}", id="t")], agents=[agent], options=ONCE)
    everything = json.dumps(log_of(root, ran.id))
    assert "key " in everything
    assert secret not in everything
    assert secret not in ran["t"].detail
