"""``agentful init``: a settings file and a first plan, where there are none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .. import config
from ..config.plan import PLAN_NAMES
from ..errors import ConfigError
from .exits import Exit
from .shared import here_without_journal

if TYPE_CHECKING:
    from pathlib import Path

_CONFIG = """\
# Settings of agentful for this repository. `agentful config` shows all of them, and where each comes from.
# This folder is not tracked by git; what everybody should have goes to [tool.agentful] in pyproject.toml.

# max_concurrency = "auto"     # how many agents at once
# setup = ["npm ci"]           # run in every fresh workspace
{checks}
# Agents are found in .claude/agents/*.md. Or name one here, with the program that plays it:
# [agents.backend]
# command = ["claude", "-p", "{{prompt}}"]

# The program for all agents that do not name one:
# [agent_defaults]
# command = ["claude", "-p", "{{prompt}}"]
"""

_PLAN = """\
# A first plan: shell commands, so that it runs as it is. `agentful plan` shows it, `agentful run` runs it.
# What it makes lands on a branch of its own; your branch does not change before `agentful land`.
title: A first plan

tasks:
  hello:
    run: echo hello > hello.txt
    writes: [/hello.txt]
    estimate: 1s
  world:
    run: echo world > world.txt
    writes: [/world.txt]
    estimate: 1s
  both:
    run: cat hello.txt world.txt > both.txt
    needs: [hello, world]
    writes: [/both.txt]
    estimate: 1s

# With an agent, a task is a wish:
#   api:
#     agent: {agent}
#     prompt: Implement the auth API
#     writes: ["src/api/**"]     # what it may write: tasks that write the same are kept apart
#     timeout: 20m
#   tests:
#     agent: tester
#     prompt: Write tests for auth
#     needs: [api]               # starts once api has landed
#
# checks: ["{check}"]            # what every merged result has to pass to land
"""


@click.command()
def init() -> int:
    """Write .agentful/config.toml and an example plan.yaml, where there are none.

    Nothing that is there is changed.
    """
    repo = here_without_journal()
    root = repo.root
    check = find_check(root)
    agents = sorted(config.load_agents(root, config.load_settings(root)))
    repo.add_exclude("/.agentful/")
    comment = "# checks = [...]              # what every merged result has to pass to land\n"
    if check is not None:
        comment = f"# checks = [{json.dumps(check)}]   # what every merged result has to pass to land\n"
    _write(root / config.CONFIG_FILE, config.CONFIG_FILE, _CONFIG.format(checks=comment))
    present = next((name for name in PLAN_NAMES if (root / name).exists()), None)
    if present is not None:
        click.echo(f"kept  {present}")
    else:
        agent = agents[0] if agents else "backend"
        _write(root / "plan.yaml", "plan.yaml", _PLAN.format(agent=agent, check=check or "make test"))
    if agents:
        click.echo(f"found {len(agents)} agent{'s' if len(agents) != 1 else ''}: {', '.join(agents[:12])}")
    click.echo("next: agentful doctor, agentful plan, agentful run")
    return Exit.DONE


def _write(path: Path, name: str, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        click.echo(f"kept  {name}")
    except OSError as error:
        raise ConfigError(f"it cannot be written: {error.strerror}", where=str(path)) from None
    else:
        click.echo(f"wrote {name}")


def find_check(root: Path) -> str | None:
    """How this project is tested, as far as its files say."""
    if _says(root / "Makefile", "\ntest:"):
        return "make test"
    if _says(root / "package.json", '"test":'):
        return "npm test"
    for name, check in (("Cargo.toml", "cargo test"), ("go.mod", "go test ./...")):
        if (root / name).is_file():
            return check
    if (root / "pytest.ini").is_file() or _says(root / "pyproject.toml", "pytest"):
        return "pytest -q"
    return None


def _says(path: Path, text: str) -> bool:
    try:
        return text in "\n" + path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
