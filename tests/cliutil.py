"""Running the command line in tests: in this process for speed, in another one for the real thing."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from agentful.cli import cli
from agentful.model import Options
from agentful.runtime.git import Repository
from agentful.runtime.journal import RunInfo
from agentful.runtime.run import journal_of
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
    process = subprocess.Popen(
        [sys.executable, "-m", "agentful", *args],
        cwd=cwd,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _started.append(process)
    return process


_started: list[subprocess.Popen[Any]] = []


def end_all() -> None:
    """End whatever a test has started and left."""
    while _started:
        process = _started.pop()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        if process.poll() is None:
            process.kill()
            process.wait()


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *args: str, cwd: Path, size: tuple[int, int] = (24, 100), **env: str) -> None:
        self._fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentful", *args],
            cwd=cwd,
            env=os.environ | {"TERM": "xterm"} | env,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        _started.append(self.process)
        self.said = ""

    def until(self, text: str) -> str:
        """Read until it has said this."""
        while text not in self.said:
            if not self._read():
                raise AssertionError(f"it ended without {text!r}:\n{self.said}")
        return self.said

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def end(self) -> int:
        """Wait for its end; its exit code. What it said is in ``said``."""
        while self._read():
            pass
        os.close(self._fd)
        return self.process.wait(timeout=60)

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # how Linux says that nobody has the other end any more
            return False
        self.said += data.decode(errors="replace")
        return bool(data)


def write_run(root: Path, story: Story, run: str = "r-111111", **fields: Any) -> RunInfo:
    """Put a story into the repository's journal, as a run that nobody carries out."""
    repo = Repository.discover(root)
    repo.add_exclude("/.agentful/")
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
