"""The scheduler: every change of a task's state is decided here, and nowhere else.

Rules:

1.  Events go in, steps come out. A step is what changed (transitions) and what is to be done
    (commands). The caller writes the transitions down before it carries out a command.
2.  A task goes from state to state only along ``TRANSITIONS``: a table of states and triggers, each
    with one target. A trigger is the outcome of an event ("the attempt failed and there will be
    another"), or of a state elsewhere ("the last need has landed").
3.  :meth:`Scheduler.evolve` is the only place that changes a record. It decides nothing, so restoring a
    journal is evolving its transitions, in order.
4.  The scheduler reads no clock. Time comes in on events and is never taken to run backwards;
    ``next_wakeup`` says when a :class:`~agentful.events.Tick` is wanted.
5.  The work for one event does not grow with the number of tasks, but with what the event touches:
    there is no scan over all tasks outside "cancel everything" and "retry".

This file is longer than the others on purpose: what may happen to a task can be read in one place.

A task holds its slot while it runs, and its scope and resources from its start until its work has
landed or it gave up, so that whatever overlaps starts on a base that has it.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from ..errors import InvalidTransition, PlanError
from ..events import (
    AdvanceBranch,
    AttemptAsked,
    AttemptFailed,
    AttemptLost,
    AttemptStopped,
    AttemptSucceeded,
    BranchMoved,
    CancelRequested,
    Command,
    DecisionAnswered,
    DecisionAsked,
    DecisionClosed,
    DecisionOpened,
    Detail,
    Interrupted,
    Landed,
    LandingLost,
    LandingPrepared,
    LandingRejected,
    Paused,
    PrepareLanding,
    RecoverAttempt,
    RetryRequested,
    SlotsChanged,
    StartAttempt,
    StopAttempt,
    StopLanding,
    TaskAdded,
    TaskChanged,
    TasksSubmitted,
    Tick,
    Transition,
    Trigger,
    Unpaused,
)
from ..model import Decision, Need, Options, Reason, State
from . import policy
from .admission import NO_CLAIM, Admission, Obstacle
from .conflicts import check_glob
from .record import TaskRecord, take_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..events import Event
    from ..model import Usage

__all__ = ["BY_HAND", "RETRY", "SIMPLIFY", "SKIP", "TRANSITIONS", "Obstacle", "Scheduler", "Step"]

TRANSITIONS: Mapping[State, Mapping[Trigger, State]] = {
    State.WAITING: {
        Trigger.NEEDS_MET: State.READY,
        Trigger.NEED_FAILED: State.SKIPPED,
        Trigger.ASKED: State.BLOCKED,
        Trigger.CANCELLED: State.CANCELLED,
    },
    State.READY: {
        Trigger.STARTED: State.RUNNING,
        Trigger.ASKED: State.BLOCKED,
        Trigger.CANCELLED: State.CANCELLED,
    },
    State.RUNNING: {
        Trigger.FINISHED: State.LANDING,
        Trigger.DONE: State.SUCCEEDED,
        Trigger.RETRIED: State.READY,
        Trigger.GAVE_UP: State.FAILED,
        Trigger.ASKED: State.BLOCKED,
        Trigger.LOST: State.READY,
        Trigger.STOP_REQUESTED: State.STOPPING,
    },
    State.STOPPING: {
        Trigger.FINISHED: State.LANDING,
        Trigger.DONE: State.SUCCEEDED,
        Trigger.RETRIED: State.READY,
        Trigger.GAVE_UP: State.FAILED,
        Trigger.ASKED: State.BLOCKED,
        Trigger.LOST: State.READY,
        Trigger.INTERRUPTED: State.READY,
        Trigger.CANCELLED: State.CANCELLED,
        Trigger.STOP_REQUESTED: State.STOPPING,
    },
    State.LANDING: {
        Trigger.PREPARED: State.LANDING,
        Trigger.BRANCH_MOVED: State.LANDING,
        Trigger.LOST: State.LANDING,
        Trigger.LANDED: State.SUCCEEDED,
        Trigger.RETRIED: State.READY,
        Trigger.GAVE_UP: State.FAILED,
        Trigger.ASKED: State.BLOCKED,
        Trigger.CANCELLED: State.CANCELLED,
    },
    State.BLOCKED: {
        Trigger.ANSWERED: State.WAITING,
        Trigger.HANDED_IN: State.LANDING,
        Trigger.DROPPED: State.SKIPPED,
        Trigger.NEED_FAILED: State.SKIPPED,
        Trigger.CANCELLED: State.CANCELLED,
    },
    State.SUCCEEDED: {},
    State.FAILED: {Trigger.REVIVED: State.WAITING},
    State.CANCELLED: {Trigger.REVIVED: State.WAITING},
    State.SKIPPED: {Trigger.REVIVED: State.WAITING},
}
"""What may follow what. ``docs/states.md`` is drawn from this."""

RETRY = "Try again"
SKIP = "Skip and continue"
BY_HAND = "Manual implementation"
SIMPLIFY = "Simplify requirements"
_FAILURE_OPTIONS = (RETRY, SKIP, BY_HAND, SIMPLIFY)

_MAX_LOST = 5
"""Attempts lost in a row before a fault that never ends is treated as a failure."""

# On Python 3.11 a member is looked up through its metaclass, at ten times the cost of a global; what is
# named here is asked for with every change.
_WAITING, _READY, _RUNNING, _STOPPING = State.WAITING, State.READY, State.RUNNING, State.STOPPING
_BLOCKED, _SUCCEEDED = State.BLOCKED, State.SUCCEEDED
_NEEDS_MET, _STARTED = Trigger.NEEDS_MET, Trigger.STARTED

_SETTLED = frozenset(state for state in State if state.settled)
_DEAD = _SETTLED - {State.SUCCEEDED}
_HOLDING = frozenset({State.RUNNING, State.STOPPING, State.LANDING})
_UNSTARTED = frozenset({State.WAITING, State.READY, State.BLOCKED})


class Step(Struct, frozen=True, gc=False):
    """The outcome of one event: what changed, to be written down; then what is to be done."""

    transitions: list[Transition]
    commands: list[Command]


class Scheduler:
    """Decides what happens next in one run.

    Parameters
    ----------
    options
        How to carry out the run. Not part of its story: a restored run may be given others.
    """

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self.slots = self.options.max_concurrency
        self.admission = Admission(self.options.conflicts)
        self.records: dict[str, TaskRecord] = {}
        self.decisions: dict[str, Decision] = {}
        self.paused = False
        self.interrupted = False
        self.unsettled = 0
        """How many tasks have not ended."""
        self._by_state: dict[State, dict[str, TaskRecord]] = {state: {} for state in State}
        # The queue of landings, in the order of finishing. It is emptied from its front, which a plain
        # dict searches for.
        self._by_state[State.LANDING] = OrderedDict()
        self._delayed: list[tuple[float, int, str]] = []
        self._deadlines: list[tuple[float, str, int]] = []
        self._run_deadline: float | None = None
        self._landing: str | None = None
        """Whose landing has an act under way."""
        self._abandoned = False
        """That act is of a landing that was cancelled: its answer says nothing any more."""
        self._recovering: dict[str, int] = {}
        """Attempts of an earlier process, whose end is being found out."""
        self._named: dict[str, list[str]] = {}
        """Decisions that name a task which has not come yet, by its id."""
        self._at = 0.0
        self._transitions: list[Transition] = []
        self._commands: list[Command] = []
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            TasksSubmitted: self._submitted,
            AttemptSucceeded: self._attempt_succeeded,
            AttemptFailed: self._attempt_failed,
            AttemptAsked: self._attempt_asked,
            AttemptStopped: self._attempt_stopped,
            AttemptLost: self._attempt_lost,
            LandingPrepared: self._prepared,
            LandingRejected: self._rejected,
            Landed: self._landed,
            BranchMoved: self._branch_moved,
            LandingLost: self._landing_lost,
            CancelRequested: self._cancel_requested,
            RetryRequested: self._retry_requested,
            DecisionAsked: self._asked,
            DecisionAnswered: self._answered,
            Paused: self._pause,
            Unpaused: self._unpause,
            Interrupted: self._interrupt,
            SlotsChanged: self._slots_changed,
            Tick: self._tick,
        }

    # --- restoring -----------------------------------------------------------------------------

    @classmethod
    def restore(cls, transitions: Iterable[Transition], options: Options | None = None) -> Scheduler:
        """The scheduler that had decided these transitions. Nothing is decided again."""
        scheduler = cls(options)
        for transition in transitions:
            scheduler.evolve(transition)
        policy.lengthen(list(scheduler.records.values()), scheduler.records)
        scheduler._reorder(scheduler._by_state[State.READY].values())
        return scheduler

    def recover(self, at: float) -> Step:
        """What to do first after a restore: find out how the attempts ended that were under way.

        A landing that was under way is issued again; both its acts are safe to do twice.
        """
        self._now(at)
        if self.options.timeout is not None and self.unsettled:
            self._run_deadline = self._at + self.options.timeout
        for state in (State.RUNNING, State.STOPPING):
            for record in self._by_state[state].values():
                self._recovering[record.id] = record.attempt
                self._commands.append(RecoverAttempt(record.id, record.task, record.attempt))
        prepared = (record for record in self._by_state[State.LANDING].values() if record.onto is not None)
        first = next(prepared, None)
        if first is not None:
            self._land(first)
        return self._step()

    # --- the one way in ------------------------------------------------------------------------

    def handle(self, event: Event) -> Step:
        """Decide what follows from ``event``.

        Raises :class:`PlanError`, before anything has changed, for tasks that cannot be added; and
        :class:`InvalidTransition` for a bug of ours.
        """
        return self.handle_all((event,))

    def handle_all(self, events: Iterable[Event]) -> Step:
        """Decide what follows from events that came together: on all of them, before anything starts.

        So a slot that one of them freed goes to the best of what they all made ready. Raises as
        :meth:`handle` does; what followed from the events before that one comes out with the next step.
        """
        for event in events:
            self._now(event.at)
            self._handlers[type(event)](event)
        return self._step()

    def evolve(self, transition: Transition) -> None:
        """Apply one transition. The only place where anything changes; it decides nothing."""
        self._now(transition.at)
        if type(transition) is TaskChanged:
            self._evolve_change(transition)
        elif type(transition) is TaskAdded:
            self._evolve_added(transition)
        elif type(transition) is DecisionOpened:
            decision = transition.decision
            self.decisions[decision.id] = decision
            for task_id in decision.blocking:
                if task_id in self.records:
                    self.records[task_id].decisions |= {decision.id}
                else:
                    self._named.setdefault(task_id, []).append(decision.id)
        elif type(transition) is DecisionClosed:
            closed = transition.close(self.decisions[transition.decision_id])
            self.decisions[closed.id] = closed
            take_answer(self.records, closed)

    # --- questions -----------------------------------------------------------------------------

    def count(self, state: State) -> int:
        return len(self._by_state[state])

    def in_state(self, state: State) -> list[TaskRecord]:
        """The records in ``state``, in the order in which they came into it."""
        return list(self._by_state[state].values())

    @property
    def busy(self) -> bool:
        """Whether an act is under way whose event is still to come."""
        return bool(self._by_state[State.RUNNING] or self._by_state[State.STOPPING] or self._landing)

    @property
    def finished(self) -> bool:
        """Whether every task has ended and nothing is under way."""
        return self.unsettled == 0 and self._landing is None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, and time alone starts nothing: somebody has to say something.

        The time of the whole run may still run out then.
        """
        if self.busy:
            return False
        if self.interrupted:
            return True
        if self.paused:
            return all(record.decisions for record in self._by_state[State.LANDING].values())
        return self._next_delay() is None

    @property
    def next_wakeup(self) -> float | None:
        """When a ``Tick`` is wanted, in seconds since the epoch."""
        while self._deadlines and not self._may_time_out(*self._deadlines[0][1:]):
            heappop(self._deadlines)
        times = [self._deadlines[0][0]] if self._deadlines else []
        delay = self._next_delay()
        if delay is not None:
            times.append(delay)
        if self._run_deadline is not None and self.unsettled:
            times.append(self._run_deadline)
        return min(times, default=None)

    def _next_delay(self) -> float | None:
        while self._delayed and not self._is_delayed(self._delayed[0]):
            heappop(self._delayed)
        return self._delayed[0][0] if self._delayed else None

    def open_decisions(self) -> list[Decision]:
        return [decision for decision in self.decisions.values() if decision.open]

    def explain(self, task_id: str) -> list[Obstacle]:
        """What keeps this task from going on, the first thing first. Empty where nothing does."""
        record = self.records[task_id]
        found = [
            Obstacle(Need.DECISION, f"waits for the answer to {decision_id}", (decision_id,))
            for decision_id in sorted(record.decisions)
        ]
        if record.state is State.WAITING or record.state is State.BLOCKED:
            missing = tuple(n for n in record.task.needs if self.records[n].state is not State.SUCCEEDED)
            if missing:
                found.append(Obstacle(Need.NEEDS, f"needs {', '.join(missing)}", missing))
        elif record.state is State.LANDING:
            if record.not_before is not None and record.not_before > self._at:
                found.append(Obstacle(Need.DELAY, f"lands again in {record.not_before - self._at:.0f} s"))
            if self.interrupted:
                found.append(Obstacle(Need.PAUSED, "it lands when the run is resumed"))
            elif self._landing not in (None, task_id):
                found.append(
                    Obstacle(Need.QUEUE, f"waits for {self._landing} to land", (str(self._landing),))
                )
        elif record.state is State.READY:
            found += self._explain_ready(record)
        return found

    def _explain_ready(self, record: TaskRecord) -> list[Obstacle]:
        if record.not_before is not None and record.not_before > self._at:
            return [Obstacle(Need.DELAY, f"starts again in {record.not_before - self._at:.0f} s")]
        if self.paused:
            return [Obstacle(Need.PAUSED, "nothing new is started")]
        blocked = self.admission.blocker(self.admission.claim(record))
        if blocked is not None:
            return [blocked]
        running = self.count(State.RUNNING) + self.count(State.STOPPING)
        if running >= self.slots:
            return [Obstacle(Need.SLOT, f"all {self.slots} slots are in use")]
        return []

    def check(self) -> None:
        """Verify what must hold between any two events. For tests; raises ``AssertionError``."""
        seen = 0
        for state, records in self._by_state.items():
            seen += len(records)
            for record in records.values():
                assert record.state is state, record.tell()
        assert seen == len(self.records)
        assert self.unsettled == sum(not r.state.settled for r in self.records.values())
        holding = {i for state in _HOLDING for i in self._by_state[state]}
        assert set(self.admission.holders) == holding, (self.admission.holders, holding)
        for record in self.records.values():
            unmet = sum(self.records[n].state is not State.SUCCEEDED for n in record.task.needs)
            assert record.unmet == unmet, record.tell()
            if record.state in (State.RUNNING, State.STOPPING, State.LANDING, State.READY):
                assert unmet == 0, record.tell()
            opened = {d.id for d in self.open_decisions() if record.id in d.blocking}
            assert record.decisions == opened, record.tell()
            if record.state is State.BLOCKED:
                assert record.decisions, record.tell()
        self.admission.check()

    # --- evolving ------------------------------------------------------------------------------

    def _evolve_added(self, added: TaskAdded) -> None:
        task = added.task
        record = TaskRecord(task, len(self.records), added.at)
        self.records[task.id] = record
        self._by_state[_WAITING][task.id] = record
        self.unsettled += 1
        for need in task.needs:
            before = self.records[need]
            before.dependents.append(record)
            if before.state is not _SUCCEEDED:
                record.unmet += 1
        record.tail = policy.duration(task)
        if task.id in self._named:
            named = self._named.pop(task.id)
            record.decisions = frozenset(d for d in named if self.decisions[d].open)

    def _evolve_change(self, change: TaskChanged) -> None:
        record = self.records[change.task_id]
        source, target = record.state, change.target
        if TRANSITIONS[source].get(change.trigger) is not target or source is not change.source:
            raise InvalidTransition(
                f"{change.source} --{change.trigger}--> {target} is not allowed from {source}; "
                f"this is a bug in agentful. The story of the task:\n{record.tell()}"
            )
        self._apply(record, change)

    def _apply(self, record: TaskRecord, change: TaskChanged) -> None:
        """Apply a change that the table allows."""
        source, target, task_id = change.source, change.target, change.task_id
        record.apply(change)
        if source is target:
            if record.not_before is not None:
                heappush(self._delayed, (record.not_before, record.index, task_id))
            return
        del self._by_state[source][task_id]
        self._by_state[target][task_id] = record
        if target in _SETTLED:
            self.unsettled -= 1
            if target is _SUCCEEDED:
                for dependent in record.dependents:
                    dependent.unmet -= 1
        elif source in _SETTLED:
            self.unsettled += 1
        if target in _HOLDING:
            if source is _BLOCKED:
                # Work that a person did on the branch: nothing runs that could get in another's way.
                self.admission.hold(task_id, NO_CLAIM)
            elif source not in _HOLDING:
                self.admission.hold(task_id, self.admission.claim(record))
        elif source in _HOLDING:
            self.admission.release(task_id)
        if target is _READY:
            self._enqueue(record)
        elif target is _RUNNING:
            timeout = record.task.timeout
            if timeout is None:
                timeout = self.options.task_timeout
            if timeout is not None:
                heappush(self._deadlines, (change.at + timeout, task_id, record.attempt))

    # --- starting and landing --------------------------------------------------------------------

    def _enqueue(self, record: TaskRecord) -> None:
        if record.not_before is not None and record.not_before > self._at:
            heappush(self._delayed, (record.not_before, record.index, record.task.id))
            record.ticket = None
        else:
            self.admission.add(record)

    def _reorder(self, records: Iterable[TaskRecord]) -> None:
        """Offer these anew where they are on offer: what their place is reckoned from has changed."""
        for record in records:
            if record.state is State.READY and record.ticket is not None:
                self.admission.add(record)

    def _fill(self) -> None:
        """Start what may start, and land what may land."""
        while self._delayed and self._delayed[0][0] <= self._at:
            entry = heappop(self._delayed)
            record = self.records[entry[2]]
            if record.state is State.READY and self._is_delayed(entry):
                self._enqueue(record)
        running, stopping = self._by_state[_RUNNING], self._by_state[_STOPPING]
        while not self.paused and len(running) + len(stopping) < self.slots and not self._one_by_one():
            ready = self.admission.next()
            if ready is None:
                break
            self._start(ready)
        if self._landing is None and not self.interrupted:
            self._next_landing()

    def _one_by_one(self) -> bool:
        """Whether the next start waits for work to land, so that what follows starts from it."""
        if not self.options.sequential:
            return False
        return any(not record.decisions for record in self._by_state[State.LANDING].values())

    def _start(self, record: TaskRecord) -> None:
        attempt = record.attempt + 1
        self._change(record, _STARTED, attempt=attempt)
        task = record.task
        timeout = self.options.task_timeout if task.timeout is None else task.timeout
        before = [self.records[need] for need in task.needs]
        needs = tuple([(need.task.id, need.summary, dict(need.outputs)) for need in before])
        self._commands.append(
            StartAttempt(
                task.id,
                task,
                attempt,
                record.failures,
                record.answers,
                needs,
                None if timeout is None else self._at + timeout,
            )
        )

    def _next_landing(self) -> None:
        for record in self._by_state[State.LANDING].values():
            if not record.decisions and (record.not_before is None or record.not_before <= self._at):
                self._land(record)
                break

    def _land(self, record: TaskRecord) -> None:
        self._landing = record.id
        if record.onto is not None and record.prepared is not None:
            self._commands.append(AdvanceBranch(record.id, record.prepared, record.onto))
        else:
            commit = "" if record.by_hand else record.commit or ""
            self._commands.append(PrepareLanding(record.id, record.task, record.attempt, commit))

    # --- deciding --------------------------------------------------------------------------------

    def _now(self, at: float) -> None:
        if at > self._at:
            self._at = at

    def _step(self) -> Step:
        self._fill()
        step = Step(self._transitions, self._commands)
        self._transitions = []
        self._commands = []
        return step

    def _emit(self, transition: Transition) -> None:
        self.evolve(transition)
        self._transitions.append(transition)

    def _change(
        self,
        record: TaskRecord,
        trigger: Trigger,
        *,
        reason: Reason | None = None,
        detail: Detail | None = None,
        attempt: int | None = None,
    ) -> None:
        source = record.state
        target = TRANSITIONS[source].get(trigger)
        if target is None:
            raise InvalidTransition(
                f"{trigger} in state {source}: this is a bug in agentful. The story of the task:\n"
                f"{record.tell()}"
            )
        change = TaskChanged(
            self._at,
            record.task.id,
            trigger,
            source,
            target,
            record.attempt if attempt is None else attempt,
            reason,
            detail,
        )
        self._apply(record, change)
        self._transitions.append(change)
        if record.decisions and target in _SETTLED:
            self._close_decisions(record)
        if target is _SUCCEEDED:
            for dependent in record.dependents:
                if dependent.unmet == 0 and dependent.state is _WAITING:
                    self._change(dependent, _NEEDS_MET)
        elif target is _WAITING and record.unmet == 0:
            self._change(record, _NEEDS_MET)
        elif target is _READY and record.decisions:
            self._block(record)

    def _block(self, record: TaskRecord) -> None:
        """Have a task wait for the first of the decisions that name it."""
        question = next(self.decisions[d].question for d in sorted(record.decisions))
        self._change(record, Trigger.ASKED, reason=Reason.DECISION, detail=Detail(message=question))

    def _close_decisions(self, record: TaskRecord) -> None:
        """A task has ended: what was asked on its account needs no answer any more."""
        for decision_id in sorted(record.decisions):
            decision = self.decisions[decision_id]
            ended = all(self.records[i].state in _SETTLED for i in decision.blocking if i in self.records)
            if decision.open and decision.kind != "ask" and ended:
                self._emit(DecisionClosed(self._at, decision_id, ""))

    def _attempt_is(self, task_id: str, attempt: int) -> bool:
        """Whether this attempt is under way: an answer that comes too late is not believed."""
        record = self.records.get(task_id)
        return (
            record is not None
            and record.attempt == attempt
            and (record.state is _RUNNING or record.state is _STOPPING)
        )

    def _may_time_out(self, task_id: str, attempt: int) -> bool:
        return self._attempt_is(task_id, attempt) and self._recovering.get(task_id) != attempt

    def _is_delayed(self, entry: tuple[float, int, str]) -> bool:
        record = self.records[entry[2]]
        if record.not_before != entry[0]:
            return False
        if record.state is State.READY:
            return record.ticket is None
        return record.state is State.LANDING and self._landing != record.id

    def _submitted(self, event: TasksSubmitted) -> None:
        new: set[str] = set()
        for task in event.tasks:
            if not task.id or task.id in self.records or task.id in new:
                raise PlanError(f"there is a task {task.id!r} already; ids are given once")
            for need in task.needs:
                if need not in self.records and need not in new:
                    raise PlanError(f"task {task.id!r} needs {need!r}, which was not submitted before it")
            for glob in task.writes or ():
                check_glob(glob)
            new.add(task.id)
        if self._run_deadline is None:
            self._start_clock()
        added: list[TaskRecord] = []
        for task in event.tasks:
            self._emit(TaskAdded(self._at, task))
            added.append(self.records[task.id])
        self._reorder(policy.lengthen(added, self.records))
        for record in added:
            if record.state is not _WAITING:
                continue
            dead = next((n for n in record.task.needs if self._is_dead(n)), None) if record.unmet else None
            if dead is not None:
                self._skip(record, dead)
            elif record.decisions:
                self._block(record)
            elif record.unmet == 0:
                self._change(record, _NEEDS_MET)

    def _is_dead(self, task_id: str) -> bool:
        return self.records[task_id].state in _DEAD

    def _skip(self, record: TaskRecord, need: str) -> None:
        message = f"{need} {self.records[need].state}"
        self._change(record, Trigger.NEED_FAILED, reason=Reason.NEED_FAILED, detail=Detail(message=message))
        self._skip_dependents(record)

    def _skip_dependents(self, record: TaskRecord) -> None:
        """Skip everything that, directly or not, needs a task that ended without success."""
        pending = [record]
        while pending:
            dead = pending.pop()
            message = f"{dead.id} {dead.state}"
            for dependent in dead.dependents:
                if dependent.state is State.WAITING or dependent.state is State.BLOCKED:
                    self._change(
                        dependent,
                        Trigger.NEED_FAILED,
                        reason=Reason.NEED_FAILED,
                        detail=Detail(message=message),
                    )
                    pending.append(dependent)

    def _attempt_succeeded(self, event: AttemptSucceeded) -> None:
        if not self._attempt_is(event.task_id, event.attempt):
            return
        record = self.records[event.task_id]
        if record.state is _STOPPING and record.reason not in (Reason.TIMEOUT, Reason.INTERRUPTED):
            self._ended_stopping(record, event.commit, event.usage)
            return
        outside = event.out_of_scope
        if outside and self.options.scope == "fail":
            listed = ", ".join(outside[:5]) + (" ..." if len(outside) > 5 else "")
            self._failed(
                record,
                Reason.OUT_OF_SCOPE,
                Detail(
                    message=f"it wrote outside its scope: {listed}",
                    paths=event.paths,
                    out_of_scope=outside,
                    commit=event.commit,
                    usage=event.usage,
                ),
            )
            return
        detail = Detail(
            summary=event.summary,
            outputs=event.outputs,
            paths=event.paths,
            out_of_scope=outside,
            commit=event.commit,
            usage=event.usage,
        )
        if event.commit is None or record.task.reads_only or not event.paths:
            self._change(record, Trigger.DONE, detail=detail)
        else:
            self._change(record, Trigger.FINISHED, detail=detail)

    def _attempt_failed(self, event: AttemptFailed) -> None:
        if not self._attempt_is(event.task_id, event.attempt):
            return
        record = self.records[event.task_id]
        if record.state is State.STOPPING:
            self._ended_stopping(record, event.commit, event.usage)
            return
        self._failed(
            record,
            event.reason,
            Detail(
                message=event.message,
                detail=event.detail,
                paths=event.paths,
                commit=event.commit,
                usage=event.usage,
            ),
        )

    def _attempt_stopped(self, event: AttemptStopped) -> None:
        if not self._attempt_is(event.task_id, event.attempt):
            return
        record = self.records[event.task_id]
        if record.state is State.STOPPING:
            self._ended_stopping(record, event.commit, event.usage)
        else:
            # Stopped by something that is not us, such as the end of the loop it ran on.
            self._lost(record, "the attempt was stopped from outside", event.commit, event.usage)

    def _ended_stopping(self, record: TaskRecord, commit: str | None, usage: Usage | None) -> None:
        """An attempt that was told to stop has ended, well or not."""
        reason = record.reason
        if reason is Reason.INTERRUPTED:
            detail = Detail(commit=commit, usage=usage)
            self._change(record, Trigger.INTERRUPTED, reason=reason, detail=detail)
        elif reason is Reason.TIMEOUT:
            timeout = self.options.task_timeout if record.task.timeout is None else record.task.timeout
            message = "its time was up" if timeout is None else f"it did not end within {timeout:g} s"
            self._failed(record, reason, Detail(message=message, commit=commit, usage=usage))
        else:
            self._change(
                record,
                Trigger.CANCELLED,
                reason=reason or Reason.CANCELLED,
                detail=Detail(commit=commit, usage=usage),
            )
            self._skip_dependents(record)

    def _attempt_asked(self, event: AttemptAsked) -> None:
        if not self._attempt_is(event.task_id, event.attempt):
            return
        record = self.records[event.task_id]
        if record.state is State.STOPPING and record.reason not in (Reason.TIMEOUT, Reason.INTERRUPTED):
            self._ended_stopping(record, event.commit, event.usage)
            return
        decision = Decision(
            id=self._decision_id(),
            question=event.question,
            options=event.options,
            blocking=(record.id,),
            context=f"asked by {record.task.agent or record.id} in attempt {event.attempt}",
            kind="question",
            asked_at=self._at,
        )
        self._emit(DecisionOpened(self._at, decision))
        self._change(
            record,
            Trigger.ASKED,
            reason=Reason.QUESTION,
            detail=Detail(message=event.question, commit=event.commit, usage=event.usage),
        )

    def _attempt_lost(self, event: AttemptLost) -> None:
        if not self._attempt_is(event.task_id, event.attempt):
            return
        record = self.records[event.task_id]
        if record.state is State.STOPPING and record.reason is not Reason.TIMEOUT:
            self._ended_stopping(record, event.commit, None)
        elif self._recovering.get(record.id) == record.attempt:
            # A crash or a stop of ours, which somebody saw and resumed from: no fault that may stay.
            detail = Detail(message=event.message, commit=event.commit)
            self._change(record, Trigger.LOST, reason=Reason.INTERRUPTED, detail=detail)
        else:
            self._lost(record, event.message, event.commit)

    def _lost(self, record: TaskRecord, message: str, commit: str | None, usage: Usage | None = None) -> None:
        """Its machine failed it. That uses up no attempt, but a fault that stays ends it all the same."""
        if record.lost + 1 >= _MAX_LOST:
            text = f"lost {record.lost + 1} times in a row: {message}"
            self._give_up(record, Reason.LOST, Detail(message=text, commit=commit, usage=usage))
            return
        delay = policy.backoff(self.options.retry_delay, record.lost + 1) if record.lost else 0.0
        not_before = self._at + delay if delay else None
        detail = Detail(message=message, commit=commit, usage=usage, not_before=not_before)
        self._change(record, Trigger.LOST, reason=Reason.LOST, detail=detail)

    def _failed(self, record: TaskRecord, reason: Reason, detail: Detail) -> None:
        """A failure of the work itself: another attempt, or the end of it."""
        options = self.options
        retries = options.retries if record.task.retries is None else record.task.retries
        if reason is Reason.CONFLICT:
            again = record.conflicts < options.conflict_retries
            alone = record.conflicts + 1 >= options.conflict_retries
            delay = 0.0
        else:
            again = record.failed < retries
            alone = record.alone
            delay = policy.backoff(options.retry_delay, record.failed + 1)
        if not again:
            self._give_up(record, reason, detail)
            return
        detail = replace(detail, alone=alone, not_before=self._at + delay if delay else None)
        self._change(record, Trigger.RETRIED, reason=reason, detail=detail)

    def _give_up(self, record: TaskRecord, reason: Reason, detail: Detail) -> None:
        options = self.options
        policy_ = options.on_conflict if reason is Reason.CONFLICT else options.on_failure
        if policy_ == "decide":
            self._ask_how(record, reason, detail)
            return
        self._change(record, Trigger.GAVE_UP, reason=reason, detail=detail)
        self._skip_dependents(record)
        if options.fail_fast:
            self._cancel_all(Reason.FAIL_FAST)

    def _ask_how(self, record: TaskRecord, reason: Reason, detail: Detail) -> None:
        """Ask a person how to go on with a task that failed."""
        tries = f"{record.attempt} attempts" if record.attempt != 1 else "1 attempt"
        question = f"Task {record.id} failed after {tries} ({reason}). How to proceed?"
        context = f"{detail.message}\n{BY_HAND}: say so once you have committed it on the run's branch."
        self._open(question, _FAILURE_OPTIONS, record, "failure", context)
        self._change(record, Trigger.ASKED, reason=reason, detail=detail)

    def _open(
        self,
        question: str,
        options: tuple[str, ...],
        record: TaskRecord,
        kind: Literal["failure", "landing"],
        context: str = "",
    ) -> None:
        decision = Decision(
            id=self._decision_id(),
            question=question,
            options=options,
            blocking=(record.id,),
            context=context,
            kind=kind,
            asked_at=self._at,
        )
        self._emit(DecisionOpened(self._at, decision))

    def _prepared(self, event: LandingPrepared) -> None:
        record = self._landing_ended(event.task_id)
        if record is None:
            return
        self._landing = record.id
        self._change(record, Trigger.PREPARED, detail=Detail(commit=event.commit, onto=event.onto))
        self._commands.append(AdvanceBranch(record.id, event.commit, event.onto))

    def _landed(self, event: Landed) -> None:
        record = self._landing_ended(event.task_id)
        if record is not None:
            self._change(record, Trigger.LANDED, detail=Detail(commit=event.commit))

    def _rejected(self, event: LandingRejected) -> None:
        record = self._landing_ended(event.task_id)
        if record is not None:
            detail = Detail(
                message=event.message,
                detail=event.detail,
                paths=event.paths,
                other=event.other,
                commit=record.commit,
            )
            if record.by_hand:
                # Nobody but the person who did it can mend it.
                self._ask_how(record, event.reason, detail)
            else:
                self._failed(record, event.reason, detail)

    def _branch_moved(self, event: BranchMoved) -> None:
        record = self._landing_ended(event.task_id)
        if record is not None:
            self._change(record, Trigger.BRANCH_MOVED)

    def _landing_lost(self, event: LandingLost) -> None:
        record = self._landing_ended(event.task_id)
        if record is None:
            return
        if self.interrupted:
            self._change(record, Trigger.LOST, reason=Reason.INTERRUPTED)
        elif event.held:
            self._change(record, Trigger.LOST, reason=Reason.DECISION, detail=Detail(message=event.message))
            if not any(self.decisions[d].kind == "landing" for d in record.decisions):
                question = f"{record.id} is done, and cannot land: {event.message}"
                self._open(question, (RETRY,), record, "landing")
        elif record.lost + 1 >= _MAX_LOST:
            self._give_up(record, Reason.LOST, Detail(message=event.message, commit=record.commit))
        else:
            delay = policy.backoff(self.options.retry_delay, record.lost + 1)
            detail = Detail(message=event.message, not_before=self._at + delay)
            self._change(record, Trigger.LOST, reason=Reason.LOST, detail=detail)

    def _landing_ended(self, task_id: str) -> TaskRecord | None:
        """The queue is free again. The record, where this is the landing that it waits for."""
        if self._landing != task_id:
            return None
        abandoned, self._landing, self._abandoned = self._abandoned, None, False
        return None if abandoned else self.records[task_id]

    def _cancel_requested(self, event: CancelRequested) -> None:
        if event.task_ids is None:
            self._cancel_all(event.reason)
            return
        for task_id in event.task_ids:
            record = self.records.get(task_id)
            if record is not None:
                self._cancel(record, event.reason)

    def _cancel_all(self, reason: Reason) -> None:
        # What has not started goes first, so that a slot that falls free is not filled from it.
        for state in (
            State.WAITING,
            State.READY,
            State.BLOCKED,
            State.LANDING,
            State.RUNNING,
            State.STOPPING,
        ):
            if state is State.LANDING and reason is Reason.FAIL_FAST:
                continue  # done is done: what only has to land does so
            for record in list(self._by_state[state].values()):
                self._cancel(record, reason, cascade=False)

    def _cancel(self, record: TaskRecord, reason: Reason, *, cascade: bool = True) -> None:
        if record.state in _UNSTARTED:
            self._change(record, Trigger.CANCELLED, reason=reason)
        elif record.state is State.RUNNING:
            self._stop(record, reason)
            return
        elif record.state is State.STOPPING:
            if record.reason in (Reason.TIMEOUT, Reason.INTERRUPTED):
                # It is stopping already, and now for good.
                self._change(record, Trigger.STOP_REQUESTED, reason=reason)
            return
        elif record.state is State.LANDING and record.onto is None:
            if self._landing == record.id and not self._abandoned:
                self._abandoned = True
                self._commands.append(StopLanding(record.id))
            self._change(record, Trigger.CANCELLED, reason=reason)
        else:
            # It has ended, or its branch is moving at this moment: then it lands.
            return
        if cascade:
            self._skip_dependents(record)

    def _stop(self, record: TaskRecord, reason: Reason) -> None:
        self._change(record, Trigger.STOP_REQUESTED, reason=reason)
        self._commands.append(StopAttempt(record.id, record.attempt))

    def _retry_requested(self, event: RetryRequested) -> None:
        if self._run_deadline is None or not self.unsettled:
            self._start_clock()
        pending = [self.records[task_id] for task_id in event.task_ids if task_id in self.records]
        for record in pending:
            for decision_id in sorted(record.decisions):
                if self.decisions[decision_id].kind in ("failure", "landing"):
                    self._answered(DecisionAnswered(event.at, decision_id, RETRY))
        revived: dict[str, TaskRecord] = {}
        # Up: what was asked for, and what it needs.
        while pending:
            record = pending.pop()
            if record.id not in revived and self._is_dead(record.id):
                revived[record.id] = record
                pending += [self.records[need] for need in record.task.needs]
        # Down: what was skipped because of these, and because of nothing else.
        pending = list(revived.values())
        while pending:
            for dependent in pending.pop().dependents:
                if dependent.reason is Reason.NEED_FAILED and dependent.id not in revived:
                    needs = dependent.task.needs
                    if all(need in revived or not self._is_dead(need) for need in needs):
                        revived[dependent.id] = dependent
                        pending.append(dependent)
        # In the order of submission, so that what is needed is revived before what needs it.
        for record in sorted(revived.values(), key=lambda r: r.index):
            self._change(record, Trigger.REVIVED)

    def _start_clock(self) -> None:
        if self.options.timeout is not None:
            self._run_deadline = self._at + self.options.timeout

    def _asked(self, event: DecisionAsked) -> None:
        asked = event.decision
        if asked.id in self.decisions:
            return
        decision = replace(
            asked,
            id=asked.id or self._decision_id(),
            blocking=tuple(dict.fromkeys(asked.blocking)),
            asked_at=self._at,
            answer=None,
            answered_at=None,
        )
        self._emit(DecisionOpened(self._at, decision))
        for task_id in decision.blocking:
            record = self.records.get(task_id)
            if record is not None and record.state in (State.WAITING, State.READY):
                self._block(record)

    def _answered(self, event: DecisionAnswered) -> None:
        decision = self.decisions.get(event.decision_id)
        if decision is None or not decision.open:
            return
        self._emit(DecisionClosed(self._at, decision.id, event.answer))
        for task_id in decision.blocking:
            record = self.records.get(task_id)
            if record is None or record.state is not State.BLOCKED:
                continue
            answer = event.answer.strip().casefold()
            if decision.kind == "failure" and answer == SKIP.casefold():
                self._change(record, Trigger.DROPPED, reason=Reason.DROPPED)
                self._skip_dependents(record)
            elif decision.kind == "failure" and answer == BY_HAND.casefold():
                self._change(record, Trigger.HANDED_IN)
            elif not record.decisions:
                self._change(record, Trigger.ANSWERED)

    def _decision_id(self) -> str:
        number = len(self.decisions) + 1
        while f"d{number}" in self.decisions:
            number += 1
        return f"d{number}"

    def _pause(self, _event: Paused) -> None:
        self.paused = True

    def _unpause(self, _event: Unpaused) -> None:
        self.paused = self.interrupted = False

    def _interrupt(self, _event: Interrupted) -> None:
        self.paused = self.interrupted = True
        for record in list(self._by_state[State.RUNNING].values()):
            self._stop(record, Reason.INTERRUPTED)
        if self._landing is not None and not self._abandoned and self.records[self._landing].onto is None:
            self._commands.append(StopLanding(self._landing))

    def _slots_changed(self, event: SlotsChanged) -> None:
        self.slots = max(0, event.slots)

    def _tick(self, _event: Tick) -> None:
        now = self._at
        if self._run_deadline is not None and now >= self._run_deadline:
            self._run_deadline = None
            self._cancel_all(Reason.RUN_TIMEOUT)
        while self._deadlines and self._deadlines[0][0] <= now:
            _, task_id, attempt = heappop(self._deadlines)
            if self._may_time_out(task_id, attempt):
                record = self.records[task_id]
                if record.state is State.RUNNING:
                    self._stop(record, Reason.TIMEOUT)
