"""What other processes ask of a live run: stop, cancel a task, answer a decision.

A request is a row in the journal first, so that it is never lost; then one byte into a FIFO wakes the
run. Where nobody listens, the request stays, and is taken up at the next resume. Nothing polls but the
person's command that waits for an answer.

A run that dies between acting on a request and closing it meets it again at its resume. So a request
has to be one that can be carried out twice: "cancel this task", never "cancel the next task".
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import JournalError
from .journal import JournalFile, Request
from .private import private_directory

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Inbox", "Request"]


class Inbox:
    """The requests to one run. Its two ends are used by two processes.

    The run itself: :meth:`open`, :meth:`take`, :meth:`done`, :meth:`close`. Everybody else:
    :meth:`send`, :meth:`wait`. ``directory`` is ``.agentful/runs``.
    """

    def __init__(self, journal: JournalFile, run: str, directory: Path | str) -> None:
        self.run = run
        self.fifo = Path(directory) / f"{run}.wake"
        self._journal = journal
        self._fd: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_request: Callable[[Request], None] | None = None
        self._last = 0

    # --- the run's end ----------------------------------------------------------------------------

    def open(self, loop: asyncio.AbstractEventLoop, on_request: Callable[[Request], None]) -> None:
        """Listen: call ``on_request`` from the loop, once for each open request, in order.

        Those that came while nobody listened are the first. The caller holds the run's lock. Raises
        :class:`JournalError` where the FIFO cannot be made.
        """
        try:
            private_directory(self.fifo.parent)
            _make_fifo(self.fifo)
            # Open for writing too, so that it is never at its end when the last sender has gone.
            fd = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise JournalError(f"run {self.run} cannot listen for requests: {error}") from error
        self._fd, self._loop, self._on_request = fd, loop, on_request
        loop.add_reader(fd, self._woken)
        loop.call_soon(self._deliver)

    def take(self) -> list[Request]:
        """The open requests that this object has not handed out yet, oldest first."""
        requests = self._journal.open_requests(self.run, after=self._last)
        if requests:
            # Ids ascend in the order of the commits, so that no lower one can appear later.
            self._last = requests[-1].id
        return requests

    def done(self, request: Request, answer: Any = None) -> None:
        """Close a request with an answer for whoever sent it: anything that JSON can hold."""
        self._journal.answer_request(request.id, answer, at=time.time())

    def close(self) -> None:
        """Listen no more. What comes from now on waits for a resume."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(fd)
        with contextlib.suppress(OSError):
            self.fifo.unlink()
        os.close(fd)

    def _woken(self) -> None:
        assert self._fd is not None
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._fd, 4096)) == 4096:
                pass
        self._deliver()

    def _deliver(self) -> None:
        if self._fd is None or self._loop is None or self._on_request is None:
            return
        for request in self.take():
            # One callback each: one that raises takes none of the others with it.
            self._loop.call_soon(self._on_request, request)

    # --- everybody else's end ---------------------------------------------------------------------

    def send(self, kind: str, payload: Any = None) -> int:
        """Ask something of the run, and wake it. The request is durable when its id is returned.

        It does not say whether anybody listens: ``RunLock.holder`` does.
        """
        request_id = self._journal.add_request(self.run, kind, payload, at=time.time())
        self._wake()
        return request_id

    def wait(self, request_id: int, timeout: float) -> Request | None:
        """The request once it has been answered; ``None`` where ``timeout`` seconds went by without.

        It blocks, for the command of a person who waits.
        """
        deadline = time.monotonic() + timeout
        pause = 0.002
        seen: int | None = None
        while True:
            version = self._journal.data_version()
            if version != seen:
                seen = version
                request = self._journal.request(request_id)
                if request is None:
                    raise JournalError(f"there is no request {request_id} to run {self.run}")
                if request.handled:
                    return request
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.1)

    def _wake(self) -> None:
        try:
            fd = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            # No FIFO, or nobody at its other end: the request stays. Anything else would keep a live
            # run from hearing of it, so the sender has to know.
            if error.errno in (errno.ENXIO, errno.ENOENT, errno.ELOOP):
                return
            raise JournalError(
                f"the request is written down, but run {self.run} was not woken: {error}"
            ) from error
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.write(fd, b"\n")
        except (BlockingIOError, BrokenPipeError):
            pass  # full of wake-ups, or the run ended this instant
        finally:
            os.close(fd)


def _make_fifo(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISFIFO(path.lstat().st_mode):
            return
        path.unlink()
    os.mkfifo(path, 0o600)
