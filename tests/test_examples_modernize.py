"""The example over a real project: prepared from the package index, run, and landed, as its README says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gitutil import git

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLE = Path(__file__).parents[1] / "examples" / "modernize"
UNREACHABLE = 69


def call(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=900
    )


def agentful(*arguments: str, cwd: Path) -> str:
    """Run a command that has to succeed; what it printed."""
    done = call(sys.executable, "-m", "agentful", *arguments, cwd=cwd)
    assert done.returncode == 0, f"agentful {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that prepare.py makes."""
    monkeypatch.setenv("AGENTFUL_WORKSPACES", str(tmp_path / "workspaces"))
    folder = tmp_path / "a folder"
    done = call(sys.executable, str(EXAMPLE / "prepare.py"), str(folder), cwd=tmp_path)
    if done.returncode == UNREACHABLE:
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def checkout(root: Path) -> tuple[str | bytes, ...]:
    """All that is the user's own."""
    return (
        git(root, "status", "--porcelain", env={"GIT_OPTIONAL_LOCKS": "0"}),
        git(root, "symbolic-ref", "HEAD"),
        git(root, "rev-parse", "HEAD"),
        git(root, "stash", "list"),
        (root / ".git" / "config").read_bytes(),
        (root / ".git" / "index").read_bytes(),
    )


def events_of(printed: str) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


@pytest.mark.slow
def test_the_plan_runs_in_parallel_and_lands(prepared: Path, tmp_path: Path) -> None:
    root = prepared / "boltons"
    before = checkout(root)

    events = events_of(agentful("run", "../plan.yaml", "-j", "2", "--json", cwd=root))
    result = events[-1]

    assert result["state"] == "succeeded"
    assert len(result["tasks"]) >= 12
    assert {task["state"] for task in result["tasks"]} == {"succeeded"}
    retried = [event for event in events if event.get("trigger") == "retried"]
    assert any(event["reason"] == "conflict" for event in retried), retried
    assert checkout(root) == before
    assert not list((tmp_path / "workspaces").glob("*/r-*"))

    copy = tmp_path / "copy"
    git(tmp_path, "clone", "--quiet", "--branch", result["branch"], str(root), str(copy))
    python = str(prepared / "tools" / "bin" / "python")
    suite = call(python, "-m", "pytest", "-q", "--doctest-modules", "boltons", "tests", cwd=copy)
    assert suite.returncode == 0, suite.stdout
    landed = git(copy, "log", "--first-parent", "--format=%(trailers:key=Task-Key,valueonly)").split()
    assert len(landed) == len(set(landed)) >= 10

    agentful("land", cwd=root)

    assert git(root, "rev-parse", "main") == git(copy, "rev-parse", "HEAD")
    assert git(root, "status", "--porcelain") == ""
    assert "from __future__" not in (root / "boltons" / "strutils.py").read_text()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    done = call(sys.executable, str(EXAMPLE / "prepare.py"), str(tmp_path), cwd=tmp_path)
    assert done.returncode == 1
    assert "is there already" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_git_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("git") is None
    done = call(sys.executable, str(EXAMPLE / "prepare.py"), str(tmp_path / "new"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "error: git is needed, and is not on the PATH\n")
    assert not (tmp_path / "new").exists()
