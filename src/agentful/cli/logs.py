"""``agentful logs``, ``diff`` and ``attach``: what one task did, and where it does it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ..model import State
from ..progress import one_line, printable
from ..runtime.workspace import Workspaces, slug
from .exits import Exit, Fault
from .shared import coloured, find_task, here, run_option, say, show, task_argument

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.record import TaskRecord
    from .shared import RunReader

_AT_WORK = (State.RUNNING, State.STOPPING, State.LANDING)


@click.command()
@task_argument
@run_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed, until the task has ended.")
@click.option("--attempt", type=click.IntRange(1), help="Which attempt; the latest, if left out.")
@click.option("--raw", is_flag=True, help="Print the log's JSON lines as they are.")
def logs(task: str, run_name: str | None, follow: bool, attempt: int | None, raw: bool) -> None:
    """Show what the agent of TASK printed, and its checks after it.

    TASK is a task's id or the start of it. Secrets are taken out before anything is written down, and
    what a terminal would obey is taken out before it is shown.
    """
    with here() as place:
        reader = place.run(run_name)
        record = find_task(reader.view, task)
        if attempt is not None and attempt > record.attempt:
            raise Fault(f"{record.id} has had {record.attempt} attempts, so there is no attempt {attempt}")
        tail = _Tail(reader, record.id, attempt, raw=raw)
        if follow and reader.is_live():
            reader.follow(lambda _changes: None, lambda: tail.more() and not _goes_on(record, attempt))
        tail.more()
        if not tail.found and not follow:
            say(_no_log(record))


def _goes_on(record: TaskRecord, attempt: int | None) -> bool:
    if record.state.settled or record.state is State.BLOCKED:
        return False
    return attempt is None or (attempt == record.attempt and record.state in _AT_WORK)


def _no_log(record: TaskRecord) -> str:
    if record.attempt == 0:
        return (
            f"{record.id} is {record.state}, and has not started yet; agentful explain {record.id} says why"
        )
    return f"there is no log of {record.id}; it may have been removed by agentful clean"


class _Tail:
    """The logs of a task's attempts, read on from wherever they were left."""

    def __init__(self, reader: RunReader, task_id: str, attempt: int | None, *, raw: bool) -> None:
        self.found = False
        self._reader = reader
        self._record = reader.view.records[task_id]
        self._attempt = attempt
        self._first = attempt or max(1, self._record.attempt)
        self._raw = raw
        self._read_to: dict[Path, int] = {}

    def more(self) -> bool:
        """Print what is new. Always true, to stand in a condition."""
        last = self._attempt or self._record.attempt
        for attempt in range(self._first, last + 1):
            for checks in (False, True):
                self._read(self._reader.log(self._record.id, attempt, checks=checks))
        return True

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                file.seek(self._read_to.get(path, 0))
                self.found = True
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # half a line: it is read again when the rest of it is there
                    self._read_to[path] = self._read_to.get(path, 0) + len(line)
                    self._show(line)
        except FileNotFoundError:
            return

    def _show(self, line: bytes) -> None:
        if self._raw:
            click.echo(line.decode(errors="replace"), nl=False)
            return
        try:
            entry = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError:
            return
        self._print(entry)

    def _print(self, entry: dict[str, Any]) -> None:
        if entry.get("type") == "attempt":
            base = one_line(str(entry.get("base", "")))[:9]
            agent = one_line(str(entry.get("agent", "")))
            number = f"attempt {entry['attempt']} · " if entry.get("attempt") else ""
            show([[(f"── {number}{agent} · from {base}", "bold cyan")]])
        elif "note" in entry:
            show([[(f"── {one_line(str(entry['note']))}", "cyan")]])
        else:
            click.echo(printable(str(entry.get("line", ""))))


@click.command()
@task_argument
@run_option
@click.option("--stat", is_flag=True, help="Only which files, and how much.")
@click.option("--attempt", type=click.IntRange(1), help="What this attempt left, landed or not.")
def diff(task: str, run_name: str | None, stat: bool, attempt: int | None) -> None:
    """Show what TASK changed: what it landed, or else what its latest attempt left.

    Each attempt's work is pinned when it ends, whatever it came to.
    """
    with here() as place:
        reader = place.run(run_name)
        record = find_task(reader.view, task)
        commit = record.commit
        if attempt is not None:
            commit = Workspaces(place.repo, reader.info.id, base=place.workspaces).pinned(record.id, attempt)
            if commit is None:
                raise Fault(f"nothing is pinned for attempt {attempt} of {record.id}")
        if commit is None:
            raise Fault(_no_work(record))
        parents = place.repo.commit(commit).parents
        text = printable(place.repo.diff(parents[0], commit, stat=stat))
        if not text.strip():
            say(f"{record.id} changed nothing")
        elif not coloured(sys.stdout):
            click.echo(text, nl=False)
        else:
            click.echo_via_pager(_painted(text, stat=stat), color=True)


def _no_work(record: TaskRecord) -> str:
    if record.state is State.RUNNING:
        return (
            f"{record.id} is at work, and nothing of it is pinned yet; agentful attach {record.id} goes there"
        )
    return f"{record.id} is {record.state}, and has left nothing"


def _painted(text: str, *, stat: bool) -> str:
    if stat:
        return text
    styles = {"+": "green", "-": "red", "@": "cyan"}
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith(("diff ", "index ", "+++ ", "--- ")):
            lines.append(click.style(line, bold=True))
        elif line[:1] in styles:
            lines.append(click.style(line, fg=styles[line[:1]]))
        else:
            lines.append(line)
    return "".join(lines)


@click.command()
@task_argument
@run_option
@click.option("--path", "only_path", is_flag=True, help="Print where the workspace is, and start nothing.")
def attach(task: str, run_name: str | None, only_path: bool) -> int:
    """Open a shell in the workspace of TASK, which is at work.

    The agent goes on meanwhile. The workspace is a repository of the task's own: what you change there
    becomes part of what the task lands. Leave the shell with `exit`; nothing is stopped by that. Without
    a terminal, the path is printed.
    """
    with here() as place:
        reader = place.run(run_name)
        record = find_task(reader.view, task)
        name = f"{slug(record.id)}.{record.attempt}"
        found = [
            ws
            for ws in Workspaces(place.repo, reader.info.id, base=place.workspaces).existing()
            if ws.name == name
        ]
        if not found:
            hint = f"; agentful diff {record.id} shows what it left" if record.commit else ""
            raise Fault(f"{record.id} is {record.state}, and has no workspace now{hint}")
        workspace = found[0]
        if only_path or not (sys.stdin.isatty() and sys.stdout.isatty()):
            click.echo(str(workspace.path))
            return Exit.DONE
        shell = os.environ.get("SHELL") or "/bin/sh"
        say(f"{record.id}, attempt {record.attempt}: {workspace.path}")
        say("What you change here becomes part of its result. `exit` leaves; the agent goes on.")
        done = subprocess.run([shell], cwd=workspace.path, env={**os.environ, **workspace.env}, check=False)
        return Exit.DONE if done.returncode >= 0 else Exit.FAILED
