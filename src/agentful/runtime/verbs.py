"""What may be asked of a run that is being carried out, whatever carries out its acts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core import graph
from ..core.view import RunView
from ..events import (
    CancelRequested,
    DecisionAnswered,
    DecisionAsked,
    Interrupted,
    Paused,
    RetryRequested,
    TasksSubmitted,
    Unpaused,
)
from ..model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..drivers.base import AgentEvent
    from ..events import Transition
    from ..model import Decision, Task
    from .engine import Engine


class Verbs:
    """The verbs of a run, and who watches it. ``engine`` is there once the run is entered."""

    engine: Engine

    def __init__(self, clock: Callable[[], float]) -> None:
        self.view = RunView()
        """The run as it is: always up to date."""
        self.ids: dict[str, None] = {}
        """The ids of all tasks, also of those that were submitted a moment ago."""
        self._clock = clock
        self._watchers: list[Callable[[Sequence[Transition]], None]] = []
        self._progress: list[Callable[[str, AgentEvent], None]] = []

    # --- watching --------------------------------------------------------------------------------

    def watch(self, watcher: Callable[[Sequence[Transition]], None]) -> None:
        """Have ``watcher`` called with transitions, once they are durable and in the view."""
        self._watchers.append(watcher)

    def on_progress(self, callback: Callable[[str, AgentEvent], None]) -> None:
        """Have ``callback`` called with a task's id and what its agent says."""
        self._progress.append(callback)

    async def wait(self) -> None:
        """Wait until every task has ended, or only a person can move it on."""
        await self.engine.wait_idle()

    # --- asking for something ------------------------------------------------------------------------

    def submit(self, tasks: Sequence[Task]) -> None:
        """Add tasks. Raises :class:`PlanError`, and adds none, where they do not fit the run."""
        graph.check(tasks, self.ids)
        self.ids.update((task.id, None) for task in tasks)
        self.engine.post(TasksSubmitted(self._clock(), tuple(graph.order(tasks))))

    def cancel(self, task_ids: Sequence[str] | None = None, reason: Reason = Reason.CANCELLED) -> None:
        """Cancel these tasks, or all that have not ended."""
        ids = None if task_ids is None else tuple(task_ids)
        self.engine.post(CancelRequested(self._clock(), ids, reason))

    def pause(self) -> None:
        """Start nothing new; what runs goes on, and lands."""
        self.engine.post(Paused(self._clock()))

    def unpause(self) -> None:
        self.engine.post(Unpaused(self._clock()))

    def interrupt(self) -> None:
        """Stop what runs, pin its work, and leave it to be run again by a resume."""
        self.engine.post(Interrupted(self._clock()))

    def retry(self, task_ids: Sequence[str]) -> None:
        """Run settled tasks again, and what was skipped because of them."""
        self.engine.post(RetryRequested(self._clock(), tuple(task_ids)))

    def ask(self, decision: Decision) -> None:
        """Open a decision; without an id it gets one."""
        self.engine.post(DecisionAsked(self._clock(), decision))

    def answer(self, decision_id: str, answer: str) -> None:
        """Answer a decision. One that is answered, or that there is not, stays as it is."""
        self.engine.post(DecisionAnswered(self._clock(), decision_id, answer))

    # --- for who carries it out ------------------------------------------------------------------------

    def _tell(self, transitions: Sequence[Transition]) -> None:
        for watcher in self._watchers:
            watcher(transitions)

    def _tell_progress(self, task_id: str, event: AgentEvent) -> None:
        for callback in self._progress:
            callback(task_id, event)
