"""What the acts of one run share: the repository, the agents, the supervisor, the places to write to."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from ..drivers.base import AgentEvent, Driver, FunctionDriver
    from ..model import Agent, Task
    from .git import Repository
    from .process import Supervisor
    from .redact import Redactor
    from .workspace import Workspaces

P = ParamSpec("P")
T = TypeVar("T")


def _ignore(_task_id: str, _event: AgentEvent) -> None:
    """Nobody watches."""


@dataclass(slots=True, kw_only=True)
class Context:
    """Where and with what the acts of a run are carried out."""

    run: str
    branch: str
    """The integration branch, as a full ref name."""
    base: str
    """The commit that it began at."""
    repo: Repository
    workspaces: Workspaces
    supervisor: Supervisor
    agents: Mapping[str, Agent]
    driver_for: Callable[[Agent], Driver | FunctionDriver]
    logs: Path
    redactor: Redactor
    setup: Sequence[str] = ()
    checks: Sequence[str] = ()
    check_timeout: float = 1800.0
    pool: Executor | None = None
    """Where blocking work is done: git, mostly."""
    clock: Callable[[], float] = time.time
    on_progress: Callable[[str, AgentEvent], None] = field(default=_ignore)

    async def blocking(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something that blocks, beside the loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.pool, lambda: function(*args, **kwargs))

    def checks_of(self, task: Task) -> Sequence[str]:
        """The commands that the merged tree has to pass for this task to land."""
        return self.checks if task.checks is None else task.checks

    def marker(self, *parts: Any) -> str:
        """The environment marker of the processes of one act: ``run/task/attempt``."""
        return "/".join([self.run, *map(str, parts)])
