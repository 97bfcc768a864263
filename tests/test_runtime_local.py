"""Runs without a repository: functions, plain functions on threads, shell commands, and their ends."""

from __future__ import annotations

import asyncio
import fcntl
import shlex
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentful.core.scheduler import SKIP
from agentful.drivers.base import AgentEvent, AgentMessage, AgentProgress, Attempt, FunctionDriver, Outcome
from agentful.drivers.command import CommandDriver
from agentful.drivers.python import PythonDriver
from agentful.errors import AgentError, JournalError, PlanError
from agentful.events import (
    AdvanceBranch,
    AttemptLost,
    LandingLost,
    PrepareLanding,
    RecoverAttempt,
    TaskAdded,
)
from agentful.model import Agent, Decision, Options, Reason, State, Task, TaskResult
from agentful.runtime.engine import Stop
from agentful.runtime.inplace import InPlace
from agentful.runtime.journal import MemoryJournal
from agentful.runtime.local import LocalRun
from agentful.runtime.process import Supervisor
from agentful.testing import EPOCH, Script, ScriptedDriver, clock, run_virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentful.events import Transition


def plays(function: Callable[..., Any]) -> Callable[[Agent], FunctionDriver]:
    return lambda _agent: PythonDriver(function)


def local(
    *tasks: Task, function: Callable[..., Any] | None = None, driver: Any = None, **options: Any
) -> dict[str, TaskResult]:
    """The results of a run on an ordinary loop."""

    async def main() -> dict[str, TaskResult]:
        async with LocalRun(Options(**options), driver_for=_driver_for(function, driver)) as run:
            run.submit(tasks)
            await run.wait()
            return {result.id: result for result in run.view.results()}

    return asyncio.run(main())


def virtual(
    *tasks: Task, function: Callable[..., Any] | None = None, driver: Any = None, **options: Any
) -> dict[str, TaskResult]:
    """The same in virtual time."""

    async def main() -> dict[str, TaskResult]:
        driver_for = _driver_for(function, driver)
        async with LocalRun(Options(**options), driver_for=driver_for, clock=clock) as run:
            run.submit(tasks)
            await run.wait()
            return {result.id: result for result in run.view.results()}

    return run_virtual(main())


def _driver_for(function: Callable[..., Any] | None, driver: Any) -> Any:
    if driver is not None:
        return lambda _agent: driver
    return None if function is None else plays(function)


def task(task_id: str, *needs: str, **fields: Any) -> Task:
    return Task("agent", f"Do {task_id}", id=task_id, needs=needs, **fields)


def shell(task_id: str, command: str, *needs: str, **fields: Any) -> Task:
    return Task(id=task_id, run=command, needs=needs, **fields)


# --- functions ------------------------------------------------------------------------------------


def test_functions_run_in_order_and_hand_on_what_they_made() -> None:
    prompts: dict[str, str] = {}

    async def agent(attempt: Attempt) -> dict[str, Any]:
        prompts[attempt.task.id] = attempt.prompt
        return {"summary": f"did {attempt.task.id}", "outputs": {"port": 3000}}

    found = local(task("a"), task("b", "a"), function=agent)
    assert all(result.ok for result in found.values())
    assert (found["a"].summary, found["a"].outputs) == ("did a", {"port": 3000})
    assert "did a" not in prompts["a"]
    assert "did a" in prompts["b"]
    assert "3000" in prompts["b"]


def test_tasks_may_be_submitted_one_by_one_each_needing_the_one_before() -> None:
    async def main() -> list[State]:
        async with LocalRun(driver_for=lambda _: ScriptedDriver(default=Script().takes(5))) as run:
            run.submit([task("a")])
            run.submit([task("b", "a")])
            with pytest.raises(PlanError, match="a"):
                run.submit([task("a")])
            await run.wait()
            return [result.state for result in run.view.results()]

    assert run_virtual(main()) == [State.SUCCEEDED, State.SUCCEEDED]


def test_what_does_not_fit_is_refused_and_the_run_goes_on() -> None:
    async def main() -> list[str]:
        async with LocalRun(driver_for=lambda _: ScriptedDriver(default=Script())) as run:
            with pytest.raises(PlanError, match="nowhere"):
                run.submit([task("x"), task("y", "nowhere")])
            with pytest.raises(PlanError):
                run.submit([task("x", "y"), task("y", "x")])
            run.submit([task("b", "a"), task("a")])
            await run.wait()
            return [result.id for result in run.view.results() if result.ok]

    assert run_virtual(main()) == ["a", "b"]


def test_functions_run_at_once_in_as_many_slots_as_there_are() -> None:
    at_once: list[int] = []
    running = 0

    async def agent(attempt: Attempt) -> None:
        nonlocal running
        running += 1
        at_once.append(running)
        await asyncio.sleep(10)
        running -= 1

    found = virtual(*(task(f"t{number}") for number in range(7)), function=agent, max_concurrency=3)
    assert max(at_once) == 3
    assert max(result.finished_at or 0.0 for result in found.values()) == EPOCH + 30


def test_a_plain_function_runs_on_a_thread_and_the_loop_goes_on() -> None:
    threads: set[int] = set()
    both = threading.Barrier(2, timeout=30)

    def agent(attempt: Attempt) -> str:
        threads.add(threading.get_ident())
        both.wait()  # each waits until the other one runs as well
        return f"did {attempt.task.id}"

    found = local(task("a"), task("b"), function=agent)
    assert [result.summary for result in found.values()] == ["did a", "did b"]
    assert len(threads) == 2
    assert threading.get_ident() not in threads


def test_a_function_that_raises_fails_its_task_and_skips_what_needs_it() -> None:
    async def agent(attempt: Attempt) -> None:
        if attempt.task.id == "a":
            raise KeyError("port")

    found = local(task("a"), task("b", "a"), task("c"), function=agent)
    assert {i: result.state for i, result in found.items()} == {
        "a": State.FAILED,
        "b": State.SKIPPED,
        "c": State.SUCCEEDED,
    }
    assert found["a"].reason is Reason.AGENT_FAILED
    assert found["a"].message == "KeyError: 'port'"


def test_the_next_attempt_is_told_what_went_wrong() -> None:
    driver = ScriptedDriver({"a": [Script().message("connecting").fail("no database"), Script().done("ok")]})
    found = virtual(task("a", retries=1), driver=driver, retry_delay=30.0)
    assert found["a"].ok
    assert found["a"].attempts == 2
    assert "no database" in driver.attempts[1].prompt
    assert "connecting" in driver.attempts[1].prompt
    assert found["a"].finished_at == EPOCH + 30


def test_what_cannot_be_called_is_a_failure_with_a_reason() -> None:
    def driver_for(agent: Agent) -> FunctionDriver:
        raise AgentError(f"nobody plays {agent.name}")

    async def main() -> TaskResult:
        async with LocalRun(driver_for=driver_for) as run:
            run.submit([task("a")])
            await run.wait()
            return run.view.results()[0]

    found = asyncio.run(main())
    assert (found.state, found.reason) == (State.FAILED, Reason.AGENT_MISSING)
    assert found.message == "nobody plays agent"


def test_attempts_know_where_they_are_and_by_when_they_have_to_end(tmp_path: Path) -> None:
    seen: list[Attempt] = []

    async def agent(attempt: Attempt) -> None:
        seen.append(attempt)

    async def main() -> str:
        roles = {"agent": Agent(name="agent", instructions="You are careful.")}
        async with LocalRun(agents=roles, driver_for=plays(agent), folder=tmp_path, clock=clock) as run:
            run.submit([task("a", timeout=60)])
            await run.wait()
            return run.id

    run_id = run_virtual(main())
    (attempt,) = seen
    assert (attempt.run, attempt.number, attempt.workspace) == (run_id, 1, str(tmp_path))
    assert attempt.deadline == EPOCH + 60
    assert "You are careful." in attempt.prompt
    assert attempt.agent.instructions


# --- commands ----------------------------------------------------------------------------------------


def test_commands_run_in_the_folder_and_their_words_are_progress(tmp_path: Path) -> None:
    said: list[tuple[str, AgentEvent]] = []

    async def main() -> list[TaskResult]:
        async with LocalRun(folder=tmp_path) as run:
            run.on_progress(lambda task_id, event: said.append((task_id, event)))
            run.submit(
                [
                    shell("write", "echo one; echo '::progress 40 writing'; echo x > made; pwd -P"),
                    shell("read", "cat made", "write"),
                ]
            )
            await run.wait()
            return run.view.results()

    write, read = asyncio.run(main())
    assert write.ok, write
    assert read.ok, read
    assert (tmp_path / "made").read_text() == "x\n"
    assert ("write", AgentMessage("one")) in said
    assert ("write", AgentProgress(40, "writing")) in said
    assert ("write", AgentMessage(str(tmp_path.resolve()))) in said
    assert ("read", AgentMessage("x")) in said


def test_a_command_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    async def main() -> TaskResult:
        async with LocalRun(folder=tmp_path) as run:
            run.submit([shell("a", "echo so far so good; echo it broke >&2; exit 3")])
            await run.wait()
            return run.view.results()[0]

    found = asyncio.run(main())
    assert (found.state, found.reason) == (State.FAILED, Reason.AGENT_FAILED)
    assert "3" in found.message or "it broke" in found.message
    assert found.detail.splitlines() == ["so far so good", "it broke"]


def test_an_agent_with_a_command_gets_its_prompt_as_a_file_that_is_gone_after(tmp_path: Path) -> None:
    agent = Agent(
        name="agent",
        command=("sh", "-c", 'cat "$AGENTFUL_PROMPT_FILE"; echo "$AGENTFUL_PROMPT_FILE" > where'),
        prompt_by="file",
    )
    said: list[AgentEvent] = []

    async def main() -> TaskResult:
        async with LocalRun(agents={"agent": agent}, folder=tmp_path, driver_for=CommandDriver) as run:
            run.on_progress(lambda _, event: said.append(event))
            run.submit([task("a")])
            await run.wait()
            return run.view.results()[0]

    assert asyncio.run(main()).ok
    assert AgentMessage("Do a") in said
    where = (tmp_path / "where").read_text().strip()
    assert where
    assert not Path(where).exists()


_HOLDS = """
import fcntl, time
held = open("held", "w")
fcntl.flock(held, fcntl.LOCK_EX)
print("ready", flush=True)
time.sleep(3600)
"""
_HOLD = f"{shlex.quote(sys.executable)} -c {shlex.quote(_HOLDS)} & wait"
"""A command whose child holds a lock for as long as it lives."""


def is_let_go(folder: Path) -> bool:
    with (folder / "held").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_command_that_is_cancelled_is_gone_with_all_its_children(tmp_path: Path) -> None:
    async def main() -> list[TaskResult]:
        held: list[bool] = []
        async with LocalRun(folder=tmp_path) as run:

            def on_progress(task_id: str, event: AgentEvent) -> None:
                held.append(not is_let_go(tmp_path))
                run.cancel([task_id])

            run.on_progress(on_progress)
            run.submit([shell("a", _HOLD), shell("b", "true", "a")])
            await run.wait()
            assert held == [True]
            assert is_let_go(tmp_path)
            return run.view.results()

    a, b = asyncio.run(main())
    assert (a.state, a.reason) == (State.CANCELLED, Reason.CANCELLED)
    assert b.state is State.SKIPPED


def test_a_command_that_takes_too_long_is_a_timeout(tmp_path: Path) -> None:
    async def main() -> TaskResult:
        async with LocalRun(folder=tmp_path) as run:
            run.submit([shell("a", "sleep 3600", timeout=0.2)])
            await run.wait()
            return run.view.results()[0]

    found = asyncio.run(main())
    assert (found.state, found.reason) == (State.FAILED, Reason.TIMEOUT)


def test_leaving_the_run_ends_its_processes(tmp_path: Path) -> None:
    async def main() -> None:
        started = asyncio.Event()
        async with LocalRun(folder=tmp_path) as run:
            run.on_progress(lambda *_: started.set())
            run.submit([shell("a", _HOLD)])
            await started.wait()
            assert not is_let_go(tmp_path)
        assert is_let_go(tmp_path)

    asyncio.run(main())


# --- progress, cancelling, time ----------------------------------------------------------------------


@pytest.mark.parametrize("blocking", [False, True])
def test_progress_is_told_on_the_loop(blocking: bool) -> None:
    told: list[tuple[str, AgentEvent, int]] = []

    def plain(attempt: Attempt, emit: Callable[[AgentEvent], None]) -> str:
        emit(AgentProgress(50, "half"))
        emit(AgentMessage("nearly"))
        return "done"

    async def not_plain(attempt: Attempt, emit: Callable[[AgentEvent], None]) -> str:
        return plain(attempt, emit)

    async def main() -> TaskResult:
        async with LocalRun(driver_for=plays(plain if blocking else not_plain)) as run:
            run.on_progress(lambda task_id, event: told.append((task_id, event, threading.get_ident())))
            run.submit([task("a")])
            await run.wait()
            return run.view.results()[0]

    assert asyncio.run(main()).summary == "done"
    here = threading.get_ident()
    assert told == [("a", AgentProgress(50, "half"), here), ("a", AgentMessage("nearly"), here)]


def test_cancel_stops_what_runs_and_what_has_not_started() -> None:
    tidied: list[str] = []

    async def agent(attempt: Attempt) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            tidied.append(attempt.task.id)

    async def main() -> dict[str, tuple[State, Reason | None]]:
        async with LocalRun(Options(max_concurrency=1), driver_for=plays(agent), clock=clock) as run:
            run.submit([task("a"), task("b"), task("c", "a")])
            await asyncio.sleep(5)
            run.cancel()
            await run.wait()
            assert clock() == EPOCH + 5
            return {result.id: (result.state, result.reason) for result in run.view.results()}

    found = run_virtual(main())
    assert tidied == ["a"]
    assert set(found.values()) == {(State.CANCELLED, Reason.CANCELLED)}


def test_a_plain_function_that_is_cancelled_is_not_waited_for() -> None:
    release = threading.Event()

    def agent(attempt: Attempt, emit: Callable[[AgentEvent], None]) -> None:
        emit(AgentMessage("ready"))
        release.wait(30)

    async def main() -> TaskResult:
        try:
            async with LocalRun(driver_for=plays(agent)) as run:
                run.on_progress(lambda task_id, _: run.cancel([task_id]))
                run.submit([task("a")])
                await run.wait()
                assert not release.is_set()
                return run.view.results()[0]
        finally:
            release.set()

    assert asyncio.run(main()).state is State.CANCELLED


def test_a_function_that_will_not_be_cancelled_ends_when_it_ends() -> None:
    async def agent(attempt: Attempt) -> str:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(50)
        return "finished all the same"

    async def main() -> TaskResult:
        async with LocalRun(driver_for=plays(agent), clock=clock) as run:
            run.submit([task("a")])
            await asyncio.sleep(5)
            run.cancel()
            await run.wait()
            assert clock() == EPOCH + 55
            return run.view.results()[0]

    assert run_virtual(main()).state is State.CANCELLED


def test_a_timeout_stops_a_function_and_it_may_try_again() -> None:
    driver = ScriptedDriver({"a": [Script().hang(), Script().takes(10).done("ok")]})
    found = virtual(task("a", timeout=60, retries=1), driver=driver, retry_delay=1.0)
    assert found["a"].ok
    assert found["a"].attempts == 2
    assert found["a"].finished_at == pytest.approx(EPOCH + 71)


def test_a_function_that_cancels_itself_has_failed() -> None:
    async def agent(attempt: Attempt) -> None:
        raise asyncio.CancelledError

    found = virtual(task("a"), function=agent)
    assert not found["a"].ok
    assert found["a"].state is State.FAILED


def test_interrupt_leaves_what_ran_to_be_run_again() -> None:
    async def main() -> list[State]:
        driver = ScriptedDriver(default=Script().takes(100))
        async with LocalRun(driver_for=lambda _: driver, clock=clock) as run:
            run.submit([task("a"), task("b", "a")])
            await asyncio.sleep(5)
            run.interrupt()
            await run.wait()
            before = [result.state for result in run.view.results()]
            run.unpause()
            await run.wait()
            assert clock() == EPOCH + 205
            return before + [result.state for result in run.view.results()]

    assert run_virtual(main()) == [State.READY, State.WAITING, State.SUCCEEDED, State.SUCCEEDED]


def test_pause_lets_finish_what_runs_and_starts_nothing() -> None:
    async def main() -> list[State]:
        driver = ScriptedDriver(default=Script().takes(100))
        async with LocalRun(Options(max_concurrency=1), driver_for=lambda _: driver, clock=clock) as run:
            run.submit([task("a"), task("b")])
            await asyncio.sleep(5)
            run.pause()
            await run.wait()
            return [result.state for result in run.view.results()]

    assert run_virtual(main()) == [State.SUCCEEDED, State.READY]


def test_a_question_waits_for_its_answer_and_the_rest_goes_on() -> None:
    driver = ScriptedDriver({"a": [Script().ask("Which port?"), Script().done("took it")]}, default=Script())

    async def main() -> list[State]:
        async with LocalRun(driver_for=lambda _: driver, clock=clock) as run:
            run.submit([task("a"), task("b", "a"), task("c")])
            await run.wait()
            states = [result.state for result in run.view.results()]
            (decision,) = run.view.open_decisions()
            assert decision.question == "Which port?"
            run.answer(decision.id, "3000")
            await run.wait()
            return states + [result.state for result in run.view.results()]

    assert run_virtual(main()) == [State.BLOCKED, State.WAITING, State.SUCCEEDED, *[State.SUCCEEDED] * 3]
    assert "3000" in driver.attempts[-2].prompt + driver.attempts[-1].prompt


def test_a_decision_may_be_opened_and_a_failed_task_dropped_or_retried() -> None:
    driver = ScriptedDriver({"a": [Script().fail("no"), Script().done()], "z": Script().fail("never")})
    driver.default = Script()

    async def main() -> dict[str, State]:
        options = Options(on_failure="decide")
        async with LocalRun(options, driver_for=lambda _: driver, clock=clock) as run:
            run.ask(Decision(id="", question="Go?", blocking=("c",)))
            run.submit([task("a"), task("c"), task("z")])
            await run.wait()
            asked = {decision.blocking[0]: decision for decision in run.view.open_decisions()}
            assert sorted(asked) == ["a", "c", "z"]
            run.answer(asked["c"].id, "yes")
            run.answer(asked["a"].id, "Try again")
            run.answer(asked["z"].id, SKIP)
            await run.wait()
            return {result.id: result.state for result in run.view.results()}

    assert run_virtual(main()) == {"a": State.SUCCEEDED, "c": State.SUCCEEDED, "z": State.SKIPPED}


def test_what_failed_may_be_run_again() -> None:
    driver = ScriptedDriver({"a": [Script().fail("no"), Script().done()]}, default=Script())

    async def main() -> list[State]:
        async with LocalRun(driver_for=lambda _: driver, clock=clock) as run:
            run.submit([task("a"), task("b", "a")])
            await run.wait()
            before = [result.state for result in run.view.results()]
            run.retry(["a"])
            await run.wait()
            return before + [result.state for result in run.view.results()]

    assert run_virtual(main()) == [State.FAILED, State.SKIPPED, State.SUCCEEDED, State.SUCCEEDED]


# --- what it keeps ------------------------------------------------------------------------------------


def test_watchers_see_what_is_in_the_view_and_in_the_journal() -> None:
    journal = MemoryJournal()
    seen: list[Transition] = []

    async def main() -> None:
        async with LocalRun(driver_for=lambda _: ScriptedDriver(default=Script()), journal=journal) as run:

            def watcher(transitions: Sequence[Transition]) -> None:
                seen.extend(transitions)
                for transition in transitions:
                    if not isinstance(transition, TaskAdded):
                        assert run.view.at >= transition.at
                assert journal.transitions() == seen

            run.watch(watcher)
            run.submit([task("a")])
            await run.wait()

    asyncio.run(main())
    assert len(seen) == 4


def test_a_journal_that_fails_ends_the_run() -> None:
    class Full(MemoryJournal):
        def append(self, transitions: Sequence[Transition]) -> None:
            raise JournalError("the disk is full")

    async def main() -> None:
        async with LocalRun(driver_for=lambda _: ScriptedDriver(default=Script()), journal=Full()) as run:
            run.submit([task("a")])
            with pytest.raises(JournalError, match="disk is full"):
                await run.wait()
            assert run.view.results() == []

    asyncio.run(main())


def test_an_error_in_the_block_ends_what_runs_and_comes_out() -> None:
    ended: list[str] = []

    async def agent(attempt: Attempt) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(attempt.task.id)

    async def main() -> None:
        async with LocalRun(driver_for=plays(agent), clock=clock) as run:
            run.submit([task("a")])
            await asyncio.sleep(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_virtual(main())
    assert ended == ["a"]


def test_what_needs_a_repository_or_an_earlier_process_is_answered_as_lost(tmp_path: Path) -> None:
    async def main() -> None:
        supervisor = Supervisor(containment="group")
        place = InPlace("r", tmp_path, supervisor, {}, plays(lambda attempt: None), lambda *_: None)
        wish = task("a")
        recovered = await place.perform(RecoverAttempt("a", wish, 1), Stop())
        assert isinstance(recovered, AttemptLost)
        for command in (PrepareLanding("a", wish, 1, "c"), AdvanceBranch("a", "c", "o")):
            assert isinstance(await place.perform(command, Stop()), LandingLost)

    asyncio.run(main())


def test_an_outcome_may_say_everything() -> None:
    async def agent(attempt: Attempt) -> Outcome:
        return Outcome(ok=False, reason=Reason.AGENT_MISSING, message="logged out")

    found = virtual(task("a"), function=agent)
    assert (found["a"].reason, found["a"].message) == (Reason.AGENT_MISSING, "logged out")
