"""Running the command line in tests: in this process for speed, in another one for the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from agentful.cli import cli
from agentful.model import Options
from agentful.runtime.git import Repository
from agentful.runtime.journal import RunInfo
from agentful.runtime.run import journal_of
from click.testing import CliRunner
from gitutil import git, make_repo, no_user_configuration
from progressutil import START, Story

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from click.testing import Result


def a_repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that the command line is then used in."""
    no_user_configuration(monkeypatch, tmp_path / "home")
    for name in ("AGENTFUL_DEBUG", "NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AGENTFUL_WORKSPACES", str(tmp_path / "workspaces"))
    root = make_repo(tmp_path / "repo")
    monkeypatch.chdir(root)
    return root


def run_cli(*args: str, input: str | None = None) -> Result:  # noqa: A002
    """Run a command in this process."""
    return CliRunner().invoke(cli, list(args), input=input)


def ok(*args: str, input: str | None = None) -> str:  # noqa: A002
    """Run a command that has to succeed; what it printed."""
    result = run_cli(*args, input=input)
    assert result.exit_code == 0, result.output
    return result.stdout


def as_json(*args: str) -> Any:
    return json.loads(ok(*args))


def start(*args: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "agentful", *args],
        cwd=cwd,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def write_run(root: Path, story: Story, run: str = "r-111111", **fields: Any) -> RunInfo:
    """Put a story into the repository's journal, as a run that nobody carries out."""
    repo = Repository.discover(root)
    base = git(root, "rev-parse", "HEAD")
    info = RunInfo(
        id=run,
        created_at=START,
        title=fields.pop("title", "Ship billing"),
        branch=f"refs/heads/agentful/{run}",
        base=base,
        options=fields.pop("options", Options(max_concurrency=6)),
        **fields,
    )
    with journal_of(repo) as journal:
        journal.create_run(info)
        journal.writer(run).append(story.transitions)
        if story.view.done == story.view.total:
            journal.update_run(run, state=story.view.state(live=False), finished_at=story.view.at)
    git(root, "branch", f"agentful/{run}", base)
    return info
