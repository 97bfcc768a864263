from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentful.model import Decision, State
from agentful.runtime import statefiles as statefiles_module
from agentful.runtime.statefiles import Edits, StateFiles, StateInput, TaskLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T0 = 1_768_905_000.0
RUN = "r-1"
NAMES = ("state.json", "completion.json", "decisions.json")
NOTHING = Edits()


def source(**more: Any) -> StateInput:
    values: dict[str, Any] = {
        "run": RUN,
        "at": T0,
        "mode": "parallel",
        "slots": 4,
        "tasks": (
            TaskLine(id="api", agent="backend", prompt="Implement it", state=State.BLOCKED),
            TaskLine(id="ui", agent="frontend", prompt="Draw it", state=State.SUCCEEDED),
        ),
        "decisions": (
            Decision("d1", "How to proceed?", ("Skip", "Retry"), ("api",), asked_at=T0),
            Decision("d2", "Which?", answer="This", asked_at=T0, answered_at=T0),
        ),
    }
    return StateInput(**values | more)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / ".agentful"


@pytest.fixture
def files(directory: Path) -> Iterator[StateFiles]:
    with StateFiles(directory, RUN) as files:
        yield files


def load(path: Path) -> dict[str, Any]:
    document = msgspec.json.decode(path.read_bytes())
    assert isinstance(document, dict)
    return document


def age(path: Path, seconds: float = 60.0) -> None:
    """Make a change look older than it is, as if its editor had long finished."""
    found = path.lstat()
    os.utime(path, (found.st_atime, found.st_mtime - seconds), follow_symlinks=False)


def put(path: Path, document: object) -> None:
    path.write_bytes(document if isinstance(document, bytes) else msgspec.json.encode(document))
    age(path)


def answer(path: Path, text: str = "Skip") -> None:
    document = load(path / "decisions.json")
    document["decisions"][0] |= {"status": "resolved", "resolution": text}
    put(path / "decisions.json", document)


def backups(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir() if ".backup-" in file.name)


# --- writing ----------------------------------------------------------------------------------------


def test_the_three_files_are_written_for_one_user(files: StateFiles, directory: Path) -> None:
    files.write(source())

    assert {file.name for file in directory.iterdir()} == {*NAMES, ".statefiles"}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
    assert load(directory / "state.json")["last_updated"] == "2026-01-20T10:30:00Z"
    assert load(directory / "state.json")["blocked_on"] == ["d1"]
    assert load(directory / "completion.json")["features"]["ui"]["status"] == "complete"
    assert load(directory / "decisions.json")["lastUpdated"] == "2026-01-20T10:30:00Z"
    assert b'\n  "decisions": [\n' in (directory / "decisions.json").read_bytes()


def test_only_what_has_changed_is_written(files: StateFiles, directory: Path) -> None:
    files.write(source())
    before = {name: (directory / name).stat().st_ino for name in NAMES}
    files.write(source(at=T0 + 5))
    assert {name: (directory / name).stat().st_ino for name in NAMES} == before

    files.write(source(at=T0 + 9, tests_passing=True))
    changed = {name for name in NAMES if (directory / name).stat().st_ino != before[name]}
    assert changed == {"completion.json"}
    assert load(directory / "completion.json")["last_updated"] == "2026-01-20T10:30:09Z"
    assert load(directory / "state.json")["last_updated"] == "2026-01-20T10:30:00Z"


def test_a_file_that_is_gone_is_written_again(files: StateFiles, directory: Path) -> None:
    files.write(source())
    (directory / "state.json").unlink()
    assert not files.edited()
    assert files.read_edits() == NOTHING
    files.write(source())
    assert load(directory / "state.json")["run"] == RUN


def test_what_a_crash_left_of_a_writing_is_no_trouble(files: StateFiles, directory: Path) -> None:
    directory.mkdir()
    (directory / ".state.json.new").write_text("half")
    files.write(source())
    assert load(directory / "state.json")["run"] == RUN
    assert not (directory / ".state.json.new").exists()


def test_a_full_disk_is_told_once(
    files: StateFiles, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(source())
    before = (directory / "state.json").read_bytes()

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(statefiles_module, "write_private", full)
        files.write(source(slots=5))
        files.write(source(slots=6))
    assert files.read_edits().problems == ["state.json cannot be written: No space left on device"]
    assert (directory / "state.json").read_bytes() == before
    assert not (directory / ".state.json.new").exists()

    files.write(source(slots=6))
    assert load(directory / "state.json")["agent_pool"]["max_concurrent"] == 6


def test_a_directory_that_cannot_be_used_is_told_once(directory: Path) -> None:
    directory.write_text("a file")
    with StateFiles(directory, RUN) as files:
        files.write(source())
        files.write(source())
        assert files.edited()
        (problem,) = files.read_edits().problems
        assert "cannot be kept" in problem
        assert not files.edited()
    assert directory.read_text() == "a file"


# --- edits ------------------------------------------------------------------------------------------


def test_our_own_writing_is_no_edit(files: StateFiles, directory: Path) -> None:
    assert files.read_edits() == NOTHING
    files.write(source())
    assert not files.edited()
    assert files.read_edits() == NOTHING
    for name in NAMES:
        age(directory / name)
    assert not files.edited()
    assert not files.edited()


def test_an_answer_is_read_once(files: StateFiles, directory: Path) -> None:
    files.write(source())
    answer(directory)

    assert files.edited()
    assert files.read_edits() == Edits([("d1", "Skip")])
    assert not files.edited()
    assert files.read_edits() == NOTHING


def test_an_edit_of_the_same_length_at_the_same_instant_is_seen(files: StateFiles, directory: Path) -> None:
    files.write(source())
    path = directory / "decisions.json"
    found = path.stat()
    assert not files.edited()
    path.write_bytes(path.read_bytes().replace(b'"resolution": null', b'"answer": "Skip"  '))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))

    assert path.stat().st_size == found.st_size
    assert files.read_edits().answers == [("d1", "Skip")]


def test_an_edit_outlives_being_written_over(files: StateFiles, directory: Path) -> None:
    files.write(source())
    answer(directory)
    files.write(source(slots=5))

    assert load(directory / "decisions.json")["decisions"][0]["resolution"] is None
    assert files.edited()
    assert files.read_edits() == Edits([("d1", "Skip")])


def test_what_cannot_be_used_is_told_once_and_put_back(files: StateFiles, directory: Path) -> None:
    files.write(source())
    answer(directory, "Give up")
    problem = "decisions.json: 'Give up' is no answer to 'd1'; choose from 'Skip', 'Retry'"
    assert files.read_edits() == Edits(problems=[problem])
    assert files.read_edits() == NOTHING

    files.write(source())
    assert load(directory / "decisions.json")["decisions"][0]["resolution"] is None
    answer(directory, "Give up")
    assert files.read_edits().problems == [problem]


def test_a_feature_set_to_complete_is_read(files: StateFiles, directory: Path) -> None:
    files.write(source())
    document = load(directory / "completion.json")
    document["features"]["api"]["status"] = "complete"
    document["features"]["web"] = {"status": "pending"}
    put(directory / "completion.json", document)

    assert files.read_edits() == Edits(
        completed=["api"], problems=["completion.json: there is no task 'web' in this run"]
    )


def test_a_form_of_another_tool_is_read(files: StateFiles, directory: Path) -> None:
    files.write(source())
    put(directory / "decisions.json", {"pending": [], "resolved": [{"id": "d1", "answer": "Retry"}]})
    assert files.read_edits() == Edits([("d1", "Retry")])
    files.write(source())
    assert load(directory / "decisions.json")["run"] == RUN
    assert backups(directory) == []


def test_edits_to_the_state_are_written_over(files: StateFiles, directory: Path) -> None:
    files.write(source())
    put(directory / "state.json", {"run": RUN, "current_agent": "me"})
    assert files.read_edits() == NOTHING
    files.write(source())
    assert load(directory / "state.json")["current_agent"] is None


def test_an_edit_made_while_nobody_ran_is_read_at_the_resume(directory: Path) -> None:
    with StateFiles(directory, RUN) as files:
        files.write(source())
    answer(directory)
    with StateFiles(directory, RUN) as files:
        edits = files.read_edits()
        assert dict(edits.answers) == {"d1": "Skip", "d2": "This"}
        assert edits.problems == []
    answer(directory, "Retry")
    with StateFiles(directory, RUN) as files:
        files.write(source())
        assert files.read_edits() == Edits([("d1", "Retry")])


def test_no_edit_while_nobody_ran_is_no_edit(directory: Path) -> None:
    with StateFiles(directory, RUN) as files:
        files.write(source())
    with StateFiles(directory, RUN) as files:
        assert not files.edited()
        assert files.read_edits() == NOTHING


# --- what is in the way -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b'{"decisions": [', b"\xff\xfe", b"[]", b"[" * 50_000])
def test_a_broken_file_is_kept_aside_and_made_again(
    files: StateFiles, directory: Path, name: str, content: bytes
) -> None:
    files.write(source())
    put(directory / name, content)

    (problem,) = files.read_edits().problems
    (backup,) = backups(directory)
    assert re.fullmatch(rf"{re.escape(name)}\.backup-\d+", backup)
    assert problem.startswith(f"{name} is not ")
    assert problem.endswith(f"so it was not read; it is kept as {backup}")
    assert (directory / backup).read_bytes() == content
    assert not (directory / name).exists()

    files.write(source())
    assert load(directory / name)["run"] == RUN
    assert files.read_edits() == NOTHING


def test_a_file_that_is_still_being_written_is_left_alone(files: StateFiles, directory: Path) -> None:
    files.write(source())
    path = directory / "decisions.json"
    whole = load(path)
    path.write_bytes(b'{"decisions": [')
    assert files.read_edits() == NOTHING
    files.write(source(slots=7))
    assert path.read_bytes() == b'{"decisions": ['
    assert load(directory / "state.json")["agent_pool"]["max_concurrent"] == 7
    assert files.edited()

    whole["pending"][0]["answer"] = "Skip"
    path.write_bytes(msgspec.json.encode(whole))
    assert files.read_edits() == Edits([("d1", "Skip")])
    assert backups(directory) == []


def test_an_empty_file_is_made_again_without_ado(files: StateFiles, directory: Path) -> None:
    files.write(source())
    put(directory / "decisions.json", b"\n")
    assert files.read_edits() == NOTHING
    files.write(source())
    assert load(directory / "decisions.json")["run"] == RUN
    assert backups(directory) == []


def make_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def make_dangling_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("nowhere"))


def make_directory(path: Path, victim: Path) -> None:
    path.mkdir()


def make_fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def make_huge(path: Path, victim: Path) -> None:
    with path.open("wb") as file:
        file.truncate(6 * 1024 * 1024)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [make_link, make_dangling_link, make_directory, make_fifo, make_huge])
def test_what_is_no_file_to_read_is_moved_aside(
    files: StateFiles, directory: Path, tmp_path: Path, name: str, make: Callable[[Path, Path], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text('{"run": "r-1", "pending": [{"id": "d1", "answer": "Skip"}]}')
    files.write(source())
    (directory / name).unlink()
    make(directory / name, victim)

    assert files.edited()
    edits = files.read_edits()
    assert (edits.answers, edits.completed, len(edits.problems)) == ([], [], 1)
    files.write(source())
    assert load(directory / name)["run"] == RUN
    assert "victim" not in victim.read_text()
    assert victim.stat().st_nlink == 1
    assert len(backups(directory)) == 1
    assert not (tmp_path / "nowhere").exists()


def test_our_own_large_files_are_not_too_large(
    files: StateFiles, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statefiles_module, "MAX_BYTES", 200)
    files.write(source())
    answer(directory)
    assert files.read_edits().answers == [("d1", "Skip")]


def test_what_cannot_be_moved_aside_is_left_alone(
    files: StateFiles, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(source())
    put(directory / "state.json", b"{")

    def deny(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", deny)
    files.write(source())
    files.write(source())
    (problem,) = files.read_edits().problems
    assert "cannot be moved aside: Permission denied" in problem
    assert (directory / "state.json").read_bytes() == b"{"


def test_backups_do_not_replace_each_other(
    files: StateFiles, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr("agentful.runtime.statefiles.time.time", lambda: now)
    for content in (b"{1", b"{2", b"{3"):
        files.write(source())
        put(directory / "state.json", content)
        files.read_edits()
    assert [(directory / name).read_bytes() for name in backups(directory)] == [b"{1", b"{2", b"{3"]


def test_files_of_another_tool_are_kept(files: StateFiles, directory: Path) -> None:
    directory.mkdir()
    contents = {name: {"version": "1.0", "features": {"x": {"status": "complete"}}} for name in NAMES}
    for name, content in contents.items():
        put(directory / name, content)
    files.write(source())

    edits = files.read_edits()
    assert (edits.answers, edits.completed) == ([], [])
    assert len(edits.problems) == 3
    assert all("was there before this run; it is kept as" in problem for problem in edits.problems)
    assert [load(directory / name) for name in backups(directory)] == list(contents.values())
    assert load(directory / "state.json")["run"] == RUN


# --- several runs -----------------------------------------------------------------------------------


def test_one_run_at_a_time_has_the_directory(directory: Path) -> None:
    with StateFiles(directory, "r-1") as first, StateFiles(directory, "r-2") as second:
        first.write(source())
        second.write(source(run="r-2"))
        second.write(source(run="r-2"))
        assert load(directory / "state.json")["run"] == "r-1"
        (problem,) = second.read_edits().problems
        assert "another live run's; `agentful status r-2` shows this one" in problem
        answer(directory)
        assert not second.edited()
        assert second.read_edits() == NOTHING
        assert first.read_edits().answers == [("d1", "Skip")]
        first.write(source())

        first.close()
        second.write(source(run="r-2"))
        assert load(directory / "state.json")["run"] == "r-2"
        assert second.read_edits() == NOTHING
        assert backups(directory) == []

        second.close()
        first.write(source())
        assert load(directory / "decisions.json")["run"] == "r-1"
        assert first.read_edits() == NOTHING


def test_an_edit_for_another_run_is_kept_aside(directory: Path) -> None:
    with StateFiles(directory, "r-1") as files:
        files.write(source())
    answer(directory)
    with StateFiles(directory, "r-2") as files:
        files.write(source(run="r-2"))
        edits = files.read_edits()
        assert edits.answers == []
        (problem,) = edits.problems
        assert problem.startswith("decisions.json has changes that belong to run r-1; it is kept as")
    (backup,) = backups(directory)
    assert load(directory / backup)["decisions"][0]["resolution"] == "Skip"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"state.json": 5}', b"[" * 60_000])
def test_a_lost_memory_costs_nothing(directory: Path, content: bytes) -> None:
    with StateFiles(directory, RUN) as files:
        files.write(source())
    (directory / ".statefiles").write_bytes(content)
    with StateFiles(directory, RUN) as files:
        files.write(source())
        assert files.read_edits() == NOTHING
        assert backups(directory) == []
        answer(directory)
        assert files.read_edits().answers == [("d1", "Skip")]


def test_a_link_in_place_of_the_memory_is_not_followed(directory: Path, tmp_path: Path) -> None:
    directory.mkdir()
    (directory / ".statefiles").symlink_to(tmp_path / "victim")
    with StateFiles(directory, RUN) as files:
        files.write(source())
        assert len(files.read_edits().problems) == 1
    assert not (tmp_path / "victim").exists()
    assert not (directory / "state.json").exists()


# --- anything at all --------------------------------------------------------------------------------

WORDS = ["d1", "d2", "api", "Skip", "resolved", "pending", "complete", "r-1", "r-2", "", "x"]
KEYS = ["run", "id", "status", "answer", "resolution", "features", "decisions", "pending", "resolved", "api"]
documents = st.dictionaries(
    st.sampled_from(KEYS),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(WORDS),
        lambda children: (
            st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(KEYS), children, max_size=4)
        ),
        max_leaves=10,
    ),
    max_size=6,
).map(msgspec.json.encode)
mangled = st.tuples(st.integers(0, 2000), st.binary(max_size=4), st.integers(0, 20))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(NAMES),
    content=st.binary(max_size=60) | documents | mangled,
    known=st.booleans(),
)
@example(name="decisions.json", content=b'{"run": {}}', known=True)
@example(name="decisions.json", content=b'{"run": [1], "decisions": 1}', known=False)
def test_no_content_upsets_it(
    name: str, content: bytes | tuple[int, bytes, int], known: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever stands there: it never raises, what it hands out makes sense, nothing is lost."""
    directory = tmp_path_factory.mktemp("agentful")
    with StateFiles(directory, RUN) as files:
        files.write(source())
        ours = (directory / name).read_bytes()
        if isinstance(content, tuple):
            start, new, length = content
            content = ours[:start] + new + ours[start + length :]
        put(directory / name, content)
        if not known:
            files.close()
            files = StateFiles(directory, RUN)
        with files:
            edits = files.read_edits()
            assert all(isinstance(text, str) for pair in edits.answers for text in pair)
            if known:
                assert set(edits.answers) <= {("d1", "Skip"), ("d1", "Retry")}
                assert set(edits.completed) <= {"api"}
            files.write(source())
            for file in NAMES:
                assert load(directory / file)["run"] == RUN
            for backup in backups(directory):
                assert (directory / backup).read_bytes() == content
            files.read_edits()
            assert not files.edited()
