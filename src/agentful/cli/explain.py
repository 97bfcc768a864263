"""``agentful explain``: the story of one task, and what keeps it from going on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ..events import Trigger
from ..model import State, format_duration
from ..progress import agent_of, as_word, one_line, printable
from ..progress.board import LOOKS, reason_text
from .exits import Fault
from .forecast import why_apart
from .shared import find_task, here, run_option, show, task_argument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.record import TaskRecord
    from ..events import TaskChanged
    from ..model import Options, Task
    from ..progress import Line
    from .shared import RunReader

_DETAIL_LINES = 20
_MOST_APART = 12

_WORDS: dict[Trigger, str] = {
    Trigger.NEEDS_MET: "everything that it needs has landed",
    Trigger.NEED_FAILED: "skipped: something that it needs did not succeed",
    Trigger.STARTED: "started",
    Trigger.FINISHED: "its agent finished; the work goes to the landing",
    Trigger.DONE: "its agent finished, with nothing to land",
    Trigger.RETRIED: "failed, and is tried again",
    Trigger.GAVE_UP: "failed for good",
    Trigger.LOST: "lost, through no fault of its own",
    Trigger.ASKED: "a question waits for you",
    Trigger.ANSWERED: "answered; it goes on",
    Trigger.DROPPED: "you decided to go on without it",
    Trigger.HANDED_IN: "you did it by hand, on the branch",
    Trigger.STOP_REQUESTED: "told to stop",
    Trigger.INTERRUPTED: "stopped with the run; it starts again at a resume",
    Trigger.PREPARED: "merged and checked",
    Trigger.BRANCH_MOVED: "the branch had moved; it is merged again",
    Trigger.LANDED: "landed",
    Trigger.CANCELLED: "cancelled",
    Trigger.REVIVED: "you asked for it again",
}


@click.command()
@task_argument
@run_option
def explain(task: str, run_name: str | None) -> None:
    """Say why TASK waits, runs, ran again, failed, or is kept apart from another.

    TASK is a task's id or the start of it.
    """
    with here() as place:
        if not place.journal.runs():
            raise Fault(
                "there is no run yet, so there is nothing to explain; agentful plan shows what is ahead"
            )
        reader = place.run(run_name)
        record = find_task(reader.view, task)
        show(_headline(record))
        show(_obstacles(reader, record))
        show(_apart(record.task, [r.task for r in reader.view.records.values()], reader.info.options))
        show(_story(record, reader.info.created_at))
        show(_failure(record))
        show(_next(reader, record))


def _headline(record: TaskRecord) -> list[Line]:
    mark, word, style = LOOKS[record.state]
    lines: list[Line] = [
        [
            (one_line(record.id), "bold"),
            (f"  {agent_of(record.task)}  ", "dim"),
            (f"{mark} {word}", style),
            (f"  {reason_text(record)}", ""),
        ]
    ]
    if record.task.title:
        lines.append([(f"  {one_line(record.task.title)}", "dim")])
    return lines


def _obstacles(reader: RunReader, record: TaskRecord) -> list[Line]:
    """What it waits for now."""
    if record.state.settled or record.state in (State.RUNNING, State.STOPPING):
        return []
    lines: list[Line] = [[("  waits: ", "yellow"), (one_line(o.text), "")] for o in reader.explain(record.id)]
    if record.state is State.WAITING:
        for need in reader.view.missing(record):
            other = reader.view.records[need]
            mark, word, style = LOOKS[other.state]
            lines.append([(f"    {one_line(need)} is {mark} {word}", style), (f"  {reason_text(other)}", "")])
    if not reader.is_live():
        lines.append([("  nobody carries out its run at this moment", "yellow")])
    return lines


def _apart(task: Task, tasks: Sequence[Task], options: Options) -> list[Line]:
    """The tasks that never run at the same time as this one, and why."""
    lines = [
        [("  kept apart from ", "dim"), (one_line(other.id), ""), (f": {why}", "dim")]
        for other in tasks
        if other.id != task.id and (why := why_apart(task, other, options))
    ]
    if len(lines) > _MOST_APART:
        lines[_MOST_APART:] = [[(f"  and from {len(lines) - _MOST_APART} more", "dim")]]
    return lines


def _story(record: TaskRecord, since: float) -> list[Line]:
    return [_told(change, since) for change in record.story]


def _told(change: TaskChanged, since: float) -> Line:
    at = format_duration(round(max(0.0, change.at - since)))
    text = _WORDS.get(change.trigger, change.trigger.value)
    if change.trigger is Trigger.STARTED:
        text = f"attempt {change.attempt} started"
    if change.trigger is Trigger.LANDED and change.detail is not None and change.detail.commit:
        text += f" as {change.detail.commit[:9]}"
    said: list[str] = []
    if change.reason is not None:
        said.append(str(change.reason).replace("_", " "))
    if change.detail is not None:
        said += [one_line(change.detail.message)] if change.detail.message else []
        if change.detail.other:
            said.append(f"the other side is {one_line(change.detail.other)}'s")
        if change.detail.alone:
            said.append("the next attempt runs alone")
    return [(f"  +{at:<8} ", "dim"), (text, ""), (f": {'; '.join(said)}" if said else "", "")]


def _failure(record: TaskRecord) -> list[Line]:
    """The end of what the last failure printed."""
    if record.state is State.SUCCEEDED or not record.detail.strip():
        return []
    rows = printable(record.detail.strip()).splitlines()[-_DETAIL_LINES:]
    return [[("  its last output:", "dim")], *([(f"    {row}", "")] for row in rows)]


def _next(reader: RunReader, record: TaskRecord) -> list[Line]:
    name, run = as_word(record.id), reader.info.id
    if record.state is State.BLOCKED:
        asked = [d.id for d in reader.view.open_decisions() if record.id in d.blocking]
        return [[("  next: ", "dim"), (f"agentful decide {asked[0]} --run {run}" if asked else "", "cyan")]]
    if record.state in (State.FAILED, State.CANCELLED):
        return [[("  next: ", "dim"), (f"agentful logs {name} --run {run}, agentful retry {name}", "cyan")]]
    if record.state is State.READY and record.not_before is not None and record.not_before > time.time():
        left = format_duration(record.not_before - time.time())
        return [[("  it starts again in ", "dim"), (left, "")]]
    return []
