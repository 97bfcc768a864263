"""What a command costs as a task: 200 times ``true`` on one layered graph, beside make and ninja.

- ``make``, ``ninja``: the whole program, from its start to its end. make starts ``true`` itself, ninja
  has a shell do it.
- ``asyncio``: ``asyncio.create_subprocess_exec``, ``graphlib`` and a semaphore, output read and thrown
  away: what a script of one's own would do.
- ``in place``: a run without a repository, each command in one folder, with nothing to keep it in but a
  session of its own. Like the one before, without the start of Python and the imports.
- ``workspaces``: each in a workspace of its own, in a PID namespace where there are any, journalled,
  what it left pinned; it changed nothing, so nothing lands.
- ``landing``: the same, and each writes a file, which is merged onto the branch and landed.
"""

from __future__ import annotations

import asyncio
import graphlib
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentful.model import Task
from bench.graphs import layered
from bench.harness import markdown, ratio, take_turns, timed
from bench.repos import in_place, in_workspaces, load, load_line

if TYPE_CHECKING:
    from collections.abc import Callable

_NEEDS = layered(200)


def run(quick: bool) -> dict[str, Any]:
    """Each rival's time for the whole graph, at 4 slots and at as many as there are cores."""
    needs = _NEEDS[:20] if quick else _NEEDS
    slots = sorted({4, os.cpu_count() or 1})
    return {
        "tasks": len(needs),
        "needs": sum(map(len, needs)),
        "load": load(),
        "rows": [_measure(needs, count, quick=quick) for count in slots],
    }


def _measure(needs: list[tuple[int, ...]], slots: int, *, quick: bool) -> dict[str, Any]:
    nothing = _tasks(needs, "true")
    with tempfile.TemporaryDirectory(prefix="agentful-bench-") as folder:
        rivals: dict[str, Callable[[], float]] = {"make": _program(_makefile, needs, slots, Path(folder))}
        if shutil.which("ninja"):
            rivals["ninja"] = _program(_ninja_file, needs, slots, Path(folder))
        rivals["asyncio"] = lambda: _asyncio(needs, slots)
        rivals["in place"] = lambda: in_place(nothing, slots)
        taken = take_turns(rivals, 1 if quick else 21)
        # These take much longer, so that they would leave the others a machine of another temperature.
        slow: dict[str, Callable[[], float]] = {
            "make": rivals["make"],
            "workspaces": lambda: in_workspaces(nothing, slots),
            "landing": lambda: in_workspaces(_tasks(needs, "touch file{}"), slots),
        }
        slowly = take_turns(slow, 1 if quick else 5)
    ratios = {name: ratio(taken[name], taken["make"]) for name in taken if name != "make"}
    ratios |= {name: ratio(slowly[name], slowly["make"]) for name in slowly if name != "make"}
    del slowly["make"]
    taken |= slowly
    return {
        "slots": slots,
        "rounds": {name: len(times) for name, times in taken.items()},
        "ms": {name: 1000 * statistics.median(times) for name, times in taken.items()},
        "fastest_ms": {name: 1000 * min(times) for name, times in taken.items()},
        "ratio_to_make": ratios,
    }


def _tasks(needs: list[tuple[int, ...]], command: str) -> list[Task]:
    return [
        Task(id=f"t{number}", run=command.format(number), needs=tuple(f"t{need}" for need in before))
        for number, before in enumerate(needs)
    ]


def _asyncio(needs: list[tuple[int, ...]], slots: int) -> float:
    async def main() -> None:
        sorter = graphlib.TopologicalSorter(dict(enumerate(needs)))
        sorter.prepare()
        free = asyncio.Semaphore(slots)

        async def one(number: int) -> None:
            async with free:
                process = await asyncio.create_subprocess_exec(
                    "true", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
                await process.communicate()
            sorter.done(number)
            for ready in sorter.get_ready():
                group.create_task(one(ready))

        async with asyncio.TaskGroup() as group:
            for ready in sorter.get_ready():
                group.create_task(one(ready))

    return timed(lambda: asyncio.run(main()))


def _program(
    write: Callable[[list[tuple[int, ...]], int, Path], list[str]],
    needs: list[tuple[int, ...]],
    slots: int,
    folder: Path,
) -> Callable[[], float]:
    argv = write(needs, slots, folder)
    return lambda: timed(lambda: subprocess.run(argv, cwd=folder, stdout=subprocess.DEVNULL, check=True))


def _makefile(needs: list[tuple[int, ...]], slots: int, folder: Path) -> list[str]:
    names = " ".join(f"t{number}" for number in range(len(needs)))
    lines = [f".PHONY: all {names}", f"all: {names}"]
    for number, before in enumerate(needs):
        lines += [f"t{number}: {' '.join(f't{need}' for need in before)}", "\t@true"]
    (folder / "Makefile").write_text("\n".join(lines) + "\n")
    return ["make", "--silent", f"-j{slots}"]


def _ninja_file(needs: list[tuple[int, ...]], slots: int, folder: Path) -> list[str]:
    lines = ["rule nothing", "  command = true"]
    for number, before in enumerate(needs):
        lines.append(f"build t{number}: nothing {' '.join(f't{need}' for need in before)}")
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")
    return ["ninja", f"-j{slots}"]


# --- telling ----------------------------------------------------------------------------------------


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    rows: list[tuple[object, ...]] = []
    for row in results["rows"]:
        for name, milliseconds in row["ms"].items():
            times = row["ratio_to_make"].get(name)
            rows.append(
                (
                    f"{name}, {row['slots']} at once",
                    f"{milliseconds:,.0f} ms",
                    f"{row['fastest_ms'][name]:,.0f} ms",
                    f"{milliseconds / results['tasks']:.2f} ms",
                    "1" if times is None else f"{times:.2f}" if times < 10 else f"{times:.0f}",
                )
            )
    head = ["", "median", "fastest", "a task", "to make"]
    return (
        f"{results['tasks']} times `true` on a graph with {results['needs']} needs. The ratios are to make, "
        f"round by round. {load_line(results['load'])}\n\n{markdown(head, rows)}"
    )
