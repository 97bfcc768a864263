"""An event loop under virtual time: nothing is waited for, and the same seed gives the same run.

The loop is asyncio's own, with a selector that jumps to the next timer instead of waiting for it. What it
knows of asyncio beyond its documented face is in one class, and small: the deque of ready callbacks, the
heap of timers, and the resolution of the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import random
import selectors
from heapq import heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast

from ..errors import AgentfulError
from ..group.host import default_clock

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine, Sequence
    from concurrent.futures import Executor
    from contextvars import Context

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH = 1_767_225_600.0
"""When virtual time starts, unless said otherwise: 2026-01-01T00:00:00Z."""


class Deadlock(AgentfulError):
    """Nothing is ready to run, no timer is set, and yet something is waited for. Or: time stands still.

    ``tasks`` are the names of the asyncio tasks that wait; the message says where each of them does.
    """

    def __init__(self, message: str, tasks: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.tasks = tuple(tasks)


class _Clockwork(selectors.DefaultSelector):
    """A selector that never waits: it has the loop jump to its next timer."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            self.loop.turn(timeout)
        return events


class _Timer(asyncio.TimerHandle):
    """A timer that comes after those set before it for the same instant, which a heap alone forgets."""

    __slots__ = ("number",)
    number: int

    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        return (self.when(), self.number) < (other.when(), cast("_Timer", other).number)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop under virtual time, which passes only when nothing else is left to do.

    Work in executors is done on this thread, one piece after the other, and takes no time. Real files and
    sockets are looked at, and never waited for: time leaps over them. Real processes are refused.

    Parameters
    ----------
    seed
        With a seed, callbacks that are ready at one instant run in an order that is drawn from it. Without
        one, in the order in which they became ready, as on any event loop.
    start
        The wall clock at the start, in seconds since the epoch.
    """

    virtual = True
    """Whoever starts processes looks at this, and starts none."""
    patience = 1_000_000
    """Turns of the loop within a microsecond of virtual time, after which time is said to stand still."""

    def __init__(self, *, seed: int | None = None, start: float = EPOCH) -> None:
        self._now = 0.0
        self._start = start
        self._random = None if seed is None else random.Random(seed)  # noqa: S311
        self._timers = 0
        self._turns = 0
        self._counted_from = 0.0
        self.unhandled: list[BaseException] = []
        """What was raised where nobody could catch it: in callbacks, and in tasks that nobody awaited."""
        selector = _Clockwork()
        selector.loop = self
        super().__init__(selector)
        self._come_to(0.0)
        self.set_exception_handler(_keep)

    def time(self) -> float:
        """Seconds of virtual time since the loop was made."""
        return self._now

    def clock(self) -> float:
        """The wall clock, in seconds since the epoch."""
        return self._start + self._now

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Have ``callback`` called at ``when``, a time of this loop's."""
        inner = cast("Any", self)
        inner._check_closed()  # noqa: SLF001
        timer = _Timer(when, callback, args, self, context)
        self._timers += 1
        timer.number = self._timers
        heappush(inner._scheduled, timer)  # noqa: SLF001
        cast("Any", timer)._scheduled = True  # noqa: SLF001
        return timer

    def turn(self, timeout: float | None) -> None:
        """Nothing has come from outside: let time pass to the next timer, if nothing is ready to run.

        ``timeout`` is what the loop asks of its selector: how long it may wait, ``None`` for ever. Raises
        :class:`Deadlock` for that.
        """
        inner = cast("Any", self)
        if timeout is None:
            raise self._deadlock("nothing is ready to run, and no timer is set")
        if timeout > 0:
            # Not to the end of ``timeout``, which is a day at most.
            self._come_to(inner._scheduled[0].when())  # noqa: SLF001
        # A wait that is below the resolution of a float moves no clock, and may be repeated for ever.
        self._turns += 1
        if self._now - self._counted_from > 1e-6:
            self._counted_from, self._turns = self._now, 0
        if self._turns > self.patience:
            self._turns = 0
            raise self._deadlock(f"time stands still: {self.patience} turns of the loop at one instant")
        if self._random is not None:
            self._shuffle(inner._ready, inner._scheduled, self._random)  # noqa: SLF001

    def _come_to(self, now: float) -> None:
        self._now = now
        # Timers run that are due before ``time() + _clock_resolution``. Far from zero, asyncio's usual
        # resolution vanishes in that sum, and a timer that is due would never run.
        self._clock_resolution = math.ulp(now)

    def _shuffle(self, ready: deque[Any], timers: list[Any], rng: random.Random) -> None:
        while timers and timers[0].when() <= self._now:
            timer = heappop(timers)
            timer._scheduled = False  # noqa: SLF001
            ready.append(timer)
        if len(ready) > 1:
            shuffled = list(ready)
            rng.shuffle(shuffled)
            ready.clear()
            ready.extend(shuffled)

    def _deadlock(self, what: str) -> Deadlock:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        told = "".join(f"\n  {task.get_name()} waits {_place(task)}" for task in tasks)
        return Deadlock(f"{what}, at {self._now:g} s{told}", [task.get_name() for task in tasks])

    def run_in_executor(
        self,
        executor: Executor | None,  # noqa: ARG002
        func: Callable[[*Ts], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """Do blocking work: a little later, but on this thread, and without any time passing."""
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - it is for whoever awaits the work
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_soon(work)
        return future

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        raise AgentfulError("a process cannot be waited for under virtual time, which leaps over it")

    subprocess_shell = subprocess_exec


def _keep(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if error is None:
        loop.default_exception_handler(context)
    else:
        cast("VirtualLoop", loop).unhandled.append(error)


def _place(task: asyncio.Task[Any]) -> str:
    """Where a task waits, the innermost place first."""
    places: list[str] = []
    inner: Any = task.get_coro()
    while inner is not None:
        frame = getattr(inner, "cr_frame", None) or getattr(inner, "gi_frame", None)
        if frame is not None:
            code = frame.f_code
            places.append(f"{code.co_qualname} ({Path(code.co_filename).name}:{frame.f_lineno})")
        inner = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)
    return "in " + ", in ".join(reversed(places)) if places else "where nobody can see"


def run_virtual(main: Coroutine[Any, Any, T], *, seed: int | None = None, start: float = EPOCH) -> T:
    """Run a coroutine to its end on a :class:`VirtualLoop`, as :func:`asyncio.run` does on a real one.

    Groups and runs that are made in it go by its clock. Raises what the coroutine raises;
    :class:`Deadlock` where it waits for what cannot come; and, where it ended well, the first of what was
    raised meanwhile where nobody could catch it.
    """
    if asyncio._get_running_loop() is not None:  # noqa: SLF001
        main.close()
        raise RuntimeError("virtual time cannot be started from a running event loop")
    runner = asyncio.Runner(loop_factory=lambda: VirtualLoop(seed=seed, start=start))
    loop = cast("VirtualLoop", runner.get_loop())
    context = contextvars.copy_context()
    context.run(default_clock.set, loop.clock)
    try:
        result = runner.run(main, context=context)
    except Deadlock:
        # What waits for ever may do so again when it is cancelled: the first report is the one to read.
        with contextlib.suppress(Deadlock):
            runner.close()
        raise
    finally:
        runner.close()
    if loop.unhandled:
        raise loop.unhandled[0]
    return result


def clock() -> float:
    """The wall clock of the :class:`VirtualLoop` that this is called on, in seconds since the epoch."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise RuntimeError("there is no virtual time here; use run_virtual")  # noqa: TRY004
    return loop.clock()
