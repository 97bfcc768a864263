"""The keyword arguments of the API, for type checkers and editors: their checking is in ``config``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path
    from typing import TypeAlias

    from ..drivers.base import Driver, FunctionDriver
    from ..model import Agent, Named, Task
    from .handle import Progress

    Wish: TypeAlias = Task | Mapping[str, Any]
    """A task, or a mapping with its fields."""
    Played: TypeAlias = Driver | FunctionDriver | Callable[..., Any]
    Player: TypeAlias = Agent | Played | Mapping[str, Any]
    """Who plays a role."""


class TaskFields(TypedDict, total=False):
    """The fields of :class:`~agentful.Task` beside its agent and its prompt."""

    id: str
    needs: str | Named | Iterable[str | Named]
    writes: str | Iterable[str]
    resources: str | Iterable[str]
    run: str
    timeout: float | timedelta | None
    retries: int | None
    priority: int
    estimate: float | timedelta | None
    checks: str | Sequence[str] | None
    reads_only: bool
    affinity: str | None
    speculative: bool


class RunFields(TaskFields, total=False):
    """What `run` takes: a task's fields, and of a group's settings those that one task can use."""

    agents: Mapping[str, Player]
    driver: Played | None
    land: bool | None
    on_progress: Callable[[str, Progress], object] | None
    repository: str | Path | None
    title: str


class PoolOptions(TypedDict, total=False):
    """What `AgentPool` takes beside its slots: the settings of a run, and what only code can say."""

    mode: Literal["auto", "parallel", "sequential"] | None
    fail_fast: bool | None
    timeout: float | timedelta | None
    task_timeout: float | timedelta | None
    retries: int | None
    retry_delay: float | timedelta | None
    conflicts: Literal["auto", "avoid", "optimistic"] | None
    conflict_retries: int | None
    on_failure: Literal["fail", "decide"] | None
    on_conflict: Literal["fail", "decide"] | None
    checks: str | Sequence[str] | None
    check_timeout: float | timedelta | None
    setup: str | Sequence[str] | None
    scope: Literal["warn", "fail"] | None
    base: str | None
    land: bool | None
    workspaces: str | Path | None
    agents: Mapping[str, Player] | None
    driver: Played | None
    on_progress: Callable[[str, Progress], object] | None
    repository: str | Path | None
    title: str


class GroupOptions(PoolOptions, total=False):
    """What `TaskGroup` takes beside its tasks."""

    max_concurrency: int | Literal["auto"] | None
