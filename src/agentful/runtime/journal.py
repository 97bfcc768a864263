"""The journal: what was decided, written down before it is acted on. It is the one truth.

    runs          what a run is: its plan, branch, options, and how it ended
    heads         how many transitions each run has
    transitions   one a row, in order, as JSON with a checksum
    requests      what other processes ask of a live run (see ``inbox.py``)

Rules of this file:

- ``append`` returns when its transitions are durable. A step is in the journal whole or not at all.
- Nothing is written that could not be read again: each step is decoded before it is committed.
- Damage is told, never mended. SQLite's pages have no checksums, so each row has one, rows are
  numbered without a gap, and ``heads`` says which number is the last.
- A run's number of transitions is moved by compare-and-set, so that a second writer of one run, were
  there ever one, is refused instead of woven in.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import msgspec
from msgspec import Struct

from ..errors import JournalError
from ..events import TaskChanged, Transition
from ..model import Agent, Options
from .database import Busy, Database, DiskFull

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence
    from types import TracebackType

__all__ = ["Journal", "JournalFile", "MemoryJournal", "Request", "RunInfo", "SqliteJournal", "plain"]

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE runs (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            crc INTEGER NOT NULL,
            info TEXT NOT NULL
        )""",
        "CREATE TABLE heads (run INTEGER PRIMARY KEY REFERENCES runs, seq INTEGER NOT NULL)",
        """CREATE TABLE transitions (
            run INTEGER NOT NULL REFERENCES runs,
            seq INTEGER NOT NULL,
            crc INTEGER NOT NULL,
            body TEXT NOT NULL,
            PRIMARY KEY (run, seq)
        ) WITHOUT ROWID""",
        """CREATE TABLE requests (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            run TEXT NOT NULL,
            at REAL NOT NULL,
            kind TEXT NOT NULL,
            payload TEXT NOT NULL,
            handled_at REAL,
            answer TEXT
        )""",
        "CREATE INDEX requests_open ON requests (run, id) WHERE handled_at IS NULL",
    ),
)
"""The statements that lead from each version of the schema to the next. Only ever added to."""

_MAX_DEPTH = 64


class Journal(Protocol):
    """Where a run's transitions go."""

    def append(self, transitions: Sequence[Transition]) -> None:
        """Write down one step. It is durable when this returns; else :class:`JournalError`."""
        ...

    def transitions(self) -> list[Transition]:
        """Everything written so far, in order."""
        ...


class MemoryJournal:
    """A journal that lasts as long as the object: for tests, and for runs that need no resume."""

    def __init__(self, transitions: Sequence[Transition] = ()) -> None:
        self._transitions = list(transitions)

    def append(self, transitions: Sequence[Transition]) -> None:
        self._transitions.extend(transitions)

    def transitions(self) -> list[Transition]:
        return list(self._transitions)


class RunInfo(Struct, frozen=True, kw_only=True):
    """What a run is, apart from its story."""

    id: str
    created_at: float
    title: str = ""
    plan: str = ""
    """Where the plan was read from; empty for a run that was started by code."""
    plan_text: str = ""
    """The plan as it was run, so that a resume needs no file."""
    branch: str = ""
    """``refs/heads/agentful/<run>``, the integration branch."""
    base: str = ""
    """The commit that it started from."""
    options: Options = Options()
    agents: dict[str, Agent] = {}
    settings: dict[str, Any] = {}
    version: str = ""
    """The version of agentful that began it."""
    state: str = "running"
    finished_at: float | None = None


class Request(Struct, frozen=True):
    """What another process asks of a run: stop, cancel a task, answer a decision."""

    id: int
    run: str
    at: float
    kind: str
    payload: Any = None
    handled_at: float | None = None
    answer: Any = None

    @property
    def handled(self) -> bool:
        return self.handled_at is not None


class JournalFile:
    """The journal of one repository, ``.agentful/journal.db``: all its runs.

    Nothing is opened before it is needed, and nothing is created before something is written. Use it
    from one thread; close it, or use it as a context manager. Every failure is a
    :class:`JournalError` that says what to do.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._db = Database(self.path, MIGRATIONS)

    # --- runs -------------------------------------------------------------------------------------

    def create_run(self, info: RunInfo) -> None:
        """Add a run. Raises where there is one with its id."""
        body = _encode_info(_info_fields(info))
        with self._db.transaction() as db:
            if db.execute("SELECT 1 FROM runs WHERE id = ?", (info.id,)).fetchone():
                raise JournalError(f"there is a run {info.id} in {self.path} already")
            number = db.execute(
                "INSERT INTO runs (id, crc, info) VALUES (?, ?, ?)",
                (info.id, zlib.crc32(body), body.decode()),
            ).lastrowid
            db.execute("INSERT INTO heads (run, seq) VALUES (?, 0)", (number,))

    def update_run(self, run_id: str, **changes: Any) -> RunInfo:
        """Change fields of a run's :class:`RunInfo`; what is there now is returned.

        When the disk is full it uses the room that is kept for this, so that how a run stopped can
        still be written down.
        """
        try:
            return self._update_run(run_id, changes)
        except DiskFull:
            if not self._db.drop_ballast():
                raise
            return self._update_run(run_id, changes)

    def _update_run(self, run_id: str, changes: dict[str, Any]) -> RunInfo:
        with self._db.transaction() as db:
            number, before = self._load_run(db, run_id)
            after = _info_fields(msgspec.structs.replace(self._decode_info(run_id, before), **changes))
            # Fields that a later version has added stay as they are.
            body = _encode_info(msgspec.json.decode(before) | {name: after[name] for name in changes})
            db.execute(
                "UPDATE runs SET crc = ?, info = ? WHERE number = ?",
                (zlib.crc32(body), body.decode(), number),
            )
        return self._decode_info(run_id, body)

    def remove_run(self, run_id: str) -> None:
        """Forget a run of which nothing was ever written down. Raises for any other."""
        with self._db.transaction() as db:
            number, _ = self._load_run(db, run_id)
            if db.execute("DELETE FROM heads WHERE run = ? AND seq = 0", (number,)).rowcount != 1:
                raise JournalError(f"run {run_id} has a story, which is kept")
            db.execute("DELETE FROM requests WHERE run = ?", (run_id,))
            db.execute("DELETE FROM runs WHERE number = ?", (number,))

    def runs(self) -> list[RunInfo]:
        """All runs, newest first; none where there is no journal yet."""
        with self._db.snapshot() as db:
            if db is None:
                return []
            rows = db.execute("SELECT id, crc, CAST(info AS BLOB) FROM runs ORDER BY number DESC").fetchall()
        return [self._decode_info(run_id, body, crc) for run_id, crc, body in rows]

    def run(self, run_id: str) -> RunInfo | None:
        """The run with exactly this id."""
        with self._db.snapshot() as db:
            if db is None:
                return None
            row = db.execute("SELECT crc, CAST(info AS BLOB) FROM runs WHERE id = ?", (run_id,)).fetchone()
        return self._decode_info(run_id, row[1], row[0]) if row else None

    def find(self, prefix: str = "latest") -> RunInfo:
        """The run that a person means: its id, the start of it (``r-`` may be left out), ``latest``.

        Raises with the candidates named where there is none, or more than one.
        """
        if exact := self.run(prefix):
            return exact
        runs = self.runs()
        if not runs:
            raise JournalError(f"there are no runs in {self.path.parent}; `agentful run PLAN` starts one")
        if prefix == "latest":
            return runs[0]
        found = [
            run for run in runs if prefix and (run.id.startswith(prefix) or run.id[2:].startswith(prefix))
        ]
        if len(found) == 1:
            return found[0]
        problem = f"{prefix!r} could be any of {len(found)} runs" if found else f"there is no run {prefix!r}"
        listed = found or runs
        names = ", ".join(f"{run.id} ({run.title:.40})" if run.title else run.id for run in listed[:8])
        more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
        raise JournalError(f"{problem}: {'choose from' if found else 'there are'} {names}{more}")

    # --- transitions ------------------------------------------------------------------------------

    def writer(self, run_id: str) -> SqliteJournal:
        """The journal of one run, for the process that carries it out (which holds its lock)."""
        with self._db.transaction() as db:
            number, _ = self._load_run(db, run_id)
            row = db.execute("SELECT seq FROM heads WHERE run = ?", (number,)).fetchone()
            if row is None:
                raise self._db.damaged(f"the length of run {run_id} is missing")
        return SqliteJournal(self, self._db, run_id, number, row[0])

    def read(self, run_id: str, after_seq: int = 0) -> tuple[list[Transition], int]:
        """The transitions of a run after the ``after_seq``-th, and the number of the last.

        For readers in any process, while the run goes on: call it again with the number that it gave.
        """
        with self._db.snapshot() as db:
            if db is None:
                raise self._unknown(run_id)
            head = db.execute(
                "SELECT runs.number, heads.seq FROM runs LEFT JOIN heads ON run = number WHERE id = ?",
                (run_id,),
            ).fetchone()
            if head is None:
                raise self._unknown(run_id)
            number, last = head
            rows = db.execute(
                "SELECT seq, crc, CAST(body AS BLOB) FROM transitions WHERE run = ? AND seq > ? ORDER BY seq",
                (number, after_seq),
            ).fetchall()
        bodies: list[bytes] = []
        seq = min(after_seq, last or 0)
        for found, crc, body in rows:
            seq += 1
            if found != seq or zlib.crc32(body, seq) != crc:
                raise self._db.damaged(f"transition {seq} of run {run_id} is not as it was written")
            bodies.append(body)
        if seq != last:
            raise self._db.damaged(f"run {run_id} ends at transition {seq} in place of {last}")
        return self._decode(run_id, bodies), seq

    def _decode(self, run_id: str, bodies: list[bytes]) -> list[Transition]:
        try:
            return _TRANSITIONS.decode(b"[%b]" % b",".join(bodies))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            # Its checksum is right, so it is what somebody wrote, and we are too old for it.
            raise JournalError(
                f"run {run_id} has transitions that this version of agentful cannot read ({error}); "
                "use the version that wrote them, or a newer one"
            ) from error

    def data_version(self) -> int:
        """A number that differs from the last one when anything was written since. Cheap to ask.

        For watchers, in the writing process too. It means nothing across two ``JournalFile`` objects.
        """
        return self._db.data_version()

    def integrity_check(self) -> list[str]:
        """Everything that is wrong with the file; empty where it is sound. Reads all of it."""
        problems = self._db.problems()
        try:
            with self._db.snapshot() as db:
                ids = [row[0] for row in db.execute("SELECT id FROM runs ORDER BY number")] if db else []
        except JournalError as error:
            return problems or [str(error)]
        for run_id in ids:
            try:
                self.run(run_id)
                self.read(run_id)
            except JournalError as error:
                problems.append(str(error))
        return problems

    # --- requests ---------------------------------------------------------------------------------

    def add_request(self, run_id: str, kind: str, payload: Any, *, at: float) -> int:
        """Write down what is asked of a run. Ids ascend in the order that requests became durable."""
        body = msgspec.json.encode(plain(payload)).decode()
        with self._db.transaction() as db:
            self._load_run(db, run_id)
            done = db.execute(
                "INSERT INTO requests (run, at, kind, payload) VALUES (?, ?, ?, ?)", (run_id, at, kind, body)
            )
        assert done.lastrowid is not None
        return done.lastrowid

    def open_requests(self, run_id: str, *, after: int = 0) -> list[Request]:
        """The requests to a run that have no answer yet, with ids above ``after``, oldest first."""
        with self._db.snapshot() as db:
            if db is None:
                return []
            rows = db.execute(
                "SELECT id, run, at, kind, CAST(payload AS BLOB), handled_at, CAST(answer AS BLOB) "
                "FROM requests WHERE run = ? AND id > ? AND handled_at IS NULL ORDER BY id",
                (run_id, after),
            ).fetchall()
        return [_request(row) for row in rows]

    def request(self, request_id: int) -> Request | None:
        """One request, as it stands."""
        with self._db.snapshot() as db:
            if db is None:
                return None
            row = db.execute(
                "SELECT id, run, at, kind, CAST(payload AS BLOB), handled_at, CAST(answer AS BLOB) "
                "FROM requests WHERE id = ?",
                (request_id,),
            ).fetchone()
        return _request(row) if row else None

    def answer_request(self, request_id: int, answer: Any, *, at: float) -> None:
        """Close a request. The first answer counts."""
        with self._db.transaction() as db:
            db.execute(
                "UPDATE requests SET handled_at = ?, answer = ? WHERE id = ? AND handled_at IS NULL",
                (at, msgspec.json.encode(plain(answer)).decode(), request_id),
            )

    # --- the file ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close it. It opens again when it is used again."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _load_run(self, db: sqlite3.Connection, run_id: str) -> tuple[int, bytes]:
        row = db.execute(
            "SELECT number, crc, CAST(info AS BLOB) FROM runs WHERE id = ?", (run_id,)
        ).fetchone()
        if row is None:
            raise self._unknown(run_id)
        number, crc, body = row
        self._decode_info(run_id, body, crc)
        return number, body

    def _decode_info(self, run_id: str, body: bytes, crc: int | None = None) -> RunInfo:
        if crc is not None and zlib.crc32(body) != crc:
            raise self._db.damaged(f"the description of run {run_id} is not as it was written")
        try:
            return _INFO.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise JournalError(
                f"run {run_id} was described by a version of agentful that this one cannot read ({error})"
            ) from error

    def _unknown(self, run_id: str) -> JournalError:
        return JournalError(f"there is no run {run_id} in {self.path}; `agentful runs` lists them")


class SqliteJournal:
    """The journal of one run in a :class:`JournalFile`, for the one process that carries it out."""

    def __init__(self, file: JournalFile, database: Database, run_id: str, number: int, seq: int) -> None:
        self._file = file
        self._db = database
        self._run_id = run_id
        self._number = number
        self._seq = seq
        self._failure: JournalError | None = None

    @property
    def seq(self) -> int:
        """The number of its last transition."""
        return self._seq

    def append(self, transitions: Sequence[Transition]) -> None:
        """Write down one step, in one transaction; it is durable when this returns.

        Raises :class:`JournalError` and has written nothing. After a full disk or a lock that did not
        come free it may be tried again. After any other failure the journal takes no more: what the
        disk has by then is known only when it is opened anew.
        """
        if self._failure is not None:
            raise JournalError(f"the journal took no more after this: {self._failure}") from self._failure
        if not transitions:
            return
        bodies = [_encode(transition) for transition in transitions]
        try:
            # What went in has to come out again at a resume, also where code gave a field a wrong type.
            _TRANSITIONS.decode(b"[%b]" % b",".join(bodies))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise JournalError(f"a step of run {self._run_id} cannot be written down: {error}") from error
        try:
            self._write(bodies)
        except (DiskFull, Busy):
            raise
        except JournalError as error:
            self._failure = error
            raise
        self._seq += len(bodies)

    def _write(self, bodies: list[bytes]) -> None:
        rows = [
            (self._number, seq, zlib.crc32(body, seq), body.decode())
            for seq, body in enumerate(bodies, self._seq + 1)
        ]
        with self._db.transaction() as db:
            moved = db.execute(
                "UPDATE heads SET seq = ? WHERE run = ? AND seq = ?",
                (self._seq + len(rows), self._number, self._seq),
            )
            if moved.rowcount != 1:
                raise JournalError(f"another process has written to run {self._run_id}; this one stops here")
            db.executemany("INSERT INTO transitions (run, seq, crc, body) VALUES (?, ?, ?, ?)", rows)

    def transitions(self) -> list[Transition]:
        """Everything written to this run, in order, read from the file."""
        return self._file.read(self._run_id)[0]


_ENCODER = msgspec.json.Encoder(enc_hook=str)
_TRANSITIONS: msgspec.json.Decoder[list[Transition]] = msgspec.json.Decoder(list[Transition])
_INFO = msgspec.json.Decoder(RunInfo)


def plain(value: Any, *, depth: int = 0) -> Any:
    """A value as JSON can keep it and give it back: for what comes from an agent or from user code.

    Tuples and sets become lists, data classes become objects, keys and all else become text, and so do
    numbers of a thousand digits and whatever lies more than 64 levels deep. Lone surrogates become
    question marks.
    """
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, int):
        return value if value.bit_length() <= 4096 else hex(value)
    if isinstance(value, bytes | bytearray):
        return value.decode(errors="replace")
    if depth == _MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return {_text(key): plain(item, depth=depth + 1) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth=depth + 1) for item in cast("Iterable[object]", value)]
    try:
        simpler = msgspec.to_builtins(value)
    except Exception:  # noqa: BLE001 - whatever an object of the user's raises
        return _text(value)
    return _text(value) if type(simpler) is type(value) else plain(simpler, depth=depth + 1)


def _text(value: Any) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001
        text = f"<{type(value).__name__}>"
    return text.encode(errors="replace").decode()


def _encode(transition: Transition) -> bytes:
    if isinstance(transition, TaskChanged) and transition.detail is not None and transition.detail.outputs:
        detail = msgspec.structs.replace(transition.detail, outputs=plain(transition.detail.outputs))
        transition = msgspec.structs.replace(transition, detail=detail)
    try:
        return _ENCODER.encode(transition)
    except UnicodeEncodeError:
        return _ENCODER.encode(plain(msgspec.to_builtins(transition, enc_hook=str)))


def _info_fields(info: RunInfo) -> dict[str, Any]:
    agents = {
        name: msgspec.structs.replace(agent, extra=plain(agent.extra)) for name, agent in info.agents.items()
    }
    info = msgspec.structs.replace(info, settings=plain(info.settings), agents=agents)
    return cast("dict[str, Any]", msgspec.to_builtins(info, enc_hook=str))


def _encode_info(info: Any) -> bytes:
    body = msgspec.json.encode(plain(info))
    try:
        _INFO.decode(body)
    except msgspec.DecodeError as error:
        raise JournalError(f"this run cannot be written down: {error}") from error
    return body


def _request(row: tuple[Any, ...]) -> Request:
    number, run, at, kind, payload, handled_at, answer = row
    try:
        asked = msgspec.json.decode(payload)
        answered = None if answer is None else msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalError(f"request {number} in the journal cannot be read: {error}") from error
    return Request(number, run, at, kind, asked, handled_at, answered)
