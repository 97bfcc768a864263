"""What a task costs, and what memory it takes, when it does nothing: the overhead that agentful adds.

Three rivals run the same layered random graph of no-op tasks, 64 at once:

- ``bare``: ``asyncio.TaskGroup``, ``graphlib`` and a semaphore, with no more than it needs to be right.
- ``memory``: the scheduler and the engine, with a journal in memory.
- ``durable``: the same with the real journal, in a file on the disk that temporary files are on.
"""

from __future__ import annotations

import asyncio
import graphlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentful.core.scheduler import Scheduler
from agentful.events import AttemptSucceeded, StartAttempt, TasksSubmitted
from agentful.model import Options, State, Task
from agentful.runtime.engine import Engine
from agentful.runtime.journal import JournalFile, MemoryJournal, RunInfo
from bench.graphs import layered
from bench.harness import markdown, ratio, take_turns, timed

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentful.events import Command, Event
    from agentful.runtime.engine import JournalLike, Stop

SLOTS = 64
_ROUNDS = {1_000: 31, 10_000: 11, 100_000: 5}


# --- the rivals: each runs a graph, and says how many seconds it took ---------------------------------


def bare(count: int) -> float:
    needs = layered(count)
    done: list[int] = []

    async def main() -> None:
        sorter = graphlib.TopologicalSorter(dict(enumerate(needs)))
        sorter.prepare()
        slots = asyncio.Semaphore(SLOTS)

        async def work(number: int) -> None:
            done.append(number)

        async def one(number: int) -> None:
            async with slots:
                await work(number)
            sorter.done(number)
            for ready in sorter.get_ready():
                group.create_task(one(ready))

        async with asyncio.TaskGroup() as group:
            for ready in sorter.get_ready():
                group.create_task(one(ready))

    seconds = _run(main)
    assert len(done) == count
    return seconds


def memory(count: int) -> float:
    return _agentful(count, MemoryJournal())


def durable(count: int) -> float:
    with (
        tempfile.TemporaryDirectory(prefix="agentful-bench-") as folder,
        JournalFile(Path(folder) / "journal.db") as file,
    ):
        file.create_run(RunInfo(id="bench", created_at=time.time()))
        return _agentful(count, file.writer("bench"))


class _NoOp:
    """Carries attempts out by saying that they have ended."""

    async def perform(self, command: Command, stop: Stop) -> Event:  # noqa: ARG002
        assert isinstance(command, StartAttempt)
        return AttemptSucceeded(time.time(), command.task_id, command.attempt)


def _agentful(count: int, journal: JournalLike) -> float:
    tasks = tuple(
        Task("agent", "do nothing", id=f"t{number}", needs=tuple(f"t{need}" for need in needs))
        for number, needs in enumerate(layered(count))
    )
    scheduler = Scheduler(Options(max_concurrency=SLOTS))

    async def main() -> None:
        engine = Engine(scheduler, journal, _NoOp())
        engine.post(TasksSubmitted(time.time(), tasks))
        await engine.wait_idle()
        await engine.close()

    seconds = _run(main)
    assert scheduler.count(State.SUCCEEDED) == count
    return seconds


def _run(main: Callable[[], Any]) -> float:
    return timed(lambda: asyncio.run(main()))


RIVALS: dict[str, Callable[[int], float]] = {"bare": bare, "memory": memory, "durable": durable}


# --- measuring --------------------------------------------------------------------------------------


def run(quick: bool) -> dict[str, Any]:
    """Time and peak memory of each rival, for each size of the graph."""
    rounds = {200: 2} if quick else _ROUNDS
    return {
        "slots": SLOTS,
        "time": [_time(count, times) for count, times in rounds.items()],
        "memory": [_memory(count) for count in rounds],
    }


def _time(count: int, rounds: int) -> dict[str, Any]:
    taken = take_turns({name: _of(rival, count) for name, rival in RIVALS.items()}, rounds)
    return {
        "tasks": count,
        "needs": sum(map(len, layered(count))),
        "rounds": rounds,
        "us_per_task": {name: statistics.median(taken[name]) / count * 1e6 for name in taken},
        "fastest_us_per_task": {name: min(taken[name]) / count * 1e6 for name in taken},
        "ratio_to_bare": {name: ratio(taken[name], taken["bare"]) for name in taken if name != "bare"},
    }


def _of(rival: Callable[[int], float], count: int) -> Callable[[], float]:
    return lambda: rival(count)


def _memory(count: int) -> dict[str, Any]:
    found = {name: _peak(name, count) for name in RIVALS}
    return {
        "tasks": count,
        "peak_mib": {name: after / 1024 for name, (_, after) in found.items()},
        "kib_per_task": {name: (after - before) / count for name, (before, after) in found.items()},
    }


def _peak(name: str, count: int) -> tuple[int, int]:
    """The peak of the memory of a fresh process, in KiB: before it runs the graph, and after."""
    argv = [sys.executable, "-m", "bench.scheduler", name, str(count)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    return before, after


def _peak_so_far() -> int:
    # On Linux, a process begins with the ``ru_maxrss`` of the one that it was forked from.
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


# --- telling ----------------------------------------------------------------------------------------


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    times = markdown(
        ["tasks", "bare asyncio", "in memory", "ratio", "durable", "ratio", "durable tasks/s"],
        [
            (
                f"{row['tasks']:,}",
                f"{row['us_per_task']['bare']:.1f} µs",
                f"{row['us_per_task']['memory']:.1f} µs",
                f"{row['ratio_to_bare']['memory']:.2f}",
                f"{row['us_per_task']['durable']:.1f} µs",
                f"{row['ratio_to_bare']['durable']:.2f}",
                f"{1e6 / row['us_per_task']['durable']:,.0f}",
            )
            for row in results["time"]
        ],
    )
    peaks = markdown(
        [
            "tasks",
            "bare asyncio",
            "in memory",
            "durable",
            "bare, a task",
            "in memory, a task",
            "durable, a task",
        ],
        [
            (
                f"{row['tasks']:,}",
                *(f"{row['peak_mib'][name]:.0f} MiB" for name in RIVALS),
                *(f"{row['kib_per_task'][name]:.2f} KiB" for name in RIVALS),
            )
            for row in results["memory"]
        ],
    )
    return (
        f"No-op tasks in a layered random graph, {results['slots']} at once.\n\n"
        f"Time a task, median; the ratios are to bare asyncio, round by round:\n\n{times}\n\n"
        f"Peak memory of a fresh process, and what of it a task takes:\n\n{peaks}"
    )


if __name__ == "__main__":
    start = _peak_so_far()
    RIVALS[sys.argv[1]](int(sys.argv[2]))
    print(json.dumps([start, _peak_so_far()]))
