"""Attempts without a repository: each runs where agentful was called, and nothing is landed.

For functions and commands that do not write to a repository, or that keep out of each other's way by
themselves. Everything else holds: needs, order, slots, resources, retries, timeouts, and that nothing
of a task outlives it.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..core import prompt
from ..drivers.base import AgentMessage, Attempt, FunctionDriver, Outcome
from ..errors import AgentError
from ..events import (
    AttemptAsked,
    AttemptFailed,
    AttemptLost,
    AttemptStopped,
    AttemptSucceeded,
    LandingLost,
    RecoverAttempt,
    StartAttempt,
)
from ..model import Reason
from .attempt import Tail, agent_of, call_function, driver_of, run_process
from .workspace import slug

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..drivers.base import AgentEvent, Driver
    from ..events import Command, Event
    from ..model import Agent
    from .engine import Stop
    from .process import Supervisor


class InPlace:
    """Carries out attempts in one folder."""

    def __init__(
        self,
        run: str,
        folder: Path,
        supervisor: Supervisor,
        agents: Mapping[str, Agent],
        driver_for: Callable[[Agent], Driver | FunctionDriver],
        on_progress: Callable[[str, AgentEvent], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.run = run
        self.folder = folder
        self.supervisor = supervisor
        self.agents = agents
        self.driver_for = driver_for
        self.on_progress = on_progress
        self.clock = clock

    async def perform(self, command: Command, stop: Stop) -> Event:
        if isinstance(command, StartAttempt):
            return await self._start(command, stop)
        if isinstance(command, RecoverAttempt):
            message = "its process ended with agentful's"
            return AttemptLost(self.clock(), command.task_id, command.attempt, message)
        return LandingLost(self.clock(), command.task_id, "there is no repository to land in")

    async def _start(self, command: StartAttempt, stop: Stop) -> Event:
        task, number = command.task, command.attempt
        agent = agent_of(task, self.agents)
        text = task.prompt if task.run is not None else prompt.build(command, agent)
        tail = Tail()

        def emit(event: AgentEvent) -> None:
            if isinstance(event, AgentMessage):
                tail.add(event.text)
            self.on_progress(task.id, event)

        attempt = Attempt(
            run=self.run,
            task=task,
            agent=agent,
            number=number,
            prompt=text,
            workspace=str(self.folder),
            prompt_file="",
            deadline=command.deadline,
        )
        try:
            driver = driver_of(task, agent, self.driver_for)
            if isinstance(driver, FunctionDriver):
                outcome = await call_function(driver, attempt, emit, stop)
            elif task.run is not None:
                outcome = await self._process(driver, attempt, emit, stop)
            else:
                with tempfile.TemporaryDirectory(prefix="agentful-") as folder:
                    file = Path(folder) / "prompt.md"
                    file.write_text(text, encoding="utf-8")
                    attempt = replace(attempt, prompt_file=str(file))
                    outcome = await self._process(driver, attempt, emit, stop)
        except AgentError as error:
            outcome = Outcome(ok=False, reason=Reason.AGENT_MISSING, message=str(error))
        at = self.clock()
        if outcome.question is not None:
            asked = outcome.question
            return AttemptAsked(at, task.id, number, asked.question, asked.options, None, outcome.usage)
        if outcome.ok:
            return AttemptSucceeded(
                at, task.id, number, None, (), (), outcome.summary, outcome.outputs, outcome.usage
            )
        if stop.requested:
            return AttemptStopped(at, task.id, number, None, outcome.usage)
        return AttemptFailed(
            at,
            task.id,
            number,
            outcome.reason or Reason.AGENT_FAILED,
            outcome.message,
            tail.text(),
            usage=outcome.usage,
        )

    async def _process(
        self, driver: Driver, attempt: Attempt, emit: Callable[[AgentEvent], None], stop: Stop
    ) -> Outcome:
        mark = f"{self.run}/{slug(attempt.task.id)}/{attempt.number}"
        return await run_process(self.supervisor, driver, attempt, mark, emit, stop)
