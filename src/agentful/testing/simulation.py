"""Whole plans in memory: the real scheduler and the real engine, and acts that only let time pass."""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from ..core import graph, policy
from ..core.scheduler import Scheduler
from ..core.view import RunView
from ..events import (
    AdvanceBranch,
    AttemptFailed,
    AttemptLost,
    AttemptStopped,
    AttemptSucceeded,
    DecisionAnswered,
    DecisionOpened,
    Landed,
    LandingLost,
    LandingPrepared,
    LandingRejected,
    PrepareLanding,
    RecoverAttempt,
    StartAttempt,
    TasksSubmitted,
    Transition,
)
from ..model import Decision, Options, Reason, State, Task, TaskResult
from ..runtime.engine import Engine
from ..runtime.inplace import InPlace
from ..runtime.journal import MemoryJournal
from ..runtime.process import Supervisor
from .virtual import EPOCH, clock, run_virtual

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..drivers.base import AgentEvent, FunctionDriver
    from ..events import Command, Event
    from ..runtime.engine import Stop

Durations = Mapping[str, float] | Callable[[Task], float]


class Simulated(Struct, frozen=True):
    """When one task ran. Seconds from the start of the run."""

    id: str
    state: State
    attempts: int
    start: float | None
    """When its first attempt started; ``None`` where none did."""
    finish: float | None
    """When it ended; ``None`` where it has not."""


class Simulation(Struct, frozen=True):
    """How a simulated run went."""

    slots: int
    makespan: float
    """Seconds from its start until nothing was left to do."""
    tasks: tuple[Simulated, ...]
    """In the order that they were given in."""
    results: tuple[TaskResult, ...]
    """The same."""
    decisions: tuple[Decision, ...]
    """Those that are still open: what does not go on waits for them."""
    transitions: tuple[Transition, ...]

    @property
    def finished(self) -> bool:
        """Whether every task has ended."""
        return all(task.state.settled for task in self.tasks)

    @property
    def sequential(self) -> float:
        """Seconds that its attempts and landings take one after the other."""
        return math.fsum(result.duration for result in self.results)

    def __getitem__(self, task_id: str) -> Simulated:
        for task in self.tasks:
            if task.id == task_id:
                return task
        raise KeyError(task_id)


def simulate(
    tasks: Sequence[Task],
    *,
    slots: int | None = None,
    options: Options | None = None,
    durations: Durations | None = None,
    driver: FunctionDriver | None = None,
    landing: float = 0.0,
    failures: Mapping[str, int] | None = None,
    conflicts: Mapping[str, int] | None = None,
    answer: Callable[[Decision], str | None] | None = None,
    seed: int | None = None,
    start: float = EPOCH,
) -> Simulation:
    """Run a plan in memory and in virtual time: the real scheduler and engine, and attempts that only wait.

    Parameters
    ----------
    tasks
        In any order, each with an id.
    slots
        How many attempts at once; ``None`` takes it from ``options``.
    durations
        Seconds that an attempt takes, by the task's id or by a function of the task. What it does not
        say takes the task's ``estimate``, else the default that plans are predicted with.
    driver
        Plays the attempts in place of ``durations``, each in an empty folder. What it leaves there is
        what it changed, and lands.
    landing
        Seconds that merging and checking take. Landings are one at a time.
    failures, conflicts
        How many attempts of a task fail before one does not, and how many of its landings conflict.
    answer
        Answers a decision at once, or leaves it open with ``None``.
    seed
        Draws the order of what happens at one instant.

    Raises
    ------
    PlanError
        The tasks are no plan.
    Deadlock
        A script hangs, and nothing is going to stop it.
    """
    graph.check(tasks)
    options = options or Options()
    if slots is not None:
        options = replace(options, max_concurrency=slots)
    world = _World(durations, driver, landing, failures or {}, conflicts or {})
    return run_virtual(_simulate(tasks, options, world, answer), seed=seed, start=start)


async def _simulate(
    tasks: Sequence[Task],
    options: Options,
    world: _World,
    answer: Callable[[Decision], str | None] | None,
) -> Simulation:
    began = clock()
    view = RunView()
    journal = MemoryJournal()
    engine = Engine(Scheduler(options), journal, world, clock=clock)

    def watch(transitions: Sequence[Transition]) -> None:
        for transition in transitions:
            view.apply(transition)
            if answer is not None and isinstance(transition, DecisionOpened):
                said = answer(transition.decision)
                if said is not None:
                    engine.post(DecisionAnswered(clock(), transition.decision.id, said))

    engine.watch(watch)
    engine.post(TasksSubmitted(began, tuple(graph.order(tasks))))
    try:
        await engine.wait_idle()
    finally:
        await engine.close()
    results = tuple(view.records[task.id].result() for task in tasks)
    return Simulation(
        slots=options.max_concurrency,
        makespan=max(view.at, began) - began,
        tasks=tuple(_simulated(result, began) for result in results),
        results=results,
        decisions=tuple(view.open_decisions()),
        transitions=tuple(journal.transitions()),
    )


def _simulated(result: TaskResult, began: float) -> Simulated:
    started, finished = result.started_at, result.finished_at
    return Simulated(
        result.id,
        result.state,
        result.attempts,
        None if started is None else started - began,
        None if finished is None else finished - began,
    )


class _World:
    """Carries out commands by letting virtual time pass."""

    def __init__(
        self,
        durations: Durations | None,
        driver: FunctionDriver | None,
        landing: float,
        failures: Mapping[str, int],
        conflicts: Mapping[str, int],
    ) -> None:
        self.durations = durations
        self.driver = driver
        self.landing = landing
        self.failures = dict(failures)
        self.conflicts = dict(conflicts)
        self.supervisor = Supervisor(containment="group")

    async def perform(self, command: Command, stop: Stop) -> Event:
        match command:
            case StartAttempt() if self.driver is not None:
                return await self._play(command, stop, self.driver)
            case StartAttempt():
                return await self._attempt(command, stop)
            case RecoverAttempt(task_id, _, attempt):
                return AttemptLost(clock(), task_id, attempt, "it was not simulated to its end")
            case PrepareLanding():
                return await self._prepare(command, stop)
            case AdvanceBranch(task_id, commit, _):
                return Landed(clock(), task_id, commit)
            case _:
                raise TypeError(f"{command} has no answer")

    async def _attempt(self, command: StartAttempt, stop: Stop) -> Event:
        task, attempt = command.task, command.attempt
        if not await _pass(self._duration(task), stop):
            return AttemptStopped(clock(), task.id, attempt)
        if _take(self.failures, task.id):
            return AttemptFailed(clock(), task.id, attempt, Reason.AGENT_FAILED, "it was simulated to fail")
        commit = None if task.reads_only else f"{task.id}.{attempt}"
        return AttemptSucceeded(clock(), task.id, attempt, commit, () if task.reads_only else (task.id,))

    async def _play(self, command: StartAttempt, stop: Stop, driver: FunctionDriver) -> Event:
        with tempfile.TemporaryDirectory(prefix="agentful-") as name:
            folder = Path(name)
            place = InPlace("simulation", folder, self.supervisor, {}, lambda _agent: driver, _ignore, clock)
            event = await place.perform(command, stop)
            paths = _files(folder)
        task = command.task
        if isinstance(event, AttemptSucceeded):
            if _take(self.failures, task.id):
                return AttemptFailed(
                    clock(), task.id, command.attempt, Reason.AGENT_FAILED, "it was simulated to fail"
                )
            if paths and not task.reads_only:
                event = replace(event, commit=f"{task.id}.{command.attempt}", paths=paths)
        return event

    async def _prepare(self, command: PrepareLanding, stop: Stop) -> Event:
        task_id = command.task_id
        if not await _pass(self.landing, stop):
            return LandingLost(clock(), task_id, "it was stopped")
        if _take(self.conflicts, task_id):
            paths = (task_id,)
            return LandingRejected(
                clock(), task_id, Reason.CONFLICT, "it was simulated to conflict", paths=paths
            )
        return LandingPrepared(clock(), task_id, command.commit, "tip")

    def _duration(self, task: Task) -> float:
        if callable(self.durations):
            return self.durations(task)
        return (self.durations or {}).get(task.id, policy.duration(task))


def _ignore(_task_id: str, _event: AgentEvent) -> None:
    pass


def _files(folder: Path) -> tuple[str, ...]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return tuple(sorted(path.relative_to(folder).as_posix() for path in found))


def _take(times: dict[str, int], task_id: str) -> bool:
    left = times.get(task_id, 0)
    if left > 0:
        times[task_id] = left - 1
    return left > 0


async def _pass(seconds: float, stop: Stop) -> bool:
    """Let time pass. Whether it did: a stop cuts it short."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not over.done():
            over.set_result(None)

    timer = loop.call_later(seconds, end)
    stop.on_request(end)
    try:
        await over
    finally:
        timer.cancel()
    return not stop.requested
