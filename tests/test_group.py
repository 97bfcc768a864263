"""The Python API without a repository: what a group, a pool, `run` and `ask` promise to code.

What needs a repository is in ``test_group_repository.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agentful import (
    Agent,
    AgentfulError,
    AgentPool,
    PlanError,
    Progress,
    Reason,
    Results,
    State,
    Task,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskGroup,
    TaskGroupError,
    TaskHandle,
    TaskResult,
    TaskSkipped,
    TaskTimeout,
    ask,
    ask_sync,
    run,
    run_sync,
)
from agentful.drivers.base import AgentMessage, AgentProgress, Attempt, Outcome, ProcessSpec
from agentful.group.host import current_host
from agentful.runtime import proctree
from agentful.testing import Script, ScriptedDriver, clock, run_virtual, use_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody's settings, and no repository; and nothing is raised where nobody can catch it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    yield
    gc.collect()


def said(attempt: Attempt) -> str:
    """An agent that says what it was asked."""
    return attempt.task.prompt


async def fails(_attempt: Attempt) -> None:
    raise ValueError("no database")


async def never(_attempt: Attempt) -> None:
    await asyncio.get_running_loop().create_future()


def group(*tasks: Any, **settings: Any) -> TaskGroup:
    """A group without a repository, whose agents are these functions where it says nothing else."""
    settings.setdefault("agents", {"sayer": said, "failer": fails, "hanger": never})
    return TaskGroup(tasks, repository=None, **settings)


def shell(script: str) -> dict[str, Any]:
    return {"command": ["sh", "-c", script], "prompt_by": "file"}


# --- awaiting a group ------------------------------------------------------------------------------


def test_awaiting_a_group_gives_results_in_the_order_of_submission() -> None:
    results = group(
        Task("sayer", "second", id="b", needs=["a"]),
        Task("sayer", "first", id="a"),
        Task("sayer", "third", id="c"),
    ).run_sync()
    assert isinstance(results, Results)
    assert [result.id for result in results] == ["b", "a", "c"]
    assert [result.summary for result in results] == ["second", "first", "third"]
    assert results.ok
    assert [result.status for result in results] == ["success"] * 3


def test_results_are_found_by_position_by_id_and_in_slices() -> None:
    results = group(Task("sayer", "x", id="a"), Task("failer", "y", id="b")).run_sync()
    assert results["b"] is results[1] is results[-1]
    assert isinstance(results[:1], Results)
    assert [result.id for result in results[:1]] == ["a"]
    assert not results.ok
    assert isinstance(results.failed, Results)
    assert [result.id for result in results.failed] == ["b"]
    assert [result.id for result in results.succeeded] == ["a"]
    with pytest.raises(KeyError, match="'c'"):
        results["c"]
    with pytest.raises(IndexError):
        results[2]


def test_an_empty_group_is_done_at_once() -> None:
    assert group().run_sync() == ()


def test_the_seeds_own_spelling_is_taken() -> None:
    seen: list[tuple[str, float | None]] = []

    async def main() -> Results:
        return await TaskGroup(
            [
                {"id": "api", "agent": "backend", "task": "Implement API", "dependencies": []},
                {"id": "ui", "agent": "frontend", "task": "Create UI", "timeout": 600000},
                {"id": "tests", "agent": "tester", "task": "Write tests", "dependencies": ["api", "ui"]},
            ],
            {
                "mode": "parallel",
                "failFast": False,
                "maxConcurrency": 4,
                "timeout": 600000,
                "conflictDetection": True,
                "dependencyCheck": True,
                "onProgress": lambda agent, progress: seen.append((agent, progress.percentage)),
            },
            driver=said,
            repository=None,
        )

    results = asyncio.run(main())
    assert [result.status for result in results] == ["success"] * 3
    assert results["ui"].task.timeout == 600
    assert {agent for agent, _ in seen} == {"backend", "frontend", "tester"}
    assert [done for agent, done in seen if agent == "tester"][-1] == 100


def test_keyword_arguments_win_over_the_mapping_of_options() -> None:
    async def main() -> int:
        async with group(options={"maxConcurrency": 4}, max_concurrency=2) as opened:
            return opened.host.options.max_concurrency

    assert asyncio.run(main()) == 2


@pytest.mark.parametrize(
    ("settings", "slots"),
    [
        ({"mode": "sequential"}, 1),
        ({"max_concurrency": 7}, 7),
        ({"mode": "parallel", "max_concurrency": 3}, 3),
        ({"options": {"mode": "parallel", "maxConcurrency": 3}}, 3),
    ],
)
def test_how_many_attempts_at_once(settings: dict[str, Any], slots: int) -> None:
    at_once, most = 0, 0

    async def count(_attempt: Attempt) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(1)
        at_once -= 1

    async def main() -> Results:
        return await group(*(Task("counter", "x") for _ in range(9)), agents={"counter": count}, **settings)

    assert run_virtual(main()).ok
    assert most == slots


def test_auto_is_what_the_machine_carries() -> None:
    async def main() -> int:
        async with group(max_concurrency="auto") as opened:
            return opened.host.options.max_concurrency

    assert asyncio.run(main()) >= 1


def test_awaiting_does_not_raise_for_failures_unless_asked_to_fail_fast() -> None:
    tasks = (Task("failer", "x", id="a"), Task("hanger", "y", id="b"), Task("sayer", "z", id="c", needs="b"))
    results = group(Task("failer", "x", id="a"), Task("sayer", "z", id="c")).run_sync()
    assert [result.state for result in results] == [State.FAILED, State.SUCCEEDED]
    with pytest.raises(TaskGroupError, match="1 of 3 tasks did not succeed") as raised:
        group(*tasks, fail_fast=True).run_sync()
    assert [error.task_id for error in raised.value.exceptions if isinstance(error, TaskError)] == ["a"]


def test_what_fail_fast_stops_is_cancelled_and_says_why() -> None:
    async def main() -> Results:
        opened = group(Task("failer", "x"), Task("hanger", "y"), Task("sayer", "z"), fail_fast=True)
        with pytest.raises(TaskGroupError):
            await opened
        return opened.results

    results = asyncio.run(main())
    assert [result.reason for result in results[:2]] == [Reason.AGENT_FAILED, Reason.FAIL_FAST]


def test_awaiting_works_through_asyncio_s_own_helpers() -> None:
    async def main() -> tuple[Results, Results]:
        return await asyncio.gather(group(Task("sayer", "x")), group(Task("sayer", "y")))

    assert [results.ok for results in asyncio.run(main())] == [True, True]


# --- async with ------------------------------------------------------------------------------------


def test_tasks_are_submitted_with_handles_as_needs() -> None:
    order: list[str] = []

    async def note(attempt: Attempt) -> str:
        order.append(attempt.task.id)
        return f"did {attempt.task.id}"

    async def main() -> Results:
        async with group(driver=note, agents={}) as opened:
            api = opened.submit("backend", "Implement the API", writes=["src/api/**"])
            ui = opened.submit("frontend", "Create the page", writes=["src/pages/**"])
            tests = opened.submit("tester", "Write tests", needs=[api, ui])
            opened.submit("reviewer", "Review", needs=tests, reads_only=True)
            assert isinstance(api, TaskHandle)
            assert (api.id, api.state, api.done) == ("backend-1", State.WAITING, False)
            assert (await api).summary == "did backend-1"
            assert (api.state, api.done) == (State.SUCCEEDED, True)
            assert api.result == opened.results["backend-1"]
        return opened.results

    results = asyncio.run(main())
    assert results.ok
    assert order[2:] == ["tester-1", "reviewer-1"]


def test_a_group_may_begin_with_tasks_and_take_more() -> None:
    async def main() -> Results:
        async with group(Task("sayer", "x", id="a")) as opened:
            opened.submit("sayer", "y", needs=["a"])
        return opened.results

    assert [result.id for result in asyncio.run(main())] == ["a", "sayer-1"]


def test_leaving_the_block_raises_what_failed_for_except_star() -> None:
    caught: list[BaseException] = []

    async def main() -> None:
        try:
            async with group() as opened:
                bad = opened.submit("failer", "x", id="bad")
                opened.submit("sayer", "y", id="good")
                opened.submit("sayer", "z", needs=[bad])
                opened.submit("hanger", "w", timeout=1, id="slow")
        except* TaskTimeout as timeouts:
            caught.extend(timeouts.exceptions)
        except* TaskFailed as failures:
            caught.extend(failures.exceptions)

    run_virtual(main())
    assert [type(error) for error in caught] == [TaskTimeout, TaskFailed]
    failure = caught[1]
    assert isinstance(failure, TaskFailed)
    assert failure.task_id == "bad"
    assert failure.result is not None
    assert failure.result.message == "ValueError: no database"
    assert isinstance(caught[0], TimeoutError)


def test_what_was_cancelled_or_skipped_is_not_raised_by_the_group() -> None:
    async def main() -> Results:
        async with group() as opened:
            first = opened.submit("hanger", "x")
            opened.submit("sayer", "y", needs=[first])
            first.cancel()
        return opened.results

    assert [result.state for result in asyncio.run(main())] == [State.CANCELLED, State.SKIPPED]


def test_awaiting_a_handle_raises_the_error_of_its_task() -> None:
    async def main() -> None:
        with contextlib.suppress(TaskGroupError):
            async with group() as opened:
                bad = opened.submit("failer", "x")
                after = opened.submit("sayer", "y", needs=[bad])
                stopped = opened.submit("hanger", "z")
                with pytest.raises(TaskFailed, match="no database"):
                    await bad
                with pytest.raises(TaskSkipped, match="'sayer-1' was skipped: failer-1 failed"):
                    await after
                stopped.cancel()
                with pytest.raises(TaskCancelled, match="'hanger-1' was cancelled"):
                    await stopped
                assert (await stopped.wait()).state is State.CANCELLED
                with pytest.raises(TaskFailed):
                    await bad

    asyncio.run(main())


def test_giving_up_waiting_for_a_handle_leaves_its_task_alone() -> None:
    async def main() -> Results:
        go = asyncio.Event()

        async def waits(_attempt: Attempt) -> None:
            await go.wait()

        async with group(agents={"waiter": waits}) as opened:
            handle = opened.submit("waiter", "x")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await handle
            assert not handle.done
            go.set()
        return opened.results

    assert run_virtual(main()).ok


def test_cancelling_the_group() -> None:
    async def main() -> Results:
        async with group(max_concurrency=1) as opened:
            opened.submit("hanger", "x")
            opened.submit("sayer", "y")
            opened.cancel()
        return opened.results

    results = asyncio.run(main())
    assert [(result.state, result.reason) for result in results] == [(State.CANCELLED, Reason.CANCELLED)] * 2


def test_the_time_of_the_group_runs_out() -> None:
    async def main() -> None:
        async with group(timeout=60) as opened:
            opened.submit("hanger", "x")
            opened.submit("sayer", "y")

    with pytest.raises(TaskGroupError) as raised:
        run_virtual(main())
    (error,) = raised.value.exceptions
    assert isinstance(error, TaskTimeout)
    assert str(error) == "task 'hanger-1': the run's time was up"
    results = run_virtual(_awaited(group(Task("hanger", "x"), timeout=timedelta(minutes=1))))
    assert results.failed == results


async def _awaited(opened: TaskGroup) -> Results:
    return await opened


def test_an_exception_in_the_block_cancels_what_runs_and_waits_for_it() -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    async def slow_to_end(_attempt: Attempt) -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(10)
            ended.append("agent")

    async def main() -> Results:
        opened = group(agents={"slow": slow_to_end})
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with opened:
                opened.submit("slow", "x")
                await begun.wait()
                raise ZeroDivisionError
        ended.append("block")
        return opened.results

    results = run_virtual(main())
    assert ended == ["agent", "block"]
    assert results[0].state is State.CANCELLED


async def _until(opened: TaskGroup, state: State) -> None:
    """Wait until some task of the group is in a state."""
    async for progress in opened.progress():
        if progress.state is state:
            return
    raise AssertionError(f"nothing came to be {state}")


@pytest.mark.parametrize(
    ("times", "script"),
    [
        (1, "(setsid sleep 99 &) ; echo started; sleep 99"),
        # What does not listen is killed at once where the end is asked for again and again.
        (3, "trap '' TERM; echo started; while :; do sleep 9; done"),
    ],
)
def test_cancelling_the_code_that_waits_ends_the_processes(times: int, script: str) -> None:
    async def main() -> tuple[str, int]:
        opened = group(agents={"shell": shell(script)})

        running = asyncio.Event()

        async def work() -> None:
            async with opened:
                opened.submit("shell", "x")
                async for progress in opened.progress():
                    if progress.message == "started":
                        running.set()

        working = asyncio.create_task(work())
        await running.wait()
        alive = len(proctree.marked(_run_id(opened)))
        for _ in range(times):
            working.cancel()
            for _ in range(20):
                await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await working
        return _run_id(opened), alive

    run_id, alive = asyncio.run(main())
    assert alive
    assert proctree.marked(run_id) == []


def _run_id(opened: TaskGroup) -> str:
    run = opened.host.run
    return getattr(run, "id", "") or run.info.id  # type: ignore[union-attr]


def test_a_time_limit_around_an_awaited_group() -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await group(Task("hanger", "x"))

    with pytest.raises(TimeoutError):
        run_virtual(main())


# --- wrong use -------------------------------------------------------------------------------------


def test_a_group_is_used_once() -> None:
    async def main() -> None:
        used = group(Task("sayer", "x"))
        await used
        with pytest.raises(RuntimeError, match="was run already; make a new one"):
            await used
        with pytest.raises(RuntimeError, match="was run already"):
            async with used:
                pass
        assert used.results.ok
        twice = group(Task("sayer", "x"))
        waits = [asyncio.ensure_future(twice), asyncio.ensure_future(twice)]
        first, second = await asyncio.gather(*waits, return_exceptions=True)
        assert isinstance(first, Results)
        assert isinstance(second, RuntimeError)

    asyncio.run(main())


def test_a_group_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="use it in `async with`, or await it"):
        group().submit("sayer", "x")
    with pytest.raises(RuntimeError, match="not open"):
        _ = group().results


def test_nothing_can_be_submitted_to_a_group_that_has_ended() -> None:
    async def main() -> None:
        async with group() as opened:
            handle = opened.submit("sayer", "x")
        with pytest.raises(RuntimeError, match="has ended"):
            opened.submit("sayer", "y")
        handle.cancel()
        opened.cancel()
        assert (await handle).ok
        assert [progress async for progress in opened.progress()] == []

    asyncio.run(main())


def test_tasks_are_submitted_on_the_loop_and_cancelled_from_anywhere() -> None:
    async def main() -> Results:
        async with group() as opened:
            handle = opened.submit("hanger", "x")
            await _until(opened, State.RUNNING)
            with pytest.raises(RuntimeError, match="on the event loop that runs the group"):
                await asyncio.to_thread(opened.submit, "sayer", "y")
            await asyncio.to_thread(handle.cancel)
        return opened.results

    assert [result.state for result in asyncio.run(main())] == [State.CANCELLED]


def test_an_agent_may_submit_further_tasks() -> None:
    async def plans(_attempt: Attempt) -> None:
        opened.submit("sayer", "one")
        assert (await opened.submit("sayer", "two")).summary == "two"

    async def main() -> Results:
        async with opened:
            opened.submit("planner", "x")
        return opened.results

    opened = group(agents={"planner": plans, "sayer": said})
    assert [result.id for result in asyncio.run(main())] == ["planner-1", "sayer-1", "sayer-2"]


def test_the_blocking_twins_say_what_to_do_where_a_loop_runs() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="this blocks, and an event loop is running here: await run"):
            run_sync("sayer", "x", agents={"sayer": said}, repository=None)
        with pytest.raises(RuntimeError, match="await ask"):
            ask_sync("Well?")
        with pytest.raises(RuntimeError, match="await the group"):
            group(Task("sayer", "x")).run_sync()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "paralel"}, "did you mean 'parallel'"),
        ({"max_concurrency": 0}, "0 is not between 1 and 1024"),
        ({"max_concurrency": "many"}, "neither a whole number nor 'auto'"),
        ({"max_concurency": 3}, "did you mean 'max_concurrency'"),
        ({"timeout": -1}, "no time at all"),
        ({"timeout": 600000}, "looks like milliseconds"),
        ({"fail_fast": "maybe"}, "neither true nor false"),
        ({"options": "parallel"}, "options are a mapping"),
        ({"options": {"maxConcurency": 4}}, "did you mean 'max_concurrency'"),
        ({"on_progress": 3}, "on_progress is a function, not 3"),
        ({"on_progress": never}, "is called, not awaited"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_as_the_group_is_made(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        group(Task("sayer", "x"), **arguments)


@pytest.mark.parametrize("tasks", [Task("sayer", "x"), {"agent": "sayer", "task": "x"}, "sayer"])
def test_tasks_are_a_list(tasks: Any) -> None:
    with pytest.raises(PlanError, match="given as a list"):
        TaskGroup(tasks)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("nobody", "x"), "task 'nobody-1': there is no agent 'nobody'"),
        (Task("sayr", "x"), "did you mean 'sayer'"),
        (Task("sayer", ""), "an agent and no prompt"),
        (Task("", "x"), "a prompt and no agent"),
        (Task("sayer", "x", run="true"), "both 'run' and 'agent'"),
        (Task("sayer", "x", needs=["ghost"]), "needs 'ghost', which does not exist"),
        (Task("sayer", "x", id="a", needs=["a"]), "it needs itself"),
        (Task("sayer", "x", id="a" * 201), "201 characters"),
        (Task("sayer", "x", id=" a"), "white space around it"),
        (Task("sayer", "x", id="a\nb"), "control character"),
        (Task("sayer", "x", writes=["../b"]), "leaves the repository"),
        (Task("sayer", "x", retries=-1), "not between 0 and 100"),
        (Task("sayer", "x", priority="high"), "not a whole number"),  # type: ignore[arg-type]
        (Task("sayer", "x", timeout=-1), "no time at all"),
        (Task("sayer", "x", timeout=float("nan")), "not a length of time"),
        (Task("sayer", "x", checks=["true"]), "checks need a repository"),
        ({"agent": "sayer", "task": "x", "dependancies": []}, "did you mean 'dependencies'"),
        ({"agent": "sayer"}, "an agent and no prompt"),
        ({}, "neither 'run' nor 'agent' and 'prompt'"),
        (None, "a task is a Task or a mapping, not nothing"),
        ("x", "not a text"),
    ],
)
def test_a_task_that_cannot_be_run_is_refused_before_anything_starts(task: Any, message: str) -> None:
    started: list[Attempt] = []
    with pytest.raises(PlanError, match=message):
        group(Task("sayer", "good"), task, agents={"sayer": started.append}).run_sync()
    assert started == []


def test_two_tasks_with_one_id_and_cycles_are_refused() -> None:
    with pytest.raises(PlanError, match="two tasks have the id 'a'"):
        group(Task("sayer", "x", id="a"), Task("sayer", "y", id="a")).run_sync()
    with pytest.raises(PlanError, match="a cycle: "):
        group(Task("sayer", "x", id="a", needs="b"), Task("sayer", "y", id="b", needs="a")).run_sync()


def test_a_task_that_does_not_fit_can_be_caught_and_the_group_goes_on() -> None:
    async def main() -> Results:
        async with group() as opened:
            opened.submit("sayer", "x", id="a")
            with pytest.raises(PlanError, match="exists already"):
                opened.submit("sayer", "y", id="a")
            with pytest.raises(PlanError, match="there is no agent 'nobody'"):
                opened.submit("nobody", "y")
            with pytest.raises(PlanError, match="did you mean 'retries'"):
                opened.submit("sayer", "y", retrys=3)  # type: ignore[call-arg]
        return opened.results

    assert [result.id for result in asyncio.run(main())] == ["a"]


@pytest.mark.parametrize(
    "setting", [{"checks": ["true"]}, {"land": True}, {"setup": "true"}, {"base": "HEAD"}]
)
def test_what_needs_a_repository_says_so_without_one(setting: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=f"{next(iter(setting))} needs a repository"):
        group(Task("sayer", "x"), **setting).run_sync()


# --- tasks and their ids ---------------------------------------------------------------------------


def test_ids_are_made_of_the_agent_and_a_number_that_is_free() -> None:
    results = group(
        Task("sayer", "x"),
        Task("sayer", "y", id="sayer-2"),
        Task("sayer", "z"),
        Task(run="true"),
    ).run_sync()
    assert [result.id for result in results] == ["sayer-1", "sayer-2", "sayer-3", "run-1"]


@pytest.mark.parametrize(
    "name", ["a/b/c", "with space", "größe-🚀", "..", "-x", "a" * 200, "x:y~^*?[", "HEAD"]
)
def test_any_printable_id_will_do(name: str) -> None:
    results = group(Task("sayer", "x", id=name), Task("sayer", "y", needs=[name])).run_sync()
    assert results.ok
    assert results[name].summary == "x"


def test_an_agents_name_may_be_as_long_as_an_id() -> None:
    results = group(Task("a" * 200, "x"), agents={}, driver=said).run_sync()
    assert results.ok


def test_ids_and_agents_are_the_same_however_their_letters_are_composed() -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    results = group(
        Task(apart, "x", id=apart), Task(composed, "y", needs=[composed]), agents={apart: said}
    ).run_sync()
    assert results.ok


def test_a_whole_task_can_be_submitted_with_changes() -> None:
    async def main() -> Results:
        async with group() as opened:
            task = Task("sayer", "x", priority=3)
            opened.submit(task)
            opened.submit(task, "something else", id="other", needs=opened.results[0])
            opened.submit({"agent": "sayer", "task": "y", "timeout": 5000}, retries=2)
            opened.submit(run="echo hello", id="command")
            with pytest.raises(PlanError, match="no field 'colour'"):
                opened.submit(task, colour="red")  # type: ignore[call-arg]
        return opened.results

    first, second, third, command = asyncio.run(main())
    assert (first.task.priority, second.task.priority) == (3, 3)
    assert (second.id, second.summary, second.task.needs) == ("other", "something else", ("sayer-1",))
    assert (third.task.timeout, third.task.retries) == (5.0, 2)
    assert (command.id, command.agent, command.summary) == ("command", "", "hello")


def test_what_a_task_hands_on_reaches_the_prompts_of_those_that_need_it() -> None:
    prompts: dict[str, str] = {}

    def agent(attempt: Attempt) -> dict[str, Any]:
        prompts[attempt.task.id] = attempt.prompt
        return {"summary": f"{attempt.task.id} is done", "outputs": {"port": 8080}}

    group(
        Task("a", "first", id="api"),
        Task("a", "Test it on {{ needs.api.outputs.port }}", id="tests", needs="api"),
        Task("a", "Review", id="review", needs=["api", "tests"]),
        agents={"a": agent},
    ).run_sync()
    assert "Test it on 8080" in prompts["tests"]
    assert "### api\n\napi is done" in prompts["review"]


# --- who plays a role ------------------------------------------------------------------------------


class Echo:
    """A driver with a state of its own, as those of agent clients have."""

    def __init__(self, agent: Agent | None = None) -> None:
        self.agent = agent
        self.lines: list[str] = []

    def command(self, attempt: Attempt) -> ProcessSpec:
        return ProcessSpec(argv=("echo", attempt.task.prompt))

    def read(self, line: str) -> list[AgentMessage]:
        self.lines.append(line)
        return [AgentMessage(line)]

    def outcome(self, returncode: int) -> Outcome:
        return Outcome(ok=returncode == 0, summary="|".join(self.lines))


class Uncopied(Echo):
    """A driver that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Unmade(Echo):
    """A driver that cannot be made."""

    def __init__(self, agent: Agent) -> None:
        raise ValueError(f"no {agent.name} today")


class Caller:
    """An object that is a function, and an async one."""

    async def __call__(self, attempt: Attempt) -> str:
        return attempt.task.prompt


async def async_said(attempt: Attempt) -> str:
    return attempt.task.prompt


async def emits(attempt: Attempt, emit: Callable[[Any], None]) -> None:
    emit(AgentMessage(attempt.task.prompt))


@pytest.mark.parametrize(
    "player",
    [
        said,
        async_said,
        emits,
        lambda attempt: attempt.task.prompt,
        Caller(),
        Echo(),
        Echo,
        ScriptedDriver(default=Script().done("hello")),
        Agent(name="whoever", command=("echo", "{prompt}")),
        Agent(name="whoever", command=["echo", "{prompt}"]),  # type: ignore[arg-type]
        {"command": "echo {prompt}"},
        {"command": ["echo"]},
    ],
)
def test_a_role_is_played_by_a_function_an_agent_a_mapping_or_a_driver(player: Any) -> None:
    result = run_sync("role", "hello", agents={"role": player}, repository=None)
    assert (result.summary, result.agent) == ("hello", "role")


def test_a_driver_that_code_gives_is_new_for_each_attempt() -> None:
    driver = Echo()
    results = group(*(Task("echo", text) for text in ("a", "b", "c")), agents={"echo": driver}).run_sync()
    assert [result.summary for result in results] == ["a", "b", "c"]
    assert driver.lines == []


@pytest.mark.parametrize(
    ("player", "message"),
    [
        (
            "python agent.py",
            r"agents\['role'\] is neither an agent, a mapping, a function nor a driver: 'pyth",
        ),
        (Uncopied(), "cannot be copied for each attempt"),
        (3, "neither an agent"),
        (None, "neither an agent"),
        (lambda: None, "an agent takes an attempt"),
        (lambda _a, _b: None, "an agent takes an attempt"),
        ({"comand": "x"}, "did you mean 'command'"),
        ({"command": "no-such-program-anywhere"}, "is not on this machine"),
        (Agent(name="role"), "the agent 'role' has no command"),
        (Agent(name="role", driver="clod", command=("x",)), "unknown driver 'clod'"),
        (Agent(name="role", command=("x",), prompt_by="air"), "prompt_by"),  # type: ignore[arg-type]
    ],
)
def test_a_player_that_cannot_play_is_refused_before_anything_starts(player: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        run_sync("role", "x", agents={"role": player}, repository=None)


def test_agents_and_driver_of_another_kind_are_refused() -> None:
    with pytest.raises(PlanError, match="agents are a mapping of names"):
        group(Task("a", "x"), agents=[said]).run_sync()
    with pytest.raises(PlanError, match="driver is neither a function nor a driver"):
        group(Task("a", "x"), driver=Agent(name="a")).run_sync()


def test_a_driver_that_cannot_be_made_is_a_failed_attempt() -> None:
    with pytest.raises(
        TaskFailed, match=r"the driver of 'role' cannot be made: ValueError\('no role today'\)"
    ):
        run_sync("role", "x", agents={"role": Unmade}, repository=None)


def test_what_a_function_emits_is_checked() -> None:
    async def emits_text(_attempt: Attempt, emit: Callable[[Any], None]) -> None:
        emit("half way")

    with pytest.raises(TaskFailed, match="emit takes agent events"):
        run_sync("role", "x", agents={"role": emits_text}, repository=None)

    async def emits_numbers(_attempt: Attempt, emit: Callable[[Any], None]) -> None:
        for percentage in (-5, 250, float("nan")):
            emit(AgentProgress(percentage))

    seen: list[float | None] = []
    group(
        Task("role", "x"),
        agents={"role": emits_numbers},
        on_progress=lambda _agent, p: seen.append(p.percentage) if p.state is State.RUNNING else None,
    ).run_sync()
    assert seen == [None, 0, 100, 100]


def test_the_driver_plays_who_is_defined_nowhere_or_without_a_command() -> None:
    results = group(
        Task("known", "x"),
        Task("nobody", "x"),
        Task("bare", "x"),
        agents={"known": lambda _attempt: "its own", "bare": Agent(name="bare", instructions="Be brief.")},
        driver=lambda attempt: attempt.prompt,
    ).run_sync()
    assert results[0].summary == "its own"
    assert results[1].summary == "x"
    assert results[2].summary.startswith("Be brief.")


def test_use_driver_plays_in_every_group_made_meanwhile() -> None:
    driver = ScriptedDriver({"api": [Script().takes(300).fail("no database"), Script().done("it works")]})
    with use_driver(driver):
        result = run_virtual(run(Task("backend", "Implement it", id="api", retries=1), repository=None))
    assert result.ok
    assert "no database" in driver.attempts[1].prompt
    assert result.duration == 300
    with pytest.raises(PlanError):
        run_sync("backend", "x", repository=None)


def test_as_many_plain_functions_run_at_once_as_there_are_slots() -> None:
    together = threading.Barrier(24)

    def meets(_attempt: Attempt) -> None:
        together.wait(timeout=60)

    tasks = (Task("meeter", "x") for _ in range(24))
    assert group(*tasks, agents={"meeter": meets}, max_concurrency=24).run_sync().ok


def stops_iteration(_attempt: Attempt) -> None:
    next(iter([]))


def exits(_attempt: Attempt) -> None:
    raise SystemExit(3)


async def exits_async(_attempt: Attempt) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("player", "message"),
    [
        (fails, "ValueError: no database"),
        (stops_iteration, "RuntimeError: it raised StopIteration"),
        (exits, "SystemExit: 3"),
        (exits_async, "SystemExit: 3"),
        (lambda _attempt: 3, "it returned a int"),
        (lambda _attempt: {"sumary": "x"}, "it returned a mapping with sumary"),
        (lambda _attempt: {"outputs": {"x": {1, 2}}}, None),
        (lambda _attempt: {"outputs": {"x": object()}}, "cannot be kept as JSON"),
    ],
)
def test_a_function_that_misbehaves_is_a_failed_attempt(player: Any, message: str | None) -> None:
    if message is None:
        assert run_sync("role", "x", agents={"role": player}, repository=None).ok
        return
    with pytest.raises(TaskFailed, match=message):
        run_sync("role", "x", agents={"role": player}, repository=None)


# --- progress --------------------------------------------------------------------------------------


async def _reporting(_attempt: Attempt, emit: Callable[[Any], None]) -> None:
    emit(AgentProgress(40, "writing"))
    emit(AgentMessage("half way"))
    emit(AgentProgress(None, "still writing"))


def test_progress_tells_of_states_messages_and_percentages() -> None:
    async def main() -> list[Progress]:
        async with group(agents={"reporter": _reporting}) as opened:
            opened.submit("reporter", "x", id="a")
            return [progress async for progress in opened.progress()]

    seen = asyncio.run(main())
    assert [(p.state, p.percentage, p.message) for p in seen] == [
        (State.READY, None, ""),
        (State.RUNNING, None, ""),
        (State.RUNNING, 40, "writing"),
        (State.RUNNING, 40, "half way"),
        (State.RUNNING, 40, "still writing"),
        (State.SUCCEEDED, 100, ""),
    ]
    assert {(p.task.id, p.agent, p.total) for p in seen} == {("a", "reporter", 1)}
    assert [p.done for p in seen] == [0, 0, 0, 0, 0, 1]


def test_a_new_attempt_begins_with_no_percentage() -> None:
    percentages: list[float | None] = []

    async def half(_attempt: Attempt, emit: Callable[[Any], None]) -> None:
        emit(AgentProgress(50))
        raise ValueError

    async def main() -> None:
        await group(
            Task("half", "x", retries=1),
            agents={"half": half},
            on_progress=lambda _agent, p: (
                percentages.append(p.percentage) if p.state is State.RUNNING else None
            ),
        )

    run_virtual(main())
    assert percentages == [None, 50, None, 50]


def test_progress_ends_when_everything_submitted_so_far_has_ended() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        async with group() as opened:
            assert [p async for p in opened.progress()] == []
            opened.submit("sayer", "x")
            async for progress in opened.progress():
                if progress.state is State.SUCCEEDED:
                    seen.append(progress.task.id)
                    if len(seen) == 1:
                        opened.submit("sayer", "y")
            opened.submit("sayer", "z")
            seen += [p.task.id async for p in opened.progress() if p.state is State.SUCCEEDED]
        return seen

    assert asyncio.run(main()) == ["sayer-1", "sayer-2", "sayer-3"]


def test_several_may_follow_the_progress_and_leave_early() -> None:
    async def main() -> tuple[int, bool]:
        async with group() as opened:
            opened.submit("sayer", "x")

            async def follow() -> int:
                return len([progress async for progress in opened.progress()])

            async for _ in opened.progress():
                break
            counts = await asyncio.gather(follow(), follow())
        return counts[0], counts[0] == counts[1]

    count, same = asyncio.run(main())
    assert count >= 1
    assert same


def test_a_progress_callback_that_raises_does_not_disturb_the_run(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_agent: str, _progress: Progress) -> None:
        raise ZeroDivisionError("the callback's own")

    with caplog.at_level(logging.ERROR, logger="agentful"):
        results = group(
            Task("reporter", "x", id="a"), agents={"reporter": _reporting}, on_progress=broken
        ).run_sync()
    assert results.ok
    assert "a progress callback failed at task 'a'; the run goes on" in caplog.text
    assert "ZeroDivisionError: the callback's own" in caplog.text


# --- run -------------------------------------------------------------------------------------------


def test_run_runs_one_task_and_returns_its_result() -> None:
    result = asyncio.run(run("sayer", "hello", id="greeting", agents={"sayer": said}, repository=None))
    assert isinstance(result, TaskResult)
    assert (result.id, result.state, result.summary, result.attempts) == (
        "greeting",
        State.SUCCEEDED,
        "hello",
        1,
    )
    assert run_sync(Task("sayer", "hi"), agents={"sayer": said}, repository=None).summary == "hi"
    assert run_sync({"agent": "sayer", "task": "hi"}, agents={"sayer": said}, repository=None).ok
    assert run_sync(run="echo hi", repository=None).summary == "hi"


def test_run_raises_the_error_of_its_task_as_it_is() -> None:
    with pytest.raises(TaskFailed, match="no database"):
        run_sync("failer", "x", agents={"failer": fails}, repository=None)
    with pytest.raises(TaskTimeout):
        run_virtual(run("hanger", "x", agents={"hanger": never}, repository=None, timeout=5))


def test_run_can_be_retried_with_the_task_of_a_failure() -> None:
    results = group(Task("failer", "x", id="a")).run_sync()
    again = run_sync(results.failed[0].task, "try harder", agents={"failer": said}, repository=None)
    assert (again.id, again.summary) == ("a", "try harder")


def test_the_seeds_fallback_from_parallel_to_sequential() -> None:
    tasks = [{"id": str(n), "agent": "sayer", "task": "x"} for n in range(3)]

    async def main() -> list[str]:
        done = []
        try:
            await TaskGroup([*tasks, tasks[0]], repository=None, driver=said)
        except AgentfulError:
            done = [(await run(task, repository=None, driver=said)).id for task in tasks]
        return done

    assert asyncio.run(main()) == ["0", "1", "2"]


# --- pool ------------------------------------------------------------------------------------------


def pool(max_concurrency: Any = None, **settings: Any) -> AgentPool:
    settings.setdefault("agents", {"sayer": said, "failer": fails, "hanger": never})
    return AgentPool(max_concurrency, repository=None, **settings)


def test_a_pool_queues_what_has_no_slot() -> None:
    at_once, most = 0, 0

    async def count(attempt: Attempt) -> str:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(60)
        at_once -= 1
        return attempt.task.prompt

    async def main() -> tuple[list[str], float]:
        began = clock()
        async with pool(2, agents={"counter": count}) as opened:
            results = await asyncio.gather(*(opened.execute("counter", f"Task {n}") for n in range(5)))
        return [result.summary for result in results], clock() - began

    assert run_virtual(main()) == ([f"Task {n}" for n in range(5)], 180)
    assert most == 2


def test_a_pool_s_run_raises_and_the_pool_does_not_raise_it_again() -> None:
    async def main() -> Results:
        async with pool() as opened:
            with pytest.raises(TaskFailed):
                await opened.run("failer", "x")
            assert (await opened.run("sayer", "y")).ok
        return opened.results

    assert [result.ok for result in asyncio.run(main())] == [False, True]


def test_a_pool_raises_the_failures_that_nobody_has_waited_for() -> None:
    async def main() -> None:
        async with pool() as opened:
            with pytest.raises(TaskFailed):
                await opened.run("failer", "x", id="seen")
            opened.submit("failer", "y", id="unseen")
            opened.submit("sayer", "z")

    with pytest.raises(TaskGroupError) as raised:
        asyncio.run(main())
    assert [error.task_id for error in raised.value.exceptions if isinstance(error, TaskError)] == ["unseen"]


def test_cancelling_a_pool_s_run_cancels_its_task_only() -> None:
    async def main() -> Results:
        async with pool() as opened:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await opened.run("hanger", "x")
            assert (await opened.run("sayer", "y")).ok
        return opened.results

    assert [result.state for result in run_virtual(main())] == [State.CANCELLED, State.SUCCEEDED]


def test_a_group_of_a_pool_gives_its_own_results() -> None:
    async def main() -> tuple[Results, Results]:
        async with pool(4) as opened:
            opened.submit("sayer", "other")
            results = await opened.group(
                [Task("sayer", "b", id="b", needs=["a"]), Task("failer", "c"), Task("sayer", "a", id="a")]
            )
        return results, opened.results

    results, everything = asyncio.run(main())
    assert [result.id for result in results] == ["b", "failer-1", "a"]
    assert [result.ok for result in results] == [True, False, True]
    assert len(everything) == 4


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_group_of_a_pool_may_have_fewer_slots(limit: int) -> None:
    at_once, most = 0, 0

    async def count(_attempt: Attempt) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(60)
        at_once -= 1

    async def main() -> tuple[Results, float]:
        began = clock()
        async with pool(8, agents={"c": count}) as opened:
            results = await opened.group(
                # What needs something must not hold a place while it waits for it.
                [
                    Task("c", "x", id="z", needs="y"),
                    Task("c", "x", id="y"),
                    *(Task("c", "x") for _ in range(4)),
                ],
                max_concurrency=limit,
            )
        return results, clock() - began

    results, took = run_virtual(main())
    assert results.ok
    assert [result.id for result in results][:2] == ["z", "y"]
    assert most == limit
    assert took == 360 / limit


def test_a_group_of_a_pool_is_submitted_whole_or_not_at_all() -> None:
    async def main() -> Results:
        async with pool() as opened:
            for tasks in ([Task("sayer", "x"), Task("nobody", "y")], [Task("sayer", "x", needs="ghost")]):
                for limit in (None, 1):
                    with pytest.raises(PlanError):
                        await opened.group(tasks, max_concurrency=limit)
            with pytest.raises(PlanError, match="max_concurrency: 0"):
                await opened.group([Task("sayer", "x")], max_concurrency=0)
            assert await opened.group([]) == ()
        return opened.results

    assert asyncio.run(main()) == ()


def test_cancelling_a_group_of_a_pool_cancels_its_tasks() -> None:
    async def main() -> Results:
        async with pool() as opened:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await opened.group([Task("hanger", "x"), Task("hanger", "y")])
        return opened.results

    assert [result.state for result in run_virtual(main())] == [State.CANCELLED] * 2


def test_leaving_a_pool_waits_for_what_was_submitted() -> None:
    async def main() -> Results:
        async with pool(1) as opened:
            for text in "abc":
                opened.submit("sayer", text)
        return opened.results

    assert asyncio.run(main()).ok


def test_a_pool_takes_the_settings_of_a_group() -> None:
    with pytest.raises(PlanError, match="did you mean 'retries'"):
        pool(retrys=2)
    with pytest.raises(PlanError, match="neither a whole number nor 'auto'"):
        pool("some")


# --- questions -------------------------------------------------------------------------------------


def answering(opened: TaskGroup, answer: str) -> None:
    """Answer the first question of a group as soon as it is open, as somebody outside would."""

    def look(_transitions: Any) -> None:
        for decision in opened.host.run.view.open_decisions():
            opened.host.run.answer(decision.id, answer)

    opened.host.run.watch(look)


def test_a_question_in_a_group_blocks_the_tasks_it_names_while_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> tuple[str, list[str]]:
        order: list[str] = []

        async def note(attempt: Attempt) -> None:
            order.append(attempt.task.id)

        async with group(agents={"noter": note}) as opened:
            free = opened.submit("noter", "x", id="free")
            blocked = opened.submit("noter", "y", id="blocked", needs=[free])
            asking = asyncio.create_task(
                ask("Which database?", ["postgres", "sqlite"], blocking=[blocked, blocked, "later"])
            )
            await free
            later = opened.submit("noter", "z", id="later")
            free_too = opened.submit("noter", "z", id="free-too")
            await free_too
            assert (blocked.state, later.state) == (State.BLOCKED, State.BLOCKED)
            assert order == ["free", "free-too"]
            assert not asking.done()
            answering(opened, "sqlite")
            opened.submit("noter", "w", id="last")
            answer = await asking
        return answer, order

    answer, order = asyncio.run(main())
    assert answer == "sqlite"
    assert sorted(order[2:]) == ["blocked", "last", "later"]
    assert "d1 waits for you: Which database? (postgres | sqlite)" in caplog.text


def test_the_answer_is_in_the_prompt_of_the_agent_that_asked() -> None:
    driver = ScriptedDriver({"a": [Script().ask("Which one?", ["this", "that"]), Script().done("done")]})

    async def main() -> Results:
        async with group(agents={}, driver=driver) as opened:
            opened.submit("asker", "x", id="a")
            answering(opened, "that")
        return opened.results

    assert run_virtual(main()).ok
    assert "Which one?\n  Answer: that" in driver.attempts[1].prompt


def test_an_agent_that_is_a_function_can_ask_while_it_works() -> None:
    async def asks(_attempt: Attempt) -> str:
        return await ask("Shall I?", ["yes", "no"])

    def asks_from_its_thread(_attempt: Attempt) -> str:
        return ask_sync("Shall I?", ["yes", "no"])

    async def main(player: Any) -> Results:
        async with group(agents={"asker": player}) as opened:
            opened.submit("asker", "x")
            answering(opened, "yes")
        return opened.results

    assert asyncio.run(main(asks))[0].summary == "yes"
    assert asyncio.run(main(asks_from_its_thread))[0].summary == "yes"


def test_questions_are_answered_each_with_its_own_answer() -> None:
    async def main() -> tuple[str, str, str]:
        async with group() as opened:

            def look(_transitions: Any) -> None:
                for decision in opened.host.run.view.open_decisions():
                    opened.host.run.answer(decision.id, decision.question.upper())

            opened.host.run.watch(look)
            one, two, three = await asyncio.gather(ask("one"), ask("two"), ask("one"))
            return one, two, three

    assert asyncio.run(main()) == ("ONE", "TWO", "ONE")


def test_a_question_that_nobody_waits_for_any_more_does_no_harm() -> None:
    async def main() -> Results:
        async with group() as opened:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await ask("Well?")
            opened.submit("sayer", "x")
        return opened.results

    assert run_virtual(main()).ok


def test_a_question_that_is_open_as_the_group_ends_is_told_so() -> None:
    async def main() -> asyncio.Task[str]:
        async with group() as opened:
            asking = asyncio.create_task(ask("Well?"))
            await opened.submit("sayer", "x")
        return asking

    async def both() -> None:
        asking = await main()
        with pytest.raises(AgentfulError, match="nobody had answered"):
            await asking

    asyncio.run(both())


@pytest.mark.parametrize(("question", "options"), [("", []), ("  ", []), (3, []), ("x", [""]), ("x", [3])])
def test_a_question_and_its_options_are_texts(question: Any, options: Any) -> None:
    async def main() -> None:
        async with group():
            await ask(question, options)

    with pytest.raises(PlanError, match="texts that are not blank"):
        asyncio.run(main())


def test_one_option_and_one_blocked_task_need_no_list() -> None:
    async def main() -> tuple[tuple[str, ...], tuple[str, ...]]:
        async with group() as opened:
            handle = opened.submit("sayer", "x", id="only")
            answering(opened, "yes")
            assert await ask("Well?", "yes", blocking=handle) == "yes"
            (decision,) = opened.host.run.view.decisions.values()
        return decision.options, decision.blocking

    assert asyncio.run(main()) == (("yes",), ("only",))


def test_the_time_of_a_group_runs_while_a_person_is_waited_for() -> None:
    driver = ScriptedDriver(default=Script().ask("Which one?"))

    async def main() -> Results:
        return await group(Task("asker", "x"), agents={}, driver=driver, timeout=3600)

    assert run_virtual(main())[0].reason is Reason.RUN_TIMEOUT


# --- stopped by somebody else ----------------------------------------------------------------------


def test_a_group_that_somebody_stops_raises_what_it_left() -> None:
    async def main() -> None:
        async with group(max_concurrency=1) as opened:
            opened.submit("sayer", "x", id="a")
            await opened.submit("sayer", "y", id="b")
            opened.submit("hanger", "z", id="c")
            waiting = opened.submit("sayer", "w", id="d")
            await _until(opened, State.RUNNING)
            opened.host.run.interrupt()
            with pytest.raises(TaskCancelled, match="'d' was not run to its end: its group was stopped"):
                await waiting

    with pytest.raises(TaskGroupError, match="2 of 4 tasks did not succeed") as raised:
        asyncio.run(main())
    assert all(isinstance(error, TaskCancelled) for error in raised.value.exceptions)


@pytest.mark.parametrize("limit", [None, 1])
def test_a_pool_that_somebody_stops_says_so_to_who_waits(limit: int | None) -> None:
    async def main() -> Results:
        async with pool() as opened:
            waiting = asyncio.create_task(
                opened.group([Task("hanger", "x"), Task("hanger", "y")], max_concurrency=limit)
            )
            await asyncio.sleep(0)
            await _until(opened._group, State.RUNNING)
            opened._group.host.run.interrupt()
            with pytest.raises(TaskGroupError, match="of 2 tasks did not succeed"):
                await waiting
        return opened.results

    assert len(asyncio.run(main())) == (limit or 2)


def test_a_group_that_waits_for_a_person_can_be_stopped() -> None:
    async def main() -> None:
        async with group() as opened:
            opened.submit("sayer", "x", id="a")
            await opened.submit("sayer", "y", id="b")
            asking = asyncio.create_task(ask("Well?", blocking=["later"]))
            await asyncio.sleep(0)
            opened.submit("sayer", "z", id="later")
            await _until(opened, State.BLOCKED)
            opened.host.run.pause()
            with pytest.raises(AgentfulError, match="nobody had answered"):
                await asking

    with pytest.raises(TaskGroupError) as raised:
        asyncio.run(main())
    (error,) = raised.value.exceptions
    assert isinstance(error, TaskCancelled)
    assert error.task_id == "later"


def test_a_stop_that_comes_after_everything_has_ended_is_no_error() -> None:
    async def main() -> Results:
        async with group() as opened:
            await opened.submit("sayer", "x")
            opened.host.run.interrupt()
            await asyncio.sleep(0)
        return opened.results

    assert asyncio.run(main()).ok


def test_a_task_that_somebody_has_run_again_is_waited_for() -> None:
    driver = ScriptedDriver({"a": [Script().fail("once"), Script().takes(60).done("twice")]})

    async def main() -> tuple[Results, TaskResult]:
        async with group(agents={}, driver=driver) as opened:
            handle = opened.submit("x", "y", id="a")
            with pytest.raises(TaskFailed):
                await handle
            opened.host.run.retry(["a"])
            await _until(opened, State.RUNNING)
        return opened.results, await handle

    results, result = run_virtual(main())
    assert results.ok
    assert result.summary == "twice"


# --- the current group -----------------------------------------------------------------------------


def test_the_current_group_is_that_of_the_block() -> None:
    async def main() -> None:
        assert current_host.get() is None
        async with group() as outer:
            assert current_host.get() is outer.host
            async with group() as inner:
                assert current_host.get() is inner.host
            assert current_host.get() is outer.host
        assert current_host.get() is None
        await group(Task("sayer", "x"))
        assert current_host.get() is None

    asyncio.run(main())


def test_a_group_in_a_generator_may_be_left_from_another_context() -> None:
    async def opened() -> Any:
        async with group() as inner:
            yield inner

    async def main() -> None:
        generator = opened()
        inner = await asyncio.create_task(anext(generator))
        handle = inner.submit("sayer", "x")
        await asyncio.create_task(_exhaust(generator))
        assert (await handle).ok

    asyncio.run(main())


async def _exhaust(generator: Any) -> None:
    async for _ in generator:
        pass
