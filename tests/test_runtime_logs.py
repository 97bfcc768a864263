"""The log of an attempt: whole lines, no secrets, bounded, and read whatever is in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentful.runtime import logs
from agentful.runtime.logs import AttemptLog
from agentful.runtime.redact import Redactor

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SECRET = "Zq8vT3nLx0pR7sWd"


def log(path: Path) -> AttemptLog:
    return AttemptLog(path, Redactor([SECRET]), lambda: 1.0)


def test_what_is_written_is_read_again_without_secrets(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "t.1.jsonl"
    with log(path) as out:
        out.begin(task="t", prompt=f"use {SECRET}")
        assert SECRET not in out.line(f"key={SECRET}")
        out.note(f"saw {SECRET}")
        out.line("\x00\x1b[1m \u2028 last")
    entries = list(logs.read(path))
    assert [sorted(entry) for entry in entries[1:]] == [["at", "line"], ["at", "note"], ["at", "line"]]
    assert entries[0]["type"] == "attempt"
    assert SECRET not in path.read_text()
    assert entries[-1]["line"].endswith("last")


def test_a_second_opening_goes_on_behind_the_first(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with log(tmp_path / "x") as out:
            out.line(text)
    assert [entry["line"] for entry in logs.read(tmp_path / "x")] == ["one", "two"]


def test_what_is_no_entry_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b'{"at":1,"line":"good"}\n[1]\nrubbish\n\xff\xfe\n{"at":2,"li')
    assert [entry["line"] for entry in logs.read(path)] == ["good"]


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST", 1000)
    with log(tmp_path / "x") as out:
        for _ in range(100):
            assert out.line("x" * 100) == "x" * 100, "it is heard all the same"
    entries = list(logs.read(tmp_path / "x"))
    assert "too much" in entries[-1]["note"]
    assert (tmp_path / "x").stat().st_size < 1200


def test_a_closed_log_takes_nothing_and_harms_nothing(tmp_path: Path) -> None:
    out = log(tmp_path / "x")
    with out:
        pass
    assert out.line("late") == "late"
    assert list(logs.read(tmp_path / "x")) == []
