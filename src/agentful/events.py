"""What happened (Event), what to do (Command), what changed (Transition).

An event comes from outside, with the time it happened at; the scheduler reads no clock. A command is
an act for the runtime, which answers each with exactly one event, also when the act fails. A transition
is what was decided: it is written down before any command of the same step is carried out, and
restoring a run is applying its transitions again, in order, which decides nothing.

The names of these types and of their fields are in journals on disk: they are API.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from .model import Answer, Decision, Failure, Reason, State, Task, Usage

# --- events: what happened -----------------------------------------------------------------------


class Event(Struct, frozen=True):
    """Something that happened, at ``at`` seconds since the epoch."""

    at: float


class TasksSubmitted(Event, frozen=True):
    """Tasks with their final ids, each needing only tasks known before or in the same event."""

    tasks: tuple[Task, ...]


class AttemptSucceeded(Event, frozen=True):
    """An attempt ended well: its agent says so, and it changed something or was not meant to."""

    task_id: str
    attempt: int
    commit: str | None = None
    """The pinned commit of what it left; ``None`` where there is nothing to land."""
    paths: tuple[str, ...] = ()
    """What it changed."""
    out_of_scope: tuple[str, ...] = ()
    """The part of that which its declared scope does not cover."""
    summary: str = ""
    outputs: dict[str, Any] = {}
    usage: Usage = Usage()


class AttemptFailed(Event, frozen=True):
    """An attempt ended without success."""

    task_id: str
    attempt: int
    reason: Reason
    message: str
    detail: str = ""
    commit: str | None = None
    """The pinned commit of what it had done so far, if anything."""
    paths: tuple[str, ...] = ()
    usage: Usage = Usage()


class AttemptAsked(Event, frozen=True):
    """An attempt ended with a question for a person. Its slot is free again."""

    task_id: str
    attempt: int
    question: str
    options: tuple[str, ...] = ()
    commit: str | None = None
    usage: Usage = Usage()


class AttemptStopped(Event, frozen=True):
    """An attempt ended because it was told to; its processes are gone, its work is pinned."""

    task_id: str
    attempt: int
    commit: str | None = None
    usage: Usage = Usage()


class AttemptLost(Event, frozen=True):
    """An attempt went away through no fault of its own: our crash, a full disk, a dead machine."""

    task_id: str
    attempt: int
    message: str
    commit: str | None = None


class LandingPrepared(Event, frozen=True):
    """The work is merged onto ``onto``, aside, and the merged tree passed its checks."""

    task_id: str
    commit: str
    """The commit to land: its tree is exactly the tree that was checked."""
    onto: str
    """The tip that it was merged onto."""


class LandingRejected(Event, frozen=True):
    """The work does not merge, or what it merged to does not pass."""

    task_id: str
    reason: Reason
    """``conflict`` or ``checks_failed``."""
    message: str
    detail: str = ""
    paths: tuple[str, ...] = ()
    other: str | None = None


class Landed(Event, frozen=True):
    """The integration branch has the work."""

    task_id: str
    commit: str


class BranchMoved(Event, frozen=True):
    """The branch was not where the landing had been prepared for: prepare it again."""

    task_id: str


class LandingLost(Event, frozen=True):
    """The landing could not be carried out, through no fault of the work."""

    task_id: str
    message: str
    held: bool = False
    """Trying again does not help before a person has done something, which the message says."""


class CancelRequested(Event, frozen=True):
    """Cancel these tasks; all that have not ended, where ``task_ids`` is ``None``."""

    task_ids: tuple[str, ...] | None = None
    reason: Reason = Reason.CANCELLED


class RetryRequested(Event, frozen=True):
    """Run these settled tasks again, with fresh attempts; and what was skipped because of them. For one
    that waits for a person after a failure, this is the answer."""

    task_ids: tuple[str, ...]


class DecisionAsked(Event, frozen=True):
    """A question was put. ``decision.id`` is empty where the scheduler is to give one."""

    decision: Decision


class DecisionAnswered(Event, frozen=True):
    decision_id: str
    answer: str


class Paused(Event, frozen=True):
    """Start nothing new. What runs goes on, and lands."""


class Unpaused(Event, frozen=True):
    """Start again what may start."""


class Interrupted(Event, frozen=True):
    """Stop what runs, keeping it to be run again at a resume, and start nothing new."""


class SlotsChanged(Event, frozen=True):
    """There are now ``slots`` slots. Nothing that runs is stopped for it."""

    slots: int


class Tick(Event, frozen=True):
    """Time went by: at or after ``Scheduler.next_wakeup``."""


# --- commands: what to do -------------------------------------------------------------------------


class Command(Struct, frozen=True):
    task_id: str


class StartAttempt(Command, frozen=True):
    """Run one attempt, to be answered by one ``Attempt...`` event."""

    task: Task
    attempt: int
    failures: tuple[Failure, ...] = ()
    """What went wrong before, oldest first: context for the prompt."""
    answers: tuple[Answer, ...] = ()
    needs: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    """Id, summary and outputs of each task that it needs."""
    deadline: float | None = None
    """When its time is up, for the agent to know; the scheduler sends the stop."""


class StopAttempt(Command, frozen=True):
    """Stop it and all its processes. The attempt's own event is the answer; this has none."""

    attempt: int


class RecoverAttempt(Command, frozen=True):
    """After a restart: end what is left of this attempt and say how it had ended.

    Answered as ``StartAttempt`` is: by what its pinned commit says, else ``AttemptLost``.
    """

    task: Task
    attempt: int


class PrepareLanding(Command, frozen=True):
    """Merge the pinned work onto the tip, aside, and check it.

    Answered by ``LandingPrepared``, ``LandingRejected``, or ``LandingLost``; by ``Landed`` where the
    branch has it already.
    """

    task: Task
    attempt: int
    commit: str
    """The pinned work; empty for work that a person did on the branch itself: check the tip as it is."""


class AdvanceBranch(Command, frozen=True):
    """Move the branch from ``onto`` to ``commit``, if it is still at ``onto``.

    Answered by ``Landed`` (also where the branch had it already), ``BranchMoved``, or ``LandingLost``.
    Safe to carry out twice.
    """

    commit: str
    onto: str


class StopLanding(Command, frozen=True):
    """Stop the checks of the landing under way. The landing's own event is the answer."""


# --- transitions: what changed --------------------------------------------------------------------


class Trigger(StrEnum):
    """What moves a task from one state to the next: the labels of the table in ``core/scheduler.py``."""

    SUBMITTED = "submitted"
    NEEDS_MET = "needs_met"
    NEED_FAILED = "need_failed"
    STARTED = "started"
    FINISHED = "finished"
    """The attempt ended well, and its work goes to the landing."""
    DONE = "done"
    """The attempt ended well, and there is nothing to land."""
    RETRIED = "retried"
    """The attempt, or the landing, failed; there will be another."""
    GAVE_UP = "gave_up"
    """It failed, and there will be no other."""
    LOST = "lost"
    ASKED = "asked"
    """A decision was opened on it."""
    ANSWERED = "answered"
    """Its decisions are answered, and it goes on."""
    DROPPED = "dropped"
    """A person decided to go on without it."""
    HANDED_IN = "handed_in"
    """A person did it by hand, on the branch."""
    STOP_REQUESTED = "stop_requested"
    INTERRUPTED = "interrupted"
    """It was stopped with the run, and is to run again at the resume."""
    PREPARED = "prepared"
    """Merged and checked; the branch is about to move. This is written before it does."""
    BRANCH_MOVED = "branch_moved"
    LANDED = "landed"
    CANCELLED = "cancelled"
    REVIVED = "revived"
    """A person asked for it to be run again."""


class Detail(Struct, frozen=True, gc=False, omit_defaults=True):
    """What else there is to know of a change; most changes have none of it."""

    message: str = ""
    detail: str = ""
    paths: tuple[str, ...] = ()
    out_of_scope: tuple[str, ...] = ()
    other: str | None = None
    commit: str | None = None
    onto: str | None = None
    summary: str = ""
    outputs: dict[str, Any] = {}
    usage: Usage | None = None
    not_before: float | None = None
    """A retry starts no earlier than this."""
    alone: bool = False
    """The next attempt runs with nothing else running."""
    answer: Answer | None = None


class TaskAdded(Struct, frozen=True, gc=False, tag="added"):
    """A task was submitted, and waits."""

    at: float
    task: Task


class TaskChanged(Struct, frozen=True, gc=False, tag="changed", omit_defaults=True):
    """A task went from one state to another; ``attempt`` is the number of its latest attempt."""

    at: float
    task_id: str
    trigger: Trigger
    source: State
    target: State
    attempt: int = 0
    reason: Reason | None = None
    detail: Detail | None = None


class DecisionOpened(Struct, frozen=True, gc=False, tag="decision"):
    at: float
    decision: Decision


class DecisionClosed(Struct, frozen=True, gc=False, tag="decided"):
    at: float
    decision_id: str
    answer: str

    def close(self, decision: Decision) -> Decision:
        """The decision with this answer."""
        return replace(decision, answer=self.answer, answered_at=self.at)


Transition = TaskAdded | TaskChanged | DecisionOpened | DecisionClosed
