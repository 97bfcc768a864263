"""What a group hands out: a task's handle, its progress, the results."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from msgspec import Struct

from ..errors import TaskGroupError
from ..model import Reason, State, Task, TaskResult

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from ..errors import TaskError
    from .host import Host


class Progress(Struct, frozen=True):
    """A task came into a new state, or its agent said something."""

    task: Task
    state: State
    done: int
    """How many tasks of the group have ended."""
    total: int
    percentage: float | None = None
    """How far its agent last said that it is, 0 to 100; 100 once it has succeeded. ``None`` where its
    agent has not said."""
    message: str = ""
    reason: Reason | None = None
    at: float = 0.0
    """Seconds since the epoch."""

    @property
    def agent(self) -> str:
        return self.task.agent


class Results(tuple[TaskResult, ...]):
    """The results of a group, in the order of submission."""

    __slots__ = ()

    @property
    def ok(self) -> bool:
        """Whether every task succeeded."""
        return all(result.ok for result in self)

    @property
    def succeeded(self) -> Results:
        return Results(result for result in self if result.ok)

    @property
    def failed(self) -> Results:
        """Those that failed, or for which the time of the group was up; not those that were cancelled or
        skipped for another reason."""
        return Results(result for result in self if is_failure(result))

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> TaskResult: ...

    @overload
    def __getitem__(self, key: slice, /) -> Results: ...

    @overload
    def __getitem__(self, key: str, /) -> TaskResult: ...

    def __getitem__(self, key: SupportsIndex | slice | str, /) -> TaskResult | Results:
        """By position, or by the task's id. Raises ``IndexError`` or ``KeyError`` where there is none."""
        if isinstance(key, str):
            for result in self:
                if result.id == key:
                    return result
            raise KeyError(key)
        if isinstance(key, slice):
            return Results(super().__getitem__(key))
        return super().__getitem__(key)


def is_failure(result: TaskResult) -> bool:
    """Whether a group raises the error of this result."""
    return result.state is State.FAILED or (result.reason is Reason.RUN_TIMEOUT and result.state.settled)


def group_error(errors: Sequence[TaskError], total: int) -> TaskGroupError:
    """What a group of ``total`` tasks raises."""
    plural = "task" if total == 1 else "tasks"
    return TaskGroupError(f"{len(errors)} of {total} {plural} did not succeed", errors)


class TaskHandle:
    """A submitted task. Awaiting it gives its result, or raises its :class:`~agentful.TaskError`.

    To stop waiting is not to stop the task: that is :meth:`cancel`.
    """

    def __init__(self, host: Host, task: Task) -> None:
        self.task = task
        self._host = host
        self.seen = False
        """Whether somebody has waited for it, and so knows its error."""
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        """Done once it has ended; with a problem, where it will not come to its end here."""

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def result(self) -> TaskResult:
        """What is known of it so far."""
        return self._host.result(self.id)

    @property
    def state(self) -> State:
        return self.result.state

    @property
    def done(self) -> bool:
        """Whether it has ended, or its group has without it."""
        return self.ended.done()

    def cancel(self) -> None:
        """Have it stopped, with all its processes. Its partial work stays pinned."""
        self._host.cancel([self.id])

    def __await__(self) -> Generator[Any, None, TaskResult]:
        return self._get().__await__()

    async def _get(self) -> TaskResult:
        result = await self.wait()
        problem = self.ended.result() or result.error
        if problem is not None:
            raise problem
        return result

    async def wait(self) -> TaskResult:
        """Wait until it has ended, well or not, and say what became of it. Raises nothing for that."""
        self.seen = True
        while not self.ended.done():
            # Waiting for it in this way leaves it alone when the wait is cancelled.
            await asyncio.wait((self.ended,))
        return self.result

    # --- for the host ------------------------------------------------------------------------------

    def end(self, problem: BaseException | None = None) -> None:
        """It has ended, or will not."""
        if not self.ended.done():
            self.ended.set_result(problem)

    def begin_again(self) -> None:
        """It had ended, and somebody asked for it to be run again."""
        if self.ended.done():
            self.ended = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<TaskHandle {self.id!r} {self.state.value}>"
