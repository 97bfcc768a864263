"""Make the folder that the plan beside this file works in: a real project, real tools, and the plan.

    python prepare.py FOLDER

FOLDER is made, or has to be empty. It gets

- ``boltons/``: a git repository of the source distribution of boltons, at the version below;
- ``tools/``: a virtual environment with the tools that the plan runs, at the versions below;
- ``plan.yaml``: the plan, with the folder of the tools filled in.

Needs Python 3.11, git, and the package index, and nothing else. Exits with 69 where the package index
cannot be reached, and with 1 where something else is wrong.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
import venv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PROJECT = "boltons"
VERSION = "23.1.1"
"""The last release that ran on Python 2.7."""
TOOLS = (
    "autoflake==2.4.0",
    "coverage==7.17.3",
    "flynt==1.0.6",
    "isort==9.0.2",
    "mdformat==1.0.0",
    "pylint==4.1.4",
    "pytest==8.3.4",  # later ones refuse a hook that the project's conftest.py defines
    "pyupgrade==3.22.0",
    "ruff==0.17.6",
)
IGNORED = ("__pycache__/", ".coverage", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/")
"""What the tools leave behind. The repository of the project ignores it; the distribution leaves that out."""

UNREACHABLE = 69
_NO_CONNECTION = (
    "connection broken",
    "Could not fetch URL",
    "Failed to establish",
    "Name or service",
    "timed out",
)


class Trouble(Exception):
    """It cannot be prepared; ``code`` is what to exit with."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a folder that is not there yet, or is empty")
    folder: Path = parser.parse_args(arguments).folder.resolve()
    try:
        prepare(folder)
    except Trouble as trouble:
        print(f"error: {trouble}", file=sys.stderr)
        return trouble.code
    return 0


def prepare(folder: Path) -> None:
    """Do all of it. Raises :class:`Trouble`; the folder then has what was done so far."""
    if shutil.which("git") is None:
        raise Trouble("git is needed, and is not on the PATH")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Trouble(f"{folder} is there already. Name another folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)

    say(f"tools: {', '.join(TOOLS)}")
    bin_ = make_tools(folder / "tools")
    say(f"project: {PROJECT} {VERSION}, as a git repository")
    project = make_repository(folder, bin_)
    say("suite: does it pass before anything is changed?")
    seconds = check_suite(project, bin_)
    say(f"       it does, in {seconds:.1f} s")
    plan = folder / "plan.yaml"
    plan.write_text(fill_in(Path(__file__).with_name("plan.template.yaml").read_text("utf-8"), bin_), "utf-8")
    say(f"plan: {plan}")
    print(f"\nNow:\n  cd {shlex.quote(str(project))}\n  agentful run ../plan.yaml -j 2\n  agentful land")


def make_tools(place: Path) -> Path:
    """The tools in a virtual environment of their own; the folder of its programs."""
    venv.create(place, with_pip=True)
    bin_ = place / "bin"
    pip(bin_, "install", *TOOLS)
    return bin_


def make_repository(folder: Path, bin_: Path) -> Path:
    """The source distribution as a git repository with one commit, on a branch ``main``."""
    with_sdist = folder / "download"
    pip(
        *(bin_, "download", "--no-deps", "--no-binary", PROJECT),
        *("--dest", str(with_sdist), f"{PROJECT}=={VERSION}"),
    )
    (archive,) = with_sdist.iterdir()
    with tarfile.open(archive) as tar:
        tar.extractall(with_sdist, filter="data")
    project = folder / PROJECT
    (with_sdist / f"{PROJECT}-{VERSION}").rename(project)
    shutil.rmtree(with_sdist)
    shutil.rmtree(project / f"{PROJECT}.egg-info")
    (project / ".gitignore").write_text("\n".join(IGNORED) + "\n")
    git = ("git", "-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-C", str(project))
    run(*git, "init", "--quiet", "--initial-branch", "main")
    run(*git, "add", "--all")
    who = ("-c", f"user.name={PROJECT}", "-c", f"user.email={PROJECT}@localhost")
    run(*git, *who, "commit", "--quiet", "--message", f"{PROJECT} {VERSION}")
    return project


def check_suite(project: Path, bin_: Path) -> float:
    """Run the suite as the plan's checks do; the seconds that it took."""
    began = time.monotonic()
    done = run(*(str(bin_ / "python"), "-m", "pytest", "-q", "tests"), cwd=project)
    if done.returncode != 0:
        raise Trouble(
            f"the suite of {PROJECT} {VERSION} does not pass on this machine:\n{done.stdout[-3000:]}"
        )
    return time.monotonic() - began


def fill_in(template: str, bin_: Path) -> str:
    """The plan for a folder of tools."""
    return template.replace("@TOOLS@", shlex.quote(str(bin_)))


def pip(bin_: Path, *arguments: str) -> None:
    """Run the pip of the tools."""
    done = run(str(bin_ / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)
    if done.returncode != 0:
        cut_off = any(sign in done.stdout for sign in _NO_CONNECTION)
        what = "the package index cannot be reached" if cut_off else "pip failed"
        raise Trouble(f"{what}:\n{done.stdout.strip()}", UNREACHABLE if cut_off else 1)


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; what it printed is in ``stdout``. git has to succeed."""
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0 and command[0] == "git":
        raise Trouble(f"{shlex.join(command)} failed:\n{done.stdout}")
    return done


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
