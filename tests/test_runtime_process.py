from __future__ import annotations

import asyncio
import errno
import itertools
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentful.errors import AgentError, WorkspaceError
from agentful.runtime import process, proctree
from agentful.runtime.process import Exit, Spawn, Supervisor, environment
from agentful.runtime.proctree import MARK, Killed, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux has these means")
needs_namespace = pytest.mark.skipif(
    proctree.namespace_argv() is None, reason="no PID namespace can be had here"
)
numbers = itertools.count()


@pytest.fixture(params=["group", pytest.param("auto", marks=needs_namespace)])
def supervisor(request: pytest.FixtureRequest) -> Supervisor:
    return Supervisor(containment=request.param)


@pytest.fixture
def group() -> Supervisor:
    return Supervisor(containment="group")


@pytest.fixture
def token() -> Iterator[str]:
    """A number of seconds to sleep that nobody else sleeps; whoever sleeps it is gone at the end."""
    token = f"987.{os.getpid()}{next(numbers):04}"
    yield token
    left = alive(token)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def alive(token: str) -> list[int]:
    """Who has the token as an argument, and is not merely waiting to be reaped."""
    found: list[int] = []
    for candidate in psutil.process_iter():
        try:
            if token in candidate.cmdline() and candidate.status() != psutil.STATUS_ZOMBIE:
                found.append(candidate.pid)
        except psutil.Error:
            continue
    return found


def spawn(*argv: str, cwd: Path | str = "/", env: dict[str, str] | None = None, **more: Any) -> Spawn:
    mark = more.pop("mark", f"test{os.getpid()}/task/{next(numbers)}")
    return Spawn(argv=argv, cwd=str(cwd), env=environment(env), mark=mark, **more)


def run(supervisor: Supervisor, spec: Spawn) -> tuple[Exit, list[str]]:
    lines: list[str] = []

    async def main() -> Exit:
        return await asyncio.wait_for(supervisor.run(spec, lines.append), 60)

    return asyncio.run(main()), lines


def shell(supervisor: Supervisor, script: str, **more: Any) -> tuple[Exit, list[str]]:
    return run(supervisor, spawn("sh", "-c", script, **more))


def start_and_stop(supervisor: Supervisor, spec: Spawn, *, grace: float) -> tuple[Exit, list[str]]:
    """Stop the process as soon as it has printed a line."""
    lines: list[str] = []

    async def main() -> Exit:
        def on_line(line: str) -> None:
            lines.append(line)
            started.stop(grace)

        started = supervisor.start(spec, on_line)
        return await asyncio.wait_for(started.wait(), 60)

    return asyncio.run(main()), lines


def gone(pidfd: int) -> bool:
    """Wait for the end of a process."""
    return bool(select.select([pidfd], [], [], 30)[0])


# --- how it ended ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 127, 129, 200, 255])
def test_exit_codes_come_through(supervisor: Supervisor, code: int) -> None:
    assert shell(supervisor, f"exit {code}")[0].returncode == code


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "INT", "PIPE"])
def test_a_signal_is_a_negative_return_code_and_no_line(supervisor: Supervisor, name: str) -> None:
    ended, lines = shell(supervisor, f"kill -{name} $$")
    assert ended.returncode == -signal.Signals[f"SIG{name}"]
    assert lines == []
    assert not ended.stopped


def test_what_a_shell_says_of_a_signal_is_undone() -> None:
    said = [0, 1, 127, 128, 129, 130, 137, 143, 192, 193, 255, -9]
    assert [proctree.returncode_of(code) for code in said] == [
        0,
        1,
        127,
        128,
        129,
        -2,
        -9,
        -15,
        -64,
        193,
        255,
        -9,
    ]


def test_arguments_and_directory_and_environment(supervisor: Supervisor, tmp_path: Path) -> None:
    script = 'pwd; printf "%s|" "$@"; echo; echo "$COLOUR"'
    spec = spawn("sh", "-c", script, "sh", "", "a b", '"$x"', "é\n", cwd=tmp_path, env={"COLOUR": "grün"})
    assert run(supervisor, spec)[1] == [str(tmp_path.resolve()), '|a b|"$x"|é', "|", "grün"]


def test_variables_with_names_that_a_shell_cannot_set(supervisor: Supervisor) -> None:
    spec = spawn("env", env={"npm_config_//host/:key": "1", "a.b": "2"})
    assert {"npm_config_//host/:key=1", "a.b=2"} <= set(run(supervisor, spec)[1])


def test_standard_input_is_empty_or_a_file(supervisor: Supervisor, tmp_path: Path) -> None:
    assert shell(supervisor, "cat; echo end")[1] == ["end"]
    file = tmp_path / "prompt"
    file.write_text("one\ntwo\n")
    assert run(supervisor, spawn("cat", stdin_file=str(file)))[1] == ["one", "two"]


def test_it_has_a_group_of_its_own_and_a_mark(supervisor: Supervisor) -> None:
    ended, lines = shell(supervisor, f'echo "${MARK}"; kill -TERM 0', mark="run/a täsk/1")
    assert lines[0].split()[-1] == "run/a%20t%C3%A4sk/1"
    assert ended.returncode == -signal.SIGTERM


# --- output ----------------------------------------------------------------------------------------


def test_lines(supervisor: Supervisor) -> None:
    ended, lines = shell(
        supervisor, r"printf 'a\nb\r\n\n 10%%\r 20%%\rc\n'; echo err >&2; printf 'a\377\000b'"
    )
    assert lines == ["a", "b", "", " 10%", " 20%", "c", "err", "a\N{REPLACEMENT CHARACTER}\0b"]
    assert ended.returncode == 0


def test_a_line_that_is_too_long_is_cut(supervisor: Supervisor) -> None:
    lines = shell(supervisor, "head -c 3000 /dev/zero | tr '\\0' x; echo; echo y", max_line=10)[1]
    assert lines == ["xxxxxxxxxx [2,990 bytes more]", "y"]


@given(
    text=st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n", "é".encode(), b"\xff"])).map(b"".join),
    cuts=st.lists(st.integers(1, 4)),
)
def test_lines_are_the_same_in_whatever_pieces_they_come(text: bytes, cuts: list[int]) -> None:
    lines: list[str] = []
    splitter = process._Lines(lines.append, 1000)
    rest = text
    for size in [*cuts, len(text)]:
        if rest:
            splitter.feed(rest[:size], _own)
        rest = rest[size:]
    splitter.end(_own)
    assert lines == [line.decode("utf-8", "replace") for line in text.splitlines()]


def _own(_line: str) -> bool:
    return True


def test_a_flood_of_output_takes_little_memory_and_leaves_the_loop_free(supervisor: Supervisor) -> None:
    size = turns = 0

    def on_line(line: str) -> None:
        nonlocal size
        size += len(line)

    async def main() -> None:
        nonlocal turns
        flood = spawn("sh", "-c", "head -c 100000000 /dev/zero; echo; yes 0123456789 | head -c 1100000")
        running = asyncio.ensure_future(supervisor.run(flood, on_line))
        while not running.done():
            turns += 1
            await asyncio.sleep(0)
        assert running.result().returncode == 0

    tracemalloc.start()
    try:
        asyncio.run(main())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    limit = 1_048_576
    assert size == limit + len(f" [{100_000_000 - limit:,} bytes more]") + 1_000_000
    assert peak < 10 * limit
    assert turns > 500


def test_a_callback_that_fails_ends_the_process(supervisor: Supervisor, token: str) -> None:
    def on_line(line: str) -> None:
        raise LookupError(line)

    async def main() -> None:
        await supervisor.run(spawn("sh", "-c", f"echo one; echo two; sleep {token}"), on_line)

    with pytest.raises(LookupError, match="one"):
        asyncio.run(main())
    assert not alive(token)


# --- nothing outlives it ---------------------------------------------------------------------------

LEFTOVERS = {
    "holds the pipe": "sleep {0} & exit 0",
    "own session": "setsid sleep {0} & exit 0",
    "two forks, no pipe": "(setsid sh -c 'sleep {0} & :' </dev/null >/dev/null 2>&1 &); exit 0",
    "no environment": "(setsid env -i sleep {0} </dev/null >/dev/null 2>&1 &); exit 0",
    "frozen": "sleep {0} & kill -STOP $!; exit 0",
    "deaf": "(trap '' TERM HUP; sleep {0}) & exit 0",
    "a tree": "(sleep {0} | (sleep {0}; sleep {0}) | setsid sleep {0}) & exit 0",
}


@pytest.mark.parametrize("script", [pytest.param(script, id=name) for name, script in LEFTOVERS.items()])
def test_what_is_left_at_the_end_is_killed(supervisor: Supervisor, script: str, token: str) -> None:
    # The last sleep only ends with everything else: it shows that there is something to be killed.
    ended, _ = shell(supervisor, script.format(token))
    assert ended.returncode == 0
    assert ended.survivors == ()
    assert not alive(token)


HYDRA = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
if os.fork():
    print("ready", flush=True)
    if sys.argv[1] == "end":
        sys.exit(0)
    signal.pause()
# Should it escape from a test that fails, it is not to go on for ever.
end = time.monotonic() + 60
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    os.setsid()
"""


@linux_only
@pytest.mark.parametrize("how", ["end", "stop"])
def test_a_daemon_that_forks_faster_than_one_can_look(supervisor: Supervisor, how: str, token: str) -> None:
    for _ in range(10):
        spec = spawn(sys.executable, "-S", "-E", "-c", HYDRA, how, token)
        if how == "end":
            ended, _ = run(supervisor, spec)
            assert ended.returncode == 0
        else:
            ended, _ = start_and_stop(supervisor, spec, grace=0.01)
            assert ended.returncode == -signal.SIGKILL
        assert ended.survivors == ()
        assert not any(alive(token) for _ in range(2))


@linux_only
def test_only_its_own_family_is_killed(group: Supervisor, token: str, tmp_path: Path) -> None:
    """Another attempt's daemon, and a program that our user started, live on."""
    mine = subprocess.Popen(["sleep", token], start_new_session=True)
    dead = subprocess.Popen(["sh", "-c", "exit 5"], start_new_session=True)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> None:
        daemon = f"(setsid sh -c 'echo $$; exec env -i sleep {token}' 2>/dev/null &)"
        lines: asyncio.Queue[str] = asyncio.Queue()
        other = group.start(spawn("sh", "-c", f"{daemon}; read line <{fifo}"), lines.put_nowait)
        daemon_pid = int(await lines.get())
        for _ in range(3):
            assert (
                await group.run(spawn("sh", "-c", "setsid sleep 100 & exit 0"), lambda _: None)
            ).returncode == 0
        assert psutil.pid_exists(daemon_pid)
        assert mine.poll() is None
        fifo.write_text("\n")
        assert (await other.wait()).returncode == 0
        assert alive(token) == [mine.pid]

    try:
        asyncio.run(main())
    finally:
        mine.kill()
        mine.wait()
    assert dead.wait() == 5


@linux_only
def test_what_an_agentful_inside_leaves_behind(group: Supervisor, token: str) -> None:
    """It had tags and marks of its own, on top of ours."""
    inner = f"""
        import os, resource
        soft, hard = resource.getrlimit(10)
        resource.setrlimit(10, (12345, hard))
        os.environ["{MARK}"] += " inner/task/1"
        if os.fork() == 0:
            os.setsid()
            os.execvp("sleep", ["sleep", "{token}"])
    """
    ended, lines = run(group, spawn(sys.executable, "-S", "-E", "-c", textwrap.dedent(inner)))
    assert (ended.returncode, lines) == (0, [])
    assert not alive(token)


# --- stopping --------------------------------------------------------------------------------------


def test_stopping_lets_the_whole_tree_tidy_up(supervisor: Supervisor, tmp_path: Path) -> None:
    inner = f"trap 'echo >>{tmp_path}/inner; exit' TERM; echo ready; while :; do sleep 0.01; done"
    outer = f"trap 'wait; echo >{tmp_path}/outer; exit 7' TERM; setsid sh -c \"{inner}\" & wait"
    ended, _ = start_and_stop(supervisor, spawn("sh", "-c", outer), grace=30)
    assert (tmp_path / "inner").exists()
    assert (tmp_path / "outer").exists()
    assert ended.returncode == 7
    assert ended.stopped


@pytest.mark.parametrize(
    "script",
    [
        "trap '' TERM; echo ready; while :; do sleep {0}; done",
        "echo ready; kill -STOP $$",
        "echo ready; sleep {0}",
    ],
)
def test_who_does_not_end_is_killed(supervisor: Supervisor, script: str, token: str) -> None:
    ended, _ = start_and_stop(supervisor, spawn("sh", "-c", script.format(token)), grace=0.02)
    assert ended.returncode in (-signal.SIGKILL, -signal.SIGTERM)
    assert ended.stopped
    assert not alive(token)


def test_stopping_at_once_and_too_late(supervisor: Supervisor, token: str) -> None:
    async def main() -> None:
        started = supervisor.start(spawn("sleep", token), lambda _: None)
        started.stop()
        ended = await started.wait()
        assert ended.stopped
        assert ended.returncode in (-signal.SIGKILL, -signal.SIGTERM)
        started.stop()
        assert await started.wait() is ended

    asyncio.run(main())


def test_a_second_stop_can_only_make_it_quicker(supervisor: Supervisor, token: str) -> None:
    async def main() -> Exit:
        def on_line(_line: str) -> None:
            started.stop(grace=1000)
            started.stop(grace=0)
            started.stop(grace=1000)

        started = supervisor.start(spawn("sh", "-c", f"trap '' TERM; echo; sleep {token}"), on_line)
        return await started.wait()

    assert asyncio.run(main()).returncode == -signal.SIGKILL


def test_the_wish_to_stop_may_come_from_elsewhere(supervisor: Supervisor, token: str) -> None:
    class Wish:
        callback: Callable[[], object]

        def on_request(self, callback: Callable[[], object]) -> None:
            self.callback = callback

    async def main() -> Exit:
        wish = Wish()
        spec = spawn("sh", "-c", f"echo; exec sleep {token}")
        return await supervisor.run(spec, lambda _: wish.callback(), stop=wish)

    assert asyncio.run(main()).stopped


@pytest.mark.parametrize("times", [1, 2])
def test_cancelling_waits_until_it_is_gone(supervisor: Supervisor, token: str, times: int) -> None:
    # Cancelled once it ends by itself; cancelled twice it need not be asked a second time.
    script = f"trap '{'exit' if times == 1 else ''}' TERM; echo; sleep {token} & wait; wait; sleep {token}"

    async def main() -> None:
        lines: asyncio.Queue[str] = asyncio.Queue()
        running = asyncio.ensure_future(supervisor.run(spawn("sh", "-c", script), lines.put_nowait))
        await lines.get()
        for _ in range(times):
            running.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not alive(token)

    asyncio.run(main())


def test_leaving_the_loop_ends_it(supervisor: Supervisor, token: str) -> None:
    async def main() -> None:
        lines: asyncio.Queue[str] = asyncio.Queue()
        running = asyncio.ensure_future(
            supervisor.run(spawn("sh", "-c", f"echo; sleep {token}"), lines.put_nowait)
        )
        await lines.get()
        assert not running.done()

    asyncio.run(main())
    assert not alive(token)


def test_what_cannot_be_killed_is_named(
    group: Supervisor, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        started = group.start(spawn("sleep", token), lambda _: None)
        with monkeypatch.context() as patch:
            patch.setattr(proctree, "send", lambda pid, number: None)
            patch.setattr(process, "_PATIENCE", 0.01)
            started.stop(grace=0)
            ended = await started.wait()
        assert ended.survivors == (started.pid,)
        assert ended.stopped
        # Its end is still noticed, if it comes.
        pidfd = os.pidfd_open(started.pid)
        os.kill(started.pid, signal.SIGKILL)
        assert gone(pidfd)
        os.close(pidfd)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not psutil.pid_exists(started.pid)

    asyncio.run(main())


# --- the death of agentful -------------------------------------------------------------------------

PARENT = """
import asyncio, sys
from agentful.runtime.process import Spawn, Supervisor, environment
async def main():
    supervisor = Supervisor(containment=sys.argv[1])
    script = f"(setsid sh -c 'echo ready; exec sleep {sys.argv[3]}' &); sleep {sys.argv[3]}"
    spec = Spawn(argv=("sh", "-c", script), cwd="/", env=environment(), mark=sys.argv[2])
    await supervisor.run(spec, lambda line: print(line, flush=True))
asyncio.run(main())
"""


def start_parent(containment: str, mark: str, token: str) -> subprocess.Popen[bytes]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, containment, mark, token],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    with parent.stdout as output:
        assert output.readline() == b"ready\n"
    return parent


@needs_namespace
def test_a_namespace_dies_with_us(token: str) -> None:
    mark = f"killed{os.getpid()}/task/1"
    parent = start_parent("auto", mark, token)
    pidfds = [os.pidfd_open(pid) for pid in proctree.marked(mark)]
    # At least the namespace's first two processes, the program, and the daemon.
    assert len(pidfds) >= 4
    parent.kill()
    parent.wait()
    assert all(gone(pidfd) for pidfd in pidfds)
    for pidfd in pidfds:
        os.close(pidfd)


@linux_only
def test_a_sweep_ends_what_a_killed_agentful_left(token: str) -> None:
    run_mark = f"killed{os.getpid()}g"
    parent = start_parent("group", f"{run_mark}/task/1", token)
    parent.kill()
    parent.wait()
    assert sweep(f"{run_mark}0") == []
    assert sweep(run_mark[:-1]) == []
    # The program and the daemon, and perhaps its child already.
    assert len(proctree.marked(run_mark)) >= 2
    killed = sweep(run_mark)
    assert {Path(one.argv0).name for one in killed} == {"sh", "sleep"}
    assert proctree.marked(run_mark) == []
    assert not alive(token)
    assert sweep(run_mark) == []


@linux_only
def test_a_sweep_ends_what_forks_faster_than_one_can_look(token: str) -> None:
    # Whoever is left by its parent is to go to the machine's init, as when agentful was killed.
    proctree._libc().prctl(36, 0, 0, 0, 0)
    mark = f"hydra{os.getpid()}"
    env = {**os.environ, MARK: f"{mark}/t/1"}
    for _ in range(5):
        subprocess.run([sys.executable, "-S", "-E", "-c", HYDRA, "end", token], env=env, check=True)
        assert sweep(mark)
        assert not any(alive(token) for _ in range(2))


def test_a_sweep_goes_by_whole_parts_of_a_mark_and_spares_whose_child_we_are(token: str) -> None:
    """Every process in a chain is marked; from inside it, the sweep kills only the one below."""
    mark = f"sweep{os.getpid()}"
    script = f"""
        import subprocess, sys
        sys.path[:] = {sys.path!r}
        from agentful.runtime.proctree import sweep
        below = subprocess.Popen(["sleep", "{token}"])
        assert sweep("{mark}/a b") == sweep("{mark}/a%20b") == sweep("") == []
        killed = sweep("{mark}/")
        assert [one.pid for one in killed] == [below.pid], killed
        assert below.wait() == -9
        sys.exit(7)
    """
    argv = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", textwrap.dedent(script)]
    env = {**os.environ, MARK: f"outer/x {mark}/a%20bc/1"}
    assert subprocess.run(argv, env=env, check=False).returncode == 7


def test_a_sweep_says_what_it_killed(token: str) -> None:
    mark = f"sweep{os.getpid()}s"
    left = subprocess.Popen(["sleep", token], env={**os.environ, MARK: f"{mark}/t/1"})
    os.kill(left.pid, signal.SIGSTOP)
    assert sweep(f"{mark}/t") == [Killed(left.pid, "sleep")]
    assert left.wait() == -signal.SIGKILL


# --- what cannot be started ------------------------------------------------------------------------


def refused(supervisor: Supervisor, *argv: str, **more: Any) -> str:
    with pytest.raises(AgentError) as caught:
        run(supervisor, spawn(*argv, **more))
    return str(caught.value)


def test_programs_that_cannot_be_started(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("echo hello\n")
    (tmp_path / "script").write_text("#!/no/such/interpreter -x\n")
    (tmp_path / "script").chmod(0o755)
    said = refused(supervisor, "no-such-program", env={"PATH": "/bin:/usr/bin"})
    assert "'no-such-program' was not found on the PATH (/bin:/usr/bin)" in said
    assert f"{tmp_path}/no/such does not exist" in refused(supervisor, "no/such", cwd=tmp_path)
    assert f"chmod +x {tmp_path}/plain" in refused(supervisor, "./plain", cwd=tmp_path)
    assert "needs /no/such/interpreter" in refused(supervisor, "./script", cwd=tmp_path)
    assert "needs /no/such/interpreter" in refused(supervisor, "script", env={"PATH": str(tmp_path)})
    assert "a directory" in refused(supervisor, str(tmp_path))
    assert "empty" in refused(supervisor)
    assert "empty" in refused(supervisor, "")
    assert "too long" in refused(supervisor, "true", "x" * 200_000)
    assert "null" in refused(supervisor, "true", "a\0b")
    assert "does not exist" in refused(supervisor, "./a\0b")
    assert "surrogates" in refused(supervisor, "true", "\ud800")


def test_a_script_without_a_first_line_is_the_shells(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text('echo "$1"\n')
    (tmp_path / "plain").chmod(0o755)
    assert run(supervisor, spawn("./plain", "hello", cwd=tmp_path))[1] == ["hello"]


def test_a_directory_that_is_gone(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="not there any more"):
        run(supervisor, spawn("true", cwd=tmp_path / "gone"))


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE, errno.EAGAIN])
def test_a_machine_without_room_is_not_the_agents_fault(
    supervisor: Supervisor, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", no_room)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        run(supervisor, spawn("true"))
    assert caught.value.errno == number


def test_a_namespace_that_cannot_be_set_up_any_more(group: Supervisor) -> None:
    group._wrap = ("/bin/sh", "-c", "echo unshare failed: no space left >&2; exit 1", "sh")
    with pytest.raises(OSError, match="unshare failed: no space left"):
        run(group, spawn("true"))


def test_without_the_tools_there_is_no_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert proctree.namespace_argv.__wrapped__() is None
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false" if name == "setpriv" else f"/bin/{name}")
    assert proctree.namespace_argv.__wrapped__() is None
    monkeypatch.setattr(proctree, "namespace_argv", lambda: None)
    assert Supervisor().containment == "group"


def test_an_end_that_somebody_else_took_is_no_success(
    group: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.waitpid

    def taken(pid: int, options: int) -> tuple[int, int]:
        real(pid, options)
        raise ChildProcessError(errno.ECHILD, "No child processes")

    monkeypatch.setattr(os, "waitpid", taken)
    with pytest.raises(ChildProcessError, match="somebody else"):
        run(group, spawn("true"))


# --- other systems, other users --------------------------------------------------------------------


def test_without_a_pidfd_a_thread_waits(
    supervisor: Supervisor, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    ended, lines = shell(supervisor, f"echo one; sleep {token} & exit 3")
    assert (ended.returncode, lines) == (3, ["one"])


@pytest.mark.parametrize("script", ["setsid sleep {0} & exit 3", "(sleep {0} &); exit 3"])
def test_without_what_linux_has(token: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: the environment tells whose a process is."""
    monkeypatch.setattr(proctree, "_LINUX", False)
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    group = Supervisor(containment="group")
    assert shell(group, script.format(token))[0].returncode == 3
    assert not alive(token)
    ended, _ = start_and_stop(group, spawn("sh", "-c", f"echo; sleep {token}"), grace=5)
    assert ended.returncode == -signal.SIGTERM


@linux_only
def test_a_kernel_without_lists_of_children(
    group: Supervisor, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: str, mode: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(proctree, "open", closed, raising=False)
    monkeypatch.setattr(proctree, "_has_children_files", lambda: False)
    assert shell(group, f"(setsid sleep {token} &); exit 3")[0].returncode == 3


@linux_only
def test_where_the_tag_cannot_be_had_the_mark_does(
    group: Supervisor, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(kind: int, limits: tuple[int, int]) -> None:
        if limits[0] > 0:
            raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert shell(group, f"(setsid sleep {token} &); exit 3")[0].returncode == 3


@linux_only
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_as_a_normal_user(token: str) -> None:
    nobody = 65534
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(nobody, nobody, nobody)
            os.setresuid(nobody, nobody, nobody)
            proctree.namespace_argv.cache_clear()
            for containment in ("group", "auto"):
                supervisor = Supervisor(containment=containment)
                ended, lines = shell(supervisor, f"echo $(id -u); (setsid sleep {token} &); kill -9 $$")
                assert (ended.returncode, lines, ended.survivors) == (-9, [str(nobody)], ())
                ended, _ = start_and_stop(supervisor, spawn("sh", "-c", f"echo; sleep {token}"), grace=5)
                assert ended.returncode == -signal.SIGTERM
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not alive(token)


# --- the environment -------------------------------------------------------------------------------

OURS = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "LC_ALL": "C.UTF-8",
    "CARGO_HOME": "/cargo",
    "https_proxy": "http://proxy",
    "PYTHONPATH": "/home/me/project",
    "GIT_DIR": "/home/me/project/.git",
    "GIT_AUTHOR_NAME": "Me",
    "SSH_AUTH_SOCK": "/run/agent",
    "CLAUDECODE": "1",
    "AGENTFUL_MARK": "outer",
    "MAKEFLAGS": "-j --jobserver-auth=3,4",
    "ANTHROPIC_API_KEY": "sk-ant-1",
    "ANTHROPIC_BASE_URL": "http://api",
    "MY_SETTING": "x",
    "BASH_FUNC_f%%": "() { :; }",
}
ALWAYS = {"GIT_TERMINAL_PROMPT": "0", "PYTHONUNBUFFERED": "1"}
PLAIN = {name: OURS[name] for name in ("PATH", "HOME", "LC_ALL", "CARGO_HOME", "https_proxy")}


@pytest.mark.parametrize(
    ("pass_env", "more"),
    [
        ((), set()),
        (("MY_SETTING", "NOT_THERE"), {"MY_SETTING"}),
        (("ANTHROPIC_*",), {"ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"}),
        (("*",), {"MY_SETTING", "ANTHROPIC_BASE_URL", "PYTHONPATH"}),
        (("*_KEY",), set()),
        (("GIT_*", "SSH_*", "AGENTFUL_*", "CLAUDE*", "M*"), {"MY_SETTING"}),
        (("GIT_AUTHOR_NAME", "SSH_AUTH_SOCK"), {"GIT_AUTHOR_NAME", "SSH_AUTH_SOCK"}),
    ],
)
def test_the_environment_is_built_up(pass_env: tuple[str, ...], more: set[str]) -> None:
    assert environment({}, pass_env, OURS) == ALWAYS | PLAIN | {name: OURS[name] for name in more}


def test_what_the_agent_sets_comes_last() -> None:
    env = environment(
        {"HOME": "/elsewhere", "GIT_DIR": "x", "PYTHONUNBUFFERED": ""}, (), {"HOME": "/home/me"}
    )
    assert env == {
        "PATH": os.defpath,
        "HOME": "/elsewhere",
        "GIT_DIR": "x",
        "GIT_TERMINAL_PROMPT": "0",
        "PYTHONUNBUFFERED": "",
    }


def test_ours_is_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SETTING", "x")
    assert environment(pass_env=["MY_SETTING"])["MY_SETTING"] == "x"
