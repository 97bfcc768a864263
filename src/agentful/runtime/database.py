"""One SQLite file, opened so that what it acknowledges is durable and what fails is explained.

WAL with ``synchronous=FULL``, because NORMAL loses acknowledged commits at a power loss. A reader sees
a snapshot, lets go of it at once, and never blocks a writer; writers wait for each other.

SQLite's locks on the file belong to the process, and go when *any* descriptor for it is closed. So the
file is opened only through SQLite, once it exists.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import JournalError
from .private import private_directory, write_private

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

__all__ = ["Busy", "Database", "DiskFull"]

APPLICATION_ID = 0x61676674  # "agft"

_BUSY_TIMEOUT = 30.0
_BALLAST_BYTES = 256 * 1024


class DiskFull(JournalError):
    """Nothing of this step was written. It may be tried again when there is room."""


class Busy(JournalError):
    """Nothing of this step was written, because another process would not let go of the file."""


class Database:
    """A SQLite file and its schema. ``migrations`` are the statements from each version to the next.

    Nothing is opened before it is needed, and nothing is created before something is written. For one
    thread. Every failure is a :class:`JournalError` that says what to do.
    """

    def __init__(self, path: Path, migrations: Sequence[Sequence[str]]) -> None:
        self.path = path
        self._migrations = migrations
        self._writer: sqlite3.Connection | None = None
        self._writer_file: tuple[int, int] = (0, 0)
        self._reader: sqlite3.Connection | None = None
        self._reader_file: tuple[int, int] = (0, 0)
        self._copy: tempfile.TemporaryDirectory[str] | None = None

    @contextlib.contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """A transaction that writes: whole and durable when the block ends, else without a trace."""
        with self._explained():
            db = self._open_writer()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                _roll_back(db)
                raise

    @contextlib.contextmanager
    def snapshot(self) -> Generator[sqlite3.Connection | None]:
        """One consistent view to read; ``None`` where there is nothing yet."""
        with self._explained():
            db = self._open_reader()
            if db is None:
                yield None
                return
            db.execute("BEGIN")
            try:
                yield db
            finally:
                _roll_back(db)

    def data_version(self) -> int:
        """A number that differs from the last one when anything was written since. Cheap to ask.

        It means nothing across two objects of this class.
        """
        with self._explained():
            db = self._open_reader()
            if db is None:
                return 0
            # A file that was removed and made again counts anew, so which file it is belongs to it.
            return hash((self._reader_file, db.execute("PRAGMA data_version").fetchone()[0]))

    def problems(self) -> list[str]:
        """What SQLite itself finds wrong with the file. Reads all of it."""
        try:
            with self.snapshot() as db:
                rows = db.execute("PRAGMA integrity_check(20)").fetchall() if db else []
        except JournalError as error:
            return [str(error)]
        return [row[0] for row in rows if row[0] != "ok"]

    def close(self) -> None:
        """Close it. It opens again when it is used again."""
        for db in (self._writer, self._reader):
            if db is not None:
                with contextlib.suppress(sqlite3.Error):
                    db.close()
        self._writer = self._reader = None
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    def drop_ballast(self) -> bool:
        """Free the room that is kept for the last words of a run whose disk is full, if it is there."""
        try:
            self._ballast.unlink()
        except OSError:
            return False
        return True

    def damaged(self, what: str) -> JournalError:
        """The error for a file that is not as it was written."""
        return JournalError(
            f"{self.path} is damaged: {what}. Nothing in it was changed. The work of every attempt is safe "
            "in git, under refs/agentful/; put a copy of the file back, or move it away to begin a new one."
        )

    # --- opening ----------------------------------------------------------------------------------

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is not None:
            # SQLite would go on writing to a file that no longer has a name.
            if _identity(self.path) != self._writer_file:
                raise JournalError(
                    f"{self.path} was removed or replaced while it was in use; nothing more is written to it"
                )
            return self._writer
        try:
            private_directory(self.path.parent)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise JournalError(f"the directory of {self.path} cannot be used: {error}") from error
        try:
            # Making the file, turning it to WAL and migrating it cannot be one transaction.
            fcntl.flock(directory, fcntl.LOCK_EX)
            with contextlib.suppress(FileExistsError):
                write_private(self.path, b"")
            db = self._connect(self.path, "rw")
            try:
                self._prepare(db)
            except BaseException:
                db.close()
                raise
            self._lay_ballast()
        except OSError as error:
            raise JournalError(f"{self.path} cannot be created: {error}") from error
        finally:
            os.close(directory)
        self._writer, self._writer_file = db, _identity(self.path)
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = self._version(db)
        wal = db.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal"
        # Some file systems have no shared memory, hence no WAL. A rollback journal needs EXTRA to be
        # as durable as WAL with FULL.
        db.execute(f"PRAGMA synchronous = {'FULL' if wal else 'EXTRA'}")
        db.execute("PRAGMA fullfsync = ON")  # on macOS, where fsync alone does not reach the disk
        db.execute("PRAGMA checkpoint_fullfsync = ON")
        db.execute("PRAGMA journal_size_limit = 16777216")
        if version == len(self._migrations):
            return
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in (sql for step in self._migrations[version:] for sql in step):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {len(self._migrations)}")
            db.execute("COMMIT")
        except BaseException:
            _roll_back(db)
            raise

    def _open_reader(self) -> sqlite3.Connection | None:
        there = _identity(self.path)
        if self._reader is not None:
            if there == self._reader_file:
                return self._reader
            self._reader.close()
            self._reader = None
        if there == _NOWHERE:
            return None
        db = self._connect(self.path, "ro")
        try:
            version = self._version(db)
        except sqlite3.OperationalError:
            db.close()
            if _is_writable(self.path.parent):
                raise
            # SQLite wants to make files beside it. Nobody can be writing to it in such a directory,
            # so that a copy is as good.
            db = self._connect(self._copy_aside(), "rw")
            version = self._version(db)
        except BaseException:
            db.close()
            raise
        if version == 0:
            db.close()
            return None
        self._reader, self._reader_file = db, there
        if version < len(self._migrations):
            self._open_writer()
        return db

    def _copy_aside(self) -> Path:
        if self._copy is not None:
            self._copy.cleanup()
        self._copy = tempfile.TemporaryDirectory(prefix="agentful-journal-")
        copy = Path(self._copy.name) / "journal.db"
        try:
            shutil.copyfile(self.path, copy)
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(
                    self.path.with_name(f"{self.path.name}-wal"), copy.with_name("journal.db-wal")
                )
        except OSError as error:
            raise JournalError(f"{self.path} cannot be read: {error}") from error
        return copy

    def _connect(self, path: Path, mode: str) -> sqlite3.Connection:
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None)

    def _version(self, db: sqlite3.Connection) -> int:
        """The version of its schema, 0 for an empty file. Refuses what is not ours or too new."""
        application = db.execute("PRAGMA application_id").fetchone()[0]
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if application != APPLICATION_ID:
            if application or version or db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
                raise JournalError(
                    f"{self.path} is a database, but not a journal of agentful's; move it out of the way"
                )
        elif version > len(self._migrations):
            raise JournalError(
                f"{self.path} was written by a newer agentful (schema {version}, this one knows "
                f"{len(self._migrations)}); upgrade agentful to use it. Nothing in it was changed."
            )
        return version

    @property
    def _ballast(self) -> Path:
        return self.path.with_name("journal.ballast")

    def _lay_ballast(self) -> None:
        try:
            write_private(self._ballast, os.urandom(_BALLAST_BYTES))  # zeros may take no room at all
        except FileExistsError:
            pass
        except OSError:
            self.drop_ballast()

    # --- failing ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a bug of ours
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _explain(self, error: sqlite3.Error) -> JournalError:
        # What Python's module says by itself, it says of text that is not UTF-8.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return DiskFull(
                f"the disk that holds {self.path} is full: nothing of this step was written. "
                "Free some space, then `agentful resume`."
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self.damaged(str(error))
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Busy(
                f"another process has kept {self.path} locked for {_BUSY_TIMEOUT:.0f} seconds: "
                "see which one has it open (`fuser`, `lsof`), then `agentful resume`"
            )
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return JournalError(f"{self.path} cannot be written: {error}; see its permissions")
        if code == sqlite3.SQLITE_CANTOPEN:
            return JournalError(f"{self.path} cannot be opened: {error}; see its permissions and its disk")
        return JournalError(f"{self.path} failed: {error}; see its disk, then `agentful resume`")


_NOWHERE = (0, 0)


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from another that has its name later."""
    try:
        found = path.stat()
    except OSError:
        return _NOWHERE
    return (found.st_dev, found.st_ino)


def _is_writable(directory: Path) -> bool:
    return os.access(directory, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _roll_back(db: sqlite3.Connection) -> None:
    # A full disk makes SQLite roll back by itself.
    if db.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
