"""``agentful status`` and ``agentful runs``: what there is, read from the journal."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

import click

from ..model import State, format_duration
from ..progress import Scene, account, clip, frame, iso, one_line, status_document, summary
from .exits import Exit, outcome
from .forecast import predicted
from .shared import RunReader, here, run_argument, show, show_json, width

if TYPE_CHECKING:
    from ..progress import Line

_MOST_LINES = 200
"""Lines of a status: it is no board, and may be longer than the screen."""


@click.command()
@run_argument
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document (version 1).")
@click.option(
    "--exit-code", is_flag=True, help="Exit with what the run came to, as `agentful run` does, not with 0."
)
def status(run: str | None, as_json: bool, exit_code: bool) -> int:
    """Show a run on one screen: the latest, or RUN.

    RUN is a run's id or the start of it. The exit code is 0 whatever the run came to. With --exit-code
    it is that of `agentful run`: 3 when the run waits for a decision, 130 when it has not ended.
    """
    with here() as place:
        reader = place.run(run)
        live = reader.is_live()
        if as_json:
            info = reader.info
            show_json(
                status_document(reader.view, run=info.id, branch=reader.branch, live=live, title=info.title)
            )
        elif reader.view.total and reader.view.done == reader.view.total:
            show(_ended(reader))
        else:
            _show_open(reader, live)
        if not exit_code:
            return Exit.DONE
        return outcome(reader.view, interrupted=reader.view.state(live=live) != "waiting")


def _ended(reader: RunReader) -> list[Line]:
    return summary(
        reader.view,
        run=reader.info.id,
        branch=reader.branch,
        wall=account(reader.view).busy,
        predicted=predicted(reader.view, reader.info.options),
        width=width(),
    )


def _show_open(reader: RunReader, live: bool) -> None:
    info, view = reader.info, reader.view
    notice = f"agentful watch {info.id} follows it"
    if not live:
        notice = f"nobody carries it out; agentful resume {info.id} goes on"
    scene = Scene(
        run=info.id,
        title=info.title,
        started_at=info.created_at,
        expected=predicted(view, info.options),
        explain=reader.explain,
        notice=notice,
    )
    show(frame(view, scene, time.time() if live else max(view.at, info.created_at), width(), _MOST_LINES))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document (version 1).")
@click.option("-n", "--number", default=20, show_default=True, help="How many; 0 for all.")
def runs(as_json: bool, number: int) -> None:
    """List the runs of this repository, newest first."""
    with here() as place:
        infos = place.journal.runs()
        readers = [RunReader(place, info) for info in infos[: number or None]]
        if as_json:
            show_json(
                {
                    "version": 1,
                    "runs": [
                        {
                            "run": reader.info.id,
                            "title": reader.info.title,
                            "state": reader.view.state(live=reader.is_live()),
                            "branch": reader.branch,
                            "started_at": iso(reader.info.created_at),
                            "finished_at": iso(reader.info.finished_at),
                            "tasks": reader.view.total,
                            "succeeded": reader.view.counts[State.SUCCEEDED],
                        }
                        for reader in readers
                    ],
                }
            )
            return
        if not infos:
            click.echo("no runs yet; `agentful run PLAN` starts one")
            return
        show(_row(reader) for reader in readers)
        if len(infos) > len(readers):
            click.echo(f"and {len(infos) - len(readers)} older; `agentful runs -n 0` lists them", err=True)


_STYLES = {"running": "cyan", "waiting": "yellow", "succeeded": "green", "failed": "red"}


def _row(reader: RunReader) -> Line:
    info, view = reader.info, reader.view
    state = view.state(live=reader.is_live())
    began = datetime.fromtimestamp(info.created_at).astimezone().strftime("%Y-%m-%d %H:%M")
    took = format_duration(round(account(view).busy))
    left = f"{info.id}  {began}  "
    middle = f"  {view.counts[State.SUCCEEDED]}/{view.total} done  {took:>7}  "
    room = width() - len(left) - len(middle) - 11
    return [
        (left, ""),
        (f"{state:<11}", _STYLES.get(state, "")),
        (middle, ""),
        (clip(one_line(info.title), room), "dim"),
    ]
