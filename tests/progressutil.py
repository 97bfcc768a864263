"""A run to show: decided by the real scheduler, from events at chosen times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentful.core.scheduler import Scheduler
from agentful.core.view import RunView
from agentful.events import (
    AttemptAsked,
    AttemptFailed,
    AttemptSucceeded,
    Landed,
    LandingPrepared,
    TasksSubmitted,
    Tick,
)
from agentful.model import Options, Reason, Task

if TYPE_CHECKING:
    from agentful.events import Event, Transition

START = 1_000_000.0


class Story:
    """A scheduler, and everything that it has decided."""

    def __init__(self, *tasks: Task, **options: object) -> None:
        self.scheduler = Scheduler(Options(**options))  # type: ignore[arg-type]
        self.transitions: list[Transition] = []
        self.view = RunView()
        self.tell(TasksSubmitted(START, tasks))

    def tell(self, *events: Event) -> None:
        for event in events:
            changes = self.scheduler.handle(event).transitions
            self.transitions += changes
            for change in changes:
                self.view.apply(change)

    def finish(self, task_id: str, at: float, *paths: str, attempt: int = 1) -> None:
        """The attempt ends well; its work waits to land."""
        self.tell(AttemptSucceeded(START + at, task_id, attempt, "abc", paths or (f"{task_id}.py",)))

    def land(self, task_id: str, at: float, *paths: str, attempt: int = 1) -> None:
        """The attempt ends well, and its work lands at once."""
        self.finish(task_id, at, *paths, attempt=attempt)
        self.tell(
            LandingPrepared(START + at, task_id, f"{task_id}-landed", "tip"),
            Landed(START + at, task_id, f"{task_id}-landed"),
        )

    def fail(self, task_id: str, at: float, message: str, *, attempt: int = 1) -> None:
        self.tell(AttemptFailed(START + at, task_id, attempt, Reason.AGENT_FAILED, message))


def busy_story() -> Story:
    """Something in every state that a board shows."""
    story = Story(
        Task("backend", "Implement the auth API", id="api", writes=("src/api/**",), estimate=300),
        Task("frontend", "Create the login page", id="ui", estimate=300),
        Task("backend", "Choose a session store", id="auth"),
        Task("writer", "Write the docs", id="docs"),
        Task("backend", "A command line", id="cli"),
        Task("backend", "Speed it up", id="fast", writes=("src/api/x.py",)),
        Task("tester", "Write tests", id="tests", needs=("api", "ui")),
        Task("tester", "End to end", id="e2e", needs=("cli",)),
        max_concurrency=6,
        retries=1,
    )
    story.land("docs", 60, "README.md", "docs/index.md")
    question = "Sessions or JWT?"
    story.tell(AttemptAsked(START + 80, "auth", 1, question, ("Sessions", "JWT")))
    story.fail("cli", 90, "exit code 1")
    story.tell(Tick(START + 92))
    story.fail("cli", 120, "\x1b[31mexit code 2", attempt=2)
    return story
