from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from agentful import errors
from agentful.cli.exits import Exit, Fault, end_with, outcome
from agentful.events import AttemptAsked, CancelRequested, LandingRejected
from agentful.model import Reason, Task
from progressutil import START, Story

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def ended(run: Callable[[], object]) -> int:
    with pytest.raises(SystemExit) as left:
        end_with(run)
    assert isinstance(left.value.code, int)
    return left.value.code


def raising(error: BaseException) -> Callable[[], object]:
    def run() -> object:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.PlanError("a cycle", where="plan.yaml:3"), 2),
        (errors.ConfigError("no such key"), 2),
        (errors.AgentError("claude is missing"), 2),
        (errors.RunLocked("it is live"), 2),
        (errors.JournalError("damaged"), 1),
        (errors.WorkspaceError("no room"), 1),
        (errors.GitError(["merge"], 128, "no"), 1),
        (errors.ConflictError("a.py", task_id="x"), 4),
        (errors.ChecksFailed("red", task_id="x"), 4),
        (errors.BudgetExceeded("no money"), 5),
        (Fault("there is no task"), 2),
        (Fault("later", Exit.FAILED), 1),
    ],
)
def test_errors_of_ours(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(raising(error)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {error}\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (click.UsageError("no"), 2, "error: no"),
        (click.Abort(), 130, ""),
        (KeyboardInterrupt(), 130, ""),
        (FileNotFoundError(2, "No such file or directory", "/nowhere"), 2, "/nowhere: No such file"),
        (errors.InvalidTransition("waiting to done"), 70, "bug: InvalidTransition: waiting to done"),
        (ZeroDivisionError("by zero"), 70, "bug: ZeroDivisionError: by zero"),
        (OSError(28, "No space left on device"), 70, "bug: OSError"),
    ],
)
def test_other_ends(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(raising(error)) == code
    assert said in capsys.readouterr().err


def test_a_bug_says_where_the_journal_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".agentful").mkdir()
    (tmp_path / ".agentful" / "journal.db").touch()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert ended(raising(TypeError("oops"))) == 70
    said = capsys.readouterr().err
    assert str(tmp_path / ".agentful" / "journal.db") in said
    assert "Traceback" not in said
    assert "AGENTFUL_DEBUG=1" in said


@pytest.mark.parametrize("error", [TypeError("oops"), errors.PlanError("oops"), OSError(5, "oops")])
def test_whoever_wants_a_traceback_gets_one(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTFUL_DEBUG", "1")
    if isinstance(error, OSError):
        error = OSError(13, "oops")
    with pytest.raises(type(error)):
        end_with(raising(error))


def test_a_result_is_an_exit_code() -> None:
    assert ended(lambda: None) == 0
    assert ended(lambda: Exit.DECISION) == 3
    assert ended(lambda: "text") == 0


def one(**options: object) -> Story:
    return Story(Task("a", "x", id="one"), Task("a", "x", id="two", needs=("one",)), **options)


def test_what_a_run_came_to() -> None:
    story = one()
    assert outcome(story.view) is Exit.INTERRUPTED
    story.land("one", 1)
    story.land("two", 2)
    assert outcome(story.view) is Exit.DONE

    story = one()
    story.fail("one", 1, "no")
    assert outcome(story.view) is Exit.FAILED

    story = one()
    story.tell(CancelRequested(START, None))
    story.fail("one", 1, "ended")
    assert outcome(story.view) is Exit.FAILED

    story = one()
    story.tell(AttemptAsked(START, "one", 1, "Which?"))
    assert outcome(story.view) is Exit.DECISION
    assert outcome(story.view, interrupted=True) is Exit.INTERRUPTED


@pytest.mark.parametrize("reason", [Reason.CONFLICT, Reason.CHECKS_FAILED])
def test_a_run_that_only_landings_stopped(reason: Reason) -> None:
    story = one(on_conflict="fail", conflict_retries=0)
    story.finish("one", 1)
    story.tell(LandingRejected(START + 2, "one", reason, "red"))
    assert outcome(story.view) is Exit.CONFLICT


def test_a_run_whose_time_was_up() -> None:
    story = one()
    story.tell(CancelRequested(START, None, Reason.RUN_TIMEOUT))
    story.fail("one", 1, "ended")
    assert outcome(story.view) is Exit.LIMIT
