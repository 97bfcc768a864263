from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from agentful.errors import JournalError, RunLocked
from agentful.runtime import lock as lock_module
from agentful.runtime.lock import Holder, RunLock

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys
from agentful.runtime.lock import RunLock
with RunLock(sys.argv[1], "r-7f3a"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".agentful" / "runs" / "r-7f3a.lock"


def start_holder(path: Path) -> subprocess.Popen[str]:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    return other


def test_one_process_at_a_time(path: Path) -> None:
    other = start_holder(path)
    lock = RunLock(path, "r-7f3a")
    holder = lock.holder()
    assert holder is not None
    assert holder.pid == other.pid
    assert holder.host == socket.gethostname()

    started = re.escape(
        f"{datetime.fromtimestamp(psutil.Process(other.pid).create_time(), UTC).astimezone():%H:%M}"
    )
    with pytest.raises(
        RunLocked,
        match=rf"^run r-7f3a is being carried out by process {other.pid} \(started {started}\); "
        "`agentful watch r-7f3a` shows it, `agentful stop r-7f3a` stops it$",
    ) as caught:
        lock.acquire()
    assert caught.value.pid == other.pid
    assert not lock.held

    other.communicate()
    assert lock.holder() is None
    with lock:
        assert lock.holder() == RunLock(path, "r-7f3a").holder()


def test_a_dead_holder_holds_nothing(path: Path) -> None:
    other = start_holder(path)
    other.kill()
    other.communicate()

    assert path.exists()
    lock = RunLock(path, "r-7f3a")
    assert lock.holder() is None
    lock.acquire()
    holder = lock.holder()
    assert holder is not None
    assert (holder.pid, holder.host) == (os.getpid(), socket.gethostname())
    assert holder.started == pytest.approx(psutil.Process().create_time(), abs=0.1)
    lock.release()


def test_two_objects_of_one_process_are_two(path: Path) -> None:
    with RunLock(path, "r-7f3a") as lock:
        lock.acquire()
        with pytest.raises(RunLocked) as caught:
            RunLock(path, "r-7f3a").acquire()
        assert caught.value.pid == os.getpid()
    lock.release()
    assert not path.exists()
    RunLock(path, "r-7f3a").acquire()


def test_it_is_let_go_when_its_holder_fails(path: Path) -> None:
    with pytest.raises(RuntimeError), RunLock(path, "r-7f3a"):
        raise RuntimeError
    assert RunLock(path, "r-7f3a").holder() is None


def test_programs_do_not_inherit_it(path: Path) -> None:
    lock = RunLock(path, "r-7f3a")
    lock.acquire()
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    )
    assert child.stdout is not None
    child.stdout.readline()
    lock.release()

    assert lock.holder() is None
    with lock:
        pass
    child.communicate()


def test_looking_creates_nothing(path: Path) -> None:
    assert RunLock(path, "r-7f3a").holder() is None
    assert not path.parent.exists()


def test_somebody_who_only_looks_keeps_nobody_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir(parents=True)
    looking = os.open(path, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        os.close(looking)

    monkeypatch.setattr("agentful.runtime.lock.time.sleep", sleep)
    with RunLock(path, "r-7f3a") as lock:
        assert lock.held
    assert len(waits) == 1


def test_a_lock_that_nobody_owns_up_to_counts_in_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "_PROBE_WAIT", -1.0)
    path.parent.mkdir(parents=True)
    path.write_text("what is this")
    other = os.open(path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)

    lock = RunLock(path, "r-7f3a")
    assert lock.holder() == Holder()
    with pytest.raises(RunLocked, match="by another process;") as caught:
        lock.acquire()
    assert caught.value.pid is None
    os.close(other)


def test_a_file_that_its_holder_removes_is_not_locked_in_vain(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    calls: list[int] = []

    def flock(fd: int, how: int) -> None:
        if not calls:
            path.unlink()
        calls.append(how)
        real(fd, how)

    monkeypatch.setattr("agentful.runtime.lock.fcntl.flock", flock)
    lock = RunLock(path, "r-7f3a")
    lock.acquire()
    assert len(calls) == 2
    with pytest.raises(RunLocked):
        RunLock(path, "r-7f3a").acquire()


def test_a_file_that_is_not_its_own_is_not_removed(path: Path) -> None:
    lock = RunLock(path, "r-7f3a")
    lock.acquire()
    path.unlink()
    path.write_text("another's")
    lock.release()
    assert path.read_text() == "another's"


@pytest.mark.parametrize("prepare", ["symlink", "directory", "parent"])
def test_what_cannot_be_locked_is_an_error(path: Path, prepare: str) -> None:
    if prepare == "parent":
        path.parent.parent.mkdir()
        path.parent.write_text("")
    else:
        path.parent.mkdir(parents=True)
        if prepare == "symlink":
            path.symlink_to(path.parent / "elsewhere")
        else:
            path.mkdir()
    lock = RunLock(path, "r-7f3a")
    with pytest.raises(JournalError, match="cannot be locked"):
        lock.acquire()
    assert lock.holder() is None
    assert not (path.parent / "elsewhere").exists()


def held_by(path: Path, content: str) -> int:
    path.parent.mkdir(parents=True)
    path.write_text(content)
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


@pytest.mark.parametrize(
    ("content", "alive"),
    [
        ("{me} {started} {host}", True),
        ("{me} {started} elsewhere", True),
        ("{me} 5.0 {host}", False),
        ("{nobody} 5.0 {host}", False),
        ("-7 5.0 {host}", False),
        ("99999999999999999999 5.0 {host}", False),
        ("{me} {host}", False),
        ("", False),
    ],
)
def test_only_a_live_holder_is_believed_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, content: str, alive: bool
) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    values: dict[str, Any] = {
        "me": os.getpid(),
        "started": psutil.Process().create_time(),
        "host": socket.gethostname(),
        "nobody": gone.pid,
    }
    fd = held_by(path, content.format_map(values))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        monkeypatch.setattr(lock_module, "_PROBE_WAIT", -1.0)
        os.close(fd)

    monkeypatch.setattr("agentful.runtime.lock.time.sleep", sleep)
    if alive:
        with pytest.raises(RunLocked):
            RunLock(path, "r-7f3a").acquire()
        os.close(fd)
    else:
        with RunLock(path, "r-7f3a"):
            pass
    assert len(waits) == (not alive)


def test_a_holder_is_described() -> None:
    now = datetime.now(UTC).astimezone()
    yesterday = (now - timedelta(days=1)).replace(hour=10, minute=31)
    today = now.replace(hour=0, minute=0)
    here = socket.gethostname()
    assert str(Holder(5, today.timestamp(), here)) == "process 5 (started 00:00)"
    assert str(Holder(5, yesterday.timestamp(), here)) == f"process 5 (started {yesterday:%Y-%m-%d} 10:31)"
    assert str(Holder(5, None, "elsewhere")) == "process 5 on elsewhere"
    assert str(Holder(5, 1e300, here)) == "process 5 (started at an unknown time)"
    assert str(Holder()) == "another process"
