"""One agent client a file; pure: arguments out, output lines in, agent events out.

What an agent that is a Python function is given, may emit and may return is here, too.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from ..errors import AgentError
from .base import (
    AgentEvent,
    AgentMessage,
    AgentOutput,
    AgentProgress,
    AgentQuestion,
    AgentSummary,
    AgentUsage,
    Attempt,
    Driver,
    FunctionDriver,
    Outcome,
    ProcessSpec,
)
from .command import CommandDriver
from .python import PythonDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..model import Agent

__all__ = [
    "DRIVERS",
    "AgentEvent",
    "AgentMessage",
    "AgentOutput",
    "AgentProgress",
    "AgentQuestion",
    "AgentSummary",
    "AgentUsage",
    "Attempt",
    "CommandDriver",
    "Driver",
    "FunctionDriver",
    "Outcome",
    "ProcessSpec",
    "PythonDriver",
    "driver_for",
]

DRIVERS: Mapping[str, Callable[[Agent], Driver]] = {
    "command": CommandDriver,
}
"""What an agent's ``driver`` may be, and what makes such a driver for one attempt."""


def driver_for(agent: Agent) -> Driver:
    """A driver for one attempt of this agent.

    Raises `AgentError` where its driver is not known.
    """
    make = DRIVERS.get(agent.driver)
    if make is not None:
        return make(agent)
    where = f" ({agent.source})" if agent.source else ""
    if agent.driver == "python":
        raise AgentError(f"agent {agent.name!r}{where} is a Python function: it can only be given in Python")
    near = get_close_matches(agent.driver, DRIVERS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise AgentError(
        f"agent {agent.name!r}{where} has the unknown driver {agent.driver!r}; "
        f"known are: {', '.join(sorted(DRIVERS))}{hint}"
    )
