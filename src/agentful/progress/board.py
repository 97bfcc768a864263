"""The board: a run on one screen, sorted by what needs you, what works, what is ready, what is done.

A frame is a pure function of the run, the time and the size of the terminal. Everything from agents
and plans is made harmless before it is shown. A state is a mark and a word, never a colour alone.
There are no invented percentages: what is shown is the time that went by, the usual time where it is
known, and what an agent itself says of its progress.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from rich.cells import cell_len

from ..model import Need, State, format_duration
from .text import Line, agent_of, as_word, cells, clip, clip_line, listed, one_line, pad

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from rich.console import Console
    from rich.live import Live

    from ..core.admission import Obstacle
    from ..core.record import TaskRecord
    from ..core.view import RunView
    from ..model import Decision

__all__ = ["LOOKS", "Activity", "Board", "Scene", "frame"]

FRAMES_A_SECOND = 4
_NARROW = 80
_INDENT = "  "

LOOKS: dict[State, tuple[str, str, str]] = {
    State.BLOCKED: ("?", "needs you", "bold yellow"),
    State.FAILED: ("✗", "failed", "bold red"),
    State.RUNNING: ("●", "running", "cyan"),
    State.STOPPING: ("◌", "stopping", "yellow"),
    State.LANDING: ("◆", "landing", "blue"),
    State.SUCCEEDED: ("✓", "done", "green"),
    State.READY: ("○", "ready", ""),
    State.WAITING: ("·", "waiting", "dim"),
    State.CANCELLED: ("–", "cancelled", "dim"),
    State.SKIPPED: ("–", "skipped", "dim"),
}
"""For each state, in the order of importance: its mark, its word, its style."""


class Activity(Protocol):
    """What is known of a task at work beyond its journal."""

    @property
    def percentage(self) -> float | None:
        """0 to 100, where the agent itself said a number."""
        ...

    @property
    def message(self) -> str:
        """The last that its agent said."""
        ...


def _nothing(_task_id: str) -> Sequence[Obstacle]:
    return ()


@dataclass(slots=True, kw_only=True)
class Scene:
    """What a board shows that is not in the run's view."""

    run: str
    started_at: float
    """When the run started, in seconds since the epoch."""
    title: str = ""
    expected: float | None = None
    """Seconds that the whole run was predicted to take."""
    activity: Mapping[str, Activity] = field(default_factory=dict[str, Activity])
    explain: Callable[[str], Sequence[Obstacle]] = _nothing
    """What keeps a task from going on."""
    notice: str = ""
    """The last line: what a key does, what is happening to the run."""


# --- a frame -------------------------------------------------------------------------------------


def frame(view: RunView, scene: Scene, now: float, width: int, height: int) -> list[Line]:
    """The board at the moment ``now``, at most ``height`` lines of at most ``width`` columns."""
    width = max(width, 20)
    by_state: dict[State, list[TaskRecord]] = {state: [] for state in State}
    for record in view.records.values():
        by_state[record.state].append(record)

    head = [_title(view, scene, now, width), *_counts(view, width)]
    foot: list[Line] = [[(clip(one_line(scene.notice), width), "dim")]] if scene.notice else []
    room = max(3, height - len(head) - len(foot))

    # More than there is room for is counted, and not looked at.
    decisions = view.open_decisions()
    failed = sorted(by_state[State.FAILED], key=lambda record: record.since, reverse=True)
    working = [*by_state[State.STOPPING], *by_state[State.RUNNING], *by_state[State.LANDING]]
    ready = by_state[State.READY]
    needs_you = [_decision(decision, width) for decision in decisions[:room]]
    needs_you += [_failed(record, width) for record in failed[:room]]
    sections = [
        ("NEEDS YOU", len(decisions) + len(failed), needs_you),
        ("WORKING", len(working), _working(working[:room], scene, now, width)),
        ("READY", len(ready), [_ready(record, scene, width) for record in ready[:room]]),
    ]
    sections = [section for section in sections if section[1]]
    ends = [
        line
        for line in (_waiting(by_state[State.WAITING], view, width), *_ended(by_state, width))
        if line is not None
    ][: max(1, room // 4)]
    room -= len(ends)
    body: list[Line] = []
    for index, (name, total, blocks) in enumerate(sections):
        # What comes after keeps a third of the room, if it has so much to show.
        after = sum(1 + sum(map(len, later)) for _, _, later in sections[index + 1 :])
        mine = max(2, room - min(after, max(2 * (len(sections) - index - 1), room // 3)))
        if room < 2:
            break
        shown = _fit(name, total, blocks, min(mine, room))
        room -= len(shown)
        body += shown
    return [clip_line(line, width) for line in (*head, *body, *ends, *foot)][:height]


def _fit(name: str, total: int, blocks: list[list[Line]], room: int) -> list[Line]:
    """A headline, and as many blocks as there is room for; it says how many are left out."""
    fitting = 0
    used = 1
    for block in blocks:
        if used + len(block) > room:
            break
        used += len(block)
        fitting += 1
    headline: Line = [(name, "bold")]
    if fitting < total:
        headline.append((f"  {fitting} of {total} shown" if fitting else f"  {total}", "dim"))
    return [headline, *(line for block in blocks[:fitting] for line in block)]


def _title(view: RunView, scene: Scene, now: float, width: int) -> Line:
    left: Line = [("agentful ", "bold"), (scene.run, "bold cyan")]
    spent = format_duration(max(0, int(now - scene.started_at)))
    if scene.expected:
        spent += f" of about {format_duration(round(scene.expected))}"
    costs = [r.usage.cost for r in view.records.values() if r.usage is not None and r.usage.cost is not None]
    if costs:
        spent += f" · ${sum(costs):.2f}"
    room = width - cells(left) - cell_len(spent) - 4
    title = clip(one_line(scene.title), room)
    if title:
        left.append((f"  {title}", ""))
    gap = width - cells(left) - cell_len(spent)
    return [*left, (" " * max(2, gap), ""), (spent, "")]


def _counts(view: RunView, width: int) -> list[Line]:
    """How far it is: a bar of ended tasks, and how many are in which state."""
    size = min(30, max(8, width // 4))
    full = size * view.done // view.total if view.total else 0
    lines: list[Line] = [
        [("█" * full, "green"), ("░" * (size - full), "dim"), (f"  {view.done}/{view.total}", "bold")]
    ]
    for state, (mark, word, style) in LOOKS.items():
        if count := view.counts[state]:
            item = f"{mark} {count} {word}"
            if cells(lines[-1]) + 2 + cell_len(item) > width:
                lines.append([(" " * (size + 2), "") if width >= _NARROW else ("", "")])
            lines[-1] += [("  ", ""), (item, style)]
    return lines


def _decision(decision: Decision, width: int) -> list[Line]:
    mark, _, style = LOOKS[State.BLOCKED]
    blocking = list(decision.blocking)
    reach = f"  blocks {listed(blocking, max(12, width // 4))}" if blocking else ""
    question = one_line(decision.question)
    if decision.kind == "failure" and decision.context:
        question += f" {one_line(decision.context)}"
    room = width - len(decision.id) - 6 - cell_len(reach)
    first: Line = [
        (f" {mark} ", style),
        (decision.id, style),
        (f"  {clip(question, room)}", ""),
        (reach, "dim"),
    ]
    command = f"agentful decide {decision.id}"
    if not decision.options:
        return [first, [(f"{_INDENT * 3}{command} ANSWER", "cyan")]]
    options = "  ".join(f"[{n}] {one_line(option)}" for n, option in enumerate(decision.options, 1))
    answers = f"   {command} NUMBER"
    if len(_INDENT * 3) + cell_len(options) + len(answers) <= width:
        return [first, [(_INDENT * 3 + options, ""), (answers, "cyan")]]
    return [first, [(clip(_INDENT * 3 + options, width), "")], [(_INDENT * 2 + answers, "cyan")]]


def _failed(record: TaskRecord, width: int) -> list[Line]:
    mark, word, style = LOOKS[State.FAILED]
    why = reason_text(record)
    if record.attempt > 1:
        why += f" ({record.attempt} attempts)"
    hint = f"  agentful logs {as_word(record.id)}"
    name = clip(one_line(record.id), max(8, width // 3))
    left: Line = [(f" {mark} {word} ", style), (name, "bold"), ("  ", "")]
    if width < _NARROW:
        hint = ""
    room = width - cells(left) - cell_len(hint)
    return [[*left, (pad(why, room) if hint else clip(why, room), ""), (hint, "cyan")]]


def reason_text(record: TaskRecord) -> str:
    """Why a task is in its state, as one harmless line: the reason in words, and what was said."""
    reason = str(record.reason).replace("_", " ") if record.reason is not None else ""
    message = one_line(record.message)
    return ": ".join(part for part in (reason, message) if part)


def _working(records: Sequence[TaskRecord], scene: Scene, now: float, width: int) -> list[list[Line]]:
    if not records:
        return []
    names = [clip(one_line(record.id), max(8, width // 4)) for record in records]
    agents = [clip(agent_of(record.task), 12) for record in records]
    clocks = [_clock(record, now) for record in records]
    name_width = max(map(cell_len, names))
    agent_width = max(map(cell_len, agents)) if width >= _NARROW else 0
    clock_width = max(map(cell_len, clocks))
    blocks: list[list[Line]] = []
    for record, name, agent, clock in zip(records, names, agents, clocks, strict=True):
        mark, word, style = LOOKS[record.state]
        line: Line = [(f" {mark} {word:<8} ", style), (pad(name, name_width), "bold")]
        if agent_width:
            line.append((f"  {pad(agent, agent_width)}", "dim"))
        line.append((f"  {clock:>{clock_width}}", ""))
        doing = _doing(record, scene)
        if record.attempt > 1:
            doing = f"try {record.attempt}" + (f" · {doing}" if doing else "")
        line.append((f"  {clip(doing, width - cells(line) - 2)}", "dim"))
        blocks.append([line])
    return blocks


def _clock(record: TaskRecord, now: float) -> str:
    since = record.since if record.state is State.LANDING else record.attempt_at or record.since
    spent = format_duration(max(0, int(now - since)))
    usual = record.task.estimate
    return f"{spent}/~{format_duration(round(usual))}" if usual and record.state is State.RUNNING else spent


def _doing(record: TaskRecord, scene: Scene) -> str:
    if record.state is State.LANDING:
        queue = next((o.text for o in scene.explain(record.id) if o.kind is Need.QUEUE), "")
        return one_line(queue) or "merging and checking"
    if record.state is State.STOPPING:
        return reason_text(record)
    activity = scene.activity.get(record.id)
    if activity is None:
        return one_line(record.task.title)
    said = one_line(activity.message) or one_line(record.task.title)
    return said if activity.percentage is None else f"{activity.percentage:.0f} % {said}"


def _ready(record: TaskRecord, scene: Scene, width: int) -> list[Line]:
    mark, word, style = LOOKS[State.READY]
    why = "; ".join(one_line(obstacle.text) for obstacle in scene.explain(record.id))
    name = clip(one_line(record.id), max(8, width // 3))
    line: Line = [(f" {mark} {word} ", style), (name, "bold")]
    return [[*line, (f"  {clip(why, width - cells(line) - 2)}", "dim")]]


def _waiting(records: list[TaskRecord], view: RunView, width: int) -> Line | None:
    if not records:
        return None
    mark, word, style = LOOKS[State.WAITING]
    # More than a line has room for need not be looked at.
    first = [f"{one_line(r.id)} ← {', '.join(map(one_line, view.missing(r)))}" for r in records[:40]]
    names = first + [""] * (len(records) - len(first))
    start = f" {mark} {word} {len(records)}: "
    return [(start + listed(names, width - len(start)), style)]


def _ended(by_state: Mapping[State, list[TaskRecord]], width: int) -> list[Line]:
    lines: list[Line] = []
    for state in (State.SUCCEEDED, State.CANCELLED, State.SKIPPED):
        records = by_state[state]
        if records:
            mark, word, style = LOOKS[state]
            latest = sorted(records, key=lambda record: record.since, reverse=True)
            start = f" {mark} {word} {len(records)}: "
            names = listed([one_line(record.id) for record in latest], width - len(start))
            lines.append([(start, style), (names, "dim")])
    return lines


# --- on a terminal -------------------------------------------------------------------------------


class Board:
    """A frame that is drawn again and again in one place of a terminal. Use it as a context manager.

    It draws only when :meth:`draw` is called, so that it never looks at a run while that changes. When
    the terminal goes away it stops drawing, and the run goes on.
    """

    def __init__(
        self, view: RunView, scene: Scene, console: Console, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.view = view
        self.scene = scene
        self._console = console
        self._clock = clock
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        try:
            self._guarded(self._live.start)
            self.draw()
        except BaseException:
            # An interrupt in these lines leaves no terminal without a cursor.
            self.__exit__(None, None, None)
            raise
        return self

    def draw(self) -> None:
        """Draw the board as it is now."""
        from rich.text import Text

        live = self._live
        if live is None:
            return
        size = self._console.size
        text = Text(no_wrap=True, end="")
        for number, line in enumerate(
            frame(self.view, self.scene, self._clock(), size.width, max(4, size.height - 1))
        ):
            if number:
                text.append("\n")
            for piece, style in line:
                text.append(piece, style or None)
        self._guarded(lambda: live.update(text, refresh=True))

    def say(self, message: str) -> None:
        """Print a line that stays, above the board."""
        from rich.text import Text

        line = Text(one_line(message))
        self._guarded(lambda: self._console.print(line, soft_wrap=True))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._guarded(self._live.stop)
            self._live = None

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError:
            self._live = None
