"""One attempt: a workspace, a driver and a process (or a function) go in, one event comes out.

An attempt's work is pinned before its event is made, with what its agent had to say in the trailers of
the pinned commit. So an attempt that had ended when agentful was killed is not run again: `recover`
finds its commit and makes the event from that.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import msgspec

from ..core import conflicts, prompt
from ..drivers.base import AgentMessage, Attempt, FunctionDriver, Outcome
from ..drivers.command import CommandDriver, shell_argv
from ..errors import AgentError, AgentfulError, GitError, WorkspaceError
from ..events import (
    AttemptAsked,
    AttemptFailed,
    AttemptLost,
    AttemptStopped,
    AttemptSucceeded,
)
from ..model import Agent, Reason
from .logs import AttemptLog
from .process import Spawn, environment
from .workspace import slug

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..drivers.base import AgentEvent, Driver
    from ..events import Event, RecoverAttempt, StartAttempt
    from ..model import Task
    from .context import Context
    from .engine import Stop
    from .process import StopSignal, Supervisor
    from .redact import Redactor
    from .workspace import Kept, Workspace

P = ParamSpec("P")
T = TypeVar("T")

_SHELL = "shell"
"""The name under which the command of a ``run`` task appears where an agent's would."""


class Report(msgspec.Struct, frozen=True):
    """What is kept with a pinned commit: how the attempt had ended, for a restart to read."""

    outcome: Outcome
    stopped: bool = False
    detail: str = ""


class Attempts:
    """Carries out attempts of one run."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._kept: dict[tuple[str, int], Workspace] = {}
        """Workspaces with nothing in them that is not pinned."""

    async def start(self, command: StartAttempt, stop: Stop) -> Event:
        """Run one attempt to its end, and pin what it left."""
        context, task = self.context, command.task
        name = f"{slug(task.id)}.{command.attempt}"
        tip = await context.blocking(context.repo.ref, context.branch)
        if tip is None:
            raise WorkspaceError(
                f"the branch {context.branch} is gone; agentful recover tells what there was"
            )
        workspace = await context.blocking(context.workspaces.open, name, tip)
        try:
            with AttemptLog(context.logs / f"{name}.jsonl", context.redactor, context.clock) as log:
                report = await self._work(command, workspace, log, stop)
                if report.outcome.message:
                    log.note(report.outcome.message)
        except asyncio.CancelledError:
            # The loop ends, and this process with it: keep what there is. A resume reads it as lost.
            with contextlib.suppress(WorkspaceError, GitError):
                self._pin(task, command.attempt, workspace, None)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, what is in the workspace is kept
            return await self._lose(task, command.attempt, workspace, error)
        return await self._keep(task, command.attempt, workspace, report)

    async def recover(self, command: RecoverAttempt) -> Event:
        """How an attempt ended that was under way when its agentful went away."""
        context, task, attempt = self.context, command.task, command.attempt
        commit = await context.blocking(context.workspaces.pinned, task.id, attempt)
        workspace = next(
            (w for w in context.workspaces.existing() if w.name == f"{slug(task.id)}.{attempt}"), None
        )
        if commit is not None:
            report = await context.blocking(self._report_of, commit)
            if report is not None:
                if workspace is not None:
                    self._kept[task.id, attempt] = workspace
                base = (await context.blocking(context.repo.commit, commit)).parents[0]
                paths = await context.blocking(context.repo.changed, base, commit)
                return self._event(task, attempt, report, commit, paths)
        if workspace is not None:
            # Where it was killed before its workspace was whole, there is nothing to keep.
            with contextlib.suppress(WorkspaceError):
                commit = (await context.blocking(self._pin, task, attempt, workspace, None)).commit
        message = "agentful was stopped while it ran"
        return AttemptLost(context.clock(), task.id, attempt, message, commit)

    def salvage(self, task: Task, attempt: int, workspace: Workspace) -> None:
        """Pin what is in a workspace that an ended attempt had left, where that is not done yet.

        Raises :class:`WorkspaceError` where it cannot be done.
        """
        if self.context.workspaces.pinned(task.id, attempt) is None and workspace.path.is_dir():
            self._pin(task, attempt, workspace, None)

    def discard(self, task_id: str, attempt: int) -> None:
        """The attempt's end is in the journal: its workspace may go, if its work is pinned."""
        workspace = self._kept.pop((task_id, attempt), None)
        if workspace is not None:
            self.context.workspaces.discard(workspace)

    # --- the work --------------------------------------------------------------------------------

    async def _work(self, command: StartAttempt, workspace: Workspace, log: AttemptLog, stop: Stop) -> Report:
        context, task = self.context, command.task
        agent = agent_of(task, context.agents)
        await context.blocking(context.workspaces.include_ignored, workspace)
        text = task.prompt
        if task.run is None:
            text = prompt.build(command, agent, context.checks_of(task))
        prompt_file = workspace.home / "prompt.md"
        prompt_file.write_text(text, encoding="utf-8")
        attempt = Attempt(
            run=context.run,
            task=task,
            agent=agent,
            number=command.attempt,
            prompt=text,
            workspace=str(workspace.path),
            prompt_file=str(prompt_file),
            deadline=command.deadline,
        )
        log.begin(task=task.id, attempt=command.attempt, agent=agent.name, base=workspace.commit, prompt=text)
        tail = Tail()

        def emit(event: AgentEvent) -> None:
            if isinstance(event, AgentMessage):
                tail.add(event.text)
            context.on_progress(task.id, event)

        try:
            failed = await self._set_up(task, command.attempt, workspace, log, tail, stop)
            if failed is not None:
                return failed
            driver = driver_of(task, agent, context.driver_for)
            if isinstance(driver, FunctionDriver):
                outcome = await call_function(driver, attempt, emit, stop)
            else:
                mark = context.marker(slug(task.id), command.attempt)
                outcome = await run_process(
                    context.supervisor, driver, attempt, mark, emit, stop, env=workspace.env, log=log
                )
        except AgentError as error:
            outcome = Outcome(ok=False, reason=Reason.AGENT_MISSING, message=str(error))
        stopped = stop.requested and not outcome.ok and outcome.question is None
        report = writable(Report(outcome, stopped, "" if outcome.ok else tail.text()))
        # What it said goes to the journal, the state files and into a commit: none of it with secrets.
        return msgspec.convert(_redacted(msgspec.to_builtins(report), context.redactor), Report)

    async def _set_up(
        self, task: Task, attempt: int, workspace: Workspace, log: AttemptLog, tail: Tail, stop: Stop
    ) -> Report | None:
        """Run the setup commands. A report where one of them failed, or the end was asked for."""
        for number, script in enumerate(self.context.setup, 1):
            log.note(f"setup: {script}")
            code = await run_script(
                self.context,
                script,
                workspace,
                self.context.marker(slug(task.id), attempt, f"setup{number}"),
                lambda line: tail.add(log.line(line)),
                stop,
            )
            if code != 0:
                message = f"setup command {script!r} ended with {code}"
                outcome = Outcome(ok=False, reason=Reason.SETUP_FAILED, message=message)
                return Report(outcome, stop.requested, tail.text())
        return None

    # --- its end ---------------------------------------------------------------------------------

    async def _keep(self, task: Task, attempt: int, workspace: Workspace, report: Report) -> Event:
        try:
            kept = await self.context.blocking(self._pin, task, attempt, workspace, report)
        except (WorkspaceError, GitError) as error:
            if workspace.path.is_dir():
                return self._unkept(task, attempt, workspace, error)
            # Its agent's doing, and there is nothing left to keep.
            self._kept[task.id, attempt] = workspace
            return AttemptFailed(
                self.context.clock(), task.id, attempt, Reason.WORKSPACE, str(error), report.detail
            )
        event = self._event(task, attempt, report, kept.commit, kept.paths)
        if kept.left_out and isinstance(event, AttemptSucceeded):
            listed = "; ".join(f"{out.path}: {out.reason}" for out in kept.left_out[:10])
            if not kept.paths and not task.reads_only:
                message = f"nothing of what it wrote can be kept: {listed}"
                return AttemptFailed(event.at, task.id, attempt, Reason.WORKSPACE, message, usage=event.usage)
            summary = f"{event.summary}\n\nNot kept: {listed}".strip()
            event = msgspec.structs.replace(event, summary=summary)
        return event

    async def _lose(self, task: Task, attempt: int, workspace: Workspace, error: Exception) -> Event:
        """It could not go on, through no fault of its own: a full disk, mostly."""
        try:
            kept = await self.context.blocking(self._pin, task, attempt, workspace, None)
        except (WorkspaceError, GitError):
            return self._unkept(task, attempt, workspace, error)
        return AttemptLost(self.context.clock(), task.id, attempt, printable(error), kept.commit)

    def _unkept(self, task: Task, attempt: int, workspace: Workspace, error: Exception) -> Event:
        message = f"{printable(error)}; its work is not pinned yet, and stays in {workspace.path}"
        return AttemptLost(self.context.clock(), task.id, attempt, message)

    def _pin(self, task: Task, attempt: int, workspace: Workspace, report: Report | None) -> Kept:
        """Pin what is in a workspace; without a report where the attempt did not come to its end."""
        outcome = {} if report is None else {"Attempt-Report": msgspec.json.encode(report).decode()}
        kept = self.context.workspaces.keep(
            workspace,
            task_id=task.id,
            attempt=attempt,
            subject=subject_of(task),
            author=author_of(task),
            outcome=outcome,
            at=self.context.clock(),
        )
        self._kept[task.id, attempt] = workspace
        return kept

    def _report_of(self, commit: str) -> Report | None:
        text = self.context.workspaces.outcome(commit).get("Attempt-Report")
        if text is None:
            return None
        try:
            return msgspec.json.decode(text, type=Report)
        except msgspec.DecodeError:
            return None

    def _event(self, task: Task, attempt: int, report: Report, commit: str, paths: Sequence[str]) -> Event:
        """What the end of an attempt means, from its agent's word and from what is in its workspace."""
        at, outcome = self.context.clock(), report.outcome
        if report.stopped:
            return AttemptStopped(at, task.id, attempt, commit, outcome.usage)
        if outcome.question is not None:
            question = outcome.question
            return AttemptAsked(
                at, task.id, attempt, question.question, question.options, commit, outcome.usage
            )
        if not outcome.ok:
            return AttemptFailed(
                at,
                task.id,
                attempt,
                outcome.reason or Reason.AGENT_FAILED,
                outcome.message,
                report.detail,
                commit,
                tuple(paths),
                outcome.usage,
            )
        if not paths and task.run is None and not task.reads_only:
            message = "it ended well, and had changed nothing"
            return AttemptFailed(
                at, task.id, attempt, Reason.NO_CHANGE, message, outcome.summary, commit, (), outcome.usage
            )
        return AttemptSucceeded(
            at,
            task.id,
            attempt,
            None if task.reads_only else commit,
            tuple(paths),
            () if task.reads_only else conflicts.outside(task.writes, paths),
            outcome.summary,
            outcome.outputs,
            outcome.usage,
        )


def writable(report: Report) -> Report:
    """The report, or that there is something in it that cannot be written down."""
    try:
        msgspec.json.encode(report)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        message = f"what it had to say at its end cannot be written down: {printable(error)}"
        usage = report.outcome.usage
        return Report(
            Outcome(ok=False, reason=Reason.AGENT_FAILED, message=message, usage=usage), report.stopped
        )
    return report


def printable(error: BaseException) -> str:
    """An error as text that is UTF-8, whatever file names are in it."""
    name = type(error).__name__
    text = str(error) if isinstance(error, AgentfulError) else f"{name}: {error}" if str(error) else name
    return text.encode(errors="backslashreplace").decode()


class Tail:
    """The last lines of what was printed, bounded in lines and in characters."""

    def __init__(self, lines: int = 40, width: int = 2_000) -> None:
        self._lines: list[str] = []
        self._most = lines
        self._width = width

    def add(self, line: str) -> None:
        self._lines.append(line[: self._width])
        if len(self._lines) > 2 * self._most:
            del self._lines[: -self._most]

    def text(self) -> str:
        return "\n".join(self._lines[-self._most :])


async def run_script(
    context: Context,
    script: str,
    workspace: Workspace,
    mark: str,
    on_line: Callable[[str], object],
    stop: StopSignal | None,
) -> int:
    """Run a shell command of the plan's in a workspace; its exit code, negative for a signal.

    A program that is not there is exit code 127, as in a shell.
    """
    try:
        ended = await context.supervisor.run(
            Spawn(
                argv=shell_argv(script),
                cwd=str(workspace.path),
                env=environment({**workspace.env, "AGENTFUL_RUN": context.run}),
                mark=mark,
            ),
            on_line,
            stop=stop,
        )
    except AgentError as error:
        on_line(str(error))
        return 127
    return ended.returncode


def agent_of(task: Task, agents: Mapping[str, Agent]) -> Agent:
    """Who does a task: the agent it names, or a shell for its command."""
    if task.run is not None:
        return Agent(name=_SHELL, command=shell_argv(task.run), prompt_by="file")
    agent = agents.get(task.agent)
    return agent if agent is not None else Agent(name=task.agent)


def driver_of(
    task: Task, agent: Agent, driver_for: Callable[[Agent], Driver | FunctionDriver]
) -> Driver | FunctionDriver:
    """How an agent is spoken to; a task's own command is run as it stands."""
    return CommandDriver(agent, verbatim=True) if task.run is not None else driver_for(agent)


async def run_process(
    supervisor: Supervisor,
    driver: Driver,
    attempt: Attempt,
    mark: str,
    emit: Callable[[AgentEvent], None],
    stop: Stop,
    *,
    env: Mapping[str, str] | None = None,
    log: AttemptLog | None = None,
) -> Outcome:
    """Start what a driver says, have it read every line, and ask it what the end meant."""
    spec = driver.command(attempt)

    def on_line(line: str) -> None:
        if log is not None:
            line = log.line(line)
        for event in driver.read(line):
            emit(event)

    ended = await supervisor.run(
        Spawn(
            argv=spec.argv,
            cwd=attempt.workspace,
            env=environment({**spec.env, **(env or {})}, spec.pass_env),
            mark=mark,
            stdin_file=spec.stdin_file,
        ),
        on_line,
        stop=stop,
    )
    if ended.survivors and log is not None:
        log.note(f"could not be killed: pids {', '.join(map(str, ended.survivors))}")
    return driver.outcome(ended.returncode)


async def call_function(
    driver: FunctionDriver, attempt: Attempt, emit: Callable[[AgentEvent], None], stop: Stop
) -> Outcome:
    """Call a function as an agent: on the loop, or on a thread. Stopping is cancelling the wait."""
    # In a task of its own: cancelling that ends the function, and nothing of what comes after it.
    work = asyncio.create_task(_outcome_of(driver, attempt, emit), name=attempt.task.id)
    stop.on_request(work.cancel)
    try:
        return await work
    except asyncio.CancelledError as error:
        this = asyncio.current_task()
        if this is not None and this.cancelling():
            raise  # it ends with the loop
        if stop.requested:
            return Outcome(ok=False, reason=Reason.CANCELLED, message="stopped")
        return Outcome(ok=False, reason=Reason.AGENT_FAILED, message=printable(error))
    finally:
        stop.forget()


async def _outcome_of(
    driver: FunctionDriver, attempt: Attempt, emit: Callable[[AgentEvent], None]
) -> Outcome:
    try:
        value = await _on_a_thread(driver, attempt, emit) if driver.blocking else driver.call(attempt, emit)
        if inspect.isawaitable(value):
            value = await value
        return driver.outcome(value)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a function may well end in sys.exit
        return Outcome(ok=False, reason=Reason.AGENT_FAILED, message=printable(error))


async def _on_a_thread(
    driver: FunctionDriver, attempt: Attempt, emit: Callable[[AgentEvent], None]
) -> object:
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()

    def emit_from_thread(event: AgentEvent) -> None:
        loop.call_soon_threadsafe(emit, event)

    def call() -> object:
        try:
            return context.run(driver.call, attempt, emit_from_thread)
        except StopIteration as error:
            # A future does not take this one, and would be waited for without end.
            raise RuntimeError("it raised StopIteration") from error

    return await loop.run_in_executor(_Thread(f"agentful {attempt.task.id}"), call)


class _Thread(Executor):
    """Each call on a thread of its own: the loop's pool is smaller than the number of slots may be. And
    one that the interpreter does not wait for at its end, since nothing can stop it.

    It is an executor for the sake of loops that do such work in another way, as under virtual time.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # so that it cannot be cancelled any more, as a thread cannot

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - the one who waits for it gets it
                future.set_exception(error)

        threading.Thread(target=work, name=self._name, daemon=True).start()
        return future


def _redacted(value: Any, redactor: Redactor) -> Any:
    """Plain data with the secrets taken out of every text in it."""
    match value:
        case str():
            return redactor.redact(value)
        case dict():
            return {key: _redacted(item, redactor) for key, item in cast("dict[str, Any]", value).items()}
        case list():
            return [_redacted(item, redactor) for item in cast("Sequence[Any]", value)]
        case _:
            return value


def subject_of(task: Task) -> str:
    """The first line of the commits that have a task's work."""
    return (task.title or task.id)[:100]


def author_of(task: Task) -> tuple[str, str] | None:
    """Who wrote a task's work: its agent. ``None``, which is the user, for a command."""
    return (task.agent, f"{slug(task.agent)}@agentful.localhost") if task.agent else None
