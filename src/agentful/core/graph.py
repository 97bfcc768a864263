"""The plan as a graph: what is wrong with it, what comes first, how long it takes.

Everything here is a function of the tasks and of how long each is expected to take. All of it is
iterative and, but for a handful of heaps, linear in tasks and needs: 100,000 tasks are fine.

A need that is not among the given tasks counts as met: it is there for :func:`check` to refuse, or it
names a task that exists already.
"""

from __future__ import annotations

import difflib
import math
import unicodedata
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from msgspec import Struct

from ..errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ..model import Task

__all__ = ["Planned", "Timeline", "check", "critical_path", "order", "tails", "timeline", "waves"]

LONGEST_ID = 200

_SEARCH_STEPS = 500_000
"""Needs looked at to find a shorter cycle than the first one met; bounds the time of an error."""

_NAMED_IN_CYCLE = 24
"""Members of a cycle that are named before the message leaves some out."""

_ORDINALS = {1: "st", 2: "nd", 3: "rd"}


class Planned(Struct, frozen=True):
    """When one task is expected to run. Seconds from the start of the run."""

    id: str
    wave: int
    """1 for the tasks that need nothing."""
    start: float
    finish: float
    slot: int
    """The lane it is drawn in, from 0: no two tasks of one lane overlap in time."""


class Timeline(Struct, frozen=True):
    """A predicted run on ``slots`` slots. All times are seconds."""

    slots: int
    makespan: float
    """From the first start to the last finish."""
    sequential: float
    """What the same tasks take one at a time."""
    critical_path: tuple[str, ...]
    waves: tuple[tuple[str, ...], ...]
    tasks: tuple[Planned, ...]
    """In the order of the plan."""


# --- what is wrong with it -----------------------------------------------------------------------


def check(tasks: Sequence[Task], known: Collection[str] = ()) -> None:
    """Refuse a set of tasks that cannot be carried out.

    ``known`` are the ids of tasks that exist already; they may be needed, and not be given again. It
    is only asked with ``in``, so a large one should be a set or a mapping.

    Raises PlanError for the first of: an id that is empty, illegal or given twice; a need on itself; a
    need on nothing that exists; a cycle.
    """
    positions: dict[str, int] = {}
    for position, task in enumerate(tasks):
        _check_id(task.id, position)
        if task.id in positions:
            raise PlanError(
                f"two tasks have the id {task.id!r}, the {_ordinal(positions[task.id])} and the "
                f"{_ordinal(position)} of the plan; give one of them another id"
            )
        if task.id in known:
            raise PlanError(f"a task with the id {task.id!r} exists already; choose another id")
        positions[task.id] = position

    in_order = True
    for position, task in enumerate(tasks):
        for need in task.needs:
            there = positions.get(need)
            if there is None:
                if need not in known:
                    raise _unknown_need(task, need, [*positions, *known])
            elif there == position:
                raise PlanError("it needs itself; take that out of its needs", where=f"task {task.id!r}")
            elif there > position:
                in_order = False
    if not in_order:
        _Graph(tasks)


def _check_id(name: str, position: int) -> None:
    where = f"the {_ordinal(position)} task of the plan"
    if not name:
        raise PlanError("it has no id; give it a short name", where=where)
    if len(name) > LONGEST_ID:
        raise PlanError(
            f"its id has {len(name)} characters; the most is {LONGEST_ID}: {name[:40]!r}...", where=where
        )
    if name != name.strip():
        raise PlanError(f"its id {name!r} has white space around it; take that away", where=where)
    # Printable is the quick way to say that there is nothing to look for; joiners inside emoji and
    # private characters are not printable and yet fine.
    if not name.isprintable():
        for char in name:
            if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}:
                raise PlanError(
                    f"its id {name!r} has the control character {char!r}; take that away", where=where
                )


def _unknown_need(task: Task, need: str, names: list[str]) -> PlanError:
    close = difflib.get_close_matches(need, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "no task has an id like that"
    return PlanError(f"it needs {need!r}, which does not exist; {hint}", where=f"task {task.id!r}")


def _ordinal(position: int) -> str:
    number = position + 1
    suffix = "th" if number % 100 in {11, 12, 13} else _ORDINALS.get(number % 10, "th")
    return f"{number}{suffix}"


# --- the graph -----------------------------------------------------------------------------------


class _Graph:
    """The tasks as numbers, their positions in the plan.

    ``needs`` and ``dependents`` are the edges, each as often as the plan names it; ``order`` is
    topological and, of those whose needs are placed, takes the earliest in the plan. Raises PlanError for
    a cycle.
    """

    __slots__ = ("dependents", "needs", "order")

    def __init__(self, tasks: Sequence[Task]) -> None:
        positions = {task.id: position for position, task in enumerate(tasks)}
        self.needs: list[list[int]] = []
        self.dependents: list[list[int]] = [[] for _ in tasks]
        for position, task in enumerate(tasks):
            needs = [positions[need] for need in task.needs if need in positions]
            self.needs.append(needs)
            for need in needs:
                self.dependents[need].append(position)
        self.order = self._sorted()
        if len(self.order) < len(tasks):
            raise PlanError(self._describe_cycle(tasks))

    def _sorted(self) -> list[int]:
        missing = [len(needs) for needs in self.needs]
        ready = [at for at, count in enumerate(missing) if not count]
        found: list[int] = []
        while ready:
            at = heappop(ready)
            found.append(at)
            for dependent in self.dependents[at]:
                missing[dependent] -= 1
                if not missing[dependent]:
                    heappush(ready, dependent)
        return found

    def depths(self) -> list[int]:
        """For each task the number of tasks on the longest path that leads to it: 0 for a root."""
        depths = [0] * len(self.needs)
        for at in self.order:
            if self.needs[at]:
                depths[at] = 1 + max([depths[need] for need in self.needs[at]])
        return depths

    def tails(self, lengths: list[float]) -> list[float]:
        """For each task the length of the longest path that starts with it."""
        tails = lengths.copy()
        for at in reversed(self.order):
            if self.dependents[at]:
                tails[at] += max([tails[dependent] for dependent in self.dependents[at]])
        return tails

    def critical(self, tails: list[float]) -> list[int]:
        """The longest path from a root to a leaf; of several, the one earliest in the plan."""
        path: list[int] = []
        step = [at for at, needs in enumerate(self.needs) if not needs]
        while step:
            at = min(step, key=lambda at: (-tails[at], at))
            path.append(at)
            step = self.dependents[at]
        return path

    def _describe_cycle(self, tasks: Sequence[Task]) -> str:
        cycle = self._cycle()
        first = cycle.index(min(cycle))
        ids = [tasks[at].id for at in (*cycle[first:], *cycle[:first], cycle[first])]
        names = [name if " " not in name else repr(name) for name in ids]
        if len(names) > _NAMED_IN_CYCLE:
            half = _NAMED_IN_CYCLE // 2
            names[half:-half] = [f"... ({len(names) - 2 * half} more) ..."]
        return f"a cycle: {' needs '.join(names)}; one of these needs has to go"

    def _cycle(self) -> list[int]:
        """A cycle, each member followed by one that it needs; the shortest that a bounded search finds."""
        stuck = set(range(len(self.needs))).difference(self.order)
        needs = {at: [need for need in self.needs[at] if need in stuck] for at in sorted(stuck)}
        # What is stuck has a need that is stuck: going from need to need has to come round.
        at = next(iter(needs))
        walked: dict[int, None] = {}
        while at not in walked:
            walked[at] = None
            at = needs[at][0]
        path = list(walked)
        cycle = path[path.index(at) :]

        steps = 0
        for start in needs:
            if len(cycle) == 2 or steps > _SEARCH_STEPS:
                break
            shorter, used = _way_back(needs, start, len(cycle) - 1)
            cycle = shorter or cycle
            steps += used
        return cycle


def _way_back(needs: dict[int, list[int]], start: int, longest: int) -> tuple[list[int] | None, int]:
    """The shortest cycle through ``start`` of at most ``longest`` members, and the needs looked at."""
    came: dict[int, int] = {}
    level = [start]
    steps = 0
    for _ in range(longest):
        further: list[int] = []
        for at in level:
            steps += len(needs[at])
            for need in needs[at]:
                if need == start:
                    cycle = [at]
                    while cycle[-1] != start:
                        cycle.append(came[cycle[-1]])
                    return cycle[::-1], steps
                if need not in came:
                    came[need] = at
                    further.append(need)
        level = further
    return None, steps


# --- what it says --------------------------------------------------------------------------------


def order(tasks: Sequence[Task]) -> list[Task]:
    """The tasks, each after what it needs, and otherwise in the order given.

    At each place stands the earliest given task whose needs all stand before it; tasks that are in a
    possible order keep it. Raises PlanError for a cycle.
    """
    return [tasks[at] for at in _Graph(tasks).order]


def waves(tasks: Sequence[Task]) -> list[list[str]]:
    """The ids by the length of the longest chain of needs before them, in the given order within one.

    Raises PlanError for a cycle.
    """
    return _waves(tasks, _Graph(tasks).depths())


def tails(tasks: Sequence[Task], duration: Callable[[Task], float]) -> dict[str, float]:
    """For each id, the seconds from its start to the end of the longest chain that begins with it.

    Raises PlanError for a cycle, or for a duration that is negative or not finite.
    """
    found = _Graph(tasks).tails(_lengths(tasks, duration))
    return {task.id: tail for task, tail in zip(tasks, found, strict=True)}


def critical_path(tasks: Sequence[Task], duration: Callable[[Task], float]) -> list[str]:
    """The ids of the chain of needs that takes longest, first to last: no number of slots beats it.

    Raises PlanError as :func:`tails` does.
    """
    graph = _Graph(tasks)
    return [tasks[at].id for at in graph.critical(graph.tails(_lengths(tasks, duration)))]


def timeline(
    tasks: Sequence[Task],
    slots: int,
    duration: Callable[[Task], float],
    excludes: Callable[[Task, Task], bool] | None = None,
) -> Timeline:
    """Predict a run on ``slots`` slots, by the rule that the scheduler follows.

    Whenever a slot is free, the ready task of the highest priority starts; of several, the one with the
    longest tail, then the earliest given. A task that ``excludes`` says may not run beside one that
    runs is passed over until that one has finished. ``excludes(ready, running)`` has to be symmetric,
    and to give the same answer each time.

    Without exclusions the cost is that of sorting. With them each start asks once for each running
    task, and a task that was passed over is asked for again only when the one that kept it is done.

    Raises PlanError for less than one slot, and as :func:`tails` does.
    """
    if slots < 1:
        raise PlanError(f"nothing runs on {slots} slots; give at least one")
    graph = _Graph(tasks)
    lengths = _lengths(tasks, duration)
    tails = graph.tails(lengths)
    depths = graph.depths()
    starts, lanes = _schedule(tasks, slots, graph, lengths, tails, excludes)
    planned = tuple(
        Planned(task.id, depth + 1, start, start + length, lane)
        for task, depth, start, length, lane in zip(tasks, depths, starts, lengths, lanes, strict=True)
    )
    return Timeline(
        slots=slots,
        makespan=max((plan.finish for plan in planned), default=0.0),
        sequential=math.fsum(lengths),
        critical_path=tuple(tasks[at].id for at in graph.critical(tails)),
        waves=tuple(tuple(wave) for wave in _waves(tasks, depths)),
        tasks=planned,
    )


def _schedule(
    tasks: Sequence[Task],
    slots: int,
    graph: _Graph,
    lengths: list[float],
    tails: list[float],
    excludes: Callable[[Task, Task], bool] | None,
) -> tuple[list[float], list[int]]:
    """When and in which lane each task starts."""
    by_rank = sorted(range(len(tasks)), key=lambda at: (-tasks[at].priority, -tails[at], at))
    ranks = [0] * len(tasks)
    for rank, at in enumerate(by_rank):
        ranks[at] = rank

    starts = [0.0] * len(tasks)
    lanes = [0] * len(tasks)
    missing = [len(needs) for needs in graph.needs]
    ready = [ranks[at] for at, count in enumerate(missing) if not count]
    heapify(ready)
    finishes: list[tuple[float, int]] = []
    running: dict[int, None] = {}
    passed_over: dict[int, list[int]] = {}  # by the running task that keeps them: their ranks
    free_lanes: list[int] = []
    used_lanes = 0
    now = 0.0
    while ready or finishes:
        while ready and len(running) < slots:
            at = by_rank[heappop(ready)]
            if excludes is not None:
                task = tasks[at]
                keeper = next((other for other in running if excludes(task, tasks[other])), None)
                if keeper is not None:
                    passed_over.setdefault(keeper, []).append(ranks[at])
                    continue
            if free_lanes:
                lanes[at] = heappop(free_lanes)
            else:
                lanes[at] = used_lanes
                used_lanes += 1
            starts[at] = now
            running[at] = None
            heappush(finishes, (now + lengths[at], at))
        # All that ends at one instant ends before anything starts at it.
        now = finishes[0][0]
        while finishes and finishes[0][0] == now:
            at = heappop(finishes)[1]
            del running[at]
            heappush(free_lanes, lanes[at])
            for rank in passed_over.pop(at, ()):
                heappush(ready, rank)
            for dependent in graph.dependents[at]:
                missing[dependent] -= 1
                if not missing[dependent]:
                    heappush(ready, ranks[dependent])
    return starts, lanes


def _waves(tasks: Sequence[Task], depths: list[int]) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in range(max(depths, default=-1) + 1)]
    for task, depth in zip(tasks, depths, strict=True):
        found[depth].append(task.id)
    return found


def _lengths(tasks: Sequence[Task], duration: Callable[[Task], float]) -> list[float]:
    lengths = [float(duration(task)) for task in tasks]
    for task, length in zip(tasks, lengths, strict=True):
        if not 0 <= length < math.inf:
            raise PlanError(
                f"it is expected to take {length} s; give a number from 0 up", where=f"task {task.id!r}"
            )
    return lengths
