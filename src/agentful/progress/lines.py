"""A run as lines: for a log, for a pipe, for a script.

Plain lines are for people and change as we please. The JSON is API, version 1: a reader ignores fields
and types that it does not know, and refuses another version.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ..events import DecisionClosed, DecisionOpened, TaskAdded, TaskChanged, Trigger
from ..model import Usage, format_duration
from ..version import __version__
from .text import agent_of, clip, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..core.view import RunState, RunView
    from ..events import Transition
    from ..model import Decision

__all__ = ["JSON_VERSION", "JsonPrinter", "PlainPrinter", "iso", "plain_line", "status_document"]

JSON_VERSION = 1
_LONGEST = 300
_PROGRESS_SECONDS = 1.0
"""A chatty agent is told of once in this time."""


def iso(at: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- for people ----------------------------------------------------------------------------------


def plain_line(change: Transition, view: RunView, since: float) -> str | None:
    """A transition as one line, with the time since ``since``; ``None`` for what is not worth one."""
    said = _say(change, view)
    if said is None:
        return None
    return f"[+{format_duration(round(max(0.0, change.at - since)))}] {clip(said, _LONGEST)}"


def _say(change: Transition, view: RunView) -> str | None:
    match change:
        case TaskChanged():
            return _say_change(change, view)
        case DecisionOpened(decision=decision):
            options = "".join(f" [{n}] {one_line(option)}" for n, option in enumerate(decision.options, 1))
            answer = "NUMBER" if decision.options else "ANSWER"
            question = f"decision {decision.id}: {one_line(decision.question)}{options}"
            return f"{question} (agentful decide {decision.id} {answer})"
        case DecisionClosed(answer=""):
            return f"decision {change.decision_id} needs no answer any more"
        case DecisionClosed():
            return f"decided {change.decision_id}: {one_line(change.answer)}"
        case TaskAdded():
            return None


def _say_change(change: TaskChanged, view: RunView) -> str | None:
    record = view.records[change.task_id]
    who = f"{one_line(change.task_id)} {agent_of(record.task)}"
    detail = change.detail
    why = str(change.reason).replace("_", " ") if change.reason is not None else ""
    if detail is not None and detail.message:
        why = f"{why}: {one_line(detail.message)}" if why else one_line(detail.message)
    match change.trigger:
        case Trigger.STARTED:
            return f"start {who}" + (f", attempt {change.attempt}" if change.attempt > 1 else "")
        case Trigger.LANDED:
            commit = f" {detail.commit[:9]}" if detail is not None and detail.commit else ""
            files = len(record.paths)
            return f"done {who}{commit}, {files} file{'s' if files != 1 else ''}"
        case Trigger.DONE:
            return f"done {who}, nothing to land"
        case Trigger.RETRIED:
            wait = ""
            if detail is not None and detail.not_before is not None:
                wait = f" in {format_duration(max(0.0, detail.not_before - change.at))}"
            alone = " alone" if detail is not None and detail.alone else ""
            return f"retry {who}{wait}{alone} after {why}"
        case Trigger.GAVE_UP:
            return f"failed {who}: {why}"
        case Trigger.LOST:
            return f"lost {who}: {why}"
        case Trigger.INTERRUPTED:
            return f"stopped {who}; a resume runs it again"
        case Trigger.STOP_REQUESTED:
            return f"stopping {who}: {why}"
        case Trigger.CANCELLED:
            return f"cancelled {who}: {why}"
        case Trigger.NEED_FAILED | Trigger.DROPPED:
            return f"skipped {who}: {why}"
        case Trigger.REVIVED:
            return f"again {who}"
        case Trigger.HANDED_IN:
            return f"by hand {who}: its work is on the branch, and is checked"
        case _:
            return None


class PlainPrinter:
    """Prints one line for each transition that is worth one."""

    def __init__(self, view: RunView, since: float, write: Callable[[str], None]) -> None:
        self._view = view
        self._since = since
        self._write = write

    def __call__(self, changes: Sequence[Transition]) -> None:
        for change in changes:
            line = plain_line(change, self._view, self._since)
            if line is not None:
                self._write(line)


# --- for scripts ---------------------------------------------------------------------------------


def status_document(
    view: RunView, *, run: str, branch: str, live: bool, title: str = "", state: RunState | None = None
) -> dict[str, Any]:
    """A run as ``agentful status --json`` prints it."""
    return {
        "version": JSON_VERSION,
        "run": run,
        "state": state or view.state(live=live),
        "branch": branch,
        "title": title,
        "tasks": [
            {
                "id": record.id,
                "agent": agent_of(record.task),
                "state": record.state.value,
                "reason": record.reason and record.reason.value,
                "message": record.message,
                "attempts": record.attempt,
                "commit": record.commit,
                "started_at": iso(record.started_at),
                "finished_at": iso(record.finished_at),
                "duration_ms": round(1000 * record.active),
                "usage": _usage(record.usage or Usage()),
            }
            for record in view.records.values()
        ],
        "decisions": [_decision(decision) for decision in view.decisions.values()],
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost": usage.cost,
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "id": decision.id,
        "question": decision.question,
        "options": list(decision.options),
        "blocking": list(decision.blocking),
        "status": "pending" if decision.open else "resolved",
        "context": decision.context,
        "answer": decision.answer,
        "asked_at": iso(decision.asked_at),
    }


class JsonPrinter:
    """Prints one JSON object a line: the version, then each change, at last the result.

    ``write`` takes a line without its end.
    """

    def __init__(self, view: RunView, write: Callable[[str], None]) -> None:
        self._view = view
        self._write = write
        self._told: dict[str, tuple[float, float | None]] = {}

    def begin(self, *, run: str, branch: str, base: str, title: str, at: float) -> None:
        """The first line."""
        self._print(
            type="version",
            version=JSON_VERSION,
            agentful=__version__,
            run=run,
            branch=branch,
            base=base,
            title=title,
            at=iso(at),
        )

    def __call__(self, changes: Sequence[Transition]) -> None:
        for change in changes:
            match change:
                case TaskAdded(task=task):
                    self._print(
                        type="task_added",
                        at=iso(change.at),
                        task=task.id,
                        agent=agent_of(task),
                        needs=task.needs,
                        title=task.title,
                    )
                case TaskChanged():
                    self._changed(change)
                case DecisionOpened(decision=decision):
                    self._print(type="decision", at=iso(change.at), **_decision(decision))
                case DecisionClosed():
                    answered = self._view.decisions[change.decision_id]
                    self._print(type="decision", at=iso(change.at), **_decision(answered))

    def _changed(self, change: TaskChanged) -> None:
        detail = change.detail
        self._print(
            type="task",
            at=iso(change.at),
            task=change.task_id,
            agent=agent_of(self._view.records[change.task_id].task),
            state=change.target.value,
            previous=change.source.value,
            trigger=change.trigger.value,
            reason=change.reason and change.reason.value,
            attempt=change.attempt,
            message=detail.message if detail is not None else "",
            commit=detail.commit if detail is not None else None,
            paths=detail.paths if detail is not None else (),
        )

    def progress(self, task_id: str, percentage: float | None, message: str, at: float) -> None:
        """What an agent says of itself: each new percentage, and what else it says once a second."""
        last, known = self._told.get(task_id, (float("-inf"), None))
        if at - last < _PROGRESS_SECONDS and (percentage is None or percentage == known):
            return
        self._told[task_id] = at, percentage
        self._print(type="progress", at=iso(at), task=task_id, percentage=percentage, message=message)

    def notice(self, message: str, at: float) -> None:
        """Something about the run that people should know."""
        self._print(type="notice", at=iso(at), message=message)

    def result(self, document: dict[str, Any], exit_code: int) -> None:
        """The last line: the run as ``status`` has it, and the exit code."""
        self._print(type="result", exit_code=exit_code, **document)

    def _print(self, **fields: Any) -> None:
        self._write(msgspec.json.encode(fields).decode())
