"""How a command ends: its exit code, and what it says when something went wrong.

This is the one place where errors turn into words and numbers. The numbers are API:

    0    done
    1    tasks failed
    2    usage, or a plan or a setting that cannot be used; nothing was started
    3    waits for a decision
    4    a conflict or red checks stopped the landing
    5    a limit of time or budget was met
    70   a bug of ours
    130  interrupted; `agentful resume` goes on
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import sys
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..errors import (
    AgentError,
    AgentfulError,
    BudgetExceeded,
    ChecksFailed,
    ConfigError,
    ConflictError,
    InvalidTransition,
    PlanError,
    RunLocked,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ..core.view import RunView

__all__ = ["Exit", "Fault", "debugging", "end_with", "nearest", "outcome"]


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    DECISION = 3
    CONFLICT = 4
    LIMIT = 5
    BUG = 70
    INTERRUPTED = 130


class Fault(AgentfulError):
    """A command cannot do what it was asked for; ``code`` is what it exits with."""

    def __init__(self, message: str, code: int = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code


def outcome(view: RunView, *, interrupted: bool = False) -> Exit:
    """What a run came to, as an exit code. ``interrupted`` says that a person stopped it."""
    from ..model import Reason, State

    if view.done == view.total:
        if view.counts[State.SUCCEEDED] == view.total:
            return Exit.DONE
        reasons = {
            record.reason
            for record in view.records.values()
            # What was skipped, or cancelled for somebody else's failure, is not why the run failed.
            if record.state in (State.FAILED, State.CANCELLED) and record.reason is not Reason.FAIL_FAST
        }
        if Reason.RUN_TIMEOUT in reasons:
            return Exit.LIMIT
        if reasons and reasons <= {Reason.CONFLICT, Reason.CHECKS_FAILED}:
            return Exit.CONFLICT
        return Exit.FAILED
    if interrupted or not view.open_decisions():
        return Exit.INTERRUPTED
    return Exit.DECISION


def debugging() -> bool:
    """Whether the user wants to see tracebacks."""
    return os.environ.get("AGENTFUL_DEBUG", "") not in ("", "0")


def end_with(run: Callable[[], Any]) -> NoReturn:
    """Run a command to its end, and exit with its code. No error leaves as a traceback."""
    try:
        result = run()
        # Flush here, so that a reader that went away is met here.
        sys.stdout.flush()
        code = int(result) if isinstance(result, int) else Exit.DONE
    except click.ClickException as error:
        code = _usage(error)
    except (click.Abort, KeyboardInterrupt):
        code = Exit.INTERRUPTED
    except AgentfulError as error:
        if debugging():
            raise
        code = _refused(error)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            if debugging():
                raise
            code = _bug(error) if error.filename is None else _say(f"{error.filename}: {error.strerror}", 2)
        else:
            # Nobody reads any more, or the terminal is gone. Python would complain once more as it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = Exit.FAILED
    except Exception as error:
        if debugging():
            raise
        code = _bug(error)
    sys.exit(int(code))


def _usage(error: click.ClickException) -> int:
    message = error.format_message().rstrip()
    context = getattr(error, "ctx", None)
    if context is not None and message:
        message += f"\ntry:   {context.command_path} --help"
    return _say(message, error.exit_code if isinstance(error, click.UsageError) else Exit.USAGE)


def _refused(error: AgentfulError) -> int:
    match error:
        case Fault(code=code):
            return _say(str(error), code)
        case InvalidTransition():
            return _bug(error)
        case BudgetExceeded():
            return _say(str(error), Exit.LIMIT)
        case ConflictError() | ChecksFailed():
            return _say(str(error), Exit.CONFLICT)
        case PlanError() | ConfigError() | AgentError() | RunLocked():
            return _say(str(error), Exit.USAGE)
        case _:
            return _say(str(error), Exit.FAILED)


def _say(message: str, code: int) -> int:
    _write(f"{click.style('error:', fg='red', bold=True)} {_harmless(message)}")
    return code


def _bug(error: BaseException) -> int:
    _write(
        f"{click.style('bug:', fg='red', bold=True)} {type(error).__name__}: {_harmless(str(error))}\n"
        f"This is a fault of agentful's, not of yours.{_journal()}\n"
        "AGENTFUL_DEBUG=1 shows where it happened; please report it with that."
    )
    return Exit.BUG


def _harmless(message: str) -> str:
    """The message without control characters: an agent's file names and output may be in it."""
    return "".join(c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in message)


def _journal() -> str:
    """Where what was done is written down, from wherever in the repository the command was given."""
    try:
        here = Path.cwd()
    except OSError:
        return ""
    for folder in (here, *here.parents):
        journal = folder / ".agentful" / "journal.db"
        if journal.is_file():
            return f"\nNothing is lost: all that was done is in {journal}; `agentful resume` goes on."
    return ""


def _write(message: str) -> None:
    coloured = os.environ.get("NO_COLOR", "") == ""
    with contextlib.suppress(OSError):  # the terminal is gone
        click.echo(message, err=True, color=None if coloured else False)


def nearest(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown name: what was meant, perhaps."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
