"""``agentful init``: a settings file and a first plan, where there are none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ..config.plan import PLAN_NAMES
from ..config.templates import INSPECTED, Detected, detect, init_files
from ..errors import ConfigError
from .exits import Exit
from .shared import here_without_journal

if TYPE_CHECKING:
    from pathlib import Path

    from ..runtime.git import Repository

__all__ = ["detected_in", "init"]

_MOST_BYTES = 1_000_000


@click.command()
def init() -> int:
    """Write .agentful/config.toml, an example plan.yaml and their schemas, where there are none.

    The settings are made from what the repository looks like: how it is tested, and its agents. Nothing
    that is there is changed.
    """
    repo = here_without_journal()
    found = detected_in(repo)
    repo.add_exclude("/.agentful/")
    plan = next((name for name in PLAN_NAMES if os.path.lexists(repo.root / name)), None)
    for name, text in init_files(found).items():
        if name == "plan.yaml" and plan is not None:
            click.echo(f"kept  {plan}")
        else:
            _write(repo.root / name, name, text)
    for check in found.checks:
        click.echo(f"what lands has to pass: {check}")
    if found.agents:
        click.echo(f"agents: {', '.join(found.agents)}")
    click.echo("next: agentful doctor, agentful plan, agentful run")
    return Exit.DONE


def detected_in(repo: Repository) -> Detected:
    """What the repository looks like it needs, by the files in the checkout."""
    listed = repo.user_git("ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
    texts = {name: text for name in INSPECTED if (text := _text(repo.root / name)) is not None}
    return detect(filter(None, os.fsdecode(listed).split("\0")), texts)


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode(errors="replace")
    except OSError:
        return None


def _write(path: Path, name: str, text: str) -> None:
    if os.path.lexists(path):
        click.echo(f"kept  {name}")
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"it cannot be written: {error.strerror}", where=str(path)) from None
    click.echo(f"wrote {name}")
