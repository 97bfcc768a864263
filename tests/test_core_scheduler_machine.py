"""Random walks over the scheduler: whatever comes in whatever order, what has to hold holds.

What holds after every event is in :meth:`coreutil.Play.verify`: among other things that a scheduler made
from the journal decides the same, that nothing overlaps, and that nothing waits that could start.
"""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agentful.core.scheduler import BY_HAND, RETRY, SIMPLIFY, SKIP, Step
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
    Interrupted,
    Landed,
    LandingLost,
    LandingPrepared,
    LandingRejected,
    Paused,
    PrepareLanding,
    RetryRequested,
    SlotsChanged,
    StartAttempt,
    Tick,
    Trigger,
    Unpaused,
)
from agentful.model import Decision, Options, Reason, State, Task, Usage
from coreutil import Play

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentful.events import Event

GLOBS = ("src/**", "src/api/**", "/src/api/a.py", "docs/**", "*.md", "src/ui/*")
PATHS = ("src/api/a.py", "src/ui/b.tsx", "docs/c.md", "odd {d,e} ")
MOST_TASKS = 14
ANSWERS = (RETRY, SKIP, BY_HAND, SIMPLIFY, "something else")


def some_options(rng: Random) -> Options:
    return Options(
        max_concurrency=rng.randint(1, 3),
        fail_fast=rng.random() < 0.2,
        conflicts=rng.choice(["avoid", "avoid", "optimistic"]),
        retries=rng.randint(0, 2),
        retry_delay=rng.choice([0.0, 1.0, 5.0, 30.0]),
        conflict_retries=rng.randint(0, 2),
        timeout=rng.choice([None, None, None, 200.0]),
        task_timeout=rng.choice([None, 8.0]),
        scope=rng.choice(["warn", "fail"]),
        on_failure=rng.choice(["fail", "decide"]),
        on_conflict=rng.choice(["fail", "decide"]),
    )


def some_task(rng: Random, known: list[str]) -> Task:
    return Task(
        "agent",
        id=f"t{len(known)}",
        needs=tuple(rng.choices(known, k=rng.choice([0, 0, 1, 2, 3])) if known else ()),
        writes=rng.choice([None, tuple(rng.sample(GLOBS, rng.randint(0, 2)))]),
        resources=rng.choice([(), (), ("db",), ("port",), ("db", "port")]),
        priority=rng.randint(0, 2),
        retries=rng.choice([None, 0, 1]),
        timeout=rng.choice([None, None, 0.0, 3.0, 20.0]),
        estimate=rng.choice([None, 0.0, 10.0, 900.0]),
        reads_only=rng.random() < 0.3,
    )


def some_paths(rng: Random) -> tuple[str, ...]:
    return tuple(rng.sample(PATHS, rng.choice([0, 1, 1, 2])))


class Walk:
    """A world in which anything may happen next: people, agents, branches, crashes."""

    def __init__(self, options: Options) -> None:
        self.play = Play(options)
        self.tip = "c0"
        self.commits = 0
        self.on_branch: dict[str, str] = {}
        """By the task whose work it is, the commit that the branch really has of it."""
        self.uncertain: set[str] = set()
        """Who was told that moving the branch for it was lost, when the branch had moved."""

    def ids(self) -> list[str]:
        return list(self.play.scheduler.records)

    def some_ids(self, rng: Random) -> tuple[str, ...]:
        known = [*self.ids(), "nobody"]
        return tuple(rng.sample(known, min(len(known), rng.randint(1, 3))))

    def commit(self) -> str:
        self.commits += 1
        return f"c{self.commits}"

    # --- from outside ------------------------------------------------------------------------------

    def submit(self, rng: Random) -> None:
        known = self.ids()
        tasks: list[Task] = []
        for _ in range(rng.randint(1, 4) if len(known) < MOST_TASKS else 0):
            tasks.append(some_task(rng, known))
            known.append(tasks[-1].id)
        self.play.submit(*tasks)

    def cancel_or_retry(self, rng: Random) -> None:
        if rng.random() < 0.7:
            self.play.retry(*self.some_ids(rng))
        else:
            ids = self.some_ids(rng) if rng.random() < 0.9 else None
            self.play.send(CancelRequested(self.play.now, ids))

    def open_decision(self, rng: Random) -> None:
        later = f"t{len(self.ids())}"
        named = rng.choice([(), self.some_ids(rng), self.some_ids(rng), (later, later)])
        self.play.open("how?", id=rng.choice(["", "", "d2"]), blocking=named)

    def answer_decision(self, rng: Random) -> None:
        known = self.play.scheduler.decisions
        opened = self.play.scheduler.open_decisions()
        if opened and rng.random() < 0.8:
            self.play.answer(rng.choice(opened).id, rng.choice(ANSWERS))
            return
        self.play.send(Tick(self.play.now))
        decision_id = rng.choice([*(i for i, decision in known.items() if not decision.open), "d99"])
        assert self.play.answer(decision_id, rng.choice(ANSWERS)) == Step([], [])

    def much_at_once(self, rng: Random) -> None:
        """Everything that is under way ends well in one turn, and somebody changes their mind in it."""
        play, at = self.play, self.play.now
        events: list[Event] = [
            AttemptSucceeded(at, act.task_id, act.attempt, self.commit(), some_paths(rng))
            for act in play.attempts.values()
        ]
        if isinstance(play.landing, PrepareLanding):
            commit = self.commit() if play.landing.commit else self.tip
            events.append(LandingPrepared(at, play.landing.task_id, commit, self.tip))
        ids = [*self.ids(), "nobody"]
        events.append(CancelRequested(at, (rng.choice(ids),)))
        events.append(RetryRequested(at, (rng.choice(ids),)))
        events.append(DecisionAsked(at, Decision("", "and?", blocking=(rng.choice(ids),))))
        events += [DecisionAnswered(at, d.id, rng.choice(ANSWERS)) for d in play.scheduler.open_decisions()]
        rng.shuffle(events)
        play.send(*events)

    def cancel_what_lands(self, rng: Random) -> None:
        """And have it run and finish again before the act of its landing has ended."""
        play = self.play
        if play.landing is not None:
            task_id = play.landing.task_id
            play.cancel(task_id)
            play.retry(task_id)
            act = play.attempts.get(task_id)
            if act is not None:
                commit, paths = self.commit(), some_paths(rng)
                play.send(AttemptSucceeded(play.now, task_id, act.attempt, commit, paths))

    def change_the_pace(self, rng: Random) -> None:
        kind = rng.choice([Paused, Interrupted, Unpaused, Unpaused, Unpaused, SlotsChanged, SlotsChanged])
        if kind is SlotsChanged:
            self.play.send(SlotsChanged(self.play.now, rng.randint(0, 4)))
        else:
            self.play.send(kind(self.play.now))
        if kind is Interrupted:
            assert not self.play.scheduler.count(State.RUNNING)

    def let_time_pass(self, rng: Random) -> None:
        seconds = rng.choice([None, None, 0.0, 0.5, 3.0, 50.0])
        if seconds is None:
            self.play.wait(None if self.play.wakeup() else 1.0)
        elif rng.random() < 0.5:
            self.play.wait(seconds)
        else:
            self.play.now += seconds - 2.0  # nobody ticks, and clocks are set back

    def crash(self, rng: Random) -> None:
        """At any moment; also between moving the branch and hearing of it."""
        act = self.play.landing
        if isinstance(act, AdvanceBranch) and act.onto == self.tip and rng.random() < 0.5:
            if act.task_id not in self.uncertain:
                self.move(act)
            self.uncertain.add(act.task_id)
        before = {r.id for r in self.play.scheduler.in_state(State.SUCCEEDED)}
        step = self.play.crash(some_options(rng))
        assert before == {r.id for r in self.play.scheduler.in_state(State.SUCCEEDED)}
        for command in step.commands:
            assert command.task_id not in before

    # --- answers to acts -----------------------------------------------------------------------------

    def go_on(self, rng: Random) -> None:
        """Some of what is under way ends, in one way or another, mostly well."""
        for _ in range(rng.randint(1, 8)):
            acts = [*sorted(self.play.attempts), *(["landing"] if self.play.landing else [])]
            if not acts:
                return
            act = rng.choice(acts)
            if act == "landing":
                self.landing_ends(rng)
            else:
                self.attempt_ends(rng, act)

    def attempt_ends(self, rng: Random, task_id: str) -> None:
        at, number = self.play.now, self.play.attempts[task_id].attempt
        commit = rng.choice([None, *[self.commit()] * 4])
        paths, usage = some_paths(rng), Usage(rng.choice([None, 1]), rng.choice([None, 2]), 0.5)
        record = self.play.record(task_id)
        before = record.usage or Usage()
        match rng.choice("sssssssffffaalp"):
            case "s":
                out = paths[:1] if rng.random() < 0.2 else ()
                self.play.send(
                    AttemptSucceeded(at, task_id, number, commit, paths, out, "did it", {"n": number}, usage)
                )
            case "f":
                reason = rng.choice([Reason.AGENT_FAILED, Reason.NO_CHANGE])
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
        assert commit is None or record.commit == commit

    def move(self, act: AdvanceBranch) -> None:
        assert act.task_id not in self.on_branch, "landed twice"
        self.on_branch[act.task_id] = act.commit
        self.tip = act.commit

    def landing_ends(self, rng: Random) -> None:
        act, at = self.play.landing, self.play.now
        kind = rng.choice("aaaarrrlhm")
        if isinstance(act, PrepareLanding):
            if kind in "lh":
                self.play.send(LandingLost(at, act.task_id, "gone", held=kind == "h"))
            elif kind == "r":
                reason = rng.choice([Reason.CONFLICT, Reason.CONFLICT, Reason.CHECKS_FAILED])
                self.play.send(LandingRejected(at, act.task_id, reason, "no", "hunks", some_paths(rng), None))
            else:
                commit = self.commit() if act.commit else self.tip
                self.play.send(LandingPrepared(at, act.task_id, commit, self.tip))
            return
        assert isinstance(act, AdvanceBranch)
        if act.task_id in self.uncertain:
            self.uncertain.remove(act.task_id)
            self.play.send(Landed(at, act.task_id, act.commit))
        elif act.onto != self.tip:
            self.play.send(BranchMoved(at, act.task_id))
        elif kind == "m":
            self.tip = self.commit()  # somebody else moved it
            self.play.send(BranchMoved(at, act.task_id))
        elif kind == "h":
            self.play.send(LandingLost(at, act.task_id, "it is checked out", held=True))
        elif kind == "l":
            if rng.random() < 0.5:
                self.move(act)
                self.uncertain.add(act.task_id)
            self.play.send(LandingLost(at, act.task_id, "gone"))
        else:
            self.move(act)
            self.play.send(Landed(at, act.task_id, act.commit))

    # --- wrong answers ---------------------------------------------------------------------------------

    def answers_that_nobody_waits_for(self, rng: Random) -> None:
        play, at = self.play, self.play.now
        play.send(Tick(at))  # what time has brought is none of their doing
        for task_id in (*self.ids(), "nobody"):
            record = play.scheduler.records.get(task_id)
            number = rng.randint(-1, 2) + (record.attempt if record else 0)
            act = play.attempts.get(task_id)
            events: list[Event] = []
            if act is None or act.attempt != number:
                events += [
                    AttemptSucceeded(at, task_id, number, "x", ("x",)),
                    AttemptFailed(at, task_id, number, Reason.AGENT_FAILED, "no"),
                    AttemptAsked(at, task_id, number, "?"),
                    AttemptLost(at, task_id, number, "gone"),
                    AttemptStopped(at, task_id, number),
                ]
            if play.landing is None or play.landing.task_id != task_id:
                events += [
                    LandingPrepared(at, task_id, "x", self.tip),
                    LandingRejected(at, task_id, Reason.CONFLICT, "no"),
                    Landed(at, task_id, "x"),
                    BranchMoved(at, task_id),
                    LandingLost(at, task_id, "gone"),
                ]
            step = play.send(rng.choice(events)) if events else None
            assert step is None or step == Step([], [])

    # --- always ------------------------------------------------------------------------------------------

    def what_the_branch_has_is_what_the_journal_says(self) -> None:
        for task_id, commit in self.on_branch.items():
            record = self.play.record(task_id)
            if task_id in self.uncertain:
                assert record.state is State.LANDING, record.tell()
                assert record.prepared == commit
            else:
                assert record.state is State.SUCCEEDED, record.tell()
                assert record.landed
                assert record.commit == commit
        for record in self.play.records:
            assert record.landed == (record.id in self.on_branch and record.id not in self.uncertain)

    # --- and in the end ----------------------------------------------------------------------------------

    def come_to_an_end(self) -> None:
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
        elif act.task_id in self.uncertain:
            self.uncertain.remove(act.task_id)
            self.play.send(Landed(at, act.task_id, act.commit))
        elif act.onto != self.tip:
            self.play.send(BranchMoved(at, act.task_id))
        else:
            self.move(act)
            self.play.send(Landed(at, act.task_id, act.commit))


STEPS = (
    Walk.submit,
    Walk.cancel_or_retry,
    Walk.open_decision,
    Walk.answer_decision,
    Walk.much_at_once,
    Walk.cancel_what_lands,
    Walk.change_the_pace,
    Walk.let_time_pass,
    Walk.crash,
    Walk.answers_that_nobody_waits_for,
    Walk.go_on,
)
WEIGHTS = (3, 1, 1, 3, 1, 1, 2, 3, 1, 1, 10)

rngs = st.randoms(use_true_random=True)


class SchedulerMachine(RuleBasedStateMachine):
    """The same walk, on paths that Hypothesis chooses and, where one fails, shortens."""

    def __init__(self) -> None:
        super().__init__()
        self.walk = Walk(Options())

    @initialize(rng=rngs)
    def begin(self, rng: Random) -> None:
        self.walk = Walk(some_options(rng))

    @rule(rng=rngs, step=st.sampled_from(STEPS))
    def do(self, rng: Random, step: Callable[[Walk, Random], None]) -> None:
        step(self.walk, rng)

    @rule(rng=rngs)
    def go_on(self, rng: Random) -> None:
        self.walk.go_on(rng)

    @invariant()
    def what_the_branch_has_is_what_the_journal_says(self) -> None:
        self.walk.what_the_branch_has_is_what_the_journal_says()

    def teardown(self) -> None:
        self.walk.come_to_an_end()


EXAMPLES = int(os.environ.get("AGENTFUL_EXAMPLES", "60"))
"""Give more to look for longer, on paths that have not been walked before."""

TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=40, deadline=None, derandomize=EXAMPLES == 60
)


@pytest.mark.parametrize("seed", range(EXAMPLES))
def test_a_long_walk(seed: int) -> None:
    rng = Random(seed if EXAMPLES == 60 else None)
    walk = Walk(some_options(rng))
    for step in rng.choices(STEPS, WEIGHTS, k=120):
        step(walk, rng)
        walk.what_the_branch_has_is_what_the_journal_says()
    walk.come_to_an_end()
