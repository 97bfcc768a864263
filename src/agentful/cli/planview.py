"""A plan with its predicted run: as text for people, and as the documented JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model import format_duration
from ..progress import agent_of, as_word, clip, one_line
from ..progress.text import listed, pad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.graph import Planned, Timeline
    from ..model import Task
    from ..progress import Line
    from .forecast import Apart

__all__ = ["plan_document", "plan_lines"]

_MOST_BARS = 100
_MOST_STARTS = 24
_MOST_APART = 12


def plan_document(
    tasks: Sequence[Task], line: Timeline, pairs: Sequence[Apart], warnings: Sequence[str]
) -> dict[str, Any]:
    """A plan as ``agentful plan --json`` prints it. Times are seconds."""
    rivals: dict[str, list[str]] = {task.id: [] for task in tasks}
    for a, b, _ in pairs:
        rivals[a.id].append(b.id)
        rivals[b.id].append(a.id)
    return {
        "version": 1,
        "slots": line.slots,
        "makespan": _number(line.makespan),
        "sequential": _number(line.sequential),
        "critical_path": list(line.critical_path),
        "waves": [list(wave) for wave in line.waves],
        "tasks": [
            {
                "id": task.id,
                "agent": agent_of(task),
                "wave": planned.wave,
                "start": _number(planned.start),
                "finish": _number(planned.finish),
                "needs": list(task.needs),
                "conflicts_with": rivals[task.id],
            }
            for task, planned in zip(tasks, line.tasks, strict=True)
        ],
        "warnings": list(warnings),
    }


def _number(seconds: float) -> float | int:
    return int(seconds) if seconds == int(seconds) else round(seconds, 3)


def plan_lines(
    tasks: Sequence[Task],
    line: Timeline,
    pairs: Sequence[Apart],
    warnings: Sequence[str],
    *,
    base: str,
    command: str,
    width: int,
) -> list[Line]:
    """A plan for people: waves with bars, the timeline, what is kept apart, what looks wrong."""
    count, waves = len(tasks), len(line.waves)
    slots = f"{line.slots} at once" if line.slots > 1 else "one at a time"
    lines: list[Line] = [
        [(f"{_plural(count, 'task')} · {_plural(waves, 'wave')} · {slots} · from {base}", "bold")]
    ]
    lines += _bars(tasks, line, width)
    lines += _starts(tasks, line, pairs, width)
    path = " → ".join(map(one_line, line.critical_path))
    total = format_duration(line.sequential)
    lines.append([(clip(f"one by one {total} · critical path {path}", width), "")])
    for a, b, why in pairs[:_MOST_APART]:
        lines.append([(f"never at once: {one_line(a.id)} and {one_line(b.id)}, {why}", "")])
    if len(pairs) > _MOST_APART:
        lines.append([(f"never at once: {_plural(len(pairs) - _MOST_APART, 'more pair')}", "")])
    lines += [[("warning: ", "yellow"), (one_line(warning), "")] for warning in warnings]
    lines.append([("next: ", "dim"), (command, "cyan")])
    return lines


def _bars(tasks: Sequence[Task], line: Timeline, width: int) -> list[Line]:
    """A bar for each task, where and as long as it is expected to run; by waves."""
    by_id = {task.id: (task, planned) for task, planned in zip(tasks, line.tasks, strict=True)}
    names = {task.id: one_line(task.id) for task in tasks}
    name_width = min(max(map(len, names.values()), default=0), max(8, width // 4))
    bar_width = max(10, min(40, width - name_width - 46))
    lines: list[Line] = []
    for number, wave in enumerate(line.waves, 1):
        for place, task_id in enumerate(wave):
            if len(lines) == _MOST_BARS:
                return [*lines, [(f" … {len(tasks) - _MOST_BARS} more tasks", "dim")]]
            task, planned = by_id[task_id]
            head = f" wave {number:<3}" if place == 0 else " " * 9
            left, length = _place(planned, line.makespan, bar_width)
            needs = f"  needs {', '.join(map(one_line, task.needs))}" if task.needs else ""
            lasts = format_duration(planned.finish - planned.start)
            row: Line = [
                (head, "dim"),
                (f"{pad(names[task_id], name_width)} ", "bold"),
                (" " * left + "█" * length + " " * (bar_width - left - length), "cyan"),
                (f" {lasts:>6}  ", ""),
                (f"{agent_of(task)}{needs}", "dim"),
            ]
            lines.append(row)
    return [_cut(row, width) for row in lines]


def _cut(row: Line, width: int) -> Line:
    *rest, (text, style) = row
    used = sum(len(piece) for piece, _ in rest)
    return [*rest, (clip(text, max(8, width - used)), style)]


def _place(planned: Planned, makespan: float, width: int) -> tuple[int, int]:
    """Where a bar begins, and how long it is, in columns."""
    if makespan <= 0:
        return 0, width
    left = min(width - 1, int(planned.start / makespan * width))
    right = max(left + 1, round(planned.finish / makespan * width))
    return left, right - left


def _starts(tasks: Sequence[Task], line: Timeline, pairs: Sequence[Apart], width: int) -> list[Line]:
    """What starts when, and why not sooner."""
    planned = {p.id: p for p in line.tasks}
    rivals: dict[str, list[str]] = {}
    for a, b, _ in pairs:
        rivals.setdefault(a.id, []).append(b.id)
        rivals.setdefault(b.id, []).append(a.id)
    starts: dict[float, list[Task]] = {}
    for task in tasks:
        starts.setdefault(planned[task.id].start, []).append(task)
    times = sorted(starts)
    lines: list[Line] = []
    for at in times[:_MOST_STARTS]:
        group = starts[at]
        names = [one_line(task.id) for task in group]
        if len(group) > 1:
            said = f"{_and(names, width - 28)} start IN PARALLEL"
        else:
            said = f"{names[0]} starts{_why_then(group[0], at, planned, rivals)}"
        lines.append([(f" +{_clock(at):<6}", "dim"), (clip(said, width - 8), "")])
    if len(times) > _MOST_STARTS:
        lines.append([(f" … {len(times) - _MOST_STARTS} more starts", "dim")])
    lines.append([(f" +{_clock(line.makespan):<6}", "dim"), ("ALL DONE", "bold")])
    return lines


def _why_then(task: Task, at: float, planned: dict[str, Planned], rivals: dict[str, list[str]]) -> str:
    needs = [planned[need].finish for need in task.needs if need in planned]
    if at <= max(needs, default=0.0):
        if not needs:
            return ""
        return " (its need is met)" if len(needs) == 1 else f" ({_all(len(needs))} needs met)"
    keeper = next((other for other in rivals.get(task.id, ()) if planned[other].finish == at), None)
    return f" (kept apart from {one_line(keeper)})" if keeper is not None else " (a slot is free)"


def _all(count: int) -> str:
    return "both" if count == 2 else f"all {count}"


def _and(names: list[str], width: int) -> str:
    joined = f"{', '.join(names[:-1])} and {names[-1]}"
    return joined if len(joined) <= width else listed(names, width)


def _clock(seconds: float) -> str:
    return format_duration(seconds) if seconds else "0m"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def run_command(plan: str) -> str:
    """The command that runs a plan."""
    return f"agentful run {as_word(plan)}" if plan else "agentful run"
