from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from agentful.errors import JournalError
from agentful.runtime.inbox import Inbox, Request
from agentful.runtime.journal import JournalFile, RunInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

RUN = "r-7f3a"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / ".agentful"


@pytest.fixture
def file(directory: Path) -> Iterator[JournalFile]:
    with JournalFile(directory / "journal.db") as file:
        file.create_run(RunInfo(id=RUN, created_at=1.0))
        yield file


@pytest.fixture
def inbox(file: JournalFile, directory: Path) -> Iterator[Inbox]:
    inbox = Inbox(file, RUN, directory / "runs")
    yield inbox
    inbox.close()


@pytest.fixture
def sender(directory: Path, inbox: Inbox) -> Iterator[Inbox]:
    with JournalFile(directory / "journal.db") as file:
        yield Inbox(file, RUN, directory / "runs")


class Listener:
    """What a run does with its requests here: it keeps them, and says when there are enough."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._more = asyncio.Event()

    def __call__(self, request: Request) -> None:
        self.requests.append(request)
        self._more.set()

    async def kinds(self, count: int) -> list[str]:
        while len(self.requests) < count:
            self._more.clear()
            await asyncio.wait_for(self._more.wait(), 30)
        return [request.kind for request in self.requests]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def test_a_live_run_is_woken(inbox: Inbox, sender: Inbox) -> None:
    async def main() -> None:
        listener = Listener()
        inbox.open(asyncio.get_running_loop(), listener)
        first = sender.send("stop")
        assert await listener.kinds(1) == ["stop"]
        second = sender.send("decide", {"id": "d1", "answer": "Skip"})
        assert await listener.kinds(2) == ["stop", "decide"]
        assert [request.id for request in listener.requests] == [first, second]
        assert listener.requests[1].payload == {"id": "d1", "answer": "Skip"}
        inbox.done(listener.requests[0], {"stopped": 3})
        answered = sender.wait(first, 30)
        assert answered is not None
        assert answered.answer == {"stopped": 3}
        assert sender.wait(second, 0) is None

    run(main)


SENDER = """
import sys
from agentful.runtime.inbox import Inbox
from agentful.runtime.journal import JournalFile
with JournalFile(sys.argv[1] + "/journal.db") as file:
    inbox = Inbox(file, "r-7f3a", sys.argv[1] + "/runs")
    answered = inbox.wait(inbox.send("cancel", ["api"]), 30)
    print(answered.answer if answered else "nobody")
"""


def test_another_process_asks_and_is_answered(inbox: Inbox, directory: Path) -> None:
    async def main() -> None:
        listener = Listener()
        inbox.open(asyncio.get_running_loop(), listener)
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SENDER, str(directory), stdout=subprocess.PIPE
        )
        assert await listener.kinds(1) == ["cancel"]
        assert listener.requests[0].payload == ["api"]
        inbox.done(listener.requests[0], "cancelled")
        assert (await other.communicate())[0] == b"cancelled\n"

    run(main)


def test_what_came_while_nobody_listened_comes_first(inbox: Inbox, sender: Inbox) -> None:
    sender.send("early")
    assert sender.wait(1, 0) is None

    async def main() -> None:
        listener = Listener()
        inbox.open(asyncio.get_running_loop(), listener)
        assert listener.requests == []
        sender.send("late")
        assert await listener.kinds(2) == ["early", "late"]

    run(main)


def test_an_unanswered_request_comes_again_at_the_next_resume(
    inbox: Inbox, sender: Inbox, file: JournalFile, directory: Path
) -> None:
    async def main(inbox: Inbox, *expected: str) -> None:
        listener = Listener()
        inbox.open(asyncio.get_running_loop(), listener)
        assert await listener.kinds(len(expected)) == list(expected)
        inbox.done(listener.requests[0])
        inbox.close()

    sender.send("one")
    sender.send("two")
    asyncio.run(main(inbox, "one", "two"))
    asyncio.run(main(Inbox(file, RUN, directory / "runs"), "two"))
    assert Inbox(file, RUN, directory / "runs").take() == []


def test_each_is_handed_out_once(inbox: Inbox, sender: Inbox) -> None:
    async def main() -> None:
        listener = Listener()
        inbox.open(asyncio.get_running_loop(), listener)
        for number in range(50):
            sender.send(str(number))
        await listener.kinds(50)
        sender.send("last")
        assert await listener.kinds(51) == [*map(str, range(50)), "last"]
        assert inbox.take() == []

    run(main)


def test_one_that_goes_wrong_takes_none_with_it(inbox: Inbox, sender: Inbox) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        listener = Listener()
        errors: list[Any] = []
        loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))

        def on_request(request: Request) -> None:
            if request.kind == "bad":
                raise RuntimeError(request.kind)
            listener(request)

        sender.send("bad")
        sender.send("good")
        inbox.open(loop, on_request)
        assert await listener.kinds(1) == ["good"]
        assert [str(error) for error in errors] == ["bad"]

    run(main)


def test_closing_leaves_nothing_and_loses_nothing(inbox: Inbox, sender: Inbox) -> None:
    async def main() -> None:
        listener = Listener()
        inbox.open(asyncio.get_running_loop(), listener)
        assert stat.S_IMODE(inbox.fifo.stat().st_mode) == 0o600
        sender.send("stop")
        inbox.close()
        inbox.close()
        await asyncio.sleep(0)
        assert listener.requests == []

    run(main)
    assert not inbox.fifo.exists()
    assert [request.kind for request in inbox.take()] == ["stop"]


def test_a_closed_loop_is_no_trouble(inbox: Inbox) -> None:
    async def main() -> None:
        inbox.open(asyncio.get_running_loop(), lambda _: None)

    run(main)
    inbox.close()
    assert not inbox.fifo.exists()


@pytest.mark.parametrize("left", ["fifo", "file", "symlink"])
def test_what_a_crash_left_is_no_trouble(inbox: Inbox, sender: Inbox, left: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    inbox.fifo.parent.mkdir(parents=True)
    match left:
        case "fifo":
            os.mkfifo(inbox.fifo)
        case "file":
            inbox.fifo.write_text("")
        case _:
            inbox.fifo.symlink_to(victim)
    sender.send("early")

    async def main() -> None:
        listener = Listener()
        inbox.open(asyncio.get_running_loop(), listener)
        sender.send("late")
        assert await listener.kinds(2) == ["early", "late"]

    run(main)
    assert victim.read_text() == "mine"


def test_a_run_that_does_not_get_round_to_it_blocks_no_sender(inbox: Inbox, sender: Inbox) -> None:
    async def main() -> None:
        listener = Listener()
        inbox.open(asyncio.get_running_loop(), listener)
        fd = os.open(inbox.fifo, os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while os.write(fd, b"\n" * 4096):
                pass
        os.close(fd)
        sender.send("stop")
        assert await listener.kinds(1) == ["stop"]

    run(main)


def test_a_directory_that_cannot_be_used_is_an_error(file: JournalFile, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    inbox = Inbox(file, RUN, tmp_path / "runs")

    async def main() -> None:
        with pytest.raises(JournalError, match="cannot listen"):
            inbox.open(asyncio.get_running_loop(), lambda _: None)

    run(main)


def test_a_sender_that_may_not_wake_the_run_is_told(sender: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    sender.send("start")
    monkeypatch.setattr("agentful.runtime.inbox.os.open", deny)
    with pytest.raises(JournalError, match="was not woken"):
        sender.send("stop")


def test_unknown_runs_and_requests_are_errors(file: JournalFile, directory: Path, sender: Inbox) -> None:
    with pytest.raises(JournalError, match="there is no run r-0"):
        Inbox(file, "r-0", directory / "runs").send("stop")
    with pytest.raises(JournalError, match="there is no request 99"):
        sender.wait(99, 0)
