"""What an agent printed: one file of JSON lines for each attempt, secrets taken out.

{"at": ..., "type": "attempt", "task": ..., "attempt": 1, "agent": ..., "base": ..., "prompt": ...}
{"at": ..., "line": "what the agent printed"}
{"at": ..., "note": "what agentful has to say"}
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any, Self

import msgspec

from .private import private_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .redact import Redactor

MOST = 64 * 1024 * 1024
"""Bytes of one log. An agent that prints more is heard, and no longer written down."""


class AttemptLog:
    """The log of one attempt, open for writing."""

    def __init__(self, path: Path, redactor: Redactor, clock: Callable[[], float]) -> None:
        self.path = path
        self._redactor = redactor
        self._lines = redactor.stream()
        self._clock = clock
        self._file: IO[bytes] | None = None
        self._size = 0

    def __enter__(self) -> Self:
        private_directory(self.path.parent)
        self._file = open(self.path, "ab", buffering=0, opener=_private)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def begin(self, **fields: Any) -> None:
        self._write({"type": "attempt", **fields, "prompt": self._redactor.redact(fields.get("prompt", ""))})

    def line(self, text: str) -> str:
        """Write a line down, and return it as it was written."""
        text = self._lines.redact(text)
        self._write({"line": text})
        return text

    def note(self, text: str) -> None:
        self._write({"note": self._redactor.redact(text)})

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is None or self._size > MOST:
            return
        data = msgspec.json.encode({"at": round(self._clock(), 3), **entry}) + b"\n"
        self._size += len(data)
        if self._size > MOST:
            data = msgspec.json.encode({"at": self._clock(), "note": "[the log ends here: too much]"}) + b"\n"
        try:
            self._file.write(data)
        except OSError:
            # A full disk ends the log, not the work: what counts is pinned and journalled.
            self._size = MOST + 1


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a log; a line that is not one, such as a torn last one, is left out."""
    with path.open("rb") as file:
        for line in file:
            try:
                entry = msgspec.json.decode(line)
            except msgspec.DecodeError:
                continue
            if isinstance(entry, dict):
                yield entry
