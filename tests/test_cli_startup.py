"""What the command line costs before it does anything, and what it says about itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from agentful.cli import ALIASES, COMMANDS, cli
from agentful.version import __version__

HEAVY = {"asyncio", "msgspec", "psutil", "rich", "sqlite3", "yaml", "platformdirs", "subprocess"}
NAMES = [name for section in COMMANDS.values() for name in section]


def plain_environment() -> dict[str, str]:
    """Without what has coverage measured in other processes, which loads much."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


@pytest.mark.parametrize("args", [["--version"], ["--help"], ["no-such-command"]])
def test_nothing_heavy_is_loaded(args: list[str]) -> None:
    script = (
        "import sys\n"
        "sys.argv = ['agentful', *sys.argv[1:]]\n"
        "from agentful.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sys.modules)"
    )
    argv = [sys.executable, "-c", script, *args]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=plain_environment())
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert "click" in loaded
    assert not HEAVY & {name.partition(".")[0] for name in loaded}


def test_completion_loads_nothing_heavy_either() -> None:
    script = (
        "import sys\n"
        "sys.argv = ['agentful']\n"
        "from agentful.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sys.modules)"
    )
    env = plain_environment() | {
        "_AGENTFUL_COMPLETE": "bash_complete",
        "COMP_WORDS": "agentful re",
        "COMP_CWORD": "1",
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    before, _, modules = done.stdout.rpartition("LOADED")
    assert before.split() == ["plain,resume", "plain,retry", "plain,recover"]
    assert not {"msgspec", "rich", "sqlite3", "asyncio"} & set(modules.split())


def test_version() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"agentful {__version__}\n"


def test_help_groups_the_commands_the_first_ones_first() -> None:
    for args in ([], ["--help"], ["-h"]):
        result = CliRunner().invoke(cli, args)
        assert result.exit_code == 0
        first, more = result.output.split("More commands:")
        assert len(COMMANDS["Commands"]) == 8
        assert all(f"\n  {name} " in first for name in COMMANDS["Commands"])
        assert all(f"\n  {name} " in more for name in COMMANDS["More commands"])


@pytest.mark.parametrize("name", [name for name in [*NAMES, *ALIASES] if name != "demo"])
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Usage: agentful {name} ")
    assert max(map(len, result.output.splitlines())) <= 100


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["pln"], "Did you mean 'plan'?"),
        (["resum"], "Did you mean 'resume'?"),
        (["zzzzzz"], "'agentful --help' lists them."),
        (["status", "--jsn"], "--json"),
        (["--versoin"], "--version"),
        (["status", "a", "b"], "unexpected extra argument"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_a_typo_is_met_with_what_was_meant(args: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert "--help" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_AGENTFUL_COMPLETE" in result.output
