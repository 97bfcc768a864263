"""A run in virtual time, without an engine: what the tests of the core share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentful.core.admission import NO_CLAIM, Claim
from agentful.core.conflicts import scopes_overlap
from agentful.core.record import TaskRecord
from agentful.core.scheduler import TRANSITIONS, Scheduler, Step
from agentful.core.view import RunView
from agentful.events import (
    AdvanceBranch,
    AttemptAsked,
    AttemptFailed,
    AttemptLost,
    AttemptStopped,
    AttemptSucceeded,
    BranchMoved,
    CancelRequested,
    DecisionAnswered,
    DecisionAsked,
    Landed,
    LandingLost,
    LandingPrepared,
    LandingRejected,
    PrepareLanding,
    RecoverAttempt,
    RetryRequested,
    StartAttempt,
    StopAttempt,
    StopLanding,
    TaskChanged,
    TasksSubmitted,
    Tick,
    Trigger,
)
from agentful.model import Decision, Options, Reason, State, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentful.events import Event, Transition

START = 1_000_000.0
ATTEMPT_EVENTS = (AttemptSucceeded, AttemptFailed, AttemptAsked, AttemptStopped, AttemptLost)
LANDING_EVENTS = (LandingPrepared, LandingRejected, Landed, BranchMoved, LandingLost)

_NOT_JOURNALLED = (
    "paused",
    "interrupted",
    "slots",
    "_at",
    "_landing",
    "_abandoned",
    "_recovering",
    "_run_deadline",
)
_OWN = frozenset({"dependents", "decisions", "tail", "ticket", "unmet"})
"""What the scheduler keeps in a record for itself, and a view does not."""


def dump_record(record: TaskRecord, *, without: Iterable[str] = ()) -> dict[str, Any]:
    """All that a record says, to be compared."""
    left_out = {"ticket", *without}
    said = {name: getattr(record, name) for name in TaskRecord.__slots__ if name not in left_out}
    if "dependents" in said:
        said["dependents"] = [dependent.id for dependent in record.dependents]
    if record.state is State.SUCCEEDED:
        said.pop("tail", None)  # its place among the ready ones is past
    return said


def dump(scheduler: Scheduler) -> dict[str, Any]:
    """All that a journal has to give back: no more and no less than what decides what comes next."""
    return {
        "records": {i: dump_record(r) for i, r in scheduler.records.items()},
        "states": {state: [r.id for r in scheduler.in_state(state)] for state in State},
        "holders": list(scheduler.admission.holders.items()),
        "decisions": scheduler.decisions,
        "unsettled": scheduler.unsettled,
    }


def twin_of(scheduler: Scheduler, log: list[Transition]) -> Scheduler:
    """The same scheduler made from its journal, given what no journal holds."""
    twin = Scheduler.restore(log, scheduler.options)
    for name in _NOT_JOURNALLED:
        setattr(twin, name, getattr(scheduler, name))
    twin._recovering = dict(scheduler._recovering)
    return twin


def excludes(claim: Claim, held: Claim) -> bool:
    """Whether two tasks with these claims may not run at once: said without lanes or parking."""
    return bool(
        claim.alone
        or held.alone
        or set(claim.resources) & set(held.resources)
        or scopes_overlap(claim.writes, held.writes)
    )


class Play:
    """A scheduler, the transitions so far, and the acts that it waits for.

    Every event goes through :meth:`send`, which verifies what has to hold after any event; so does a
    test that only plays, and asserts nothing itself.
    """

    def __init__(self, options: Options | None = None, **changed: Any) -> None:
        self.options = options or Options(**changed)
        self.scheduler = Scheduler(self.options)
        self.log: list[Transition] = []
        self.view = RunView()
        self.now = START
        self.attempts: dict[str, StartAttempt | RecoverAttempt] = {}
        self.landing: PrepareLanding | AdvanceBranch | None = None
        self.landing_since = 0
        """How long the story of its task was when it was asked for."""
        self.landed: list[tuple[str, str]] = []
        self.loose_holders: set[str] = set()
        """Who runs since a time when other options allowed what these do not."""

    # --- the way in ------------------------------------------------------------------------------

    def send(self, *events: Event) -> Step:
        """Handle one event, or several that came in one turn, and verify."""
        twin = twin_of(self.scheduler, self.log)
        cancelled = self._cancelled_landing()
        step = self.scheduler.handle_all(events)
        assert twin.handle_all(events) == step, "a restored scheduler decides otherwise"
        assert dump(twin) == dump(self.scheduler)
        answered = [event for event in events if self._answers(event)]
        if cancelled is not None and len(events) == 1 and self.landing is None:
            changes = [t for t in step.transitions if isinstance(t, TaskChanged)]
            assert cancelled not in [t.task_id for t in changes if t.source is State.LANDING]
        self.landed += [(event.task_id, event.commit) for event in answered if isinstance(event, Landed)]
        self._took(step, answered)
        return step

    def crash(self, options: Options | None = None) -> Step:
        """Everything but the journal is gone; somebody takes the run up again."""
        if options is not None:
            if self.options.conflicts == "optimistic" and options.conflicts == "avoid":
                self.loose_holders |= set(self.scheduler.admission.holders)
            self.options = options
        before = dump(self.scheduler)
        self.scheduler = Scheduler.restore(self.log, self.options)
        after = dump(self.scheduler)
        if self.options.conflicts == "optimistic":
            before.pop("holders"), after.pop("holders")
        elif not self.loose_holders:
            assert after == before
        self.attempts, self.landing = {}, None
        step = self.scheduler.recover(self.now)
        self._took(step)
        return step

    def _cancelled_landing(self) -> str | None:
        """Whose landing is under way though it was cancelled, and so may not change anything any more."""
        if self.landing is None:
            return None
        since = self.record(self.landing.task_id).story[self.landing_since :]
        return self.landing.task_id if any(c.target is State.CANCELLED for c in since) else None

    def _answers(self, event: Event) -> bool:
        """Whether an act under way is answered by this; then it has ended."""
        if isinstance(event, ATTEMPT_EVENTS):
            act = self.attempts.get(event.task_id)
            if act is not None and act.attempt == event.attempt:
                del self.attempts[event.task_id]
                return True
        if isinstance(event, LANDING_EVENTS) and self.landing and self.landing.task_id == event.task_id:
            self.landing = None
            return True
        return False

    def _took(self, step: Step, answered: Sequence[Event] = ()) -> None:
        ended = {getattr(event, "task_id", "") for event in answered}
        for command in step.commands:
            match command:
                case StartAttempt() | RecoverAttempt():
                    assert command.task_id not in self.attempts, "two attempts at once"
                    self.attempts[command.task_id] = command
                case PrepareLanding() | AdvanceBranch():
                    assert self.landing is None, "two landings at once"
                    self.landing = command
                    self.landing_since = len(self.record(command.task_id).story)
                case StopAttempt():
                    act = self.attempts.get(command.task_id)
                    assert command.task_id in ended or (act and act.attempt == command.attempt)
                case StopLanding():
                    landing = self.landing.task_id if self.landing else None
                    assert command.task_id in (landing, *ended)
                case _:
                    raise AssertionError(command)
        self.log += step.transitions
        for transition in step.transitions:
            self.view.apply(transition)
        self.verify(step)

    # --- what always holds -----------------------------------------------------------------------

    def verify(self, step: Step) -> None:
        scheduler = self.scheduler
        self.loose_holders &= set(scheduler.admission.holders)
        holders = scheduler.admission.holders
        if self.loose_holders:
            scheduler.admission.holders = dict.fromkeys(holders, NO_CLAIM)
        scheduler.check()
        scheduler.admission.holders = holders
        self._verify_acts()
        self._verify_stories(step)
        self._verify_admission(step)
        self._verify_waiting(step)
        self._verify_view()
        wakeup = scheduler.next_wakeup
        assert wakeup is None or not scheduler.finished

    def _verify_acts(self) -> None:
        scheduler = self.scheduler
        under_way = {r.id for s in (State.RUNNING, State.STOPPING) for r in scheduler.in_state(s)}
        assert set(self.attempts) == under_way
        landing = scheduler._landing
        assert (self.landing.task_id if self.landing else None) == landing
        assert scheduler.busy == bool(self.attempts or self.landing)
        assert scheduler.finished == (not self.landing and all(r.state.settled for r in self.records))
        prepared = {r.id for r in self.records if r.onto is not None}
        if isinstance(self.landing, AdvanceBranch):
            assert self.landing.task_id in prepared

    def _verify_stories(self, step: Step) -> None:
        for transition in step.transitions:
            if isinstance(transition, TaskChanged):
                assert TRANSITIONS[transition.source][transition.trigger] is transition.target
        for task_id in {t.task_id for t in step.transitions if isinstance(t, TaskChanged)}:
            record = scheduler_record(self.scheduler, task_id)
            state = State.WAITING
            for change in record.story:
                assert change.source is state, record.tell()
                assert change.trigger is not Trigger.STARTED or change.attempt >= 1
                state = change.target
            assert state is record.state
            attempts = [c.attempt for c in record.story if c.trigger is Trigger.STARTED]
            assert attempts == list(range(1, len(attempts) + 1)), record.tell()
            succeeded = [i for i, c in enumerate(record.story) if c.target is State.SUCCEEDED]
            assert not succeeded or succeeded == [len(record.story) - 1], record.tell()

    def _verify_admission(self, step: Step) -> None:
        scheduler = self.scheduler
        holders = dict(scheduler.admission.holders)
        holding = (State.RUNNING, State.STOPPING, State.LANDING)
        assert set(holders) == {r.id for state in holding for r in scheduler.in_state(state)}
        started = [
            scheduler.records[t.task_id]
            for t in step.transitions
            if isinstance(t, TaskChanged) and t.trigger is Trigger.STARTED
        ]
        running = scheduler.count(State.RUNNING) + scheduler.count(State.STOPPING)
        if started:
            assert running <= scheduler.slots
            assert not scheduler.paused
        for record in started:
            assert all(scheduler.records[n].state is State.SUCCEEDED for n in record.task.needs)
        ready = [r for r in scheduler.in_state(State.READY) if not self._delayed(r)]
        claims = {r.id: scheduler.admission.claim(r) for r in ready}
        if not scheduler.paused and running < scheduler.slots:
            for record in ready:
                blocked = any(excludes(claims[record.id], held) for held in holders.values())
                assert blocked, f"{record.id} could start, and does not\n{record.tell()}"
                assert scheduler.explain(record.id)
        # Who was started was the best of those that could be.
        for record in reversed(started):
            del holders[record.id]
            for other in ready:
                if scheduler_key(other) < scheduler_key(record):
                    assert any(excludes(claims[other.id], held) for held in holders.values()), (
                        f"{record.id} was started before {other.id}"
                    )

    def _verify_waiting(self, step: Step) -> None:
        """What has to wait does, for a person or for its time; and nothing else waits to land."""
        scheduler = self.scheduler
        named = {task_id for decision in scheduler.open_decisions() for task_id in decision.blocking}
        for command in step.commands:
            if isinstance(command, StartAttempt | PrepareLanding):
                assert command.task_id not in named
                *_, last = [c for c in self.record(command.task_id).story if c.trigger is not Trigger.STARTED]
                if last.detail is not None and last.detail.not_before is not None:
                    assert last.detail.not_before <= scheduler._at
            if isinstance(command, PrepareLanding):
                assert not scheduler.interrupted
                *_, came = [c for c in self.record(command.task_id).story if c.source is not State.LANDING]
                pinned = "" if came.detail is None else came.detail.commit
                assert command.commit == ("" if came.trigger is Trigger.HANDED_IN else pinned)
        if not self.landing and not scheduler.interrupted:
            for record in scheduler.in_state(State.LANDING):
                assert record.id in named or self._delayed(record)

    def _verify_timeouts(self) -> None:
        """After a tick, nothing runs on whose time is up."""
        for record in self.scheduler.in_state(State.RUNNING):
            timeout = self.options.task_timeout if record.task.timeout is None else record.task.timeout
            recovering = isinstance(self.attempts[record.id], RecoverAttempt)
            if timeout is not None and not recovering:
                assert record.since + timeout > self.now or record.since == self.now
        due = self.scheduler._run_deadline
        assert due is None or due > self.now or not self.scheduler.unsettled

    def _delayed(self, record: TaskRecord) -> bool:
        return record.not_before is not None and record.not_before > self.scheduler._at

    def _verify_view(self) -> None:
        view = self.view
        assert list(view.records) == list(self.scheduler.records)
        assert view.decisions == self.scheduler.decisions
        for state in State:
            assert view.counts[state] == self.scheduler.count(state)
        for record in self.records:
            seen = dump_record(view.records[record.id], without=_OWN)
            assert seen == dump_record(record, without=_OWN)
            assert view.missing(view.records[record.id]) == [
                n for n in record.task.needs if self.scheduler.records[n].state is not State.SUCCEEDED
            ]

    # --- short forms -----------------------------------------------------------------------------

    def idle(self) -> bool:
        return self.scheduler.idle

    def wakeup(self) -> float | None:
        return self.scheduler.next_wakeup

    @property
    def records(self) -> list[TaskRecord]:
        return list(self.scheduler.records.values())

    def record(self, task_id: str) -> TaskRecord:
        return self.scheduler.records[task_id]

    def state(self, task_id: str) -> State:
        return self.scheduler.records[task_id].state

    def states(self) -> dict[str, str]:
        return {r.id: str(r.state) for r in self.records}

    def submit(self, *tasks: Task) -> Step:
        return self.send(TasksSubmitted(self.now, tasks))

    def finish(self, task_id: str, **said: Any) -> Step:
        attempt = self.record(task_id).attempt
        said.setdefault("commit", f"{task_id}-{attempt}")
        said.setdefault("paths", (f"{task_id}.txt",))
        return self.send(AttemptSucceeded(self.now, task_id, attempt, **said))

    def fail(
        self, task_id: str, reason: Reason = Reason.AGENT_FAILED, message: str = "no", **said: Any
    ) -> Step:
        return self.send(
            AttemptFailed(self.now, task_id, self.record(task_id).attempt, reason, message, **said)
        )

    def ask(self, task_id: str, question: str = "which?", **said: Any) -> Step:
        return self.send(AttemptAsked(self.now, task_id, self.record(task_id).attempt, question, **said))

    def stopped(self, task_id: str, **said: Any) -> Step:
        return self.send(AttemptStopped(self.now, task_id, self.record(task_id).attempt, **said))

    def lost(self, task_id: str, message: str = "gone", **said: Any) -> Step:
        return self.send(AttemptLost(self.now, task_id, self.record(task_id).attempt, message, **said))

    def prepared(self, task_id: str, commit: str = "", onto: str = "") -> Step:
        tip = self.landed[-1][1] if self.landed else "base"
        return self.send(LandingPrepared(self.now, task_id, commit or f"on-{tip}", onto or tip))

    def landed_(self, task_id: str, commit: str = "") -> Step:
        done = commit or (self.record(task_id).prepared or "there already")
        return self.send(Landed(self.now, task_id, done))

    def land(self, task_id: str) -> Step:
        self.prepared(task_id, commit=f"landed-{task_id}")
        return self.landed_(task_id)

    def rejected(
        self, task_id: str, reason: Reason = Reason.CONFLICT, message: str = "no", **said: Any
    ) -> Step:
        return self.send(LandingRejected(self.now, task_id, reason, message, **said))

    def moved(self, task_id: str) -> Step:
        return self.send(BranchMoved(self.now, task_id))

    def landing_lost(self, task_id: str, message: str = "gone", *, held: bool = False) -> Step:
        return self.send(LandingLost(self.now, task_id, message, held))

    def cancel(self, *task_ids: str, reason: Reason = Reason.CANCELLED) -> Step:
        return self.send(CancelRequested(self.now, task_ids or None, reason))

    def retry(self, *task_ids: str) -> Step:
        return self.send(RetryRequested(self.now, task_ids))

    def open(self, question: str = "how?", *, blocking: tuple[str, ...] = (), **said: Any) -> Step:
        return self.send(
            DecisionAsked(self.now, Decision(said.pop("id", ""), question, blocking=blocking, **said))
        )

    def answer(self, decision_id: str, answer: str = "yes") -> Step:
        return self.send(DecisionAnswered(self.now, decision_id, answer))

    def wait(self, seconds: float | None = None) -> list[Step]:
        """Let time go by, with a tick whenever one is wanted; until the next one where no time is given."""
        steps: list[Step] = []
        end = self.scheduler.next_wakeup if seconds is None else self.now + seconds
        assert end is not None, "it waits for nothing"
        while (at := self.scheduler.next_wakeup) is not None and at <= end:
            self.now = max(self.now, at)
            steps.append(self.send(Tick(self.now)))
            self._verify_timeouts()
            again = self.scheduler.next_wakeup
            settled = steps[-1].transitions or again is None or again > self.now
            assert settled, "a tick was wanted, and has settled nothing"
        self.now = max(self.now, end)
        return steps


def scheduler_record(scheduler: Scheduler, task_id: str) -> TaskRecord:
    return scheduler.records[task_id]


def scheduler_key(record: TaskRecord) -> tuple[int, float, int]:
    return (-record.task.priority, -record.tail, record.index)
