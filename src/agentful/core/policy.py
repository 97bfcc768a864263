"""Which ready task next.

Order: priority, then the longest remaining path by expected duration, then submission. On task graphs
with known optima, longest-path-first list scheduling is within half a percent of the best makespan on
average (Kohler 1975 names it; Graham 1969 bounds any list schedule by 2 - 1/m).
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from ..model import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..model import Task
    from .record import TaskRecord

DEFAULT_ESTIMATE = 300.0
"""Seconds that a task is taken to last when nothing is known of it."""

_REACH = 200
"""How many earlier tasks one submission may lengthen the path of. The path only orders; a bound keeps
a chain of a hundred thousand single submissions from costing the square of that."""

_LONGEST_GLOB = 1_000


def duration(task: Task) -> float:
    """How long a task is expected to take, in seconds."""
    return DEFAULT_ESTIMATE if task.estimate is None else task.estimate


def key(record: TaskRecord) -> tuple[int, float, int]:
    """Orders ready tasks: the smallest goes first."""
    return (-record.task.priority, -record.tail, record.index)


def lengthen(added: Sequence[TaskRecord], needs: dict[str, TaskRecord]) -> list[TaskRecord]:
    """Set the remaining path of new records, and lengthen those of the tasks they need.

    ``added`` is in an order in which needs come first. Gives those that were lengthened.
    """
    for record in reversed(added):
        record.tail = duration(record.task)
        if record.dependents:
            record.tail += max([dependent.tail for dependent in record.dependents])
    lengthened: list[TaskRecord] = []
    new = {record.id for record in added}
    pending = [record for record in added if any(need not in new for need in record.task.needs)]
    while pending and len(lengthened) < _REACH:
        record = pending.pop()
        for need in record.task.needs:
            before = needs[need]
            if need in new or before.state is State.SUCCEEDED:
                continue
            tail = duration(before.task) + record.tail
            if tail > before.tail:
                before.tail = tail
                pending.append(before)
                lengthened.append(before)
    return lengthened


def backoff(delay: float, times: int) -> float:
    """Seconds to wait before try number ``times`` + 1: doubled each time, a minute at most."""
    return min(60.0, delay * 2.0 ** max(0, times - 1))


def literal(paths: Iterable[str]) -> tuple[str, ...]:
    """Paths as globs that match just them, or little more where no glob can say them exactly."""
    return tuple(dict.fromkeys(_literal(path) for path in paths))


def _literal(path: str) -> str:
    glob = "/" + "".join(map(_literal_char, path))
    while len(glob) > _LONGEST_GLOB:
        glob = glob.rpartition("/")[0]
    return glob


def _literal_char(char: str) -> str:
    if char.isalnum() or char in "/._-":
        return char
    return "?" if unicodedata.category(char) in {"Cc", "Cs"} else "\\" + char
