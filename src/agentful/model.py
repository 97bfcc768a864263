"""The nouns: what a task is, what states it goes through, what became of it.

Everything here is frozen data. Durations are seconds, instants are seconds since the epoch (UTC),
paths are relative to the repository's root with forward slashes.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Struct
from msgspec.structs import force_setattr

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .errors import TaskError

__all__ = [
    "Agent",
    "Answer",
    "Decision",
    "Failure",
    "Named",
    "Need",
    "Options",
    "Reason",
    "State",
    "Task",
    "TaskResult",
    "Usage",
    "format_duration",
    "ids_of",
]


class State(StrEnum):
    """Where a task is. The paths between these are the table in ``core/scheduler.py``."""

    WAITING = "waiting"
    """Something that it needs has not landed yet."""
    READY = "ready"
    """It may start; a slot, its scope, or a delay keeps it."""
    RUNNING = "running"
    """An attempt is at work."""
    STOPPING = "stopping"
    """Its attempt was told to end, and has not ended yet."""
    LANDING = "landing"
    """Its work is pinned, and is being merged, checked and landed, or waits its turn for that."""
    BLOCKED = "blocked"
    """A decision is open that a person has to take."""
    SUCCEEDED = "succeeded"
    """Its work is on the integration branch."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """A task that it needs did not succeed."""

    @property
    def settled(self) -> bool:
        """Whether nothing more will happen to the task by itself."""
        return self in _SETTLED


_SETTLED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SKIPPED})


class Reason(StrEnum):
    """Why a task is in its state. A timeout or a conflict is a reason, never a state."""

    AGENT_FAILED = "agent_failed"
    """The agent's process failed, or the agent said that it could not do it."""
    AGENT_MISSING = "agent_missing"
    """The agent's program is not there, or cannot be started."""
    NO_CHANGE = "no_change"
    """The agent said "done" and had changed nothing."""
    OUT_OF_SCOPE = "out_of_scope"
    """It wrote outside its declared scope, and the policy is to fail on that."""
    SETUP_FAILED = "setup_failed"
    """A setup command failed in the fresh workspace."""
    WORKSPACE = "workspace"
    """What it left in its workspace cannot be kept as a tree."""
    CONFLICT = "conflict"
    CHECKS_FAILED = "checks_failed"
    TIMEOUT = "timeout"
    """Its own time ran out."""
    RUN_TIMEOUT = "run_timeout"
    """The time of the whole run, or group, ran out."""
    LOST = "lost"
    """Its process or its machine went away. Not counted as an attempt at the work."""
    INTERRUPTED = "interrupted"
    """The run was stopped, to be resumed. Not counted either."""
    CANCELLED = "cancelled"
    """Somebody cancelled it."""
    FAIL_FAST = "fail_fast"
    """A sibling failed, and the run was to stop at the first failure."""
    NEED_FAILED = "need_failed"
    """A task that it needs did not succeed."""
    QUESTION = "question"
    """Its agent asked something that only a person can answer."""
    DECISION = "decision"
    """A decision names it."""
    DROPPED = "dropped"
    """A person decided to go on without it."""


class Need(StrEnum):
    """What a ready or waiting task is kept by, as ``Scheduler.explain`` tells it."""

    NEEDS = "needs"
    SLOT = "slot"
    SCOPE = "scope"
    RESOURCE = "resource"
    ALONE = "alone"
    DELAY = "delay"
    PAUSED = "paused"
    DECISION = "decision"
    QUEUE = "queue"


class Usage(Struct, frozen=True, omit_defaults=True):
    """What an attempt used, as far as its client says: ``None`` is unknown, which is not zero."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    """US dollars."""

    def __add__(self, other: Usage) -> Usage:
        def add(a: float | None, b: float | None) -> Any:
            return b if a is None else a if b is None else a + b

        return Usage(
            add(self.input_tokens, other.input_tokens),
            add(self.output_tokens, other.output_tokens),
            add(self.cost, other.cost),
        )


def _seconds(value: float | timedelta | None) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return None if value is None else float(value)


class Named(Protocol):
    """What has an id: a task, its handle, its result."""

    @property
    def id(self) -> str: ...


def ids_of(value: str | Named | Iterable[str | Named]) -> tuple[str, ...]:
    """Ids from ids or from whatever has one, as a task handle does: one of them, or several."""
    given: Any = value
    if isinstance(given, str) or hasattr(given, "id"):
        given = (given,)
    return tuple(item if isinstance(item, str) else str(item.id) for item in given)


def _strings(value: Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


class _Wish(Struct, frozen=True, gc=False, omit_defaults=True):
    agent: str = ""
    """The name of the agent that is to do it; empty for a ``run`` task."""
    prompt: str = ""
    """What the agent is asked to do."""


class Task(_Wish, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One piece of work: who is to do what, what it needs first, what it may write. Frozen data.

    ``needs`` takes ids or task handles; ``timeout`` and ``estimate`` take seconds or a ``timedelta``.
    An ``id`` that is left out is given at submission. ``run`` is a shell command in place of an agent
    and a prompt.

    ``writes`` are gitignore-style globs, relative to the repository's root. ``None`` means "not said",
    and keeps nobody out; an empty tuple means "nothing".
    """

    id: str = ""
    needs: tuple[str, ...] = ()
    """Ids of the tasks whose work has to be on the branch before this one starts."""
    writes: tuple[str, ...] | None = None
    resources: tuple[str, ...] = ()
    """Named exclusive things that git cannot see: ``db``, ``port:3000``."""
    run: str | None = None
    timeout: float | None = None
    """Seconds of wall-clock time for one attempt; ``None`` takes the run's."""
    retries: int | None = None
    """How many more attempts after a failed one; ``None`` takes the run's."""
    priority: int = 0
    """Higher goes first."""
    estimate: float | None = None
    """Seconds that it is expected to take, for the predicted timeline and the order."""
    checks: tuple[str, ...] | None = None
    """Commands that must pass on the merged tree; ``None`` takes the run's."""
    reads_only: bool = False
    """It writes nothing that is to be kept, as a reviewer: no landing, and no change is no failure."""
    affinity: str | None = None
    """Tasks with the same key would like the same agent session and workspace."""
    speculative: bool = False
    """It may start before what it needs has landed."""

    if TYPE_CHECKING:
        # The fields take more than what they then are, which only a signature can say.
        def __init__(
            self,
            agent: str = "",
            prompt: str = "",
            *,
            id: str = "",  # noqa: A002
            needs: str | Named | Iterable[str | Named] = (),
            writes: Iterable[str] | None = None,
            resources: Iterable[str] = (),
            run: str | None = None,
            timeout: float | timedelta | None = None,
            retries: int | None = None,
            priority: int = 0,
            estimate: float | timedelta | None = None,
            checks: Iterable[str] | None = None,
            reads_only: bool = False,
            affinity: str | None = None,
            speculative: bool = False,
        ) -> None: ...

    def __post_init__(self) -> None:
        if type(self.needs) is not tuple or self.needs:
            force_setattr(self, "needs", ids_of(self.needs))
        if self.writes is not None:
            force_setattr(self, "writes", _strings(self.writes))
        if type(self.resources) is not tuple or self.resources:
            force_setattr(self, "resources", _strings(self.resources))
        if self.checks is not None:
            force_setattr(self, "checks", _strings(self.checks))
        if self.timeout is not None:
            force_setattr(self, "timeout", _seconds(self.timeout))
        if self.estimate is not None:
            force_setattr(self, "estimate", _seconds(self.estimate))

    @property
    def title(self) -> str:
        """One line that tells people what it is: the first line of the prompt, or of the command; of a
        command that begins with a comment, what that says."""
        text = (self.run if self.run is not None else self.prompt).strip()
        first = text.splitlines()[0] if text else ""
        if self.run is not None and first.startswith("# "):
            return first.lstrip("# ") or first
        return first


class Agent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A named role: which client plays it, and how.

    Comes from the config, a plan, or ``.claude/agents/NAME.md``. ``extra`` keeps every key of the
    file that agentful does not know, for the client that may.
    """

    name: str
    description: str = ""
    driver: str = "command"
    command: tuple[str, ...] = ()
    """The program and its arguments, for the ``command`` driver. ``{prompt}``, ``{prompt_file}``,
    ``{workspace}``, ``{task}`` and ``{model}`` in an argument are filled in."""
    prompt_by: Literal["argv", "stdin", "file"] = "argv"
    """How the prompt reaches the program when no argument names it: as the last argument, on standard
    input, or only as the file that ``AGENTFUL_PROMPT_FILE`` names."""
    instructions: str = ""
    """The role's own prompt: the body of its Markdown file."""
    model: str | None = None
    tools: tuple[str, ...] | None = None
    env: dict[str, str] = {}
    """Environment variables set for it."""
    pass_env: tuple[str, ...] = ()
    """Names (or globs) of environment variables let through to it from ours."""
    timeout: float | None = None
    writes: tuple[str, ...] | None = None
    """The scope of its tasks that declare none."""
    reads_only: bool = False
    source: str = ""
    """Where the definition stands, as ``.claude/agents/backend.md``."""
    extra: dict[str, Any] = {}


class Failure(Struct, frozen=True, omit_defaults=True):
    """What went wrong with an attempt: handed to the next one as context."""

    attempt: int
    reason: Reason
    message: str
    """One line."""
    detail: str = ""
    """What it printed at the end, the checks' output, the conflicting hunks: bounded text."""
    paths: tuple[str, ...] = ()
    other: str | None = None
    """The id of the task that landed the other side of a conflict."""
    commit: str | None = None
    """The pinned commit with what the attempt had done."""


class Answer(Struct, frozen=True):
    """A question that an agent asked, and what a person answered: context for the next attempt."""

    question: str
    answer: str


class Decision(Struct, frozen=True, omit_defaults=True):
    """A question only a person can answer. It blocks the tasks it names; all others go on."""

    id: str
    question: str
    options: tuple[str, ...] = ()
    """What may be answered; empty means any text."""
    blocking: tuple[str, ...] = ()
    """Ids of the tasks that wait for the answer."""
    context: str = ""
    """What the person should know: an error, a list of paths, where the work is pinned."""
    kind: Literal["ask", "question", "failure", "landing"] = "ask"
    """``ask``: code or a person opened it. ``question``: a task's own agent asked. ``failure``: a task
    failed, and the answer says how to go on. ``landing``: something is in the way of landing finished
    work; any answer tries it again."""
    asked_at: float = 0.0
    answer: str | None = None
    answered_at: float | None = None

    @property
    def open(self) -> bool:
        return self.answer is None


class Options(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a run is carried out. Not part of a run's story: a resume may use others."""

    max_concurrency: int = 4
    """Slots: how many attempts at once."""
    sequential: bool = False
    """Start the next task only when what came before has landed, or waits for a person."""
    fail_fast: bool = False
    """At the first task that fails for good, cancel the others; else go on with what does not need it."""
    conflicts: Literal["avoid", "optimistic"] = "avoid"
    """``avoid``: tasks with overlapping ``writes`` never run at once. ``optimistic``: they may.
    Resources exclude either way."""
    retries: int = 0
    retry_delay: float = 1.0
    """Seconds before the first retry; doubled for each further one, to at most a minute."""
    conflict_retries: int = 2
    """Attempts on the new tip after a conflict, the last one with nothing else running."""
    timeout: float | None = None
    """Seconds for the whole run."""
    task_timeout: float | None = None
    """Seconds for one attempt of a task that has no timeout of its own."""
    checks: tuple[str, ...] = ()
    scope: Literal["warn", "fail"] = "warn"
    """What writing outside the declared scope leads to."""
    on_failure: Literal["fail", "decide"] = "fail"
    """When a task has used up its attempts: fail it, or open a decision."""
    on_conflict: Literal["fail", "decide"] = "decide"
    """The same for a task whose conflict the retries did not resolve."""


class TaskResult(Struct, frozen=True, kw_only=True):
    """What became of a task."""

    task: Task
    state: State
    reason: Reason | None = None
    message: str = ""
    """One line for people: why it failed, or the end of what it said."""
    summary: str = ""
    """What the agent says it did; handed to the tasks that need this one."""
    outputs: dict[str, Any] = {}
    """Named values that it handed on."""
    commit: str | None = None
    """The landed commit; for a task that did not land, its last pinned one."""
    attempts: int = 0
    """Attempts that were started."""
    paths: tuple[str, ...] = ()
    """What it changed; for a conflict, what is in conflict."""
    other: str | None = None
    detail: str = ""
    usage: Usage = Usage()
    started_at: float | None = None
    finished_at: float | None = None
    duration: float = 0.0
    """Seconds of all its attempts and landings together, without the waiting between them."""

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def agent(self) -> str:
        return self.task.agent

    @property
    def ok(self) -> bool:
        return self.state is State.SUCCEEDED

    @property
    def status(self) -> str:
        """The state in the seed's spelling: ``success`` for a task that succeeded."""
        return "success" if self.ok else self.state.value

    @property
    def error(self) -> TaskError | None:
        """The exception that this result would raise; ``None`` where it succeeded."""
        from . import errors

        label = f"task {self.id!r}"
        said = f": {self.message}" if self.message else ""
        match self.state, self.reason:
            case State.CANCELLED, Reason.RUN_TIMEOUT:
                return errors.TaskTimeout(f"{label}: the run's time was up", task_id=self.id, result=self)
            case State.CANCELLED, _:
                why = f" ({self.reason.value})" if self.reason and self.reason != Reason.CANCELLED else ""
                return errors.TaskCancelled(f"{label} was cancelled{why}", task_id=self.id, result=self)
            case State.SKIPPED, _:
                return errors.TaskSkipped(f"{label} was skipped{said}", task_id=self.id, result=self)
            case State.FAILED, Reason.CONFLICT:
                return errors.ConflictError(
                    f"{label} conflicts{said}",
                    task_id=self.id,
                    result=self,
                    paths=self.paths,
                    other=self.other,
                )
            case State.FAILED, Reason.CHECKS_FAILED:
                return errors.ChecksFailed(
                    f"{label} did not pass its checks{said}", task_id=self.id, result=self
                )
            case State.FAILED, Reason.TIMEOUT | Reason.RUN_TIMEOUT:
                return errors.TaskTimeout(f"{label} ran out of time{said}", task_id=self.id, result=self)
            case State.FAILED, _:
                return errors.TaskFailed(f"{label} failed{said}", task_id=self.id, result=self)
            case _:
                return None


def format_duration(seconds: float) -> str:
    """A duration as people write it: ``0.4s``, ``38s``, ``6m41s``, ``1h02m``."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 9.95:
        text = f"{seconds:.1f}"
        return (text.removesuffix(".0")) + "s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m" if minutes else f"{hours}h"
    if minutes:
        return f"{minutes}m{secs:02d}s" if secs else f"{minutes}m"
    return f"{secs}s"
