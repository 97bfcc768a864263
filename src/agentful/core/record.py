"""What is known of one task: the fold of its transitions.

The scheduler decides from these records, and every reader of a journal (the board, ``status``, the
state files) makes the same records from the same transitions, so they cannot disagree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..events import Detail, Trigger
from ..model import Answer, Failure, Reason, State, TaskResult, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..events import TaskChanged
    from ..model import Decision, Task

_ACTIVE = frozenset({State.RUNNING, State.STOPPING, State.LANDING})
_ASKED_OF_A_PERSON = frozenset({Reason.QUESTION, Reason.DECISION})
_NOTHING = Detail()
_NO_OUTPUTS: Mapping[str, Any] = {}
_NO_DECISIONS: frozenset[str] = frozenset()
_SETTLED = frozenset(state for state in State if state.settled)
_ENDED_WELL = frozenset({Trigger.FINISHED, Trigger.DONE})
_MAY_HAVE_MOVED = frozenset({Trigger.PREPARED, Trigger.LOST})

# On Python 3.11 a member is looked up through its metaclass, at ten times the cost of a global; what is
# named here is asked for with every change.
_NEEDS_MET, _STARTED = Trigger.NEEDS_MET, Trigger.STARTED


class TaskRecord:
    """One task's record. Only :meth:`apply` changes what the first block of fields says."""

    __slots__ = (
        "active",
        "alone",
        "answers",
        "attempt",
        "attempt_at",
        "by_hand",
        "commit",
        "conflicts",
        "decisions",
        "dependents",
        "detail",
        "failed",
        "failures",
        "finished_at",
        "index",
        "landed",
        "lost",
        "message",
        "not_before",
        "onto",
        "other",
        "out_of_scope",
        "outputs",
        "paths",
        "prepared",
        "reason",
        "since",
        "started_at",
        "state",
        "story",
        "submitted_at",
        "summary",
        "tail",
        "task",
        "ticket",
        "unmet",
        "usage",
    )

    def __init__(self, task: Task, index: int, at: float) -> None:
        self.task = task
        self.index = index
        """Its place in the order of submission."""
        self.state = State.WAITING
        self.reason: Reason | None = None
        self.attempt = 0
        """The number of its latest attempt; 0 before the first."""
        self.message = ""
        self.detail = ""
        self.summary = ""
        self.outputs: Mapping[str, Any] = _NO_OUTPUTS
        self.commit: str | None = None
        """The latest pinned commit; once it has landed, the landed one."""
        self.landed = False
        self.onto: str | None = None
        """The tip that the branch is about to be moved from, between "prepared" and "landed"."""
        self.prepared: str | None = None
        """The commit that it is about to be moved to."""
        self.by_hand = False
        """A person did the work, on the branch itself: what is to land is its tip."""
        self.paths: tuple[str, ...] = ()
        self.out_of_scope: tuple[str, ...] = ()
        self.other: str | None = None
        self.usage: Usage | None = None
        self.failures: tuple[Failure, ...] = ()
        self.answers: tuple[Answer, ...] = ()
        self.failed = 0
        """Failed attempts that count against ``retries``."""
        self.conflicts = 0
        self.lost = 0
        """Attempts or landings in a row that were lost; they count against nothing."""
        self.alone = False
        self.not_before: float | None = None
        self.submitted_at = at
        self.since = at
        """When it came into its present state."""
        self.started_at: float | None = None
        self.attempt_at: float | None = None
        """When its latest attempt started."""
        self.finished_at: float | None = None
        self.active = 0.0
        """Seconds that its attempts and landings took, up to ``since``."""
        self.story: tuple[TaskChanged, ...] = ()
        # What the scheduler keeps here of its own, so that it needs no second table of tasks.
        self.unmet = 0
        self.dependents: list[TaskRecord] = []
        self.decisions = _NO_DECISIONS
        self.tail = 0.0
        self.ticket: Any = None

    @property
    def id(self) -> str:
        return self.task.id

    def apply(self, change: TaskChanged) -> None:
        """Fold one change in."""
        detail = change.detail or _NOTHING
        trigger, before = change.trigger, self.reason
        if self.state in _ACTIVE and change.at > self.since:
            self.active += change.at - self.since
        self.state = change.target
        self.reason = change.reason
        self.attempt = change.attempt
        self.since = change.at
        self.finished_at = change.at if change.target in _SETTLED else None
        self.story += (change,)
        if trigger is _STARTED:
            self._start(change.at)
            return
        if detail is not _NOTHING:
            self._learn(change, detail)
        if trigger not in _MAY_HAVE_MOVED:
            # Where moving the branch was lost, nobody knows whether it moved: that stays to be found out.
            self.onto = self.prepared = None
        if trigger is _NEEDS_MET:
            return
        match trigger:
            case Trigger.FINISHED | Trigger.DONE:
                self.lost = 0
            case Trigger.RETRIED | Trigger.GAVE_UP:
                self._fail(change, detail)
            case Trigger.ASKED if change.reason not in _ASKED_OF_A_PERSON:
                self._fail(change, detail)
            case Trigger.LOST:
                if change.reason is Reason.LOST:
                    self.lost += 1
                self.not_before = detail.not_before
            case Trigger.PREPARED:
                self.onto, self.prepared = detail.onto, detail.commit
                self.not_before = None
            case Trigger.BRANCH_MOVED:
                self.not_before = None
            case Trigger.HANDED_IN:
                self.by_hand = True
                self.lost = 0
            case Trigger.LANDED:
                self.landed = True
                self.alone = False
                self.message = self.detail = ""
                self.other = None
            case Trigger.REVIVED:
                self._forgive()
            case Trigger.ANSWERED if before not in _ASKED_OF_A_PERSON:
                self._forgive()
            case _:
                pass

    def _start(self, at: float) -> None:
        """A new attempt: what the one before it left is in ``failures``, and its commit stays pinned."""
        self.attempt_at = at
        if self.started_at is None:
            self.started_at = at
        self.not_before = None
        self.by_hand = False
        self.message = self.detail = self.summary = ""
        self.outputs = _NO_OUTPUTS
        self.paths = self.out_of_scope = ()
        self.other = None

    def _fail(self, change: TaskChanged, detail: Detail) -> None:
        self.failures += (_failure(change, detail),)
        if change.reason is Reason.CONFLICT:
            self.conflicts += 1
        else:
            self.failed += 1
        self.lost = 0
        self.alone = detail.alone
        self.not_before = detail.not_before

    def _forgive(self) -> None:
        """A person wants it tried again: what went wrong stays known, and counts for nothing."""
        self.failed = self.conflicts = self.lost = 0
        self.alone = False
        self.not_before = None

    def _learn(self, change: TaskChanged, detail: Detail) -> None:
        if detail.message or change.reason is not None:
            self.message = detail.message
            self.detail = detail.detail
            self.other = detail.other
        if change.trigger in _ENDED_WELL:
            self.summary = detail.summary
            self.outputs = detail.outputs
            self.paths = detail.paths
            self.out_of_scope = detail.out_of_scope
            self.message = self.detail = ""
        else:
            self.paths = detail.paths or self.paths
            self.out_of_scope = detail.out_of_scope or self.out_of_scope
        if detail.commit is not None and change.trigger is not Trigger.PREPARED:
            self.commit = detail.commit
        if detail.usage is not None:
            self.usage = detail.usage if self.usage is None else self.usage + detail.usage

    def result(self) -> TaskResult:
        """What became of it, or is becoming of it."""
        return TaskResult(
            task=self.task,
            state=self.state,
            reason=self.reason,
            message=self.message,
            summary=self.summary,
            outputs=dict(self.outputs),
            commit=self.commit,
            attempts=self.attempt,
            paths=self.paths,
            other=self.other,
            detail=self.detail,
            usage=self.usage or Usage(),
            started_at=self.started_at,
            finished_at=self.finished_at,
            duration=self.active,
        )

    def tell(self) -> str:
        """Its story, a line for each change: for people, and for the report of a bug."""
        lines = [f"{self.id}: submitted"]
        for change in self.story:
            line = f"{self.id}: {change.source} --{change.trigger}--> {change.target}"
            if change.attempt:
                line += f" (attempt {change.attempt})"
            if change.reason is not None:
                line += f" [{change.reason}]"
            if change.detail is not None and change.detail.message:
                line += f" {change.detail.message}"
            lines.append(line)
        return "\n".join(lines)


def take_answer(records: Mapping[str, TaskRecord], decision: Decision) -> None:
    """Have the tasks that a decision names know its answer."""
    for task_id in decision.blocking:
        record = records.get(task_id)
        if record is not None and decision.answer is not None:
            record.decisions -= {decision.id}
            if not decision.answer or decision.kind == "landing":
                continue  # closed by the end of the task, or nothing that an agent should know
            record.answers += (Answer(decision.question, decision.answer),)


def _failure(change: TaskChanged, detail: Detail) -> Failure:
    return Failure(
        attempt=change.attempt,
        reason=change.reason or Reason.AGENT_FAILED,
        message=detail.message,
        detail=detail.detail,
        paths=detail.paths,
        other=detail.other,
        commit=detail.commit,
    )
