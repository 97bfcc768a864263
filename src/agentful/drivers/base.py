"""What a driver is: the dialect of one agent client, without any I/O.

A driver says what to run, reads what it prints line by line, and says what its end meant. It lives for
one attempt and may keep what it has read. It never raises on a line that it does not know.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from msgspec import Struct

from ..model import Agent, Reason, Task, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class Attempt(Struct, frozen=True, kw_only=True):
    """One try at one task, as its driver sees it."""

    run: str
    task: Task
    agent: Agent
    number: int
    """1 for the first."""
    prompt: str
    """The whole prompt: the role's instructions, what was done before, the task, what went wrong."""
    workspace: str
    """An absolute path: where the work is to be done."""
    prompt_file: str
    """An absolute path, outside the workspace, of a file that has the prompt."""
    deadline: float | None = None


class ProcessSpec(Struct, frozen=True, kw_only=True):
    """A process to be started in the workspace."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}
    """Set on top of the allow-listed environment."""
    pass_env: tuple[str, ...] = ()
    """Names or globs of further variables to let through."""
    stdin_file: str | None = None
    """A file to be its standard input; else that is ``/dev/null``."""


class AgentMessage(Struct, frozen=True):
    """Something the agent said."""

    text: str


class AgentProgress(Struct, frozen=True):
    """How far it is. ``percentage`` is 0 to 100, or ``None`` where the agent gave no number."""

    percentage: float | None = None
    message: str = ""


class AgentQuestion(Struct, frozen=True):
    """It asks something that only a person can answer."""

    question: str
    options: tuple[str, ...] = ()


class AgentSummary(Struct, frozen=True):
    """What it says it did."""

    text: str


class AgentOutput(Struct, frozen=True):
    """A named value to hand on to the tasks that need this one."""

    name: str
    value: Any


class AgentUsage(Struct, frozen=True):
    """What it has used since the last of these."""

    usage: Usage


AgentEvent = AgentMessage | AgentProgress | AgentQuestion | AgentSummary | AgentOutput | AgentUsage


class Outcome(Struct, frozen=True, kw_only=True):
    """What an attempt's end meant, by its client's own account."""

    ok: bool
    reason: Reason | None = None
    """Why not, where not ``ok``."""
    message: str = ""
    """One line for people."""
    summary: str = ""
    outputs: dict[str, Any] = {}
    question: AgentQuestion | None = None
    """It ended in order to ask this."""
    usage: Usage = Usage()


@runtime_checkable
class Driver(Protocol):
    """An agent client that is a process."""

    def command(self, attempt: Attempt) -> ProcessSpec:
        """What to start. Raises :class:`~agentful.errors.AgentError` where it cannot be."""
        ...

    def read(self, line: str) -> Iterable[AgentEvent]:
        """What one line of its output (standard output and error alike, no newline) means."""
        ...

    def outcome(self, returncode: int) -> Outcome:
        """What its end meant; ``returncode`` is negative for a signal, as in :mod:`subprocess`."""
        ...


@runtime_checkable
class FunctionDriver(Protocol):
    """An agent that is a Python function: it is called, beside the loop, instead of started.

    The runtime calls ``call``: on the loop, or on a thread where ``blocking`` says so. What comes back is
    awaited if it can be, and then given to ``outcome``. Cancelling the wait is how it is stopped.
    """

    @property
    def blocking(self) -> bool:
        """Whether ``call`` does the work itself, so that it must not be called on the loop."""
        ...

    def call(self, attempt: Attempt, emit: Callable[[AgentEvent], None]) -> object:
        """Do the work, or return an awaitable that does. Raises whatever the function raises.

        ``emit`` may be called from the thread that the work is done on.
        """
        ...

    def outcome(self, value: object) -> Outcome:
        """What the value means that came back in the end."""
        ...


class Account:
    """What an agent has said so far, added up: for the drivers, whose last word it becomes."""

    def __init__(self) -> None:
        self.question: AgentQuestion | None = None
        self.outputs: dict[str, Any] = {}
        self.usage = Usage()
        self._summary: list[str] = []
        self._said: deque[str] = deque(maxlen=10)

    def add(self, event: AgentEvent) -> None:
        match event:
            case AgentMessage(text):
                self._said.extend(line[:_LONGEST] for line in text.splitlines() if line.strip())
            case AgentQuestion():
                self.question = event
            case AgentSummary(text):
                self._summary.append(text)
            case AgentOutput(name, value):
                self.outputs[name] = value
            case AgentUsage(usage):
                self.usage += usage
            case AgentProgress():
                pass

    @property
    def summary(self) -> str:
        """What it says it did; the end of what it said, where it gave no summary."""
        return "\n".join(self._summary or self._said)[-_LONGEST:].strip()

    @property
    def last_words(self) -> str:
        """The last line that it said, or nothing."""
        return self._said[-1] if self._said else ""

    def ended(self, *, ok: bool, message: str = "") -> Outcome:
        """What its end meant: a question that it asked comes before everything else."""
        reason = None if ok else Reason.AGENT_FAILED
        if self.question is not None:
            ok, reason, message = False, Reason.QUESTION, self.question.question
        return Outcome(
            ok=ok,
            reason=reason,
            message=message,
            summary=self.summary,
            outputs=dict(self.outputs),
            question=self.question,
            usage=self.usage,
        )


def too_deep(value: Any) -> bool:
    """Whether a value is nested so deeply that whoever writes or shows it later might give up."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for outer in level:
            if isinstance(outer, dict):
                inner.extend(cast("Mapping[Any, Any]", outer).values())
            elif isinstance(outer, list | tuple):
                inner.extend(cast("Sequence[Any]", outer))
        if not inner:
            return False
        level = inner
    return True


_DEEPEST = 64
_LONGEST = 4_000
"""Characters of a summary, or of one line of it."""
