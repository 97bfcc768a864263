"""The API as type checkers see it: checked by mypy and pyright, never run.

Each ``assert_type`` is what a user's editor should say of it. A line that must be refused has a comment
that both checkers would complain about if it were accepted.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

from agentful import (
    Agent,
    AgentPool,
    ConflictError,
    Progress,
    Reason,
    Results,
    State,
    Task,
    TaskError,
    TaskFailed,
    TaskGroup,
    TaskHandle,
    TaskResult,
    Usage,
    ask,
    ask_sync,
    run,
    run_sync,
)
from agentful.drivers.base import AgentEvent, AgentProgress, Attempt, Outcome
from agentful.testing import Script, ScriptedDriver, run_virtual, use_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# --- who plays a role ------------------------------------------------------------------------------


def plain(attempt: Attempt) -> str:
    return attempt.prompt


async def with_emit(attempt: Attempt, emit: Callable[[AgentEvent], None]) -> Mapping[str, Any]:
    emit(AgentProgress(40, f"{attempt.task.id} is under way"))
    return {"summary": "done"}


async def with_outcome(_attempt: Attempt) -> Outcome:
    return Outcome(ok=False, reason=Reason.AGENT_FAILED)


# --- tasks are data --------------------------------------------------------------------------------

api = Task("backend", "Implement the auth API", id="api", writes=["src/api/**"])
ui = Task("frontend", "Create the login page", writes=("src/pages/**",), timeout=timedelta(minutes=10))
tests = Task("tester", "Write tests", needs=[api, "ui"], resources=["db"], retries=2, checks=["pytest -q"])
review = Task("reviewer", "Review", needs=tests, reads_only=True, priority=5, estimate=60)
command = Task(run="ruff check --fix src", id="lint")

assert_type(tests.needs, tuple[str, ...])
assert_type(ui.timeout, float | None)
assert_type(api.writes, tuple[str, ...] | None)

Task("backend", "x", timeout="10m")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
Task("backend", "x", retrys=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
api.id = "other"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


# --- groups ----------------------------------------------------------------------------------------


async def awaited() -> None:
    backend, frontend = await TaskGroup([api, ui], mode="parallel")
    assert_type(backend, TaskResult)
    assert_type(frontend.ok, bool)

    results = await TaskGroup(
        [{"agent": "backend", "task": "Implement auth API", "timeout": 600000}],
        {"mode": "parallel", "failFast": False, "maxConcurrency": 4},
    )
    assert_type(results, Results)
    assert_type(results[0], TaskResult)
    assert_type(results["api"], TaskResult)
    assert_type(results[:2], Results)
    assert_type(results.failed, Results)
    assert_type([failure.error for failure in results.failed], list[TaskError | None])
    for result in results:
        assert_type(result, TaskResult)
        assert_type(result.state, State)
        assert_type(result.usage, Usage)
        assert_type(result.commit, str | None)

    assert_type(await asyncio.wait_for(TaskGroup([api]), 5), Results)


async def entered() -> None:
    async with TaskGroup(max_concurrency="auto", timeout=timedelta(hours=1), on_progress=shown) as group:
        assert_type(group, TaskGroup)
        first = group.submit("backend", "Implement the auth API", writes=["src/api/**"])
        assert_type(first, TaskHandle)
        second = group.submit("frontend", "Create the login page", writes="src/pages/**", needs=first)
        group.submit("tester", "Write tests", needs=[first, second], timeout=timedelta(minutes=5))
        group.submit(review, needs=[first.id])
        group.submit({"agent": "backend", "task": "x"})
        group.submit(run="ruff check --fix src")
        async for progress in group.progress():
            assert_type(progress, Progress)
            assert_type(progress.percentage, float | None)
        assert_type(await first, TaskResult)
        assert_type(await second.wait(), TaskResult)
        assert_type(first.result, TaskResult)
        assert_type(first.done, bool)
        first.cancel()
        group.cancel()
        assert_type(await ask("Which?", ["a", "b"], blocking=[first, "api"]), str)
    assert_type(group.results, Results)
    assert_type(group.branch, str | None)


def shown(agent: str, progress: Progress) -> None:
    print(f"{agent}: {progress.percentage}% complete")


async def refused() -> None:
    TaskGroup(mode="paralel")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    TaskGroup(max_concurency=3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    TaskGroup(on_progress=lambda progress: None)  # type: ignore[arg-type,misc] # pyright: ignore[reportArgumentType]
    async with TaskGroup() as group:
        group.submit("backend", "x", retrys=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        group.submit("backend", "x", needs=[3])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]


async def errors() -> None:
    try:
        async with TaskGroup() as group:
            group.submit("backend", "Implement auth API", id="auth-api")
    except* ConflictError as conflicts:
        for conflict in conflicts.exceptions:
            assert isinstance(conflict, ConflictError)
            assert_type(conflict.paths, tuple[str, ...])
            assert_type(conflict.other, str | None)
    except* TaskFailed as failures:
        assert_type(failures, ExceptionGroup[TaskFailed])


def players() -> TaskGroup:
    return TaskGroup(
        [api],
        agents={
            "backend": plain,
            "frontend": with_emit,
            "tester": Agent(name="tester", command=("pytest",)),
            "reviewer": {"command": ["claude", "-p", "{prompt}"]},
            "writer": ScriptedDriver(default=Script().done("wrote it")),
            "quitter": with_outcome,
        },
        driver=ScriptedDriver(),
        repository=Path("/srv/project"),
        checks=["pytest -q"],
        retries=2,
        fail_fast=True,
        conflicts="optimistic",
        on_failure="decide",
        land=True,
        title="Auth",
    )


# --- one task, a pool, and the blocking twins --------------------------------------------------------


async def single() -> None:
    assert_type(await run("tester", "Write tests"), TaskResult)
    assert_type(await run(api), TaskResult)
    assert_type(await run({"agent": "tester", "task": "Write tests"}, retries=1), TaskResult)
    assert_type(await run("tester", "x", agents={"tester": plain}, repository=None, land=False), TaskResult)
    one, two = await asyncio.gather(run("a", "x"), run("b", "y"))
    assert_type(one, TaskResult)
    assert_type(two, TaskResult)


async def pooled() -> None:
    async with AgentPool(max_concurrency=4, agents={"a": plain}) as pool:
        assert_type(pool, AgentPool)
        assert_type(await pool.run("backend", "Task 1"), TaskResult)
        assert_type(await pool.execute("backend", "Task 2", priority=3), TaskResult)
        assert_type(pool.submit("frontend", "Task 3"), TaskHandle)
        assert_type(await pool.group([api, ui], max_concurrency=3), Results)
        assert_type(pool.results, Results)
    AgentPool("auto")
    AgentPool("many")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def blocking() -> None:
    assert_type(run_sync("tester", "Write tests", timeout=60), TaskResult)
    assert_type(TaskGroup([api]).run_sync(), Results)
    assert_type(ask_sync("Go on?"), str)
    with use_driver(plain):
        assert_type(run_virtual(run("tester", "x")), TaskResult)
