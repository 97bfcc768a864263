"""agentful: many coding agents in parallel on one repository, every result landed once, tested.

Importing this does nothing and loads nothing: a name is loaded when it is first used.

>>> from agentful import TaskGroup, run_sync
>>> result = run_sync("backend", "Implement the auth API")      # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .errors import (
        AgentError,
        AgentfulError,
        BudgetExceeded,
        ChecksFailed,
        ConfigError,
        ConflictError,
        GitError,
        InvalidTransition,
        JournalError,
        PlanError,
        RunLocked,
        TaskCancelled,
        TaskError,
        TaskFailed,
        TaskGroupError,
        TaskSkipped,
        TaskTimeout,
        WorkspaceError,
    )
    from .group import AgentPool, Progress, Results, TaskGroup, TaskHandle, ask, ask_sync, run, run_sync
    from .model import Agent, Decision, Options, Reason, State, Task, TaskResult, Usage

__all__ = [
    "Agent",
    "AgentError",
    "AgentPool",
    "AgentfulError",
    "BudgetExceeded",
    "ChecksFailed",
    "ConfigError",
    "ConflictError",
    "Decision",
    "GitError",
    "InvalidTransition",
    "JournalError",
    "Options",
    "PlanError",
    "Progress",
    "Reason",
    "Results",
    "RunLocked",
    "State",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskFailed",
    "TaskGroup",
    "TaskGroupError",
    "TaskHandle",
    "TaskResult",
    "TaskSkipped",
    "TaskTimeout",
    "Usage",
    "WorkspaceError",
    "__version__",
    "ask",
    "ask_sync",
    "run",
    "run_sync",
]

_MODULES = {
    "errors": (
        "AgentError AgentfulError BudgetExceeded ChecksFailed ConfigError ConflictError GitError "
        "InvalidTransition JournalError PlanError RunLocked TaskCancelled TaskError TaskFailed "
        "TaskGroupError TaskSkipped TaskTimeout WorkspaceError"
    ),
    "group": "AgentPool Progress Results TaskGroup TaskHandle ask ask_sync run run_sync",
    "model": "Agent Decision Options Reason State Task TaskResult Usage",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
