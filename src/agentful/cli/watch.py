"""``agentful watch``: the board of a run that another process carries out."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ..progress import Board, PlainPrinter, Scene, account, summary
from .exits import Exit, outcome
from .forecast import predicted
from .shared import here, run_argument, say, show, width

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..events import Transition
    from .shared import RunReader

_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Said:
    """What a task's log says last."""

    message: str
    percentage: float | None = None


class LastWords(dict[str, Said]):
    """For each task at work, the last line of its log, read when it is asked for."""

    def __init__(self, reader: RunReader) -> None:
        super().__init__()
        self._reader = reader

    def get(self, task_id: str, default: Said | None = None) -> Said | None:  # type: ignore[override]
        record = self._reader.view.records[task_id]
        line = last_line(self._reader.log(task_id, record.attempt))
        return default if line is None else Said(line)


def last_line(path: Path) -> str | None:
    """The last that an agent printed, or that we noted, by its log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            data = file.read()
    except OSError:
        return None
    for raw in reversed(data.splitlines()):
        try:
            entry = msgspec.json.decode(raw, type=dict[str, Any])
        except msgspec.DecodeError:
            continue
        text = entry.get("line") or entry.get("note")
        if text:
            return str(text)
    return None


@click.command()
@run_argument
def watch(run: str | None) -> int:
    """Follow a run that another terminal carries out: the latest, or RUN.

    Ctrl-C leaves; the run goes on. When the run ends, the exit code is that of `agentful run`. Where the
    output is no terminal, each change is a line.
    """
    with here() as place:
        reader = place.run(run)
        if not reader.is_live():
            say(f"nobody carries out {reader.info.id} at this moment")
        elif not _follow(reader):
            return Exit.DONE
        view = reader.view
        show(
            summary(
                view,
                run=reader.info.id,
                branch=reader.branch,
                wall=account(view).busy,
                predicted=predicted(view, reader.info.options),
                width=width(),
                resumable=view.done < view.total,
            )
        )
        return outcome(view)


def _ended(reader: RunReader) -> bool:
    return reader.view.total > 0 and reader.view.done == reader.view.total and not reader.is_live()


def _follow(reader: RunReader) -> bool:
    """Show the run until it ends; whether it was not left before."""
    try:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            _on_board(reader)
        else:
            say(f"watching {reader.info.id}; Ctrl-C leaves, and the run goes on")
            reader.follow(PlainPrinter(reader.view, reader.info.created_at, say), lambda: _ended(reader))
    except KeyboardInterrupt:
        return False
    return True


def _on_board(reader: RunReader) -> None:
    from rich.console import Console

    info = reader.info
    scene = Scene(
        run=info.id,
        title=info.title,
        started_at=info.created_at,
        expected=predicted(reader.view, info.options),
        activity=LastWords(reader),
        explain=reader.explain,
        notice="Ctrl-C leaves; the run goes on",
    )
    console = Console(stderr=True, highlight=False)
    with Board(reader.view, scene, console) as board:
        drawn = time.monotonic()

        def draw(_changes: Sequence[Transition]) -> None:
            board.draw()

        def over() -> bool:
            nonlocal drawn
            if time.monotonic() - drawn >= 0.5:
                # Clocks go on and agents talk, also when nothing is decided.
                drawn = time.monotonic()
                board.draw()
            return _ended(reader)

        reader.follow(draw, over)
