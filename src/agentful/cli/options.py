"""The flags that say how a run is carried out, and their way into the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from .. import config
from ..errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

F = TypeVar("F", bound="Callable[..., Any]")

__all__ = ["planning_flags", "running_flags", "settings_of", "showing_flags"]

_PLANNING = (
    click.option("-j", "--max-concurrency", metavar="N", help="How many agents at once: a number, or auto."),
    click.option(
        "--mode",
        type=click.Choice(["auto", "parallel", "sequential"]),
        help="sequential is one agent at a time.",
    ),
    click.option(
        "--conflicts",
        type=click.Choice(["auto", "avoid", "optimistic"]),
        help="Whether tasks whose `writes` overlap may be at work at once; auto is avoid.",
    ),
)
_RUNNING = (
    click.option("--fail-fast/--no-fail-fast", default=None, help="Cancel the rest at the first failure."),
    click.option("--retries", metavar="N", help="How many more attempts after a failed one."),
    click.option("--timeout", metavar="TIME", help="The longest that the run may take: 90s, 10m, 2h."),
    click.option("--task-timeout", metavar="TIME", help="The longest that one attempt may take."),
    click.option(
        "--checks",
        multiple=True,
        metavar="COMMAND",
        help="What the merged tree has to pass to land; may be given again. In place of the plan's.",
    ),
    click.option(
        "--scope",
        type=click.Choice(["warn", "fail"]),
        help="What writing outside the declared `writes` leads to.",
    ),
    click.option(
        "--on-failure",
        type=click.Choice(["fail", "decide"]),
        help="A task that has used up its attempts fails, or becomes a question to you.",
    ),
    click.option(
        "--on-conflict",
        type=click.Choice(["fail", "decide"]),
        help="The same, for a conflict that the retries did not resolve.",
    ),
)
_SHOWING = (
    click.option(
        "--progress",
        type=click.Choice(["auto", "live", "plain", "json", "quiet"]),
        default="auto",
        help="How it is shown; auto is a board on a terminal, and lines elsewhere.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line (version 1)."),
)


def _all(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


planning_flags = _all(_PLANNING)
running_flags = _all(_RUNNING)
showing_flags = _all(_SHOWING)


def settings_of(given: Mapping[str, str | bool | tuple[str, ...] | None]) -> dict[str, Any]:
    """The flags that were given, checked, by the names of the settings. Raises UsageError for a bad one."""
    settings: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or value == ():
            continue
        said = int(value) if isinstance(value, str) and value.isdecimal() else value
        try:
            settings |= config.check_options({name: said})
        except PlanError as error:
            flag = name.replace("_", "-")
            raise click.UsageError(f"--{flag}: {error.message.removeprefix(f'{name}: ')}") from None
    return settings
