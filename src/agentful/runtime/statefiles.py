"""``state.json``, ``completion.json`` and ``decisions.json``: a run as agents, scripts and people read it.

They are derived from the journal and written for others. The last two may be edited: that is how agents
answer a decision, or say that a feature is complete. What the files say is in ``stateschema.py``.

A file is replaced, never written into, so that it is whole at any instant. It is not synced to the
disk: after a power loss it is made again from the journal, which is.

The directory has one writer at a time, the first of the runs that are live; the others write nothing
until it ends. What somebody else left there is never destroyed: a file that cannot be read, is no
regular file, is too large, or belongs to another is moved to ``<file>.backup-<epoch>``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import msgspec
from msgspec import Struct

from .private import private_directory, write_private
from .stateschema import (
    DOCUMENTS,
    StateInput,
    TaskLine,
    Unreadable,
    encode,
    parse,
    read_answers,
    read_completed,
)

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Edits", "StateFiles", "StateInput", "TaskLine"]

MAX_BYTES = 5 * 1024 * 1024
"""More than this, on top of what we wrote ourselves, is not read."""

_SETTLE_SECONDS = 1.0
"""A file that makes no sense and is younger than this may be half written by its editor."""
_TICK_SECONDS = 0.1
"""Two changes closer together than this may leave a file with the same time stamp."""


class Edits(Struct, frozen=True):
    """What somebody else has changed. It may repeat what the run knows, so check before acting."""

    answers: list[tuple[str, str]] = []
    """Ids of decisions, with the answers."""
    completed: list[str] = []
    """Ids of tasks that were set to complete."""
    problems: list[str] = []
    """For people: what could not be used, and what became of it."""


class _Written(Struct, frozen=True):
    """What we wrote last under a name."""

    run: str
    digest: str
    size: int


class StateFiles:
    """The three files of one directory, ``.agentful``, written for one run.

    ``.statefiles`` beside them says what was written last, so that an edit is told from our own
    writing also after a restart; who has it locked is the directory's writer. Nothing here raises for
    what is on the disk: trouble is told among :attr:`Edits.problems`, and the run goes on without.
    """

    def __init__(self, directory: Path | str, run: str) -> None:
        self.directory = Path(directory)
        self.run = run
        self._fd: int | None = None
        self._source: StateInput | None = None
        self._written: dict[str, _Written] = {}
        self._bodies: dict[str, str] = {}
        self._unchanged: dict[str, tuple[int, int, int]] = {}
        self._taken: dict[str, str] = {}
        self._answers: dict[str, str] = {}
        self._completed: dict[str, None] = {}
        self._problems: list[str] = []
        self._told: set[str] = set()

    def write(self, source: StateInput) -> None:
        """Bring the files up to date. Edits that are met on the way are kept for :meth:`read_edits`.

        A file whose content would differ in nothing but its time stamp is left alone.
        """
        self._source = source
        if not self._own():
            return
        wrote = False
        for name in DOCUMENTS:
            found = self._inspect(name)
            data, unstamped = encode(source, name)
            body = _digest(unstamped)
            if found == "wait" or (found == "ours" and self._bodies.get(name) == body):
                continue
            try:
                _replace(self.directory / name, data)
            except OSError as error:
                self._tell_once(f"{name} cannot be written: {error.strerror or error}")
                continue
            self._written[name] = _Written(source.run, _digest(data), len(data))
            self._bodies[name] = body
            self._unchanged.pop(name, None)
            self._taken.pop(name, None)
            wrote = True
        if wrote:
            self._remember()

    def read_edits(self) -> Edits:
        """What somebody else has edited since the last call.

        Before the first :meth:`write` nothing is known of the run, and everything in the edited files
        that has an answer or is complete is handed out; afterwards only what is news. Write again when
        it has been acted on: that also puts back what could not be used.
        """
        if self._own():
            for name in DOCUMENTS:
                self._inspect(name)
        edits = Edits(list(self._answers.items()), list(self._completed), self._problems)
        self._answers, self._completed, self._problems = {}, {}, []
        return edits

    def edited(self) -> bool:
        """Whether :meth:`read_edits` may have something to hand out. Cheap: a ``stat`` a file."""
        if self._answers or self._completed or self._problems:
            return True
        if not self._own():
            return False
        for name in DOCUMENTS:
            try:
                data = self._look(name)
            except Unreadable:
                return True
            if data and self._taken.get(name) != _digest(data):
                return True
        return False

    def close(self) -> None:
        """Leave the directory to the next writer. The files stay."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _tell_once(self, problem: str) -> None:
        """A full disk would otherwise say so at every change."""
        if problem not in self._told:
            self._told.add(problem)
            self._problems.append(problem)

    # --- whose directory it is --------------------------------------------------------------------

    def _own(self) -> bool:
        if self._fd is not None:
            return True
        names = ", ".join(DOCUMENTS)
        fd = -1
        try:
            private_directory(self.directory)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(self.directory / ".statefiles", flags, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remembered = os.pread(fd, 65536, 0)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            if isinstance(error, BlockingIOError):
                why = f"are another live run's; `agentful status {self.run}` shows this one"
            else:
                why = f"cannot be kept: {error.strerror or error}"
            self._tell_once(f"{names} in {self.directory} {why}")
            return False
        self._fd = fd
        # Another run may have written here since this object last looked.
        self._bodies, self._unchanged, self._taken = {}, {}, {}
        try:
            self._written = msgspec.json.decode(remembered, type=dict[str, _Written])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._written = {}
        return True

    def _remember(self) -> None:
        assert self._fd is not None
        data = msgspec.json.encode(self._written)
        try:
            # Half of it is as good as nothing: then an edit is suspected where there is none.
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, data, 0)
        except OSError as error:
            self._tell_once(f".statefiles cannot be written: {error.strerror or error}")

    # --- what somebody else did -------------------------------------------------------------------

    def _look(self, name: str) -> bytes | None:
        """The content of a file that is not as we left it, empty where it is gone; else ``None``.

        Raises :class:`Unreadable` for what is no file of ours to read.
        """
        path = self.directory / name
        written = self._written.get(name)
        limit = MAX_BYTES + (written.size if written else 0)
        try:
            found = path.lstat()
            mark = (found.st_ino, found.st_size, found.st_mtime_ns)
            if self._unchanged.get(name) == mark:
                return None
            if stat.S_ISLNK(found.st_mode):
                raise Unreadable("is a symbolic link")
            if not stat.S_ISREG(found.st_mode):
                raise Unreadable("is no regular file")
            if found.st_size > limit:
                raise Unreadable(f"has {found.st_size:,} bytes, which is too much")
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror or error})") from error
        if written is None or _digest(data) != written.digest:
            return data
        if time.time() - found.st_mtime > _TICK_SECONDS:
            self._unchanged[name] = mark
        return None

    def _inspect(self, name: str) -> Literal["ours", "free", "wait"]:
        """Take the edits out of a file: it is as we left it, may be replaced, or is to be left alone."""
        try:
            data = self._look(name)
        except Unreadable as problem:
            return self._set_aside(name, f"{problem}, so it was not read")
        if data is None:
            return "ours"
        digest = _digest(data)
        if self._taken.get(name) == digest:
            return "free"
        try:
            document = parse(data)
        except Unreadable as problem:
            if self._is_fresh(name):
                return "wait"
            # An empty file has nothing to keep; it is what a power loss may leave of one.
            return self._set_aside(name, f"{problem}, so it was not read") if data.strip() else "free"
        written = self._written.get(name)
        owner = document.get("run") or (written and written.run)
        if owner is None:
            return self._set_aside(name, "was there before this run")
        if name != "state.json":
            if owner != self.run:
                return self._set_aside(name, f"has changes that belong to run {owner!s:.80}")
            self._take(name, document)
        self._taken[name] = digest
        return "free"

    def _take(self, name: str, document: dict[str, object]) -> None:
        if name == "decisions.json":
            answers, problems = read_answers(document, self._source)
            self._answers |= answers
        else:
            completed, problems = read_completed(document, self._source)
            self._completed |= dict.fromkeys(completed)
        self._problems += [f"{name}: {problem}" for problem in problems]

    def _is_fresh(self, name: str) -> bool:
        try:
            return abs(time.time() - (self.directory / name).lstat().st_mtime) < _SETTLE_SECONDS
        except OSError:
            return False

    def _set_aside(self, name: str, why: str) -> Literal["free", "wait"]:
        path = self.directory / name
        backup = path.with_name(f"{name}.backup-{int(time.time())}")
        number = 1
        while os.path.lexists(backup):
            number += 1
            backup = path.with_name(f"{name}.backup-{int(time.time())}-{number}")
        try:
            path.rename(backup)
        except OSError as error:
            self._tell_once(f"{name} {why}; it cannot be moved aside: {error.strerror or error}")
            return "wait"
        self._problems.append(f"{name} {why}; it is kept as {backup.name}")
        return "free"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        write_private(fresh, data)
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
