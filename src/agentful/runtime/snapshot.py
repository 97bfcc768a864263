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
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import GitError
from .gitcall import text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from .git import Repository
    from .gitcall import Output

__all__ = ["Inspector", "LeftOut", "make_readable"]

_SUBMODULE = "160000"

_TO_CHECK = re.compile(r"(gitmod|gi7eba|gitattr|gi7d29)[^/]*$", re.IGNORECASE)
"""Names of files that git itself obeys: ``.gitmodules``, ``.gitattributes``, and their short forms."""


_NO_ROOM = re.compile(r"no space left|out of disk ?space|quota exceeded|unable to write", re.IGNORECASE)
"""What git says where the disk is full."""


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
    """Git on a folder from outside: with our git directory and index, writing the user's objects.

    ``lock`` is the lock on the workspace. Every git process holds it too, so that one that outlives us
    is waited for.
    """

    def __init__(self, repo: Repository, admin: Path, tree: Path, lock: int) -> None:
        self._repo = repo
        self._lock = lock
        self._admin = admin
        self._tree = tree
        self._left: dict[str, str] = {}

    def git(
        self,
        *args: str,
        input: bytes | None = None,  # noqa: A002
        env: Mapping[str, str] | None = None,
        below: str = "",
        check: bool = True,
    ) -> Output:
        """Run git on the folder; on one ``below`` it, as if nothing in there were known."""
        tree = self._tree / below
        environment = {
            "GIT_DIR": str(self._admin),
            "GIT_WORK_TREE": str(tree),
            "GIT_OBJECT_DIRECTORY": str(self._repo.objects),
            **(env or {}),
        }
        if below:
            environment["GIT_INDEX_FILE"] = str(self._admin / "no-index")
        return self._repo.git(*args, input=input, env=environment, cwd=tree, check=check, holding=self._lock)

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
        self._add([path for path in found if not (_TO_CHECK.search(path) and self._is_harmful(path))])
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
        # The rules of the folders above, which were not looked at in there.
        ignored = self._ignored(found)
        return [path for path in found if path not in ignored]

    def _ignored(self, paths: Iterable[str]) -> set[str]:
        args = ("check-ignore", "-z", "--no-index", "--stdin")
        # The command knows no literal pathspecs. With the "./", no name is taken for another kind.
        asked = _listed(f"./{path}" for path in paths)
        said = self.git(*args, input=asked, env={"GIT_LITERAL_PATHSPECS": "0"}, check=False)
        if said.returncode not in (0, 1):
            raise GitError(args, said.returncode, said.stderr)
        return {path[2:] for path in os.fsdecode(said.stdout).split("\0")}

    def _add(self, paths: list[str]) -> None:
        """Bring the index up to date with these files, or with as many of them as git can take."""
        if not paths:
            return
        try:
            done = self._update_index(paths, "--add", "--remove", "--replace")
        except GitError as error:
            if _NO_ROOM.search(error.stderr):
                raise  # the disk's fault, and no file's: left out, its work would be lost
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

    def _is_harmful(self, path: str) -> bool:
        """Whether git's own check of objects rejects this file, as any server would that it is pushed to.

        The check is made of what comes in from outside. So the file goes that way, in a folder of its
        own, to a place that is thrown away.
        """
        file = self._tree / path
        if file.is_symlink() or not file.is_file():
            return False
        with tempfile.TemporaryDirectory(dir=self._admin) as aside:
            env = {"GIT_OBJECT_DIRECTORY": aside}
            sha = self.git("hash-object", "-w", "--", path, env=env).line
            entry = os.fsencode(f"100644 blob {sha}\t{file.name}\0")
            folder = self.git("mktree", "-z", input=entry, env=env).line
            names = f"{folder}\n{sha}\n".encode()
            pack = self.git("pack-objects", "--quiet", "--stdout", input=names, env=env).stdout
            checked = self.git("unpack-objects", "-q", "--strict", input=pack, env=env, check=False)
        if checked.returncode != 0:
            self._leave_out(path, checked.stderr.strip().partition("\n")[0])
        return checked.returncode != 0

    def _update_index(self, paths: Iterable[str], *options: str) -> Output:
        return self.git("update-index", *options, "-z", "--stdin", input=_listed(paths))


def make_readable(top: Path) -> None:
    """Give ourselves back the right to read everything under a folder, where we own it."""
    folders = [os.fspath(top)]
    while folders:
        folder = folders.pop()
        # What is somebody else's stays as it is, and is reported where it is missed.
        with suppress(OSError):
            _allow(folder, stat.S_IRWXU)
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    with suppress(OSError):
                        _allow(entry.path, stat.S_IRUSR)


def _allow(path: str, wanted: int) -> None:
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    if mode & wanted != wanted:
        os.chmod(path, mode | wanted)  # noqa: PTH101


def _names_in(folder: Path) -> list[str]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    return os.listdir(folder)  # noqa: PTH208


def _listed(paths: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)
