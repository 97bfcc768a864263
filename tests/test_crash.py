"""On the real machine: killed at any moment, `resume` goes on, and nothing is lost or done twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from agentful import demo
from agentful.core.view import RunView
from agentful.model import State
from agentful.runtime import branch, proctree
from agentful.runtime.git import Repository
from agentful.runtime.run import journal_of
from gitutil import git

if TYPE_CHECKING:
    from pathlib import Path

SEED = 20261124
KILLS = 10
SPEED = 2.0


def agentful(folder: Path, *args: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder.parent / "said.txt").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "agentful", *args],
            cwd=folder,
            env={**os.environ, **env},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def kill_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Kill it at that moment; false where it had ended before."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def checkout_of(folder: Path) -> list[str]:
    """What is the user's: branch, files, index, stash, configuration and hooks."""
    commands = (
        "symbolic-ref HEAD",
        "rev-parse main",
        "status --porcelain=v2 --untracked-files=all",
        "ls-files --stage",
        "stash list",
        "config --local --list",
    )
    hooks = sorted(path.name for path in (folder / ".git" / "hooks").iterdir())
    return [git(folder, *command.split()) for command in commands] + hooks


def view_of(repo: Repository, run: str) -> RunView:
    with journal_of(repo) as journal:
        return RunView(journal.read(run)[0])


@pytest.mark.slow
def test_kill_at_ten_random_moments(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    folder, workspaces = tmp_path / "project", tmp_path / "workspaces"
    demo.prepare(folder, speed=SPEED)
    repo = Repository.discover(folder)
    before = checkout_of(folder)
    env = {"AGENTFUL_WORKSPACES": str(workspaces)}

    kills = 0
    run = ""
    landed: set[str] = set()
    process = agentful(folder, "run", "--progress", "plain", env=env)
    for _ in range(200):
        killed = kill_after(process, chance.uniform(0.2, 1.6)) if kills < KILLS else not process.wait() < 128
        kills += killed
        with journal_of(repo) as journal:
            runs = journal.runs()
        if not runs:  # killed before there was anything
            process = agentful(folder, "run", "--progress", "plain", env=env)
            continue
        run = runs[0].id
        assert len(runs) == 1
        view = view_of(repo, run)
        now = {record.id for record in view.records.values() if record.landed}
        assert landed <= now, "what had landed is no longer so"
        landed = now
        assert checkout_of(folder) == before
        if view.total and view.done == view.total:
            break
        for decision in view.open_decisions():
            answered = agentful(folder, "decide", decision.id, "2", env=env)
            assert answered.wait() == 0, (tmp_path / "said.txt").read_text()
        process = agentful(folder, "resume", "--progress", "plain", env=env)
    else:
        pytest.fail("it never came to its end")

    said = (tmp_path / "said.txt").read_text()
    assert kills == KILLS, said
    assert "Traceback" not in said
    view = view_of(repo, run)
    assert {record.state for record in view.records.values()} == {State.SUCCEEDED}
    landing = [record for record in view.records.values() if not record.task.reads_only]
    keys = Counter(
        commit.trailers["Task-Key"] for commit in repo.commits(f"main..agentful/{run}", first_parent=True)
    )
    assert keys == Counter(f"{run}/{record.id}" for record in landing)

    assert not proctree.marked(run)
    known = {leftover.name for leftover in branch.leftovers(repo, workspaces=workspaces)}
    on_disk = [path for path in workspaces.glob(f"*/{run}/*") if path.is_dir()]
    assert {str(path) for path in on_disk} <= known
    assert checkout_of(folder) == before
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "-b", f"agentful/{run}", folder, clone], check=True)
    subprocess.run([sys.executable, "-m", "unittest", "-q"], cwd=clone, check=True, capture_output=True)
