"""The nouns: what is taken, and what it becomes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentful import errors, model
from agentful.model import (
    Agent,
    Decision,
    Options,
    Reason,
    State,
    Task,
    TaskResult,
    Usage,
    format_duration,
)


class Handle:
    """As what `submit` gives."""

    def __init__(self, task_id: str) -> None:
        self.id = task_id


def test_the_public_names_are_there() -> None:
    assert sorted(model.__all__) == model.__all__
    for name in model.__all__:
        assert hasattr(model, name)


def test_states_and_reasons_are_spelt_as_their_names_in_lower_case() -> None:
    for kind in (State, Reason, model.Need):
        for member in kind:
            assert member.value == member.name.lower()


def test_which_states_are_an_end() -> None:
    assert {state for state in State if state.settled} == {
        State.SUCCEEDED,
        State.FAILED,
        State.CANCELLED,
        State.SKIPPED,
    }


# --- Task ------------------------------------------------------------------------------------------


def test_a_task_is_said_in_few_words() -> None:
    task = Task("backend", "Make the API")
    assert (task.agent, task.prompt, task.id, task.needs) == ("backend", "Make the API", "", ())
    assert (task.writes, task.timeout, task.retries, task.checks) == (None, None, None, None)


def test_needs_are_ids_or_whatever_has_one() -> None:
    some: Any = [Handle("a"), "b", Task(id="c")]
    assert Task(needs=some).needs == ("a", "b", "c")
    one: Any = "a"
    assert Task(needs=one).needs == ("a",)
    assert Task(needs=()).needs == ()


def test_a_single_word_is_a_list_of_one_and_not_its_letters() -> None:
    one: Any = "src"
    task = Task(writes=one, resources=one, checks=one)
    assert (task.writes, task.resources, task.checks) == (("src",), ("src",), ("src",))
    several: Any = ["a", "b"]
    task = Task(writes=several, resources=several, checks=several)
    assert (task.writes, task.resources, task.checks) == (("a", "b"), ("a", "b"), ("a", "b"))


def test_nothing_is_not_the_same_as_not_said() -> None:
    assert Task(writes=()).writes == ()
    assert Task(checks=()).checks == ()


def test_times_are_seconds() -> None:
    span: Any = timedelta(minutes=2)
    whole: Any = 5
    task = Task(timeout=span, estimate=whole)
    assert (task.timeout, task.estimate) == (120.0, 5.0)
    assert isinstance(task.estimate, float)


def test_a_task_is_frozen_and_can_be_a_key() -> None:
    task = Task("a", "b", id="c", needs=("d",), writes=("e",))
    with pytest.raises(AttributeError):
        task.id = "x"  # type: ignore[misc]
    assert {task: 1}[Task("a", "b", id="c", needs=("d",), writes=("e",))] == 1


@pytest.mark.parametrize(
    ("task", "title"),
    [
        (Task("a", "  Make it.\nCarefully."), "Make it."),
        (Task("a", ""), ""),
        (Task("a", " \n "), ""),
        (Task(run="ruff check --fix\necho done"), "ruff check --fix"),
        (Task(run=""), ""),
        (Task("a", "prompt", run="true"), "true"),
        (Task(run="# Sort the imports\nruff check"), "Sort the imports"),
        (Task(run="# "), "#"),
    ],
)
def test_the_title_is_one_line(task: Task, title: str) -> None:
    assert task.title == title


@given(
    st.builds(
        Task,
        agent=st.text(max_size=5),
        prompt=st.text(max_size=20),
        id=st.text(max_size=5),
        needs=st.lists(st.text(max_size=5), max_size=3),
        writes=st.none() | st.lists(st.text(max_size=5), max_size=3),
        timeout=st.none() | st.floats(0, 1e9),
        retries=st.none() | st.integers(0, 9),
        run=st.none() | st.text(max_size=5),
        checks=st.none() | st.lists(st.text(max_size=5), max_size=3),
        reads_only=st.booleans(),
    )
)
def test_a_task_survives_being_written_down(task: Task) -> None:
    text = msgspec.json.encode(task)
    assert msgspec.json.decode(text, type=Task) == task


def test_what_is_not_said_is_not_written_down() -> None:
    assert msgspec.json.encode(Task("a", "b", id="c")) == b'{"agent":"a","prompt":"b","id":"c"}'
    assert msgspec.json.encode(Agent(name="a")) == b'{"name":"a"}'
    assert msgspec.json.encode(Options()) == b"{}"
    assert msgspec.json.encode(Usage()) == b"{}"


def test_two_agents_do_not_share_their_environment() -> None:
    one, other = Agent(name="a"), Agent(name="b")
    one.env["X"] = "1"
    assert other.env == {}


# --- Usage -----------------------------------------------------------------------------------------


def test_unknown_usage_is_not_zero() -> None:
    assert Usage() + Usage() == Usage()
    assert Usage(1, None, 0.5) + Usage(2, 3, None) == Usage(3, 3, 0.5)
    assert Usage(0) + Usage() == Usage(0)


usages = st.builds(Usage, st.none() | st.integers(0, 99), st.none() | st.integers(0, 99), st.none())


@given(usages, usages, usages)
def test_usage_adds_up_in_any_order(a: Usage, b: Usage, c: Usage) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Usage() == a


# --- Decision, TaskResult ----------------------------------------------------------------------------


def test_a_decision_is_open_until_it_is_answered() -> None:
    assert Decision("d1", "?").open
    assert not Decision("d1", "?", answer="").open


@pytest.mark.parametrize(
    ("state", "reason", "error", "said"),
    [
        (State.SUCCEEDED, None, None, ""),
        (State.RUNNING, None, None, ""),
        (State.BLOCKED, Reason.QUESTION, None, ""),
        (State.FAILED, Reason.AGENT_FAILED, errors.TaskFailed, "task 'a' failed: it broke"),
        (State.FAILED, None, errors.TaskFailed, "task 'a' failed: it broke"),
        (State.FAILED, Reason.CONFLICT, errors.ConflictError, "task 'a' conflicts: it broke"),
        (
            State.FAILED,
            Reason.CHECKS_FAILED,
            errors.ChecksFailed,
            "task 'a' did not pass its checks: it broke",
        ),
        (State.FAILED, Reason.TIMEOUT, errors.TaskTimeout, "task 'a' ran out of time: it broke"),
        (State.CANCELLED, Reason.CANCELLED, errors.TaskCancelled, "task 'a' was cancelled"),
        (State.CANCELLED, Reason.FAIL_FAST, errors.TaskCancelled, "task 'a' was cancelled (fail_fast)"),
        (State.CANCELLED, Reason.RUN_TIMEOUT, errors.TaskTimeout, "task 'a': the run's time was up"),
        (State.SKIPPED, Reason.NEED_FAILED, errors.TaskSkipped, "task 'a' was skipped: it broke"),
        (State.SKIPPED, Reason.DROPPED, errors.TaskSkipped, "task 'a' was skipped: it broke"),
    ],
)
def test_a_result_is_the_error_that_it_would_raise(
    state: State, reason: Reason | None, error: type[errors.TaskError] | None, said: str
) -> None:
    result = TaskResult(
        task=Task("x", id="a"), state=state, reason=reason, message="it broke", paths=("p",), other="b"
    )
    found = result.error
    assert result.ok == (state is State.SUCCEEDED)
    if error is None:
        assert found is None
        return
    assert type(found) is error
    assert str(found) == said
    assert (found.task_id, found.result) == ("a", result)
    if isinstance(found, errors.ConflictError):
        assert (found.paths, found.other) == (("p",), "b")


def test_a_result_has_its_tasks_names_and_the_seeds_spelling() -> None:
    result = TaskResult(task=Task("x", id="a"), state=State.SUCCEEDED)
    assert (result.id, result.agent, result.status) == ("a", "x", "success")
    assert TaskResult(task=Task(id="a"), state=State.FAILED).status == "failed"


def test_an_error_without_a_message_ends_where_it_ends() -> None:
    result = TaskResult(task=Task(id="a"), state=State.FAILED)
    assert str(result.error) == "task 'a' failed"


# --- durations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.04, "0s"),
        (0.4, "0.4s"),
        (1, "1s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (38.4, "38s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (401, "6m41s"),
        (3599.7, "1h"),
        (3720, "1h02m"),
        (90061, "25h01m"),
        (-90, "-1m30s"),
    ],
)
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(0, 1e7))
def test_a_duration_is_never_far_from_what_is_written(seconds: float) -> None:
    total = 0.0
    number = ""
    for char in format_duration(seconds):
        if char in "hms":
            total += float(number) * {"h": 3600, "m": 60, "s": 1}[char]
            number = ""
        else:
            number += char
    assert number == ""
    assert abs(total - seconds) <= (60 if seconds >= 3600 else 0.5001)
