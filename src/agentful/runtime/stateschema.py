"""What ``state.json``, ``completion.json`` and ``decisions.json`` say: written in one form, read in all.

The forms, where those in use contradict each other:

- ``state.json`` has the fields of a sequential run (``current_agent``, ``agent_history`` and so on) and
  of a parallel one (``active_agents``, ``agent_pool``), in both modes. It is not read back.
- ``completion.json`` has one feature for each task. One that is set to ``complete`` counts, in
  ``features`` or under its ``domains``.
- ``decisions.json`` has every decision in ``decisions`` with its ``status``, and once more in either
  ``pending`` or ``resolved``, for the readers that look there. An answer counts wherever it is filled
  in: as ``resolution`` or as ``answer``, in any of these lists or in ``resolved_history``.

Times are ISO 8601 in UTC, durations milliseconds. Nothing here does any I/O.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
from msgspec import Struct

from ..model import Decision, Reason, State
from .journal import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "DOCUMENTS",
    "StateInput",
    "TaskLine",
    "Unreadable",
    "completion",
    "decisions",
    "encode",
    "parse",
    "read_answers",
    "read_completed",
    "state",
]

SCHEMA = "1.0"


class Unreadable(Exception):
    """What stands there is not to be used; the message says why, to follow a file's name."""


class TaskLine(Struct, frozen=True, kw_only=True):
    """A task as these files show it. Times are seconds since the epoch, durations seconds."""

    id: str
    agent: str
    prompt: str
    state: State
    needs: tuple[str, ...] = ()
    priority: int = 0
    reason: Reason | None = None
    message: str = ""
    """Why it failed, or waits, in a line."""
    attempt: int = 0
    """The number of attempts that were started."""
    started_at: float | None = None
    finished_at: float | None = None
    duration: float | None = None
    """``None`` takes what lies between the two."""
    timeout: float | None = None
    progress: float | None = None
    """0 to 100; ``None`` where its agent gave no number."""
    subtasks: tuple[int, int] | None = None
    """How many are complete, of how many, where its agent has a list of its own."""


class StateInput(Struct, frozen=True, kw_only=True):
    """Everything that the files are made of."""

    run: str
    at: float
    mode: Literal["sequential", "parallel"]
    slots: int
    tasks: tuple[TaskLine, ...] = ()
    """In the order of submission."""
    decisions: tuple[Decision, ...] = ()
    queue: tuple[str, ...] = ()
    """Ids of tasks that wait, next first. Those left out follow by priority, then as submitted."""
    tests_passing: bool | None = None
    """Whether the integration branch passed its checks; ``None`` where none ran."""


# --- the documents, without their time stamps ------------------------------------------------------

_ACTIVE = frozenset({State.RUNNING, State.STOPPING, State.LANDING})
_QUEUED = frozenset({State.WAITING, State.READY, State.BLOCKED})

_FEATURE_STATUS = {
    State.WAITING: "pending",
    State.READY: "pending",
    State.RUNNING: "in_progress",
    State.STOPPING: "in_progress",
    State.LANDING: "in_progress",
    State.BLOCKED: "blocked",
    State.SUCCEEDED: "complete",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.SKIPPED: "skipped",
}


def state(source: StateInput) -> dict[str, Any]:
    """``state.json``. A task that lands is active, and holds no slot."""
    active = [task for task in source.tasks if task.state in _ACTIVE]
    active.sort(key=lambda task: task.started_at or 0.0)
    busy = sum(task.state is not State.LANDING for task in active)
    ended = [task for task in source.tasks if task.state.settled]
    ended.sort(key=lambda task: task.finished_at or 0.0)
    current = active[0] if active else None
    phase = "idle" if not active else "implementing" if busy else "validating"
    return {
        "version": SCHEMA,
        "initialized": True,
        "run": source.run,
        "execution_mode": source.mode,
        "parallel_mode": {"enabled": source.mode == "parallel", "max_concurrent": source.slots},
        "current_phase": phase,
        "current_task": current and current.prompt,
        "current_agent": current and current.agent,
        "agent_start_time": current and _time(current.started_at),
        "agent_timeout": current and _milliseconds(current.timeout),
        "iterations": sum(task.attempt for task in source.tasks),
        "blocked_on": [decision.id for decision in source.decisions if decision.open],
        "active_agents": [_active(task) for task in active],
        "agent_pool": {
            "max_concurrent": source.slots,
            "available_slots": max(0, source.slots - busy),
            "queue": [_queued(task) for task in _queue(source)],
        },
        "agent_history": [_history(task) for task in ended],
    }


def _queue(source: StateInput) -> list[TaskLine]:
    place = {task_id: number for number, task_id in enumerate(source.queue)}
    queued = [task for task in source.tasks if task.state in _QUEUED]
    return sorted(queued, key=lambda task: (place.get(task.id, len(place)), -task.priority))


def _active(task: TaskLine) -> dict[str, Any]:
    return {
        "id": task.id,
        "agent": task.agent,
        "task": task.prompt,
        "started_at": _time(task.started_at),
        "timeout": _milliseconds(task.timeout),
        "status": task.state.value,
        "attempt": task.attempt,
        "progress": _percent(task),
    }


def _queued(task: TaskLine) -> dict[str, Any]:
    return {
        "id": task.id,
        "agent": task.agent,
        "task": task.prompt,
        "dependencies": list(task.needs),
        "priority": task.priority,
        "status": task.state.value,
    }


def _history(task: TaskLine) -> dict[str, Any]:
    took = task.duration
    if took is None and task.started_at is not None and task.finished_at is not None:
        took = task.finished_at - task.started_at
    status = "completed" if task.state is State.SUCCEEDED else task.state.value
    if task.state is State.FAILED and task.reason in (Reason.TIMEOUT, Reason.RUN_TIMEOUT):
        status = "timeout"
    entry: dict[str, Any] = {
        "id": task.id,
        "agent": task.agent,
        "task": task.prompt,
        "started_at": _time(task.started_at),
        "completed_at": _time(task.finished_at),
        "duration_ms": _milliseconds(took),
        "status": status,
        "attempts": task.attempt,
    }
    if task.reason is not None:
        entry["reason"] = task.reason.value
    if task.message:
        entry["notes"] = task.message
    return entry


def completion(source: StateInput) -> dict[str, Any]:
    """``completion.json``: 100 is written only for what is complete."""
    features = {task.id: _feature(task) for task in source.tasks}
    done = sum(task.state is State.SUCCEEDED for task in source.tasks)
    total = len(source.tasks)
    return {
        "version": SCHEMA,
        "run": source.run,
        "features": features,
        "gates": {"tests_passing": source.tests_passing},
        "overall_progress": sum(map(_percent, source.tasks)) // total if total else 0,
        "features_complete": done,
        "features_total": total,
    }


def _feature(task: TaskLine) -> dict[str, Any]:
    complete, total = task.subtasks or (int(task.state is State.SUCCEEDED), 1)
    entry: dict[str, Any] = {
        "status": _FEATURE_STATUS[task.state],
        "progress": _percent(task),
        "subtasks_complete": complete,
        "subtasks_total": total,
        "agent": task.agent,
    }
    if task.reason is not None:
        entry["reason"] = task.reason.value
    return entry


def decisions(source: StateInput) -> dict[str, Any]:
    """``decisions.json``."""
    entries = [_decision(decision) for decision in source.decisions]
    return {
        "version": SCHEMA,
        "run": source.run,
        "decisions": entries,
        "pending": [entry for entry in entries if entry["status"] == "pending"],
        "resolved": [entry for entry in entries if entry["status"] == "resolved"],
    }


def _decision(decision: Decision) -> dict[str, Any]:
    asked = _time(decision.asked_at)
    return {
        "id": decision.id,
        "question": decision.question,
        "context": decision.context,
        "options": list(decision.options),
        "status": "pending" if decision.open else "resolved",
        "resolution": decision.answer,
        "blocking": list(decision.blocking),
        "timestamp": asked,
        "created_at": asked,
        "resolved_at": _time(decision.answered_at),
    }


def _percent(task: TaskLine) -> int:
    if task.state is State.SUCCEEDED:
        return 100
    return max(0, min(99, int(task.progress or 0)))


def _time(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


DOCUMENTS: dict[str, tuple[Callable[[StateInput], dict[str, Any]], tuple[str, ...]]] = {
    "state.json": (state, ("last_updated",)),
    "completion.json": (completion, ("last_updated",)),
    "decisions.json": (decisions, ("last_updated", "lastUpdated")),
}
"""Each file: what makes it, and the names under which its readers look for its time stamp."""


def encode(source: StateInput, name: str) -> tuple[bytes, bytes]:
    """A file's content for people to read, and what tells it from another but for its time stamp."""
    build, stamps = DOCUMENTS[name]
    document = build(source)
    stamped = _json(document | dict.fromkeys(stamps, _time(source.at)))
    return msgspec.json.format(stamped, indent=2) + b"\n", _json(document)


def _json(document: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        return msgspec.json.encode(plain(document))


# --- reading back what somebody has edited ----------------------------------------------------------

_COMPLETE_WORDS = frozenset({"complete", "completed", "done"})
_FEATURE_WORDS = _COMPLETE_WORDS | frozenset(_FEATURE_STATUS.values())
_CLOSED_WORDS = frozenset({"resolved", "answered", "closed", "done"})


def parse(data: bytes) -> dict[str, Any]:
    """The object in a file, as editors leave it. Raises :class:`Unreadable`."""
    try:
        document = _mapping(msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf")))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"is not JSON ({error})") from error
    if document is None:
        raise Unreadable("is not a JSON object")
    return document


def read_answers(document: dict[str, Any], source: StateInput | None) -> tuple[dict[str, str], list[str]]:
    """The answers in a ``decisions.json`` by decision, and what is wrong with others.

    With ``source``, answers to open decisions only, each one of its options. Without, whatever has an
    answer.
    """
    found: dict[str, list[str]] = {}
    unanswered: dict[str, None] = {}
    for decision_id, closed, answer in _decided(document):
        if answer is None:
            if closed:
                unanswered[decision_id] = None
        elif answer not in found.setdefault(decision_id, []):
            found[decision_id].append(answer)
    known = {decision.id: decision for decision in source.decisions} if source else None
    answers: dict[str, str] = {}
    problems = [
        f"{decision_id!r:.80} is resolved, but has no resolution"
        for decision_id in unanswered
        if decision_id not in found and not (known and decision_id in known and not known[decision_id].open)
    ]
    for decision_id, given in found.items():
        decision = known.get(decision_id) if known is not None else None
        if known is not None and decision is None:
            problems.append(f"there is no decision {decision_id!r:.80}")
        elif decision is not None and decision.answer is not None:
            if given != [decision.answer.strip()]:
                problems.append(f"{decision_id!r:.80} was decided already: {decision.answer!r:.80}")
        elif len(given) > 1:
            problems.append(f"{decision_id!r:.80} has two answers: {given[0]!r:.80} and {given[1]!r:.80}")
        elif (answer := _option(given[0], decision.options if decision else ())) is None:
            options = ", ".join(repr(option) for option in decision.options) if decision else ""
            problems.append(f"{given[0]!r:.80} is no answer to {decision_id!r:.80}; choose from {options}")
        else:
            answers[decision_id] = answer
    return answers, problems


def _decided(document: dict[str, Any]) -> Iterator[tuple[str, bool, str | None]]:
    """Id, whether it is said to be closed, and the answer, of everything listed as a decision."""
    for name in ("decisions", "pending", "resolved", "resolved_history"):
        for item in _items(document.get(name)):
            entry = _mapping(item)
            decision_id = _word(item if entry is None else entry.get("id"))
            if decision_id is None:
                continue
            entry = entry or {}
            answer = _word(entry.get("resolution")) or _word(entry.get("answer"))
            closed = (_word(entry.get("status")) or "").lower() in _CLOSED_WORDS
            yield decision_id, closed or name.startswith("resolved"), answer


def _option(answer: str, options: tuple[str, ...]) -> str | None:
    """The option that an answer means; any answer will do where there are none."""
    if not options or answer in options:
        return answer
    near = [option for option in options if option.strip().casefold() == answer.casefold()]
    return near[0] if len(near) == 1 else None


def read_completed(document: dict[str, Any], source: StateInput | None) -> tuple[list[str], list[str]]:
    """The ids of tasks that a ``completion.json`` has as complete, and what is wrong with others.

    With ``source``, only those that have not succeeded. Without, all of them.
    """
    known = {task.id: task.state for task in source.tasks} if source else None
    completed: dict[str, None] = {}
    problems: list[str] = []
    for task_id, status in _features(document):
        if known is not None and task_id not in known:
            problems.append(f"there is no task {task_id!r:.80} in this run")
        elif status not in _FEATURE_WORDS:
            words = ", ".join(sorted(set(_FEATURE_STATUS.values())))
            problems.append(f"{task_id!r:.80} has the status {status!r:.80}, which is none of {words}")
        elif status in _COMPLETE_WORDS and (known is None or known[task_id] is not State.SUCCEEDED):
            completed[task_id] = None
    return list(completed), problems


def _features(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Ids and statuses, also of features that stand under their domain."""
    groups = [("", _mapping(document.get("features")))]
    for domain, value in (_mapping(document.get("domains")) or {}).items():
        groups.append((f"{domain}/", _mapping((_mapping(value) or {}).get("features"))))
    for prefix, features in groups:
        for name, value in (features or {}).items():
            entry = _mapping(value)
            status = _word(value if entry is None else entry.get("status"))
            if status is not None:
                yield prefix + name, status.lower()


def _mapping(value: Any) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _items(value: Any) -> list[Any]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _word(value: Any) -> str | None:
    """Text, also where a number was written for it; ``None`` for nothing."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return msgspec.json.encode(value).decode()
    return None
