from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentful.errors import JournalError
from agentful.runtime.database import Busy, Database, DiskFull

if TYPE_CHECKING:
    from collections.abc import Iterator

V1 = (("CREATE TABLE words (word TEXT)",),)
V2 = (*V1, ("ALTER TABLE words ADD COLUMN length INTEGER", "UPDATE words SET length = length(word)"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".agentful" / "journal.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database(path, V1)
    yield database
    database.close()


def put(database: Database, *words: str) -> None:
    with database.transaction() as db:
        db.executemany("INSERT INTO words (word) VALUES (?)", [(word,) for word in words])


def get(database: Database) -> list[str]:
    with database.snapshot() as db:
        return [row[0] for row in db.execute("SELECT word FROM words ORDER BY rowid")] if db else []


@contextlib.contextmanager
def no_longer_writable(directory: Path) -> Iterator[None]:
    """Take the right to write in a directory, from root as well."""
    mode = stat.S_IMODE(directory.stat().st_mode)
    root = os.geteuid() == 0
    if root:
        for file in [directory, *directory.iterdir()]:
            os.chown(file, 65534, -1)
    directory.chmod(0o500)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        directory.chmod(mode)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """As ``path``, where every user may look: pytest's own directories are for one user."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name) / "journal.db"


# --- opening ----------------------------------------------------------------------------------------


def test_reading_creates_nothing(database: Database, path: Path) -> None:
    assert get(database) == []
    assert database.data_version() == 0
    assert database.problems() == []
    assert not path.parent.exists()


def test_what_is_created_is_for_one_user(database: Database, path: Path) -> None:
    put(database, "a")

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert {file.name for file in path.parent.iterdir()} >= {"journal.db", "journal.db-wal"}


def test_it_is_durable_by_its_settings(database: Database) -> None:
    with database.transaction() as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA fullfsync").fetchone() == (1,)


def test_a_file_left_half_made_is_completed(database: Database, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"")
    assert get(database) == []

    put(database, "a")
    assert get(database) == ["a"]


def test_many_processes_create_it_at_once(path: Path) -> None:
    script = """
import sys
from pathlib import Path
from agentful.runtime.database import Database
database = Database(Path(sys.argv[1]), (("CREATE TABLE words (word TEXT)",),))
sys.stdin.read()
with database.transaction() as db:
    db.execute("INSERT INTO words VALUES (?)", (sys.argv[2],))
database.close()
"""
    others = [
        subprocess.Popen([sys.executable, "-c", script, str(path), str(n)], stdin=subprocess.PIPE)
        for n in range(4)
    ]
    for other in others:
        assert other.stdin is not None
        other.stdin.close()
    assert [other.wait() for other in others] == [0] * 4

    with contextlib.closing(Database(path, V1)) as database:
        assert sorted(get(database)) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("name", ["a b", "per%20cent", "quest?ion", "hash#", "ünïcödé", "semi;colon'\""])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    with contextlib.closing(Database(tmp_path / name / "journal.db", V1)) as database:
        put(database, "a")
        assert get(database) == ["a"]
    assert (tmp_path / name / "journal.db").exists()


def test_it_opens_again_after_closing(database: Database) -> None:
    put(database, "a")
    database.close()
    put(database, "b")
    database.close()
    assert get(database) == ["a", "b"]


# --- transactions -----------------------------------------------------------------------------------


def test_a_transaction_that_fails_leaves_no_trace(database: Database) -> None:
    def fail() -> None:
        with database.transaction() as db:
            db.execute("INSERT INTO words VALUES ('b')")
            raise RuntimeError

    put(database, "a")
    with pytest.raises(RuntimeError):
        fail()
    put(database, "c")

    assert get(database) == ["a", "c"]


def test_a_reader_sees_one_state_and_keeps_nobody_from_writing(database: Database, path: Path) -> None:
    put(database, "a")
    with contextlib.closing(Database(path, V1)) as other, other.snapshot() as db:
        assert db is not None
        assert db.execute("SELECT count(*) FROM words").fetchone() == (1,)
        put(database, "b")
        assert db.execute("SELECT count(*) FROM words").fetchone() == (1,)
    assert get(database) == ["a", "b"]


def test_a_writer_that_does_not_let_go_is_named(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentful.runtime.database._BUSY_TIMEOUT", 0.01)
    put(database, "a")
    with (
        contextlib.closing(Database(path, V1)) as other,
        other.transaction(),
        pytest.raises(Busy, match="another process has kept"),
    ):
        put(database, "b")
    put(database, "c")
    assert get(database) == ["a", "c"]


def test_the_data_version_tells_of_every_write(database: Database, path: Path) -> None:
    put(database, "a")
    with contextlib.closing(Database(path, V1)) as other:
        versions = [other.data_version(), database.data_version()]
        assert versions == [other.data_version(), database.data_version()]
        put(database, "b")
        assert other.data_version() != versions[0]
        assert database.data_version() != versions[1]


# --- the schema -------------------------------------------------------------------------------------


def test_an_older_schema_is_migrated(database: Database, path: Path) -> None:
    put(database, "abc")
    with contextlib.closing(Database(path, V2)) as newer, newer.snapshot() as db:
        assert db is not None
        assert db.execute("SELECT word, length FROM words").fetchall() == [("abc", 3)]
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_migration_that_fails_changes_nothing(database: Database, path: Path) -> None:
    put(database, "abc")
    broken = (*V1, ("ALTER TABLE words ADD COLUMN length INTEGER", "UPDATE nowhere SET x = 1"))
    with contextlib.closing(Database(path, broken)) as newer, pytest.raises(JournalError, match="nowhere"):
        put(newer, "d")

    with database.snapshot() as db:
        assert db is not None
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT * FROM words").fetchall() == [("abc",)]


@pytest.mark.parametrize("use", [get, put, Database.data_version])
def test_a_newer_schema_is_refused_untouched(path: Path, use: object) -> None:
    with contextlib.closing(Database(path, V2)) as newer:
        put(newer, "abc")
    before = path.read_bytes()

    assert callable(use)
    with contextlib.closing(Database(path, V1)) as older, pytest.raises(JournalError, match="newer agentful"):
        use(older)
    with contextlib.closing(Database(path, V1)) as older:
        assert "newer agentful" in older.problems()[0]
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused_untouched(database: Database, path: Path) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()

    with pytest.raises(JournalError, match="not a journal of agentful's"):
        put(database, "a")
    with pytest.raises(JournalError, match="not a journal of agentful's"):
        get(database)
    assert path.read_bytes() == before


# --- trouble ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"once upon a time " * 100, b"x" * 600, b"SQLite format 3\0" + b"\xff" * 600]
)
def test_what_is_no_database_is_refused_untouched(database: Database, path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(JournalError, match="damaged"):
        put(database, "a")
    with pytest.raises(JournalError, match="damaged"):
        get(database)
    assert path.read_bytes() == content


def test_a_directory_in_its_place_is_an_error(database: Database, path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(JournalError, match="cannot be opened"):
        put(database, "a")
    with pytest.raises(JournalError, match=r"failed|cannot be opened"):
        get(database)


def test_a_file_in_place_of_its_directory_is_an_error(database: Database, path: Path) -> None:
    path.parent.write_text("")
    with pytest.raises(JournalError, match="cannot be used"):
        put(database, "a")
    assert get(database) == []


def test_a_full_disk_loses_nothing_and_may_be_tried_again(database: Database) -> None:
    put(database, "a")
    with database.transaction() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull, match="full: nothing of this step was written"):
        put(database, *["word" * 100] * 1000)
    assert get(database) == ["a"]

    with database.transaction() as db:
        db.execute("PRAGMA max_page_count = 1000000")
    put(database, "b")
    assert get(database) == ["a", "b"]


def test_a_failing_disk_is_named(database: Database, path: Path) -> None:
    put(database, "a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = path.with_name("journal.db-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, limits[1]))
    try:
        with pytest.raises(JournalError, match="see its disk"):
            put(database, "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert get(database) == ["a"]


def test_ballast_is_kept_and_given_up_once(database: Database, path: Path) -> None:
    put(database, "a")
    assert path.with_name("journal.ballast").stat().st_size == 256 * 1024
    assert database.drop_ballast()
    assert not database.drop_ballast()

    database.close()
    put(database, "b")
    assert path.with_name("journal.ballast").exists()


def test_no_room_for_ballast_is_no_trouble(database: Database, path: Path) -> None:
    path.with_name("journal.ballast").mkdir(parents=True)
    put(database, "a")
    assert get(database) == ["a"]


def test_a_file_removed_while_in_use_takes_no_more(database: Database, path: Path) -> None:
    put(database, "a")
    shutil.rmtree(path.parent)

    with pytest.raises(JournalError, match="removed or replaced"):
        put(database, "b")
    assert get(database) == []
    assert not path.parent.exists()


def test_a_reader_follows_a_file_that_was_made_anew(database: Database, path: Path) -> None:
    put(database, "a")
    with contextlib.closing(Database(path, V1)) as watcher:
        assert get(watcher) == ["a"]
        version = watcher.data_version()
        database.close()
        shutil.rmtree(path.parent)
        put(database, "b")

        assert watcher.data_version() != version
        assert get(watcher) == ["b"]


def test_damage_in_a_page_is_found(database: Database, path: Path) -> None:
    put(database, *["word" * 50] * 200)
    database.close()
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096)

    with pytest.raises(JournalError, match="damaged"):
        get(database)
    assert database.problems()


def test_it_is_read_where_nothing_may_be_written(open_path: Path) -> None:
    with contextlib.closing(Database(open_path, V1)) as database:
        put(database, "a")
    with (
        no_longer_writable(open_path.parent),
        contextlib.closing(Database(open_path, V1)) as database,
    ):
        assert get(database) == ["a"]
        assert database.data_version() == database.data_version()


def test_a_log_left_by_a_crash_is_read_where_nothing_may_be_written(open_path: Path) -> None:
    original = open_path.with_name("original.db")
    with contextlib.closing(Database(original, V1)) as database:
        put(database, "a")
        shutil.copyfile(original, open_path)
        shutil.copyfile(original.with_name("original.db-wal"), open_path.with_name("journal.db-wal"))
    with (
        no_longer_writable(open_path.parent),
        contextlib.closing(Database(open_path, V1)) as database,
    ):
        assert get(database) == ["a"]


def test_writing_where_nothing_may_be_written_is_an_error(open_path: Path) -> None:
    with (
        no_longer_writable(open_path.parent),
        contextlib.closing(Database(open_path, V1)) as database,
        pytest.raises(JournalError, match="cannot be created"),
    ):
        put(database, "a")


def test_a_file_that_may_not_be_read_is_an_error(open_path: Path) -> None:
    with contextlib.closing(Database(open_path, V1)) as database:
        put(database, "a")
    open_path.chmod(0)
    with (
        no_longer_writable(open_path.parent),
        contextlib.closing(Database(open_path, V1)) as database,
        pytest.raises(JournalError, match="cannot be opened"),
    ):
        get(database)


def test_a_file_that_may_only_be_read_is_read(open_path: Path) -> None:
    with contextlib.closing(Database(open_path, V1)) as database:
        put(database, "a")
    with no_longer_writable(open_path.parent):
        open_path.chmod(0o400)
        open_path.parent.chmod(0o700)
        with contextlib.closing(Database(open_path, V1)) as database:
            assert get(database) == ["a"]
            with pytest.raises(JournalError, match="cannot be written"):
                put(database, "b")
