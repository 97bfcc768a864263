"""Who carries out a run: one live process at a time.

The lock is the kernel's (``flock``), so that it is free the instant its holder dies, however it dies.
What stands in the file is for people: the lock is never judged by it. The one exception is the wait
described at :meth:`RunLock.acquire`, which errs on the side of "locked".
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from ..errors import JournalError, RunLocked
from .private import private_directory

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Holder", "RunLock"]

_PROBE_WAIT = 2.0
"""Seconds to try on against a lock that no live process is known to hold."""


class Holder(Struct, frozen=True):
    """The process that holds a lock, as far as it has said."""

    pid: int | None = None
    started: float | None = None
    """When the process started."""
    host: str = ""

    def __str__(self) -> str:
        if self.pid is None:
            return "another process"
        where = f" on {self.host}" if self.host and self.host != socket.gethostname() else ""
        since = f" (started {_clock(self.started)})" if self.started is not None else ""
        return f"process {self.pid}{where}{since}"


class RunLock:
    """The right to carry out one run, held by this process until :meth:`release` or its death.

    Use it as a context manager. Programs that the process starts do not inherit it.
    """

    def __init__(self, path: Path | str, run_id: str) -> None:
        self.path = Path(path)
        self.run_id = run_id
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd is not None

    def acquire(self) -> None:
        """Take the lock, or raise :class:`RunLocked` at once where a live process has it.

        Somebody who only looks (:meth:`holder`) has the lock for an instant. So a lock whose file
        names no live process is tried again for two seconds before it counts as taken.
        """
        if self._fd is not None:
            return
        deadline = time.monotonic() + _PROBE_WAIT
        try:
            private_directory(self.path.parent)
            while self._fd is None:
                holder = self._try()
                if holder is None:
                    continue
                if _is_alive(holder) or time.monotonic() > deadline:
                    raise RunLocked(
                        f"run {self.run_id} is being carried out by {holder}; "
                        f"`agentful watch {self.run_id}` shows it, `agentful stop {self.run_id}` stops it",
                        pid=holder.pid,
                    )
                time.sleep(0.01)
        except OSError as error:
            raise JournalError(f"run {self.run_id} cannot be locked with {self.path}: {error}") from error

    def _try(self) -> Holder | None:
        """Try once: who has it, or ``None`` where it was free, or its file went away meanwhile."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read_holder(fd)
            # Its last holder removes the file as it lets go. A lock on a removed file keeps nobody out.
            if not _is_file(fd, self.path):
                return None
            os.ftruncate(fd, 0)
            os.pwrite(fd, _describe_self().encode(), 0)
            self._fd, fd = fd, -1
            return None
        finally:
            if fd >= 0:
                os.close(fd)

    def release(self) -> None:
        """Let go, and remove the file. Without effect where it is not held."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            if _is_file(fd, self.path):
                self.path.unlink(missing_ok=True)
        except OSError:
            pass  # a file that stays behind is an unlocked file
        finally:
            os.close(fd)

    def holder(self) -> Holder | None:
        """Who carries out the run at this moment; ``None`` where nobody does.

        It is for readers: it creates nothing, and it is right also where the file cannot be trusted.
        """
        if self._fd is not None:
            return _read_holder(self._fd)
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(fd)
        except OSError:
            return None
        finally:
            os.close(fd)
        return None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _is_file(fd: int, path: Path) -> bool:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def _describe_self() -> str:
    import psutil

    return f"{os.getpid()} {psutil.Process().create_time():.2f} {socket.gethostname()}\n"


def _read_holder(fd: int) -> Holder:
    words = os.pread(fd, 1000, 0).decode(errors="replace").split()
    try:
        pid, started, host = words
        holder = Holder(int(pid), float(started), host)
    except ValueError:
        return Holder()
    return holder if int(pid) > 0 else Holder()


def _is_alive(holder: Holder) -> bool:
    import psutil

    if holder.pid is None or holder.started is None:
        return False
    if holder.host != socket.gethostname():
        return True  # nobody here can tell
    try:
        # The start time is derived from the time of boot, which a step of the clock may shift a little.
        return abs(psutil.Process(holder.pid).create_time() - holder.started) < 2.0
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _clock(at: float) -> str:
    try:
        then = datetime.fromtimestamp(at).astimezone()
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"
    today = then.date() == datetime.now().astimezone().date()
    return then.strftime("%H:%M" if today else "%Y-%m-%d %H:%M")
