from __future__ import annotations

import contextlib
import dataclasses
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentful.errors import JournalError
from agentful.events import (
    DecisionClosed,
    DecisionOpened,
    Detail,
    TaskAdded,
    TaskChanged,
    Transition,
    Trigger,
)
from agentful.model import Agent, Answer, Decision, Options, Reason, State, Task, Usage
from agentful.runtime.journal import (
    Journal,
    JournalFile,
    MemoryJournal,
    RunInfo,
    SqliteJournal,
    plain,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "r-7f3a"


def info(run_id: str = RUN, **more: Any) -> RunInfo:
    return RunInfo(id=run_id, created_at=1_768_905_000.0, **more)


def changed(number: int, **more: Any) -> TaskChanged:
    return TaskChanged(
        float(number), f"task-{number}", Trigger.STARTED, State.READY, State.RUNNING, number, **more
    )


STORY: list[Transition] = [
    TaskAdded(1.0, Task("backend", "Implement\nauth", id="api", writes=("src/**",), timeout=600, priority=2)),
    TaskChanged(2.0, "api", Trigger.STARTED, State.READY, State.RUNNING, 1),
    TaskChanged(
        3.5,
        "api",
        Trigger.GAVE_UP,
        State.RUNNING,
        State.FAILED,
        1,
        Reason.CONFLICT,
        Detail(
            message="it conflicts",
            paths=("a", "b"),
            outputs={"n": [1, 2.5, None, {"x": "ÿ\0"}]},
            usage=Usage(1, 2, 0.25),
            answer=Answer("q", "a"),
            alone=True,
        ),
    ),
    DecisionOpened(4.0, Decision("d1", "How to proceed?", ("Skip", "Retry"), ("api",), asked_at=4.0)),
    DecisionClosed(5.0, "d1", "Skip"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def file(path: Path) -> Iterator[JournalFile]:
    with JournalFile(path) as file:
        yield file


@pytest.fixture
def journal(file: JournalFile) -> SqliteJournal:
    file.create_run(info())
    return file.writer(RUN)


def tamper(path: Path, sql: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        assert db.execute(sql, values).rowcount == 1


# --- transitions ------------------------------------------------------------------------------------


def test_what_is_appended_is_there_again(path: Path, journal: SqliteJournal) -> None:
    journal.append(STORY[:2])
    journal.append([])
    journal.append(STORY[2:])

    assert journal.transitions() == STORY
    assert journal.seq == 5
    with JournalFile(path) as other:
        assert other.writer(RUN).transitions() == STORY
        assert other.writer(RUN).seq == 5
        assert other.integrity_check() == []


def test_a_memory_journal_does_the_same() -> None:
    journal: Journal = MemoryJournal(STORY[:2])
    journal.append(STORY[2:])
    assert journal.transitions() == STORY
    journal.transitions().clear()
    assert journal.transitions() == STORY


text = st.text(max_size=20)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(text, children, max_size=3),
    max_leaves=6,
)
transitions: st.SearchStrategy[Transition] = st.one_of(
    st.builds(
        TaskAdded,
        at=st.floats(0, 1e10),
        task=st.builds(Task, agent=text, prompt=text, id=text, priority=st.integers(-9, 9)),
    ),
    st.builds(
        TaskChanged,
        at=st.floats(0, 1e10),
        task_id=text,
        trigger=st.sampled_from(Trigger),
        source=st.sampled_from(State),
        target=st.sampled_from(State),
        attempt=st.integers(0, 99),
        reason=st.none() | st.sampled_from(Reason),
        detail=st.none() | st.builds(Detail, message=text, outputs=st.dictionaries(text, json, max_size=3)),
    ),
    st.builds(
        DecisionOpened,
        at=st.floats(0, 1e10),
        decision=st.builds(Decision, id=text, question=text, options=st.tuples(text, text)),
    ),
    st.builds(DecisionClosed, at=st.floats(0, 1e10), decision_id=text, answer=text),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.lists(transitions, max_size=4), max_size=4))
def test_any_story_is_there_again_in_order(
    steps: list[list[Transition]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with JournalFile(tmp_path_factory.mktemp("journal") / "journal.db") as file:
        file.create_run(info())
        journal = file.writer(RUN)
        seen: list[Transition] = []
        last = 0
        for step in steps:
            journal.append(step)
            news, last = file.read(RUN, last)
            assert news == step
            seen += news
        assert journal.transitions() == seen
        assert file.read(RUN, last + 5) == ([], last)


def test_runs_do_not_mix(file: JournalFile) -> None:
    file.create_run(info("r-1"))
    file.create_run(info("r-2"))
    one, two = file.writer("r-1"), file.writer("r-2")
    for number in range(6):
        (one if number % 2 else two).append([changed(number)])

    assert file.read("r-1") == ([changed(1), changed(3), changed(5)], 3)
    assert file.read("r-2", 2) == ([changed(4)], 3)


def test_a_reader_follows_a_writer(path: Path, journal: SqliteJournal) -> None:
    with JournalFile(path) as reader:
        assert reader.read(RUN) == ([], 0)
        version = reader.data_version()
        journal.append(STORY[:3])
        assert reader.data_version() != version
        version = reader.data_version()
        assert reader.read(RUN) == (STORY[:3], 3)
        assert reader.data_version() == version
        journal.append(STORY[3:])
        assert reader.read(RUN, 3) == (STORY[3:], 5)


def test_what_a_newer_version_adds_is_passed_over(path: Path, journal: SqliteJournal) -> None:
    journal.append([changed(1)])
    body = msgspec.json.encode(msgspec.to_builtins(changed(1)) | {"mood": "hopeful"})
    tamper(path, "UPDATE transitions SET body = ?, crc = ?", body.decode(), zlib.crc32(body, 1))

    assert journal.transitions() == [changed(1)]


@pytest.mark.parametrize("more", [{"type": "dreamt"}, {"trigger": "dreamt"}])
def test_what_only_a_newer_version_knows_is_refused(
    path: Path, journal: SqliteJournal, more: dict[str, str]
) -> None:
    journal.append([changed(1)])
    body = msgspec.json.encode(msgspec.to_builtins(changed(1)) | more)
    tamper(path, "UPDATE transitions SET body = ?, crc = ?", body.decode(), zlib.crc32(body, 1))

    with pytest.raises(JournalError, match="newer"):
        journal.transitions()


def test_whatever_an_agent_says_can_be_written(journal: SqliteJournal) -> None:
    deep: list[Any] = []
    deep.append(deep)
    outputs = {"deep": deep, "half": "\ud800", "big": 10**5000, "bytes": b"\xff", "object": object()}
    detail = Detail(message="lone \udc80 surrogate", outputs=outputs)
    journal.append([changed(1, detail=detail)])

    (found,) = journal.transitions()
    assert isinstance(found, TaskChanged)
    assert found.detail is not None
    assert found.detail.message == "lone ? surrogate"
    assert found.detail.outputs["half"] == "?"
    assert found.detail.outputs["big"].startswith("0x")


@pytest.mark.parametrize(
    "wrong",
    [
        TaskAdded(1.0, Task("a", "b", id="c", priority="high")),  # type: ignore[arg-type]
        TaskAdded(float("nan"), Task("a", "b", id="c")),
        DecisionClosed(1.0, "d", object()),  # type: ignore[arg-type]
    ],
)
def test_what_could_not_be_restored_is_not_written(journal: SqliteJournal, wrong: Transition) -> None:
    if isinstance(wrong, DecisionClosed):
        wrong = msgspec.structs.replace(wrong, answer={})
    with pytest.raises(JournalError, match="cannot be written down"):
        journal.append([changed(1), wrong])
    assert journal.transitions() == []

    journal.append([changed(2)])
    assert journal.transitions() == [changed(2)]


# --- trouble ----------------------------------------------------------------------------------------


def test_a_second_writer_of_a_run_is_refused(file: JournalFile, journal: SqliteJournal) -> None:
    second = file.writer(RUN)
    journal.append([changed(1)])

    with pytest.raises(JournalError, match="another process has written"):
        second.append([changed(2)])
    with pytest.raises(JournalError, match="took no more"):
        second.append([changed(2)])
    journal.append([changed(3)])
    assert journal.transitions() == [changed(1), changed(3)]


def limit_pages(file: JournalFile, pages: int | None = None) -> None:
    """Make the disk full for the writer; with a number, not before that many pages."""
    with file._db.transaction() as db:
        used = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages or used}")


def test_a_full_disk_loses_nothing_and_may_be_tried_again(file: JournalFile, journal: SqliteJournal) -> None:
    journal.append([changed(1)])
    limit_pages(file)
    step = [changed(number, detail=Detail(detail="x" * 500)) for number in range(2, 50)]
    with pytest.raises(JournalError, match="full: nothing of this step was written"):
        journal.append(step)
    assert journal.transitions() == [changed(1)]

    limit_pages(file, 10_000)
    journal.append(step)
    assert journal.transitions() == [changed(1), *step]
    assert file.integrity_check() == []


def test_the_end_of_a_run_is_written_to_a_full_disk(file: JournalFile, path: Path) -> None:
    file.create_run(info())
    limit_pages(file)
    ballast = path.with_name("journal.ballast")
    long = "why " * 5000

    with pytest.raises(JournalError, match="full"):
        file.update_run(RUN, title=long)
    assert not ballast.exists()
    limit_pages(file, 1000)
    assert file.update_run(RUN, title=long).title == long


SMALL_DISK = """
import sys
from pathlib import Path
from agentful.errors import JournalError
from agentful.events import DecisionClosed
from agentful.runtime.journal import JournalFile, RunInfo
directory = Path(sys.argv[1])
file = JournalFile(directory / "journal.db")
file.create_run(RunInfo(id="r-1", created_at=1.0))
journal = file.writer("r-1")
count = 0
try:
    while True:
        journal.append([DecisionClosed(float(count), "d", "x" * 3000)])
        count += 1
except JournalError as error:
    assert "full" in str(error), error
(directory / "rest").write_bytes(b"")
try:
    with (directory / "rest").open("ab") as rest:
        while True:
            rest.write(b"x" * 4096)
            rest.flush()
except OSError:
    pass
assert len(journal.transitions()) == count > 100
file.update_run("r-1", state="interrupted", title="x" * 50000)
assert not (directory / "journal.ballast").exists()
(directory / "rest").unlink()
journal.append([DecisionClosed(-1.0, "d", "x" * 3000)])
file.close()
with JournalFile(directory / "journal.db") as file:
    assert file.integrity_check() == []
    assert file.find().state == "interrupted"
    assert file.read("r-1")[1] == count + 1
print("fine")
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    script = 'mount -t tmpfs -o size=3m agentful "$1" && exec "$2" -c "$3" "$1"'
    probe = [unshare or "", "--mount", "--map-root-user", "sh", "-c", 'mount -t tmpfs agentful "$1"', "sh"]
    if unshare is None or subprocess.run([*probe, str(tmp_path)], capture_output=True).returncode:
        pytest.skip("no file system of our own can be mounted here")
    done = subprocess.run(
        [*probe[:5], script, "sh", str(tmp_path), sys.executable, SMALL_DISK],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "fine\n", done.stderr


def test_after_a_failing_disk_nothing_more_is_taken(
    file: JournalFile, journal: SqliteJournal, path: Path
) -> None:
    journal.append([changed(1)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = path.with_name("journal.db-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, limits[1]))
    try:
        with pytest.raises(JournalError, match="see its disk"):
            journal.append([changed(2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(JournalError, match="took no more"):
        journal.append([changed(2)])

    again = file.writer(RUN)
    again.append([changed(3)])
    assert again.transitions() == [changed(1), changed(3)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM transitions WHERE seq = 5",
        "DELETE FROM transitions WHERE seq = 3",
        "DELETE FROM transitions WHERE seq = 1",
        "UPDATE transitions SET body = replace(body, 'Skip', 'Skit') WHERE seq = 5",
        "UPDATE transitions SET seq = 6 WHERE seq = 5",
        "UPDATE heads SET seq = 4",
        "DELETE FROM heads",
    ],
)
def test_a_change_behind_its_back_is_found(
    file: JournalFile, journal: SqliteJournal, path: Path, sql: str
) -> None:
    journal.append(STORY)
    tamper(path, sql)

    with pytest.raises(JournalError, match=f"damaged.*{RUN}"):
        journal.transitions()
    assert len(file.integrity_check()) == 1


def test_a_change_to_the_description_of_a_run_is_found(file: JournalFile, path: Path) -> None:
    file.create_run(info(base="a" * 40))
    tamper(path, "UPDATE runs SET info = replace(info, 'aaaa', 'aaab')")

    for use in (file.runs, lambda: file.run(RUN), file.find, lambda: file.writer(RUN)):
        with pytest.raises(JournalError, match="damaged: the description"):
            use()


def test_one_wrong_bit_anywhere_never_gives_another_story(tmp_path: Path) -> None:
    """Each either changes nothing that was told to it, or is told."""
    original = tmp_path / "original.db"
    story = [*STORY, *(changed(number) for number in range(300))]
    with JournalFile(original) as file:
        file.create_run(info())
        file.writer(RUN).append(story)
    sound = original.read_bytes()
    chance = random.Random(7)
    told = 0
    for number in range(400):
        flipped = bytearray(sound)
        flipped[chance.randrange(len(sound))] ^= 1 << chance.randrange(8)
        copy = tmp_path / f"{number}.db"
        copy.write_bytes(flipped)
        with JournalFile(copy) as file:
            try:
                assert file.find() == info()
                assert file.read(RUN) == (story, len(story))
            except JournalError:
                told += 1
    assert told > 100


def test_a_torn_file_is_told(tmp_path: Path) -> None:
    original = tmp_path / "original.db"
    with JournalFile(original) as file:
        file.create_run(info())
        file.writer(RUN).append([changed(number) for number in range(300)])
    sound = original.read_bytes()
    for length in (len(sound) - 1, len(sound) - 4096, len(sound) // 2, 4096, 700):
        torn = tmp_path / f"{length}.db"
        torn.write_bytes(sound[:length])
        with JournalFile(torn) as file, pytest.raises(JournalError, match="damaged"):
            file.read(file.find().id)
        assert torn.read_bytes() == sound[:length]


WRITER = """
import sys
from pathlib import Path
from agentful.events import DecisionClosed
from agentful.runtime.journal import JournalFile, RunInfo
path, run, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with JournalFile(path) as file:
    if file.run(run) is None:
        file.create_run(RunInfo(id=run, created_at=1.0))
    journal = file.writer(run)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(steps):
        seq = journal.seq
        journal.append([DecisionClosed(float(seq + n), run, "x" * (seq % 700)) for n in range(seq % 4 + 1)])
        print(journal.seq, flush=True)
"""


def start_writer(path: Path, run: str, steps: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), run, str(steps)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def check_story(file: JournalFile, run: str) -> int:
    """The story is one that the writer writes, whole steps only; its length."""
    story, last = file.read(run)
    assert [transition.at for transition in story] == [float(number) for number in range(last)]
    seq = 0
    while seq < last:
        seq += seq % 4 + 1
    assert seq == last
    return last


def test_two_processes_write_at_once(path: Path) -> None:
    writers = [start_writer(path, run, 150) for run in ("r-1", "r-2")]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    outputs = [""] * len(writers)
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for number, writer in enumerate(writers):
        outputs[number], _ = writer.communicate()
        assert writer.returncode == 0

    with JournalFile(path) as file:
        for output, run in zip(outputs, ("r-1", "r-2"), strict=True):
            assert check_story(file, run) == int(output.split()[-1])
        assert file.integrity_check() == []


def test_a_killed_writer_loses_nothing_that_it_was_told(path: Path) -> None:
    chance = random.Random(11)
    acknowledged = 0
    with JournalFile(path) as file:
        for _ in range(10):
            writer = start_writer(path, RUN, 1_000_000)
            assert writer.stdin is not None
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            writer.stdin.write("go\n")
            writer.stdin.flush()
            for _ in range(chance.randrange(1, 200)):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):
                    acknowledged = int(line)
            writer.communicate()

            last = check_story(file, RUN)
            # One step may have become durable without its writer's living to say so.
            assert acknowledged <= last <= acknowledged + 4
            acknowledged = last
        assert file.integrity_check() == []


# --- runs -------------------------------------------------------------------------------------------


def test_a_run_is_described(file: JournalFile) -> None:
    run = info(
        title="Auth",
        plan="plan.yaml",
        plan_text="tasks: {}\n",
        branch="refs/heads/agentful/r-7f3a",
        base="a" * 40,
        options=Options(max_concurrency=2, checks=("pytest -q",)),
        agents={
            "backend": Agent(name="backend", command=("x",), extra={"when": datetime(2026, 1, 2, tzinfo=UTC)})
        },
        settings={"stay": [1, Path("x")]},
        version="0.1.0",
    )
    file.create_run(run)
    found = file.run(RUN)
    assert found is not None
    assert found.agents["backend"].extra == {"when": "2026-01-02T00:00:00Z"}
    assert found.settings == {"stay": [1, "x"]}
    assert msgspec.structs.replace(found, agents={}, settings={}) == msgspec.structs.replace(
        run, agents={}, settings={}
    )
    with pytest.raises(JournalError, match="is a run r-7f3a in"):
        file.create_run(run)


def test_runs_are_listed_newest_first(file: JournalFile) -> None:
    assert file.runs() == []
    assert file.run(RUN) is None
    for name in ("r-b", "r-a", "r-c"):
        file.create_run(info(name))
    assert [run.id for run in file.runs()] == ["r-c", "r-a", "r-b"]


def test_a_run_is_updated(file: JournalFile, path: Path) -> None:
    file.create_run(info(options=Options(retries=3)))
    body = msgspec.json.encode(msgspec.to_builtins(info()) | {"mood": "hopeful"})
    tamper(path, "UPDATE runs SET info = ?, crc = ?", body.decode(), zlib.crc32(body))

    run = file.update_run(RUN, state="failed", finished_at=9.0, options=Options(retries=1))
    assert run == info(state="failed", finished_at=9.0, options=Options(retries=1)) == file.run(RUN)
    assert file.update_run(RUN, finished_at=None).finished_at is None
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert '"mood":"hopeful"' in db.execute("SELECT info FROM runs").fetchone()[0]

    with pytest.raises(TypeError):
        file.update_run(RUN, mood="gloomy")
    with pytest.raises(JournalError, match="cannot be written down"):
        file.update_run(RUN, state=5)
    with pytest.raises(JournalError, match="there is no run r-0"):
        file.update_run("r-0", state="failed")


def test_a_run_is_found_by_what_people_type(file: JournalFile) -> None:
    with pytest.raises(JournalError, match="no runs in"):
        file.find()
    for name in ("r-7f3a", "r-7f99", "r-0c11"):
        file.create_run(info(name, title=f"about {name}"))

    assert file.find().id == "r-0c11"
    assert file.find("latest").id == "r-0c11"
    assert file.find("r-7f3a").id == "r-7f3a"
    assert file.find("r-7f3").id == "r-7f3a"
    assert file.find("7f3").id == "r-7f3a"
    assert file.find("0").id == "r-0c11"
    with pytest.raises(
        JournalError, match=r"'7f' could be any of 2 runs: choose from r-7f99 \(about r-7f99\), r-7f3a"
    ):
        file.find("7f")
    with pytest.raises(JournalError, match="no run 'r-9': there are r-0c11"):
        file.find("r-9")
    with pytest.raises(JournalError, match="no run ''"):
        file.find("")
    for number in range(20):
        file.create_run(info(f"r-x{number}"))
    with pytest.raises(JournalError, match="and 12 more"):
        file.find("x")


@pytest.mark.parametrize("use", ["read", "writer"])
def test_an_unknown_run_is_an_error(file: JournalFile, use: str) -> None:
    with pytest.raises(JournalError, match="there is no run r-0"):
        getattr(file, use)("r-0")
    file.create_run(info())
    with pytest.raises(JournalError, match="there is no run r-0"):
        getattr(file, use)("r-0")


# --- requests ---------------------------------------------------------------------------------------


def test_requests_wait_for_their_answer(file: JournalFile, path: Path) -> None:
    assert file.open_requests(RUN) == []
    assert file.request(1) is None
    file.create_run(info())
    file.create_run(info("r-2"))
    first = file.add_request(RUN, "stop", {"now": True}, at=1.0)
    file.add_request("r-2", "stop", None, at=2.0)
    second = file.add_request(RUN, "decide", ["d1", "Skip"], at=3.0)

    assert [(request.id, request.kind, request.payload) for request in file.open_requests(RUN)] == [
        (first, "stop", {"now": True}),
        (second, "decide", ["d1", "Skip"]),
    ]
    assert [request.id for request in file.open_requests(RUN, after=first)] == [second]

    file.answer_request(first, {"ok": True}, at=4.0)
    file.answer_request(first, "too late", at=5.0)
    with JournalFile(path) as other:
        assert [request.id for request in other.open_requests(RUN)] == [second]
        found = other.request(first)
    assert found is not None
    assert found.handled
    assert (found.answer, found.handled_at) == ({"ok": True}, 4.0)
    with pytest.raises(JournalError, match="there is no run r-0"):
        file.add_request("r-0", "stop", None, at=1.0)


def test_a_request_that_makes_no_sense_is_an_error(file: JournalFile, path: Path) -> None:
    file.create_run(info())
    number = file.add_request(RUN, "stop", None, at=1.0)
    tamper(path, "UPDATE requests SET payload = '{'")
    with pytest.raises(JournalError, match="request 1"):
        file.request(number)


# --- values -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    x: int
    y: tuple[int, ...] = ()


class Sulky:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (2.5, 2.5),
        ("ü", "ü"),
        ("a\ud800", "a?"),
        (2**70, 2**70),
        (b"a\xff", "a\ufffd"),
        ((1, {2}), [1, [2]]),
        ({1: 2, (3, 4): 5}, {"1": 2, "(3, 4)": 5}),
        (Point(1, (2,)), {"x": 1, "y": [2]}),
        (Path("a/b"), "a/b"),
        (State.READY, "ready"),
        (Sulky(), "<Sulky>"),
        ({Sulky(): 1}, {"<Sulky>": 1}),
    ],
)
def test_values_become_plain(value: object, expected: object) -> None:
    assert plain(value) == expected


@settings(max_examples=200)
@given(
    st.recursive(
        st.none()
        | st.integers()
        | st.floats()
        | st.text(st.characters(), max_size=5)
        | st.binary()
        | st.dates(),
        lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.integers() | st.text(), inner),
        max_leaves=10,
    )
)
def test_plain_values_pass_through_json(value: object) -> None:
    encoded = msgspec.json.encode(plain(value))
    assert msgspec.json.encode(plain(msgspec.json.decode(encoded))) == encoded


def test_a_run_is_forgotten_only_while_nothing_of_it_is_written(tmp_path: Path) -> None:
    with JournalFile(tmp_path / "journal.db") as journal:
        journal.create_run(RunInfo(id="r-1", created_at=0.0))
        journal.create_run(RunInfo(id="r-2", created_at=0.0))
        journal.add_request("r-1", "stop", None, at=0.0)
        journal.writer("r-2").append([TaskAdded(0.0, Task("a", "x", id="a"))])
        journal.remove_run("r-1")
        assert [run.id for run in journal.runs()] == ["r-2"]
        assert journal.open_requests("r-1") == []
        with pytest.raises(JournalError, match="run r-2 has a story, which is kept"):
            journal.remove_run("r-2")
        with pytest.raises(JournalError, match="there is no run r-1"):
            journal.remove_run("r-1")
        assert journal.integrity_check() == []
        assert journal.read("r-2")[1] == 1
