"""``agentful demo``: ten scripted agents on a small project, exactly as ``agentful run`` does it."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import demo as project
from ..events import DecisionOpened
from ..runtime.git import Repository
from ..runtime.run import LiveRun, RunSpec
from .exits import Exit
from .live import carry_out, shown_as
from .options import showing_flags
from .plan import prepare
from .shared import say, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..events import Transition

_ANSWER_AFTER = 0.5
"""Seconds that the demo lets its own question stand, so that it can be seen."""


@click.command()
@click.option("-j", "--max-concurrency", type=click.IntRange(1, 16), default=4, help="How many at once.")
@click.option(
    "--directory", type=click.Path(path_type=Path), help="An empty or new folder to make the project in."
)
@click.option(
    "--speed", type=click.FloatRange(0.1, 100), default=1.0, help="How fast the agents pretend to think."
)
@click.option("--ask", is_flag=True, help="Leave the question to you, instead of answering it.")
@showing_flags
def demo(
    max_concurrency: int, directory: Path | None, speed: float, ask: bool, progress: str, as_json: bool
) -> int:
    """Watch ten scripted agents work on a small project in parallel. No model, no key, no network.

    One asks a question, one fails its checks and is retried, two clash on a file; all of it lands, tested.
    The project is an ordinary repository, which stays for you to look at.
    """
    folder = directory or Path(tempfile.mkdtemp(prefix="agentful-demo-"))
    plan = project.prepare(folder, speed=speed)
    say(f"A small project and ten tasks for scripted agents (scripts, not models), in {folder}")
    repo = Repository.discover(folder)
    prepared = prepare(repo, str(plan), {"max_concurrency": max_concurrency})
    run = LiveRun.create(
        repo,
        RunSpec(
            tasks=prepared.tasks,
            agents=prepared.agents,
            options=prepared.options,
            title=prepared.plan.title,
            plan=prepared.plan.source,
            plan_text=prepared.plan.text,
        ),
        workspaces=prepared.settings.workspace_folder,
    )
    shown = shown_as(progress, as_json=as_json)
    code = carry_out(run, shown, begin=None if ask else _answer)
    if shown != "json":
        _tell(repo, run, folder, code, asked=ask)
    return code


def _answer(run: LiveRun) -> None:
    """Answer the demo's question, as a person would with `agentful decide`."""
    loop = asyncio.get_running_loop()

    def watch(changes: Sequence[Transition]) -> None:
        for change in changes:
            if isinstance(change, DecisionOpened) and change.decision.question in project.ANSWERS:
                answer = project.ANSWERS[change.decision.question]
                loop.call_later(_ANSWER_AFTER, run.answer, change.decision.id, answer)

    run.watch(watch)


def _tell(repo: Repository, run: LiveRun, folder: Path, code: Exit, *, asked: bool) -> None:
    if code is not Exit.DONE:
        return
    branch = short(run.info.branch)
    with tempfile.TemporaryDirectory(prefix="agentful-") as place:
        archive = repo.git("archive", "--format=tar", run.info.branch).stdout
        subprocess.run(("tar", "-xf", "-"), cwd=place, input=archive, check=True)
        suite = run.info.options.checks[0].split()
        ran = subprocess.run(suite, cwd=place, capture_output=True, text=True, check=False)
    said = next((line for line in ran.stderr.splitlines() if line.startswith("Ran ")), "it did not run")
    say(f"suite  {said}: {'OK' if ran.returncode == 0 else 'FAILED'}, on {branch}; it had 1 test before")
    if not asked:
        say("The question was answered by the demo, for you.")
    say(f"The checkout in {folder} was not touched: what landed is on {branch}. Look around:")
    clashed = next((r.id for r in run.view.records.values() if r.conflicts), "filters")
    for command, why in (
        (f"cd {folder}", ""),
        (f"git log --stat {branch}", "# a commit for each task"),
        (f"agentful explain {clashed}", "# why it ran twice"),
        ("agentful land", "# bring it to main"),
    ):
        click.echo(f"  {command:<36}{why}".rstrip(), err=True)
