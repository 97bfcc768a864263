"""How measurements are taken and shown. Rivals take turns, so that a busy moment hits all of them."""

from __future__ import annotations

import gc
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from agentful.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "agentful": __version__,
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "git": _first_line("git", "--version").removeprefix("git version "),
        "sqlite": sqlite3.sqlite_version,
    }


def machine_line(info: Mapping[str, Any]) -> str:
    """The same in one line, for people."""
    return (
        f"{info['date']}: agentful {info['agentful']}, {info['python']}, git {info['git']}, "
        f"SQLite {info['sqlite']}, {info['system']}, {info['cores']} cores of {info['cpu']}, "
        f"{info['memory_gib']} GiB"
    )


def _cpu() -> str:
    if sys.platform == "darwin":
        return _first_line("sysctl", "-n", "machdep.cpu.brand_string")
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in names if name), platform.machine())


def _first_line(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:
        return "none"
    return next(iter(done.stdout.splitlines()), "")


def take_turns(rivals: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds that each rival took in each round, after one round that does not count.

    A rival measures itself, so that what it has to prepare does not count. Another one begins each round.
    """
    names = list(rivals)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            seconds = rivals[name]()
            if number >= 0:
                taken[name].append(seconds)
    return taken


def timed(work: Callable[[], object]) -> float:
    """Seconds of wall-clock time that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratio(taken: Sequence[float], of: Sequence[float]) -> float:
    """The median of the ratios of each round: what slows a whole round down cancels out."""
    return statistics.median(one / other for one, other in zip(taken, of, strict=True))


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; all but its first column are numbers."""
    lines = [" | ".join(head), " | ".join(["---", *("---:" for _ in head[1:])])]
    lines += [" | ".join(str(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
