"""What the commands share: the repository, its runs as the journal has them, and printing."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.shell_completion import CompletionItem

from ..config import load_settings
from ..core.scheduler import Scheduler
from ..core.view import RunView
from ..errors import AgentfulError, JournalError
from ..model import State
from ..progress import one_line, plain
from ..runtime.git import Repository
from ..runtime.run import folder_of, inbox_of, journal_of, lock_of
from ..runtime.workspace import slug
from .exits import Exit, Fault, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from typing import TextIO

    from ..core.admission import Obstacle
    from ..core.record import TaskRecord
    from ..events import Transition
    from ..model import Decision
    from ..progress import Line
    from ..runtime.journal import JournalFile, RunInfo

__all__ = [
    "Place",
    "RunReader",
    "choose",
    "coloured",
    "decision_lines",
    "find_task",
    "here",
    "here_without_journal",
    "is_busy",
    "run_argument",
    "run_option",
    "say",
    "short",
    "show",
    "show_json",
    "task_argument",
    "tasks_argument",
    "width",
]

REQUEST_SECONDS = 30.0
"""How long a command waits for a live run to answer it."""


# --- where we are --------------------------------------------------------------------------------


class Place:
    """The repository that a command was given in, and its journal."""

    def __init__(self, repo: Repository, journal: JournalFile) -> None:
        self.repo = repo
        self.journal = journal
        self.folder = folder_of(repo)

    @cached_property
    def workspaces(self) -> Path | None:
        """Where the settings want workspaces to be kept; ``None`` for the usual place."""
        return load_settings(self.repo.root).workspace_folder

    def run(self, name: str | None) -> RunReader:
        """The run that a person means: an id, the start of one, or the latest."""
        try:
            info = self.journal.find(name or "latest")
        except JournalError as error:
            raise Fault(str(error)) from error
        return RunReader(self, info)

    def unfinished(self) -> list[RunReader]:
        """The runs that have not ended, newest first."""
        runs = [run for run in self.journal.runs() if run.state not in ("succeeded", "failed")]
        return [RunReader(self, info) for info in runs]


@contextmanager
def here() -> Generator[Place]:
    """The repository around the current folder. Raises ConfigError where there is none to use."""
    repo = here_without_journal()
    with journal_of(repo) as journal:
        yield Place(repo, journal)


def here_without_journal() -> Repository:
    """The same, for those who need no journal, or one of their own."""
    return Repository.discover(Path.cwd())


class RunReader:
    """A run as its journal has it, whoever carries it out. :meth:`refresh` reads what is new."""

    def __init__(self, place: Place, info: RunInfo) -> None:
        self.place = place
        self.info = info
        self.view = RunView()
        self._lock = lock_of(place.repo, info.id)
        self._inbox = inbox_of(place.repo, place.journal, info.id)
        self._seq = 0
        self._scheduler: Scheduler | None = None
        self._seen: list[Transition] = []
        self.refresh()

    def is_live(self) -> bool:
        """Whether a process carries it out at this moment."""
        return self._lock.holder() is not None

    @property
    def branch(self) -> str:
        """The short name of its integration branch."""
        return short(self.info.branch)

    def refresh(self) -> Sequence[Transition]:
        """Read on; what is new."""
        changes, self._seq = self.place.journal.read(self.info.id, self._seq)
        for change in changes:
            self.view.apply(change)
        self._seen += changes
        return changes

    def explain(self, task_id: str) -> list[Obstacle]:
        """What keeps a task from going on, as far as it can be told from outside."""
        if self._scheduler is None:
            self._scheduler = Scheduler(self.info.options)
        for change in self._seen:
            self._scheduler.evolve(change)
        self._seen = []
        return self._scheduler.explain(task_id)

    def log(self, task_id: str, attempt: int, *, checks: bool = False) -> Path:
        """Where an attempt's log is, or that of the checks of what it did."""
        kind = ".checks" if checks else ""
        return self.place.folder / "logs" / self.info.id / f"{slug(task_id)}.{attempt}{kind}.jsonl"

    def request(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Ask something of the live run, and wait until it has taken it up. Raises Fault for a no."""
        request_id = self._inbox.send(kind, payload)
        deadline = time.monotonic() + REQUEST_SECONDS
        while (answered := self._inbox.wait(request_id, 0.5)) is None:
            if not self.is_live():
                raise Fault(
                    f"run {self.info.id} ended before it took this up; agentful resume {self.info.id} does",
                    Exit.FAILED,
                )
            if time.monotonic() > deadline:
                raise Fault(f"run {self.info.id} does not answer; it does as soon as it can", Exit.FAILED)
        answer: dict[str, Any] = answered.answer or {}
        if not answer.get("ok"):
            raise Fault(str(answer.get("error") or "the run said no"))

    def follow(self, on_change: Callable[[Sequence[Transition]], object], until: Callable[[], bool]) -> bool:
        """Call ``on_change`` with what is new, until ``until``, or nobody carries the run out any more.

        Whether it was ``until``. It blocks; asking the journal whether anything is new is cheap.
        """
        version = -1
        while True:
            now = self.place.journal.data_version()
            live = self.is_live()
            if now != version or not live:
                version = now
                on_change(self.refresh())
            if until():
                return True
            if not live:
                return False
            time.sleep(0.1)


# --- naming runs and tasks -----------------------------------------------------------------------


def _complete_runs(_ctx: click.Context, _param: click.Parameter, start: str) -> list[CompletionItem]:
    """Runs for the shell to complete; nothing where that cannot be told."""
    with suppress(AgentfulError), here() as place:
        return [CompletionItem(i.id, help=i.title) for i in place.journal.runs() if i.id.startswith(start)]
    return []


def _complete_tasks(ctx: click.Context, _param: click.Parameter, start: str) -> list[CompletionItem]:
    with suppress(AgentfulError), here() as place:
        records = place.run(ctx.params.get("run_name")).view.records.values()
        return [CompletionItem(r.id, help=r.state.value) for r in records if r.id.startswith(start)]
    return []


run_option = click.option(
    "--run",
    "run_name",
    metavar="RUN",
    shell_complete=_complete_runs,
    help="The run: its id or the start of it; the latest, if left out.",
)
run_argument = click.argument("run", required=False, shell_complete=_complete_runs)
task_argument = click.argument("task", shell_complete=_complete_tasks)
tasks_argument = click.argument("tasks", nargs=-1, metavar="[TASK...]", shell_complete=_complete_tasks)


def short(ref: str) -> str:
    """A branch's full name as people write it."""
    return ref.removeprefix("refs/heads/")


def find_task(view: RunView, name: str) -> TaskRecord:
    """The task that a person means: its id, or the start of only one. Raises Fault."""
    if name in view.records:
        return view.records[name]
    found = [record for task_id, record in view.records.items() if task_id.startswith(name)]
    if len(found) == 1 and name:
        return found[0]
    if found:
        names = ", ".join(one_line(record.id) for record in found[:8])
        raise Fault(
            f"{name!r} could be any of {len(found)} tasks: {names}{', ...' if len(found) > 8 else ''}"
        )
    raise Fault(f"there is no task {name!r} in this run.{nearest(name, view.records)}")


# --- decisions -----------------------------------------------------------------------------------


def choose(decision: Decision, text: str) -> str | None:
    """The answer that a person means by a number or by words; ``None`` where it is none of the options."""
    text = text.strip()
    if not decision.options:
        return text or None
    if text.isdecimal() and 1 <= int(text) <= len(decision.options):
        return decision.options[int(text) - 1]
    folded = text.casefold()
    exact = [option for option in decision.options if option.strip().casefold() == folded]
    if exact or not folded:
        return exact[0] if exact else None
    near = [option for option in decision.options if option.strip().casefold().startswith(folded)]
    return near[0] if len(near) == 1 else None


def decision_lines(decision: Decision) -> list[Line]:
    """A question with its answers, numbered."""
    lines: list[Line] = [[(f"? {decision.id}", "bold yellow"), (f"  {one_line(decision.question)}", "bold")]]
    if decision.context:
        lines.append([(f"      {one_line(decision.context)}", "dim")])
    if decision.blocking:
        lines.append([(f"      blocks {', '.join(map(one_line, decision.blocking))}", "dim")])
    lines += [
        [(f"   {number}  ", "bold cyan"), (one_line(option), "")]
        for number, option in enumerate(decision.options, 1)
    ]
    return lines


# --- printing ------------------------------------------------------------------------------------


def coloured(stream: TextIO) -> bool:
    """Whether colours are wanted there."""
    wanted = os.environ.get("NO_COLOR", "") == "" and os.environ.get("TERM") != "dumb"
    return wanted and stream.isatty()


def width() -> int:
    """Columns to print in; 100 where nobody knows."""
    return max(40, shutil.get_terminal_size((100, 24)).columns)


def show(lines: Iterable[Line], *, err: bool = False) -> None:
    """Print lines, with their styles where those are wanted."""
    stream = sys.stderr if err else sys.stdout
    paint = coloured(stream)
    for line in lines:
        text = "".join(_styled(piece, style) for piece, style in line) if paint else plain(line)
        click.echo(text, err=err, color=paint)


def say(message: str) -> None:
    """Print a line to people, beside the output. A terminal that went away stops nothing."""
    with suppress(OSError):
        click.echo(one_line(message), err=True)


def _styled(text: str, style: str) -> str:
    words = style.split()
    colours = [word for word in words if word not in ("bold", "dim")]
    return click.style(
        text,
        fg=colours[0] if colours else None,
        bold=True if "bold" in words else None,
        dim=True if "dim" in words else None,
    )


def show_json(document: Any) -> None:
    """Print a JSON document."""
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def is_busy(view: RunView) -> bool:
    """Whether anything of a run is under way."""
    return any(view.counts[state] for state in (State.RUNNING, State.STOPPING, State.LANDING))
