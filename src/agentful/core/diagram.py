"""The states of a task as a drawing: made from the table, so that it shows what is true.

``docs/states.md`` is what :func:`states_markdown` says; a test fails when it no longer is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..events import Trigger
from ..model import State
from .scheduler import TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

_ABOUT = """\
A task goes from state to state only along these arrows; nothing else can happen to it. An arrow is
labelled with what moves the task along it: how its attempt ended, what somebody asked for, or what became
of another task. Why it is in a state (a timeout, a conflict, failed checks) is a reason, kept beside the
state. A task in one of the four last states stays there, unless a person asks for it to be run again;
one whose work has landed never runs again.
"""

_ENDS = "[*]"

_MEANINGS: Mapping[State, str] = {
    State.WAITING: "needs something that has not landed yet",
    State.READY: "may start; a slot, its scope, a resource or a delay keeps it",
    State.RUNNING: "has an attempt at work",
    State.STOPPING: "was told to end its attempt, which has not ended yet",
    State.LANDING: "is being merged, checked and landed, or waits its turn for that; its work is pinned",
    State.BLOCKED: "waits for a decision that a person has to take",
    State.SUCCEEDED: "has its work on the integration branch, or had none to put there",
    State.FAILED: "used up its attempts",
    State.CANCELLED: "was cancelled: by name, with the run, or because another one failed",
    State.SKIPPED: "needs a task that did not succeed, or was dropped by a person",
}

_TRIGGERS: Mapping[Trigger, str] = {
    Trigger.SUBMITTED: "it is part of a plan that was taken",
    Trigger.NEEDS_MET: "the last of what it needs has landed",
    Trigger.NEED_FAILED: "something that it needs ended without success",
    Trigger.STARTED: "a slot is free for it, and what it wants to itself",
    Trigger.FINISHED: "the attempt ended well, and left something to land",
    Trigger.DONE: "the attempt ended well, and there is nothing to land",
    Trigger.RETRIED: "the attempt or its landing failed, and there will be another",
    Trigger.GAVE_UP: "it failed, and there will be no other",
    Trigger.LOST: "the attempt or its landing went away through no fault of its own",
    Trigger.ASKED: "a decision was opened on it: by its agent, by its last failure, or by somebody else",
    Trigger.ANSWERED: "the last decision on it is answered, and it goes on",
    Trigger.DROPPED: "a person decided to go on without it",
    Trigger.HANDED_IN: "a person did the work, on the branch itself",
    Trigger.STOP_REQUESTED: "its time is up, or it was cancelled, or the run is being stopped",
    Trigger.INTERRUPTED: "it was stopped with the run, and runs again with the resume",
    Trigger.PREPARED: "it is merged and checked aside, and the branch is about to move",
    Trigger.BRANCH_MOVED: "somebody else moved the branch first: it is prepared again",
    Trigger.LANDED: "the branch has its work",
    Trigger.CANCELLED: "it is cancelled, and nothing of it is at work any more",
    Trigger.REVIVED: "a person asked for it to be run again",
}


def states_mermaid(table: Mapping[State, Mapping[Trigger, State]] = TRANSITIONS) -> str:
    """The table as the text of a Mermaid state diagram, one arrow for each pair of states."""
    lines = ["stateDiagram-v2", f"    {_ENDS} --> {State.WAITING}: {Trigger.SUBMITTED}"]
    for source, row in table.items():
        arrows: dict[State, list[Trigger]] = {}
        for trigger, target in row.items():
            arrows.setdefault(target, []).append(trigger)
        for target, triggers in arrows.items():
            labels = ", ".join(str(trigger).replace("_", " ") for trigger in triggers)
            lines.append(f"    {source} --> {target}: {labels}")
    lines += [f"    {state} --> {_ENDS}" for state in table if state.settled]
    return "\n".join(lines) + "\n"


def states_markdown() -> str:
    """The page ``docs/states.md``: the drawing, and what it shows."""
    meanings = "\n".join(f"| `{state}` | {_MEANINGS[state]} |" for state in State)
    triggers = "\n".join(
        f"| {str(trigger).replace('_', ' ')} | {_TRIGGERS[trigger]} |" for trigger in Trigger
    )
    return (
        "# The states of a task\n\n"
        "<!-- Drawn from TRANSITIONS in src/agentful/core/scheduler.py; not to be edited by hand. -->\n\n"
        f"{_ABOUT}\n"
        f"```mermaid\n{states_mermaid()}```\n\n"
        f"| state | a task in it |\n|---|---|\n{meanings}\n\n"
        f"| arrow | what moves a task along it |\n|---|---|\n{triggers}\n"
    )
