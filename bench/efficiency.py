"""How near a run comes to its own prediction: the list schedule, against the clock.

The examples that the idea of agentful was told with, a minute of them in a fraction of a second, with
commands that sleep in place of agents: so what is seen is the time between one task's end and the next
one's start. "A step" is that, with a share of the run's own beginning and end. It does not grow with the
tasks, as the two scales show; over tasks of minutes it would not be seen at all.

- ``in place``: in one folder, without a repository.
- ``landing``: in a repository, each task in a workspace of its own, writing a file that lands.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from agentful.core import graph, policy
from agentful.model import Task
from bench.harness import markdown, take_turns
from bench.repos import in_place, in_workspaces, load, load_line

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = {0.2: 5, 0.6: 2}
"""By the seconds that a minute of the examples takes here: how often each is measured."""

_FEATURES = ("authentication", "profile", "notifications")

# Each as slots, and tasks with what they need and their minutes.
EXAMPLES: dict[str, tuple[int, dict[str, tuple[tuple[str, ...], float]]]] = {
    "four tasks": (
        4,
        {
            "api": ((), 5),
            "ui": ((), 5),
            "tests": (("api", "ui"), 5),
            "review": (("tests",), 3),
        },
    ),
    "ten tasks": (4, {f"task-{number}": ((), 5) for number in range(10)}),
    "features": (
        4,
        {f"{name}-{part}": ((), 5) for name in _FEATURES for part in ("api", "ui")}
        | {f"{name}-tests": ((f"{name}-api", f"{name}-ui"), 5) for name in _FEATURES}
        | {"review": (tuple(f"{name}-tests" for name in _FEATURES), 3)},
    ),
}


def run(quick: bool) -> dict[str, Any]:
    """Predicted and measured seconds of each example."""
    scales = {0.01: 1} if quick else ROUNDS
    return {
        "load": load(),
        "rows": [_measure(name, minute, rounds) for minute, rounds in scales.items() for name in EXAMPLES],
    }


def _measure(name: str, minute: float, rounds: int) -> dict[str, Any]:
    slots, wishes = EXAMPLES[name]
    tasks = [
        Task(
            id=task,
            run=f"sleep {minutes * minute:g} && touch {task}",
            needs=needs,
            writes=(f"/{task}",),
            estimate=minutes * minute,
        )
        for task, (needs, minutes) in wishes.items()
    ]
    predicted = graph.timeline(tasks, slots, policy.duration)
    rivals: dict[str, Callable[[], float]] = {
        "in place": lambda: in_place(tasks, slots),
        "landing": lambda: in_workspaces(tasks, slots),
    }
    taken = take_turns(rivals, rounds)
    steps = len({planned.start for planned in predicted.tasks})
    measured = {rival: statistics.median(times) for rival, times in taken.items()}
    return {
        "example": name,
        "minute": minute,
        "rounds": rounds,
        "slots": slots,
        "tasks": len(tasks),
        "steps": steps,
        "one_by_one": predicted.sequential,
        "predicted": predicted.makespan,
        "measured": measured,
        "fastest": {rival: min(times) for rival, times in taken.items()},
        "efficiency": {rival: predicted.makespan / seconds for rival, seconds in measured.items()},
        "between": {rival: (seconds - predicted.makespan) / steps for rival, seconds in measured.items()},
    }


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    rows = [
        (
            f"{row['example']}, 5 minutes in {5 * row['minute']:g} s",
            f"{row['one_by_one']:.2f} s",
            f"{row['predicted']:.2f} s",
            f"{row['measured']['in place']:.2f} s",
            f"{row['efficiency']['in place']:.3f}",
            f"{1000 * row['between']['in place']:.0f} ms",
            f"{row['measured']['landing']:.2f} s",
            f"{row['efficiency']['landing']:.3f}",
            f"{1000 * row['between']['landing']:.0f} ms",
        )
        for row in results["rows"]
    ]
    head = ["", "one by one", "predicted"]
    for rival in ("in place", "with landing"):
        head += [rival, "efficiency", "a step"]
    return f"Medians, on 4 slots. {load_line(results['load'])}\n\n{markdown(head, rows)}"
