"""The command line. Each command is in a module of its own, loaded when it is used.

So ``agentful --help`` and completion load none of them, nor anything else that takes time.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from ..version import __version__
from .exits import end_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem

__all__ = ["ALIASES", "COMMANDS", "cli"]

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Commands": {
        "demo": ("demo", "Watch ten scripted agents work in parallel; needs no key"),
        "init": ("init", "Make a settings file and a first plan; overwrite nothing"),
        "plan": ("plan", "Show tasks, waves and the predicted timeline; start nothing"),
        "run": ("run", "Run a plan, and land what its agents do on a branch"),
        "status": ("status", "Show a run on one screen"),
        "decide": ("decide", "List the questions that wait for you, or answer one"),
        "resume": ("run", "Go on with a run after a crash, Ctrl-C or an answer"),
        "land": ("land", "Bring what a run has landed into your branch"),
    },
    "More commands": {
        "watch": ("watch", "Follow a run that another terminal carries out"),
        "explain": ("explain", "Say why a task waits, ran again or failed"),
        "logs": ("logs", "Show or follow what a task's agent printed"),
        "diff": ("logs", "Show what a task changed"),
        "attach": ("logs", "Open a shell in a running task's workspace"),
        "retry": ("run", "Run failed tasks again, and what was skipped for them"),
        "stop": ("decide", "Stop a run, or cancel tasks; their work is kept"),
        "recover": ("land", "List pinned work, or put an attempt's work on a branch"),
        "clean": ("land", "Remove what nobody needs any more; list it first"),
        "runs": ("status", "List past and present runs"),
        "doctor": ("doctor", "Check git, agents and settings; say how to mend each"),
        "config": ("config", "Show or change settings; print the JSON Schemas"),
        "completion": ("completion", "Print the completion script for a shell"),
    },
}
"""By headline: each command, the module that it is in, and what it does."""

ALIASES = {"answer": "decide", "cancel": "stop"}

_MODULES = {name: entry for section in COMMANDS.values() for name, entry in section.items()}


class Commands(click.Group):
    """The commands, loaded one at a time; every way in which one of them may end, in one place."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in _MODULES:
            return None
        module, short_help = _MODULES[name]
        command: click.Command = getattr(import_module(f".{module}", __name__), name)
        command.short_help = short_help
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _MODULES and name not in ALIASES and not name.startswith("-"):
            close = difflib.get_close_matches(name, [*_MODULES, *ALIASES], n=1, cutoff=0.5)
            hint = f"Did you mean {close[0]!r}?" if close else "'agentful --help' lists them."
            raise click.UsageError(f"There is no command {name!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        widest = max(map(len, _MODULES))
        for headline, section in COMMANDS.items():
            with formatter.section(headline):
                formatter.write_dl([(f"{name:<{widest}}", text) for name, (_, text) in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=text)
            for name, (_, text) in _MODULES.items()
            if name.startswith(incomplete)
        ]
        return found or click.Command.shell_complete(self, ctx, incomplete)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,  # noqa: ARG002
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        def run() -> Any:
            return click.Group.main(self, args, "agentful", complete_var, standalone_mode=False, **extra)

        return end_with(run) if standalone_mode else run()


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="'agentful COMMAND --help' tells more. Start with 'agentful demo', or 'agentful init'.",
)
@click.version_option(__version__, "-V", "--version", prog_name="agentful", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run many coding agents in parallel on one repository.

    Every result is landed once, tested, on a branch of its own; nothing is lost.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
