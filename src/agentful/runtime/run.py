"""One run, carried out by this process: everything of the runtime, put together.

A run is made (`LiveRun.create`) or taken up again (`LiveRun.resume`), entered with ``async with``, and
waited for. Whoever wants to see it watches its `RunView`; whoever wants something of it calls its verbs,
or sends them to its inbox from another process.

A little longer than the other files: this is where all parts of the runtime meet.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

from msgspec import Struct

from .. import drivers
from ..core import graph
from ..core.scheduler import BY_HAND, Scheduler
from ..drivers.base import AgentMessage, AgentProgress
from ..errors import GitError, JournalError, WorkspaceError
from ..events import (
    AdvanceBranch,
    PrepareLanding,
    RecoverAttempt,
    StartAttempt,
    TaskChanged,
)
from ..model import Agent, Options, State, Task
from ..version import __version__
from . import proctree
from .attempt import Attempts
from .context import Context
from .engine import Engine
from .inbox import Inbox
from .journal import JournalFile, RunInfo
from .landing import Landings
from .lock import RunLock
from .process import Supervisor
from .redact import Redactor, secret_values
from .statefiles import StateFiles, StateInput, TaskLine
from .verbs import Verbs
from .workspace import Workspaces, slug

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from ..drivers.base import AgentEvent, Driver, FunctionDriver
    from ..events import Command, Event, Transition
    from .engine import Stop
    from .git import Repository
    from .journal import Request

BRANCHES = "refs/heads/agentful/"
"""Where integration branches are, each under the id of its run."""

_STATE_PERIOD = 0.25
"""Seconds between two writings of the state files, at the least."""
_REMOVING_SECONDS = 30.0
_LEAVING_SECONDS = 2.0
"""How long old workspaces are removed at a time, and at the end of a run; the rest goes on without us."""
_EDIT_PERIOD = 1.0
"""Seconds between two looks at ``decisions.json``, while a decision is open."""


class RunSpec(Struct, frozen=True, kw_only=True):
    """What a run is to do, checked."""

    tasks: tuple[Task, ...]
    agents: dict[str, Agent] = {}
    options: Options = Options()
    setup: tuple[str, ...] = ()
    check_timeout: float = 1800.0
    title: str = ""
    plan: str = ""
    """The plan file that it came from, if it did."""
    plan_text: str = ""
    base: str | None = None
    """The revision to begin at; ``None`` is what is checked out."""


@dataclass(slots=True)
class LiveTask:
    """What a running task is at."""

    percentage: float | None = None
    message: str = ""
    at: float = 0.0


def folder_of(repo: Repository) -> Path:
    """``.agentful``, at the top of the main checkout: all checkouts of a repository share their runs."""
    root = repo.git_dir.parent if repo.git_dir.name == ".git" else repo.root
    return root / ".agentful"


def journal_of(repo: Repository) -> JournalFile:
    """The repository's journal."""
    return JournalFile(folder_of(repo) / "journal.db")


def lock_of(repo: Repository, run_id: str) -> RunLock:
    """The lock that whoever carries out this run holds."""
    return RunLock(folder_of(repo) / "runs" / f"{run_id}.lock", run_id)


def inbox_of(repo: Repository, journal: JournalFile, run_id: str) -> Inbox:
    """Where to ask something of a live run."""
    return Inbox(journal, run_id, folder_of(repo) / "runs")


def context_of(
    repo: Repository,
    info: RunInfo,
    workspaces: Workspaces,
    *,
    pool: Executor | None = None,
    driver_for: Callable[[Agent], Driver | FunctionDriver] = drivers.driver_for,
    clock: Callable[[], float] = time.time,
) -> Context:
    """What the acts of a run need, from what the journal says of it."""
    secret = secret_values(os.environ)
    for agent in info.agents.values():
        secret += secret_values(agent.env)
    settings: Mapping[str, Any] = info.settings
    return Context(
        run=info.id,
        branch=info.branch,
        base=info.base,
        repo=repo,
        workspaces=workspaces,
        supervisor=Supervisor(),
        agents=info.agents,
        driver_for=driver_for,
        logs=folder_of(repo) / "logs" / info.id,
        redactor=Redactor(secret),
        setup=tuple(settings.get("setup", ())),
        checks=info.options.checks,
        check_timeout=float(settings.get("check_timeout", 1800.0)),
        pool=pool,
        clock=clock,
    )


class LiveRun(Verbs):
    """A run that this process carries out. Made by :meth:`create` or :meth:`resume`."""

    def __init__(
        self,
        repo: Repository,
        info: RunInfo,
        journal: JournalFile,
        lock: RunLock,
        *,
        driver_for: Callable[[Agent], Driver | FunctionDriver] | None,
        clock: Callable[[], float],
        workspaces: Path | None,
        watch_files: bool = True,
    ) -> None:
        super().__init__(clock)
        self.repo = repo
        self.info = info
        self.folder = folder_of(repo)
        self.live: dict[str, LiveTask] = {}
        self.problems: list[str] = []
        """For people: what went wrong beside the work, such as a state file that could not be read."""
        self.on_problem: Callable[[str], object] = _ignore
        """Called with each of these as it comes."""
        self._journal = journal
        self._lock = lock
        self._driver_for = driver_for or drivers.driver_for
        self._workspaces = Workspaces(repo, info.id, base=workspaces)
        self._watch_files = watch_files
        self._tasks: tuple[Task, ...] = ()
        self._resumed = False
        self._trash: asyncio.Task[None] | None = None
        self._discarded = False
        self._leaving = False
        self._state_timer: asyncio.TimerHandle | None = None
        self._state_cost = 0.0
        self._edit_timer: asyncio.TimerHandle | None = None

    # --- making ----------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        repo: Repository,
        spec: RunSpec,
        *,
        branch: str | None = None,
        driver_for: Callable[[Agent], Driver | FunctionDriver] | None = None,
        clock: Callable[[], float] = time.time,
        workspaces: Path | None = None,
        run_id: str | None = None,
        watch_files: bool = True,
    ) -> Self:
        """Make a new run. Nothing starts before it is entered.

        ``branch`` is an integration branch of ours to go on with; without it, the run gets its own.
        ``watch_files`` is whether answers are looked for in ``decisions.json``, which takes a real clock.
        Raises :class:`PlanError`, :class:`WorkspaceError`, :class:`GitError` or :class:`JournalError`
        before anything has been made that matters.
        """
        graph.check(spec.tasks)
        base = repo.resolve(spec.base or "HEAD")
        run_id = run_id or _new_id()
        repo.add_exclude("/.agentful")
        journal = journal_of(repo)
        lock = lock_of(repo, run_id)
        lock.acquire()
        try:
            info = RunInfo(
                id=run_id,
                created_at=clock(),
                title=spec.title,
                plan=spec.plan,
                plan_text=spec.plan_text,
                branch=branch or f"{BRANCHES}{run_id}",
                base=base,
                options=spec.options,
                agents=spec.agents,
                settings={"setup": list(spec.setup), "check_timeout": spec.check_timeout},
                version=__version__,
            )
            run = cls(
                repo,
                info,
                journal,
                lock,
                driver_for=driver_for,
                clock=clock,
                workspaces=workspaces,
                watch_files=watch_files,
            )
            journal.create_run(info)
            if branch is None:
                repo.update_ref(info.branch, base, None, message="agentful: begin")
        except BaseException:
            lock.release()
            journal.close()
            raise
        run._tasks = tuple(graph.order(spec.tasks))
        return run

    @classmethod
    def resume(
        cls,
        repo: Repository,
        run_id: str,
        *,
        options: Callable[[Options], Options] | None = None,
        driver_for: Callable[[Agent], Driver | FunctionDriver] | None = None,
        clock: Callable[[], float] = time.time,
        workspaces: Path | None = None,
    ) -> Self:
        """Take up a run where it was left. ``options`` may change how it is carried out from here.

        Raises :class:`RunLocked` where a live process carries it out.
        """
        journal = journal_of(repo)
        try:
            info = journal.find(run_id)
            lock = lock_of(repo, info.id)
            lock.acquire()
        except BaseException:
            journal.close()
            raise
        try:
            if options is not None:
                info = journal.update_run(info.id, options=options(info.options))
            run = cls(repo, info, journal, lock, driver_for=driver_for, clock=clock, workspaces=workspaces)
        except BaseException:
            lock.release()
            journal.close()
            raise
        run._resumed = True
        return run

    # --- entering and leaving ----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self._enter()
        except BaseException:
            if not self._resumed:
                with suppress(GitError, JournalError):
                    self._write_end()
            self._lock.release()
            self._journal.close()
            raise
        return self

    async def _enter(self) -> None:
        loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="agentful")
        writer = self._journal.writer(self.info.id)
        transitions = writer.transitions() if self._resumed else []
        scheduler = Scheduler.restore(transitions, self.info.options)
        for transition in transitions:
            self.view.apply(transition)
        self.ids.update(dict.fromkeys(self.view.records))
        context = context_of(
            self.repo,
            self.info,
            self._workspaces,
            pool=self._pool,
            driver_for=self._driver_for,
            clock=self._clock,
        )
        context.on_progress = self._on_progress
        self.context = context
        self._attempts = Attempts(context)
        self._landings = Landings(context)
        if self._resumed:
            self._note(await context.blocking(self._clear_up))
        dead = self._dead_runs()
        if dead:
            await context.blocking(self._end_the_dead, dead)
        self.engine = Engine(scheduler, writer, self, clock=self._clock)
        self.engine.watch(self._on_transitions)
        self._files = StateFiles(self.folder, self.info.id)
        self._inbox = inbox_of(self.repo, self._journal, self.info.id)
        self._inbox.open(loop, self._on_request)
        if self._resumed:
            self._journal.update_run(self.info.id, state="running", finished_at=None)
            # Written first, so that edits made meanwhile are read against what there is to answer.
            self._write_state()
            self._take_edits()
            self.engine.recover()
        if self._tasks:
            self.submit(self._tasks)
        for request in self._inbox.take():
            self._on_request(request)  # that came while nobody listened: before it is found to be idle
        self._write_state()
        self._look_at_edits()

    def _dead_runs(self) -> list[str]:
        """Other runs that are not live, and whose process did not come to write down that it ended."""
        begun = [info.id for info in self._journal.runs() if info.state == "running"]
        return [i for i in begun if i != self.info.id and lock_of(self.repo, i).holder() is None]

    def _end_the_dead(self, runs: Sequence[str]) -> None:
        """End what is left of agents whose agentful was killed."""
        for run in runs:
            proctree.sweep(run)

    def _clear_up(self) -> list[str]:
        """After a crash: end what is left of it, and let go of workspaces that hold nothing new.

        Returns what is wrong with those that have to stay.
        """
        proctree.sweep(self.info.id)
        records = self.view.records.values()
        if self.repo.ref(self.info.branch) is None and not any(record.landed for record in records):
            # Killed between the journal and the branch.
            self.repo.update_ref(self.info.branch, self.info.base, None, message="agentful: begin")
        attempts = {
            f"{slug(r.id)}.{number}": (r, number) for r in records for number in range(1, r.attempt + 1)
        }
        problems: list[str] = []
        for workspace in self._workspaces.existing():
            record, attempt = attempts.get(workspace.name, (None, 0))
            try:
                if record is not None:
                    if attempt == record.attempt and record.state in (State.RUNNING, State.STOPPING):
                        continue  # it was under way, and is recovered
                    self._attempts.salvage(record.task, attempt, workspace)
                elif not workspace.name.endswith(".checks"):
                    continue  # of checks, there is nothing to keep
                self._workspaces.discard(workspace)
                self._discarded = True
            except WorkspaceError as error:
                problems.append(f"{error}; it stays in {workspace.path}")
        return problems

    async def __aexit__(self, *exc: object) -> None:
        try:
            await self.engine.close()
            self._leaving = True
            self._clean_soon()
            if self._trash is not None:
                await self._trash
        finally:
            for timer in (self._state_timer, self._edit_timer):
                if timer is not None:
                    timer.cancel()
            self._inbox.close()
            try:
                self._write_state()
                self._write_end()
            except (JournalError, GitError) as error:
                self._note([str(error)])
            self._files.close()
            self._journal.close()
            self._lock.release()
            self._pool.shutdown(wait=True)

    def _write_end(self) -> None:
        view, info = self.view, self.info
        shared = any(other.branch == info.branch for other in self._journal.runs() if other.id != info.id)
        if not (view.records or shared) and self.repo.ref(info.branch) == info.base:
            # Nothing was ever to be landed on it.
            self.repo.delete_refs({info.branch: info.base})
        if not (view.records or view.decisions):
            self._journal.remove_run(info.id)
            return
        ended = self._clock() if view.done == view.total else None
        self._journal.update_run(info.id, state=view.state(live=False), finished_at=ended)

    def _note(self, problems: Sequence[str]) -> None:
        for problem in problems:
            self.problems.append(problem)
            self.on_problem(problem)

    # --- what the engine asks for --------------------------------------------------------------------

    async def perform(self, command: Command, stop: Stop) -> Event:
        """Carry out a command of the scheduler's."""
        match command:
            case StartAttempt():
                return await self._attempts.start(command, stop)
            case PrepareLanding():
                return await self._landings.prepare(command, stop)
            case AdvanceBranch():
                return await self._landings.advance(command)
            case RecoverAttempt():
                return await self._attempts.recover(command)
            case _:
                raise TypeError(f"nobody carries out {type(command).__name__}")

    def _on_transitions(self, transitions: Sequence[Transition]) -> None:
        for transition in transitions:
            self.view.apply(transition)
            if isinstance(transition, TaskChanged):
                if transition.target is State.RUNNING:
                    self.live[transition.task_id] = LiveTask(at=transition.at)
                elif transition.source in (State.RUNNING, State.STOPPING) and transition.target not in (
                    State.RUNNING,
                    State.STOPPING,
                ):
                    self.live.pop(transition.task_id, None)
                    self._let_go(transition.task_id, transition.attempt)
                elif transition.source is State.LANDING:
                    self._clean_soon()  # the workspace of its checks
        self._tell(transitions)
        self._state_soon()
        if self._edit_timer is None:
            self._look_at_edits()

    def _let_go(self, task_id: str, attempt: int) -> None:
        try:
            self._attempts.discard(task_id, attempt)
        except WorkspaceError as error:
            self._note([str(error)])
        else:
            self._clean_soon()

    def _clean_soon(self) -> None:
        """Have what was discarded removed, beside the work."""
        self._discarded = True
        if self._trash is None or self._trash.done():
            self._trash = asyncio.get_running_loop().create_task(self._remove_trash())

    async def _remove_trash(self) -> None:
        while self._discarded:
            self._discarded = False
            seconds = _LEAVING_SECONDS if self._leaving else _REMOVING_SECONDS
            await self.context.blocking(self._workspaces.remove_trash, seconds=seconds)

    def _on_progress(self, task_id: str, event: AgentEvent) -> None:
        live = self.live.get(task_id)
        if live is not None:
            live.at = self._clock()
            if isinstance(event, AgentProgress):
                live.percentage = event.percentage if event.percentage is not None else live.percentage
                live.message = event.message or live.message
            elif isinstance(event, AgentMessage) and event.text.strip():
                live.message = event.text.strip()[:500]
        self._tell_progress(task_id, event)
        self._state_soon()

    # --- requests from other processes, and edits of the state files -----------------------------------

    def _on_request(self, request: Request) -> None:
        try:
            answer = self._do(request.kind, request.payload or {})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            answer = {"ok": False, "error": f"this request makes no sense: {error}"}
        try:
            self._inbox.done(request, answer)
        except JournalError as error:
            self._note([f"the request {request.kind!r} cannot be answered: {error}"])

    def _do(self, kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        match kind:
            case "stop":
                mode = payload.get("mode", "drain")
                if mode not in ("drain", "stop"):
                    raise ValueError(f"it can stop or drain, not {mode!r}")
                self.interrupt() if mode == "stop" else self.pause()
            case "cancel":
                tasks = payload.get("tasks")
                self.cancel(None if tasks is None else self._known(tasks))
            case "retry":
                self.retry(self._known(payload["tasks"]))
            case "decide":
                decision = self.view.decisions.get(payload["id"])
                if decision is None or not decision.open:
                    return {"ok": False, "error": f"decision {payload['id']} is not open"}
                self.answer(decision.id, str(payload["answer"]))
            case "pause":
                self.pause()
            case "unpause":
                self.unpause()
            case _:
                return {"ok": False, "error": f"unknown request {kind!r}"}
        return {"ok": True}

    def _known(self, tasks: object) -> list[str]:
        """Ids of tasks, from a request. Raises ``ValueError`` where they are not."""
        if not isinstance(tasks, list):
            raise ValueError("tasks are a list of ids")  # noqa: TRY004 - it is the request's fault
        ids = [str(task_id) for task_id in cast("list[object]", tasks)]
        unknown = [task_id for task_id in ids if task_id not in self.view.records]
        if unknown:
            raise ValueError(f"no such task: {', '.join(unknown)}")
        return ids

    def _look_at_edits(self) -> None:
        """Look whether somebody has answered in a file, as long as there is something to answer."""
        self._edit_timer = None
        if not (self._watch_files and self.view.open_decisions()):
            return
        if self._files.edited():
            self._take_edits()
        loop = asyncio.get_running_loop()
        self._edit_timer = loop.call_later(_EDIT_PERIOD, self._look_at_edits)

    def _take_edits(self) -> None:
        edits = self._files.read_edits()
        self._note(edits.problems)
        self._state_soon()  # which also puts back what could not be used
        for decision_id, answer in edits.answers:
            decision = self.view.decisions.get(decision_id)
            if decision is not None and decision.open:
                self.answer(decision_id, answer)
        for task_id in edits.completed:
            for decision in self.view.open_decisions():
                if decision.kind == "failure" and decision.blocking == (task_id,):
                    # Who marks a task complete that waits for a person says that it was done by hand.
                    self.answer(decision.id, BY_HAND)

    def _state_soon(self) -> None:
        if self._state_timer is None:
            loop = asyncio.get_running_loop()
            # Of a large run the files take long to write: never more than a twentieth of the time.
            period = max(_STATE_PERIOD, 20 * self._state_cost)
            self._state_timer = loop.call_later(period, self._write_state)

    def _write_state(self) -> None:
        if self._state_timer is not None:
            self._state_timer.cancel()
            self._state_timer = None
        began = time.monotonic()
        self._files.write(self._state())
        self._state_cost = time.monotonic() - began

    def _state(self) -> StateInput:
        options = self.info.options
        lines: list[TaskLine] = []
        for record in self.view.records.values():
            task, live = record.task, self.live.get(record.id)
            lines.append(
                TaskLine(
                    id=record.id,
                    agent=task.agent or "shell",
                    prompt=task.prompt or task.title,
                    state=record.state,
                    needs=task.needs,
                    priority=task.priority,
                    reason=record.reason,
                    message=record.message,
                    attempt=record.attempt,
                    started_at=record.started_at,
                    finished_at=record.finished_at,
                    duration=record.active if record.finished_at is not None else None,
                    timeout=task.timeout if task.timeout is not None else options.task_timeout,
                    progress=None if live is None else live.percentage,
                )
            )
        landed = any(record.landed for record in self.view.records.values())
        return StateInput(
            run=self.info.id,
            at=self._clock(),
            mode="sequential" if options.max_concurrency == 1 else "parallel",
            slots=options.max_concurrency,
            tasks=tuple(lines),
            decisions=tuple(self.view.decisions.values()),
            tests_passing=True if landed and options.checks else None,
        )


def _ignore(_problem: str) -> None:
    """It is read in ``problems``."""


def _new_id() -> str:
    return f"r-{secrets.token_hex(3)}"
