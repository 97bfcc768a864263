"""``agentful config``: the settings that hold, where each comes from, and changing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .. import config as settings
from ..config.schema import SCHEMAS, schema_text
from ..progress import clip, one_line
from .shared import here_without_journal, show, show_json, width

if TYPE_CHECKING:
    from pathlib import Path

    from ..progress import Line


@click.group(invoke_without_command=True)
@click.option("--parallel", "mode", flag_value="parallel", help="Set the mode to parallel.")
@click.option("--sequential", "mode", flag_value="sequential", help="Set the mode to sequential.")
@click.option("--auto", "mode", flag_value="auto", help="Set the mode to auto.")
@click.option(
    "--max-concurrency", "--max-concurrent", "slots", metavar="N", help="Set how many agents at once."
)
@click.pass_context
def config(ctx: click.Context, mode: str | None, slots: str | None) -> None:
    """Show the settings of this repository, or change them.

    From the highest: flags, AGENTFUL_* variables, the plan, .agentful/config.toml, [tool.agentful] in
    pyproject.toml, the user's own config.toml.
    """
    given = {"mode": mode, "max_concurrency": slots}
    if any(given.values()):
        root = here_without_journal().root
        for key, value in given.items():
            if value is not None:
                _set(root, key, value)
    elif ctx.invoked_subcommand is None:
        ctx.invoke(show_settings)


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
                "agents": {name: {"origin": agent.source} for name, agent in agents.items()},
            }
        )
        return
    rows = settings.describe(found)
    keys = max(len(key) for key, _, _ in rows)
    values = min(40, max(len(value) for _, value, _ in rows))
    lines: list[Line] = [
        [
            (f"{one_line(key):<{keys}}", "bold"),
            (f"  {clip(one_line(value) or '-', values):<{values}}", "cyan" if origin != "default" else ""),
            (f"  {one_line(origin)}", "dim"),
        ]
        for key, value, origin in rows
    ]
    if agents:
        lines.append([("agents: ", "bold"), (clip(", ".join(map(one_line, agents)), width() - 8), "")])
    show(lines)


@config.command("set")
@click.argument("key")
@click.argument("value")
def set_one(key: str, value: str) -> None:
    """Set KEY to VALUE in .agentful/config.toml; the rest of the file stays as it is.

    KEY is a setting, as `config show` lists them, or agents.NAME.KEY, or agent_defaults.KEY. VALUE is read
    as in an environment variable: 4, true, 10m, '["pytest -q", "ruff check"]'.
    """
    _set(here_without_journal().root, key, value)


@config.command("schema")
@click.argument("name", type=click.Choice(list(SCHEMAS)))
def schema(name: str) -> None:
    """Print the JSON Schema of plans or of configuration files, for editors."""
    click.echo(schema_text(name), nl=False)


def _set(root: Path, key: str, text: str) -> None:
    settings.set_setting(root, key, text)
    name = key.replace("-", "_")
    rows = {row[0]: row for row in settings.describe(settings.load_settings(root))}
    row = rows.get(name)
    if row is None:
        click.echo(f"{key} is set in {settings.CONFIG_FILE}")
    elif settings.CONFIG_FILE in row[2]:
        click.echo(f"{name} = {one_line(row[1])}, in {row[2]}")
    else:
        click.echo(
            f"{name} is set in {settings.CONFIG_FILE}, but {row[2]} says {one_line(row[1])}, and counts more"
        )
