"""A run that is open in this process, and the handles of its tasks: what the API's classes share."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import defaultdict, deque
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from .. import config
from ..core import graph
from ..drivers.base import AgentMessage, AgentProgress
from ..errors import AgentfulError, PlanError, TaskCancelled
from ..events import DecisionClosed, DecisionOpened, TaskChanged
from ..model import Reason, State, Task, TaskResult
from ..runtime.git import Repository
from ..runtime.local import LocalRun
from ..runtime.run import LiveRun, RunSpec
from .handle import Progress, Results, TaskHandle, group_error
from .players import Cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from ..drivers.base import AgentEvent
    from ..events import Transition
    from ..model import Decision
    from .fields import Played, Player, Wish

    Listener = Callable[[Progress], object]

_log = logging.getLogger("agentful")

current_host: ContextVar[Host | None] = ContextVar("agentful_group", default=None)
"""The host of the group that the running code is in the block of, or works for."""
default_driver: ContextVar[Any] = ContextVar("agentful_driver", default=None)
"""What plays the agents that are defined nowhere: set by :func:`agentful.testing.use_driver`."""
default_clock: ContextVar[Callable[[], float]] = ContextVar("agentful_clock", default=time.time)
"""The wall clock of new runs: another one under :func:`agentful.testing.run_virtual`."""

_BRANCHES: dict[str, str] = {}
"""The integration branch that this process lands on, for each repository."""
_OF_A_REPOSITORY = ("base", "checks", "land", "setup", "workspaces")
"""Settings that mean nothing without one."""


class Host:
    """A run that is open in this process, and the handles of its tasks.

    Made, it has made nothing: it knows the repository, the settings and the agents. What is wrong with
    those is raised then; what is wrong with its first tasks, by :meth:`open`, before there is a run.
    """

    run: LiveRun | LocalRun

    def __init__(
        self,
        *,
        repository: str | Path | None,
        given: Mapping[str, Any],
        agents: Mapping[str, Player] | None,
        driver: Played | None,
        title: str,
    ) -> None:
        self.handles: dict[str, TaskHandle] = {}
        self.closed = False
        self.unfinished: list[TaskCancelled] = []
        """The tasks that the run left, because somebody told it to stop."""
        self._pending: dict[str, TaskHandle] = {}
        self._numbers: defaultdict[str, itertools.count[int]] = defaultdict(lambda: itertools.count(1))
        self._percentages: dict[str, float] = {}
        self._listeners: list[Listener] = []
        self._questions: deque[tuple[Decision, asyncio.Future[str]]] = deque()
        """Those that have been put, and have no id yet."""
        self._asked: dict[str, asyncio.Future[str]] = {}
        self._token: Token[Host | None] | None = None
        self._title = title
        if repository is None:
            useless = next((name for name in _OF_A_REPOSITORY if given.get(name)), None)
            if useless is not None:
                raise PlanError(f"{useless} needs a repository, and repository=None says that there is none")
        self.repo = None if repository is None else Repository.discover(repository)
        root = None if self.repo is None else self.repo.root
        self.settings = config.load_settings(root, flags=given)
        self.options = self.settings.options(retries=0, on_conflict="fail")
        self.cast = Cast(
            config.load_agents(root, self.settings),
            agents,
            driver if driver is not None else default_driver.get(),
        )

    # --- opening and closing -----------------------------------------------------------------------

    async def open(self, wishes: Sequence[Wish], listeners: Iterable[Listener] = ()) -> None:
        """Begin the run with these tasks. What is wrong with them is raised before there is a run."""
        tasks = self._read(wishes)
        self.loop = asyncio.get_running_loop()
        self.run = self._make_run()
        if isinstance(self.run, LiveRun):
            _BRANCHES[str(self.run.repo.git_dir)] = self.run.info.branch
            self.run.on_problem = _log.warning
        await self.run.__aenter__()
        self._listeners += listeners
        # Agents that are functions run in the context of who submits them: there, a question is ours.
        self._token = current_host.set(self)
        self.run.watch(self._on_transitions)
        self.run.on_progress(self._on_progress)
        self.run.engine.on_rest(self._on_rest)
        if tasks:
            self._add(tasks)

    def _make_run(self) -> LiveRun | LocalRun:
        options, agents, clock = self.options, self.cast.agents, default_clock.get()
        if self.repo is None:
            return LocalRun(options, agents=agents, driver_for=self.cast.driver_for, clock=clock)
        settings = self.settings
        spec = RunSpec(
            tasks=(),
            agents=agents,
            options=options,
            setup=settings.setup,
            check_timeout=settings.check_timeout,
            title=self._title,
            base=settings.base,
        )
        return LiveRun.create(
            self.repo,
            spec,
            branch=None if settings.base else _continued(self.repo),
            driver_for=self.cast.driver_for,
            clock=clock,
            workspaces=settings.workspace_folder,
            # In virtual time nobody can answer in a file, and looking there would never end.
            watch_files=clock is time.time,
        )

    async def close(self) -> None:
        """End what is under way, and wait until all of it is gone."""
        self.closed = True
        if self._token is not None:
            # A generator may be left in another context than it was entered in.
            with contextlib.suppress(ValueError):
                current_host.reset(self._token)
        await self.run.__aexit__(None, None, None)

    async def interrupt(self) -> None:
        """Stop what runs, so that a resume goes on with it, and wait until it has stopped."""
        self.run.interrupt()
        await self.run.wait()

    def cancel(self, ids: Sequence[str] | None = None) -> None:
        """Cancel these tasks, or all. From any thread, and without effect once the group has ended."""
        if self.closed:
            return
        if self._is_here():
            self.run.cancel(ids)
        else:
            self.loop.call_soon_threadsafe(self.run.cancel, ids)

    def _is_here(self) -> bool:
        """Whether the running code is on the run's own loop."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    # --- tasks -------------------------------------------------------------------------------------

    def submit(self, wishes: Sequence[Wish]) -> list[TaskHandle]:
        """Submit tasks that may need one another, in any order. All of them, or none."""
        return self._add(self._read(wishes))

    async def collect(self, wishes: Sequence[Wish], most: int | None) -> Results:
        """Submit tasks and wait for them, with at most ``most`` of them under way at a time."""
        if most is not None and most < 1:
            raise PlanError(f"max_concurrency: {most} is no number of tasks that could run")
        tasks = self._read(wishes)
        handles: list[TaskHandle] = []
        try:
            if most is None:
                handles = self._add(tasks)
            else:
                await self._feed(graph.order(tasks), most, handles)
            for handle in handles:
                await handle.wait()
        except asyncio.CancelledError:
            self.cancel([handle.id for handle in handles])
            raise
        if self.run.engine.error is not None:
            raise self.run.engine.error
        left = [error for error in self.unfinished if self.handles[error.task_id] in handles]
        if left:
            raise group_error(left, len(tasks))
        return Results(self.result(task.id) for task in tasks)

    async def _feed(self, tasks: Sequence[Task], most: int, handles: list[TaskHandle]) -> None:
        """Submit each task when there is a place for it; what was submitted is added to ``handles``."""
        waiting = {task.id: task for task in tasks}
        under_way: dict[str, TaskHandle] = {}
        while waiting and not self.unfinished:
            for task in tuple(waiting.values()):
                if len(under_way) == most:
                    break
                # One that still waits for another of them would hold a place without using it.
                if not any(need in waiting or need in under_way for need in task.needs):
                    del waiting[task.id]
                    under_way[task.id] = self._add([task])[0]
                    handles.append(under_way[task.id])
            await asyncio.wait([h.ended for h in under_way.values()], return_when=asyncio.FIRST_COMPLETED)
            under_way = {task_id: handle for task_id, handle in under_way.items() if not handle.done}

    def _add(self, tasks: Sequence[Task]) -> list[TaskHandle]:
        if self.closed:
            raise RuntimeError("this group has ended; submit tasks inside its block, or make a new group")
        if self.run.engine.error is not None:
            raise self.run.engine.error
        if not self._is_here():
            raise RuntimeError(
                "tasks are submitted on the event loop that runs the group, not from elsewhere"
            )
        self.run.submit(tasks)
        handles = {task.id: TaskHandle(self, task) for task in tasks}
        self.handles |= handles
        self._pending |= handles
        return list(handles.values())

    def _read(self, wishes: Sequence[Wish]) -> list[Task]:
        """The tasks, checked, each with an id. Raises :class:`PlanError`."""
        tasks = [
            config.check_task(wish, index) if isinstance(wish, Task) else config.task_from_dict(wish, index)
            for index, wish in enumerate(wishes)
        ]
        taken = {task.id for task in tasks}
        for index, task in enumerate(tasks):
            named = config.with_agent_defaults(self._named(task, taken), self.cast.agents)
            where = f"task {named.id!r}"
            if named.run is None:
                self.cast.check(named.agent, where=where)
            if named.checks and self.repo is None:
                raise PlanError("checks need a repository, and this group has none", where=where)
            tasks[index] = named
        graph.check(tasks, self.handles)
        return tasks

    def _named(self, task: Task, taken: set[str]) -> Task:
        if task.id:
            return task
        stem = task.agent or "run"
        # An agent's name may be as long as an id.
        names = (f"{stem[:190]}-{number}" for number in self._numbers[stem])
        return replace(task, id=next(n for n in names if n not in taken and n not in self.handles))

    def result(self, task_id: str) -> TaskResult:
        """What is known of a task."""
        record = self.run.view.records.get(task_id)
        if record is not None:
            return record.result()
        return TaskResult(task=self.handles[task_id].task, state=State.WAITING)

    def results(self) -> Results:
        """What is known of every task, in the order of submission."""
        return Results(self.result(task_id) for task_id in self.handles)

    # --- waiting -----------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until everything has ended, also what is submitted meanwhile, or the run goes no further.

        A person's answer is waited for, too. Raises whatever ended the run, if that is not its tasks.
        """
        while self._pending:
            # One after the other: the waits together cost no more than the tasks do.
            await asyncio.wait((next(iter(self._pending.values())).ended,))
        if self.run.engine.error is not None:
            raise self.run.engine.error

    def _on_transitions(self, transitions: Sequence[Transition]) -> None:
        for transition in transitions:
            if isinstance(transition, TaskChanged):
                self._on_change(transition)
            elif isinstance(transition, DecisionOpened):
                self._on_question(transition.decision)
            elif isinstance(transition, DecisionClosed):
                answer = self._asked.pop(transition.decision_id, None)
                if answer is not None and not answer.done():
                    answer.set_result(transition.answer)

    def _on_change(self, change: TaskChanged) -> None:
        handle = self.handles.get(change.task_id)
        if handle is None:
            return
        if change.target.settled:
            self._pending.pop(handle.id, None)
            handle.end()
        elif change.source.settled:
            self._pending[handle.id] = handle
            handle.begin_again()
        if change.target is State.RUNNING:
            self._percentages.pop(handle.id, None)
        elif change.target is State.SUCCEEDED:
            self._percentages[handle.id] = 100.0
        if change.source is not change.target or change.reason is not None:
            record = self.run.view.records[handle.id]
            self._publish(record.task, change.target, record.message, change.reason)

    def _on_rest(self) -> None:
        """The run goes no further by itself: if that is for good, what waits for it has waited enough."""
        engine = self.run.engine
        if not engine.closed and not engine.scheduler.paused:
            return
        for handle in self._pending.values():
            problem = engine.error or self._left(handle.task)
            if isinstance(problem, TaskCancelled):
                self.unfinished.append(problem)
            handle.end(problem)
        self._pending.clear()
        for answer in (*(answer for _, answer in self._questions), *self._asked.values()):
            if not answer.done():
                answer.set_exception(engine.error or AgentfulError("the run ended, and nobody had answered"))
        self._questions.clear()
        self._asked.clear()

    def _left(self, task: Task) -> TaskCancelled:
        message = f"task {task.id!r} was not run to its end: its group was stopped"
        if isinstance(self.run, LiveRun):
            run = self.run.info.id
            message = (
                f"task {task.id!r} was not run to its end: run {run} was stopped; "
                f"it goes on with: agentful resume {run}"
            )
        return TaskCancelled(message, task_id=task.id, result=self.result(task.id))

    # --- questions ---------------------------------------------------------------------------------

    async def ask(self, decision: Decision) -> str:
        """Have a person decide, and wait for the answer. May be called on another loop than the run's."""
        if not self._is_here():
            there = asyncio.run_coroutine_threadsafe(self.ask(decision), self.loop)
            return await asyncio.wrap_future(there)
        answer: asyncio.Future[str] = self.loop.create_future()
        self._questions.append((decision, answer))
        self.run.ask(decision)
        return await answer

    def _on_question(self, decision: Decision) -> None:
        if self._questions and self._questions[0][0] == replace(decision, id="", asked_at=0.0):
            self._asked[decision.id] = self._questions.popleft()[1]
        where = ""
        if isinstance(self.run, LiveRun):
            answer = f'"{decision.options[0]}"' if decision.options else "ANSWER"
            where = f" Answer with: agentful decide {decision.id} {answer} --run {self.run.info.id}"
        choice = f" ({' | '.join(decision.options)})" if decision.options else ""
        _log.warning("%s waits for you: %s%s%s", decision.id, decision.question, choice, where)

    # --- progress ----------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have ``listener`` called with progress; call what comes back to end that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _on_progress(self, task_id: str, event: AgentEvent) -> None:
        record = self.run.view.records.get(task_id)
        if record is None or task_id not in self.handles:
            return
        if isinstance(event, AgentProgress):
            if event.percentage is not None:
                self._percentages[task_id] = event.percentage
            self._publish(record.task, record.state, event.message, None)
        elif isinstance(event, AgentMessage):
            self._publish(record.task, record.state, event.text, None)

    def _publish(self, task: Task, state: State, message: str, reason: Reason | None) -> None:
        if not self._listeners:
            return
        view = self.run.view
        percentage = self._percentages.get(task.id)
        progress = Progress(task, state, view.done, view.total, percentage, message, reason, view.at)
        for listener in list(self._listeners):
            try:
                listener(progress)
            except Exception:  # noqa: BLE001
                # It only watches: what it gets wrong is its own affair, and no reason to lose work.
                _log.exception("a progress callback failed at task %r; the run goes on", task.id)


def _continued(repo: Repository) -> str | None:
    """The branch that this process landed on before, if what is checked out has not gone past it."""
    branch = _BRANCHES.get(str(repo.git_dir))
    tip = repo.ref(branch) if branch is not None else None
    return branch if tip is not None and repo.is_ancestor(repo.head(), tip) else None
