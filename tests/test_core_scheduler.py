"""The scheduler, by single cases: races, wrong events, restores. Whole stories are in scenarios/."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from agentful.core.scheduler import BY_HAND, RETRY, SIMPLIFY, SKIP, TRANSITIONS, Scheduler
from agentful.errors import InvalidTransition, PlanError
from agentful.events import (
    AdvanceBranch,
    AttemptStopped,
    AttemptSucceeded,
    CancelRequested,
    DecisionAsked,
    Detail,
    Interrupted,
    Landed,
    LandingPrepared,
    LandingRejected,
    Paused,
    PrepareLanding,
    RecoverAttempt,
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
from agentful.model import Answer, Decision, Need, Options, Reason, State, Task, Usage
from coreutil import START, Play, dump

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from agentful.core.scheduler import Step
    from agentful.events import Command


def started(step: Step) -> list[str]:
    return [c.task_id for c in step.commands if isinstance(c, StartAttempt)]


def kinds(step: Step) -> list[type[Command]]:
    return [type(c) for c in step.commands]


# --- the table -------------------------------------------------------------------------------------


def test_the_table_names_every_state_and_uses_every_trigger_but_the_first() -> None:
    assert set(TRANSITIONS) == set(State)
    used = {trigger for row in TRANSITIONS.values() for trigger in row}
    assert used == set(Trigger) - {Trigger.SUBMITTED}
    assert TRANSITIONS[State.SUCCEEDED] == {}
    for state in State:
        if state.settled:
            assert set(TRANSITIONS[state]) <= {Trigger.REVIVED}


def test_a_change_that_the_table_does_not_have_is_a_bug_and_tells_the_story() -> None:
    play = Play()
    play.submit(Task(id="a"))
    with pytest.raises(
        InvalidTransition, match=r"ready --landed--> succeeded.*\n.*a: submitted\n.*needs_met"
    ):
        play.scheduler.evolve(TaskChanged(START, "a", Trigger.LANDED, State.READY, State.SUCCEEDED))
    with pytest.raises(InvalidTransition, match="not allowed from running"):
        play.scheduler.evolve(TaskChanged(START, "a", Trigger.STARTED, State.READY, State.RUNNING))
    with pytest.raises(InvalidTransition, match=r"(?s)landed in state running: .*--started--> running"):
        play.scheduler._change(play.record("a"), Trigger.LANDED)


# --- submitting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ((Task(id="b"), Task(id="b")), "'b' already"),
        ((Task(id="a"),), "'a' already"),
        ((Task(),), "'' already"),
        ((Task(id="b", needs=("c",)), Task(id="c")), "'b' needs 'c'"),
        ((Task(id="b", needs=("b",)),), "'b' needs 'b'"),
        ((Task(id="b", writes=("src/**", "!x")),), "negation"),
        ((Task(id="b", writes=("../x",)),), "leaves the repository"),
    ],
)
def test_tasks_that_cannot_be_added_change_nothing(tasks: tuple[Task, ...], said: str) -> None:
    play = Play()
    play.submit(Task(id="a"))
    before = dump(play.scheduler)
    with pytest.raises(PlanError, match=said):
        play.scheduler.handle(TasksSubmitted(START, (Task(id="new"), *tasks)))
    assert dump(play.scheduler) == before
    assert play.scheduler.handle(Tick(START)).transitions == []


def test_the_same_need_twice_is_one_need() -> None:
    play = Play()
    play.submit(Task(id="a"), Task(id="b", needs=("a", "a")))
    play.finish("a")
    assert started(play.land("a")) == ["b"]


def test_a_task_that_needs_a_dead_one_is_skipped_at_once_with_all_that_needs_it() -> None:
    play = Play()
    play.submit(Task(id="a"))
    play.fail("a")
    play.submit(Task(id="b", needs=("a",)), Task(id="c", needs=("b",)))
    assert play.states() == {"a": "failed", "b": "skipped", "c": "skipped"}
    assert play.record("c").message == "b skipped"


def test_nothing_at_all_is_finished_and_idle() -> None:
    play = Play()
    play.submit()
    assert play.scheduler.finished
    assert play.idle()
    assert not play.scheduler.busy


# --- what an attempt is told -------------------------------------------------------------------------


def test_an_attempt_is_given_what_its_needs_left_and_when_its_time_is_up() -> None:
    play = Play(task_timeout=60)
    play.submit(Task(id="a"), Task(id="b", needs=("a",), timeout=5.0))
    play.finish("a", summary="made it", outputs={"port": 3000})
    step = play.land("a")
    assert step.commands == [
        StartAttempt(
            "b", play.record("b").task, 1, needs=(("a", "made it", {"port": 3000}),), deadline=START + 5
        )
    ]


def test_a_failed_attempt_is_told_to_the_next_one_also_after_a_decision() -> None:
    play = Play(on_failure="decide", retries=1)
    play.submit(Task(id="a"))
    play.fail("a", Reason.CHECKS_FAILED, "red", detail="assert 1 == 2", commit="c1")
    step = play.wait()[-1]
    play.fail("a", Reason.AGENT_FAILED, "dead", commit="c2")
    assert play.state("a") is State.BLOCKED
    step = play.answer("d1", SIMPLIFY)
    (start,) = step.commands
    assert isinstance(start, StartAttempt)
    assert [(f.attempt, f.reason, f.message, f.commit) for f in start.failures] == [
        (1, Reason.CHECKS_FAILED, "red", "c1"),
        (2, Reason.AGENT_FAILED, "dead", "c2"),
    ]
    assert [a.answer for a in start.answers] == [SIMPLIFY]


def test_a_result_says_what_became_of_the_last_attempt_not_of_one_before_it() -> None:
    play = Play(retries=1)
    play.submit(Task(id="a"))
    play.finish("a", summary="all done", outputs={"x": 1}, out_of_scope=("y",))
    play.rejected("a", Reason.CONFLICT, "clash", detail="<<<<<<<", paths=("z",), other="b")
    play.fail("a", Reason.AGENT_FAILED, "could not")
    play.wait()
    record = play.record("a")
    assert (record.summary, record.outputs, record.message, record.paths) == ("", {}, "", ())
    assert (record.other, record.detail, record.out_of_scope) == (None, "", ())
    assert record.commit == "a-1"
    play.fail("a", Reason.AGENT_FAILED, "again")
    result = play.record("a").result()
    assert (result.message, result.other, result.paths, result.commit) == ("again", None, (), "a-1")


# --- races -------------------------------------------------------------------------------------------


def test_what_finishes_while_its_time_runs_out_has_succeeded() -> None:
    play = Play(task_timeout=10)
    play.submit(Task(id="a"))
    (step,) = play.wait(10)
    assert kinds(step) == [StopAttempt]
    play.finish("a")
    play.land("a")
    assert play.state("a") is State.SUCCEEDED


def test_what_finishes_while_it_is_cancelled_is_cancelled_and_its_work_is_kept() -> None:
    play = Play()
    play.submit(Task(id="a"))
    play.cancel("a")
    play.finish("a", usage=Usage(cost=1.0))
    result = play.record("a").result()
    assert (result.state, result.reason, result.commit) == (State.CANCELLED, Reason.CANCELLED, "a-1")
    assert result.usage == Usage(cost=1.0)


def test_a_cancel_overrules_a_timeout_and_an_interrupt_but_not_the_other_way_round() -> None:
    play = Play(task_timeout=10, retries=5)
    play.submit(Task(id="a"), Task(id="b"), Task(id="c", timeout=1000.0))
    play.wait(10)
    play.cancel("a")
    play.send(Interrupted(play.now))
    play.cancel("c")
    play.send(Interrupted(play.now))
    for task_id in ("a", "b", "c"):
        play.stopped(task_id)
    assert play.states() == {"a": "cancelled", "b": "ready", "c": "cancelled"}
    assert play.record("b").failures[-1].reason is Reason.TIMEOUT


def test_a_cancelled_landing_may_not_answer_for_the_next_attempt() -> None:
    """The act of a landing that was cancelled still winds down while the task runs and finishes again."""
    for answer in (
        LandingPrepared(START, "a", "old-merge", "base"),
        LandingRejected(START, "a", Reason.CONFLICT, "old"),
        Landed(START, "a", "old-merge"),
    ):
        play = Play()
        play.submit(Task(id="a"))
        play.finish("a")
        step = play.cancel("a")
        assert kinds(step) == [StopLanding]
        play.retry("a")
        step = play.finish("a")
        assert step.commands == [], "the old landing's act has not ended yet"
        step = play.send(answer)
        assert play.state("a") is State.LANDING
        assert step.commands == [PrepareLanding("a", play.record("a").task, 2, "a-2")]
        play.land("a")
        assert play.record("a").commit == "landed-a"


def test_an_answer_of_a_landing_that_is_not_under_way_is_not_believed() -> None:
    play = Play()
    play.submit(Task(id="a"), Task(id="b"))
    play.finish("a")
    play.finish("b")
    for event in (
        LandingPrepared(START, "b", "x", "base"),
        LandingRejected(START, "b", Reason.CONFLICT, "no"),
        Landed(START, "b", "x"),
        Landed(START, "nobody", "x"),
    ):
        assert play.send(event).transitions == []
    assert play.state("b") is State.LANDING
    play.land("a")
    play.land("b")
    assert play.scheduler.finished


def test_who_finishes_again_lands_after_those_who_finished_before_it() -> None:
    play = Play()
    play.submit(Task(id="a"), Task(id="b"), Task(id="c"))
    for task_id in "abc":
        play.finish(task_id)
    play.cancel("b")
    play.retry("b")
    play.finish("b")
    step = play.land("a")
    assert [c.task_id for c in step.commands] == ["c"]
    assert [c.task_id for c in play.land("c").commands] == ["b"]


def test_a_lost_move_of_the_branch_is_made_again_and_cannot_be_cancelled() -> None:
    """Nobody knows whether the branch has the work, so neither "cancelled" nor "failed" may be said."""
    play = Play()
    play.submit(Task(id="a"))
    play.finish("a")
    play.prepared("a", "m1", "base")
    play.landing_lost("a")
    play.cancel("a")
    assert play.state("a") is State.LANDING
    (step,) = play.wait()
    assert step.commands == [AdvanceBranch("a", "m1", "base")]
    play.landed_("a")
    assert play.state("a") is State.SUCCEEDED


def test_an_attempt_that_nobody_stopped_and_that_says_so_is_lost_and_its_usage_is_not() -> None:
    play = Play()
    play.submit(Task(id="a"))
    play.stopped("a", commit="c1", usage=Usage(cost=2.0))
    record = play.record("a")
    assert (record.state, record.lost, record.failed) == (State.RUNNING, 1, 0)
    assert record.commit == "c1"
    assert record.usage == Usage(cost=2.0)


def test_a_question_that_is_asked_while_the_run_is_interrupted_is_kept() -> None:
    play = Play()
    play.submit(Task(id="a"))
    play.send(Interrupted(play.now))
    play.ask("a", "which port?")
    assert play.state("a") is State.BLOCKED
    assert play.scheduler.decisions["d1"].question == "which port?"


def test_events_of_other_attempts_and_of_unknown_tasks_are_not_believed() -> None:
    play = Play(retries=3)
    play.submit(Task(id="a"))
    play.fail("a")
    play.wait()
    assert play.record("a").attempt == 2
    for attempt in (0, 1, 3):
        assert play.send(AttemptSucceeded(play.now, "a", attempt, "c", ("x",))).transitions == []
    assert play.send(AttemptStopped(play.now, "nobody", 1)).transitions == []
    assert play.cancel("nobody").transitions == []
    assert play.retry("nobody", "a").transitions == []
    assert play.answer("d99").transitions == []
    assert play.send(DecisionAsked(play.now, Decision("d1", "?", blocking=("nobody",)))).commands == []


def test_time_never_runs_backwards() -> None:
    play = Play()
    play.send(TasksSubmitted(START + 100, (Task(id="a"),)))
    play.send(AttemptSucceeded(START, "a", 1, "c", ("x",)))
    assert [t.at for t in play.log] == [START + 100] * 4
    assert play.record("a").active == 0.0


# --- decisions ---------------------------------------------------------------------------------------


def failed_and_asked(also_asked: bool) -> Play:
    play = Play(on_failure="decide")
    play.submit(Task(id="a"), Task(id="b", needs=("a",)))
    if also_asked:
        play.open("is it needed?", blocking=("a",))
    play.fail("a", commit="c1")
    assert play.state("a") is State.BLOCKED
    return play


def test_to_skip_is_not_forgotten_while_another_decision_is_open() -> None:
    play = failed_and_asked(also_asked=True)
    play.answer("d2", SKIP)
    assert play.states() == {"a": "skipped", "b": "skipped"}
    play.answer("d1")
    assert play.states() == {"a": "skipped", "b": "skipped"}


def test_work_by_hand_waits_with_its_landing_for_another_decision() -> None:
    play = failed_and_asked(also_asked=True)
    step = play.answer("d2", f" {BY_HAND.upper()} ")
    assert play.state("a") is State.LANDING
    assert step.commands == []
    assert [o.kind for o in play.scheduler.explain("a")] == [Need.DECISION]
    step = play.answer("d1")
    assert step.commands == [PrepareLanding("a", play.record("a").task, 1, "")]


def test_to_try_again_waits_for_the_other_decision() -> None:
    play = failed_and_asked(also_asked=True)
    play.answer("d2", RETRY)
    assert play.state("a") is State.BLOCKED
    assert started(play.answer("d1")) == ["a"]


def test_after_work_by_hand_that_did_not_pass_the_next_attempts_own_work_lands() -> None:
    play = failed_and_asked(also_asked=False)
    play.answer("d1", BY_HAND)
    play.rejected("a", Reason.CHECKS_FAILED)
    assert play.state("a") is State.BLOCKED
    play.answer("d2", RETRY)
    step = play.finish("a")
    assert step.commands == [PrepareLanding("a", play.record("a").task, 2, "a-2")]


def test_work_by_hand_lands_beside_a_task_that_runs_alone() -> None:
    play = Play(conflict_retries=1, on_failure="decide")
    play.submit(Task(id="a"), Task(id="b"))
    play.fail("b")
    play.finish("a")
    play.rejected("a", paths=("x",))
    assert play.scheduler.admission.holders["a"].alone
    play.answer("d1", BY_HAND)
    play.land("b")
    play.finish("a")
    play.land("a")
    assert play.scheduler.finished


def test_an_answer_to_a_question_of_somebody_elses_gives_no_fresh_attempts() -> None:
    play = Play(retries=1, retry_delay=30.0)
    play.submit(Task(id="a"))
    play.fail("a")
    play.open("go on?", blocking=("a",))
    assert play.state("a") is State.BLOCKED
    play.answer("d1")
    assert play.state("a") is State.READY
    assert play.wakeup() == START + 30
    play.wait()
    play.fail("a")
    assert play.state("a") is State.FAILED


def test_an_answer_to_a_failure_gives_fresh_attempts() -> None:
    play = Play(retries=1, on_failure="decide")
    play.submit(Task(id="a"))
    play.fail("a")
    play.wait()
    play.fail("a")
    play.answer("d1", RETRY)
    play.fail("a")
    assert play.state("a") is State.READY


def test_a_decision_comes_open_whatever_it_says_itself() -> None:
    play = Play(max_concurrency=0)
    play.submit(Task(id="a"))
    play.open(blocking=("a", "a"), answer="yes", answered_at=1.0)
    assert play.state("a") is State.BLOCKED
    play.answer("d1", "no")
    assert play.state("a") is State.READY
    assert play.record("a").answers == (Answer("how?", "no"),)


def test_a_decision_may_name_a_task_that_comes_later() -> None:
    play = Play()
    play.open(blocking=("late",))
    play.submit(Task(id="late"), Task(id="other"))
    assert play.states() == {"late": "blocked", "other": "running"}
    assert play.record("late").message == "how?"
    play.answer("d1")
    assert play.state("late") is State.RUNNING


def test_ids_of_decisions_are_given_around_those_that_are_taken() -> None:
    play = Play()
    play.open("first", id="d2")
    play.open("second")
    play.open("again", id="d2")
    assert [(d.id, d.question) for d in play.scheduler.decisions.values()] == [
        ("d2", "first"),
        ("d3", "second"),
    ]


def test_a_running_task_that_a_decision_names_is_held_when_it_would_start_again() -> None:
    play = Play(retries=1, retry_delay=0)
    play.submit(Task(id="a"))
    play.open("hold on?", blocking=("a",))
    assert play.state("a") is State.RUNNING
    play.fail("a", message="boom")
    record = play.record("a")
    assert (record.state, record.reason, record.message) == (State.BLOCKED, Reason.DECISION, "hold on?")
    play.answer("d1")
    assert play.record("a").attempt == 2


# --- failing -----------------------------------------------------------------------------------------


def test_a_failure_after_a_conflict_does_not_end_running_alone() -> None:
    play = Play(conflict_retries=1, retries=1, retry_delay=0)
    play.submit(Task(id="a"))
    play.finish("a")
    play.rejected("a", paths=("x",))
    assert play.scheduler.admission.holders["a"].alone
    play.fail("a")
    assert play.record("a").attempt == 3
    assert play.scheduler.admission.holders["a"].alone


@pytest.mark.parametrize(
    "path",
    [
        "a b",
        "trailing ",
        " leading",
        "x{a,b}",
        "[id]/p?*.ts",
        "new\nline",
        "bell\x07",
        "byte\udcff",
        "~x",
        "!x",
        "#x",
    ],
)
def test_a_conflict_in_a_file_of_any_name_is_kept_clear_of_on_the_retry(path: str) -> None:
    play = Play()
    play.submit(Task(id="a"), Task(id="b", writes=("**",)))
    play.finish("a")
    play.finish("b")
    play.rejected("a", paths=(path,))
    assert play.state("a") is State.READY
    assert [o.kind for o in play.scheduler.explain("a")] == [Need.SCOPE]
    play.land("b")
    assert play.state("a") is State.RUNNING


def test_a_conflict_in_a_file_with_a_very_long_path_claims_its_folder() -> None:
    play = Play()
    deep = "/".join("*" * 200 for _ in range(10))
    play.submit(Task(id="a"), Task(id="b"))
    for task_id in "ab":
        play.finish(task_id)
    play.rejected("a", paths=(deep + "/x",))
    assert play.state("a") is State.RUNNING
    play.rejected("b", paths=(deep + "/y",)) if play.landing else None


def test_only_what_conflicted_is_claimed_on_a_retry() -> None:
    play = Play(retries=1, retry_delay=0)
    play.submit(Task(id="a"))
    play.fail("a", paths=("everything.txt",))
    play.finish("a")
    play.rejected("a", paths=("clash.txt",))
    assert play.scheduler.admission.holders["a"].writes == ("/clash.txt",)


def test_what_wrote_outside_its_scope_is_named_also_when_it_fails() -> None:
    play = Play(scope="fail")
    play.submit(Task(id="a", writes=("src",)))
    outside = tuple(f"x{n}" for n in range(7))
    play.finish("a", out_of_scope=outside)
    record = play.record("a")
    assert (record.state, record.reason) == (State.FAILED, Reason.OUT_OF_SCOPE)
    assert record.out_of_scope == outside
    assert record.message == "it wrote outside its scope: x0, x1, x2, x3, x4 ..."


def test_a_crash_of_ours_is_no_fault_of_the_tasks_however_often_it_comes() -> None:
    play = Play()
    play.submit(Task(id="a"))
    for count in range(1, 12):
        step = play.crash()
        assert step.commands == [RecoverAttempt("a", play.record("a").task, count)]
        step = play.lost("a")
        assert started(step) == ["a"]
    assert play.record("a").lost == 0
    assert play.record("a").attempt == 12


def test_what_ended_before_a_crash_is_not_called_late_after_it() -> None:
    play = Play(task_timeout=60, on_failure="decide")
    play.submit(Task(id="a"))
    play.now += 3600
    play.crash()
    assert play.wakeup() is None
    play.send(Tick(play.now))
    assert play.state("a") is State.RUNNING
    play.fail("a", Reason.NO_CHANGE, "nothing to do")
    assert play.record("a").reason is Reason.NO_CHANGE


# --- retry by hand -----------------------------------------------------------------------------------


def test_a_retry_leaves_alone_what_it_was_not_asked_for() -> None:
    """``c`` was skipped for the sake of both; ``b`` stays dead, so ``c`` does."""
    play = Play()
    play.submit(
        Task(id="a"),
        Task(id="b"),
        Task(id="c", needs=("a", "b")),
        Task(id="d", needs=("a",)),
        Task(id="e", needs=("c", "d")),
    )
    play.fail("a")
    play.fail("b")
    play.retry("a")
    assert play.states() == {
        "a": "running",
        "b": "failed",
        "c": "skipped",
        "d": "waiting",
        "e": "skipped",
    }
    play.retry("b")
    assert play.states()["c"] == play.states()["e"] == "waiting"


def test_a_retry_revives_what_the_task_needs_and_what_was_skipped_for_it() -> None:
    play = Play()
    play.submit(
        Task(id="a"), Task(id="b", needs=("a",)), Task(id="c", needs=("b",)), Task(id="d", needs=("a",))
    )
    play.fail("a")
    play.retry("b")
    assert play.states() == {"a": "running", "b": "waiting", "c": "waiting", "d": "waiting"}
    assert play.record("b").finished_at is None


def test_what_was_cancelled_on_its_own_is_not_revived_with_its_need() -> None:
    play = Play()
    play.submit(Task(id="a"), Task(id="b", needs=("a",)))
    play.cancel()
    play.stopped("a")
    play.retry("a")
    assert play.states() == {"a": "running", "b": "cancelled"}


def test_a_retry_after_the_end_has_the_runs_time_anew() -> None:
    play = Play(timeout=60)
    play.submit(Task(id="a"))
    play.fail("a")
    play.now += 600
    play.retry("a")
    assert play.wakeup() == START + 660
    play.send(Tick(play.now))
    assert play.state("a") is State.RUNNING
    play.retry("a")
    assert play.wakeup() == START + 660


# --- order, restoring --------------------------------------------------------------------------------


def chain_and_single() -> tuple[Task, ...]:
    return (
        Task(id="busy", estimate=1.0, priority=9),
        Task(id="single", estimate=400.0),
        Task(id="first", estimate=300.0),
        Task(id="then", estimate=300.0, needs=("first",)),
    )


def test_the_longest_path_goes_first_also_after_a_restore() -> None:
    play = Play(max_concurrency=1)
    play.submit(*chain_and_single())
    play.crash()
    assert started(play.lost("busy")) == ["busy"]
    play.finish("busy")
    play.land("busy")
    assert play.states()["first"] == "running"


def test_a_ready_task_moves_up_when_something_comes_that_needs_it() -> None:
    play = Play(max_concurrency=1)
    for task in chain_and_single():
        play.submit(task)
    play.finish("busy")
    assert play.states()["first"] == "running"


def test_a_restored_run_waits_as_long_as_was_left_to_wait() -> None:
    play = Play(retries=1, retry_delay=30.0)
    play.submit(Task(id="a"))
    play.fail("a")
    play.now += 10
    play.crash()
    assert play.wakeup() == START + 30
    play.now += 3600
    assert started(play.crash()) == ["a"]


def test_a_landing_that_was_under_way_is_taken_up_where_it_was() -> None:
    play = Play()
    play.submit(Task(id="a"), Task(id="b"))
    play.finish("a")
    play.finish("b")
    task = play.record("a").task
    assert play.crash().commands == [PrepareLanding("a", task, 1, "a-1")]
    play.prepared("a", "m", "base")
    assert play.crash().commands == [AdvanceBranch("a", "m", "base")]
    assert [c.task_id for c in play.landed_("a").commands] == ["b"]


def test_what_was_stopping_when_it_crashed_ends_as_it_was_told_to() -> None:
    play = Play(task_timeout=10, retries=1)
    play.submit(Task(id="a", timeout=100.0), Task(id="b"))
    play.cancel("a")
    play.wait(10)
    step = play.crash()
    assert kinds(step) == [RecoverAttempt, RecoverAttempt]
    play.lost("a")
    play.lost("b")
    assert play.states() == {"a": "cancelled", "b": "running"}
    assert play.record("b").failed == 0


def test_the_runs_time_starts_anew_with_a_resume_that_has_something_to_do() -> None:
    play = Play(timeout=60)
    play.submit(Task(id="a"))
    play.now += 600
    play.crash()
    assert play.wakeup() == START + 660
    play.fail("a")
    play.crash()
    assert play.wakeup() is None


def test_transitions_survive_being_written_down() -> None:
    play = Play(on_failure="decide", task_timeout=60)
    play.submit(Task("agent", "do", id="a", writes=("x",), needs=()), Task(id="b", needs=("a",)))
    play.finish("a", outputs={"k": [1, None]}, usage=Usage(1, 2, 0.5))
    play.rejected("a", paths=("p",), other="z", detail="<<<")
    play.fail("a")
    play.answer("d1", RETRY)
    encoded = msgspec.json.encode(play.log)
    decoded = msgspec.json.decode(encoded, type=list[Transition])
    assert decoded == play.log
    assert dump(Scheduler.restore(decoded, play.options)) == dump(play.scheduler)


def test_the_first_transition_of_every_task_is_that_it_was_added() -> None:
    play = Play()
    step = play.submit(Task(id="a"))
    assert step.transitions == [
        TaskAdded(START, Task(id="a")),
        TaskChanged(START, "a", Trigger.NEEDS_MET, State.WAITING, State.READY),
        TaskChanged(START, "a", Trigger.STARTED, State.READY, State.RUNNING, 1),
    ]


# --- busy, idle, finished, next_wakeup -----------------------------------------------------------------


def test_idle_is_when_only_somebody_outside_can_move_it_on() -> None:
    play = Play(timeout=1000, retries=1, retry_delay=50.0)
    play.submit(Task(id="a"), Task(id="b"))
    assert not play.idle()
    play.ask("a")
    assert not play.idle(), "b runs"
    play.fail("b")
    assert not play.idle(), "b starts again by itself"
    play.send(Paused(play.now))
    assert play.idle(), "nothing starts while it is paused"
    play.send(Unpaused(play.now))
    play.wait(50)
    play.finish("b")
    assert not play.idle(), "b lands"
    play.landing_lost("b")
    play.send(Paused(play.now))
    assert not play.idle(), "b lands later, paused or not"
    play.send(Interrupted(play.now))
    assert play.idle()
    assert ("paused", "it lands when the run is resumed") in explained(play, "b")
    play.send(Unpaused(play.now))
    play.wait(50)
    play.land("b")
    assert play.idle(), "a waits for a person; the time of the run is no reason to wait with it"
    assert play.wakeup() == START + 1000


def test_a_landing_that_waits_for_a_decision_keeps_nobody_waiting_for_it() -> None:
    play = Play()
    play.submit(Task(id="a"), Task(id="b"))
    play.open(blocking=("a",))
    play.finish("a")
    assert play.landing is None
    play.finish("b")
    play.land("b")
    assert play.idle()
    assert play.view.state(live=True) == "waiting"
    play.answer("d1")
    play.land("a")
    assert play.scheduler.finished


def test_a_delay_that_is_over_is_not_waited_for_again() -> None:
    play = Play(retry_delay=10.0)
    play.submit(Task(id="a"), Task(id="b"))
    play.finish("a")
    play.landing_lost("a")
    play.finish("b")
    play.wait(10)
    assert play.wakeup() is None
    play.land("b")
    play.prepared("a")
    assert play.wakeup() is None
    play.moved("a")
    assert play.wakeup() is None
    play.land("a")


def test_a_delay_that_is_over_is_noticed_at_any_event() -> None:
    play = Play(retries=1, retry_delay=10.0)
    play.submit(Task(id="a"))
    play.fail("a")
    play.now += 11
    assert started(play.open()) == ["a"]
    assert play.wakeup() is None


def test_timeouts_of_what_has_ended_are_not_waited_for() -> None:
    play = Play(task_timeout=60)
    play.submit(Task(id="a"))
    assert play.wakeup() == START + 60
    play.finish("a")
    assert play.wakeup() is None
    play.land("a")


# --- explain ------------------------------------------------------------------------------------------


def explained(play: Play, task_id: str) -> list[tuple[str, str]]:
    return [(str(o.kind), o.text) for o in play.scheduler.explain(task_id)]


def test_explain_says_what_a_task_waits_for() -> None:
    play = Play(max_concurrency=2, retries=1, retry_delay=30.0)
    play.submit(
        Task(id="a", writes=("src/**",), resources=("db",)),
        Task(id="b", needs=("a",)),
        Task(id="c", writes=("src/x.py",)),
        Task(id="d", resources=("db",)),
        Task(id="e"),
        Task(id="f"),
    )
    play.open(blocking=("b",))
    assert explained(play, "a") == []
    assert explained(play, "b") == [("decision", "waits for the answer to d1"), ("needs", "needs a")]
    assert explained(play, "c") == [("scope", "a writes src/**, which overlaps src/x.py")]
    assert explained(play, "d") == [("resource", "a holds db")]
    assert explained(play, "f") == [("slot", "all 2 slots are in use")]
    play.fail("e")
    assert explained(play, "e") == [("delay", "starts again in 30 s")]
    play.send(Paused(play.now))
    assert explained(play, "c") == [("paused", "nothing new is started")]
    play.finish("f")
    play.finish("a")
    assert explained(play, "a") == [("queue", "waits for f to land")]
    assert explained(play, "f") == []
    play.landing_lost("f")
    assert explained(play, "f") == [("delay", "lands again in 30 s"), ("queue", "waits for a to land")]


def test_explain_of_a_journal_says_what_would_keep_a_task_now() -> None:
    play = Play(max_concurrency=1)
    play.submit(Task(id="a"), Task(id="b"), Task(id="c", needs=("a",)))
    restored = Scheduler.restore(play.log, Options(max_concurrency=2))
    assert restored.explain("b") == []
    assert [o.kind for o in restored.explain("c")] == [Need.NEEDS]


def test_explain_names_who_runs_alone_and_who_keeps_it_waiting() -> None:
    play = Play(conflict_retries=1)
    play.submit(Task(id="a"), Task(id="b"), Task(id="c"))
    play.finish("a")
    play.rejected("a")
    assert explained(play, "a") == [("alone", "runs alone after a conflict, and waits for b")]
    play.finish("b")
    play.land("b")
    play.finish("c")
    play.land("c")
    play.submit(Task(id="d"))
    assert explained(play, "d") == [("alone", "a runs alone after a conflict")]


# --- slots --------------------------------------------------------------------------------------------


def test_fewer_slots_stop_nothing_and_start_nothing() -> None:
    play = Play(max_concurrency=3)
    play.submit(*(Task(id=i) for i in "abcde"))
    play.send(SlotsChanged(play.now, 1))
    assert play.scheduler.count(State.RUNNING) == 3
    for task_id in "ab":
        assert started(play.finish(task_id)) == []
    assert started(play.finish("c")) == ["d"]
    play.send(SlotsChanged(play.now, -5))
    assert play.scheduler.slots == 0
    assert started(play.send(SlotsChanged(play.now, 9))) == ["e"]


def test_a_stopping_attempt_keeps_its_slot_until_it_has_ended() -> None:
    play = Play(max_concurrency=1)
    play.submit(Task(id="a"), Task(id="b"))
    assert started(play.cancel("a")) == []
    assert started(play.stopped("a")) == ["b"]


def test_the_time_of_the_run_cancels_what_has_not_ended() -> None:
    play = Play(timeout=60, max_concurrency=1, fail_fast=True)
    play.submit(Task(id="a"), Task(id="b"), Task(id="c", needs=("a",)))
    (step,) = play.wait(60)
    assert kinds(step) == [StopAttempt]
    play.finish("a")
    assert play.states() == {"a": "cancelled", "b": "cancelled", "c": "cancelled"}
    assert {r.reason for r in play.records} == {Reason.RUN_TIMEOUT}
    assert play.scheduler.finished


def test_cancelling_what_has_ended_changes_nothing() -> None:
    play = Play()
    play.submit(Task(id="a", reads_only=True), Task(id="b"))
    play.finish("a")
    play.finish("b")
    play.prepared("b")
    assert play.send(CancelRequested(play.now)).transitions == []
    play.landed_("b")
    assert play.scheduler.finished


def test_details_are_only_where_there_is_something_to_say() -> None:
    assert msgspec.json.encode(Detail()) == b"{}"


# --- the work for one event does not grow -------------------------------------------------------------


def lines_run(act: Callable[[], Any]) -> int:
    """How many lines of the core are executed by ``act``."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        if "/agentful/core/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


def one_task_through(scheduler: Scheduler, task_id: str) -> None:
    attempt = scheduler.records[task_id].attempt
    scheduler.handle(AttemptSucceeded(START, task_id, attempt, "c", ("x",)))
    scheduler.handle(LandingPrepared(START, task_id, "m", "base"))
    scheduler.handle(Landed(START, task_id, "m"))
    assert scheduler.next_wakeup is not None
    assert not scheduler.idle


def layered(count: int) -> tuple[Task, ...]:
    """Layers of a hundred; each task needs two of the layer before."""
    tasks: list[Task] = []
    for n in range(count):
        layer, place = divmod(n, 100)
        needs = [f"t{(layer - 1) * 100 + (place + k) % 100}" for k in (0, 7)] if layer else []
        tasks.append(Task(id=f"t{n}", needs=tuple(needs), priority=n % 3, timeout=60.0))
    return tuple(tasks)


def same_resource(count: int) -> tuple[Task, ...]:
    return tuple(Task(id=f"t{n}", resources=("db",), timeout=60.0) for n in range(count))


def same_scope(count: int) -> tuple[Task, ...]:
    return tuple(Task(id=f"t{n}", writes=("src/**",), timeout=60.0) for n in range(count))


def own_scopes(count: int) -> tuple[Task, ...]:
    return tuple(Task(id=f"t{n}", writes=(f"src/p{n}/**",), timeout=60.0) for n in range(count))


def own_scopes_one_resource(count: int) -> tuple[Task, ...]:
    return tuple(
        Task(id=f"t{n}", writes=(f"src/p{n}/**",), resources=("db",), timeout=60.0) for n in range(count)
    )


def own_scopes_one_shared(count: int) -> tuple[Task, ...]:
    return tuple(Task(id=f"t{n}", writes=(f"src/p{n}/**", "go.mod"), timeout=60.0) for n in range(count))


@pytest.mark.parametrize(
    ("plan", "large"),
    [
        (layered, 20_000),
        (same_resource, 5_000),
        (same_scope, 5_000),
        (own_scopes, 5_000),
        (own_scopes_one_resource, 5_000),
        (own_scopes_one_shared, 5_000),
    ],
)
def test_the_work_for_one_task_does_not_grow_with_the_plan(
    plan: Callable[[int], tuple[Task, ...]], large: int
) -> None:
    costs: list[int] = []
    for count in (200, large):
        scheduler = Scheduler(Options(max_concurrency=4, timeout=1000.0))
        scheduler.handle(TasksSubmitted(START, plan(count)))

        def some(scheduler: Scheduler = scheduler) -> None:
            for _ in range(20):
                one_task_through(scheduler, scheduler.in_state(State.RUNNING)[0].id)

        some()
        costs.append(lines_run(some))
    assert costs[1] <= 1.5 * costs[0], costs


def test_submitting_one_by_one_costs_the_same_each_time() -> None:
    scheduler = Scheduler(Options(max_concurrency=4))
    costs: list[int] = []
    for n in range(3_000):
        needs = (f"t{n - 10}",) if n >= 10 else ()

        def submit(n: int = n, needs: tuple[str, ...] = needs) -> None:
            scheduler.handle(TasksSubmitted(START, (Task(id=f"t{n}", needs=needs, estimate=0.0),)))

        if n in (100, 2_999):
            costs.append(lines_run(submit))
        else:
            submit()
    assert costs[1] <= 1.5 * costs[0], costs


def test_in_sequence_the_next_one_starts_from_what_has_landed() -> None:
    scheduler = Scheduler(Options(max_concurrency=1, sequential=True))
    tasks = (Task("x", "a", id="a"), Task("x", "b", id="b"))
    scheduler.handle(TasksSubmitted(0.0, tasks))
    step = scheduler.handle(AttemptSucceeded(1.0, "a", 1, "c0ffee", ("f",)))
    assert [type(command).__name__ for command in step.commands] == ["PrepareLanding"]
    step = scheduler.handle(LandingPrepared(2.0, "a", "c1", "c0"))
    assert [type(command).__name__ for command in step.commands] == ["AdvanceBranch"]
    step = scheduler.handle(Landed(3.0, "a", "c1"))
    assert [command.task_id for command in step.commands] == ["b"]
