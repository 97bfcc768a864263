"""``agentful doctor``: what would stop a run, and what to do about it."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from typing import TYPE_CHECKING, Literal

import click
from msgspec import Struct

from .. import config
from ..errors import AgentfulError, PlanError
from ..progress import as_word, one_line
from ..runtime import capacity
from ..runtime.process import Supervisor
from ..runtime.run import journal_of
from ..runtime.workspace import Workspaces
from .exits import Exit
from .init import detected_in
from .shared import here_without_journal, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ..config import Plan, Settings
    from ..model import Agent
    from ..progress import Line
    from ..runtime.git import Repository

_LITTLE_DISK = 2 << 30
_TOO_LITTLE_DISK = 100 << 20

_STYLES = {"ok": "green", "note": "cyan", "bad": "bold red"}

_SIMPLE_WORD = re.compile(r"[\w./+-]+")
_SHELL_WORDS = frozenset({"cd", "exec", "export", "for", "if", "set", "source", "test", "time", "while"})


class Finding(Struct, frozen=True):
    """One thing that was looked at. ``bad`` would stop a run; a ``note`` would not."""

    level: Literal["ok", "note", "bad"]
    text: str
    fix: str = ""


@click.command()
def doctor() -> int:
    """Check git, the repository, the machine, the settings, the agents and the plan.

    Says for each problem how to mend it. The exit code is 1 if something would stop a run.
    """
    bad = False
    for finding in _findings():
        bad = bad or finding.level == "bad"
        lines: list[Line] = [[(f"{finding.level:<5}", _STYLES[finding.level]), (one_line(finding.text), "")]]
        if finding.fix:
            lines.append([("     fix: ", "dim"), (one_line(finding.fix), "")])
        show(lines)
    return Exit.FAILED if bad else Exit.DONE


def _findings() -> Iterator[Finding]:
    yield Finding("ok", f"python {platform.python_version()} on {platform.system()} ({sys.executable})")
    try:
        repo = here_without_journal()
    except AgentfulError as error:
        yield Finding("bad", str(error))
        return
    yield from _repository(repo)
    try:
        settings = config.load_settings(repo.root)
        agents = config.load_agents(repo.root, settings)
    except AgentfulError as error:
        yield Finding("bad", f"settings: {error}")
        return
    places = sorted({re.sub(r":\d+$", "", origin) for origin in settings.origins.values()})
    yield Finding("ok", f"settings from {', '.join(places) or 'nothing but defaults'}")
    yield from _machine(repo, settings)
    yield from _plan(repo, settings, agents)


def _repository(repo: Repository) -> Iterator[Finding]:
    version = repo.user_git("--version").line.removeprefix("git version ")
    branch = repo.head_branch()
    at = f"on {branch}" if branch else "with no branch checked out"
    yield Finding("ok", f"git {version}, repository {repo.root}, {at} at {repo.head()[:9]}")
    if repo.user_git("config", "user.email", check=False).returncode != 0:
        yield Finding(
            "note",
            "git knows no name of yours, so what lands is committed by agentful",
            "git config --global user.name NAME; git config --global user.email ADDRESS",
        )
    with journal_of(repo) as journal:
        problems = journal.integrity_check()
    if problems:
        yield Finding(
            "bad", f"the journal: {problems[0]}", "put a copy of it back, or move it away to begin a new one"
        )


def _machine(repo: Repository, settings: Settings) -> Iterator[Finding]:
    at_once = f"{settings.slots} agent{'s' if settings.slots != 1 else ''} at once"
    yield Finding("ok", f"{at_once} ({capacity.slots()} is what this machine carries)")
    if Supervisor().containment == "namespace":
        yield Finding("ok", "processes of agents are held in a PID namespace, and die with their task")
    else:
        yield Finding(
            "note",
            "no PID namespace can be had here: processes of agents are held by their group and a marker",
            "on Linux: install util-linux, and allow unprivileged user namespaces",
        )
    try:
        folder = Workspaces(repo, "doctor", base=settings.workspace_folder).folder
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
    except (AgentfulError, OSError) as error:
        yield Finding("bad", f"workspaces: {error}", "set AGENTFUL_WORKSPACES to a folder with room")
        return
    room = f"{free / (1 << 30):.1f} GB free for workspaces in {folder.parent}"
    if free < _TOO_LITTLE_DISK:
        yield Finding("bad", room, "free some, or set AGENTFUL_WORKSPACES; agentful clean lists what may go")
    elif free < _LITTLE_DISK:
        yield Finding("note", room, "agentful clean lists what may go")
    else:
        yield Finding("ok", room)


def _plan(repo: Repository, settings: Settings, agents: dict[str, Agent]) -> Iterator[Finding]:
    try:
        path = config.find_plan(repo.root)
        plan: Plan | None = config.load_plan(path, name=path.name)
    except PlanError as error:
        plan = None
        missing = str(error).startswith("there is no plan here")
        yield Finding("note" if missing else "bad", str(error))
    used: Iterable[str] = ()
    checks, setup = settings.checks, settings.setup
    if plan is not None:
        whole = config.load_settings(repo.root, plan=plan.options)
        checks, setup = whole.checks, whole.setup
        try:
            tasks, used = config.resolve(plan, whole, agents)
        except PlanError as error:
            yield Finding("bad", str(error))
        else:
            yield Finding("ok", f"the plan {plan.source} has {len(tasks)} tasks, and its agents are there")
    for name, agent in agents.items():
        why = config.why_unusable(agent)
        if why is not None and name not in used:
            yield Finding("note", why)
        elif why is None:
            yield Finding("ok", f"agent {name} ({agent.source or 'the plan'}): {_player(agent)}")
    if not agents:
        yield Finding(
            "note", "no agents are defined here; a task with `run` needs none", "agentful init shows how"
        )
    for kind, commands in (("check", checks), ("setup command", setup)):
        for command in commands:
            yield from _command(repo.root, kind, command)
    if not checks:
        yield Finding(
            "note",
            "there are no checks, so what lands is merged but not tested",
            f"agentful config set checks {as_word(next(iter(detected_in(repo).checks), 'make test'))}",
        )


def _player(agent: Agent) -> str:
    return " ".join(agent.command[:1]) or agent.driver


def _command(root: Path, kind: str, command: str) -> Iterator[Finding]:
    """Whether the program of a shell command is there, as far as that can be told."""
    program = command.split(maxsplit=1)[0]
    if not _SIMPLE_WORD.fullmatch(program) or program in _SHELL_WORDS:
        return
    found = (root / program).exists() if "/" in program else shutil.which(program) is not None
    if found:
        yield Finding("ok", f"{kind}: {command}")
    else:
        yield Finding("note", f"{kind}: {command}: {program} is not on this machine", f"install {program}")
