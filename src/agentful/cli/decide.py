"""``agentful decide`` and ``stop``: what a person says to a run, live or not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ..core.scheduler import Scheduler
from ..events import CancelRequested, DecisionAnswered
from ..model import State
from ..progress import one_line
from ..runtime.run import lock_of
from .exits import Exit, Fault, nearest
from .shared import choose, decision_lines, find_task, here, is_busy, run_option, say, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..events import Event, Transition
    from ..model import Decision
    from .shared import Place, RunReader

_LEAVING_SECONDS = 10.0
"""How long a run that has stopped all its agents is given to leave."""


# --- writing to a run that nobody carries out ------------------------------------------------------


def decide_offline(reader: RunReader, event: Event) -> None:
    """Have the scheduler decide on an event, and write that down, for a run that is not live.

    Nothing is started: what is to be done about it is found anew by a resume. Raises RunLocked where
    somebody has taken the run up meanwhile.
    """
    with lock_of(reader.place.repo, reader.info.id):
        reader.refresh()
        writer = reader.place.journal.writer(reader.info.id)
        scheduler = Scheduler.restore(writer.transitions(), reader.info.options)
        scheduler.paused = scheduler.interrupted = True  # so that nothing counts as started
        writer.append(scheduler.handle(event).transitions)
        reader.refresh()
        reader.place.journal.update_run(reader.info.id, state=reader.view.state(live=False))


# --- decide --------------------------------------------------------------------------------------


@click.command()
@click.argument("decision", required=False)
@click.argument("choice", required=False)
@run_option
def decide(decision: str | None, choice: str | None, run_name: str | None) -> None:
    """List the questions that wait for you, or answer one.

    CHOICE is an option's number or its words; any text, where a question has no options. A run that is
    live goes on at once; one that is not, with `agentful resume`.
    """
    with here() as place:
        open_ones = _open_decisions(place, run_name)
        if decision is None:
            _list(open_ones)
            return
        reader, asked = _find(place, open_ones, decision, run_name)
        if choice is None:
            _list([(reader, asked)])
            return
        answer = choose(asked, choice)
        if answer is None:
            options = ", ".join(f"{n} {one_line(option)}" for n, option in enumerate(asked.options, 1))
            raise Fault(f"{choice!r} is no answer to {asked.id}; choose from: {options or 'any text'}")
        if reader.is_live():
            reader.request("decide", {"id": asked.id, "answer": answer})
            click.echo(f"{asked.id}: {one_line(answer)}; run {reader.info.id} goes on")
        else:
            decide_offline(reader, DecisionAnswered(time.time(), asked.id, answer))
            click.echo(f"{asked.id}: {one_line(answer)}; go on with: agentful resume {reader.info.id}")


def _open_decisions(place: Place, run_name: str | None) -> list[tuple[RunReader, Decision]]:
    readers = [place.run(run_name)] if run_name else place.unfinished()
    return [(reader, decision) for reader in readers for decision in reader.view.open_decisions()]


def _list(open_ones: Sequence[tuple[RunReader, Decision]]) -> None:
    if not open_ones:
        click.echo("no question waits for you")
    for reader, decision in open_ones:
        show(decision_lines(decision))
        answer = "NUMBER" if decision.options else "ANSWER"
        show([[(f"   agentful decide {decision.id} {answer} --run {reader.info.id}", "cyan")], []])


def _find(
    place: Place, open_ones: Sequence[tuple[RunReader, Decision]], name: str, run_name: str | None
) -> tuple[RunReader, Decision]:
    found = [(reader, decision) for reader, decision in open_ones if decision.id == name]
    if len(found) == 1:
        return found[0]
    if found:
        runs = ", ".join(reader.info.id for reader, _ in found)
        raise Fault(f"more than one run asks a {name}; say which with --run: {runs}")
    if run_name is not None:
        known = place.run(run_name).view.decisions.get(name)
        if known is not None:
            raise Fault(f"{name} was decided already: {one_line(known.answer or '')}")
    hint = nearest(name, [decision.id for _, decision in open_ones])
    raise Fault(f"no question {name!r} waits for you.{hint} `agentful decide` lists those that do")


# --- stop ----------------------------------------------------------------------------------------


@click.command()
@click.argument("names", metavar="[RUN | TASK...]", nargs=-1)
@run_option
@click.option("--drain", is_flag=True, help="Let the agents that are at work finish and land first.")
def stop(names: tuple[str, ...], run_name: str | None, drain: bool) -> int:
    """Stop a run, or cancel tasks of it. What their agents have done is pinned.

    Without a name, or with a run's: the run stops as after Ctrl-C twice, and `agentful resume` goes on
    with it. With names of tasks: these are cancelled for good, and what needs them is skipped; the rest
    of the run goes on.
    """
    with here() as place:
        reader, tasks = _what(place, names, run_name)
        if tasks:
            if drain:
                raise Fault("--drain is for a run, not for tasks")
            return _cancel(reader, tasks)
        if not reader.is_live():
            state = reader.view.state(live=False)
            say(f"run {reader.info.id} is not live ({state}), so there is nothing to stop")
            return Exit.DONE
        reader.request("stop", {"mode": "drain" if drain else "stop"})
        what = "finish" if drain else "end"
        say(f"run {reader.info.id} starts nothing more; waiting for its agents to {what}")
        reader.follow(_nothing, lambda: not is_busy(reader.view))
        deadline = time.monotonic() + _LEAVING_SECONDS
        reader.follow(_nothing, lambda: time.monotonic() > deadline)
        done = f"{reader.view.counts[State.SUCCEEDED]} of {reader.view.total} tasks done"
        if reader.is_live():
            click.echo(f"run {reader.info.id} has stopped its agents, {done}; its process has not left yet")
        else:
            click.echo(f"run {reader.info.id} has stopped, {done}; agentful resume {reader.info.id} goes on")
        return Exit.DONE


def _what(place: Place, names: Sequence[str], run_name: str | None) -> tuple[RunReader, list[str]]:
    """The run, and the ids of those of its tasks that are meant; none for the whole run."""
    if len(names) == 1 and run_name is None:
        runs = [run for run in place.journal.runs() if names[0] in (run.id, run.id.removeprefix("r-"))]
        if runs:
            return place.run(runs[0].id), []
    reader = place.run(run_name)
    if run_name is None:
        # The latest that is live: that is what a person would stop.
        reader = next((other for other in place.unfinished() if other.is_live()), reader)
    return reader, [find_task(reader.view, name).id for name in names]


def _cancel(reader: RunReader, tasks: Sequence[str]) -> int:
    records = [reader.view.records[task_id] for task_id in tasks]
    if not reader.is_live():
        decide_offline(reader, CancelRequested(time.time(), tuple(tasks)))
    else:
        reader.request("cancel", {"tasks": list(tasks)})
        reader.follow(_nothing, lambda: all(record.state.settled for record in records))
    for record in records:
        click.echo(f"{one_line(record.id)}: {record.state}")
    return Exit.DONE


def _nothing(_changes: Sequence[Transition]) -> None:
    """Nothing to show."""
