"""What a run came to: what landed and what did not, and whether running in parallel paid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ..events import Trigger
from ..model import Reason, State, format_duration
from .board import LOOKS, reason_text
from .text import Line, as_word, clip, listed, one_line

if TYPE_CHECKING:
    from ..core.record import TaskRecord
    from ..core.view import RunView

__all__ = ["Account", "account", "summary"]

_MOST_ROWS = 20
_WASTED = frozenset({Trigger.LOST, Trigger.INTERRUPTED})


class Account(Struct, frozen=True):
    """Where the time of a run went. Seconds."""

    busy: float
    """How long anything was at work: without the time in which the run waited for a person or was off."""
    one_by_one: float
    """What the same work takes one task at a time: all attempts, but for those that a conflict with
    another task, or a crash, made void, and all landings."""


def account(view: RunView) -> Account:
    """Add up a run, from what was journalled of it."""
    runs: list[tuple[float, float]] = []
    landings: list[tuple[float, float]] = []
    one_by_one = 0.0
    for record in view.records.values():
        started: float | None = None
        landing: float | None = None
        spent = 0.0
        for change in record.story:
            if change.trigger is Trigger.STARTED:
                started, spent = change.at, 0.0
            elif started is not None and change.target is not State.STOPPING:
                runs.append((started, change.at))
                spent = change.at - started
                if change.trigger not in _WASTED:
                    one_by_one += spent
                started = None
            if change.target is State.LANDING and landing is None:
                landing = change.at
            elif landing is not None and change.target is not State.LANDING:
                landings.append((landing, change.at))
                landing = None
                if change.reason is Reason.CONFLICT:
                    one_by_one -= spent
        # Whatever is under way at this moment.
        runs += [(started, view.at)] if started is not None else []
        landings += [(landing, view.at)] if landing is not None else []
        one_by_one += view.at - started if started is not None else 0.0
    # Landings are one at a time: what they take together is the time in which there was any.
    return Account(_covered(runs + landings), one_by_one + _covered(landings))


def _covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of time spans."""
    total = 0.0
    end = float("-inf")
    for start, stop in sorted(spans):
        if stop > end:
            total += stop - max(start, end)
            end = stop
    return total


def summary(
    view: RunView,
    *,
    run: str,
    branch: str,
    wall: float,
    predicted: float | None,
    width: int,
    resumable: bool = False,
) -> list[Line]:
    """The last words on a run, for a terminal.

    ``wall`` is how many seconds it took, ``predicted`` how many the plan said, where it had an estimate
    for every task. ``branch`` is the short name of the integration branch.
    """
    records = list(view.records.values())
    of = {state: [record for record in records if record.state is state] for state in State}
    landed = [record for record in of[State.SUCCEEDED] if record.landed]
    lines = [_headline(view, run, branch, landed, wall)]
    for state in LOOKS:
        lines += _section(state, of[state], width)
    again = [record for record in records if record.failures and record.attempt > 1]
    if again:
        lines.append(
            [(" ↻ ", "yellow"), (f"tried again: {listed([_tries(r) for r in again], width - 16)}", "")]
        )
    outside = [record for record in records if record.out_of_scope]
    for record in outside[:_MOST_ROWS]:
        paths = listed([one_line(path) for path in record.out_of_scope], width // 2)
        lines.append([(" ! ", "yellow"), (f"{one_line(record.id)} wrote outside its scope: {paths}", "")])
    lines += _time(view, wall, predicted)
    costs = [r.usage.cost for r in records if r.usage is not None and r.usage.cost is not None]
    if costs:
        lines.append([("cost   ", "dim"), (f"${sum(costs):.2f}", "")])
    lines.append([("next   ", "dim"), (_next(view, of, landed, run, resumable), "cyan")])
    return lines


def _headline(view: RunView, run: str, branch: str, landed: list[TaskRecord], wall: float) -> Line:
    good = view.counts[State.SUCCEEDED]
    text = f"{good} of {view.total} tasks done"
    if landed:
        text += f", {len(landed)} landed on {branch}"
    style = "bold green" if good == view.total else "bold"
    return [(f"{run}: ", "bold"), (text, style), (f" in {format_duration(wall)}", "")]


def _section(state: State, records: list[TaskRecord], width: int) -> list[Line]:
    if not records:
        return []
    mark, word, style = LOOKS[state]
    if state in (State.FAILED, State.BLOCKED):
        rows: list[Line] = []
        for record in records[:_MOST_ROWS]:
            left = f" {mark} {word} "
            name = one_line(record.id)
            why = reason_text(record)
            rows.append(
                [
                    (left, style),
                    (name, "bold"),
                    (f"  {clip(why, max(20, width - len(left) - len(name) - 2))}", ""),
                ]
            )
        if len(records) > _MOST_ROWS:
            rows.append([(f" {mark} {word} ", style), (f"and {len(records) - _MOST_ROWS} more", "dim")])
        return rows
    start = f" {mark} {word} {len(records)}: "
    return [[(start, style), (listed([one_line(record.id) for record in records], width - len(start)), "")]]


def _tries(record: TaskRecord) -> str:
    reasons = dict.fromkeys(str(failure.reason).replace("_", " ") for failure in record.failures)
    return f"{one_line(record.id)} ({', '.join(reasons)})"


def _time(view: RunView, wall: float, predicted: float | None) -> list[Line]:
    told = account(view)
    if told.one_by_one <= 0:
        return []
    text = format_duration(wall)
    if predicted is not None:
        text += f", predicted {format_duration(round(predicted, 1))}"
    text += f", one by one about {format_duration(told.one_by_one)}"
    saved = told.one_by_one - wall
    if view.total > 1 and view.done == view.total:
        if abs(saved) < max(0.1, 0.05 * wall):
            text += ": parallel made no difference here"
        elif saved > 0:
            text += f": parallel saved {format_duration(saved)}"
            times = told.one_by_one / wall
            text += f" ({times:.1f} times as fast)" if times >= 1.1 else ""
        else:
            text += f": parallel did not pay here, it lost {format_duration(-saved)}"
    return [[("time   ", "dim"), (text, "")]]


def _next(
    view: RunView,
    of: dict[State, list[TaskRecord]],
    landed: list[TaskRecord],
    run: str,
    resumable: bool,
) -> str:
    decisions = view.open_decisions()
    if decisions:
        decision = decisions[0]
        answer = "NUMBER" if decision.options else "ANSWER"
        return f"agentful decide {decision.id} {answer} --run {run}, then agentful resume {run}"
    if resumable:
        return f"agentful resume {run}"
    if of[State.FAILED]:
        name = as_word(of[State.FAILED][0].id)
        return f"agentful explain {name}, then agentful retry {name}"
    if landed:
        return f"agentful land {run}"
    return f"agentful status {run}"
