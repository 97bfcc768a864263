"""A small real project, a plan of ten tasks for it, and scripted agents that do them. No model, no key.

It shows what happens on the way: tasks run in parallel and in order, one asks a question, one fails its
checks and is retried, two clash on a file, and all of it lands, tested.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from ..errors import ConfigError

ANSWERS = {"How is half a unit rounded?": "Half to even"}
"""What the demo answers for the person who is watching."""


def prepare(folder: Path, *, speed: float = 1.0) -> Path:
    """Make the project a repository in ``folder``, which has to be empty or new; the plan's path.

    ``speed`` divides the time that the scripted agents pretend to think.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("the demo wants an empty or a new folder", where=str(folder))
    here = Path(__file__).parent
    shutil.copytree(
        here / "project", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    text = (here / "plan.yaml").read_text(encoding="utf-8")
    python = sys.executable.replace("\\", "\\\\").replace('"', '\\"')
    plan = folder / "plan.yaml"
    plan.write_text(text.replace("@PYTHON@", python).replace("@SPEED@", f"{speed:g}"), encoding="utf-8")
    for argv in (
        ("init", "--quiet", "--initial-branch=main"),
        ("config", "user.name", "agentful demo"),
        ("config", "user.email", "demo@agentful.localhost"),
        ("add", "--all"),
        ("commit", "--quiet", "--no-verify", "--no-gpg-sign", "--message=A ledger, as far as it goes"),
    ):
        subprocess.run(("git", *argv), cwd=folder, check=True, stdin=subprocess.DEVNULL)
    return plan
