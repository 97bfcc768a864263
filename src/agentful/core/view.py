"""A run as its readers see it: the same records as the scheduler's, from the same transitions.

``status``, ``watch``, the board, the state files and the report all read this, from a live run or from
its journal, and so never disagree with what was decided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..events import DecisionClosed, DecisionOpened, TaskAdded, TaskChanged
from ..model import State
from .record import TaskRecord, take_answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..events import Transition
    from ..model import Decision, TaskResult

RunState = Literal["running", "waiting", "succeeded", "failed", "interrupted"]


class RunView:
    """The tasks and decisions of a run, in the order in which they came."""

    def __init__(self, transitions: Iterable[Transition] = ()) -> None:
        self.records: dict[str, TaskRecord] = {}
        self.decisions: dict[str, Decision] = {}
        self.counts: dict[State, int] = dict.fromkeys(State, 0)
        self.at = 0.0
        """When the last of it happened."""
        for transition in transitions:
            self.apply(transition)

    def apply(self, transition: Transition) -> None:
        """Fold one transition in."""
        match transition:
            case TaskChanged():
                record = self.records[transition.task_id]
                self.counts[record.state] -= 1
                record.apply(transition)
                self.counts[record.state] += 1
            case TaskAdded(at=at, task=task):
                self.records[task.id] = TaskRecord(task, len(self.records), at)
                self.counts[State.WAITING] += 1
            case DecisionOpened(decision=decision):
                self.decisions[decision.id] = decision
            case DecisionClosed(decision_id=decision_id):
                closed = transition.close(self.decisions[decision_id])
                self.decisions[decision_id] = closed
                take_answer(self.records, closed)
        self.at = max(self.at, transition.at)

    @property
    def total(self) -> int:
        return len(self.records)

    @property
    def done(self) -> int:
        """How many tasks have ended, well or not."""
        return sum(count for state, count in self.counts.items() if state.settled)

    def state(self, *, live: bool) -> RunState:
        """The run in one word. ``live`` says whether a process carries it out at this moment."""
        if self.done == self.total:
            if live and any(decision.kind == "ask" for decision in self.open_decisions()):
                # The program that asked waits for the answer, whatever it does with that.
                return "waiting"
            return "succeeded" if self.counts[State.SUCCEEDED] == self.total else "failed"
        if not self._can_go_on():
            return "waiting"
        return "running" if live else "interrupted"

    def _can_go_on(self) -> bool:
        """Whether anything but an answer could move the run."""
        if any(self.counts[state] for state in (State.READY, State.RUNNING, State.STOPPING)):
            return True
        if not self.counts[State.LANDING]:
            return False
        held = {task_id for decision in self.open_decisions() for task_id in decision.blocking}
        return any(r.state is State.LANDING and r.id not in held for r in self.records.values())

    def open_decisions(self) -> list[Decision]:
        return [decision for decision in self.decisions.values() if decision.open]

    def missing(self, record: TaskRecord) -> list[str]:
        """The ids of what a task needs that has not succeeded."""
        return [n for n in record.task.needs if self.records[n].state is not State.SUCCEEDED]

    def results(self) -> list[TaskResult]:
        return [record.result() for record in self.records.values()]
