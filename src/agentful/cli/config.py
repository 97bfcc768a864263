"""``agentful config``: the settings that hold, where each comes from, and changing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from .. import config as settings
from ..progress import one_line
from .shared import here_without_journal, show, show_json

if TYPE_CHECKING:
    from pathlib import Path

    from ..progress import Line


@click.group(invoke_without_command=True)
@click.option("--parallel", "mode", flag_value="parallel", help="Set mode to parallel.")
@click.option("--sequential", "mode", flag_value="sequential", help="Set mode to sequential.")
@click.option("--auto", "mode", flag_value="auto", help="Set mode to auto.")
@click.option(
    "--max-concurrency", "--max-concurrent", "slots", metavar="N", help="Set how many agents at once."
)
@click.pass_context
def config(ctx: click.Context, mode: str | None, slots: str | None) -> None:
    """Show the settings of this repository, or change them.

    From the highest: flags, AGENTFUL_* variables, the plan, .agentful/config.toml, [tool.agentful] in
    pyproject.toml, the user's own config.toml.
    """
    if mode is None and slots is None:
        if ctx.invoked_subcommand is None:
            ctx.invoke(show_settings)
        return
    root = here_without_journal().root
    for key, value in (("mode", mode), ("max_concurrency", slots)):
        if value is not None:
            _set(root, key, value)


@config.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document (version 1).")
def show_settings(as_json: bool = False) -> None:
    """Show every setting with its value, and where that comes from."""
    root = here_without_journal().root
    found = settings.load_settings(root)
    agents = settings.load_agents(root, found)
    if as_json:
        show_json(
            {
                "version": 1,
                "settings": {
                    field.name: {
                        "value": getattr(found, field.name),
                        "origin": found.origins.get(field.name, "default"),
                    }
                    for field in settings.SETTING_FIELDS
                },
                "agents": {name: agent.source for name, agent in agents.items()},
            }
        )
        return
    rows: list[Line] = []
    for field in settings.SETTING_FIELDS:
        origin = found.origins.get(field.name)
        rows.append(
            [
                (f"{field.name:<17}", "bold"),
                (f" {_shown(getattr(found, field.name)):<14}", "cyan" if origin else ""),
                (f" {origin or 'default'}", "dim"),
            ]
        )
    rows += [
        [
            (f"{'agent':<17}", "bold"),
            (f" {one_line(name):<14}", "cyan"),
            (f" {one_line(agent.source)}", "dim"),
        ]
        for name, agent in agents.items()
    ]
    show(rows)


@config.command("set")
@click.argument("key")
@click.argument("value")
def set_one(key: str, value: str) -> None:
    """Set KEY to VALUE in .agentful/config.toml; the rest of the file stays as it is."""
    _set(here_without_journal().root, key, value)


def _set(root: Path, key: str, text: str) -> None:
    value = settings.set_setting(root, key, text)
    click.echo(f"{key} = {_shown(value)}  ({settings.CONFIG_FILE})")
    now = settings.load_settings(root)
    name = key.replace("-", "_")
    origin = now.origins.get(name, "")
    if origin and not origin.startswith(settings.CONFIG_FILE):
        click.echo(f"it does not count here: {origin} says {_shown(getattr(now, name))}", err=True)


def _shown(value: Any) -> str:
    return "-" if value is None else one_line(msgspec.json.encode(value).decode())
