"""A run that is open in this process, and the handles of its tasks: what the API's classes share."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import time
from collections import deque
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct
from msgspec.structs import replace

from .. import config, drivers
from ..drivers.base import AgentMessage, AgentProgress, Driver, FunctionDriver
from ..drivers.python import PythonDriver
from ..errors import AgentError, PlanError
from ..events import DecisionClosed, DecisionOpened, TaskChanged
from ..model import Agent, Decision, Reason, State, Task, TaskResult
from ..runtime.git import Repository
from ..runtime.local import LocalRun
from ..runtime.run import LiveRun, RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    from ..drivers.base import AgentEvent
    from ..events import Transition

    Wish = Task | Mapping[str, Any]
    Player = Agent | Driver | FunctionDriver | Callable[..., Any] | Mapping[str, Any]

_log = logging.getLogger("agentful")

current_host: ContextVar[Host | None] = ContextVar("agentful_group", default=None)
"""The host of the group that the running code is in the block of."""
default_driver: ContextVar[Any] = ContextVar("agentful_driver", default=None)
"""What plays the agents that are defined nowhere: set by :func:`agentful.testing.use_driver`."""
default_clock: ContextVar[Callable[[], float]] = ContextVar("agentful_clock", default=time.time)
"""The wall clock of new runs: another one under :func:`agentful.testing.run_virtual`."""

_BRANCHES: dict[str, str] = {}
"""The integration branch that this process lands on, for each repository."""


class Progress(Struct, frozen=True):
    """A task came into a new state, or its agent said how far it is."""

    task: Task
    state: State
    done: int
    """How many tasks of the group have ended."""
    total: int
    percentage: float | None = None
    """How far the agent says that it is, 0 to 100; ``None`` where it does not say."""
    message: str = ""
    reason: Reason | None = None
    at: float = 0.0
    """Seconds since the epoch."""

    @property
    def agent(self) -> str:
        return self.task.agent


class Results(tuple["TaskResult", ...]):
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
        """Those that failed; not those that were cancelled or skipped."""
        return Results(result for result in self if result.state is State.FAILED)

    def __getitem__(self, key: Any) -> Any:
        """By position, or by the task's id."""
        if isinstance(key, str):
            for result in self:
                if result.id == key:
                    return result
            raise KeyError(key)
        return super().__getitem__(key)


class TaskHandle:
    """A submitted task. Awaiting it gives its result, or raises its error."""

    def __init__(self, host: Host, task: Task) -> None:
        self.task = task
        self._host = host
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

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
        return self.ended.done()

    def cancel(self) -> None:
        """Have it stopped, with all its processes. Its partial work stays pinned."""
        self._host.run.cancel([self.id])

    def __await__(self) -> Generator[Any, None, TaskResult]:
        return self._wait().__await__()

    async def _wait(self) -> TaskResult:
        while not self.ended.done():
            # The host fails the waiting of all handles when its loop ends.
            await asyncio.shield(self.ended)
        self.ended.result()
        result = self.result
        if result.error is not None:
            raise result.error
        return result

    def __repr__(self) -> str:
        return f"<TaskHandle {self.id!r} {self.state.value}>"


class Host:
    """A run that is open in this process, and the handles of its tasks."""

    def __init__(
        self,
        *,
        repository: str | Path | None,
        given: Mapping[str, Any],
        agents: Mapping[str, Player] | None,
        driver: Any,
        title: str,
    ) -> None:
        self.handles: dict[str, TaskHandle] = {}
        self.asked: dict[str, asyncio.Future[str]] = {}
        self._numbers = itertools.count(1)
        self._listeners: list[Callable[[Progress], object]] = []
        self._waiters: set[asyncio.Future[None]] = set()
        self._questions: deque[tuple[Decision, asyncio.Future[str]]] = deque()
        self._driver = driver if driver is not None else default_driver.get()
        self._players = {name: _player(name, player) for name, player in (agents or {}).items()}
        self.repo = None if repository is None else Repository.discover(repository)
        settings = config.load_settings(None if self.repo is None else self.repo.root, flags=given)
        self.options = settings.options(retries=0, on_conflict="fail")
        self.agents: dict[str, Agent] = {}
        if self.repo is not None:
            self.agents = config.load_agents(self.repo.root, settings)
        for name, player in self._players.items():
            self.agents[name] = player if isinstance(player, Agent) else Agent(name=name, driver="python")
        if self.repo is None:
            self.run: LocalRun | LiveRun = LocalRun(
                self.options, agents=self.agents, driver_for=self._driver_for
            )
            return
        spec = RunSpec(
            tasks=(),
            agents=self.agents,
            options=self.options,
            setup=settings.setup,
            check_timeout=settings.check_timeout,
            title=title,
            base=settings.base,
        )
        self.run = LiveRun.create(
            self.repo,
            spec,
            branch=None if settings.base else _continued(self.repo),
            driver_for=self._driver_for,
            workspaces=settings.workspace_folder,
        )

    async def __aenter__(self) -> Self:
        await self.run.__aenter__()
        if isinstance(self.run, LiveRun):
            _BRANCHES[str(self.run.repo.git_dir)] = self.run.info.branch
        self.run.watch(self._on_transitions)
        self.run.on_progress(self._on_progress)
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self.run.__aexit__(*exc)
        finally:
            for handle in self.handles.values():
                if not handle.ended.done():
                    handle.ended.cancel()
            for question in self.asked.values():
                question.cancel()

    # --- tasks -------------------------------------------------------------------------------------

    def submit(self, wishes: Sequence[Wish]) -> list[TaskHandle]:
        """Submit tasks that may need one another, in any order. All of them, or none."""
        tasks = [self._named(_task(wish, index)) for index, wish in enumerate(wishes)]
        for task in tasks:
            self._check_agent(task)
        self.run.submit(tasks)
        handles = [TaskHandle(self, task) for task in tasks]
        self.handles.update((handle.id, handle) for handle in handles)
        return handles

    def _named(self, task: Task) -> Task:
        task = config.with_agent_defaults(task, self.agents)
        if task.id:
            return task
        while True:
            name = f"{task.agent or 'run'}-{next(self._numbers)}"
            if name not in self.handles:
                return replace(task, id=name)

    def _check_agent(self, task: Task) -> None:
        if task.run is not None or task.agent in self.agents or self._driver is not None:
            return
        config.check_agent(task.agent, self.agents, where=f"task {task.id!r}")

    def _driver_for(self, agent: Agent) -> Driver | FunctionDriver:
        player = self._players.get(agent.name)
        if player is not None and not isinstance(player, Agent):
            return _driver(player)
        if self._driver is not None and agent.name not in self.agents and not agent.command:
            return _driver(self._driver)
        if agent.driver == "python":
            raise AgentError(f"the agent {agent.name!r} is a function of a program that is not running")
        return drivers.driver_for(agent)

    def result(self, task_id: str) -> TaskResult:
        record = self.run.view.records.get(task_id)
        if record is not None:
            return record.result()
        return TaskResult(task=self.handles[task_id].task, state=State.WAITING)

    def results(self) -> Results:
        return Results(self.result(task_id) for task_id in self.handles)

    # --- waiting -----------------------------------------------------------------------------------

    async def settle(self, ids: Iterable[str] | None = None) -> None:
        """Wait until these tasks, or all, have ended. A person's answer is waited for, too."""
        wanted = list(self.handles if ids is None else ids)
        engine = self.run.engine
        while engine.error is None and not all(self.handles[i].done for i in wanted):
            if engine.idle and engine.scheduler.paused:
                # Somebody told the run to stop: what has not started will not start here.
                self.run.cancel(reason=Reason.INTERRUPTED)
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(change)
            idle = None if engine.idle else asyncio.ensure_future(self.run.wait())
            try:
                waits = {change} if idle is None else {change, idle}
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._waiters.discard(change)
                if idle is not None:
                    idle.cancel()
        if engine.error is not None:
            raise engine.error

    def _on_transitions(self, transitions: Sequence[Transition]) -> None:
        view = self.run.view
        for transition in transitions:
            if isinstance(transition, TaskChanged):
                handle = self.handles.get(transition.task_id)
                if handle is None:
                    continue
                record = view.records[transition.task_id]
                if record.state.settled and not handle.done:
                    handle.ended.set_result(None)
                self._publish(record.task, transition.target, None, record.message, transition.reason)
            elif isinstance(transition, DecisionOpened):
                decision = transition.decision
                _log.warning(
                    "%s waits for an answer: %s (agentful decide %s)",
                    decision.id,
                    decision.question,
                    decision.id,
                )
                if decision.kind == "ask" and self._questions and self._questions[0][0] == _bare(decision):
                    self.asked[decision.id] = self._questions.popleft()[1]
            elif isinstance(transition, DecisionClosed):
                question = self.asked.pop(transition.decision_id, None)
                if question is not None and not question.done():
                    question.set_result(transition.answer)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def ask(self, decision: Decision) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._questions.append((decision, answer))
        self.run.ask(decision)
        return await answer

    # --- progress ----------------------------------------------------------------------------------

    def listen(self, listener: Callable[[Progress], object]) -> Callable[[], None]:
        """Have ``listener`` called with progress; call what comes back to end that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _on_progress(self, task_id: str, event: AgentEvent) -> None:
        record = self.run.view.records.get(task_id)
        if record is None or task_id not in self.handles:
            return
        if isinstance(event, AgentProgress):
            self._publish(record.task, record.state, event.percentage, event.message, None)
        elif isinstance(event, AgentMessage):
            self._publish(record.task, record.state, None, event.text, None)

    def _publish(
        self, task: Task, state: State, percentage: float | None, message: str, reason: Reason | None
    ) -> None:
        if not self._listeners:
            return
        view = self.run.view
        progress = Progress(task, state, view.done, view.total, percentage, message, reason, view.at)
        for listener in list(self._listeners):
            listener(progress)


def _continued(repo: Repository) -> str | None:
    """The branch that this process landed on before, if what is checked out has not gone past it."""
    branch = _BRANCHES.get(str(repo.git_dir))
    tip = repo.ref(branch) if branch is not None else None
    return branch if tip is not None and repo.is_ancestor(repo.head(), tip) else None


def _task(wish: Wish, index: int) -> Task:
    return wish if isinstance(wish, Task) else config.task_from_dict(wish, index)


def _player(name: str, player: Any) -> Any:
    if isinstance(player, Mapping):
        return config.agent_from_dict(name, player)
    if isinstance(player, Agent):
        return player if player.name == name else replace(player, name=name)
    if isinstance(player, Driver | FunctionDriver) or callable(player):
        return player
    raise PlanError(f"agent {name!r} is neither an Agent, a driver nor a function, but {player!r:.80}")


def _driver(player: Any) -> Driver | FunctionDriver:
    if isinstance(player, Driver | FunctionDriver) and not inspect.isclass(player):
        return player
    return PythonDriver(player)


def _bare(decision: Decision) -> Decision:
    """A decision as it was before it was given an id and a time."""
    return replace(decision, id="", asked_at=0.0)
