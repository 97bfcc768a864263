"""Runs to measure, in small real repositories and without, and how busy the machine was."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agentful.model import Options, State, Task
from agentful.runtime.git import Repository
from agentful.runtime.local import LocalRun
from agentful.runtime.run import LiveRun, RunSpec
from bench.harness import timed

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

FILES = 50


def load() -> float:
    """How many processes wanted the machine in the last minute, before the measurement."""
    return os.getloadavg()[0]


def load_line(before: float) -> str:
    """The same for people."""
    return f"Load before: {before:.1f}."


@contextmanager
def repository() -> Generator[tuple[Repository, Path]]:
    """A new repository with some files and one commit, and a folder for workspaces beside it."""
    with tempfile.TemporaryDirectory(prefix="agentful-bench-") as folder:
        root = Path(folder, "repository")
        for number in range(FILES):
            file = root / f"src/module{number % 7}/file{number}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"answer = {number}\n" * 40)
        git = ("git", "-C", str(root))
        who = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
        for command in (("init", "-q", "-b", "main"), ("add", "-A"), (*who, "commit", "-q", "-m", "first")):
            subprocess.run([*git, *command], check=True)
        yield Repository.discover(root), Path(folder, "workspaces")


def in_workspaces(tasks: Sequence[Task], slots: int) -> float:
    """Seconds that these tasks take in a repository made for them: workspaces, pins, landing, journal."""

    async def main() -> None:
        spec = RunSpec(tasks=tuple(tasks), options=Options(max_concurrency=slots))
        async with LiveRun.create(repo, spec, workspaces=workspaces) as run:
            await run.wait()
            assert run.view.counts[State.SUCCEEDED] == len(tasks), run.view.counts

    with repository() as (repo, workspaces):
        return timed(lambda: asyncio.run(main()))


def in_place(tasks: Sequence[Task], slots: int) -> float:
    """Seconds that these tasks take without a repository, in an empty folder."""

    async def main() -> None:
        options = Options(max_concurrency=slots)
        async with LocalRun(options, folder=Path(folder), containment="group") as run:
            run.submit(tasks)
            await run.wait()
            assert run.view.counts[State.SUCCEEDED] == len(tasks), run.view.counts

    with tempfile.TemporaryDirectory(prefix="agentful-bench-") as folder:
        return timed(lambda: asyncio.run(main()))
