"""``agentful plan``: what a run would do. And how a plan is read, for those who carry it out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from .. import config
from ..errors import GitError, PlanError
from ..model import Agent, Options, Task
from .exits import Fault
from .forecast import apart, forecast, warnings
from .options import planning_flags, settings_of
from .planview import plan_document, plan_lines, run_command
from .shared import here_without_journal, show, show_json, width

if TYPE_CHECKING:
    from ..runtime.git import Repository

__all__ = ["Prepared", "plan", "prepare", "show_plan"]


class Prepared(Struct, frozen=True, kw_only=True):
    """A plan that was read, with the settings that hold for it."""

    plan: config.Plan
    path: Path
    """Where it was read from."""
    named: bool
    """Whether the user named it."""
    settings: config.Settings
    options: Options
    tasks: tuple[Task, ...]
    agents: dict[str, Agent]
    base: str
    """The commit that the run begins at."""
    refused: str = ""
    """Why it would not be run, where that was to be told only."""


def prepare(
    repo: Repository,
    path: str | None,
    flags: dict[str, Any],
    *,
    base: str | None = None,
    lenient: bool = False,
) -> Prepared:
    """Read a plan and check everything about it; nothing is started.

    ``lenient`` takes a plan whose agents are not there, and tells that. Raises PlanError, ConfigError, or
    Fault for a base that there is not.
    """
    file = Path(path) if path is not None else config.find_plan(repo.root)
    name = str(file) if path is not None else file.name
    plan = config.load_plan(file, name=name)
    settings = config.load_settings(repo.root, flags=settings_of(flags), plan=plan.options)
    known = config.load_agents(repo.root, settings)
    refused = ""
    try:
        tasks, agents = config.resolve(plan, settings, known)
    except PlanError as error:
        if not lenient:
            raise
        tasks, agents = tuple(config.with_agent_defaults(task, known) for task in plan.tasks), dict(known)
        refused = str(error)
    try:
        commit = repo.resolve(base or settings.base or "HEAD")
    except GitError:
        raise Fault(f"there is no commit {base or settings.base!r} to begin at") from None
    return Prepared(
        plan=plan,
        path=file.resolve(),
        named=path is not None,
        settings=settings,
        options=settings.options(retries=1, on_conflict="decide"),
        tasks=tasks,
        agents=agents,
        base=commit,
        refused=refused,
    )


def show_plan(repo: Repository, prepared: Prepared, *, as_json: bool) -> None:
    """Print what a run of the plan would do."""
    tasks, options = prepared.tasks, prepared.options
    line = forecast(tasks, options)
    pairs = apart(tasks, options)
    found = warnings(tasks, options, pairs, line)
    if prepared.refused:
        found.insert(0, f"it cannot be run as it is: {prepared.refused}")
    if as_json:
        show_json(plan_document(tasks, line, pairs, found))
        return
    branch = repo.head_branch() if prepared.base == repo.head() else None
    base = f"{branch}@{prepared.base[:7]}" if branch else prepared.base[:9]
    command = run_command(prepared.plan.source if prepared.named else "")
    show(plan_lines(tasks, line, pairs, found, base=base, command=command, width=width()))


@click.command()
@click.argument("plan", required=False, metavar="[PLAN]")
@planning_flags
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document (version 1); times in seconds.")
def plan(plan: str | None, as_json: bool, **flags: Any) -> None:
    """Show what a run of PLAN would do: tasks, waves, timeline, critical path. Starts nothing.

    Without PLAN, it is plan.yaml (or agentful.yaml, plan.toml, ...) at the top of the repository. Waves
    are only a picture: a task starts the moment that its own needs have landed.
    """
    repo = here_without_journal()
    show_plan(repo, prepare(repo, plan, flags, lenient=True), as_json=as_json)
