"""``agentful land``, ``recover`` and ``clean``: what a person does with what past runs left."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

import click

from ..progress import as_word, clip, one_line
from ..runtime import branch
from .exits import Exit, Fault, nearest
from .shared import here, run_argument, say, short, show, width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..progress import Line
    from ..runtime.branch import LandReport, Leftover, Pin
    from ..runtime.git import Repository
    from ..runtime.journal import RunInfo
    from .shared import Place

_MOST_ROWS = 40


# --- land ----------------------------------------------------------------------------------------


@click.command()
@run_argument
@click.option("--into", metavar="BRANCH", help="Your branch; the one that is checked out, if left out.")
def land(run: str | None, into: str | None) -> None:
    """Bring what a run has landed on its own branch into yours: the latest run, or RUN.

    Where your branch has gone on in the meantime, the two are merged aside, and the run's checks have to
    pass on the merged tree first. Nothing of yours moves while uncommitted work is in the way, or when
    the two conflict (exit code 4).
    """
    with here() as place:
        reader = place.run(run)
        view = reader.view
        if view.done < view.total:
            say(f"run {reader.info.id} has not ended; this lands what {view.done} of {view.total} tasks did")
        report = land_run(place.repo, reader.info, into)
        tell_landed(report, reader.branch)


def land_run(repo: Repository, info: RunInfo, into: str | None = None) -> LandReport:
    """Land a run's branch. Raises ConflictError, ChecksFailed or WorkspaceError, and then nothing moved."""
    return asyncio.run(branch.land(repo, info, into=into))


def tell_landed(report: LandReport, source: str, *, err: bool = False) -> None:
    """Say what landing did."""
    if report.kind == "nothing":
        click.echo(f"{report.branch} has all of {source} already", err=err)
        return
    how = "fast-forward" if report.kind == "fast-forward" else "a merge, which passed the checks"
    count = len(report.commits)
    commits = f"{count} commit{'s' if count != 1 else ''}"
    click.echo(f"{report.branch} is at {report.commit[:9]} now ({how}): {commits} from {source}", err=err)
    rows: list[Line] = [
        [("  ", ""), (clip(one_line(subject), width() - 2), "")] for subject in report.commits
    ]
    show(rows[:_MOST_ROWS], err=err)
    if len(rows) > _MOST_ROWS:
        click.echo(f"  and {len(rows) - _MOST_ROWS} more", err=err)


# --- recover -------------------------------------------------------------------------------------


@click.command()
@click.argument("run", required=False)
@click.argument("task", required=False)
@click.option("--attempt", metavar="N", help="Which attempt of TASK; the latest, if left out.")
@click.option("--branch", "name", metavar="NAME", help="What to call the branch.")
def recover(run: str | None, task: str | None, attempt: str | None, name: str | None) -> None:
    """List the work that is pinned, or put an attempt's work on a branch.

    Every attempt's work is pinned when it ends, whatever it came to, and stays pinned until
    `agentful clean --unlanded`. With a RUN and a TASK, a branch is made of it; nothing that you have
    checked out changes.
    """
    with here() as place:
        run_id = _run_of_pins(place, run) if run else None
        pins = branch.pins(place.repo, run_id)
        if task is None:
            _list_pins(pins)
            return
        pin = _find_pin(pins, task, attempt)
        made = branch.restore_pin(place.repo, pin, name)
        click.echo(f"{pin.task}, attempt {pin.attempt}, is on the branch {made}: git switch {made}")


def _run_of_pins(place: Place, name: str) -> str:
    """The run that is meant, also where the journal is gone."""
    known = sorted({pin.run for pin in branch.pins(place.repo)})
    if name == "latest":
        return place.run(name).info.id
    found = [run for run in known if run == name] or [
        run for run in known if run.startswith(name) or run.removeprefix("r-").startswith(name)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise Fault(f"{name!r} could be any of: {', '.join(found)}")
    raise Fault(
        f"nothing is pinned of a run {name!r}.{nearest(name, known)} `agentful recover` lists what is"
    )


def _find_pin(pins: Sequence[Pin], task: str, attempt: str | None) -> Pin:
    tasks = {pin.task for pin in pins}
    meant = [task] if task in tasks else [name for name in tasks if name.startswith(task)]
    if len(meant) != 1:
        problem = (
            f"{task!r} could be any of {', '.join(sorted(meant))}"
            if meant
            else f"nothing of {task!r} is pinned"
        )
        raise Fault(problem + ("" if meant else f".{nearest(task, tasks)}"))
    found = [pin for pin in pins if pin.task == meant[0] and attempt in (None, pin.attempt)]
    if not found:
        raise Fault(f"attempt {attempt} of {meant[0]} is not pinned")
    return found[-1]


def _list_pins(pins: Sequence[Pin]) -> None:
    if not pins:
        click.echo("nothing is pinned")
        return
    rows: list[Line] = []
    for pin in pins:
        at = datetime.fromtimestamp(pin.at).astimezone().strftime("%Y-%m-%d %H:%M")
        left = f"{pin.run}  {at}  {pin.commit[:9]}  "
        landed = "landed      " if pin.landed else "not landed  "
        what = clip(f"{one_line(pin.task)}, attempt {pin.attempt}", width() - len(left) - len(landed))
        rows.append([(left, ""), (landed, "green" if pin.landed else "yellow"), (what, "bold")])
    show(rows)
    latest = pins[-1]
    say(f"to have one on a branch: agentful recover {latest.run} {as_word(latest.task)}")


# --- clean ---------------------------------------------------------------------------------------


@click.command()
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.option("--unlanded", is_flag=True, help="Also what may hold work that is on no branch of yours.")
def clean(yes: bool, unlanded: bool) -> int:
    """Remove workspaces, branches and pins of past runs that nobody needs; list them first.

    What may hold work that is nowhere else stays, unless --unlanded is given. Nothing of a live run is
    touched. Without a terminal, nothing is removed unless --yes is given.
    """
    with here() as place:
        found = branch.leftovers(place.repo, workspaces=place.workspaces)
        chosen = [leftover for leftover in found if unlanded or not leftover.unlanded]
        kept = len(found) - len(chosen)
        if not chosen:
            click.echo("there is nothing to clean")
            _tell_kept(kept)
            return Exit.DONE
        show(_rows(chosen))
        _tell_kept(kept)
        counts = Counter(leftover.kind for leftover in chosen)
        what = ", ".join(_plural(count, kind) for kind, count in counts.items())
        if not yes:
            if not sys.stdin.isatty():
                click.echo(f"to remove {what}: agentful clean --yes{' --unlanded' if unlanded else ''}")
                return Exit.DONE
            if not click.confirm(f"remove {what}?", err=True):
                click.echo("nothing was removed")
                return Exit.DONE
        trouble = branch.clean(place.repo, chosen, workspaces=place.workspaces)
        for leftover, why in trouble:
            say(f"{_name(leftover)} stays: {why}")
        click.echo(f"removed {len(chosen) - len(trouble)} of {len(chosen)}")
        return Exit.FAILED if trouble else Exit.DONE


def _rows(chosen: Sequence[Leftover]) -> list[Line]:
    rows: list[Line] = [
        [
            (f"{leftover.kind:<10} ", "yellow" if leftover.unlanded else ""),
            (_name(leftover), ""),
            (f"  {leftover.why}", "dim"),
        ]
        for leftover in chosen[:_MOST_ROWS]
    ]
    if len(chosen) > _MOST_ROWS:
        rows.append([(f"and {len(chosen) - _MOST_ROWS} more", "dim")])
    return rows


def _name(leftover: Leftover) -> str:
    if leftover.kind == "process":
        return f"{leftover.name} of run {leftover.run}"
    return one_line(short(leftover.name))


def _tell_kept(kept: int) -> None:
    if kept:
        stay = "stays" if kept == 1 else "stay"
        say(f"{kept} more may hold work that is on no branch of yours, and {stay}: agentful clean --unlanded")


def _plural(count: int, kind: str) -> str:
    words = {"branch": "branches", "process": "processes"}
    return f"{count} {kind}" if count == 1 else f"{count} {words.get(kind, kind + 's')}"
