"""Which processes descend from which, which are whose, and how to end all of them.

Killing a process group does not end a tree: whatever called ``setsid`` or forked twice is outside it.
Two things do, and both are here, as the two kinds of family that a started process has:

- `Namespace`: the program runs in a PID namespace. When the namespace's first process ends, the kernel
  kills all others in it, also when agentful itself was killed.
- `Group`: no namespace is to be had. On Linux we are a child subreaper, so that what a dying parent
  leaves becomes our child; what belongs to the family is told by a tag that no program clears. On macOS
  it is told by the environment alone, which is weaker.

Everywhere a process also has ``AGENTFUL_MARK`` in its environment, by which `sweep` finds what a
killed agentful left behind.

Rules:

- Nobody else's process is ever signalled: a process counts as a family's only by descent, tag or mark.
- Freeze, look again, then kill: else a family can fork faster than it is killed.
- Only pids that are known to be ours are waited for; never "any child".
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

MARK = "AGENTFUL_MARK"
"""The environment variable that says whose a process is: the marks of all the agentfuls above it,
outermost first, with spaces between."""

_LINUX = sys.platform == "linux"
_PROC = Path("/proc")
_RLIMIT_LOCKS = 10
_ROUNDS = 50
"""How often a family is looked at again in one go, while it goes on forking."""


class Killed(Struct, frozen=True):
    """A process that `sweep` ended."""

    pid: int
    argv0: str


class Family(Protocol):
    """A started process and all that comes from it."""

    def alive(self) -> list[int]:
        """The pids of the program and of what descends from it, as far as they can be seen now."""
        ...

    def kill(self) -> set[int]:
        """Kill whatever is alive. Returns the pids that it found, which may take a moment to be gone;
        empty when nothing is left."""
        ...

    def ended(self, returncode: int) -> None:
        """The process that was started has ended and is reaped: its pid means nothing any more."""
        ...


# --- looking ---------------------------------------------------------------------------------------


def children(pid: int) -> set[int]:
    """The direct children of a process, dead ones that nobody has waited for included."""
    if not _LINUX:
        return _psutil_children(pid)
    found: set[int] = set()
    tasks = f"/proc/{pid}/task"
    # Twice: a list that is read while somebody on it dies can lack a neighbour.
    for _ in range(2):
        try:
            threads = os.listdir(tasks)  # noqa: PTH208 - a path object costs more than the call
        except OSError:
            break
        for thread in threads:
            try:
                found.update(map(int, _read(f"{tasks}/{thread}/children").split()))
            except OSError:
                if not _has_children_files():
                    return _psutil_children(pid)
    return found


def _read(path: str) -> bytes:
    """What is in a file of the kernel's; a file object costs more than the file."""
    file = os.open(path, os.O_RDONLY)
    try:
        pieces = [os.read(file, 65_536)]
        while pieces[-1]:
            pieces.append(os.read(file, 65_536))
        return b"".join(pieces)
    finally:
        os.close(file)


def descendants(pid: int) -> list[int]:
    """All that descends from a process, parents before their children, without itself."""
    found: dict[int, None] = {}
    todo = [pid]
    while todo:
        for child in children(todo.pop()):
            if child not in found:
                found[child] = None
                todo.append(child)
    return list(found)


@functools.cache
def _has_children_files() -> bool:
    """Whether this kernel was built with them; nearly every one is."""
    return Path("/proc/thread-self/children").exists()


def _psutil_children(pid: int) -> set[int]:
    import psutil

    try:
        return {child.pid for child in psutil.Process(pid).children()}
    except psutil.Error:
        return set()


def _is_dead(pid: int) -> bool:
    """Whether it has ended, and waits to be reaped at most."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return True
    return stat.rpartition(b")")[2].split()[0] in b"ZX"


def _pids() -> Iterable[int]:
    if _LINUX:
        # The newest first, more or less: they are the ones that may be gone in a moment.
        return [int(name) for name in reversed(os.listdir(_PROC)) if name.isdecimal()]  # noqa: PTH208
    import psutil

    return psutil.pids()


def _environment_value(pid: int, name: str) -> str | None:
    """A variable as it was when the program was started; ``None`` for whom we may not look at."""
    if _LINUX:
        try:
            data = (_PROC / str(pid) / "environ").read_bytes()
        except OSError:
            return None
        start = f"{name}=".encode()
        for entry in data.split(b"\0"):
            if entry.startswith(start):
                return os.fsdecode(entry[len(start) :])
        return None
    import psutil

    try:
        return psutil.Process(pid).environ().get(name)
    except psutil.Error:
        return None


def _argv0(pid: int) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        return (process.cmdline() or [process.name()])[0]
    except psutil.Error:
        return ""


def _ancestors(pid: int) -> Iterator[int]:
    import psutil

    try:
        yield from (parent.pid for parent in psutil.Process(pid).parents())
    except psutil.Error:
        return


# --- marks -----------------------------------------------------------------------------------------


def encoded_mark(mark: str) -> str:
    """A mark as it stands in the environment: one word, slashes kept."""
    return quote(mark, safe="/")


def marked_environment(env: Mapping[str, str], mark: str) -> dict[str, str]:
    """The environment with the mark added to those that we were started with ourselves."""
    above = os.environ.get(MARK, "")
    return {**env, MARK: f"{above} {encoded_mark(mark)}".strip()}


def _marks(pid: int) -> list[str]:
    return (_environment_value(pid, MARK) or "").split()


def marked(prefix: str) -> list[int]:
    """The processes of this user under a mark: those with it, or with one that goes on after a slash.

    Never ourselves, nor what we descend from.
    """
    word = encoded_mark(prefix.rstrip("/"))
    me, user = os.getpid(), os.geteuid()
    found: list[int] = []
    for pid in _pids():
        if pid == me or (_LINUX and not _owned(pid, user)):
            continue
        if any(mark == word or mark.startswith(f"{word}/") for mark in _marks(pid)):
            found.append(pid)
    return [pid for pid in found if pid not in set(_ancestors(me))] if found else []


def _owned(pid: int, user: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid == user  # noqa: PTH116 - called for every process there is
    except OSError:
        return False


def sweep(prefix: str) -> list[Killed]:
    """Kill every process of this user, on this machine, whose mark is ``prefix`` or goes on from it
    after a slash; but for ourselves and our ancestors.

    For what a killed agentful left behind. The mark has to be one that no live agentful uses. Waits,
    without a loop, until they are gone, for at most a few seconds.
    """
    killed: dict[int, Killed] = {}

    def find() -> list[int]:
        found = marked(prefix)
        for pid in found:
            if pid not in killed:
                killed[pid] = Killed(pid, _argv0(pid))
        return found

    deadline = time.monotonic() + 5.0
    # One look, or three, can miss what forks and exits while we look.
    misses = 0
    while misses < 10 and time.monotonic() < deadline:
        if kill_all(find):
            misses = 0
            time.sleep(0.002)
        else:
            misses += 1
    return list(killed.values())


# --- killing ---------------------------------------------------------------------------------------


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to one process; nothing happens where it is gone, or not ours to signal."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_all(find: Callable[[], Iterable[int]]) -> set[int]:
    """Freeze all that ``find`` finds, until it finds no more, then kill them. Returns who that was."""
    frozen: set[int] = set()
    for _ in range(_ROUNDS):
        new = set(find()) - frozen
        if not new:
            break
        for pid in new:
            send(pid, signal.SIGSTOP)
        frozen |= new
    for pid in frozen:
        send(pid, signal.SIGKILL)
    return frozen


# --- the two kinds of family -----------------------------------------------------------------------

_numbers = itertools.count()


def new_tag() -> int:
    """A number for a family of ours."""
    return os.getpid() << 24 | next(_numbers) & 0xFFFFFF


@contextmanager
def tagged(tag: int) -> Generator[None]:
    """Whatever is started inside has the tag, and so has all that descends from it.

    The tag is the soft limit on file locks, which Linux inherits, shows, and has not enforced since
    2.4. Unlike the environment, the working directory, the session or an open file, no program clears
    it in passing; and unlike those it can still be read when a process is dead and waits to be reaped.
    """
    if not _LINUX:
        yield
        return
    soft, hard = resource.getrlimit(_RLIMIT_LOCKS)
    # An administrator may have set a limit that is too low for it; the mark has to do then.
    with suppress(ValueError, OSError):
        resource.setrlimit(_RLIMIT_LOCKS, (tag, hard))
    try:
        yield
    finally:
        resource.setrlimit(_RLIMIT_LOCKS, (soft, hard))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def become_subreaper() -> None:
    """Have what our descendants leave behind become our children, not those of the machine's init.

    To be said again by a process that was forked: it does not inherit this.
    """
    if _LINUX:
        pr_set_child_subreaper = 36
        _libc().prctl(pr_set_child_subreaper, 1, 0, 0, 0)


class Group:
    """The family of a process that was started plainly, in a session of its own."""

    def __init__(self, leader: int, *, tag: int, mark: str) -> None:
        self._leader: int | None = leader
        self._group = leader
        self._tag = tag
        self._mark = mark

    def alive(self) -> list[int]:
        if not _LINUX:
            return list(dict.fromkeys([*self._from_leader(), *marked(self._mark)]))
        found = self._from_leader()
        for orphan in self._orphans():
            found.append(orphan)
            found += descendants(orphan)
        return found

    def kill(self) -> set[int]:
        found = kill_all(self.alive)
        if not _LINUX:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)
        return found

    def ended(self, returncode: int) -> None:  # noqa: ARG002
        self._leader = None

    def _from_leader(self) -> list[int]:
        return [] if self._leader is None else [self._leader, *descendants(self._leader)]

    def _orphans(self) -> set[int]:
        """Live children of ours that the family left to us; the dead ones are reaped on the way."""
        session = os.getsid(0)
        while True:
            live: set[int] = set()
            reaped = False
            for pid in children(os.getpid()) - {self._leader}:
                # A child in our own session was started by us, or by the program that we are a library of.
                with suppress(ProcessLookupError, ChildProcessError):
                    if os.getsid(pid) != session and self._is_ours(pid):
                        if os.waitpid(pid, os.WNOHANG)[0]:
                            reaped = True
                        else:
                            live.add(pid)
            # The dead may have left us children of their own, after we had looked.
            if live or not reaped:
                return live

    def _is_ours(self, pid: int) -> bool:
        try:
            tag = resource.prlimit(pid, _RLIMIT_LOCKS)[0]
        except PermissionError:
            return False
        if tag >> 24 == os.getpid():
            return tag == self._tag
        # Ours all the same where an agentful inside the family gave it a tag of its own.
        return encoded_mark(self._mark) in _marks(pid)


class Namespace:
    """The family of a process that was started with `namespace_argv` in front."""

    def __init__(self, outer: int, *, mark: str) -> None:
        self._outer: int | None = outer
        self._mark = mark
        self._suspect = False

    def alive(self) -> list[int]:
        if self._outer is None:
            return marked(self._mark) if self._suspect else []
        return [pid for init in children(self._outer) for pid in descendants(init)]

    def kill(self) -> set[int]:
        if self._outer is None:
            return kill_all(self.alive)
        # Frozen, because some versions have a word to say when the first process is killed, and because
        # it is to end last: dead and not reaped, the first process shows that all others are gone.
        send(self._outer, signal.SIGSTOP)
        found = children(self._outer)
        if all(_is_dead(init) for init in found):
            send(self._outer, signal.SIGKILL)
        for init in found:
            send(init, signal.SIGKILL)
        return found | {self._outer}

    def ended(self, returncode: int) -> None:
        self._outer = None
        # It ends by a signal only where somebody killed it, not its program: then do not trust, look.
        self._suspect = returncode < 0


STARTED = "\0"
"""The line that comes out of a namespace first of all: what follows is the program's own output."""

# The program is not the first process itself: that one has no default signal handlers, and has to reap.
# What the shell would say about its end ("Killed") is not the program's output. Its own session keeps
# ``kill 0`` inside.
_INIT = 'exec 3>&2 2>/dev/null; printf "\\0\\n"; (exec "$@" 2>&3 3>&-); exit $?'
_PROBE = "test -r /proc/self/stat && exit 7"


@functools.cache
def namespace_argv() -> tuple[str, ...] | None:
    """What to put in front of a program to have it in a PID namespace that dies with us; ``None`` where
    that cannot be had. Found out by trying it, once: takes some 10 ms.

    The program has to be given with its full path. Its exit code is handed through; `returncode_of`
    undoes what the shell between makes of a signal.
    """
    names = ("setpriv", "unshare", "setsid", "sh")
    setpriv, unshare, setsid, sh = (shutil.which(name) for name in names)
    if not (_LINUX and setpriv and unshare and setsid and sh):
        return None
    for user in ([], ["--user", "--map-current-user"]):
        argv = (
            *(setpriv, "--pdeathsig", "KILL"),
            *(unshare, *user, "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(setsid, sh, "-c", _INIT, "agentful"),
        )
        try:
            tried = subprocess.run(
                [*argv, sh, "-c", _PROBE],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=5,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if (tried.returncode, tried.stdout) == (7, b"\0\n"):
            return argv
    return None


def returncode_of(status: int) -> int:
    """The return code of a program from that of the shell it ran under, as in :mod:`subprocess`.

    A shell says 128 + n for "killed by signal n", so that is what such a code is taken for. But not
    129: nobody here sends SIGHUP, and git says 129 for "wrong usage".
    """
    number = status - 128
    return -number if 1 < number < signal.NSIG else status
