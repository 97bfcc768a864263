"""Who plays a role: an agent of the repository's, or what code gives in its place."""

from __future__ import annotations

import copy
import inspect
import unicodedata
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import replace

from .. import config, drivers
from ..drivers.base import Driver, FunctionDriver
from ..drivers.python import PythonDriver
from ..errors import AgentError, PlanError
from ..model import Agent

if TYPE_CHECKING:
    from .fields import Played, Player

Make = Callable[[Agent], Driver | FunctionDriver]
"""Makes the driver of one attempt."""


class Cast:
    """Who plays which role in one run.

    Parameters
    ----------
    known
        The agents that the repository, or the user, defines.
    given
        What code says for a role, which comes before those.
    driver
        What plays the roles that nobody else can: they are defined nowhere, or without a command.
    """

    def __init__(
        self, known: Mapping[str, Agent], given: Mapping[str, Player] | None, driver: Played | None
    ) -> None:
        self.agents = dict(known)
        self._makers: dict[str, Make] = {}
        self._default = None if driver is None else _maker("driver", driver)
        players: Any = given or {}
        if not isinstance(players, Mapping):
            raise PlanError(f"agents are a mapping of names to who plays them, not {players!r:.80}")
        for key, player in cast("Mapping[str, Player]", players).items():
            name = unicodedata.normalize("NFC", key)
            self._makers.pop(name, None)
            if isinstance(player, Agent):
                self.agents[name] = _checked(name, player)
            elif isinstance(player, Mapping):
                self.agents[name] = config.agent_from_dict(name, cast("Any", player))
            else:
                self.agents[name] = Agent(name=name, driver="python")
                self._makers[name] = _maker(f"agents[{name!r}]", player)

    def check(self, name: str, *, where: str) -> None:
        """Raise :class:`PlanError` where nobody plays this role, or who does cannot be started."""
        if name not in self._makers and not self._by_default(name):
            config.check_agent(name, self.agents, where=where)

    def driver_for(self, agent: Agent) -> Driver | FunctionDriver:
        """The driver of one attempt. Raises :class:`AgentError` where there is none."""
        make = self._makers.get(agent.name)
        if make is None and self._by_default(agent.name):
            make = self._default
        if make is not None:
            try:
                return make(agent)
            except Exception as error:
                raise AgentError(f"the driver of {agent.name!r} cannot be made: {error!r:.500}") from error
        if agent.driver == "python":
            raise AgentError(f"the agent {agent.name!r} is a function of a program that is not running")
        return drivers.driver_for(agent)

    def _by_default(self, name: str) -> bool:
        if self._default is None:
            return False
        agent = self.agents.get(name)
        return agent is None or (agent.driver == "command" and not agent.command)


def _checked(name: str, agent: Agent) -> Agent:
    """An agent that code made, with its fields checked as those of a mapping are."""
    blank = Agent(name=name)
    said = {field: getattr(agent, field) for field in Agent.__struct_fields__ if field != "name"}
    said = {field: value for field, value in said.items() if value != getattr(blank, field)}
    source = said.pop("source", "")
    return replace(config.agent_from_dict(name, said), source=source)


def _maker(label: str, player: Any) -> Make:
    """How the driver of one attempt is made from what code gave for a role."""
    is_class = inspect.isclass(player)
    if is_class and isinstance(player, Driver | FunctionDriver):
        return cast("Make", player)
    if isinstance(player, FunctionDriver):
        shared: FunctionDriver = player
        return lambda _agent: shared
    if isinstance(player, Driver):
        # It may keep what it reads, and is for one attempt: each gets it as it is now.
        pristine = _copied(player, label)
        return lambda _agent: copy.deepcopy(pristine)
    if not callable(player):
        kinds = (
            "a function nor a driver" if label == "driver" else "an agent, a mapping, a function nor a driver"
        )
        raise PlanError(f"{label} is neither {kinds}: {player!r:.80}")
    try:
        PythonDriver(player)
    except TypeError as error:
        raise PlanError(f"{label}: {error}") from None
    return lambda _agent: PythonDriver(player)


def _copied(driver: Driver, label: str) -> Driver:
    try:
        return copy.deepcopy(driver)
    except Exception as error:
        raise PlanError(
            f"{label}: this driver cannot be copied for each attempt ({error}); give its class, "
            "which is called with the agent"
        ) from error
