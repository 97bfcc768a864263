"""``agentful completion``: what a shell needs to complete our commands."""

from __future__ import annotations

import click

from .exits import Fault

_WHERE = {
    "bash": "agentful completion bash > ~/.local/share/bash-completion/completions/agentful",
    "zsh": "agentful completion zsh > ~/.zfunc/_agentful    # a folder of your $fpath",
    "fish": "agentful completion fish > ~/.config/fish/completions/agentful.fish",
}


@click.command(epilog="\b\nTo install it:\n" + "\n".join(f"  {line}" for line in _WHERE.values()))
@click.argument("shell", type=click.Choice(list(_WHERE)))
def completion(shell: str) -> None:
    """Print the completion script for SHELL: bash, zsh or fish."""
    from click.shell_completion import get_completion_class

    from . import cli

    completer = get_completion_class(shell)
    if completer is None:
        raise Fault(f"nothing is known of {shell}")
    # Not by `source()` of bash's class, which starts bash to ask for its version.
    made = completer(cli, {}, "agentful", "_AGENTFUL_COMPLETE")
    click.echo(made.source_template % made.source_vars())
