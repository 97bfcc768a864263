"""Runs for tests: a real repository, real processes, and all that happened."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from agentful.core.view import RunView
from agentful.events import TaskChanged
from agentful.model import Agent, Options, Task
from agentful.runtime.git import Repository
from agentful.runtime.run import LiveRun, RunSpec, journal_of
from gitutil import git

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agentful.events import Transition
    from agentful.model import TaskResult


def sh(name: str, script: str, **fields: Any) -> Agent:
    """An agent that is a shell script; the prompt is in ``$AGENTFUL_PROMPT_FILE``."""
    return Agent(name=name, command=("/bin/sh", "-c", script), prompt_by="file", **fields)


class Ran:
    """What came of a run."""

    def __init__(self, run: LiveRun, story: list[Transition]) -> None:
        self.id = run.info.id
        self.branch = run.info.branch
        self.repo = run.repo
        self.view = run.view
        self.problems = run.problems
        self.story = story

    def __getitem__(self, task_id: str) -> TaskResult:
        return self.view.records[task_id].result()

    def triggers(self, task_id: str) -> list[str]:
        """What happened to a task, by the names of the triggers."""
        return [str(t.trigger) for t in self.story if isinstance(t, TaskChanged) and t.task_id == task_id]

    def files(self, rev: str | None = None) -> dict[str, str]:
        """The files of the integration branch, with what is in them."""
        root = self.repo.root
        names = git(root, "ls-tree", "-r", "-z", "--name-only", rev or self.branch).split("\0")
        return {name: git(root, "show", f"{rev or self.branch}:{name}") for name in names if name}

    def log(self) -> list[str]:
        """The subjects of what landed, oldest first."""
        commits = self.repo.commits(f"{self.view_base()}..{self.branch}", first_parent=True)
        return [commit.subject for commit in commits]

    def view_base(self) -> str:
        with journal_of(self.repo) as journal:
            info = journal.run(self.id)
        assert info is not None
        return info.base

    def from_journal(self) -> RunView:
        """The run as its journal has it."""
        with journal_of(self.repo) as journal:
            return RunView(journal.read(self.id)[0])


def carry_out(
    root: Path,
    tasks: Sequence[Task],
    *,
    agents: Sequence[Agent] = (),
    options: Options | None = None,
    act: Callable[[LiveRun, Sequence[Transition]], object] | None = None,
    setup: Sequence[str] = (),
    check_timeout: float = 60.0,
    driver_for: Any = None,
) -> Ran:
    """Carry tasks out, to their end. ``act`` is called with every batch of transitions."""
    spec = RunSpec(
        tasks=tuple(tasks),
        agents={agent.name: agent for agent in agents},
        options=options or Options(retry_delay=0.01, on_conflict="fail"),
        setup=tuple(setup),
        check_timeout=check_timeout,
    )
    return enter(LiveRun.create(Repository.discover(root), spec, driver_for=driver_for), act)


def resume(root: Path, run: str, act: Any = None, **options: Any) -> Ran:
    """Take a run up again, and carry it out to its end."""
    return enter(LiveRun.resume(Repository.discover(root), run, **options), act)


def enter(run: LiveRun, act: Any = None) -> Ran:
    story: list[Transition] = []

    def watch(changes: Sequence[Transition]) -> None:
        story.extend(changes)
        if act is not None:
            act(run, changes)

    async def main() -> None:
        run.watch(watch)
        async with asyncio.timeout(60):
            async with run:
                await run.wait()

    asyncio.run(main())
    return Ran(run, story)
