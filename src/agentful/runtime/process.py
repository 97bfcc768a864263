"""The one supervisor of all processes that run for a task: agents, setup commands, checks.

Rules:

- Nothing outlives its end. A process is over when it and all that came from it are gone; only then is
  its `Exit` known. Stopping it, cancelling whoever waits for it, and its own ordinary end all lead there.
- The end is the end of the program, awaited on a pidfd. It is not the end of its output: a grandchild
  may hold the pipe for ever.
- Output is read as it comes, in bounded pieces, and never kept: a program that prints faster than it is
  read waits.
- What a program is given is built up (`environment`), not handed down.
- Programs are started from the thread of the event loop, which lives as long as they may: the kernel
  ends what was started with "die with your parent" when the *thread* that started it ends.

How a whole family of processes is found and ended is in `proctree`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Protocol

from msgspec import Struct

from ..errors import AgentError, WorkspaceError
from . import proctree
from .redact import looks_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GRACE: Final = 3.0
"""Seconds between asking a family to end and killing it."""
_PATIENCE: Final = 10.0
"""Seconds to wait for what was killed. More than that, and it is stuck in the kernel, or not ours."""
_PIECE: Final = 65_536
_DRAIN: Final = 1_048_576
"""The most that an unprivileged process can make a pipe hold."""


class Spawn(Struct, frozen=True, kw_only=True):
    """What to start."""

    argv: tuple[str, ...]
    """The program and its arguments. A program without a slash is looked up on the ``PATH`` of ``env``; a
    relative one starts from ``cwd``."""
    cwd: str
    """An absolute path."""
    env: Mapping[str, str]
    """The whole environment, as `environment` makes it."""
    mark: str
    """Whose it is, as ``run/task/attempt``. No two live processes of this machine have the same."""
    stdin_file: str | None = None
    """A file to be its standard input; else that is ``/dev/null``."""
    max_line: int = 1_048_576
    """Bytes of a line; of a longer one the rest is left out, and the line says so."""


class Exit(Struct, frozen=True, kw_only=True):
    """How a process ended, and all that came from it with it."""

    returncode: int
    """Negative for a signal, as in :mod:`subprocess`."""
    duration: float
    """Seconds, until everything was gone."""
    stopped: bool = False
    """Its end was asked for, by `Process.stop` or by cancelling."""
    survivors: tuple[int, ...] = ()
    """Pids of what could not be killed: stuck in the kernel, or turned into another user's."""


class StopSignal(Protocol):
    """The wish that something end, which may come at any time."""

    def on_request(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called when the wish comes; at once, if it has."""
        ...


class Supervisor:
    """Starts processes, and sees to it that nothing is left of them. Any number may be made.

    ``containment`` is how a family of processes is held together: ``auto`` takes a PID namespace where
    one can be had, which also ends with us when we are killed; ``group`` does without, which costs some
    3 ms less for each start, and leaves it to `proctree.sweep` to end what a killed agentful left.
    """

    def __init__(self, *, containment: Literal["auto", "group"] = "auto") -> None:
        self._wrap = proctree.namespace_argv() if containment == "auto" else None
        self.containment: Literal["namespace", "group"] = "namespace" if self._wrap else "group"
        """What is in force."""

    async def run(
        self, spec: Spawn, on_line: Callable[[str], object], *, stop: StopSignal | None = None
    ) -> Exit:
        """Start a process and wait until all of it is gone: `start`, then `Process.wait`."""
        process = self.start(spec, on_line)
        if stop is not None:
            stop.on_request(process.stop)
        return await process.wait()

    def start(self, spec: Spawn, on_line: Callable[[str], object]) -> Process:
        """Start a process, from the thread of a running event loop.

        ``on_line`` gets each line of its output and error output, without the line's end, on the loop's
        thread. If it raises, the process is stopped, and `Process.wait` raises the same.

        Raises `AgentError` where the program is not there or cannot be run, `WorkspaceError` where the
        directory is gone, and `OSError` where the machine has no room for it.
        """
        loop = asyncio.get_running_loop()
        if getattr(loop, "virtual", False):
            raise AgentError("a process cannot be waited for under virtual time, which leaps over it")
        if not spec.argv or not spec.argv[0]:
            raise AgentError("there is no program to start: the command is empty")
        wrap = self._wrap
        if wrap and not all(name.isidentifier() and name.isascii() for name in spec.env):
            wrap = None  # the shell in a namespace drops variables whose names it could not have set itself
        # Without one, the system itself says that a program is missing.
        argv = (*wrap, _find_program(spec), *spec.argv[1:]) if wrap else (_full_path(spec), *spec.argv[1:])
        tag = proctree.new_tag()
        if wrap is None:
            proctree.become_subreaper()
        began = loop.time()
        with ExitStack() as stack:
            reading, writing = os.pipe()
            stack.callback(os.close, writing)
            opened = stack.enter_context(ExitStack())
            opened.callback(os.close, reading)
            os.set_blocking(reading, False)
            stdin = os.open(spec.stdin_file or os.devnull, os.O_RDONLY)
            stack.callback(os.close, stdin)
            with proctree.tagged(tag):
                popen = _popen(argv, spec, stdin, writing)
            opened.pop_all()
        family: proctree.Family = (
            proctree.Namespace(popen.pid, mark=spec.mark)
            if wrap
            else proctree.Group(popen.pid, tag=tag, mark=spec.mark)
        )
        return Process(loop, popen, family, reading, _Lines(on_line, spec.max_line), began, bool(wrap))


class Process:
    """A started process and all that comes from it. Made by `Supervisor.start`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        popen: subprocess.Popen[bytes],
        family: proctree.Family,
        pipe: int,
        lines: _Lines,
        began: float,
        announced: bool,
    ) -> None:
        self.pid = popen.pid
        self._loop = loop
        self._popen = popen
        self._family = family
        self._pipe: int | None = pipe
        self._lines = lines
        self._began = began
        self._announced = announced
        """Whether the program's own output follows on a line that says that it was started."""
        self._before_start: list[str] | None = [] if announced else None
        self._done: asyncio.Future[Exit] = loop.create_future()
        self._failure: Exception | None = None
        self._returncode: int | None = None
        self._stopped = False
        self._kill_timer: asyncio.TimerHandle | None = None
        self._patience_ends: float | None = None
        loop.add_reader(pipe, self._read)
        self._watch_end()

    def stop(self, grace: float = GRACE) -> None:
        """Ask all of it to end (SIGTERM), and kill what has not after ``grace`` seconds.

        Returns at once; `wait` says when it is over. Once more with a shorter grace makes it quicker.
        """
        if self._returncode is not None or self._done.done():
            return
        # What has not come so far as to run the program has nothing to put in order.
        if self._before_start is not None:
            grace = 0.0
        if not self._stopped and grace > 0:
            for pid in self._family.alive():
                proctree.send(pid, signal.SIGTERM)
                # Who is frozen does not hear it.
                proctree.send(pid, signal.SIGCONT)
        self._stopped = True
        self._kill_after(grace)

    async def wait(self) -> Exit:
        """Wait until it and all that came from it are gone, and all it printed was handed on.

        Cancelling this stops the process; it is still waited for. Cancelling once more kills it.
        Raises what ``on_line`` raised, and `OSError` where it could not be started after all.
        """
        try:
            await asyncio.wait((self._done,))
        except asyncio.CancelledError:
            self.stop()
            while not self._done.done():
                try:
                    await asyncio.wait((self._done,))
                except asyncio.CancelledError:
                    self.stop(grace=0.0)
            # Whoever cancelled does not wait for an answer, but it was asked for: not "never retrieved".
            self._done.exception()
            raise
        return self._done.result()

    # --- output ---

    def _read(self) -> None:
        self._read_some(_PIECE)

    def _read_some(self, size: int) -> int:
        """Take up to ``size`` bytes from the pipe. Returns how many came."""
        if self._pipe is None:
            return 0
        try:
            data = os.read(self._pipe, size)
        except BlockingIOError:
            return 0
        if not data:
            self._close_pipe()
            return 0
        self._hand_on(lambda: self._lines.feed(data, self._take))
        return len(data)

    def _take(self, line: str) -> bool:
        """Whether a line is the program's own."""
        if self._before_start is None:
            return True
        if line == proctree.STARTED:
            self._before_start = None
        elif len(self._before_start) < 20:
            self._before_start.append(line[:500])
        return False

    def _hand_on(self, act: Callable[[], object]) -> None:
        if self._failure is None:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - wait() raises it
                self._failure = error
                self.stop(grace=0.0)

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None

    # --- the end ---

    def _watch_end(self) -> None:
        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            # Another system, or an old kernel, or no descriptor left: a thread costs more, and works.
            threading.Thread(target=self._watch_in_thread, name="agentful-wait", daemon=True).start()
            return
        self._loop.add_reader(descriptor, self._ended, descriptor)

    def _watch_in_thread(self) -> None:
        returncode = self._reap()
        # The loop may be closed already, if nobody waited for the process.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._after_end, returncode)

    def _ended(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        self._after_end(self._reap())

    def _reap(self) -> int | None:
        """The return code; ``None`` where somebody else took it."""
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            return None
        return os.waitstatus_to_exitcode(status)

    def _after_end(self, returncode: int | None) -> None:
        if self._done.done():
            # It was given up, and has ended now.
            return
        if returncode is None:
            # Never take it for a success, as subprocess does.
            self._failure = self._failure or ChildProcessError(
                errno.ECHILD, f"how process {self.pid} ended is not known: somebody else waited for it"
            )
            returncode = -signal.SIGKILL
        self._returncode = returncode
        # Else it would be taken for still running.
        self._popen.returncode = returncode
        self._family.ended(returncode)
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._patience_ends = None
        self._kill()

    def _kill_after(self, delay: float) -> None:
        if self._kill_timer is not None:
            if self._kill_timer.when() <= self._loop.time() + delay:
                return
            self._kill_timer.cancel()
        self._kill_timer = self._loop.call_later(delay, self._kill)

    def _kill(self, pause: float = 0.001) -> None:
        """Kill what is alive, until nothing is: then settle. Comes back as long as it takes."""
        if self._done.done():
            return
        now = self._loop.time()
        if self._patience_ends is None:
            self._patience_ends = now + _PATIENCE
        found = self._family.kill()
        if not found and self._returncode is not None:
            self._settle(())
        elif now >= self._patience_ends:
            self._settle(tuple(sorted(found)))
        else:
            self._kill_timer = self._loop.call_later(pause, self._kill, min(2 * pause, 0.1))

    def _settle(self, survivors: tuple[int, ...]) -> None:
        left = _DRAIN
        while left > 0 and (size := self._read_some(_PIECE)):
            left -= size
        self._close_pipe()
        self._hand_on(lambda: self._lines.end(self._take))
        if self._returncode is None:
            # It cannot be waited for; the thread or the pidfd will see its end, if that comes.
            self._returncode = self._popen.returncode = -signal.SIGKILL
        if self._failure is not None:
            self._done.set_exception(self._failure)
        elif self._before_start is not None and not self._stopped:
            self._done.set_exception(
                OSError(errno.ECHILD, " ".join(self._before_start) or "it ended before it had started")
            )
        else:
            returncode = self._returncode
            self._done.set_result(
                Exit(
                    returncode=proctree.returncode_of(returncode) if self._announced else returncode,
                    duration=self._loop.time() - self._began,
                    stopped=self._stopped,
                    survivors=survivors,
                )
            )


class _Lines:
    """Cuts what comes in pieces into lines. A carriage return alone ends a line too: progress bars."""

    def __init__(self, on_line: Callable[[str], object], limit: int) -> None:
        self._on_line = on_line
        self._limit = limit
        self._kept = bytearray()
        self._dropped = 0
        self._after_return = False

    def feed(self, data: bytes, take: Callable[[str], bool]) -> None:
        if self._after_return and data.startswith(b"\n"):
            data = data[1:]
            self._after_return = False
            if not data:
                return
        lines = data.splitlines()
        self._after_return = data.endswith(b"\r")
        rest = None if data.endswith((b"\n", b"\r")) else lines.pop()
        for line in lines:
            self._keep(line)
            self._emit(take)
        if rest is not None:
            self._keep(rest)

    def end(self, take: Callable[[str], bool]) -> None:
        """Hand on what has no line's end."""
        if self._kept:
            self._emit(take)

    def _keep(self, piece: bytes) -> None:
        room = self._limit - len(self._kept)
        self._kept += piece[:room]
        self._dropped += max(0, len(piece) - room)

    def _emit(self, take: Callable[[str], bool]) -> None:
        line = self._kept.decode("utf-8", "replace")
        if self._dropped:
            line += f" [{self._dropped:,} bytes more]"
        self._kept.clear()
        self._dropped = 0
        if take(line):
            self._on_line(line)


# --- starting --------------------------------------------------------------------------------------


def _full_path(spec: Spawn) -> str:
    """Where the program is, if it is there."""
    name = spec.argv[0]
    found = name if "/" in name else shutil.which(name, path=spec.env.get("PATH", os.defpath))
    return os.path.join(spec.cwd, found or name)  # noqa: PTH118 - a path object costs more than the call


def _find_program(spec: Spawn) -> str:
    """The full path of the program. Raises `AgentError` where it cannot be run."""
    if not Path(spec.cwd).is_dir():
        raise WorkspaceError(f"the directory {spec.cwd} is not there any more")
    name = spec.argv[0]
    if "/" not in name:
        path = spec.env.get("PATH", os.defpath)
        found = shutil.which(name, path=path)
        if found is None:
            raise AgentError(
                f"the program {name!r} was not found on the PATH ({path}): install it, or give its full path"
            )
        _check_interpreter(Path(found))
        return str(Path(spec.cwd, found))
    program = Path(spec.cwd, name)
    try:
        mode = program.stat().st_mode
    except (OSError, ValueError):
        raise AgentError(f"the program {name!r} is not there: {program} does not exist") from None
    if not stat.S_ISREG(mode):
        raise AgentError(f"{program} is not a program, but a directory or another kind of file")
    if not os.access(program, os.X_OK):
        raise AgentError(f"{program} may not be executed: chmod +x {program}")
    _check_interpreter(program)
    return str(program)


def _check_interpreter(program: Path) -> None:
    """The system says "not found" of a script whose interpreter is missing, which nobody understands."""
    try:
        with program.open("rb", buffering=0) as file:
            start = file.read(256)
    except OSError:
        return
    words = start[2:].split(b"\n", 1)[0].split() if start.startswith(b"#!") else []
    if words and not Path(os.fsdecode(words[0])).exists():
        raise AgentError(f"{program} needs {os.fsdecode(words[0])}, which is not there: see its first line")


def _popen(argv: tuple[str, ...], spec: Spawn, stdin: int, output: int) -> subprocess.Popen[bytes]:
    def start(argv: tuple[str, ...]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            cwd=spec.cwd,
            env=proctree.marked_environment(spec.env, spec.mark),
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
        )

    try:
        try:
            return start(argv)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            # A script without a #! line: run by the shell, as a shell and execvp(3) do it.
            return start(("/bin/sh", _find_program(spec), *spec.argv[1:]))
    except (OSError, ValueError) as error:
        # The system says little of why. To look before each start would cost more than the start itself.
        _find_program(spec)
        _raise_for(error, spec)


def _raise_for(error: OSError | ValueError, spec: Spawn) -> NoReturn:
    name = spec.argv[0]
    if isinstance(error, ValueError):
        raise AgentError(f"{name!r} cannot be started: its arguments or environment: {error}") from error
    match error.errno:
        case errno.E2BIG:
            raise AgentError(
                f"{name!r} cannot be started: its arguments and environment are too long for the system; "
                "hand long text over in a file or on standard input"
            ) from error
        case errno.ENOENT | errno.ENOTDIR | errno.EACCES | errno.EPERM | errno.ENOEXEC | errno.ELOOP:
            raise AgentError(f"{name!r} cannot be started: {error.strerror}") from error
        case _:
            raise error


# --- the environment -------------------------------------------------------------------------------

PASSED = frozenset(
    {
        # who, where, how text is written
        *("HOME", "USER", "LOGNAME", "SHELL", "PATH", "TMPDIR", "TZ", "LANG", "LANGUAGE"),
        *("TERM", "COLORTERM", "NO_COLOR", "CI"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
        *("XDG_CONFIG_DIRS", "XDG_DATA_DIRS", "XDG_RUNTIME_DIR"),
        # the network
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
        # where tool chains are
        *("VIRTUAL_ENV", "CONDA_EXE", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "MAMBA_ROOT_PREFIX", "PYENV_ROOT"),
        *("PIPX_HOME", "POETRY_HOME", "POETRY_CACHE_DIR", "PIP_CACHE_DIR"),
        *("UV_CACHE_DIR", "UV_PYTHON_INSTALL_DIR", "UV_TOOL_DIR"),
        *("NVM_DIR", "NVM_BIN", "FNM_DIR", "FNM_MULTISHELL_PATH", "VOLTA_HOME", "N_PREFIX", "COREPACK_HOME"),
        *("PNPM_HOME", "BUN_INSTALL", "DENO_DIR", "DENO_INSTALL"),
        *(
            "CARGO_HOME",
            "RUSTUP_HOME",
            "RUSTUP_TOOLCHAIN",
            "GOPATH",
            "GOROOT",
            "GOBIN",
            "GOCACHE",
            "GOMODCACHE",
        ),
        *("JAVA_HOME", "JDK_HOME", "MAVEN_HOME", "M2_HOME", "GRADLE_HOME", "GRADLE_USER_HOME", "SDKMAN_DIR"),
        *("ANDROID_HOME", "ANDROID_SDK_ROOT", "DOTNET_ROOT"),
        *("GEM_HOME", "GEM_PATH", "RBENV_ROOT", "RBENV_VERSION", "COMPOSER_HOME", "OPAMROOT"),
        *("ASDF_DIR", "ASDF_DATA_DIR", "MISE_DATA_DIR", "MISE_CONFIG_DIR", "PROTO_HOME"),
        *("HOMEBREW_PREFIX", "HOMEBREW_CELLAR", "HOMEBREW_REPOSITORY"),
        *("NIX_PATH", "NIX_PROFILES", "NIX_SSL_CERT_FILE", "LOCALE_ARCHIVE"),
        *("LD_LIBRARY_PATH", "PKG_CONFIG_PATH", "CC", "CXX", "SDKROOT", "DEVELOPER_DIR"),
    }
)
"""The environment variables that every process is given, where there are; and ``LC_*``.

Left out with intent: ``PYTHONPATH``, ``NODE_PATH`` and their like, which name the user's checkout where
the workspace is meant; everything that holds a secret; and all of `WITHHELD`."""

WITHHELD = (
    *("GIT_*", "SSH_*", "GPG_*", "DBUS_*", "AGENTFUL_*", "BASH_FUNC_*", "BASH_ENV", "ENV"),
    *("CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SESSION*", "CLAUDE_CODE_SSE_PORT"),
    *(
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "PYTHONHOME",
        "DISPLAY",
        "WAYLAND_*",
    ),
)
"""What is given only to a process that asks for the very name: it would make a program believe that it is
somewhere else or somebody's child, or open a door to what is outside."""

DEFAULTS: Final[Mapping[str, str]] = {
    "GIT_TERMINAL_PROMPT": "0",
    # A Python program's progress is to be seen when it is made, not when it ends.
    "PYTHONUNBUFFERED": "1",
}


def environment(
    spec_env: Mapping[str, str] | None = None,
    pass_env: Iterable[str] = (),
    base: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a process: built up from an allow-list, not handed down.

    What there is of `PASSED` in ``base`` (ours, by default), and what ``pass_env`` lets through: names,
    or globs of names. A glob does not match what is `WITHHELD`; and one that begins with a wildcard does
    not match what looks like a secret. ``spec_env`` goes on top of everything.
    """
    base = os.environ if base is None else base
    env = {name: base[name] for name in base if _passes(name, pass_env)}
    env.setdefault("PATH", os.defpath)
    return {**DEFAULTS, **env, **(spec_env or {})}


def _passes(name: str, pass_env: Iterable[str]) -> bool:
    if name in PASSED or name.startswith("LC_"):
        return True
    for pattern in pass_env:
        if name == pattern:
            return True
        if not fnmatchcase(name, pattern) or any(fnmatchcase(name, held) for held in WITHHELD):
            continue
        if pattern[0] not in "*?[" or not looks_secret(name):
            return True
    return False
