"""The one loop: decide, write down, act.

Events are collected while a turn of the event loop lasts. A turn then has the scheduler decide on each,
writes all their transitions to the journal in one transaction, tells the watchers, and only then
carries the commands out. What is under way has an asyncio task; what waits has none.

Every act answers with exactly one event, also when it fails: an exception from it becomes "lost".
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol

from ..events import (
    AttemptLost,
    LandingLost,
    RecoverAttempt,
    StartAttempt,
    StopAttempt,
    StopLanding,
    Tick,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..core.scheduler import Scheduler, Step
    from ..events import Command, Event, Transition

    Watcher = Callable[[Sequence[Transition]], None]


class Stop:
    """The wish that an act end soon: asked for once, and told to whoever carries the act out."""

    __slots__ = ("_callbacks", "requested")

    def __init__(self) -> None:
        self.requested = False
        self._callbacks: tuple[Callable[[], object], ...] = ()

    def request(self) -> None:
        if not self.requested:
            self.requested = True
            for callback in self._callbacks:
                callback()

    def on_request(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called when the stop is asked for: at once, if it was already."""
        if self.requested:
            callback()
        else:
            self._callbacks += (callback,)

    def forget(self) -> None:
        """Call nobody any more."""
        self._callbacks = ()


class Performer(Protocol):
    """Whoever carries out commands."""

    async def perform(self, command: Command, stop: Stop) -> Event:
        """Carry one command out and say how it went. May raise: then the act counts as lost."""
        ...


class JournalLike(Protocol):
    def append(self, transitions: Sequence[Transition]) -> None:
        """Make these durable before returning."""
        ...


class Engine:
    """Runs a scheduler: turns events into steps and steps into acts.

    Parameters
    ----------
    scheduler
        What decides. Nobody else may call its ``handle``.
    journal
        Where transitions are made durable, before anything is done about them.
    performer
        What carries commands out.
    clock
        The wall clock, in seconds since the epoch.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        journal: JournalLike,
        performer: Performer,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.scheduler = scheduler
        self.journal = journal
        self.performer = performer
        self.clock = clock
        self.error: BaseException | None = None
        """What ended the loop, if anything has: the journal failed, or a bug of ours."""
        self._watchers: list[Watcher] = []
        self._resting: list[Callable[[], object]] = []
        self._events: list[Event] = []
        self._acts: dict[tuple[str, bool], tuple[asyncio.Task[None], Stop]] = {}
        self._loop = asyncio.get_running_loop()
        self._turn_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._closed = False

    def watch(self, watcher: Watcher) -> None:
        """Have ``watcher`` called, in the loop, with transitions once they are durable."""
        self._watchers.append(watcher)

    def on_rest(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called, in the loop, whenever it comes to rest: it is idle, or it has ended."""
        self._resting.append(callback)

    def post(self, event: Event) -> None:
        """Something happened. It is decided upon in the next turn of the loop."""
        self._events.append(event)
        if not self._turn_due and not self._closed:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def recover(self) -> None:
        """After a restore: find out what became of what was under way."""
        self._guard(lambda: self._carry_out(self.scheduler.recover(self.clock())))

    @property
    def closed(self) -> bool:
        """Whether it has ended: by itself, for :attr:`error`, or by :meth:`close`."""
        return self._closed

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, and only a new event from outside can change that.

        The time of the whole run may still run out then.
        """
        return not (self._events or self._acts) and self.scheduler.idle

    async def wait_idle(self) -> None:
        """Wait until every task has ended, or what is left waits for a person; or until it is closed.

        Raises whatever ended the loop, if something did.
        """
        while not self._closed and not self.idle:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        """End what is under way, and wait until it has ended. Takes no more events."""
        self._end()
        acts = [act for act, _ in self._acts.values()]
        for act in acts:
            act.cancel()
        await asyncio.gather(*acts, return_exceptions=True)

    # --- a turn ----------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._turn_due = False
        if not self._closed:
            self._guard(self._decide)

    def _guard(self, part: Callable[[], None]) -> None:
        """Whatever goes wrong in the loop itself ends it, and reaches who waits for it."""
        try:
            part()
        except BaseException as error:  # noqa: BLE001
            # What was decided is not durable, so nothing may be done about it: stop here. A resume goes
            # on from what the journal has.
            self.error = error
            self._end()
            for _, stop in self._acts.values():
                stop.request()
        if self.idle:
            self._rest()

    def _end(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._rest()

    def _rest(self) -> None:
        for callback in self._resting:
            callback()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _decide(self) -> None:
        events, self._events = self._events, []
        self._carry_out(self.scheduler.handle_all(events))

    def _carry_out(self, step: Step) -> None:
        if step.transitions:
            self.journal.append(step.transitions)
            for watcher in self._watchers:
                watcher(step.transitions)
        for command in step.commands:
            self._act(command)
        self._set_timer()

    def _set_timer(self) -> None:
        at = self.scheduler.next_wakeup
        if at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = None
        if at is not None:
            self._timer = self._loop.call_later(max(0.0, at - self.clock()), self._wake)

    def _wake(self) -> None:
        self._timer = self._timer_at = None
        self.post(Tick(self.clock()))

    # --- acts ------------------------------------------------------------------------------------

    def _act(self, command: Command) -> None:
        kind = type(command)
        if kind is StopAttempt or kind is StopLanding:
            found = self._acts.get((command.task_id, kind is StopAttempt))
            if found is not None:
                found[1].request()
            return
        key = (command.task_id, kind is StartAttempt or kind is RecoverAttempt)
        stop = Stop()
        act = self._loop.create_task(self._perform(command, stop, key), name=command.task_id)
        self._acts[key] = (act, stop)

    async def _perform(self, command: Command, stop: Stop, key: tuple[str, bool]) -> None:
        try:
            event: Event = await self.performer.perform(command, stop)
        except asyncio.CancelledError as error:
            act = asyncio.current_task()
            if act is None or act.cancelling():
                raise  # it ends with the loop
            # Something inside it was cancelled, and not the act: that is its own failure to answer.
            event = _lost(command, error, self.clock())
        except Exception as error:  # noqa: BLE001
            event = _lost(command, error, self.clock())
        finally:
            del self._acts[key]
            stop.forget()
        self.post(event)


def _lost(command: Any, error: BaseException, at: float) -> Event:
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(command, StartAttempt | RecoverAttempt):
        return AttemptLost(at, command.task_id, command.attempt, message)
    return LandingLost(at, command.task_id, message)
