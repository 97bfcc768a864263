"""Real repositories for tests, in temporary folders, with a fixed identity and no user configuration."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from agentful.runtime.git import Repository
from agentful.runtime.workspace import Workspaces

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

    from agentful.runtime.workspace import Workspace

USER = ("Tess Tester", "tess@example.com")
"""The identity that repositories made here have in their configuration."""

_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_DATE": "2024-01-01T12:00:00Z",
    "GIT_COMMITTER_DATE": "2024-01-01T12:00:00Z",
    "LC_ALL": "C",
}


def no_user_configuration(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Take away the configuration of whoever runs the tests: ``home`` is the home folder now, and empty."""
    for name in list(os.environ):
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def git(where: Path, *args: str, check: bool = True, env: Mapping[str, str] | None = None) -> str:
    """Run git in a folder, as a person would; what it printed, without the line break at its end."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", *args],
        cwd=where,
        env=clean | _ENVIRONMENT | dict(env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    said = done.stdout.decode(errors="surrogateescape") + ("" if check else done.stderr.decode())
    assert not check or done.returncode == 0, f"git {args}: {done.stderr.decode()}"
    return said.rstrip("\n")


def write(root: Path, files: Mapping[str, str | bytes | None]) -> None:
    """Write files under a folder; ``None`` deletes one."""
    for name, content in files.items():
        path = root / name
        if content is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def commit(root: Path, message: str, files: Mapping[str, str | bytes | None] | None = None) -> str:
    """Write files, add everything and commit it, also where nothing changed; the commit's id."""
    write(root, files or {})
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", message)
    return git(root, "rev-parse", "HEAD")


def make_repo(
    root: Path, files: Mapping[str, str | bytes | None] | None = None, *, options: tuple[str, ...] = ()
) -> Path:
    """A repository on branch ``main`` with one commit. ``options`` are for ``git init``."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", "-b", "main", *options)
    git(root, "config", "user.name", USER[0])
    git(root, "config", "user.email", USER[1])
    commit(root, "first", {"README.md": "hello\n"} if files is None else files)
    return root


def branch(root: Path, name: str, files: dict[str, str | bytes | None], base: str = "main") -> str:
    """A commit on a branch of its own, the checkout back on main afterwards."""
    git(root, "checkout", "-q", "-b", name, base)
    sha = commit(root, f"work on {name}", files)
    git(root, "checkout", "-q", "main")
    return sha


def tree_files(root: Path, rev: str) -> dict[str, str]:
    """The files of a commit or tree: path to content; a submodule's commit id, a link's target."""
    listed = git(root, "ls-tree", "-r", "-z", rev)
    files: dict[str, str] = {}
    for line in filter(None, listed.split("\0")):
        head, path = line.split("\t", 1)
        _, kind, sha = head.split()
        files[path] = sha if kind == "commit" else git(root, "cat-file", "blob", sha)
    return files


def state_of(root: Path) -> tuple[str, ...]:
    """All that must not change in the user's repository, but for refs and objects of ours."""
    return (
        git(root, "status", "--porcelain", "--ignored"),
        git(root, "show-ref", "--heads"),
        git(root, "rev-parse", "HEAD"),
        (root / ".git" / "config").read_text(),
        (root / ".git" / "index").read_bytes().hex(),
        "\n".join(sorted(path.name for path in (root / ".git").iterdir())),
    )


def script(path: Path, body: str) -> None:
    """A shell script that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def round_trip(root: Path, run: str = "r") -> tuple[Workspaces, Workspace]:
    """Open at HEAD; an unchanged workspace is clean for the agent, and HEAD's tree for us."""
    repo = Repository.discover(root)
    spaces = Workspaces(repo, run)
    opened = spaces.open("x", repo.head())
    assert git(opened.path, "status", "--porcelain") == ""
    assert spaces.snapshot(opened) == repo.tree_of("HEAD")
    return spaces, opened
