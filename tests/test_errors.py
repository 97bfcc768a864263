"""The tree of errors: what `except` catches what, and what an error says of itself."""

from __future__ import annotations

import pytest

from agentful import errors
from agentful.errors import (
    AgentfulError,
    ChecksFailed,
    ConfigError,
    ConflictError,
    GitError,
    JournalError,
    PlanError,
    RunLocked,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskGroupError,
    TaskSkipped,
    TaskTimeout,
)
from agentful.model import State, Task, TaskResult

RESULT = TaskResult(task=Task(id="a"), state=State.FAILED)


def test_every_error_of_ours_is_an_agentful_error() -> None:
    found = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)]
    assert len(found) > 15
    for error in found:
        assert issubclass(error, AgentfulError) or error is TaskGroupError
        assert error.__doc__


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (PlanError, ValueError),
        (ConfigError, ValueError),
        (TaskTimeout, TimeoutError),
        (TaskTimeout, TaskError),
        (TaskCancelled, TaskError),
        (TaskSkipped, TaskError),
        (ChecksFailed, TaskFailed),
        (ConflictError, TaskFailed),
        (TaskFailed, TaskError),
        (RunLocked, JournalError),
        (TaskGroupError, ExceptionGroup),
    ],
)
def test_what_is_caught_as_what(error: type[Exception], base: type[Exception]) -> None:
    assert issubclass(error, base)


@pytest.mark.parametrize("error", [PlanError, ConfigError])
def test_where_it_is_comes_first(error: type[PlanError | ConfigError]) -> None:
    raised = error("no agent 'bakend'", where="plan.yaml:12")
    assert str(raised) == "plan.yaml:12: no agent 'bakend'"
    assert (raised.message, raised.where) == ("no agent 'bakend'", "plan.yaml:12")
    assert str(error("empty")) == "empty"


def test_a_task_error_knows_its_task_and_what_became_of_it() -> None:
    error = TaskFailed("no", task_id="a", result=RESULT)
    assert (error.task_id, error.result, str(error)) == ("a", RESULT, "no")
    conflict = ConflictError("no", task_id="a", paths=["x", "y"], other="b")
    assert (conflict.paths, conflict.other, conflict.result) == (("x", "y"), "b", None)


def test_a_git_error_says_what_was_run_and_what_git_said_shortened() -> None:
    error = GitError(["merge-tree", "a", "b"], 128, "fatal: no\n")
    assert str(error) == "git merge-tree a b failed (128): fatal: no"
    assert (error.argv, error.returncode, error.stderr) == (("merge-tree", "a", "b"), 128, "fatal: no\n")
    assert str(GitError(["x"], 1, " ")) == "git x failed (1): it said nothing"
    assert len(str(GitError(["x" * 9_000], 1, "y" * 9_000))) < 2_300


def test_who_holds_the_run_is_known() -> None:
    assert RunLocked("held", pid=42).pid == 42
    assert RunLocked("held").pid is None


def test_a_group_of_task_errors_is_split_as_any_group() -> None:
    conflict = ConflictError("clash", task_id="a")
    skipped = TaskSkipped("skipped", task_id="b")
    groups: list[BaseException] = []
    try:
        raise TaskGroupError("2 of 3 tasks did not succeed", [conflict, skipped])
    except* ConflictError as group:
        groups.append(group)
    except* TaskError as group:
        groups.append(group)
    assert all(isinstance(group, TaskGroupError) for group in groups)
    assert [group.exceptions for group in groups if isinstance(group, TaskGroupError)] == [
        (conflict,),
        (skipped,),
    ]
    assert {str(group) for group in groups} == {"2 of 3 tasks did not succeed (1 sub-exception)"}
