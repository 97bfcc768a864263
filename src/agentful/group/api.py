"""`TaskGroup`, `AgentPool`, `run` and `ask`."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Self, cast

from .. import config
from ..errors import TaskGroupError
from ..model import Decision, Reason, State, Task
from ..runtime import branch
from ..runtime.run import LiveRun
from .host import Host, Results, current_host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from ..model import TaskResult
    from .host import Player, Progress, TaskHandle, Wish

_SETTINGS = ("agents", "checks", "driver", "land", "on_progress", "repository", "title")
"""What `run` takes beside a task's own fields."""


class TaskGroup:
    """Tasks that run in parallel where that is safe, and in order where it is not.

    Await it for the results of the tasks it was given, or enter it with ``async with`` and submit more.
    Awaited, it raises :class:`TaskGroupError` only with ``fail_fast``; leaving the block raises one
    wherever a task failed, so that ``except* ConflictError`` works.

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
        Called with the agent's name and a :class:`Progress`.
    agents
        Who plays a role, by name: an :class:`Agent`, a driver, a function, or a mapping of an agent's
        fields. They come before those that the repository defines.
    driver
        Who plays the roles that are defined nowhere.
    repository
        A path in the repository to work on; ``None`` for tasks that run in the current folder and land
        nothing.
    land
        Move the user's branch to the result, if every task succeeded.

    Raises :class:`PlanError` or :class:`ConfigError` before anything has started.
    """

    def __init__(
        self,
        tasks: Iterable[Wish] = (),
        options: Mapping[str, Any] | None = None,
        *,
        mode: str | None = None,
        max_concurrency: int | str | None = None,
        fail_fast: bool | None = None,
        timeout: float | timedelta | None = None,
        retries: int | None = None,
        conflicts: str | None = None,
        checks: Sequence[str] | None = None,
        on_progress: Callable[[str, Progress], object] | None = None,
        agents: Mapping[str, Player] | None = None,
        driver: Any = None,
        repository: str | Path | None = ".",
        land: bool = False,
        title: str = "",
    ) -> None:
        given = config.options_from_dict(dict(options or {}))
        said = {
            "mode": mode,
            "max_concurrency": max_concurrency,
            "fail_fast": fail_fast,
            "timeout": timeout,
            "retries": retries,
            "conflicts": conflicts,
            "checks": checks,
        }
        given |= config.check_options({name: value for name, value in said.items() if value is not None})
        listener = given.pop("on_progress", None)
        self._listener: Callable[[str, Progress], object] | None = on_progress or listener
        self._given_options = given
        self._given = list(tasks)
        self._agents = agents
        self._driver = driver
        self._repository = repository
        self._land = land
        self._title = title
        self._host: Host | None = None
        self._token: Any = None

    # --- awaiting ----------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Results]:
        return self._collect().__await__()

    async def _collect(self) -> Results:
        async with self._open() as host:
            await host.settle()
            results = host.results()
        if host.options.fail_fast:
            self._raise_for(results)
        await self._land_if_asked(results)
        return results

    def run_sync(self) -> Results:
        """The same from code that is not async."""
        return asyncio.run(self._collect())

    # --- async with --------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._open().__aenter__()
        self._token = current_host.set(self._host)
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        host = self.host
        current_host.reset(self._token)
        try:
            if error is not None:
                # The block failed: its tasks are not wanted any more.
                host.run.cancel()
            await host.settle()
        finally:
            await host.__aexit__(kind, error, traceback)
        if error is None:
            results = host.results()
            self._raise_for(results)
            await self._land_if_asked(results)

    def _open(self) -> _Opening:
        if self._host is not None:
            raise RuntimeError("this group was run already; make a new one")
        self._host = Host(
            repository=self._repository,
            given=self._given_options,
            agents=self._agents,
            driver=self._driver,
            title=self._title,
        )
        return _Opening(self._host, self._given, self._listener)

    @property
    def host(self) -> Host:
        """The run behind it. Raises ``RuntimeError`` where the group is not open."""
        if self._host is None:
            raise RuntimeError("the group is not open: use it in `async with`, or await it")
        return self._host

    # --- while it is open --------------------------------------------------------------------------

    def submit(self, agent: str | Wish, prompt: str = "", /, **fields: Any) -> TaskHandle:
        """Add a task: an agent's name, a prompt and the fields of :class:`Task`; or a whole task.

        It may need only what was submitted before. Raises :class:`PlanError` where it does not fit.
        """
        wish = Task(agent, prompt, **fields) if isinstance(agent, str) else agent
        return self.host.submit([wish])[0]

    async def progress(self) -> AsyncIterator[Progress]:
        """Progress as it comes, until everything that was submitted so far has ended."""
        host = self.host
        queue: asyncio.Queue[Progress | None] = asyncio.Queue()
        stop = host.listen(queue.put_nowait)

        async def end() -> None:
            try:
                await host.settle()
            finally:
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
        self.host.run.cancel()

    @property
    def results(self) -> Results:
        """What is known of every task so far, in the order of submission."""
        return self.host.results()

    @property
    def branch(self) -> str | None:
        """The full name of the branch that the results land on; ``None`` without a repository."""
        run_ = self.host.run
        return run_.info.branch if isinstance(run_, LiveRun) else None

    # --- its end -----------------------------------------------------------------------------------

    def _raise_for(self, results: Results) -> None:
        errors = [result.error for result in results if _is_failure(result)]
        found = [error for error in errors if error is not None]
        if found:
            plural = "task" if len(found) == 1 else "tasks"
            raise TaskGroupError(f"{len(found)} {plural} of {len(results)} failed", found)

    async def _land_if_asked(self, results: Results) -> None:
        host = self.host
        if self._land and results.ok and isinstance(host.run, LiveRun):
            await branch.land(host.run.repo, host.run.info)


class _Opening:
    """Opens a host, with its first tasks and its listener."""

    def __init__(
        self, host: Host, wishes: Sequence[Wish], listener: Callable[[str, Progress], object] | None
    ) -> None:
        self._host = host
        self._wishes = wishes
        self._listener = listener

    async def __aenter__(self) -> Host:
        host = self._host
        await host.__aenter__()
        try:
            if self._listener is not None:
                listener = self._listener
                host.listen(lambda progress: listener(progress.agent, progress))
            if self._wishes:
                host.submit(self._wishes)
        except BaseException:
            await host.__aexit__(None, None, None)
            raise
        return host

    async def __aexit__(self, *exc: object) -> None:
        await self._host.__aexit__(*exc)


class AgentPool:
    """A number of slots that tasks are put to as they come.

        async with AgentPool(4) as pool:
            await asyncio.gather(pool.run("backend", "Task 1"), pool.run("frontend", "Task 2"))

    Takes what :class:`TaskGroup` takes. Leaving it waits for what was submitted.
    """

    def __init__(self, max_concurrency: int | str | None = None, **settings: Any) -> None:
        self._group = TaskGroup(max_concurrency=max_concurrency, **settings)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        try:
            await self._group.__aexit__(kind, error, traceback)
        except TaskGroupError:
            # Whoever submitted a task has had its error already.
            return

    def submit(self, agent: str | Wish, prompt: str = "", /, **fields: Any) -> TaskHandle:
        """Add a task, and go on. See :meth:`TaskGroup.submit`."""
        return self._group.submit(agent, prompt, **fields)

    async def run(self, agent: str | Wish, prompt: str = "", /, **fields: Any) -> TaskResult:
        """Add a task and wait for its result. Raises its :class:`TaskError` where it did not succeed."""
        return await self.submit(agent, prompt, **fields)

    execute = run
    """The name that the seed has for it."""

    async def group(self, tasks: Iterable[Wish], *, max_concurrency: int | None = None) -> Results:
        """Add tasks that belong together, and wait for all of them. Raises nothing for their failures.

        ``max_concurrency`` keeps this group to fewer slots than the pool has.
        """
        host = self._group.host
        wishes = list(tasks)
        if max_concurrency is None:
            handles = host.submit(wishes)
            await host.settle(handle.id for handle in handles)
            return Results(handle.result for handle in handles)
        waiting = deque(wishes)
        handles = []
        under_way: set[str] = set()
        while waiting or under_way:
            while waiting and len(under_way) < max_concurrency:
                handle = host.submit([waiting.popleft()])[0]
                handles.append(handle)
                under_way.add(handle.id)
            ended = asyncio.wait(
                [each.ended for each in handles if each.id in under_way],
                return_when=asyncio.FIRST_COMPLETED,
            )
            await ended
            under_way = {i for i in under_way if not host.handles[i].done}
        return Results(handle.result for handle in handles)

    @property
    def results(self) -> Results:
        return self._group.results


async def run(agent: str | Wish, prompt: str = "", /, **fields: Any) -> TaskResult:
    """Run one task, and return its result.

    Takes the fields of :class:`Task`, and the settings of :class:`TaskGroup` (``agents``, ``driver``,
    ``repository``, ``checks``, ``land``, ``on_progress``). Raises the task's :class:`TaskError` where it
    did not succeed.
    """
    settings = {name: fields.pop(name) for name in _SETTINGS if name in fields}
    wish = Task(agent, prompt, **fields) if isinstance(agent, str) else agent
    result = cast("TaskResult", (await TaskGroup([wish], **settings))[0])
    if result.error is not None:
        raise result.error
    return result


def run_sync(agent: str | Wish, prompt: str = "", /, **fields: Any) -> TaskResult:
    """:func:`run`, from code that is not async."""
    return asyncio.run(run(agent, prompt, **fields))


async def ask(
    question: str,
    options: Sequence[str] = (),
    blocking: Iterable[Any] = (),
    *,
    context: str = "",
    repository: str | Path = ".",
) -> str:
    """Ask a person, and wait for the answer. Tasks that it blocks wait with it, all others go on.

    It is answered by ``agentful decide``, or in ``.agentful/decisions.json``. ``blocking`` takes ids or
    handles. Inside ``async with TaskGroup()`` the question is the group's; elsewhere it stands alone.
    """
    ids = tuple(item if isinstance(item, str) else str(item.id) for item in blocking)
    decision = Decision(id="", question=question, options=tuple(options), blocking=ids, context=context)
    host = current_host.get()
    if host is not None:
        return await host.ask(decision)
    alone = Host(repository=repository, given={}, agents=None, driver=None, title=question)
    async with alone:
        return await alone.ask(decision)


def ask_sync(
    question: str, options: Sequence[str] = (), blocking: Iterable[Any] = (), *, context: str = ""
) -> str:
    """:func:`ask`, from code that is not async."""
    return asyncio.run(ask(question, options, blocking, context=context))


def _is_failure(result: TaskResult) -> bool:
    return result.state is State.FAILED or result.reason is Reason.RUN_TIMEOUT
