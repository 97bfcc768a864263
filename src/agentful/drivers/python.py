"""A Python function as an agent: for libraries, for scripts, for tests.

The function gets the `Attempt`. Where it has a parameter called ``emit``, it also gets a callable that
takes agent events (progress, messages, outputs, usage, a question), from any thread. An async function is
awaited on the loop, and is stopped by cancelling it. A plain one runs on a thread beside the loop; Python
cannot stop a thread, so it should look at ``attempt.deadline`` when it takes long.

What it returns: ``None``; or its summary, as text; or a mapping with ``summary`` and ``outputs``; or an
`Outcome`, to say everything. What it raises is a failed attempt.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from ..model import Reason
from .base import Account, AgentEvent, AgentOutput, AgentProgress, AgentSummary, Outcome, too_deep

if TYPE_CHECKING:
    from collections.abc import Callable

    from .base import Attempt


class PythonDriver:
    """Calls a function for one attempt. A `FunctionDriver`.

    Raises `TypeError` where the function cannot be called with an attempt.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._emits = _takes_emit(function)
        self._account = Account()

    @property
    def blocking(self) -> bool:
        """Whether it is a plain function, which is called on a thread."""
        called = type(self._function).__call__
        return not (inspect.iscoroutinefunction(self._function) or inspect.iscoroutinefunction(called))

    def call(self, attempt: Attempt, emit: Callable[[AgentEvent], None]) -> object:
        """Call the function. What an async one returns is to be awaited."""
        if not self._emits:
            return self._function(attempt)

        def record(event: AgentEvent) -> None:
            event = _checked(event)
            self._account.add(event)
            emit(event)

        return self._function(attempt, emit=record)

    def outcome(self, value: object) -> Outcome:
        """What the function's value means, along with what it emitted."""
        if isinstance(value, Outcome):
            return value
        problem = self._take(value)
        if problem:
            return Outcome(ok=False, reason=Reason.AGENT_FAILED, message=problem, usage=self._account.usage)
        return self._account.ended(ok=True)

    def _take(self, value: object) -> str:
        """Add a returned value to the account. Returns what is wrong with it, or nothing."""
        if value is None:
            return ""
        if isinstance(value, str):
            value = {"summary": value}
        if not isinstance(value, Mapping):
            return f"it returned a {type(value).__name__}, not None, text, a mapping or an Outcome"
        given = cast("Mapping[object, object]", value)
        unknown = [str(key) for key in given if key not in ("summary", "outputs")]
        if unknown:
            return f"it returned a mapping with {', '.join(unknown)}: only summary and outputs are known"
        summary: object = given.get("summary") or ""
        if not isinstance(summary, str):
            return f"the summary that it returned is a {type(summary).__name__}, not text"
        try:
            builtins = msgspec.to_builtins(given.get("outputs") or {}, str_keys=True)
            outputs = msgspec.convert(builtins, dict[str, Any])
            msgspec.json.encode(outputs)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            return f"the outputs that it returned cannot be kept as JSON: {error}"
        if too_deep(outputs):
            return "the outputs that it returned are nested too deeply"
        if summary.strip():
            self._account.add(AgentSummary(summary.strip()))
        for name, output in outputs.items():
            self._account.add(AgentOutput(name, output))
        return ""


def _checked(event: Any) -> AgentEvent:
    """What a function emits, as an event that can be shown and kept. Raises `TypeError` for anything else."""
    if not isinstance(event, AgentEvent):
        raise TypeError(f"emit takes agent events, as AgentMessage('half way'), not {event!r:.80}")
    if isinstance(event, AgentProgress) and event.percentage is not None:
        percentage = event.percentage
        known = None if math.isnan(percentage) else min(100.0, max(0.0, percentage))
        return AgentProgress(known, event.message)
    return event


def _takes_emit(function: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:
        # A function in C that does not say.
        return False
    emits = "emit" in signature.parameters
    try:
        signature.bind(None, **({"emit": None} if emits else {}))
    except TypeError:
        raise TypeError(f"an agent takes an attempt, and may take emit; not {signature}") from None
    return emits
