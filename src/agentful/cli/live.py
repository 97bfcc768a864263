"""A run that this process carries out, as a person or a script sees it.

What it shows is a board, lines or JSON. What it listens to is signals: once Ctrl-C starts nothing more
and lets running agents finish and land; twice stops them and pins their work; more does no harm. What
only a person can decide it asks, where there is a terminal to ask on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal, Protocol, Self

import click

from ..drivers.base import AgentMessage, AgentProgress
from ..model import State
from ..progress import (
    Board,
    JsonPrinter,
    PlainPrinter,
    Scene,
    account,
    status_document,
    summary,
)
from .exits import Exit, outcome
from .forecast import predicted
from .shared import choose, decision_lines, say, short, show, width

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from ..drivers.base import AgentEvent
    from ..events import Transition
    from ..model import Decision
    from ..runtime.run import LiveRun

__all__ = ["Shown", "carry_out", "shown_as"]

Shown = Literal["live", "plain", "json", "quiet"]

_FRAME_SECONDS = 0.25
_IDLE_SECONDS = 1.0
"""How often a question that waits on a terminal looks whether the run was stopped meanwhile."""


def shown_as(progress: str, *, as_json: bool) -> Shown:
    """How a run is shown, from what was asked for and from what the output is."""
    if as_json or progress == "json":
        return "json"
    if progress == "auto":
        return "live" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if progress in ("live", "plain"):
        return "live" if progress == "live" else "plain"
    return "quiet"


def carry_out(
    run: LiveRun,
    shown: Shown,
    *,
    begin: Callable[[LiveRun], object] | None = None,
    after: Callable[[Exit], Exit] | None = None,
) -> Exit:
    """Carry a run out, to its end or until only a person can move it on, and show what came of it.

    ``begin`` is called once the run is entered; ``after`` once it has been left, to do more and to say
    the final exit code.
    """
    session = _Session(run, shown, begin)
    code = asyncio.run(session.main())
    if after is not None:
        code = after(code)
    session.tell(code)
    return code


# --- what is shown ---------------------------------------------------------------------------------


class _Front(Protocol):
    """One way to show a run while it goes on."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def begin(self, run: LiveRun) -> None: ...

    def changed(self, changes: Sequence[Transition]) -> None: ...

    def said(self, task_id: str, event: AgentEvent) -> None: ...

    def notice(self, message: str) -> None: ...

    def tick(self) -> None: ...


class _Quiet:
    """Shows nothing but what has to be said."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def begin(self, run: LiveRun) -> None:
        pass

    def changed(self, changes: Sequence[Transition]) -> None:
        pass

    def said(self, task_id: str, event: AgentEvent) -> None:
        pass

    def notice(self, message: str) -> None:
        say(message)

    def tick(self) -> None:
        pass


class _Plain(_Quiet):
    """A line for each change."""

    def begin(self, run: LiveRun) -> None:
        say(_first_words(run))
        self._printer = PlainPrinter(run.view, time.time(), say)

    def changed(self, changes: Sequence[Transition]) -> None:
        self._printer(changes)


class _Json(_Quiet):
    """A JSON object for each change, on standard output."""

    def begin(self, run: LiveRun) -> None:
        self._printer = JsonPrinter(run.view, self._write)
        info = run.info
        self._printer.begin(
            run=info.id, branch=short(info.branch), base=info.base, title=info.title, at=time.time()
        )

    def changed(self, changes: Sequence[Transition]) -> None:
        self._printer(changes)

    def said(self, task_id: str, event: AgentEvent) -> None:
        match event:
            case AgentProgress(percentage=percentage, message=message):
                self._printer.progress(task_id, percentage, message, time.time())
            case AgentMessage(text=text):
                self._printer.progress(task_id, None, text, time.time())
            case _:
                pass

    def notice(self, message: str) -> None:
        self._printer.notice(message, time.time())

    def result(self, run: LiveRun, code: Exit) -> None:
        info, view = run.info, run.view
        document = status_document(view, run=info.id, branch=short(info.branch), live=False, title=info.title)
        self._printer.result(document, code)

    @staticmethod
    def _write(line: str) -> None:
        with suppress(OSError):  # whoever read this is gone; the run is not
            click.echo(line)


class _Live(_Quiet):
    """The board."""

    def begin(self, run: LiveRun) -> None:
        from rich.console import Console

        say(_first_words(run))
        info = run.info
        scene = Scene(
            run=info.id,
            title=info.title,
            started_at=time.time(),
            activity=run.live,
            explain=run.engine.scheduler.explain,
            notice="Ctrl-C: let the running agents finish, then stop",
        )
        self._run = run
        self._board = Board(run.view, scene, Console(stderr=True, highlight=False))

    def __enter__(self) -> Self:
        # The tasks are known only now.
        self._board.scene.expected = predicted(self._run.view, self._run.info.options)
        self._board.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._board.__exit__(None, None, None)

    def notice(self, message: str) -> None:
        self._board.scene.notice = message
        self._board.say(message)
        self._board.draw()

    def tick(self) -> None:
        self._board.draw()


_FRONTS: dict[Shown, type[_Quiet]] = {"live": _Live, "plain": _Plain, "json": _Json, "quiet": _Quiet}


def _first_words(run: LiveRun) -> str:
    info = run.info
    slots = info.options.max_concurrency
    at_once = f"{slots} at once" if slots > 1 else "one at a time"
    title = f" {info.title}" if info.title else ""
    return f"run {info.id}{title}: {at_once}, lands on {short(info.branch)}, from {info.base[:9]}"


# --- one run ---------------------------------------------------------------------------------------


class _Session:
    def __init__(self, run: LiveRun, shown: Shown, begin: Callable[[LiveRun], object] | None) -> None:
        self.run = run
        self.interrupted = False
        """Whether a person, or the system, asked for the end."""
        self._begin = begin
        self._front: _Front = _FRONTS[shown]()
        self._shown = shown
        self._presses = 0
        self._heeded = 0
        self._entered = False
        self._over = asyncio.Event()
        self._asked = False
        self._before = 0.0
        self._worked = 0.0

    async def main(self) -> Exit:
        """Carry the run out; what it came to."""
        with self._signals():
            async with self.run:
                self._entered = True
                self._before = account(self.run.view).busy
                self._front.begin(self.run)
                self.run.watch(self._changed)
                self.run.on_progress(self._front.said)
                for problem in self.run.problems:
                    self._front.notice(problem)
                self.run.on_problem = self._front.notice
                if self._begin is not None:
                    self._begin(self.run)
                self._heed()
                await asyncio.sleep(0)  # the tasks of a new run are taken up in this turn
                await self._carry_out()
        return outcome(self.run.view, interrupted=self.interrupted)

    async def _carry_out(self) -> None:
        while True:
            started = time.monotonic()
            with self._front:
                await self._work()
            self._worked += time.monotonic() - started
            if self._paused or not self.run.view.open_decisions() or not self._may_ask():
                return
            if not await self._ask_all():
                return

    async def _work(self) -> None:
        """Until everything has ended, or waits for a person, or was stopped."""
        self._over.clear()
        ended = asyncio.ensure_future(self.run.wait())
        over = asyncio.ensure_future(self._over.wait())
        try:
            while not (ended.done() or over.done()):
                await asyncio.wait(
                    {ended, over},
                    timeout=_FRAME_SECONDS if self._shown == "live" else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                self._front.tick()
            if ended.done():
                ended.result()  # raises what ended the loop, such as a full disk
        finally:
            ended.cancel()
            over.cancel()

    @property
    def _paused(self) -> bool:
        return self.run.engine.scheduler.paused

    def _changed(self, changes: Sequence[Transition]) -> None:
        self._front.changed(changes)
        asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Note when there is nothing left to wait for.

        The engine is not idle while a time limit runs, though all that is left waits for a person.
        """
        scheduler, view = self.run.engine.scheduler, self.run.view
        if scheduler.busy or not view.total:
            return
        if view.done == view.total or view.state(live=True) == "waiting":
            self._over.set()
        elif scheduler.paused:
            landing = (record for record in scheduler.in_state(State.LANDING) if not record.decisions)
            if scheduler.interrupted or next(landing, None) is None:
                self._over.set()

    # --- signals ---------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        handled = {signal.SIGINT: 1, signal.SIGTERM: 2, signal.SIGHUP: 2}
        for number, presses in handled.items():
            loop.add_signal_handler(number, self._press, presses)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _press(self, presses: int) -> None:
        """A Ctrl-C is one press; a signal that asks for the end is as good as two."""
        self._presses += presses
        if self._entered:
            self._heed()

    def _heed(self) -> None:
        """Do what the presses so far ask for, and say so."""
        told, self._heeded = self._heeded, min(self._presses, 2)
        if self._heeded == 0:
            return
        self.interrupted = True
        if told == 2:
            self._front.notice("still stopping; what the agents have done is being pinned")
        elif self._heeded == 2:
            self._front.notice("stopping the agents now; what they have done is pinned")
            self.run.interrupt()
        elif told == 0:
            counts = self.run.view.counts
            at_work = counts[State.RUNNING] + counts[State.STOPPING] + counts[State.LANDING]
            agents = f"{at_work} at work finish and land first; Ctrl-C again stops them now"
            self._front.notice(f"stopping: {agents if at_work else 'nothing new is started'}")
            self.run.pause()
        asyncio.get_running_loop().call_soon(self._look)

    # --- questions -------------------------------------------------------------------------------

    def _may_ask(self) -> bool:
        return self._shown in ("live", "plain") and sys.stdin.isatty() and sys.stderr.isatty()

    async def _ask_all(self) -> bool:
        """Ask what is open. Whether the run may go on: something was answered, here or elsewhere."""
        answered = False
        self._asked = True
        for decision in self.run.view.open_decisions():
            if self._paused:
                return False
            if not self.run.view.decisions[decision.id].open:
                answered = True
                continue
            show([[], *decision_lines(decision)], err=True)
            answer = await self._ask(decision)
            if answer is not None:
                self.run.answer(decision.id, answer)
            answered = answered or answer is not None or not self.run.view.decisions[decision.id].open
        return answered and not self._paused

    async def _ask(self, decision: Decision) -> str | None:
        """The answer that is typed in; ``None`` where it is left open, or was answered elsewhere."""
        hint = "a number" if decision.options else "your answer"
        while True:
            click.echo(f"{hint}, or Enter to leave it open: ", err=True, nl=False)
            line = await self._line(lambda: self.run.view.decisions[decision.id].open)
            if not line:
                return None
            answer = choose(decision, line)
            if answer is not None:
                return answer
            say(f"that is none of the {len(decision.options)} answers")

    async def _line(self, wanted: Callable[[], bool]) -> str | None:
        """A line from the terminal; ``None`` at its end, or once it is not wanted any more.

        Not ``input``, which could not be left when the answer comes from elsewhere.
        """
        loop = asyncio.get_running_loop()
        fd = sys.stdin.fileno()
        typed = b""
        ready = asyncio.Event()
        loop.add_reader(fd, ready.set)
        try:
            while wanted() and not self._paused:
                with suppress(TimeoutError):
                    await asyncio.wait_for(ready.wait(), _IDLE_SECONDS)
                if not ready.is_set():
                    continue
                ready.clear()
                data = os.read(fd, 4096)
                typed += data
                if not data or typed.endswith(b"\n"):
                    return typed.decode(errors="replace").strip() or None
        finally:
            loop.remove_reader(fd)
        click.echo(err=True)
        return None

    # --- the end ---------------------------------------------------------------------------------

    def tell(self, code: Exit) -> None:
        """The last words."""
        if isinstance(self._front, _Json):
            self._front.result(self.run, code)
            return
        info, view = self.run.info, self.run.view
        for decision in () if self._asked else view.open_decisions():
            show(decision_lines(decision))
            answer = "NUMBER" if decision.options else "ANSWER"
            show([[(f"   agentful decide {decision.id} {answer} --run {info.id}", "cyan")]])
        show(
            summary(
                view,
                run=info.id,
                branch=short(info.branch),
                wall=self._before + self._worked,
                predicted=predicted(view, info.options),
                width=width(),
                resumable=view.done < view.total,
            )
        )
        if code is Exit.INTERRUPTED:
            click.echo(f"resume with: agentful resume {info.id}")
