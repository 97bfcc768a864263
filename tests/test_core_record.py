"""A record is the fold of its transitions, whatever made them."""

from __future__ import annotations

from typing import Any

import pytest

from agentful.core.record import TaskRecord, take_answer
from agentful.core.scheduler import TRANSITIONS
from agentful.events import Detail, TaskChanged, Trigger
from agentful.model import Answer, Decision, Reason, State, Task, Usage


class Tale:
    """A record, and the changes that happen to it, a second apart."""

    def __init__(self) -> None:
        self.record = TaskRecord(Task("agent", id="a"), 0, 100.0)
        self.at = 100.0
        self.attempt = 0

    def then(
        self, trigger: Trigger, reason: Reason | None = None, *, wait: float = 1.0, **detail: Any
    ) -> Tale:
        self.at += wait
        source = self.record.state
        if trigger is Trigger.STARTED:
            self.attempt += 1
        told = Detail(**detail) if detail else None
        target = TRANSITIONS[source][trigger]
        self.record.apply(TaskChanged(self.at, "a", trigger, source, target, self.attempt, reason, told))
        return self

    def running(self) -> Tale:
        return self.then(Trigger.NEEDS_MET).then(Trigger.STARTED)


def test_a_new_record_knows_its_task_and_waits() -> None:
    record = Tale().record
    assert (record.id, record.state, record.reason, record.attempt) == ("a", State.WAITING, None, 0)
    assert (record.submitted_at, record.since, record.started_at) == (100.0, 100.0, None)
    assert record.result().usage == Usage()


def test_when_it_came_began_and_ended() -> None:
    tale = Tale().running().then(Trigger.RETRIED, Reason.TIMEOUT).then(Trigger.STARTED)
    record = tale.record
    assert (record.started_at, record.attempt_at, record.finished_at) == (102.0, 104.0, None)
    tale.then(Trigger.FINISHED, commit="c", paths=("p",)).then(Trigger.PREPARED).then(Trigger.LANDED)
    assert (record.started_at, record.finished_at, record.since) == (102.0, 107.0, 107.0)


def test_the_time_that_it_took_is_that_of_its_attempts_and_landings() -> None:
    tale = Tale().then(Trigger.NEEDS_MET, wait=50).then(Trigger.STARTED, wait=50)
    tale.then(Trigger.STOP_REQUESTED, Reason.INTERRUPTED, wait=10).then(Trigger.INTERRUPTED, wait=2)
    tale.then(Trigger.STARTED, wait=1000).then(Trigger.FINISHED, wait=20).then(Trigger.LANDED, wait=3)
    assert tale.record.result().duration == 35.0


def test_a_clock_that_is_set_back_takes_nothing_away() -> None:
    tale = Tale().running().then(Trigger.DONE, wait=-500)
    assert tale.record.active == 0.0


def test_usage_adds_up_over_all_attempts() -> None:
    tale = Tale().running().then(Trigger.RETRIED, Reason.AGENT_FAILED, usage=Usage(cost=1.0))
    tale.then(Trigger.STARTED).then(Trigger.LOST, Reason.LOST).then(Trigger.STARTED)
    tale.then(Trigger.DONE, usage=Usage(5, cost=0.5))
    assert tale.record.result().usage == Usage(5, None, 1.5)


def test_failures_are_kept_with_all_that_is_known_of_them() -> None:
    tale = Tale().running()
    tale.then(
        Trigger.RETRIED,
        Reason.CONFLICT,
        message="m",
        detail="d",
        paths=("p",),
        other="b",
        commit="c",
    )
    tale.then(Trigger.STARTED).then(Trigger.GAVE_UP)
    first, second = tale.record.failures
    assert (first.attempt, first.reason, first.message, first.detail) == (1, Reason.CONFLICT, "m", "d")
    assert (first.paths, first.other, first.commit) == (("p",), "b", "c")
    assert (second.attempt, second.reason, second.message) == (2, Reason.AGENT_FAILED, "")
    assert (tale.record.conflicts, tale.record.failed) == (1, 1)


@pytest.mark.parametrize(
    ("reason", "counted"),
    [
        (Reason.QUESTION, 0),
        (Reason.DECISION, 0),
        (Reason.AGENT_FAILED, 1),
        (Reason.CONFLICT, 1),
        (Reason.LOST, 1),
    ],
)
def test_a_decision_after_a_failure_is_a_failure_and_another_is_none(reason: Reason, counted: int) -> None:
    tale = Tale().running().then(Trigger.RETRIED, Reason.AGENT_FAILED).then(Trigger.STARTED)
    tale.then(Trigger.ASKED, reason, message="how?")
    record = tale.record
    assert len(record.failures) == 1 + counted
    assert record.failed + record.conflicts == 1 + counted
    tale.then(Trigger.ANSWERED)
    assert record.failed + record.conflicts == (0 if counted else 1)
    assert len(record.failures) == 1 + counted


def test_being_lost_counts_until_something_else_happens() -> None:
    def known(tale: Tale) -> tuple[int, int, float | None]:
        return tale.record.lost, tale.record.failed, tale.record.not_before

    tale = Tale().running()
    assert known(tale.then(Trigger.LOST, Reason.LOST, not_before=200.0)) == (1, 0, 200.0)
    assert known(tale.then(Trigger.STARTED)) == (1, 0, None)
    assert known(tale.then(Trigger.LOST, Reason.INTERRUPTED)) == (1, 0, None)
    assert known(tale.then(Trigger.STARTED).then(Trigger.LOST, Reason.LOST)) == (2, 0, None)
    assert known(tale.then(Trigger.STARTED).then(Trigger.FINISHED)) == (0, 0, None)
    assert known(tale.then(Trigger.LOST, Reason.LOST, not_before=300.0)) == (1, 0, 300.0)
    assert known(tale.then(Trigger.PREPARED, commit="m", onto="t")) == (1, 0, None)


def test_where_the_branch_moves_from_and_to_is_known_while_it_may_be_moving() -> None:
    tale = Tale().running().then(Trigger.FINISHED, commit="c").then(Trigger.PREPARED, commit="m", onto="t")
    record = tale.record
    assert (record.onto, record.prepared, record.commit) == ("t", "m", "c")
    tale.then(Trigger.LOST, Reason.LOST)
    assert (record.onto, record.prepared) == ("t", "m")
    tale.then(Trigger.BRANCH_MOVED)
    assert (record.onto, record.prepared, record.commit) == (None, None, "c")
    tale.then(Trigger.PREPARED, commit="m2", onto="t2").then(Trigger.LANDED, commit="m2")
    assert (record.onto, record.prepared, record.commit, record.landed) == (None, None, "m2", True)


def test_work_by_hand_is_by_hand_until_an_attempt_starts() -> None:
    tale = Tale().running().then(Trigger.ASKED, Reason.AGENT_FAILED)
    found = [
        tale.then(trigger, reason).record.by_hand
        for trigger, reason in (
            (Trigger.HANDED_IN, None),
            (Trigger.RETRIED, Reason.CHECKS_FAILED),
            (Trigger.STARTED, None),
        )
    ]
    assert found == [True, True, False]


def test_being_alone_ends_with_the_landing_or_when_a_person_wants_it_tried_again() -> None:
    tale = Tale().running().then(Trigger.FINISHED).then(Trigger.RETRIED, Reason.CONFLICT, alone=True)
    found = [
        tale.then(trigger).record.alone for trigger in (Trigger.STARTED, Trigger.FINISHED, Trigger.LANDED)
    ]
    assert found == [True, True, False]
    tale = Tale().running().then(Trigger.FINISHED).then(Trigger.RETRIED, Reason.CONFLICT, alone=True)
    tale.then(Trigger.CANCELLED, Reason.CANCELLED)
    assert tale.record.finished_at == 105.0
    tale.then(Trigger.REVIVED)
    record = tale.record
    assert (record.alone, record.conflicts, record.finished_at, len(record.failures)) == (False, 0, None, 1)


def test_a_success_clears_what_was_said_before_it() -> None:
    tale = Tale().running().then(Trigger.LOST, Reason.LOST, message="gone", detail="trace")
    tale.then(Trigger.STARTED)
    tale.then(Trigger.FINISHED, summary="made it", outputs={"x": 1}, paths=("p",), out_of_scope=("q",))
    result = tale.record.result()
    assert (result.message, result.detail, result.summary, result.outputs) == ("", "", "made it", {"x": 1})
    assert (result.paths, tale.record.out_of_scope) == (("p",), ("q",))


def test_what_was_in_the_way_of_a_landing_is_not_said_of_what_has_landed() -> None:
    tale = Tale().running().then(Trigger.FINISHED, paths=("p",))
    tale.then(Trigger.LOST, Reason.DECISION, message="it is checked out", detail="d", other="b")
    assert (tale.record.message, tale.record.lost) == ("it is checked out", 0)
    result = tale.then(Trigger.PREPARED).then(Trigger.LANDED, commit="m").record.result()
    assert (result.message, result.detail, result.other, result.paths) == ("", "", None, ("p",))


def test_an_answer_that_says_nothing_to_an_agent_is_not_told() -> None:
    records = {"a": TaskRecord(Task(id="a"), 0, 0.0)}
    take_answer(records, Decision("d1", "held", blocking=("a",), kind="landing", answer="Try again"))
    take_answer(records, Decision("d2", "ended", blocking=("a",), kind="failure", answer=""))
    assert records["a"].answers == ()


def test_results_share_nothing_that_can_be_changed() -> None:
    one, other = TaskRecord(Task(id="a"), 0, 0.0), TaskRecord(Task(id="b"), 1, 0.0)
    one.result().outputs["x"] = 1
    assert other.result().outputs == {}
    assert one.result().outputs == {}


def test_the_story_is_told_a_line_for_each_change() -> None:
    tale = Tale().running().then(Trigger.GAVE_UP, Reason.TIMEOUT, message="it took too long")
    assert tale.record.tell() == (
        "a: submitted\n"
        "a: waiting --needs_met--> ready\n"
        "a: ready --started--> running (attempt 1)\n"
        "a: running --gave_up--> failed (attempt 1) [timeout] it took too long"
    )


def test_an_answer_is_known_to_those_that_the_decision_names() -> None:
    records = {i: TaskRecord(Task(id=i), 0, 0.0) for i in "ab"}
    take_answer(records, Decision("d1", "which?", blocking=("a", "nobody"), answer="this"))
    assert records["a"].answers == (Answer("which?", "this"),)
    assert records["b"].answers == ()
    take_answer(records, Decision("d2", "still open?", blocking=("b",)))
    assert records["b"].answers == ()
