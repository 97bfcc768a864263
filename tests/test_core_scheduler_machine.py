"""Random walks over the scheduler: whatever comes in whatever order, what has to hold holds.

What holds after every event is in :meth:`coreutil.Play.verify`: among other things that a scheduler made
from the journal decides the same, that nothing overlaps, and that nothing waits that could start.
"""

from __future__ import annotations

import os
from typing import Any

from coreutil import Play
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentful.core.scheduler import BY_HAND, RETRY, SIMPLIFY, SKIP
from agentful.events import (
    AdvanceBranch,
    AttemptAsked,
    AttemptFailed,
    AttemptLost,
    AttemptStopped,
    AttemptSucceeded,
    BranchMoved,
    CancelRequested,
    Interrupted,
    Landed,
    LandingLost,
    LandingPrepared,
    LandingRejected,
    Paused,
    PrepareLanding,
    SlotsChanged,
    StartAttempt,
    Tick,
    Trigger,
    Unpaused,
)
from agentful.model import Options, Reason, State, Task, Usage

GLOBS = ("src/**", "src/api/**", "/src/api/a.py", "docs/**", "*.md", "src/ui/*")
PATHS = ("src/api/a.py", "src/ui/b.tsx", "docs/c.md", "odd {d,e} ")
ANSWERS = (RETRY, SKIP, BY_HAND, SIMPLIFY, "something else")

few_seconds = st.sampled_from([0.0, 1.0, 5.0, 30.0])
some_paths = st.lists(st.sampled_from(PATHS), max_size=2, unique=True).map(tuple)
usages = st.builds(Usage, st.none() | st.just(1), st.none() | st.just(2), st.none() | st.just(0.5))

all_options = st.builds(
    Options,
    max_concurrency=st.integers(1, 3),
    fail_fast=st.booleans(),
    conflicts=st.sampled_from(["avoid", "optimistic"]),
    retries=st.integers(0, 2),
    retry_delay=few_seconds,
    conflict_retries=st.integers(0, 2),
    timeout=st.none() | st.just(40.0),
    task_timeout=st.none() | st.just(8.0),
    scope=st.sampled_from(["warn", "fail"]),
    on_failure=st.sampled_from(["fail", "decide"]),
    on_conflict=st.sampled_from(["fail", "decide"]),
)


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.play = Play()
        self.tip = "c0"
        self.commits = 0
        self.on_branch: dict[str, str] = {}
        """By the task whose work it is, the commit that the branch really has of it."""
        self.uncertain: str | None = None
        """Who was told that moving the branch for it was lost, when the branch had moved."""
        self.ran: dict[str, int] = {}

    # --- drawing ---------------------------------------------------------------------------------

    def ids(self) -> list[str]:
        return list(self.play.scheduler.records)

    def some_ids(self, data: st.DataObject, *, most: int = 3) -> tuple[str, ...]:
        known = [*self.ids(), "nobody"]
        return tuple(data.draw(st.lists(st.sampled_from(known), max_size=most, unique=True)))

    def commit(self) -> str:
        self.commits += 1
        return f"c{self.commits}"

    # --- from outside ------------------------------------------------------------------------------

    @initialize(options=all_options)
    def begin(self, options: Options) -> None:
        self.play = Play(options)

    @precondition(lambda self: len(self.play.scheduler.records) < 14)
    @rule(data=st.data(), count=st.integers(1, 4))
    def submit(self, data: st.DataObject, count: int) -> None:
        known = self.ids()
        tasks: list[Task] = []
        for _ in range(count):
            task_id = f"t{len(known)}"
            needs = data.draw(st.lists(st.sampled_from(known), max_size=3)) if known else []
            tasks.append(
                Task(
                    "agent",
                    id=task_id,
                    needs=tuple(needs),
                    writes=data.draw(
                        st.none() | st.lists(st.sampled_from(GLOBS), max_size=2, unique=True).map(tuple)
                    ),
                    resources=data.draw(st.sampled_from([(), (), ("db",), ("port",), ("db", "port")])),
                    priority=data.draw(st.integers(0, 2)),
                    retries=data.draw(st.none() | st.integers(0, 1)),
                    timeout=data.draw(st.none() | st.sampled_from([0.0, 3.0, 10.0])),
                    estimate=data.draw(st.none() | st.sampled_from([0.0, 10.0, 900.0])),
                    reads_only=data.draw(st.booleans()),
                )
            )
            known.append(task_id)
        self.play.submit(*tasks)

    @rule(data=st.data(), all_of_them=st.integers(0, 9))
    def cancel(self, data: st.DataObject, all_of_them: int) -> None:
        ids = None if all_of_them == 0 else self.some_ids(data)
        self.play.send(CancelRequested(self.play.now, ids))

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        self.play.retry(*self.some_ids(data))

    @rule(data=st.data())
    def open_decision(self, data: st.DataObject) -> None:
        named = (*self.some_ids(data), f"t{len(self.ids())}")[: data.draw(st.integers(0, 4))]
        self.play.open("how?", id=data.draw(st.sampled_from(["", "", "d2"])), blocking=named)

    @precondition(lambda self: self.play.scheduler.decisions)
    @rule(data=st.data(), answer=st.sampled_from(ANSWERS))
    def answer_decision(self, data: st.DataObject, answer: str) -> None:
        decisions = self.play.scheduler.decisions
        decision_id = data.draw(st.sampled_from([*decisions, "d99"]))
        was_open = decision_id in decisions and decisions[decision_id].open
        step = self.play.answer(decision_id, answer)
        assert was_open or not step.transitions

    @rule(kind=st.sampled_from([Paused, Unpaused, Unpaused, Interrupted]))
    def pause(self, kind: type[Paused | Unpaused | Interrupted]) -> None:
        self.play.send(kind(self.play.now))
        if kind is Interrupted:
            assert not self.play.scheduler.count(State.RUNNING)

    @rule(slots=st.integers(0, 4))
    def change_slots(self, slots: int) -> None:
        self.play.send(SlotsChanged(self.play.now, slots))

    @rule(seconds=st.sampled_from([-5.0, 0.0, 0.5, 3.0, 50.0]), ticking=st.booleans())
    def let_time_pass(self, seconds: float, ticking: bool) -> None:
        if ticking and seconds >= 0:
            self.play.wait(seconds)
        else:
            self.play.now += seconds

    @precondition(lambda self: self.play.scheduler.next_wakeup is not None)
    @rule()
    def let_time_pass_until_a_tick_is_wanted(self) -> None:
        self.play.wait()

    @rule(options=all_options, moved=st.booleans())
    def crash(self, options: Options, moved: bool) -> None:
        """At any moment; also between moving the branch and hearing of it."""
        landing = self.play.landing
        if moved and isinstance(landing, AdvanceBranch) and landing.onto == self.tip:
            self.move(landing)
            self.uncertain = landing.task_id
        before = {r.id for r in self.play.scheduler.in_state(State.SUCCEEDED)}
        step = self.play.crash(options)
        assert before == {r.id for r in self.play.scheduler.in_state(State.SUCCEEDED)}
        for command in step.commands:
            assert command.task_id not in before

    # --- answers to acts -----------------------------------------------------------------------------

    @precondition(lambda self: self.play.attempts)
    @rule(
        data=st.data(),
        kind=st.sampled_from("ssssffflaap"),
        paths=some_paths,
        usage=usages,
        outside=st.integers(0, 5),
    )
    def attempt_ends(
        self, data: st.DataObject, kind: str, paths: tuple[str, ...], usage: Usage, outside: int
    ) -> None:
        act = self.play.attempts[data.draw(st.sampled_from(sorted(self.play.attempts)))]
        at, task_id, number = self.play.now, act.task_id, act.attempt
        commit = data.draw(st.none() | st.just(self.commit()))
        record = self.play.record(task_id)
        before = record.usage or Usage()
        match kind:
            case "s":
                out = paths[:1] if outside == 0 else ()
                self.play.send(
                    AttemptSucceeded(at, task_id, number, commit, paths, out, "did it", {"n": number}, usage)
                )
            case "f":
                reason = data.draw(st.sampled_from([Reason.AGENT_FAILED, Reason.NO_CHANGE]))
                self.play.send(
                    AttemptFailed(at, task_id, number, reason, "no", "output", commit, paths, usage)
                )
            case "a":
                self.play.send(AttemptAsked(at, task_id, number, "which?", ("x", "y"), commit, usage))
            case "p":
                self.play.send(AttemptStopped(at, task_id, number, commit, usage))
            case _:
                self.play.send(AttemptLost(at, task_id, number, "gone", commit))
                usage = Usage()
        assert (record.usage or Usage()) == before + usage
        assert commit is None or record.commit == commit or record.landed
        self.ran[task_id] = max(number, self.ran.get(task_id, 0))

    def move(self, act: AdvanceBranch) -> None:
        assert act.task_id not in self.on_branch, "landed twice"
        self.on_branch[act.task_id] = act.commit
        self.tip = act.commit

    @precondition(lambda self: self.play.landing is not None)
    @rule(data=st.data(), kind=st.sampled_from("aaaarlm"), paths=some_paths)
    def landing_ends(self, data: st.DataObject, kind: str, paths: tuple[str, ...]) -> None:
        act = self.play.landing
        at = self.play.now
        if isinstance(act, PrepareLanding):
            if kind == "l":
                self.play.send(LandingLost(at, act.task_id, "gone"))
            elif kind == "r":
                reason = data.draw(st.sampled_from([Reason.CONFLICT, Reason.CHECKS_FAILED]))
                self.play.send(LandingRejected(at, act.task_id, reason, "no", "hunks", paths, None))
            else:
                commit = self.commit() if act.commit else self.tip
                self.play.send(LandingPrepared(at, act.task_id, commit, self.tip))
            return
        assert isinstance(act, AdvanceBranch)
        if self.uncertain == act.task_id:
            self.uncertain = None
            self.play.send(Landed(at, act.task_id, act.commit))
        elif act.onto != self.tip:
            self.play.send(BranchMoved(at, act.task_id))
        elif kind == "m":
            self.tip = self.commit()  # somebody else moved it
            self.play.send(BranchMoved(at, act.task_id))
        elif kind == "l":
            if data.draw(st.booleans()):
                self.move(act)
                self.uncertain = act.task_id
            self.play.send(LandingLost(at, act.task_id, "gone"))
        else:
            self.move(act)
            self.play.send(Landed(at, act.task_id, act.commit))

    # --- wrong answers ---------------------------------------------------------------------------------

    @precondition(lambda self: self.play.scheduler.records)
    @rule(data=st.data(), kind=st.sampled_from("sfalp"), shift=st.integers(-2, 2))
    def attempt_answer_that_nobody_waits_for(self, data: st.DataObject, kind: str, shift: int) -> None:
        record = self.play.record(data.draw(st.sampled_from(self.ids())))
        number = record.attempt + shift
        act = self.play.attempts.get(record.id)
        if act is not None and act.attempt == number:
            return
        at = self.play.now
        event: Any = {
            "s": AttemptSucceeded(at, record.id, number, "x", ("x",)),
            "f": AttemptFailed(at, record.id, number, Reason.AGENT_FAILED, "no"),
            "a": AttemptAsked(at, record.id, number, "?"),
            "l": AttemptLost(at, record.id, number, "gone"),
            "p": AttemptStopped(at, record.id, number),
        }[kind]
        self.changes_nothing(record.id, event)

    @rule(data=st.data(), kind=st.sampled_from("prdml"))
    def landing_answer_that_nobody_waits_for(self, data: st.DataObject, kind: str) -> None:
        task_id = data.draw(st.sampled_from([*self.ids(), "nobody"]))
        if self.play.landing is not None and self.play.landing.task_id == task_id:
            return
        at = self.play.now
        event: Any = {
            "p": LandingPrepared(at, task_id, "x", self.tip),
            "r": LandingRejected(at, task_id, Reason.CONFLICT, "no"),
            "d": Landed(at, task_id, "x"),
            "m": BranchMoved(at, task_id),
            "l": LandingLost(at, task_id, "gone"),
        }[kind]
        self.changes_nothing(task_id, event)

    def changes_nothing(self, task_id: str, event: Any) -> None:
        record = self.play.scheduler.records.get(task_id)
        before = None if record is None else len(record.story)
        self.play.send(Tick(self.play.now))  # what time has brought is none of this event's doing
        before = None if record is None else len(record.story)
        step = self.play.send(event)
        assert step.transitions == []
        assert step.commands == []
        assert before == (None if record is None else len(record.story))

    # --- always ------------------------------------------------------------------------------------------

    @invariant()
    def what_the_branch_has_is_what_the_journal_says(self) -> None:
        for task_id, commit in self.on_branch.items():
            record = self.play.record(task_id)
            if self.uncertain == task_id:
                assert record.state is State.LANDING, record.tell()
                assert record.prepared == commit
            else:
                assert record.state is State.SUCCEEDED, record.tell()
                assert record.landed
                assert record.commit == commit
        for record in self.play.records:
            assert record.landed == (record.id in self.on_branch and record.id != self.uncertain)

    # --- and in the end ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Once everything goes well, everything comes to an end."""
        play = self.play
        play.send(Unpaused(play.now))
        play.send(SlotsChanged(play.now, 2))
        for _ in range(60 + 25 * len(play.scheduler.records)):
            if play.scheduler.finished and not play.scheduler.open_decisions():
                break
            self.one_good_thing()
        assert play.scheduler.finished, play.states()
        assert play.idle()
        assert play.wakeup() is None
        assert not play.scheduler.admission.holders
        assert play.view.state(live=True) in ("succeeded", "failed")
        assert play.view.done == play.view.total
        for record in play.records:
            started = [c for c in record.story if c.trigger is Trigger.STARTED]
            assert len(started) == record.attempt
            assert record.finished_at is not None
            result = record.result()
            assert result.ok == (result.error is None)
            if record.state is not State.SUCCEEDED:
                assert record.reason is not None, record.tell()

    def one_good_thing(self) -> None:
        play = self.play
        if play.landing is not None:
            self.land_well(play.landing)
        elif play.attempts:
            act = play.attempts[min(play.attempts)]
            if isinstance(act, StartAttempt):
                play.send(AttemptSucceeded(play.now, act.task_id, act.attempt, self.commit(), ("x",)))
            else:
                play.send(AttemptLost(play.now, act.task_id, act.attempt, "it was a crash"))
        elif decisions := play.scheduler.open_decisions():
            play.answer(decisions[0].id, RETRY)
        else:
            assert not play.idle(), play.states()
            play.wait()

    def land_well(self, act: PrepareLanding | AdvanceBranch) -> None:
        at = self.play.now
        if isinstance(act, PrepareLanding):
            commit = self.commit() if act.commit else self.tip
            self.play.send(LandingPrepared(at, act.task_id, commit, self.tip))
        elif self.uncertain == act.task_id:
            self.uncertain = None
            self.play.send(Landed(at, act.task_id, act.commit))
        elif act.onto != self.tip:
            self.play.send(BranchMoved(at, act.task_id))
        else:
            self.move(act)
            self.play.send(Landed(at, act.task_id, act.commit))


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=int(os.environ.get("AGENTFUL_EXAMPLES", "60")),
    stateful_step_count=50,
    deadline=None,
    report_multiple_bugs=False,
    derandomize="AGENTFUL_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
