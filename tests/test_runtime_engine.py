"""The loop on its own: a fake performer, virtual time, and what is done against what was written down."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from agentful.core.scheduler import Scheduler
from agentful.errors import JournalError, PlanError
from agentful.events import (
    AdvanceBranch,
    AttemptFailed,
    AttemptLost,
    AttemptStopped,
    AttemptSucceeded,
    CancelRequested,
    DecisionAnswered,
    Landed,
    LandingLost,
    LandingPrepared,
    LandingRejected,
    Paused,
    PrepareLanding,
    RecoverAttempt,
    RetryRequested,
    StartAttempt,
    TaskChanged,
    TasksSubmitted,
    Trigger,
    Unpaused,
)
from agentful.model import Options, Reason, State, Task
from agentful.runtime.engine import Engine, Stop
from agentful.testing import EPOCH, Deadlock, MemoryJournal, VirtualLoop, clock, run_virtual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from agentful.events import Command, Event, Transition

    Act = Callable[[Any, Stop], Awaitable[Event]]


async def succeeds(command: StartAttempt, stop: Stop) -> Event:
    return AttemptSucceeded(clock(), command.task_id, command.attempt)


def takes(seconds: float) -> Act:
    async def act(command: StartAttempt, stop: Stop) -> Event:
        await asyncio.sleep(seconds)
        return AttemptSucceeded(clock(), command.task_id, command.attempt)

    return act


async def until_stopped(command: StartAttempt, stop: Stop) -> Event:
    over = asyncio.Event()
    stop.on_request(over.set)
    await over.wait()
    return AttemptStopped(clock(), command.task_id, command.attempt)


async def hangs(command: StartAttempt, stop: Stop) -> Event:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nothing wakes it")


def raises(error: BaseException) -> Act:
    async def act(command: Command, stop: Stop) -> Event:
        raise error

    return act


class Run:
    """An engine with acts that the test gives, and a log of everything that it does, in order."""

    def __init__(
        self, *acts: Act, journal: Any = None, transitions: Sequence[Transition] = (), **options: Any
    ):
        self.acts = list(acts) or [succeeds]
        self.landing: Act | None = None
        self.log: list[tuple[str, Any]] = []
        self.stops: dict[str, Stop] = {}
        self.posted: list[Event] = []
        self.inner = MemoryJournal() if journal is None else journal
        scheduler = Scheduler.restore(transitions, Options(**options))
        self.engine = Engine(scheduler, self, self, clock=clock)
        self.engine.watch(lambda transitions: self.log.append(("told", list(transitions))))
        post = self.engine.post

        def posted(event: Event) -> None:
            self.posted.append(event)
            post(event)

        self.engine.post = posted  # type: ignore[method-assign]

    @property
    def scheduler(self) -> Scheduler:
        return self.engine.scheduler

    def append(self, transitions: Sequence[Transition]) -> None:
        self.log.append(("written", list(transitions)))
        self.inner.append(transitions)

    async def perform(self, command: Command, stop: Stop) -> Event:
        self.log.append(("act", command))
        self.stops[command.task_id] = stop
        if isinstance(command, StartAttempt):
            act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
            return await act(command, stop)
        if isinstance(command, RecoverAttempt):
            return AttemptLost(clock(), command.task_id, command.attempt, "gone")
        if self.landing is not None:
            return await self.landing(command, stop)
        if isinstance(command, PrepareLanding):
            return LandingPrepared(clock(), command.task_id, command.commit, "tip")
        assert isinstance(command, AdvanceBranch)
        return Landed(clock(), command.task_id, command.commit)

    def submit(self, *tasks: Task) -> None:
        self.engine.post(TasksSubmitted(clock(), tasks))

    def written(self) -> list[list[Transition]]:
        return [said for kind, said in self.log if kind == "written"]

    def acts_done(self) -> list[Command]:
        return [said for kind, said in self.log if kind == "act"]

    def states(self) -> dict[str, State]:
        return {record.id: record.state for record in self.scheduler.records.values()}

    async def finish(self) -> None:
        await self.engine.wait_idle()
        self.scheduler.check()
        await self.engine.close()


def task(task_id: str, *needs: str, **fields: Any) -> Task:
    return Task("agent", "do it", id=task_id, needs=needs, **fields)


def others() -> set[asyncio.Task[Any]]:
    return {act for act in asyncio.all_tasks() if act is not asyncio.current_task()}


def timers() -> list[asyncio.TimerHandle]:
    loop: Any = asyncio.get_running_loop()
    return [timer for timer in loop._scheduled if not timer.cancelled()]


# --- written down, then done -----------------------------------------------------------------------


def test_what_is_decided_is_written_down_then_told_then_done() -> None:
    async def main() -> None:
        run = Run()
        run.submit(task("a"))
        await run.finish()
        assert [kind for kind, _ in run.log] == ["written", "told", "act", "written", "told"]
        started = run.written()[0][-1]
        assert isinstance(started, TaskChanged)
        assert started.trigger is Trigger.STARTED
        assert run.log[0][1] == run.log[1][1]

    run_virtual(main())


def test_every_act_of_a_random_run_was_written_down_before() -> None:
    async def main() -> None:
        async def changes(command: StartAttempt, stop: Stop) -> Event:
            commit = f"{command.task_id}.{command.attempt}"
            return AttemptSucceeded(clock(), command.task_id, command.attempt, commit, ("a",))

        run = Run(changes, max_concurrency=3)
        run.submit(*_random_plan(random.Random(4)))
        await run.finish()
        started: set[tuple[str, int]] = set()
        prepared: dict[str, tuple[str | None, str | None]] = {}
        for kind, said in run.log:
            if kind == "written":
                for change in said:
                    if isinstance(change, TaskChanged) and change.trigger is Trigger.STARTED:
                        started.add((change.task_id, change.attempt))
                    if isinstance(change, TaskChanged) and change.trigger is Trigger.PREPARED:
                        assert change.detail is not None
                        prepared[change.task_id] = change.detail.commit, change.detail.onto
            elif kind == "act" and isinstance(said, StartAttempt):
                assert (said.task_id, said.attempt) in started
            elif kind == "act" and isinstance(said, AdvanceBranch):
                assert prepared[said.task_id] == (said.commit, said.onto)
        assert prepared

    run_virtual(main())


def test_a_journal_that_fails_stops_everything_and_says_so_to_who_waits() -> None:
    class Full(MemoryJournal):
        def append(self, transitions: Sequence[Transition]) -> None:
            if self.transitions():
                raise JournalError("the disk is full")
            super().append(transitions)

    async def main() -> None:
        run = Run(until_stopped, succeeds, journal=Full(), max_concurrency=2)
        run.submit(task("a", priority=1), task("b"), task("c", "b"))
        with pytest.raises(JournalError, match="disk is full"):
            await run.engine.wait_idle()
        # What could not be written down was not done.
        assert [command.task_id for command in run.acts_done()] == ["a", "b"]
        assert run.stops["a"].requested
        told = [said for kind, said in run.log if kind == "told"]
        assert sum(map(len, told)) == len(run.inner.transitions())
        # Nothing is taken up again, and it is said to whoever comes late.
        run.submit(task("d"))
        await asyncio.sleep(1)
        assert "d" not in run.scheduler.records
        with pytest.raises(JournalError):
            await run.engine.wait_idle()
        await run.engine.close()
        assert not others()

    run_virtual(main())


def test_a_watcher_that_raises_ends_the_loop_before_anything_is_done() -> None:
    async def main() -> None:
        run = Run()

        def watcher(transitions: Sequence[Transition]) -> None:
            raise ZeroDivisionError

        run.engine.watch(watcher)
        run.submit(task("a"))
        with pytest.raises(ZeroDivisionError):
            await run.engine.wait_idle()
        assert run.acts_done() == []
        await run.engine.close()

    run_virtual(main())


def test_tasks_that_are_no_plan_end_the_loop_with_their_error() -> None:
    async def main() -> None:
        run = Run()
        run.submit(task("a", "not there"))
        with pytest.raises(PlanError, match="not there"):
            await run.engine.wait_idle()
        assert run.written() == []
        await run.engine.close()

    run_virtual(main())


def test_all_events_of_a_turn_are_one_step() -> None:
    async def main() -> None:
        run = Run(takes(5), max_concurrency=50)
        for number in range(50):
            run.submit(task(f"t{number}"))
        await run.finish()
        submitted, ended = run.written()
        assert len(submitted) == 150
        assert len(ended) == 50

    run_virtual(main())


# --- one event for each act ----------------------------------------------------------------------


def test_an_act_that_raises_is_lost_and_done_again() -> None:
    async def main() -> None:
        run = Run(raises(OSError("no such device")), raises(ValueError()), succeeds)
        run.submit(task("a"))
        await run.finish()
        lost = [event for event in run.posted if isinstance(event, AttemptLost)]
        assert [event.message for event in lost] == ["OSError: no such device", "ValueError"]
        record = run.scheduler.records["a"]
        assert record.state is State.SUCCEEDED
        assert (record.attempt, record.failed) == (3, 0)

    run_virtual(main())


def test_an_act_that_is_cancelled_from_inside_is_lost_too() -> None:
    async def cancelled(command: StartAttempt, stop: Stop) -> Event:
        inner = asyncio.ensure_future(asyncio.sleep(10))
        inner.cancel()
        await inner
        raise AssertionError("it was cancelled")

    async def main() -> None:
        run = Run(cancelled, succeeds)
        run.submit(task("a"))
        await run.finish()
        assert [type(event) for event in run.posted] == [TasksSubmitted, AttemptLost, AttemptSucceeded]
        assert run.states() == {"a": State.SUCCEEDED}

    run_virtual(main())


def test_a_landing_that_raises_is_lost_and_tried_again() -> None:
    async def changes(command: StartAttempt, stop: Stop) -> Event:
        return AttemptSucceeded(clock(), command.task_id, command.attempt, "c", ("a.py",))

    async def main() -> None:
        run = Run(changes)
        failed: list[str] = []

        async def landing(command: Command, stop: Stop) -> Event:
            if type(command).__name__ not in failed:
                failed.append(type(command).__name__)
                raise OSError("git went away")
            run.landing = None
            return await run.perform(command, stop)

        run.landing = landing
        run.submit(task("a"))
        await run.engine.wait_idle()
        assert [type(event) for event in run.posted if isinstance(event, LandingLost)] == [LandingLost]
        assert run.states() == {"a": State.SUCCEEDED}
        await run.engine.close()

    run_virtual(main())


def test_an_act_that_always_raises_ends_the_task_and_not_the_run() -> None:
    async def main() -> None:
        run = Run(raises(OSError("no")))
        run.submit(task("a"), task("b", "a"))
        await run.finish()
        assert run.states() == {"a": State.FAILED, "b": State.SKIPPED}
        assert run.scheduler.records["a"].reason is Reason.LOST

    run_virtual(main())


@pytest.mark.parametrize("seed", range(20))
def test_every_act_gets_one_event_whatever_becomes_of_it(seed: int) -> None:
    rng = random.Random(seed)

    async def any_end(command: StartAttempt, stop: Stop) -> Event:
        kind = rng.randrange(5)
        await asyncio.sleep(rng.choice([0, 1, 100]))
        if kind == 0:
            raise OSError("no")
        if kind == 1:
            raise asyncio.CancelledError
        if kind == 2:
            return AttemptFailed(clock(), command.task_id, command.attempt, Reason.AGENT_FAILED, "no")
        if kind == 3:
            return await until_stopped(command, stop)
        return AttemptSucceeded(clock(), command.task_id, command.attempt)

    async def main() -> None:
        run = Run(any_end, max_concurrency=4, task_timeout=50.0, retries=1)
        run.submit(*_random_plan(rng))
        await run.finish()
        answers = [(e.task_id, e.attempt) for e in run.posted if hasattr(e, "attempt")]  # type: ignore[attr-defined]
        starts = [(c.task_id, c.attempt) for c in run.acts_done() if isinstance(c, StartAttempt)]
        assert sorted(answers) == sorted(starts)
        assert len(set(starts)) == len(starts)
        assert run.scheduler.finished

    run_virtual(main(), seed=seed)


# --- stopping -------------------------------------------------------------------------------------


def test_a_stop_reaches_the_act_once() -> None:
    async def main() -> None:
        asked: list[str] = []

        async def slow_to_stop(command: StartAttempt, stop: Stop) -> Event:
            stop.on_request(lambda: asked.append(command.task_id))
            await asyncio.sleep(100)
            return AttemptStopped(clock(), command.task_id, command.attempt)

        run = Run(slow_to_stop, max_concurrency=2)
        run.submit(task("a"), task("b"))
        await asyncio.sleep(1)
        for _ in range(3):
            run.engine.post(CancelRequested(clock(), ("a",)))
            await asyncio.sleep(1)
        assert asked == ["a"]
        assert run.states()["a"] is State.STOPPING
        await run.finish()
        assert run.states()["a"] is State.CANCELLED

    run_virtual(main())


def test_a_stop_is_told_to_who_asks_after_it_and_not_to_who_has_left() -> None:
    told: list[int] = []
    stop = Stop()
    stop.on_request(lambda: told.append(1))
    stop.forget()
    stop.on_request(lambda: told.append(2))
    stop.request()
    stop.request()
    stop.on_request(lambda: told.append(3))
    assert told == [2, 3]


def test_a_timeout_stops_the_act_and_the_answer_is_a_failure() -> None:
    async def main() -> None:
        run = Run(until_stopped, succeeds, retries=1, retry_delay=7.0)
        run.submit(task("a", timeout=60))
        await run.finish()
        record = run.scheduler.records["a"]
        assert [failure.reason for failure in record.failures] == [Reason.TIMEOUT]
        assert record.state is State.SUCCEEDED
        assert clock() == pytest.approx(EPOCH + 67)

    run_virtual(main())


def test_an_attempt_that_ends_well_while_it_is_being_timed_out_counts() -> None:
    async def just_in_time(command: StartAttempt, stop: Stop) -> Event:
        await until_stopped(command, stop)
        return AttemptSucceeded(clock(), command.task_id, command.attempt)

    async def main() -> None:
        run = Run(just_in_time)
        run.submit(task("a", timeout=60))
        await run.finish()
        assert run.states() == {"a": State.SUCCEEDED}

    run_virtual(main())


# --- time ------------------------------------------------------------------------------------------


def test_there_is_one_timer_and_it_is_set_for_the_next_wakeup() -> None:
    async def main() -> None:
        run = Run(until_stopped, max_concurrency=100)
        run.submit(*(task(f"t{number}", timeout=100 + number) for number in range(100)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (timer,) = timers()
        assert timer.when() == pytest.approx(100)
        await asyncio.sleep(150.5)
        (timer,) = timers()
        assert timer.when() == pytest.approx(151)
        await run.finish()
        assert timers() == []
        assert clock() == pytest.approx(EPOCH + 199)
        assert all(record.reason is Reason.TIMEOUT for record in run.scheduler.records.values())

    run_virtual(main())


def test_no_timer_is_left_for_what_has_ended_in_time() -> None:
    async def main() -> None:
        run = Run(takes(5))
        run.submit(task("a", timeout=1000))
        await run.finish()
        assert clock() == EPOCH + 5
        assert timers() == []

    run_virtual(main())


def test_a_clock_that_steps_back_makes_no_loop() -> None:
    # A wake-up by the loop's own time may come before its time on the wall clock.
    async def main() -> None:
        run = Run(until_stopped)
        back = 0.0
        run.engine.clock = lambda: clock() - back
        run.submit(task("a", timeout=60))
        await asyncio.sleep(1)
        back = 3600.0
        await run.finish()
        assert clock() == pytest.approx(EPOCH + 3660)
        assert run.states() == {"a": State.FAILED}

    run_virtual(main())


# --- idle -------------------------------------------------------------------------------------------


def test_it_is_idle_when_every_task_has_ended() -> None:
    async def main() -> None:
        run = Run(takes(3))
        seen = [run.engine.idle]
        run.submit(task("a"))
        seen.append(run.engine.idle)
        await run.engine.wait_idle()
        seen.append(run.engine.idle)
        assert seen == [True, False, True]
        assert run.scheduler.finished
        run.submit(task("b", "a"))
        await run.engine.wait_idle()
        assert run.states() == {"a": State.SUCCEEDED, "b": State.SUCCEEDED}
        await run.engine.close()

    run_virtual(main())


def test_many_may_wait_for_the_same_end() -> None:
    async def main() -> None:
        run = Run(takes(3))
        run.submit(task("a"))
        waits = [asyncio.ensure_future(run.engine.wait_idle()) for _ in range(5)]
        await asyncio.sleep(1)
        waits[0].cancel()
        await asyncio.wait(waits)
        assert [wait.cancelled() for wait in waits] == [True, False, False, False, False]
        assert run.scheduler.finished
        await run.engine.close()

    run_virtual(main())


def test_it_is_idle_when_only_a_person_can_move_it_on() -> None:
    async def fails(command: StartAttempt, stop: Stop) -> Event:
        return AttemptFailed(clock(), command.task_id, command.attempt, Reason.AGENT_FAILED, "no")

    async def main() -> None:
        run = Run(fails, succeeds, on_failure="decide")
        run.submit(task("a"), task("b", "a"))
        await run.engine.wait_idle()
        assert run.states() == {"a": State.BLOCKED, "b": State.WAITING}
        (decision,) = run.scheduler.open_decisions()
        run.engine.post(DecisionAnswered(clock(), decision.id, "Try again"))
        await run.engine.wait_idle()
        assert run.states() == {"a": State.SUCCEEDED, "b": State.SUCCEEDED}
        await run.engine.close()

    run_virtual(main())


def test_it_is_idle_when_it_is_paused_and_nothing_runs() -> None:
    async def main() -> None:
        run = Run(takes(3), max_concurrency=1)
        run.submit(task("a"), task("b"))
        await asyncio.sleep(1)
        run.engine.post(Paused(clock()))
        await run.engine.wait_idle()
        assert clock() == EPOCH + 3
        assert run.states() == {"a": State.SUCCEEDED, "b": State.READY}
        run.engine.post(Unpaused(clock()))
        await run.engine.wait_idle()
        assert run.scheduler.finished
        await run.engine.close()

    run_virtual(main())


def test_who_asks_for_it_is_told_of_every_rest_and_of_the_end() -> None:
    async def main() -> list[tuple[bool, int]]:
        told: list[tuple[bool, int]] = []
        run = Run(takes(5))
        run.engine.on_rest(lambda: told.append((run.engine.closed, run.scheduler.unsettled)))
        run.submit(task("a"))
        await run.engine.wait_idle()
        run.engine.post(Paused(clock()))
        run.submit(task("b"))
        await run.engine.wait_idle()
        await run.finish()
        return told

    assert run_virtual(main()) == [(False, 0), (False, 1), (True, 1)]


def test_what_waits_for_nothing_but_a_delay_is_not_idle() -> None:
    async def fails(command: StartAttempt, stop: Stop) -> Event:
        return AttemptFailed(clock(), command.task_id, command.attempt, Reason.AGENT_FAILED, "no")

    async def main() -> None:
        run = Run(fails, fails, succeeds, retries=2, retry_delay=10.0)
        run.submit(task("a"))
        await asyncio.sleep(1)
        assert not run.engine.idle
        assert not others()
        await run.finish()
        assert clock() == pytest.approx(EPOCH + 30)

    run_virtual(main())


def test_an_act_that_never_ends_is_reported_as_a_deadlock() -> None:
    async def main() -> None:
        run = Run(hangs)
        run.submit(task("a"))
        await run.engine.wait_idle()

    with pytest.raises(Deadlock, match="in hangs"):
        run_virtual(main())


# --- its end --------------------------------------------------------------------------------------


def test_close_ends_what_is_under_way_and_leaves_nothing() -> None:
    ended: list[str] = []

    async def tidies_up(command: StartAttempt, stop: Stop) -> Event:
        try:
            return await hangs(command, stop)
        finally:
            await asyncio.sleep(5)
            ended.append(command.task_id)

    async def main() -> None:
        run = Run(tidies_up, max_concurrency=8)
        run.submit(*(task(f"t{number}", timeout=1000) for number in range(10)))
        await asyncio.sleep(1)
        before = len(run.written())
        await run.engine.close()
        assert sorted(ended) == [f"t{number}" for number in range(8)]
        assert clock() == EPOCH + 6
        assert not others()
        assert timers() == []
        assert len(run.written()) == before
        await run.engine.close()

    run_virtual(main())


def test_close_before_anything_has_begun_leaves_nothing() -> None:
    async def main() -> None:
        run = Run(hangs)
        run.submit(task("a"))
        await run.engine.close()
        await asyncio.sleep(1)
        assert run.log == []
        assert not others()
        late = Run(hangs)
        late.submit(task("a"))
        late.engine._turn()  # its act is made, and has not had its first step
        await late.engine.close()
        assert late.acts_done() == []
        assert not others()

    run_virtual(main())


def test_a_loop_that_ends_without_close_starts_nothing_new() -> None:
    started: list[str] = []

    async def act(command: StartAttempt, stop: Stop) -> Event:
        started.append(command.task_id)
        return await hangs(command, stop)

    async def main() -> None:
        Run(act, max_concurrency=1).submit(task("a"), task("b"))
        await asyncio.sleep(1)

    run_virtual(main())
    assert started == ["a"]


def test_who_waits_for_the_end_goes_on_when_it_is_closed() -> None:
    async def main() -> None:
        run = Run(hangs)
        run.submit(task("a"))
        waits = asyncio.ensure_future(run.engine.wait_idle())
        await asyncio.sleep(1)
        await run.engine.close()
        await waits
        assert not run.scheduler.finished

    run_virtual(main())


# --- after a crash ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(1, 9))
def test_a_run_goes_on_from_any_step_of_its_journal(steps: int) -> None:
    async def changes(command: StartAttempt, stop: Stop) -> Event:
        await asyncio.sleep(10)
        return AttemptSucceeded(clock(), command.task_id, command.attempt, "c", ("a.py",))

    async def main() -> None:
        first = Run(changes, max_concurrency=2)
        first.submit(task("a"), task("b"), task("c", "a"))
        await first.engine.wait_idle()
        kept = [change for step in first.written()[:steps] for change in step]
        second = Run(changes, transitions=kept, max_concurrency=2)
        second.engine.recover()
        await second.finish()
        assert set(second.states().values()) == {State.SUCCEEDED}
        done = kept + second.inner.transitions()
        landed = [c.task_id for c in done if isinstance(c, TaskChanged) and c.trigger is Trigger.LANDED]
        assert sorted(landed) == ["a", "b", "c"]
        assert all(record.failed == 0 for record in second.scheduler.records.values())
        # What the first one had running was asked after, and nothing else.
        running = {"a", "b"} if steps == 1 else set()
        recovered = {c.task_id for c in second.acts_done() if isinstance(c, RecoverAttempt)}
        assert recovered >= running

    run_virtual(main())


def test_recover_wakes_who_waits_where_there_is_nothing_to_do() -> None:
    async def main() -> None:
        first = Run()
        first.submit(task("a"))
        await first.engine.wait_idle()
        second = Run(transitions=first.inner.transitions())
        second.engine.recover()
        await second.finish()
        assert second.acts_done() == []

    run_virtual(main())


def test_a_task_that_ended_may_be_run_again() -> None:
    async def main() -> None:
        run = Run(raises(OSError("no")))
        run.submit(task("a"), task("b", "a"))
        await run.engine.wait_idle()
        run.acts = [succeeds]
        run.engine.post(RetryRequested(clock(), ("a",)))
        await run.finish()
        assert run.states() == {"a": State.SUCCEEDED, "b": State.SUCCEEDED}

    run_virtual(main())


# --- many -------------------------------------------------------------------------------------------


def test_what_waits_costs_no_asyncio_task() -> None:
    async def main() -> None:
        run = Run(takes(60), max_concurrency=3)
        run.submit(*(task(f"t{number}") for number in range(10_000)))
        await asyncio.sleep(1)
        assert run.scheduler.count(State.READY) == 9_997
        assert len(others()) == 3
        await run.engine.close()

    run_virtual(main())


def _random_plan(rng: random.Random) -> list[Task]:
    tasks: list[Task] = []
    for number in range(rng.randrange(1, 25)):
        needs = rng.sample([t.id for t in tasks], k=min(len(tasks), rng.randrange(3)))
        writes = (f"part{rng.randrange(4)}/**",) if rng.random() < 0.5 else None
        resources = ("db",) if rng.random() < 0.2 else ()
        tasks.append(task(f"t{number}", *needs, writes=writes, resources=resources))
    return tasks


@pytest.mark.parametrize("block", range(10))
def test_a_hundred_interleavings_of_random_runs(block: int) -> None:
    for seed in range(block * 10, block * 10 + 10):
        try:
            run_virtual(_anything_goes(seed), seed=seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


async def _anything_goes(seed: int) -> None:
    rng = random.Random(seed)

    async def act(command: StartAttempt, stop: Stop) -> Event:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stop.on_request(lambda: over.done() or over.cancel())
        await asyncio.wait([over], timeout=rng.choice([0, 0, 1, 5, 5, 40]))
        if stop.requested and rng.random() < 0.8:
            return AttemptStopped(clock(), command.task_id, command.attempt, "c")
        if rng.random() < 0.1:
            raise OSError("no")
        if rng.random() < 0.2:
            return AttemptFailed(clock(), command.task_id, command.attempt, Reason.AGENT_FAILED, "no")
        return AttemptSucceeded(clock(), command.task_id, command.attempt, "c", ("a.py",))

    async def landing(command: Command, stop: Stop) -> Event:
        await asyncio.sleep(rng.choice([0, 1, 3]))
        if rng.random() < 0.1:
            raise OSError("no")
        if isinstance(command, PrepareLanding):
            if rng.random() < 0.2:
                return LandingRejected(clock(), command.task_id, Reason.CONFLICT, "no", paths=("a.py",))
            return LandingPrepared(clock(), command.task_id, command.commit, "tip")
        assert isinstance(command, AdvanceBranch)
        return Landed(clock(), command.task_id, command.commit)

    run = Run(act, max_concurrency=rng.randrange(1, 5), retries=1, task_timeout=30.0, on_conflict="fail")
    run.landing = landing
    run.engine.watch(lambda _: run.scheduler.check())
    plan = _random_plan(rng)
    half = len(plan) // 2
    run.submit(*plan[:half])
    await asyncio.sleep(rng.choice([0, 1]))
    run.submit(*plan[half:])
    if rng.random() < 0.3:
        await asyncio.sleep(3)
        run.engine.post(CancelRequested(clock(), (rng.choice(plan).id,)))
    await run.finish()
    assert run.scheduler.finished
    again = Scheduler.restore(run.inner.transitions())
    assert {r.id: (r.state, r.attempt) for r in again.records.values()} == {
        r.id: (r.state, r.attempt) for r in run.scheduler.records.values()
    }


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    def story(seed: int) -> list[Transition]:
        found: list[Transition] = []

        async def main() -> None:
            run = Run(takes(5), max_concurrency=4)
            run.submit(*(task(f"t{number}") for number in range(20)))
            await run.finish()
            found.extend(run.inner.transitions())

        run_virtual(main(), seed=seed)
        return found

    assert story(1) == story(1)
    assert len({str(story(seed)) for seed in range(5)}) > 1


def test_it_runs_on_an_ordinary_loop_as_well() -> None:
    async def perform(command: Command, stop: Stop) -> Event:
        assert isinstance(command, StartAttempt)
        return AttemptSucceeded(0.0, command.task_id, command.attempt)

    class Performer:
        async def perform(self, command: Command, stop: Stop) -> Event:
            return await perform(command, stop)

    async def main() -> None:
        scheduler = Scheduler()
        engine = Engine(scheduler, MemoryJournal(), Performer())
        engine.post(TasksSubmitted(engine.clock(), tuple(task(f"t{number}") for number in range(10))))
        await engine.wait_idle()
        await engine.close()
        assert scheduler.count(State.SUCCEEDED) == 10
        assert not isinstance(asyncio.get_running_loop(), VirtualLoop)

    asyncio.run(main())
