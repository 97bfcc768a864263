"""What can go wrong, as a tree.

    AgentfulError
      PlanError (ValueError)        nothing ran: a cycle, an unknown need, one id twice, a bad field
      ConfigError (ValueError)      a file says something we cannot use: where, what was expected
      TaskError                     .task_id  .result
        TaskFailed                  the agent gave up, or its process failed
          ChecksFailed              it merged, and the merged tree did not pass
          ConflictError             .paths  .other
        TaskTimeout (TimeoutError)
        TaskCancelled
        TaskSkipped                 a task it needs did not succeed
      AgentError                    a client is missing, logged out, or says what we cannot read
      GitError                      git said no: .argv  .returncode  .stderr
      WorkspaceError                a workspace could not be opened, kept or removed
      JournalError                  locked by a live run, or damaged
      BudgetExceeded
      InvalidTransition             a bug of ours; prints the task's story
    TaskGroupError (ExceptionGroup) what a group raises, so that ``except* ConflictError`` works

Every message is for the person who reads it: what happened, where, and what to do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import TaskResult


class AgentfulError(Exception):
    """The root of every error that agentful raises on purpose."""


class PlanError(AgentfulError, ValueError):
    """A plan that cannot be run. Nothing was started.

    ``where`` names the place, as ``plan.yaml:12`` or ``task 'api'``, when there is one.
    """

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.where = where


class ConfigError(AgentfulError, ValueError):
    """A file or setting that cannot be used: which, where in it, what was expected instead."""

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.where = where


class TaskError(AgentfulError):
    """A task ended without success. ``result`` tells everything that is known of it."""

    def __init__(self, message: str, *, task_id: str, result: TaskResult | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.result = result


class TaskFailed(TaskError):
    """The agent gave up, changed nothing, or its process failed, as often as it was allowed to."""


class ChecksFailed(TaskFailed):
    """The work merged cleanly, and the merged tree did not pass the checks."""


class ConflictError(TaskFailed):
    """The work does not merge with what landed before it.

    ``paths`` are those in conflict; ``other`` is the id of the task that landed the other side, where
    one did.
    """

    def __init__(
        self,
        message: str,
        *,
        task_id: str,
        result: TaskResult | None = None,
        paths: Sequence[str] = (),
        other: str | None = None,
    ) -> None:
        super().__init__(message, task_id=task_id, result=result)
        self.paths = tuple(paths)
        self.other = other


class TaskTimeout(TaskError, TimeoutError):
    """The task, or the group it was in, ran out of its time."""


class TaskCancelled(TaskError):
    """The task was cancelled: by name, with its group, or because a sibling failed."""


class TaskSkipped(TaskError):
    """The task never started, because a task that it needs did not succeed."""


class AgentError(AgentfulError):
    """An agent client cannot be used: it is missing, logged out, or its output makes no sense."""


class GitError(AgentfulError):
    """A git command of ours failed. ``stderr`` is what git said, shortened."""

    def __init__(self, argv: Sequence[str], returncode: int, stderr: str) -> None:
        said = stderr.strip() or "it said nothing"
        super().__init__(f"git {' '.join(argv)!s:.200} failed ({returncode}): {said:.2000}")
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stderr = stderr


class WorkspaceError(AgentfulError):
    """A workspace could not be opened, kept or removed."""


class JournalError(AgentfulError):
    """The journal cannot be used: a live run holds it, the disk is full, or it is damaged."""


class RunLocked(JournalError):
    """Another live process carries out this run. ``pid`` is that process, where it is known."""

    def __init__(self, message: str, *, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


class BudgetExceeded(AgentfulError):
    """A limit on money, tokens or time stopped the run."""


class InvalidTransition(AgentfulError):
    """The scheduler was about to do what its table does not allow: a bug of ours.

    The message has the task's story, which is what to put in the report.
    """


class TaskGroupError(ExceptionGroup[TaskError]):
    """Some tasks of a group did not succeed. Use it with ``except*``, as any exception group."""

    def derive(self, excs: Sequence[Any], /) -> TaskGroupError:  # type: ignore[override]
        return TaskGroupError(self.message, excs)
