"""`TaskGroup`, `AgentPool`, `run` and `ask`."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast

from msgspec.structs import replace

from .. import config
from ..errors import PlanError, TaskError, TaskGroupError
from ..model import Decision, Task, ids_of
from ..runtime import branch
from ..runtime.run import LiveRun
from .handle import group_error
from .host import Host, current_host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import Literal

    from ..model import Named, TaskResult
    from .fields import GroupOptions, PoolOptions, RunFields, TaskFields, Wish
    from .handle import Progress, Results, TaskHandle

T = TypeVar("T")

_NO_SETTINGS = ("agents", "driver", "on_progress", "repository", "title")
"""What a group takes that no configuration file could say."""
_OF_THE_GROUP = (*_NO_SETTINGS, "land")
"""What `run` takes beside a task's own fields."""


class TaskGroup:
    """Tasks that run in parallel where that is safe, and in order where it is not.

    Await it for the results of the tasks it was given, or enter it with ``async with`` and submit more.
    Awaited, it raises :class:`TaskGroupError` only with ``fail_fast``: without, look at the results.
    Leaving the block raises one wherever a task failed, so that ``except* ConflictError`` works. Either
    way it raises one where somebody else stopped the run before its end.

    An exception in the block cancels what has not ended. Cancelling the code that waits, as Ctrl-C does,
    stops it as well, but so that ``agentful resume`` can go on with it. Both wait until all processes
    are gone.

    Parameters
    ----------
    tasks
        Tasks, or plain mappings with a task's fields, also in the seed's own spelling (``task`` for the
        prompt, ``dependencies``, a ``timeout`` in milliseconds).
    options
        A mapping of options in the seed's spelling: ``{"mode": "parallel", "failFast": False,
        "maxConcurrency": 4, "timeout": 600000, "onProgress": ...}``. Keyword arguments win over it.
    mode
        ``"parallel"`` and ``"auto"`` start what may start; ``"sequential"`` is one slot.
    max_concurrency
        How many attempts at once, or ``"auto"`` for what this machine carries.
    timeout
        Seconds, or a ``timedelta``, for the whole group.
    on_progress
        Called with the agent's name and a :class:`Progress`. Where it raises, that is logged.
    agents
        Who plays a role, by name: an :class:`Agent`, a mapping of an agent's fields, a function, a driver.
        They come before those that the repository defines.
    driver
        Who plays the roles that are defined nowhere, or without a command.
    repository
        A path in the repository to work on; ``None`` for tasks that run in the current folder and land
        nothing.
    land
        Move the user's branch to the result, if every task succeeded.
    title
        What it is about, for people.
    settings
        Any other setting of a run, as in ``.agentful/config.toml``: ``checks``, ``retries``, ``conflicts``,
        ``on_failure`` and so on. What is not said is taken from there.

    Raises :class:`PlanError` or :class:`ConfigError` before anything has started.
    """

    def __init__(
        self,
        tasks: Iterable[Wish] = (),
        options: Mapping[str, Any] | None = None,
        **settings: Unpack[GroupOptions],
    ) -> None:
        if isinstance(tasks, str | Mapping | Task):
            raise PlanError("tasks are given as a list, also if there is only one")
        said = {name: value for name, value in settings.items() if value is not None}
        given = config.options_from_dict(_mapping(options or {}))
        listener = given.pop("on_progress", None)
        given |= config.check_options({n: value for n, value in said.items() if n not in _NO_SETTINGS})
        self._listener = _checked_listener(settings.get("on_progress") or listener)
        self._given = list(tasks)
        self._options = given
        self._settings = settings
        self._host: Host | None = None
        self._used = False

    # --- awaiting ----------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Results]:
        return self._collect().__await__()

    async def _collect(self) -> Results:
        await self._enter()
        await self._leave(None)
        return await self._end(raising=self.host.options.fail_fast)

    def run_sync(self) -> Results:
        """Run it to its end, and return the results, from code that is not async."""
        return _run(self._collect, "await the group")

    # --- async with --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave(error)
        if error is None:
            await self._end(raising=True)

    @property
    def host(self) -> Host:
        """The run behind it. Raises ``RuntimeError`` where the group was not opened."""
        if self._host is None:
            raise RuntimeError("the group is not open: use it in `async with`, or await it")
        return self._host

    async def _enter(self) -> None:
        if self._used:
            raise RuntimeError("this group was run already; make a new one")
        host = Host(
            repository=self._settings.get("repository", "."),
            given=self._options,
            agents=self._settings.get("agents"),
            driver=self._settings.get("driver"),
            title=self._settings.get("title", ""),
        )
        listeners: list[Callable[[Progress], object]] = []
        if self._listener is not None:
            listener = self._listener
            listeners.append(lambda progress: listener(progress.agent, progress))
        self._used = True
        try:
            await host.open(self._given, listeners)
        except BaseException:
            self._used = False
            raise
        self._host = host

    async def _leave(self, error: BaseException | None) -> None:
        """Wait for the end of everything, after an ``error`` in the block by bringing it about."""
        host = self.host
        try:
            if error is not None and not isinstance(error, Exception):
                await host.interrupt()
                return
            if error is not None:
                # The block failed: its tasks are not wanted any more.
                host.cancel()
            try:
                await host.settle()
            except asyncio.CancelledError:
                await host.interrupt()
                raise
        finally:
            await host.close()

    async def _end(self, *, raising: bool) -> Results:
        """The results. Raises the errors among them, and those of a run that was stopped in any case."""
        host = self.host
        results = host.results()
        errors: list[TaskError] = list(host.unfinished)
        if raising:
            errors += [result.error for result in results.failed if result.error is not None]
        if errors:
            raise group_error(errors, len(results))
        if results and results.ok and host.settings.land and isinstance(host.run, LiveRun):
            await branch.land(host.run.repo, host.run.info)
        return results

    # --- while it is open --------------------------------------------------------------------------

    def submit(self, agent: str | Wish = "", prompt: str = "", /, **fields: Unpack[TaskFields]) -> TaskHandle:
        """Add a task: an agent's name, a prompt and the fields of :class:`Task`; or a whole task, in which
        the prompt and the fields are then changed.

        It may need only what was submitted before. Raises :class:`PlanError` where it does not fit, and
        ``RuntimeError`` where the group has ended.
        """
        return self.host.submit([_wish(agent, prompt, fields)])[0]

    async def progress(self) -> AsyncIterator[Progress]:
        """Progress as it comes, until everything that was submitted so far has ended."""
        host = self.host
        queue: asyncio.Queue[Progress | None] = asyncio.Queue()
        stop = host.listen(queue.put_nowait)

        async def end() -> None:
            with contextlib.suppress(Exception):  # leaving the group raises it
                await host.settle()
            queue.put_nowait(None)

        watcher = asyncio.create_task(end())
        try:
            while (progress := await queue.get()) is not None:
                yield progress
        finally:
            stop()
            watcher.cancel()

    def cancel(self) -> None:
        """Cancel every task that has not ended, and stop their processes."""
        self.host.cancel()

    @property
    def results(self) -> Results:
        """What is known of every task so far, in the order of submission."""
        return self.host.results()

    @property
    def branch(self) -> str | None:
        """The full name of the branch that the results land on; ``None`` without a repository."""
        run_ = self.host.run
        return run_.info.branch if isinstance(run_, LiveRun) else None


class AgentPool:
    """A number of slots that tasks are put to as they come.

        async with AgentPool(4) as pool:
            await asyncio.gather(pool.run("backend", "Task 1"), pool.run("frontend", "Task 2"))

    Takes the settings of :class:`TaskGroup`. Leaving it waits for what was submitted, and raises a
    :class:`TaskGroupError` for failures that nobody has waited for.
    """

    def __init__(
        self, max_concurrency: int | Literal["auto"] | None = None, **settings: Unpack[PoolOptions]
    ) -> None:
        self._group = TaskGroup(max_concurrency=max_concurrency, **settings)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._group.__aexit__(kind, error, traceback)
        except TaskGroupError as failures:
            handles = self._group.host.handles
            unseen = [
                e for e in failures.exceptions if isinstance(e, TaskError) and not handles[e.task_id].seen
            ]
            if unseen:
                raise group_error(unseen, len(handles)) from None

    def submit(self, agent: str | Wish = "", prompt: str = "", /, **fields: Unpack[TaskFields]) -> TaskHandle:
        """Add a task, and go on. See :meth:`TaskGroup.submit`."""
        return self._group.submit(agent, prompt, **fields)

    async def run(
        self, agent: str | Wish = "", prompt: str = "", /, **fields: Unpack[TaskFields]
    ) -> TaskResult:
        """Add a task and wait for its result. Raises its :class:`TaskError` where it did not succeed.

        Cancelling this cancels the task.
        """
        handle = self.submit(agent, prompt, **fields)
        try:
            return await handle
        except asyncio.CancelledError:
            handle.cancel()
            raise

    execute = run
    """The name that the seed has for it."""

    async def group(self, tasks: Iterable[Wish], *, max_concurrency: int | None = None) -> Results:
        """Add tasks that belong together, and wait for all of them. Raises nothing for their failures, but
        as a group does where somebody else stopped the run.

        ``max_concurrency`` keeps this group to fewer slots than the pool has. Cancelling this cancels them.
        """
        return await self._group.host.collect(list(tasks), max_concurrency)

    @property
    def results(self) -> Results:
        """What is known of every task so far, in the order of submission."""
        return self._group.results

    @property
    def branch(self) -> str | None:
        """The full name of the branch that the results land on; ``None`` without a repository."""
        return self._group.branch


# --- one task, one question ------------------------------------------------------------------------


async def run(agent: str | Wish = "", prompt: str = "", /, **fields: Unpack[RunFields]) -> TaskResult:
    """Run one task, and return its result.

    Takes the fields of :class:`Task`, and the settings of :class:`TaskGroup` (``agents``, ``driver``,
    ``repository``, ``land``, ``on_progress``, ``title``). Raises the task's :class:`TaskError` where it did
    not succeed.
    """
    said: dict[str, Any] = dict(fields)
    settings = {name: said.pop(name) for name in _OF_THE_GROUP if name in said}
    wish = _wish(agent, prompt, said)
    try:
        result = (await TaskGroup([wish], **settings))[0]
    except TaskGroupError as stopped:
        raise stopped.exceptions[0] from None
    if result.error is not None:
        raise result.error
    return result


def run_sync(agent: str | Wish = "", prompt: str = "", /, **fields: Unpack[RunFields]) -> TaskResult:
    """:func:`run`, from code that is not async."""
    return _run(lambda: run(agent, prompt, **fields), "await run(...)")


async def ask(
    question: str,
    options: Iterable[str] = (),
    blocking: str | Named | Iterable[str | Named] = (),
    *,
    context: str = "",
    repository: str | Path = ".",
) -> str:
    """Ask a person, and wait for the answer. Tasks that it blocks wait with it, all others go on.

    It is answered by ``agentful decide``, or in ``.agentful/decisions.json``. ``blocking`` takes ids or
    handles; a task of theirs that has started already goes on. Inside ``async with TaskGroup()``, and in a
    function that is an agent, the question is the group's; elsewhere it stands alone.
    """
    decision = _decision(question, options, blocking, context)
    host = current_host.get()
    if host is not None and not host.closed:
        return await host.ask(decision)
    async with TaskGroup(repository=repository, title=question) as group:
        return await group.host.ask(decision)


def ask_sync(
    question: str,
    options: Iterable[str] = (),
    blocking: str | Named | Iterable[str | Named] = (),
    *,
    context: str = "",
    repository: str | Path = ".",
) -> str:
    """:func:`ask`, from code that is not async, such as an agent that is a plain function."""
    return _run(
        lambda: ask(question, options, blocking, context=context, repository=repository), "await ask(...)"
    )


# --- what they share -------------------------------------------------------------------------------


def _run(main: Callable[[], Coroutine[Any, Any, T]], instead: str) -> T:
    """Run a coroutine to its end on a loop of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(main())
    raise RuntimeError(f"this blocks, and an event loop is running here: {instead} in its place")


def _wish(agent: str | Wish, prompt: str, fields: Mapping[str, Any]) -> Wish:
    """The task that is meant by what `submit` and `run` take."""
    if isinstance(agent, str):
        named = {"agent": agent, "prompt": prompt}
        return config.task_from_fields({key: text for key, text in named.items() if text} | dict(fields))
    if not (prompt or fields):
        return agent
    task = agent if isinstance(agent, Task) else config.task_from_dict(agent)
    changes = ({"prompt": prompt} if prompt else {}) | dict(fields)
    try:
        return replace(task, **changes)
    except (TypeError, ValueError) as error:
        raise PlanError(str(error), where=f"task {task.id!r}" if task.id else None) from None


def _decision(
    question: str, options: Iterable[str], blocking: str | Named | Iterable[str | Named], context: str
) -> Decision:
    given = (options,) if isinstance(options, str) else tuple(options)
    texts: tuple[Any, ...] = (question, *given)
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise PlanError(f"a question and its options are texts that are not blank, not {text!r:.80}")
    ids = tuple(dict.fromkeys(ids_of(blocking)))
    return Decision(id="", question=question, options=given, blocking=ids, context=str(context))


def _mapping(options: Any) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        raise PlanError(f"options are a mapping, not {options!r:.80}; other settings are keyword arguments")
    return dict(cast("Mapping[str, Any]", options))


def _checked_listener(listener: Any) -> Callable[[str, Progress], object] | None:
    if listener is not None and not callable(listener):
        raise PlanError(f"on_progress is a function, not {listener!r:.80}")
    if inspect.iscoroutinefunction(listener):
        raise PlanError(
            "on_progress is called, not awaited: give a plain function, or use "
            "`async for progress in group.progress()`"
        )
    return cast("Callable[[str, Progress], object] | None", listener)
