"""What is in a folder, as a git tree: taken from outside, believing nothing that stands in the folder.

By plumbing only. ``git add`` would record a nested repository as a link to a commit that nobody else
has, and would start ``git status`` inside a submodule, by the configuration that it finds there. Here
no git command is ever started in, or configured by, what an agent could have written:

- the ``.git`` of the folder itself is not looked at, whatever it is;
- a nested repository gives its files, as any folder does;
- a submodule stays what it was, for as long as ``.gitmodules`` names it;
- attributes select filters that nobody has configured, so they do nothing.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import GitError
from .gitcall import text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from .git import Repository
    from .gitcall import Output

__all__ = ["Inspector", "LeftOut", "make_readable"]

_SUBMODULE = "160000"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something in a workspace that could not be taken into the snapshot, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class _Status:
    """How a folder differs from the index. Paths are file system names, as ``os.fsdecode`` gives them."""

    changed: list[str] = field(default_factory=list[str])
    removed: set[str] = field(default_factory=set[str])
    untracked: list[str] = field(default_factory=list[str])
    repositories: list[str] = field(default_factory=list[str])
    """Untracked folders that are repositories; with a slash at the end."""
    submodules: set[str] = field(default_factory=set[str])
    """Submodules that are at another commit, or gone."""


class Inspector:
    """Git on a folder from outside: with our git directory and index, writing the user's objects."""

    def __init__(self, repo: Repository, admin: Path, tree: Path) -> None:
        self._repo = repo
        self._admin = admin
        self._tree = tree
        self._left: dict[str, str] = {}

    def git(
        self,
        *args: str,
        input: bytes | None = None,  # noqa: A002
        below: str = "",
        check: bool = True,
    ) -> Output:
        """Run git on the folder; on one ``below`` it, as if nothing in there were known."""
        tree = self._tree / below
        env = {
            "GIT_DIR": str(self._admin),
            "GIT_WORK_TREE": str(tree),
            "GIT_OBJECT_DIRECTORY": str(self._repo.objects),
        }
        if below:
            env["GIT_INDEX_FILE"] = str(self._admin / "no-index")
        return self._repo.git(*args, input=input, env=env, cwd=tree, check=check)

    def capture(self, brought_in: Collection[str] = ()) -> tuple[str, tuple[LeftOut, ...]]:
        """Write what is in the folder as a tree: its id, and what could not be taken into it.

        Ignored files are not part of it, nor untracked ones among ``brought_in``. Nothing in the folder
        changes, unless it has files or folders that we may not read: they are made readable. Raises
        :class:`GitError` where git fails; another try may help if files changed while it looked.
        """
        self._left = {}
        status = self._status()
        opened = status.repositories
        for path in status.submodules - status.removed:
            self._leave_out(path, "a submodule: the commit it is at now is not kept")
        if status.submodules or ".gitmodules" in status.removed or (self._tree / ".gitmodules").exists():
            opened += self._weigh_submodules(status.removed)
        if status.removed:
            self._update_index(status.removed, "--force-remove")
        found = [*status.changed, *(path for path in status.untracked if path not in brought_in)]
        if opened:
            found += self._files_inside(opened)
        self._add(found)
        tree = self.git("write-tree").line
        return tree, tuple(LeftOut(path, why) for path, why in sorted(self._left.items()))

    def _leave_out(self, path: str, reason: str) -> None:
        self._left.setdefault(text(os.fsencode(path)), reason)

    def _status(self) -> _Status:
        # "dirty" keeps git from starting another git inside a submodule; HEAD there is still compared.
        options = ("--untracked-files=all", "--no-renames", "--ignore-submodules=dirty")
        done = self.git("status", "--porcelain=v2", "-z", *options)
        if "Permission denied" in done.stderr:
            make_readable(self._tree)
            done = self.git("status", "--porcelain=v2", "-z", *options)
            for folder in re.findall(r"could not open directory '(.*?)/?':", done.stderr):
                self._leave_out(folder, "a folder that may not be read")
        status = _Status()
        for entry in os.fsdecode(done.stdout).split("\0"):
            if entry.startswith("? "):
                path = entry[2:]
                (status.repositories if path.endswith("/") else status.untracked).append(path)
            elif entry.startswith("1 "):
                _, code, _, _, recorded, present, _, _, path = entry.split(" ", 8)
                if recorded == _SUBMODULE and present in (_SUBMODULE, "000000") and code[1] != ".":
                    status.submodules.add(path)
                if code[1] == "D":
                    status.removed.add(path)
                elif code[1] != "." and path not in status.submodules:
                    status.changed.append(path)
        return status

    def _weigh_submodules(self, removed: set[str]) -> list[str]:
        """Which submodules stay: those that ``.gitmodules`` names.

        A folder that was made empty, to stand for a submodule, is easily removed or written into by
        somebody who takes it for an empty folder. Corrects ``removed``; returns the folders, with a
        slash at the end, that are to be looked into now because they are no submodule any more.
        """
        opened: list[str] = []
        named = self._named_submodules()
        for entry in os.fsdecode(self.git("ls-files", "--stage", "-z").stdout).split("\0"):
            if not entry.startswith(_SUBMODULE):
                continue
            path = entry.split("\t", 1)[1]
            if path in removed:
                if path in named:
                    removed.discard(path)
            elif (names := _names_in(self._tree / path)) and ".git" not in names:
                if path in named:
                    self._leave_out(path, "a submodule: what was written into its folder is not kept")
                else:
                    removed.add(path)
                    opened.append(f"{path}/")
        return opened

    def _named_submodules(self) -> set[str]:
        file = self._tree / ".gitmodules"
        if file.is_symlink() or not file.is_file():
            return set()
        wanted = r"^submodule\..*\.path$"
        said = self.git(
            "config", "--null", "--no-includes", "--file", str(file), "--get-regexp", wanted, check=False
        )
        return {entry.partition("\n")[2] for entry in os.fsdecode(said.stdout).split("\0") if entry}

    def _files_inside(self, folders: Iterable[str]) -> list[str]:
        """The files in folders that git takes for repositories, but for those that are ignored."""
        found: list[str] = []
        waiting = list(folders)
        while waiting:
            folder = waiting.pop()
            listed = self.git("ls-files", "-z", "--others", "--exclude-standard", below=folder)
            for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
                (waiting if name.endswith("/") else found).append(folder + name)
        asked = self.git("check-ignore", "-z", "--no-index", "--stdin", input=_listed(found), check=False)
        ignored = set(os.fsdecode(asked.stdout).split("\0"))
        return [path for path in found if path not in ignored]

    def _add(self, paths: list[str]) -> None:
        """Bring the index up to date with these files, or with as many of them as git can take."""
        if not paths:
            return
        try:
            done = self._update_index(paths, "--add", "--remove", "--replace")
        except GitError as error:
            if len(paths) == 1:
                reasons = [
                    line for line in error.stderr.splitlines() if not line.startswith("fatal: Unable to")
                ]
                self._leave_out(paths[0], reasons[-1] if reasons else error.stderr.strip())
                return
            half = len(paths) // 2
            self._add(paths[:half])
            self._add(paths[half:])
            return
        for path in re.findall(r"^Ignoring path (.*)$", done.stderr, re.MULTILINE):
            self._leave_out(path, "git does not allow this name")

    def _update_index(self, paths: Iterable[str], *options: str) -> Output:
        return self.git("update-index", *options, "-z", "--stdin", input=_listed(paths))


def make_readable(top: Path) -> None:
    """Give ourselves back the right to read everything under a folder, where we own it."""
    folders = [os.fspath(top)]
    while folders:
        folder = folders.pop()
        try:
            _allow(folder, os.lstat(folder).st_mode, stat.S_IRWXU)
            with os.scandir(folder) as entries:
                for entry in entries:
                    mode = entry.stat(follow_symlinks=False).st_mode
                    if stat.S_ISDIR(mode):
                        folders.append(entry.path)
                    elif stat.S_ISREG(mode):
                        _allow(entry.path, mode, stat.S_IRUSR)
        except OSError:
            continue  # somebody else's: it is reported where it is missed


def _allow(path: str, mode: int, wanted: int) -> None:
    if mode & wanted != wanted:
        os.chmod(path, stat.S_IMODE(mode) | wanted)  # noqa: PTH101


def _names_in(folder: Path) -> list[str]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    return os.listdir(folder)  # noqa: PTH208


def _listed(paths: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)
