"""The Python API in a repository: what lands where, what is left behind, what can be gone on with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentful import (
    AgentPool,
    ChecksFailed,
    ConfigError,
    ConflictError,
    JournalError,
    PlanError,
    Reason,
    Results,
    State,
    Task,
    TaskCancelled,
    TaskFailed,
    TaskGroup,
    TaskGroupError,
    TaskTimeout,
    WorkspaceError,
    ask,
    run,
    run_sync,
)
from agentful.drivers.python import PythonDriver
from agentful.group import host
from agentful.runtime import proctree
from agentful.runtime import run as run_module
from agentful.runtime.git import Repository
from agentful.runtime.journal import JournalFile, SqliteJournal
from agentful.runtime.run import LiveRun, journal_of, lock_of
from agentful.testing import Deadlock, Script, ScriptedDriver, run_virtual, use_driver
from cliutil import run_cli
from gitutil import commit, git, make_repo, no_user_configuration, tree_files, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentful.drivers.base import Attempt
    from agentful.runtime.journal import RunInfo


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository, to be in, of a person without settings."""
    no_user_configuration(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("AGENTFUL_WORKSPACES", str(tmp_path / "workspaces"))
    monkeypatch.setattr(host, "_BRANCHES", {})
    monkeypatch.setattr(run_module, "_EDIT_PERIOD", 0.02)
    made = make_repo(tmp_path / "repo", {"shared.txt": "base\n"})
    monkeypatch.chdir(made)
    yield made
    assert not list((made / ".agentful" / "runs").glob("*.lock"))


def files(root: Path, branch: str | None) -> dict[str, str]:
    """What is on a branch."""
    assert branch is not None
    return tree_files(root, branch)


def runs(root: Path) -> list[RunInfo]:
    with journal_of(Repository.discover(root)) as journal:
        return journal.runs()


def yours(root: Path) -> tuple[str, ...]:
    """What only you change."""
    return (
        git(root, "status", "--porcelain"),
        git(root, "rev-parse", "HEAD", "main"),
        git(root, "symbolic-ref", "HEAD"),
        (root / ".git" / "config").read_text(),
        (root / ".git" / "index").read_bytes().hex(),
    )


def writer(attempt: Attempt) -> str:
    """An agent that writes its prompt into a file of its task's."""
    Path(attempt.workspace, f"{len(attempt.task.id)}.txt").write_text(attempt.task.prompt)
    return f"wrote {attempt.task.prompt}"


def append(attempt: Attempt, line: str) -> None:
    path = Path(attempt.workspace, "shared.txt")
    path.write_text(f"{path.read_text()}{line}\n")


def shell(script: str) -> dict[str, Any]:
    return {"command": ["sh", "-c", script], "prompt_by": "file"}


async def started(opened: TaskGroup, task_id: str = "") -> None:
    """Wait until an agent, or the one of this task, has said that it started."""
    async for progress in opened.progress():
        if progress.message == "started" and task_id in ("", progress.task.id):
            return
    raise AssertionError("nothing has started")


def run_of(opened: TaskGroup) -> LiveRun:
    assert isinstance(opened.host.run, LiveRun)
    return opened.host.run


# --- what lands ------------------------------------------------------------------------------------


def test_work_lands_on_a_branch_of_its_own_and_your_checkout_stays(root: Path) -> None:
    write(root, {"shared.txt": "my own change\n", "new.txt": "mine\n"})
    before = yours(root)
    opened = TaskGroup([Task("a", "one", id="a"), Task("a", "two", id="bb")], agents={"a": writer})
    results = opened.run_sync()
    assert results.ok
    assert [result.summary for result in results] == ["wrote one", "wrote two"]
    assert [result.paths for result in results] == [("1.txt",), ("2.txt",)]
    assert files(root, opened.branch) == {"shared.txt": "base", "1.txt": "one", "2.txt": "two"}
    assert yours(root) == before
    assert {result.commit for result in results} == set(
        git(root, "log", "-2", "--format=%H", str(opened.branch)).split()
    )


def test_what_needs_a_task_starts_from_its_work(root: Path) -> None:
    def adds(attempt: Attempt) -> None:
        append(attempt, attempt.task.prompt)

    async def main() -> TaskGroup:
        async with TaskGroup(agents={"a": adds}) as opened:
            one = opened.submit("a", "one")
            two = opened.submit("a", "two", needs=[one])
            opened.submit("a", "three", needs=[two])
        return opened

    assert files(root, asyncio.run(main()).branch)["shared.txt"] == "base\none\ntwo\nthree"


def test_runs_of_one_process_build_on_one_branch(root: Path) -> None:
    async def main() -> list[str | None]:
        async with TaskGroup(agents={"a": writer}) as first:
            first.submit("a", "one", id="a")
        await run("a", "two", id="bb", agents={"a": writer})
        async with AgentPool(agents={"a": writer}) as pool:
            await pool.run("a", "three", id="ccc")
        return [first.branch, pool.branch]

    first, second = asyncio.run(main())
    assert first == second
    assert files(root, first) == {"shared.txt": "base", "1.txt": "one", "2.txt": "two", "3.txt": "three"}
    assert [info.branch for info in runs(root)] == [first] * 3


def test_a_commit_of_yours_begins_a_new_branch_and_is_in_it(root: Path) -> None:
    async def main() -> list[str | None]:
        branches = []
        for number in range(2):
            async with TaskGroup(agents={"a": writer}) as opened:
                opened.submit("a", "x", id="a" * (number + 1))
            branches.append(opened.branch)
            commit(root, "mine", {"mine.txt": "mine"})
        return branches

    first, second = asyncio.run(main())
    assert first != second
    assert files(root, second) == {"shared.txt": "base", "mine.txt": "mine", "2.txt": "x"}


def test_runs_at_the_same_time_land_on_one_branch(root: Path) -> None:
    async def main() -> None:
        await asyncio.gather(*(run("a", "x", id="a" * n, agents={"a": writer}) for n in range(1, 5)))

    asyncio.run(main())
    branches = {info.branch for info in runs(root)}
    assert len(branches) == 1
    assert set(files(root, branches.pop())) == {"shared.txt", "1.txt", "2.txt", "3.txt", "4.txt"}


@pytest.mark.parametrize(
    "name", ["a/b/c", "with space", "größe-🚀", "..", "-x", "a" * 200, "x:y~^*?[", "HEAD"]
)
def test_any_printable_id_will_do(root: Path, name: str) -> None:
    opened = TaskGroup([Task("a", "x", id=name), Task("a", "y", id="z", needs=name)], agents={"a": writer})
    assert opened.run_sync().ok
    assert files(root, opened.branch)["1.txt"] == "y"
    assert f"/{name}" in git(root, "log", "--format=%B", str(opened.branch))


def test_agents_come_from_the_repository_and_code_comes_before_them(root: Path) -> None:
    write(
        root,
        {
            ".claude/agents/backend.md": "---\nname: backend\ndescription: x\n---\nBe brief.\n",
            ".claude/agents/reader.md": "---\nname: reader\nreads_only: true\n---\nOnly read.\n",
            ".agentful/config.toml": 'retries = 0\n[agent_defaults]\ncommand = ["sh", "-c", '
            '"cat $AGENTFUL_PROMPT_FILE > from-file.txt"]\nprompt_by = "file"\n',
        },
    )

    async def main() -> TaskGroup:
        async with TaskGroup(agents={"coded": writer}) as opened:
            opened.submit("backend", "Do it")
            opened.submit("reader", "Look at it")
            opened.submit("coded", "x", id="a")
        return opened

    opened = asyncio.run(main())
    landed = files(root, opened.branch)
    assert landed["from-file.txt"] == "Be brief.\n\n## Your task\n\nDo it"
    assert landed["1.txt"] == "x"
    assert opened.results["reader-1"].task.reads_only


def test_settings_of_the_repository_hold_where_code_says_nothing(root: Path) -> None:
    write(root, {".agentful/config.toml": 'checks = ["test -f never"]\nmax_concurrency = 3\n'})

    async def main() -> tuple[int, int]:
        async with TaskGroup() as one, TaskGroup(max_concurrency=2) as two:
            return one.host.options.max_concurrency, two.host.options.max_concurrency

    assert asyncio.run(main()) == (3, 2)
    with pytest.raises(ChecksFailed, match="'test -f never' ended with 1"):
        run_sync("a", "x", agents={"a": writer})
    assert run_sync("a", "x", agents={"a": writer}, checks=["true"]).ok


# --- landing on your branch ------------------------------------------------------------------------


def test_land_moves_your_branch_and_its_files(root: Path) -> None:
    assert run_sync("a", "one", id="a", agents={"a": writer}, land=True).ok
    assert (root / "1.txt").read_text() == "one"
    assert git(root, "log", "-1", "--format=%s", "main") == "one"
    assert git(root, "status", "--porcelain") == ""
    # What comes next goes on from there, on the same branch.
    assert run_sync("a", "two", id="bb", agents={"a": writer}, land=True).ok
    assert (root / "2.txt").read_text() == "two"
    assert len({info.branch for info in runs(root)}) == 1


def test_land_is_a_setting_too(root: Path) -> None:
    write(root, {".agentful/config.toml": "land = true\n"})
    run_sync("a", "one", id="a", agents={"a": writer})
    assert (root / "1.txt").read_text() == "one"
    run_sync("a", "two", id="bb", agents={"a": writer}, land=False)
    assert not (root / "2.txt").exists()


def test_land_is_refused_where_your_own_work_is_in_the_way(root: Path) -> None:
    write(root, {"shared.txt": "my own change\n"})

    def takes(attempt: Attempt) -> None:
        Path(attempt.workspace, "shared.txt").write_text("the agent's\n")

    opened = TaskGroup([Task("a", "x")], agents={"a": takes}, land=True)
    before = yours(root)
    with pytest.raises(WorkspaceError, match="main was not moved"):
        opened.run_sync()
    assert yours(root) == before
    assert opened.results.ok
    assert files(root, opened.branch)["shared.txt"] == "the agent's"


def test_nothing_is_landed_where_a_task_did_not_succeed(root: Path) -> None:
    async def main() -> None:
        async with TaskGroup(agents={"a": writer}, land=True) as opened:
            opened.submit("a", "one", id="a")
            opened.submit("a", "x", id="bb", checks=["false"])

    before = yours(root)
    with pytest.raises(TaskGroupError):
        asyncio.run(main())
    assert yours(root) == before


# --- what fails ------------------------------------------------------------------------------------


def test_a_conflict_comes_out_as_one(root: Path) -> None:
    both = asyncio.Barrier(2)

    async def overwrites(attempt: Attempt) -> None:
        await both.wait()
        write(Path(attempt.workspace), {"shared.txt": attempt.task.id})

    async def main() -> ConflictError:
        found: list[BaseException] = []
        try:
            async with TaskGroup(agents={"a": overwrites}, conflict_retries=0, max_concurrency=2) as opened:
                opened.submit("a", "x", id="one")
                opened.submit("a", "y", id="two")
        except* ConflictError as conflicts:
            found += conflicts.exceptions
        (error,) = found
        assert isinstance(error, ConflictError)
        landed = opened.results.succeeded[0]
        assert (error.other, error.paths) == (landed.id, ("shared.txt",))
        assert files(root, opened.branch)["shared.txt"] == landed.id
        return error

    error = asyncio.run(main())
    assert (
        str(error) == f"task {error.task_id!r} conflicts: shared.txt conflicts with what {error.other} landed"
    )
    assert error.result is not None
    assert tree_files(root, str(error.result.commit))["shared.txt"] == error.task_id


def test_a_conflict_is_tried_again_on_the_new_tip_with_the_conflict_in_the_prompt(root: Path) -> None:
    both = asyncio.Barrier(2)
    prompts: list[str] = []

    async def appends(attempt: Attempt) -> None:
        prompts.append(attempt.prompt)
        if attempt.number == 1:
            await both.wait()
        append(attempt, attempt.task.id)

    results = TaskGroup(
        [Task("a", "x", id="one"), Task("a", "y", id="two")], agents={"a": appends}, max_concurrency=2
    ).run_sync()
    assert results.ok
    assert sorted(result.attempts for result in results) == [1, 2]
    assert "conflict. shared.txt conflicts with what" in prompts[2]


def test_checks_that_fail_come_out_as_such(root: Path) -> None:
    with pytest.raises(ChecksFailed, match=r"'grep -q good 1\.txt' ended with 1") as raised:
        run_sync("a", "bad", id="a", agents={"a": writer}, checks=["grep -q good 1.txt"])
    assert raised.value.task_id == "a"
    assert run_sync("a", "good", id="a", agents={"a": writer}, checks=["grep -q good 1.txt"]).ok


def test_a_task_that_changes_nothing_has_failed_unless_it_only_reads() -> None:
    with pytest.raises(TaskFailed, match="changed nothing"):
        run_sync("a", "x", agents={"a": lambda _attempt: "all done!"})
    assert (
        run_sync("a", "x", agents={"a": lambda _attempt: "all good"}, reads_only=True).summary == "all good"
    )


def test_a_task_that_takes_too_long(root: Path) -> None:
    with pytest.raises(TaskTimeout, match=r"did not end within 0\.1 s"):
        run_sync("a", "x", agents={"a": shell("echo half > half.txt; sleep 99")}, timeout=0.1)
    assert proctree.marked(runs(root)[0].id) == []


def test_fail_fast_stops_the_others_and_keeps_what_they_have(root: Path) -> None:
    async def fails_once_the_other_has_started(_attempt: Attempt) -> None:
        await begun.wait()
        raise ValueError("no database")

    begun = asyncio.Event()

    async def main() -> TaskGroup:
        opened = TaskGroup(
            [Task("works", "x", id="works"), Task("fails", "y", id="fails")],
            agents={
                "works": shell("echo partial > partial.txt; echo started; sleep 99"),
                "fails": fails_once_the_other_has_started,
            },
            fail_fast=True,
            max_concurrency=2,
            on_progress=lambda _agent, progress: begun.set() if progress.message == "started" else None,
        )
        with pytest.raises(TaskGroupError) as raised:
            await opened
        assert [error.task_id for error in raised.value.exceptions if isinstance(error, TaskFailed)] == [
            "fails"
        ]
        return opened

    opened = asyncio.run(main())
    stopped = opened.results["works"]
    assert (stopped.state, stopped.reason) == (State.CANCELLED, Reason.FAIL_FAST)
    run_id = runs(root)[0].id
    pin = f"refs/agentful/{run_id}/works/1"
    assert stopped.commit == git(root, "rev-parse", pin)
    assert tree_files(root, pin)["partial.txt"] == "partial"
    assert proctree.marked(run_id) == []
    assert files(root, opened.branch) == {"shared.txt": "base"}


def test_cancelling_a_task_keeps_what_it_has(root: Path) -> None:
    async def main() -> TaskGroup:
        async with TaskGroup(
            agents={"works": shell("echo partial > p.txt; echo started; sleep 99")}
        ) as opened:
            handle = opened.submit("works", "x", id="w")
            await started(opened)
            handle.cancel()
            with pytest.raises(TaskCancelled):
                await handle
        return opened

    result = asyncio.run(main()).results[0]
    assert tree_files(root, str(result.commit))["p.txt"] == "partial"


def test_what_ends_the_loop_itself_is_raised_everywhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any) -> None:
        raise JournalError("the disk is full")

    async def main() -> str:
        opened = TaskGroup(agents={"works": shell("echo started; sleep 99")})
        with pytest.raises(JournalError, match="the disk is full"):  # noqa: PT012
            async with opened:
                handle = opened.submit("works", "x")
                await started(opened)
                asking = asyncio.create_task(ask("Well?"))
                monkeypatch.setattr(SqliteJournal, "append", full)
                handle.cancel()
                assert [p async for p in opened.progress() if p.state.settled] == []
                with pytest.raises(JournalError, match="the disk is full"):
                    await handle
                with pytest.raises(JournalError, match="the disk is full"):
                    await asking
        return run_of(opened).info.id

    assert proctree.marked(asyncio.run(main())) == []


@pytest.mark.parametrize("limit", [None, 1])
def test_what_ends_the_loop_of_a_pool_is_raised_to_who_waits(
    root: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    def full(*_args: Any) -> None:
        raise JournalError("the disk is full")

    async def breaks(_attempt: Attempt) -> None:
        monkeypatch.setattr(SqliteJournal, "append", full)

    async def main() -> None:
        with pytest.raises(JournalError, match="the disk is full"):  # noqa: PT012
            async with AgentPool(agents={"a": breaks}) as pool:
                with pytest.raises(JournalError, match="the disk is full"):
                    await pool.group([Task("a", "x"), Task("a", "y")], max_concurrency=limit)
                with pytest.raises(JournalError, match="the disk is full"):
                    pool.submit("a", "z")

    asyncio.run(main())


# --- nothing is left behind ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tasks",
    [
        [Task("a", "x"), Task("nobody", "x")],
        [Task("a", "x", needs=["ghost"])],
        [Task("a", "x"), {"agent": "a", "taks": "x"}],
        [Task("missing", "x")],
    ],
)
def test_a_plan_that_is_refused_leaves_nothing_behind(root: Path, tasks: list[Any]) -> None:
    before = git(root, "for-each-ref")
    agents: dict[str, Any] = {"a": writer, "missing": {"command": "no-such-program-anywhere"}}
    with pytest.raises(PlanError):
        TaskGroup(tasks, agents=agents).run_sync()
    assert git(root, "for-each-ref") == before
    assert not (root / ".agentful").exists()


@pytest.mark.parametrize("submits", [False, True])
def test_a_group_that_nothing_was_submitted_to_leaves_no_branch_and_no_run(root: Path, submits: bool) -> None:
    async def main() -> None:
        async with TaskGroup() as opened:
            assert str(opened.branch) in git(root, "for-each-ref")
            if submits:
                opened.submit("nobody", "x")

    before = git(root, "for-each-ref")
    if submits:
        with pytest.raises(PlanError):
            asyncio.run(main())
    else:
        asyncio.run(main())
    assert git(root, "for-each-ref") == before
    assert runs(root) == []


def test_a_group_that_cannot_be_opened_leaves_nothing_and_may_be_tried_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any) -> None:
        raise JournalError("the disk is full")

    before = git(root, "for-each-ref")
    opened = TaskGroup([Task("a", "x", id="a")], agents={"a": writer})
    with monkeypatch.context() as broken:
        broken.setattr(JournalFile, "writer", full)
        with pytest.raises(JournalError, match="the disk is full"):
            opened.run_sync()
    assert (git(root, "for-each-ref"), runs(root)) == (before, [])
    assert opened.run_sync().ok


def test_outside_a_repository_a_group_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="not a git repository"):
        run_sync("a", "x", agents={"a": writer})
    with pytest.raises(ConfigError, match="no such folder"):
        run_sync("a", "x", agents={"a": writer}, repository=tmp_path / "nowhere")
    git(tmp_path, "init", "-q", "empty")
    with pytest.raises(ConfigError, match="has no commits yet"):
        run_sync("a", "x", agents={"a": writer}, repository="empty")


def test_a_repository_may_be_named_from_elsewhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "deep").mkdir()
    monkeypatch.chdir(tmp_path)
    places: list[str | Path] = [str(root), root, root / "deep"]
    for number, place in enumerate(places):
        opened = TaskGroup([Task("a", str(number), id="a")], agents={"a": writer}, repository=place)
        assert opened.run_sync().ok
    assert len({info.branch for info in runs(root)}) == 1


def test_without_a_repository_tasks_run_in_the_current_folder_and_nothing_lands(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_sync(run="echo hello > made.txt; pwd", repository=None)
    assert (tmp_path / "made.txt").read_text() == "hello\n"
    assert (result.summary, result.commit) == (str(tmp_path), None)


# --- interrupted, and gone on with -------------------------------------------------------------------


def resume(root: Path, driver: Callable[..., Any]) -> Results:
    """Go on with the latest run."""

    async def main() -> Results:
        repo = Repository.discover(root)
        live = LiveRun.resume(repo, "latest", driver_for=lambda _agent: PythonDriver(driver))
        async with live:
            await live.wait()
        return Results(live.view.results())

    return asyncio.run(main())


@pytest.mark.parametrize("block", [True, False])
def test_cancelling_the_code_that_waits_leaves_a_run_to_go_on_with(root: Path, block: bool) -> None:
    agents: dict[str, Any] = {
        "works": shell("echo partial > partial.txt; echo started; sleep 99"),
        "a": writer,
    }
    tasks = [
        Task("a", "done", id="a"),
        Task("works", "x", id="works", needs=["a"]),
        Task("a", "later", id="ccc", needs=["works"]),
    ]

    async def main() -> TaskGroup:
        running = asyncio.Event()
        opened = TaskGroup(
            tasks,
            agents=agents,
            on_progress=lambda _agent, progress: running.set() if progress.message == "started" else None,
        )

        async def work() -> None:
            if not block:
                await opened
                return
            async with opened:
                await asyncio.get_running_loop().create_future()

        working = asyncio.create_task(work())
        await running.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        return opened

    opened = asyncio.run(main())
    assert [result.state for result in opened.results] == [State.SUCCEEDED, State.READY, State.WAITING]
    (info,) = runs(root)
    assert info.state == "interrupted"
    assert proctree.marked(info.id) == []
    assert tree_files(root, f"refs/agentful/{info.id}/works/1")["partial.txt"] == "partial"

    results = resume(root, writer)
    assert results.ok
    assert [result.attempts for result in results] == [1, 2, 1]
    assert files(root, opened.branch) == {
        "shared.txt": "base",
        "1.txt": "done",
        "5.txt": "x",
        "3.txt": "later",
    }


def test_an_exception_in_the_block_cancels_for_good(root: Path) -> None:
    async def main() -> TaskGroup:
        opened = TaskGroup(agents={"works": shell("echo partial > p.txt; echo started; sleep 99")})
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with opened:
                opened.submit("works", "x", id="w")
                await started(opened)
                raise ZeroDivisionError
        return opened

    opened = asyncio.run(main())
    (info,) = runs(root)
    assert (opened.results[0].state, info.state) == (State.CANCELLED, "failed")
    assert proctree.marked(info.id) == []
    assert tree_files(root, str(opened.results[0].commit))["p.txt"] == "partial"


PROGRAM = """
    import asyncio
    from agentful import Task, TaskGroup, run, run_sync

    async def main():
        async with TaskGroup() as group:
            group.submit("works", "x", id="works")
            group.submit("works", "y", id="later", needs=["works"])
            async for progress in group.progress():
                print(progress.message, flush=True)

    asyncio.run(main())
"""


@pytest.mark.parametrize(
    "program", [PROGRAM, "from agentful import run_sync; run_sync('works', 'x', id='works')"]
)
def test_ctrl_c_leaves_a_run_to_go_on_with_and_no_process(root: Path, program: str) -> None:
    write(
        root,
        {
            ".agentful/config.toml": '[agents.works]\ncommand = ["sh", "-c", '
            '"echo $AGENTFUL_TASK > $AGENTFUL_TASK.txt; echo started > ../started; echo started; '
            'test $AGENTFUL_ATTEMPT = 2 || test $AGENTFUL_TASK = later || sleep 99"]\nprompt_by = "file"\n'
        },
    )
    # The agent says on a pipe of ours that it has started.
    told = root.parent / "told"
    os.mkfifo(told)
    text = (root / ".agentful" / "config.toml").read_text().replace("../started", str(told))
    write(root, {".agentful/config.toml": text})
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert told.read_text() == "started\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")
    (info,) = runs(root)
    assert info.state == "interrupted"
    assert lock_of(Repository.discover(root), info.id).holder() is None
    assert proctree.marked(info.id) == []

    reading = os.open(told, os.O_RDONLY | os.O_NONBLOCK)  # so that the agent does not wait for a reader
    resumed = run_cli("resume")
    os.close(reading)
    assert resumed.exit_code == 0, resumed.output
    assert "works.txt" in files(root, info.branch)


def test_a_run_that_somebody_stops_says_how_to_go_on(root: Path) -> None:
    async def main() -> TaskGroup:
        opened = TaskGroup(agents={"works": shell("echo started; sleep 99"), "a": writer})
        with pytest.raises(TaskGroupError) as raised:  # noqa: PT012
            async with opened:
                opened.submit("works", "x", id="w")
                opened.submit("a", "y", id="bb", needs=["w"])
                await started(opened)
                stopping = asyncio.create_task(asyncio.to_thread(run_cli, "stop"))
        assert (await stopping).exit_code == 0
        errors = raised.value.exceptions
        run_id = run_of(opened).info.id
        assert [type(error) for error in errors] == [TaskCancelled] * 2
        assert str(errors[0]) == (
            f"task 'w' was not run to its end: run {run_id} was stopped; "
            f"it goes on with: agentful resume {run_id}"
        )
        return opened

    asyncio.run(main())
    assert runs(root)[0].state == "interrupted"
    assert resume(root, writer).ok


def test_run_raises_the_one_error_where_somebody_stops_it(root: Path) -> None:
    async def main() -> None:
        said = asyncio.Event()
        running = asyncio.create_task(
            run(
                "works",
                "x",
                agents={"works": shell("echo started; sleep 99")},
                on_progress=lambda _agent, progress: said.set() if progress.message == "started" else None,
            )
        )
        await said.wait()
        stopping = asyncio.create_task(asyncio.to_thread(run_cli, "stop"))
        with pytest.raises(TaskCancelled, match="agentful resume"):
            await running
        assert (await stopping).exit_code == 0

    asyncio.run(main())


# --- questions -------------------------------------------------------------------------------------


async def asked(root: Path) -> list[dict[str, Any]]:
    """Wait until ``decisions.json`` has an open question; the open ones."""
    path = root / ".agentful" / "decisions.json"
    while True:
        document = json.loads(path.read_text()) if path.exists() else {"decisions": []}
        pending = [entry for entry in document["decisions"] if entry["status"] == "pending"]
        if pending:
            return pending
        await asyncio.sleep(0.005)


def answer_in_the_file(root: Path, answer: str) -> None:
    """Answer the first open question in ``decisions.json``, as a person does with an editor."""
    path = root / ".agentful" / "decisions.json"
    document = json.loads(path.read_text())
    entry = next(entry for entry in document["decisions"] if entry["status"] == "pending")
    entry |= {"status": "resolved", "resolution": answer}
    path.write_text(json.dumps(document, indent=2))


def test_an_agents_question_is_answered_in_the_file(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    asks = (
        'if [ "$AGENTFUL_ATTEMPT" = 1 ]; then echo "::ask Which database? [postgres|sqlite]"; exit 1; fi; '
        'grep -A1 "Which database" "$AGENTFUL_PROMPT_FILE" > answer.txt'
    )

    async def main() -> TaskGroup:
        opened = TaskGroup(agents={"asker": shell(asks), "a": writer})
        async with opened:
            opened.submit("asker", "x", id="asks")
            after = opened.submit("a", "y", id="a", needs=["asks"])
            (entry,) = await asked(root)
            assert entry["question"] == "Which database?"
            assert entry["blocking"] == ["asks"]
            assert opened.results["asks"].state is State.BLOCKED
            assert after.state is State.WAITING
            answer_in_the_file(root, "mysql")
            await asked(root)
            assert "'mysql' is no answer to 'd1'" in caplog.text
            answer_in_the_file(root, "SQLite")
        return opened

    opened = asyncio.run(main())
    assert "sqlite" in files(root, opened.branch)["answer.txt"]
    run_id = run_of(opened).info.id
    assert f'Answer with: agentful decide d1 "postgres" --run {run_id}' in caplog.text


def test_a_question_of_the_group_is_answered_on_the_command_line(root: Path) -> None:
    async def main() -> tuple[str, TaskGroup]:
        async with TaskGroup(agents={"a": writer}) as opened:
            asking = asyncio.create_task(ask("Go on?", ["yes", "no"], blocking=["bb"]))
            await asyncio.sleep(0)
            opened.submit("a", "y", id="bb")
            await opened.submit("a", "x", id="a")
            said = await asyncio.to_thread(run_cli, "decide", "d1", "yes")
            assert said.exit_code == 0, said.output
            return await asking, opened

    answer, opened = asyncio.run(main())
    assert answer == "yes"
    assert opened.results.ok


def test_a_question_that_stands_alone_leaves_its_story_and_no_branch(root: Path) -> None:
    async def main() -> str:
        asking = asyncio.create_task(ask("How to proceed?", ["Skip", "Stop"], blocking=["api"]))
        await asked(root)
        status = await asyncio.to_thread(run_cli, "status", "--json")
        document = json.loads(status.output)
        assert document["state"] == "waiting"
        assert document["decisions"][0]["question"] == "How to proceed?"
        said = await asyncio.to_thread(run_cli, "decide", "d1", "1")
        assert said.exit_code == 0, said.output
        return await asking

    before = git(root, "for-each-ref")
    assert asyncio.run(main()) == "Skip"
    assert git(root, "for-each-ref") == before
    (info,) = runs(root)
    assert (info.state, info.title) == ("succeeded", "How to proceed?")


def test_a_question_that_stands_alone_can_be_stopped(root: Path) -> None:
    async def main() -> None:
        asking = asyncio.create_task(ask("How to proceed?"))
        await asked(root)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(main())
    assert lock_of(Repository.discover(root), runs(root)[0].id).holder() is None


# --- under virtual time ----------------------------------------------------------------------------


def test_a_repository_under_virtual_time(root: Path) -> None:
    driver = ScriptedDriver(
        {
            "api": [
                Script().takes(300).fail("no database"),
                Script().takes(300).write("api.txt", "x").done(),
            ],
            "ui": Script().takes(60).write("ui.txt", "y").done(),
        }
    )

    async def main() -> TaskGroup:
        async with TaskGroup(max_concurrency=2) as opened:
            opened.submit("backend", "x", id="api", retries=1)
            opened.submit("frontend", "y", id="ui")
        return opened

    with use_driver(driver):
        opened = run_virtual(main())
    assert opened.results["api"].duration == 600
    assert set(files(root, opened.branch)) == {"shared.txt", "api.txt", "ui.txt"}


def test_a_question_that_nobody_can_answer_ends_a_test_in_place_of_hanging(root: Path) -> None:
    async def main() -> Results:
        return await TaskGroup(
            [Task("asker", "x", id="a")], driver=ScriptedDriver(default=Script().ask("Well?"))
        )

    with pytest.raises(Deadlock, match="nothing is ready to run, and no timer is set"):
        run_virtual(main())
    (info,) = runs(root)
    assert info.state == "waiting"


def test_an_empty_group_leaves_the_branch_that_another_one_goes_on_with(root: Path) -> None:
    def writes(attempt: Any) -> str:
        Path(attempt.workspace, "late.txt").write_text("late")
        return "wrote"

    async def main() -> None:
        first, second = TaskGroup(agents={"w": writes}), TaskGroup(agents={"w": writes})
        await first.__aenter__()
        await second.__aenter__()
        assert second.branch == first.branch
        await first.__aexit__(None, None, None)
        assert (await second.submit("w", "x", id="late")).ok
        await second.__aexit__(None, None, None)

    asyncio.run(main())


@pytest.mark.parametrize("times", range(3))
def test_a_function_that_never_waits_can_be_stopped_before_it_began(root: Path, times: int) -> None:
    """Its stop came while its workspace was being opened: the attempt has to end all the same."""

    async def fails(attempt: Any) -> None:
        raise ValueError(attempt.task.id)

    async def main() -> None:
        async with asyncio.timeout(30), AgentPool(2, agents={"bad": fails}) as pool:
            handles = [pool.submit("bad", f"t{n}", retries=0) for n in range(3 + times)]
            for handle in handles:
                await handle

    with pytest.raises(TaskFailed):
        asyncio.run(main())
