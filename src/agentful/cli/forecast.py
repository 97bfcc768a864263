"""What a plan is expected to take, what it keeps apart, and what looks wrong in it.

The prediction is the schedule that the scheduler would make if every task took as long as expected.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from ..core import graph, policy
from ..core.conflicts import check_glob, common_path, scopes_overlap
from ..model import format_duration
from ..progress import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..core.graph import Timeline
    from ..core.view import RunView
    from ..model import Options, Task

__all__ = ["Apart", "apart", "forecast", "missing_needs", "predicted", "warnings", "why_apart"]

_MOST = 5_000
"""Tasks of which a run's length is predicted while it is shown; a larger one would make that slow."""
_NAMED = 6

Apart = tuple["Task", "Task", str]
"""Two tasks that are never at work at the same time, in the order of the plan, and why."""


def forecast(tasks: Sequence[Task], options: Options) -> Timeline:
    """The predicted run. Raises PlanError for a plan that cannot be run."""
    claims = any(task.writes or task.resources for task in tasks)
    return graph.timeline(
        tasks, options.max_concurrency, policy.duration, _excluder(options) if claims else None
    )


def predicted(view: RunView, options: Options) -> float | None:
    """Seconds that a run was to take; ``None`` where not every task has an estimate."""
    tasks = [record.task for record in view.records.values()]
    if not tasks or len(tasks) > _MOST or any(task.estimate is None for task in tasks):
        return None
    return forecast(tasks, options).makespan


def _excluder(options: Options) -> Callable[[Task, Task], bool]:
    """Whether two tasks may not run at once, as the scheduler decides it."""

    def excludes(a: Task, b: Task) -> bool:
        if not set(a.resources).isdisjoint(b.resources):
            return True
        return options.conflicts == "avoid" and scopes_overlap(a.writes, b.writes) is not None

    return excludes


# --- what is kept apart --------------------------------------------------------------------------


def why_apart(a: Task, b: Task, options: Options) -> str | None:
    """Why two tasks are never at work at the same time; ``None`` where they may be."""
    shared = [resource for resource in a.resources if resource in b.resources]
    if shared:
        return f"both use {one_line(shared[0])}"
    pair = scopes_overlap(a.writes, b.writes) if options.conflicts == "avoid" else None
    return None if pair is None else _overlap(*pair)


def _overlap(a: str, b: str) -> str:
    if a == b:
        return f"both write {one_line(a)}"
    example = common_path(a, b)
    text = f"{one_line(a)} and {one_line(b)} overlap" + (f", as in {one_line(example)}" if example else "")
    bare = next((glob for glob in (a, b) if "/" not in glob and not set(glob) & set("*?[")), None)
    # A name is met at any depth, as in .gitignore, which is seldom what was meant.
    return f"{text} (to mean only the one at the top: /{one_line(bare)})" if bare else text


def apart(tasks: Sequence[Task], options: Options) -> list[Apart]:
    """All pairs of tasks that are never at work at the same time though neither needs the other."""
    order = {task.id: place for place, task in enumerate(tasks)}
    before = _ancestors(tasks)
    found: list[Apart] = []
    for a, b in _candidates(tasks, options):
        if order[a.id] > order[b.id]:
            a, b = b, a  # noqa: PLW2901
        if before[b.id] >> order[a.id] & 1 or before[a.id] >> order[b.id] & 1:
            continue
        why = why_apart(a, b, options)
        if why is not None:
            found.append((a, b, why))
    return sorted(found, key=lambda pair: (order[pair[0].id], order[pair[1].id]))


def _ancestors(tasks: Sequence[Task]) -> dict[str, int]:
    """For each task, what has to land before it: bits, by place in the plan."""
    place = {task.id: number for number, task in enumerate(tasks)}
    found: dict[str, int] = {}
    for task in graph.order(tasks):
        bits = 0
        for need in task.needs:
            if need in place:
                bits |= found[need] | 1 << place[need]
        found[task.id] = bits
    return found


def _candidates(tasks: Sequence[Task], options: Options) -> Iterable[tuple[Task, Task]]:
    """Pairs that may be in each other's way: most that are not are told by their first folders."""
    pairs: dict[tuple[str, str], tuple[Task, Task]] = {}
    by_resource: dict[str, list[Task]] = {}
    for task in tasks:
        for resource in task.resources:
            by_resource.setdefault(resource, []).append(task)
    for sharing in by_resource.values():
        for a, b in combinations(sharing, 2):
            pairs[min(a.id, b.id), max(a.id, b.id)] = a, b
    if options.conflicts == "avoid":
        below: dict[str, dict[str, Task]] = {}
        for task in tasks:
            for folder in {_fixed(glob) for glob in task.writes or ()}:
                below.setdefault(folder, {})[task.id] = task
        # Two globs can only meet where the folder of one lies in that of the other.
        for folder, inside in below.items():
            for upper in _folders_above(folder):
                for a in below.get(upper, {}).values():
                    for b in inside.values():
                        if a.id != b.id:
                            pairs[min(a.id, b.id), max(a.id, b.id)] = a, b
    return pairs.values()


def _fixed(glob: str) -> str:
    """The folders that everything which a glob covers lies in; empty where there are none."""
    text = check_glob(glob).removeprefix("/") if "/" in glob.rstrip("/") else ""
    folders: list[str] = []
    for name in text.split("/"):
        if set(name) & set("*?[\\") or not name:
            break
        folders.append(name)
    return "".join(f"{name}/" for name in folders)


def _folders_above(folder: str) -> Iterable[str]:
    """A folder, as :func:`_fixed` gives it, and all those that it lies in."""
    parts = folder.split("/")[:-1]
    return ("".join(f"{part}/" for part in parts[:count]) for count in range(len(parts) + 1))


# --- what looks wrong ----------------------------------------------------------------------------


def warnings(tasks: Sequence[Task], options: Options, pairs: Sequence[Apart], line: Timeline) -> list[str]:
    """What a person should look at before running the plan. Nothing in it stops a run."""
    found = missing_needs(pairs)
    silent = [task.id for task in tasks if task.writes is None and task.run is None and not task.reads_only]
    if silent and options.max_concurrency > 1 and len(tasks) > 1:
        found.append(
            "nothing keeps these apart from others that touch the same files, because they do not say what "
            f"they may write (`writes`): {_names(silent)}"
        )
    guessed = [task.id for task in tasks if task.estimate is None]
    if guessed:
        which = "all of them" if len(guessed) == len(tasks) else _names(guessed)
        usual = format_duration(policy.DEFAULT_ESTIMATE)
        found.append(f"tasks without an `estimate` count as {usual}: {which}")
    if not options.checks and any(task.checks is None for task in tasks if not task.reads_only):
        found.append("there are no checks, so what lands is merged but not tested")
    if len(tasks) > 1 and options.max_concurrency > 1 and line.makespan == line.sequential:
        found.append("no two of its tasks can run at once, so it takes as long as one by one")
    return found


def missing_needs(pairs: Sequence[Apart]) -> list[str]:
    """Pairs that write the same and are in no order: perhaps one should need the other."""
    writers = [
        f"{one_line(a.id)} and {one_line(b.id)}" for a, b, why in pairs if not why.startswith("both use")
    ]
    if not writers:
        return []
    said = "these write the same files and are in no order, so perhaps one should need the other"
    return [f"{said}: {_names(writers)}"]


def _names(ids: Sequence[str]) -> str:
    shown = ", ".join(map(one_line, ids[:_NAMED]))
    return f"{shown} and {len(ids) - _NAMED} more" if len(ids) > _NAMED else shown
