"""What readers of a run see. That it agrees with the scheduler after every event, `coreutil` verifies."""

from __future__ import annotations

import pytest

from agentful.core.view import RunView
from agentful.events import Interrupted, Paused
from agentful.model import State, Task
from coreutil import START, Play


def test_an_empty_run_has_succeeded_at_nothing() -> None:
    view = RunView()
    assert (view.total, view.done, view.at) == (0, 0, 0.0)
    assert view.state(live=True) == "succeeded"
    assert view.results() == []


def test_a_view_made_from_the_journal_is_the_same_as_one_that_watched() -> None:
    play = Play()
    play.submit(Task(id="a"), Task(id="b", needs=("a",)))
    play.open(blocking=("b",))
    play.finish("a")
    play.land("a")
    play.answer("d1")
    view = RunView(play.log)
    assert view.results() == play.view.results() == [r.result() for r in play.records]
    assert view.counts == play.view.counts
    assert view.decisions == play.view.decisions
    assert view.at == START


def test_counts_totals_and_what_is_missing() -> None:
    play = Play()
    play.submit(Task(id="a"), Task(id="b", needs=("a",)), Task(id="c"))
    view = play.view
    assert (view.total, view.done) == (3, 0)
    assert view.missing(view.records["b"]) == ["a"]
    play.fail("a")
    assert (view.total, view.done) == (3, 2)
    assert view.counts[State.SKIPPED] == 1


def test_results_are_in_the_order_of_submission() -> None:
    play = Play()
    play.submit(Task(id="a", priority=1), Task(id="b", priority=2))
    play.finish("b")
    assert [result.id for result in play.view.results()] == ["a", "b"]


def test_open_decisions_are_those_without_an_answer() -> None:
    play = Play()
    play.open("one")
    play.open("two")
    play.answer("d1")
    assert [decision.question for decision in play.view.open_decisions()] == ["two"]


@pytest.mark.parametrize("live", [True, False])
def test_the_run_in_one_word(live: bool) -> None:
    going = "running" if live else "interrupted"
    play = Play(max_concurrency=2)
    view = play.view
    play.submit(Task(id="a"), Task(id="b"), Task(id="c", needs=("a",)))
    assert view.state(live=live) == going
    play.ask("a")
    assert view.state(live=live) == going, "b goes on"
    play.finish("b")
    assert view.state(live=live) == going, "b lands"
    play.land("b")
    assert view.state(live=live) == "waiting"
    play.answer("d1")
    assert view.state(live=live) == going
    play.send(Paused(play.now))
    assert view.state(live=live) == going
    play.send(Interrupted(play.now))
    play.stopped("a")
    assert view.state(live=live) == going, "it can go on without anybody's answer"
    play.cancel("c")
    play.crash()
    play.finish("a")
    play.land("a")
    assert view.state(live=live) == "failed"


@pytest.mark.parametrize("live", [True, False])
def test_a_landing_that_a_decision_holds_waits_for_a_person(live: bool) -> None:
    play = Play()
    play.submit(Task(id="a"), Task(id="b"))
    play.open(blocking=("a", "b"))
    play.finish("a")
    assert play.view.state(live=live) != "waiting"
    play.finish("b")
    assert play.view.state(live=live) == "waiting"
    play.answer("d1")
    play.land("a")
    play.land("b")
    assert play.view.state(live=live) == "succeeded"


def test_a_question_of_the_program_itself_is_waited_for_also_when_all_tasks_have_ended() -> None:
    play = Play()
    play.submit(Task(id="a", reads_only=True))
    play.finish("a")
    play.open("what next?")
    assert play.view.state(live=True) == "waiting"
    assert play.view.state(live=False) == "succeeded"
    play.answer("d1")
    assert play.view.state(live=True) == "succeeded"
