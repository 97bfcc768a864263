from __future__ import annotations

import asyncio
import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from agentful.drivers.base import (
    AgentEvent,
    AgentMessage,
    AgentOutput,
    AgentProgress,
    AgentQuestion,
    AgentSummary,
    AgentUsage,
    Attempt,
    FunctionDriver,
    Outcome,
)
from agentful.drivers.python import PythonDriver
from agentful.model import Agent, Reason, Task, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

ATTEMPT = Attempt(
    run="r1",
    task=Task("me", "Do it", id="t"),
    agent=Agent(name="me"),
    number=1,
    prompt="Do it",
    workspace="/workspace",
    prompt_file="/prompt",
)


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else []


def carry_out(function: Callable[..., Any], events: list[AgentEvent] | None = None) -> Outcome:
    """What the runtime does with such a driver."""
    driver = PythonDriver(function)
    assert isinstance(driver, FunctionDriver)
    emit = (events if events is not None else []).append

    async def main() -> Outcome:
        value: Any = (
            await asyncio.to_thread(driver.call, ATTEMPT, emit)
            if driver.blocking
            else driver.call(ATTEMPT, emit)
        )
        return driver.outcome(await value if inspect.isawaitable(value) else value)

    return asyncio.run(main())


def test_plain_and_async_functions_get_the_attempt() -> None:
    def plain(attempt: Attempt) -> str:
        return f"plain {attempt.task.id}"

    async def waiting(attempt: Attempt) -> str:
        await asyncio.sleep(0)
        return f"async {attempt.task.id}"

    class Callable_:  # noqa: N801
        async def __call__(self, attempt: Attempt) -> str:
            return await waiting(attempt)

    assert carry_out(plain) == Outcome(ok=True, summary="plain t")
    assert carry_out(waiting) == Outcome(ok=True, summary="async t")
    assert carry_out(Callable_()).summary == "async t"
    assert carry_out(functools.partial(waiting)).summary == "async t"
    assert carry_out(lambda attempt: waiting(attempt)).summary == "async t"


def test_only_what_does_the_work_itself_is_blocking() -> None:
    async def waiting(attempt: Attempt) -> None: ...

    assert PythonDriver(lambda attempt: None).blocking
    assert PythonDriver(print).blocking
    assert not PythonDriver(waiting).blocking
    assert not PythonDriver(functools.partial(waiting)).blocking


def test_what_it_returns() -> None:
    done = Outcome(ok=False, reason=Reason.AGENT_FAILED, message="no")
    assert carry_out(lambda attempt: None) == Outcome(ok=True)
    assert carry_out(lambda attempt: " did it \n") == Outcome(ok=True, summary="did it")
    assert carry_out(lambda attempt: {}) == Outcome(ok=True)
    assert carry_out(lambda attempt: {"summary": "s", "outputs": {"port": 80}}) == Outcome(
        ok=True, summary="s", outputs={"port": 80}
    )
    assert carry_out(lambda attempt: {"outputs": {"deep": nested(50)}}).ok
    assert carry_out(lambda attempt: {"summary": None, "outputs": None}) == Outcome(ok=True)
    assert carry_out(lambda attempt: done) is done


def test_outputs_are_what_json_can_hold() -> None:
    @dataclass
    class Place:
        line: int

    assert carry_out(lambda attempt: {"outputs": {"at": [Place(3)], "set": {1}}}).outputs == {
        "at": [{"line": 3}],
        "set": [1],
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "returned a int, not None, text, a mapping or an Outcome"),
        (["a"], "returned a list"),
        ({"sumary": "x"}, "a mapping with sumary: only summary and outputs are known"),
        ({1: "x"}, "a mapping with 1:"),
        ({"summary": 3}, "summary that it returned is a int"),
        ({"outputs": [1]}, "cannot be kept as JSON"),
        ({"outputs": {"a": object()}}, "cannot be kept as JSON"),
        ({"outputs": {"a": {"b": nested(100)}}}, "nested too deeply"),
    ],
)
def test_values_that_mean_nothing_are_a_failure(value: object, said: str) -> None:
    outcome = carry_out(lambda attempt: value)
    assert (outcome.ok, outcome.reason) == (False, Reason.AGENT_FAILED)
    assert said in outcome.message


def test_what_it_emits_is_passed_on_and_added_up() -> None:
    emitted: list[AgentEvent] = [
        AgentProgress(40, "half"),
        AgentMessage("first\nlast"),
        AgentOutput("port", 80),
        AgentUsage(Usage(1, 2)),
        AgentUsage(Usage(3, None, 0.5)),
    ]

    def agent(attempt: Attempt, emit: Callable[[AgentEvent], None]) -> dict[str, Any]:
        for event in emitted:
            emit(event)
        return {"outputs": {"host": "h"}}

    async def waiting(attempt: Attempt, *, emit: Callable[[AgentEvent], None]) -> dict[str, Any]:
        return agent(attempt, emit)

    for function in (agent, waiting):
        events: list[AgentEvent] = []
        assert carry_out(function, events) == Outcome(
            ok=True, summary="first\nlast", outputs={"port": 80, "host": "h"}, usage=Usage(4, 2, 0.5)
        )
        assert events == emitted


def test_a_question_comes_before_everything() -> None:
    question = AgentQuestion("Which?", ("a", "b"))

    def agent(attempt: Attempt, emit: Callable[[AgentEvent], None]) -> str:
        emit(AgentSummary("so far"))
        emit(question)
        return "more"

    assert carry_out(agent) == Outcome(
        ok=False, reason=Reason.QUESTION, message="Which?", summary="so far\nmore", question=question
    )


def test_a_second_argument_that_is_not_emit_is_left_alone() -> None:
    def agent(attempt: Attempt, verbose: bool = False, *rest: object) -> str:
        return f"{verbose} {rest}"

    assert carry_out(agent).summary == "False ()"


def test_what_it_raises_comes_out() -> None:
    def agent(attempt: Attempt) -> None:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        carry_out(agent)


@pytest.mark.parametrize("function", [lambda: None, lambda a, b: None, lambda *, attempt: None])
def test_a_function_that_takes_something_else(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="takes an attempt"):
        PythonDriver(function)
