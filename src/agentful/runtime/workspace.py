"""Private repositories: open, bring in, snapshot, keep, remove.

One attempt works in one workspace. On disk, outside the user's repository::

    <base>/<repository>/<run>/<name>/tree/        the workspace: all that the agent is shown
    <base>/<repository>/<run>/<name>/git/         our git directory and index for it
    <base>/<repository>/.opening/  and  .trash/   half made, and waiting to be removed

``tree/.git`` is a repository of the agent's own, made by hand: a branch, an index, and the user's
objects borrowed through ``alternates``; nothing else of the user's repository. The agent may commit in
it, break it or delete it. We never read it and run nothing that it says: what the agent left is taken
from outside, with our git directory, our index and our configuration, straight into the user's objects.

What is borrowed has to stay: the base commit of every workspace must be reachable from a ref for as
long as the workspace is there. The integration branch sees to that, because workspaces open at commits
of that branch and it only ever moves forward; so does the pin of whatever else one is opened at.

A little longer than the other files, so that the life of a workspace stands in one place.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from ..errors import GitError, WorkspaceError
from .git import RefMoved, commit_message, decode_trailer
from .gitcall import directory_lock, text
from .snapshot import Inspector, LeftOut, make_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from .git import Repository

__all__ = ["Kept", "LeftOut", "Workspace", "Workspaces", "slug"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DIGEST = 12
_HASHED = re.compile(rf".*-[0-9a-f]{{{_DIGEST}}}")

# What of the user's configuration decides how files look in a checkout.
_CHECKOUT_SETTINGS = r"^core\.(autocrlf|eol|filemode|hookspath|ignorecase|precomposeunicode|symlinks)$"
_PRIVATE_CONFIG = """\
[core]
\tfsmonitor = false
\texcludesFile = /dev/null
\tattributesFile = /dev/null
[gc]
\tauto = 0
[maintenance]
\tauto = false
[commit]
\tgpgSign = false
[tag]
\tgpgSign = false
"""

_FICLONE = 0x40049409
"""Linux: share a file's blocks with another until one of them is changed, where the disk can do that."""

_HALF_MADE_AGE = 60.0
"""Seconds that a half-made workspace is left alone, even where nobody seems to be making it."""


def slug(task_id: str) -> str:
    """A name of ours for a task: for refs, folders and log files.

    The id itself where it is such a name already: at most 40 lower-case letters, digits and hyphens.
    Else a readable part of it and a hash. Different ids have different slugs, on every file system.
    """
    if _SLUG.fullmatch(task_id) and not _HASHED.fullmatch(task_id):
        return task_id
    readable = re.sub(r"[^a-z0-9]+", "-", task_id.lower())[:28].strip("-") or "task"
    digest = hashlib.sha256(task_id.encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
    return f"{readable}-{digest}"


@dataclass(frozen=True, slots=True)
class Workspace:
    """The private repository of one attempt. ``commit`` is the one it was opened at."""

    name: str
    commit: str
    path: Path
    """Where the agent works."""
    admin: Path
    """Our git directory for it. The agent has no business there."""

    @property
    def home(self) -> Path:
        """The folder that has both."""
        return self.path.parent

    @property
    def env(self) -> dict[str, str]:
        """Variables for a process that works in it.

        Where the workspace has lost its ``.git``, git is not to find some repository above it. And large
        files stay pointers: there is no remote that they could come from.
        """
        return {"GIT_CEILING_DIRECTORIES": str(self.home), "GIT_LFS_SKIP_SMUDGE": "1"}


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a workspace: a pinned commit, and how it differs from the workspace's base."""

    commit: str
    paths: tuple[str, ...]
    """What changed; empty where nothing did."""
    left_out: tuple[LeftOut, ...] = ()


class Workspaces:
    """The workspaces of one run. Safe to use from any number of threads and processes.

    ``run`` and the names of workspaces are names of ours: letters, digits, ``_``, ``-`` and, in names,
    single dots. ``base`` is
    where workspaces are kept: ``AGENTFUL_WORKSPACES``, else the user's cache folder.

    Raises :class:`WorkspaceError` where that would be inside the repository.
    """

    def __init__(self, repo: Repository, run: str, *, base: Path | None = None) -> None:
        if not _NAME.fullmatch(run) or "." in run:
            raise WorkspaceError(f"{run!r} cannot be the name of a run's workspaces")
        self.repo = repo
        self.run = run
        self._shelf = _shelf(repo, base)
        self.folder = self._shelf / run
        """Where the workspaces of this run are."""

    @staticmethod
    def all_runs(repo: Repository, base: Path | None = None) -> dict[str, list[Path]]:
        """The folders of all workspaces of a repository that are on disk, by run."""
        return {run.name: _folders(run) for run in _folders(_shelf(repo, base))}

    def existing(self) -> list[Workspace]:
        """The workspaces of this run that are on disk, whole, in order of their names."""
        found: list[Workspace] = []
        for home in _folders(self.folder):
            commit = text(_read(home / "git" / "HEAD")).strip()
            if _COMMIT.fullmatch(commit):
                found.append(Workspace(home.name, commit, home / "tree", home / "git"))
        return found

    # --- open ------------------------------------------------------------------------------------

    def open(self, name: str, commit: str) -> Workspace:
        """A fresh workspace at a commit. The caller then brings in ignored files and runs the setup.

        Raises :class:`WorkspaceError` where there is one of that name, there is no such commit, or the
        disk is full. There is then no trace of it.
        """
        home = self.folder / name
        if not _NAME.fullmatch(name) or name.endswith(".lock"):
            raise WorkspaceError(f"{name!r} cannot be the name of a workspace")
        if home.exists():
            raise WorkspaceError(f"there is a workspace {name!r} in run {self.run} already: {home}")
        try:
            if not _COMMIT.fullmatch(commit):
                commit = self.repo.resolve(commit)
            self.repo.fetch_missing(commit)
            with self._half_made() as (half, lock):
                made = Workspace(name, commit, half / "tree", half / "git")
                self._make_admin(made)
                made.path.mkdir()
                Inspector(self.repo, made.admin, made.path, lock).git("read-tree", "--reset", "-u", commit)
                self._make_private(made)
                _move(half, home)
        except GitError as error:
            raise WorkspaceError(f"workspace {name!r} cannot be opened at {commit}: {error}") from error
        except OSError as error:
            raise WorkspaceError(f"workspace {name!r} cannot be opened in {self.folder}: {error}") from error
        return Workspace(name, commit, home / "tree", home / "git")

    @contextmanager
    def _half_made(self) -> Generator[tuple[Path, int]]:
        """A folder to make a workspace in, and the lock on it. What is left there at the end is removed.

        By the lock :meth:`remove_trash` can tell it from what a crash left behind.
        """
        opening = self._shelf / ".opening"
        opening.mkdir(mode=0o700, parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(dir=opening))
        fd = os.open(half, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield half, fd
        finally:
            os.close(fd)
            if half.exists():
                with suppress(WorkspaceError):  # the failure that led here is the one to tell of
                    self._to_trash(half)

    def _make_admin(self, ws: Workspace) -> None:
        _write(ws.admin / "HEAD", f"{ws.commit}\n")
        (ws.admin / "refs").mkdir(exist_ok=True)
        _write(ws.admin / "config", self._config(ws))
        _write(ws.admin / "info" / "exclude", self._exclude)
        _write(ws.admin / "info" / "attributes", self._attributes)

    def _make_private(self, ws: Workspace) -> None:
        """The agent's own repository, with a copy of our index: its first ``git status`` is instant."""
        git = ws.path / ".git"
        branch = f"refs/heads/agentful/{ws.name}"
        name, address = self.repo.identity()
        config = f"[user]\n\tname = {_quoted(name)}\n\temail = {_quoted(address)}\n{_PRIVATE_CONFIG}"
        if "core.hookspath" in self._settings:
            # Hooks that the user has for all repositories are not for the agent's commits.
            config += "[core]\n\thooksPath = .git/hooks\n"
        _write(git / "config", self._config(ws) + config)
        _write(git / "objects" / "info" / "alternates", f"{self.repo.objects}\n")
        _write(git / "info" / "exclude", self._exclude)
        _write(git / "info" / "attributes", self._attributes)
        _write(git / branch, f"{ws.commit}\n")
        shutil.copyfile(ws.admin / "index", git / "index")
        with suppress(FileNotFoundError):
            shutil.copyfile(self.repo.git_dir / "shallow", git / "shallow")
        _write(git / "HEAD", f"ref: {branch}\n")

    def _config(self, ws: Workspace) -> str:
        sha256 = len(ws.commit) == 64
        lines = ["[core]", f"\trepositoryFormatVersion = {int(sha256)}", "\tbare = false"]
        for key, value in self._settings.items():
            if key != "core.hookspath":
                lines.append(f"\t{key.removeprefix('core.')} = {_quoted(value)}")
        lines += ["[extensions]", "\tobjectFormat = sha256"] if sha256 else []
        return "\n".join(lines) + "\n"

    @cached_property
    def _settings(self) -> dict[str, str]:
        return self.repo.user_config(_CHECKOUT_SETTINGS)

    @cached_property
    def _exclude(self) -> bytes:
        return self._user_file("excludesfile", "ignore", "exclude")

    @cached_property
    def _attributes(self) -> bytes:
        return self._user_file("attributesfile", "attributes", "attributes")

    def _user_file(self, setting: str, usual: str, own: str) -> bytes:
        """What the user has in a file for all repositories, and in the one for this repository."""
        home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "git"
        found = self.repo.user_config(rf"^core\.{setting}$", paths=True)
        everywhere = self.repo.root / found.get(f"core.{setting}", home / usual)
        return _read(everywhere) + b"\n" + _read(self.repo.git_dir / "info" / own)

    # --- bring in --------------------------------------------------------------------------------

    def include_ignored(self, ws: Workspace) -> list[str]:
        """Copy in what ``.worktreeinclude`` names, a file of gitignore patterns in the user's checkout.

        Only what git ignores is copied, and nothing over a file that is there. Symbolic links are
        copied as links, and never followed. Says which paths were copied; none of them ever gets
        into a snapshot, whatever becomes of the ignore rules.
        """
        if not (self.repo.root / ".worktreeinclude").is_file():
            return []
        root, tree = self.repo.root, ws.path
        try:
            wanted = [file for path in self._ignored_and_wanted() for file in _files(root, path.rstrip("/"))]
            # Written down before they are there, or a failure could leave one that we do not know of.
            with (ws.admin / "included").open("ab") as record:
                record.write(b"".join(os.fsencode(path) + b"\0" for path in wanted))
            copied = [path for path in wanted if _bring_in(root / path, tree, path)]
        except (GitError, OSError) as error:
            raise WorkspaceError(f"cannot copy ignored files into workspace {ws.name!r}: {error}") from error
        return [text(os.fsencode(path)) for path in copied]

    def _ignored_and_wanted(self) -> list[str]:
        quick = ("-c", "core.fsmonitor=false")
        options = ("-z", "--others", "--ignored", "--exclude-from=.worktreeinclude")
        wanted = self.repo.user_git(*quick, "ls-files", *options).stdout
        args = (*quick, "check-ignore", "-z", "--stdin")
        # With the "./", no name is taken for a pathspec. It says "no" with 1 where none is ignored.
        asked = b"".join(b"./" + path + b"\0" for path in wanted.split(b"\0") if path)
        ignored = self.repo.user_git(*args, input=asked, check=False)
        if ignored.returncode not in (0, 1):
            raise GitError(args, ignored.returncode, ignored.stderr)
        paths = (path[2:] for path in os.fsdecode(ignored.stdout).split("\0"))
        return [path for path in paths if path and not path.startswith(".agentful/")]

    # --- snapshot and keep -----------------------------------------------------------------------

    def snapshot(self, ws: Workspace) -> str:
        """The id of a tree that has what is in the workspace now, the ignored files left out.

        It can be taken while the agent is at work. Raises :class:`WorkspaceError` where the workspace is
        gone, or git cannot make a tree of it.
        """
        return self._capture(ws)[0]

    def _capture(self, ws: Workspace) -> tuple[str, tuple[LeftOut, ...]]:
        _check_there(ws)
        try:
            with directory_lock(ws.home) as lock:
                # We have the lock, so whoever left this is dead.
                (ws.admin / "index.lock").unlink(missing_ok=True)
                brought_in = frozenset(os.fsdecode(_read(ws.admin / "included")).split("\0"))
                inspector = Inspector(self.repo, ws.admin, ws.path, lock)
                repairs: list[Callable[[], object]] = [
                    lambda: make_readable(ws.path),
                    lambda: self._make_index_again(ws, inspector),
                ]
                for repair in repairs:
                    try:
                        return inspector.capture(brought_in)
                    except (GitError, OSError):
                        with suppress(GitError, OSError):
                            repair()
                return inspector.capture(brought_in)
        except (GitError, OSError) as error:
            raise WorkspaceError(f"what is in workspace {ws.name!r} cannot be kept: {error}") from error

    def _make_index_again(self, ws: Workspace, inspector: Inspector) -> None:
        self._make_admin(ws)
        (ws.admin / "index").unlink(missing_ok=True)
        inspector.git("read-tree", ws.commit)

    def keep(
        self,
        ws: Workspace,
        *,
        task_id: str,
        attempt: int,
        subject: str,
        author: tuple[str, str] | None = None,
        outcome: Mapping[str, str] | None = None,
        at: float | None = None,
    ) -> Kept:
        """Snapshot a workspace, commit that on top of the workspace's base, and pin it to a ref of ours.

        Also where nothing changed. ``outcome`` is kept with it, as trailers: names of letters, digits
        and hyphens, and any text. Keeping an attempt again replaces its pin where the content is the
        same; else the older commit is pinned beside it, as ``<attempt>.1`` and so on.
        Raises :class:`WorkspaceError` as :meth:`snapshot` does.
        """
        ours = {"Task-Key": f"{self.run}/{task_id}", "Attempt": str(attempt)}
        message = commit_message(subject or f"Task {slug(task_id)}", ours | dict(outcome or {}) | ours)
        tree, left_out = self._capture(ws)
        try:
            commit = self.repo.commit_tree(tree, [ws.commit], message, author=author, at=at)
            self._pin(self.pin_name(task_id, attempt), commit)
            return Kept(commit, self.repo.changed(ws.commit, commit), left_out)
        except GitError as error:
            raise WorkspaceError(f"what is in workspace {ws.name!r} cannot be kept: {error}") from error

    def pin_name(self, task_id: str, attempt: int) -> str:
        """The ref that an attempt's work is pinned to."""
        return f"refs/agentful/{self.run}/{slug(task_id)}/{attempt}"

    def pinned(self, task_id: str, attempt: int) -> str | None:
        """The commit that an attempt's work is pinned as; ``None`` where it is not."""
        return self.repo.ref(self.pin_name(task_id, attempt))

    def outcome(self, commit: str) -> dict[str, str]:
        """All that was kept with a pinned commit: the outcome, ``Task-Key`` and ``Attempt``."""
        return {name: decode_trailer(value) for name, value in self.repo.trailers(commit).items()}

    def _pin(self, ref: str, commit: str) -> None:
        there: str | None = None
        while True:
            try:
                self.repo.update_ref(ref, commit, there)
            except RefMoved as moved:
                there = moved.actual
                if there == commit:
                    return
                if there is not None and not self._same_work(there, commit):
                    self._pin_beside(ref, there)
            else:
                return

    def _same_work(self, one: str, other: str) -> bool:
        a, b = self.repo.commit(one), self.repo.commit(other)
        return (a.tree, a.parents) == (b.tree, b.parents)

    def _pin_beside(self, ref: str, commit: str) -> None:
        for number in itertools.count(1):
            try:
                self.repo.update_ref(f"{ref}.{number}", commit, None)
            except RefMoved as moved:
                if moved.actual != commit:
                    continue
            return

    # --- remove ----------------------------------------------------------------------------------

    def discard(self, ws: Workspace) -> None:
        """Have a workspace gone, at once; :meth:`remove_trash` frees its room. Gone already is fine."""
        self._to_trash(ws.home)
        with suppress(OSError):
            self.folder.rmdir()  # if it was the last

    def _to_trash(self, folder: Path) -> None:
        trash = self._shelf / ".trash"
        try:
            trash.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(dir=trash))
            try:
                folder.chmod(0o700)  # a folder moves only if it may be written to
                folder.rename(place / folder.name)
            except FileNotFoundError:
                place.rmdir()
        except OSError as error:
            raise WorkspaceError(f"{folder} cannot be removed: {error}") from error

    def remove_trash(self, *, seconds: float | None = None) -> int:
        """Remove what was discarded, by any run, and what a crash left half made; how much of it.

        It blocks, for minutes where there is much: run it in a thread. The work itself is done by other
        processes, at low priority. After ``seconds``, what is left goes on being removed without us.
        What cannot be removed now stays for the next time.
        """
        for half in _folders(self._shelf / ".opening"):
            if _is_abandoned(half):
                with suppress(WorkspaceError):
                    self._to_trash(half)
        ends = None if seconds is None else time.monotonic() + seconds
        removed = 0
        folders = _folders(self._shelf / ".trash")
        for index, folder in enumerate(folders):
            if ends is not None and time.monotonic() > ends:
                _remove_without_us(folders[index:])
                break
            removed += _remove(folder)
        return removed


def _shelf(repo: Repository, base: Path | None) -> Path:
    """The folder for all workspaces of a repository."""
    if base is None:
        chosen = os.environ.get("AGENTFUL_WORKSPACES")
        base = Path(chosen) if chosen else platformdirs.user_cache_path("agentful") / "workspaces"
    base = base.expanduser().resolve()
    for inside in (repo.root, repo.git_dir):
        if base.is_relative_to(inside):
            raise WorkspaceError(
                f"workspaces cannot be in {base}: that is inside the repository, where git would take one "
                "for a part of it. Set AGENTFUL_WORKSPACES to a folder elsewhere"
            )
    return base / repo.id


def _folders(parent: Path) -> list[Path]:
    """The folders in a folder, sorted; of ours the hidden ones are no runs and no workspaces."""
    try:
        return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    except FileNotFoundError:
        return []


def _move(half: Path, home: Path) -> None:
    while True:
        with suppress(FileExistsError):
            home.parent.mkdir(mode=0o700, parents=True)
        try:
            half.rename(home)
        except FileNotFoundError:
            # The last workspace of the run was discarded just now, and the run's folder with it.
            if not half.exists():
                raise
        else:
            return


def _check_there(ws: Workspace) -> None:
    try:
        mode = ws.path.lstat().st_mode
    except OSError as error:
        raise WorkspaceError(
            f"workspace {ws.name!r} is gone, so there is nothing left to keep: its folder was deleted or "
            f"moved away while somebody worked in it ({error})"
        ) from error
    if not stat.S_ISDIR(mode):
        raise WorkspaceError(f"workspace {ws.name!r} is gone: {ws.path} is not a folder any more")


def _is_abandoned(half: Path) -> bool:
    """Whether nobody is making this workspace any more: whoever does has it locked."""
    try:
        if time.time() - half.stat().st_mtime < _HALF_MADE_AGE:
            return False
        fd = os.open(half, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


_REMOVE = (("rm", "-rf"), ("chmod", "-R", "u+rwx"), ("rm", "-rf"))
"""What removes a folder, also one whose folders may not be written to."""


def _remove(folder: Path) -> bool:
    for program in _REMOVE:
        with suppress(OSError):
            _start_quietly((*program, "--", os.fspath(folder))).wait()
        if not folder.exists():
            return True
    return False


def _remove_without_us(folders: list[Path]) -> None:
    script = "; ".join(f'{" ".join(program)} -- "$@"' for program in _REMOVE)
    with suppress(OSError):
        left = _start_quietly(("sh", "-c", script, "sh", *map(os.fspath, folders)))
        # It goes on when we are gone, and nobody waits for it.
        left.returncode = 0


def _start_quietly(argv: tuple[str, ...]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ("nice", "-n", "19", *argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _files(root: Path, path: str) -> Iterator[str]:
    """This path, or the paths of all files in this folder, below ``root``; a link counts as a file."""
    full = root / path
    if full.is_symlink() or full.is_file():
        yield path
    elif full.is_dir():
        for child in sorted(full.iterdir()):
            yield from _files(root, f"{path}/{child.name}")


def _bring_in(source: Path, tree: Path, path: str) -> bool:
    """Copy a file or a link to its place in a workspace, unless something is there already.

    Says whether it did. One that went away meanwhile, as a build's files do, is none to be copied.
    """
    folder = tree
    for part in Path(path).parent.parts:
        folder /= part
        # The workspace is at another commit than the checkout: a folder there may be a link or a file.
        if folder.is_symlink() or folder.is_file():
            return False
        folder.mkdir(exist_ok=True)
    target = tree / path
    if os.path.lexists(target):
        return False
    try:
        if source.is_symlink():
            target.symlink_to(source.readlink())
        else:
            _copy_file(source, target)
    except FileNotFoundError:
        return False
    return True


def _copy_file(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new, _FICLONE, old.fileno())
        except OSError:
            shutil.copyfileobj(old, new)
    shutil.copystat(source, target)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _write(file: Path, content: str | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def _quoted(value: str) -> str:
    """A value for a git configuration file."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
