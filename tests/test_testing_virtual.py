"""Virtual time: what passes, in which order, and what is said when nothing can pass any more."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentful.errors import AgentError, AgentfulError
from agentful.group.host import default_clock
from agentful.runtime.process import Spawn, Supervisor
from agentful.testing import EPOCH, Deadlock, VirtualLoop, clock, run_virtual

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path


def now() -> float:
    return asyncio.get_running_loop().time()


async def later(seconds: float, log: list[tuple[float, str]], name: str) -> str:
    await asyncio.sleep(seconds)
    log.append((now(), name))
    return name


# --- time -----------------------------------------------------------------------------------------


def test_timers_come_due_in_their_order_and_at_their_time() -> None:
    async def main() -> list[tuple[float, str]]:
        log: list[tuple[float, str]] = []
        await asyncio.gather(later(7200, log, "c"), later(0.25, log, "a"), later(60, log, "b"))
        return log

    assert run_virtual(main()) == [(0.25, "a"), (60.0, "b"), (7200.0, "c")]


def test_the_wall_clock_starts_where_it_is_told_and_keeps_step() -> None:
    async def main() -> tuple[float, float, float]:
        before = clock()
        await asyncio.sleep(90)
        return before, clock(), now()

    assert run_virtual(main()) == (EPOCH, EPOCH + 90, 90.0)
    assert run_virtual(main(), start=5.0) == (5.0, 95.0, 90.0)


def test_there_is_no_virtual_clock_on_an_ordinary_loop() -> None:
    async def main() -> float:
        return clock()

    with pytest.raises(RuntimeError, match="use run_virtual"):
        asyncio.run(main())


def test_groups_that_are_made_meanwhile_go_by_its_clock() -> None:
    before = default_clock.get()

    async def main() -> float:
        await asyncio.sleep(10)
        return default_clock.get()()

    assert run_virtual(main()) == EPOCH + 10
    assert default_clock.get() is before


def test_a_timeout_ends_what_takes_longer() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.sleep(3600)
        return now()

    assert run_virtual(main()) == 30.0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, 1e9), max_size=12),
    st.one_of(st.none(), st.integers(0, 9)),
    st.sampled_from([0.0, 1e-9, 1.0, 1e9, 1e15]),
)
def test_nothing_ends_early_and_all_ends_whatever_the_numbers(
    waits: list[float], seed: int | None, before: float
) -> None:
    # Far from zero a timer may lie within the resolution of a float of the present.
    async def wait(seconds: float) -> float:
        began = now()
        await asyncio.sleep(seconds)
        return now() - began

    async def main() -> list[float]:
        await asyncio.sleep(before)
        return await asyncio.gather(*map(wait, waits))

    for asked, taken in zip(waits, run_virtual(main(), seed=seed), strict=True):
        assert taken == pytest.approx(asked, abs=1.0, rel=1e-9)


def test_a_timer_that_is_cancelled_moves_no_clock() -> None:
    async def main() -> float:
        asyncio.get_running_loop().call_later(1000, lambda: None).cancel()
        await asyncio.sleep(1)
        return now()

    assert run_virtual(main()) == 1.0


# --- order ----------------------------------------------------------------------------------------


async def _race() -> str:
    log: list[tuple[float, str]] = []
    await asyncio.gather(*(later(5, log, name) for name in "abcdefgh"))
    assert {at for at, _ in log} == {5.0}
    return "".join(name for _, name in log)


def test_without_a_seed_what_is_ready_at_once_runs_in_the_order_of_an_ordinary_loop() -> None:
    assert run_virtual(_race()) == "abcdefgh"


def test_a_seed_draws_the_order_and_draws_the_same_one_again() -> None:
    drawn = [run_virtual(_race(), seed=seed) for seed in range(20)]
    assert len(set(drawn)) > 15
    assert drawn == [run_virtual(_race(), seed=seed) for seed in range(20)]


def test_a_seed_shuffles_timers_of_one_instant_with_what_is_ready_then() -> None:
    async def main() -> str:
        loop, log = asyncio.get_running_loop(), list[str]()

        def b_and_then_c() -> None:
            log.append("b")
            loop.call_soon(log.append, "c")

        loop.call_later(10, log.append, "a")
        loop.call_later(10, b_and_then_c)
        loop.call_later(10, log.append, "d")
        await asyncio.sleep(11)
        return "".join(log)

    assert run_virtual(main()) == "abdc"
    assert {run_virtual(main(), seed=seed) for seed in range(50)} == {
        "abdc", "adbc", "badc", "bdac", "dabc", "dbac"
    }  # fmt: skip


# --- blocking work --------------------------------------------------------------------------------


def test_blocking_work_is_done_here_and_takes_no_time() -> None:
    async def main() -> tuple[int, float]:
        return await asyncio.to_thread(threading.get_ident), now()

    assert run_virtual(main()) == (threading.get_ident(), 0.0)


def test_blocking_work_begins_after_the_call_and_not_within_it() -> None:
    async def main() -> list[str]:
        log: list[str] = []
        work = asyncio.get_running_loop().run_in_executor(None, log.append, "work")
        log.append("asked")
        await work
        return log

    assert run_virtual(main()) == ["asked", "work"]


def test_what_blocking_work_raises_is_raised_where_it_is_awaited() -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            await asyncio.to_thread(os.stat, "/no/such/file")

    run_virtual(main())


def test_blocking_work_that_is_cancelled_before_it_begins_is_not_done() -> None:
    async def main() -> list[int]:
        log: list[int] = []
        asyncio.get_running_loop().run_in_executor(None, log.append, 1).cancel()
        await asyncio.sleep(1)
        return log

    assert run_virtual(main()) == []


def test_an_interrupt_in_blocking_work_ends_everything() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_virtual(asyncio.to_thread(interrupt))


# --- real files -----------------------------------------------------------------------------------


def test_a_socket_that_is_ready_is_read_before_time_passes() -> None:
    async def main() -> tuple[bytes, float]:
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            there.send(b"now")
            return await asyncio.get_running_loop().sock_recv(here, 10), now()

    assert run_virtual(main()) == (b"now", 0.0)


def test_time_leaps_over_a_socket_that_is_not_ready() -> None:
    async def main() -> float:
        here, there = socket.socketpair()
        with here, there, contextlib.suppress(TimeoutError):
            here.setblocking(False)
            async with asyncio.timeout(1000):
                await asyncio.get_running_loop().sock_recv(here, 10)
        return now()

    assert run_virtual(main()) == 1000.0


@pytest.mark.parametrize(
    "start",
    [
        lambda: asyncio.create_subprocess_exec("true"),
        lambda: asyncio.create_subprocess_shell("true"),
    ],
)
def test_a_process_is_refused(start: Callable[[], Awaitable[Any]]) -> None:
    async def main() -> None:
        await start()

    with pytest.raises(AgentfulError, match="leaps over it"):
        run_virtual(main())


def test_the_supervisor_starts_no_process(tmp_path: Path) -> None:
    async def main() -> None:
        spawn = Spawn(argv=("touch", "started"), cwd=str(tmp_path), env=dict(os.environ), mark="r/t/1")
        with pytest.raises(AgentError, match="leaps over it"):
            await Supervisor(containment="group").run(spawn, print)

    run_virtual(main())
    assert list(tmp_path.iterdir()) == []


# --- no way on ------------------------------------------------------------------------------------


def test_a_deadlock_names_who_waits_and_where() -> None:
    async def waits_for(event: asyncio.Event) -> None:
        await event.wait()

    async def main() -> None:
        await asyncio.sleep(30)
        stuck = asyncio.create_task(waits_for(asyncio.Event()), name="stuck")
        await stuck

    with pytest.raises(Deadlock) as caught:
        run_virtual(main())
    assert "stuck" in caught.value.tasks
    message = str(caught.value)
    assert "no timer is set, at 30 s" in message
    assert "stuck waits in Event.wait (locks.py:" in message
    assert "waits_for (test_testing_virtual.py:" in message


def test_a_deadlock_in_plain_callbacks_has_nobody_to_name() -> None:
    loop = VirtualLoop()
    with contextlib.closing(loop), pytest.raises(Deadlock) as caught:
        loop.run_until_complete(loop.create_future())
    assert caught.value.tasks == ()


def test_tasks_are_cancelled_after_a_deadlock_and_may_tidy_up() -> None:
    log: list[str] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(5)
            log.append("tidied")

    with pytest.raises(Deadlock):
        run_virtual(main())
    assert log == ["tidied"]


def test_of_two_deadlocks_the_first_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="at 0 s") as caught:
        run_virtual(main())
    assert caught.value.__context__ is None
    del caught
    gc.collect()
    assert "Task was destroyed" in caplog.text


def test_time_that_stands_still_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VirtualLoop, "patience", 1000)

    async def spins(seconds: float) -> None:
        deadline = now() + 1
        while now() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(seconds)

    for seconds in (0.0, 1e-20, 1e-12):
        with pytest.raises(Deadlock, match="time stands still: 1000 turns"):
            run_virtual(spins(seconds))
    run_virtual(spins(0.001))


def test_many_turns_at_one_instant_are_fine() -> None:
    async def main() -> float:
        for _ in range(20_000):
            await asyncio.sleep(0)
        return now()

    assert run_virtual(main()) == 0.0


# --- the end --------------------------------------------------------------------------------------


def test_what_nobody_could_catch_is_raised_at_the_end() -> None:
    async def main() -> str:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)
        return "well"

    with pytest.raises(ZeroDivisionError):
        run_virtual(main())


def test_what_the_coroutine_raises_comes_before_that() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)
        raise LookupError

    with pytest.raises(LookupError):
        run_virtual(main())


def test_generators_and_tasks_that_are_left_are_closed() -> None:
    log: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            log.append("generator closed")

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("task cancelled")

    async def main() -> None:
        task = asyncio.create_task(forever())
        await asyncio.sleep(1)
        generator = numbers()
        await anext(generator)
        keep.extend([task, generator])

    keep: list[object] = []
    run_virtual(main())
    assert log == ["task cancelled", "generator closed"]


def test_it_does_not_start_from_a_running_loop() -> None:
    async def inner() -> None:
        raise AssertionError("it never runs")

    async def main() -> None:
        with pytest.raises(RuntimeError, match="running event loop"):
            run_virtual(inner())

    asyncio.run(main())
