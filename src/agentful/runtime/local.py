"""A run without a repository: in memory, in the current folder, gone when the process is."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from .. import drivers
from ..core.scheduler import Scheduler
from ..model import Options
from .engine import Engine
from .inplace import InPlace
from .journal import MemoryJournal
from .process import Supervisor
from .verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..drivers.base import Driver, FunctionDriver
    from ..events import Transition
    from ..model import Agent


class LocalRun(Verbs):
    """A run that keeps nothing: for functions and commands that need no repository."""

    def __init__(
        self,
        options: Options | None = None,
        *,
        agents: Mapping[str, Agent] | None = None,
        driver_for: Callable[[Agent], Driver | FunctionDriver] | None = None,
        folder: Path | None = None,
        journal: Any = None,
        containment: Literal["auto", "group"] = "auto",
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock)
        self.id = f"local-{secrets.token_hex(3)}"
        self._options = options or Options()
        self._agents = agents or {}
        self._driver_for = driver_for or drivers.driver_for
        self._folder = folder or Path.cwd()
        self._journal = MemoryJournal() if journal is None else journal
        self._containment: Literal["auto", "group"] = containment

    async def __aenter__(self) -> Self:
        supervisor = Supervisor(containment=self._containment)
        performer = InPlace(
            self.id,
            self._folder,
            supervisor,
            self._agents,
            self._driver_for,
            self._tell_progress,
            self._clock,
        )
        self.engine = Engine(Scheduler(self._options), self._journal, performer, clock=self._clock)
        self.engine.watch(self._on_transitions)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.engine.close()

    def _on_transitions(self, transitions: Sequence[Transition]) -> None:
        for transition in transitions:
            self.view.apply(transition)
        self._tell(transitions)
