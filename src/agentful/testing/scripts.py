"""Agents that follow a script: no process, no network, no money."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct
from msgspec.structs import replace

from ..drivers.base import (
    Account,
    AgentEvent,
    AgentMessage,
    AgentOutput,
    AgentProgress,
    AgentQuestion,
    AgentSummary,
    AgentUsage,
    Attempt,
    Outcome,
)
from ..errors import AgentError
from ..group.host import default_driver
from ..model import Reason, Usage

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..drivers.base import Driver, FunctionDriver


class _Write(Struct, frozen=True):
    path: str
    content: str | bytes | None


class _Take(Struct, frozen=True):
    seconds: float


class _Do(Struct, frozen=True):
    function: Callable[[Attempt], object]


class _End(Struct, frozen=True):
    ok: bool = True
    message: str = ""
    reason: Reason | None = None


class _Hang(Struct, frozen=True):
    pass


_Step = AgentEvent | _Write | _Take | _Do | _End | _Hang


class Script(Struct, frozen=True):
    """What a scripted agent does in one attempt, step by step. Each method gives a longer script.

        Script().progress(40, "writing").write("a.py", "x = 1\\n").takes(300).done("wrote a.py")

    A script that comes to its end without :meth:`done` ends well all the same. After :meth:`done`,
    :meth:`fail`, :meth:`ask` and :meth:`hang` nothing can follow: that raises :class:`ValueError`.
    """

    steps: tuple[_Step, ...] = ()

    def message(self, text: str) -> Script:
        """Say something."""
        return _longer(self, AgentMessage(text))

    def progress(self, percentage: float | None, message: str = "") -> Script:
        """Say how far it is, from 0 to 100."""
        return _longer(self, AgentProgress(percentage, message))

    def write(self, path: str, content: str | bytes) -> Script:
        """Write a file of the workspace, with the folders that it is in."""
        return _longer(self, _Write(path, content))

    def remove(self, path: str) -> Script:
        """Remove a file of the workspace."""
        return _longer(self, _Write(path, None))

    def takes(self, seconds: float) -> Script:
        """Let time pass: virtual time where there is any, else real time."""
        return _longer(self, _Take(seconds))

    def does(self, function: Callable[[Attempt], object]) -> Script:
        """Call a function with the attempt; what it returns is awaited where it can be."""
        return _longer(self, _Do(function))

    def output(self, name: str, value: Any) -> Script:
        """Hand a named value on to the tasks that need this one."""
        return _longer(self, AgentOutput(name, value))

    def uses(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost: float | None = None,
    ) -> Script:
        """Use tokens, or US dollars."""
        return _longer(self, AgentUsage(Usage(input_tokens, output_tokens, cost)))

    def done(self, summary: str = "", **outputs: Any) -> Script:
        """End well."""
        script = _longer(self, AgentSummary(summary)) if summary else self
        for name, value in outputs.items():
            script = script.output(name, value)
        return _longer(script, _End())

    def fail(self, message: str = "it failed", reason: Reason = Reason.AGENT_FAILED) -> Script:
        """End without success."""
        return _longer(self, _End(ok=False, message=message, reason=reason))

    def ask(self, question: str, options: Sequence[str] = ()) -> Script:
        """End with a question for a person. The answer is in the prompt of the next attempt."""
        return _longer(_longer(self, AgentQuestion(question, tuple(options))), _End())

    def hang(self) -> Script:
        """Go on for ever, until it is stopped."""
        return _longer(self, _Hang())


def _longer(script: Script, step: _Step) -> Script:
    if script.steps and isinstance(script.steps[-1], _End | _Hang):
        raise ValueError("the script is at its end: nothing can follow done, fail, ask and hang")
    return Script((*script.steps, step))


class ScriptedDriver:
    """A driver that plays agents by their scripts. It needs no process, no network and no money.

    Scripts are looked up by the task's id, then by the agent's name; then there is ``default``. A list
    has a script for each attempt, the last one for all that follow. An attempt with no script fails, and
    says so.
    """

    blocking = False

    def __init__(
        self, scripts: Mapping[str, Script | Sequence[Script]] | None = None, *, default: Script | None = None
    ) -> None:
        self.scripts = dict(scripts or {})
        self.default = default
        self.attempts: list[Attempt] = []
        """Every attempt so far, in the order of their starts, with the prompts that they were given."""

    def script(self, attempt: Attempt) -> Script:
        """The script of an attempt. Raises :class:`AgentError` where there is none."""
        found: Script | Sequence[Script] | None = None
        for name in (attempt.task.id, attempt.agent.name):
            found = found or self.scripts.get(name)
        if isinstance(found, Sequence):
            found = found[min(attempt.number, len(found)) - 1]
        found = found or self.default
        if found is None:
            raise AgentError(f"no script for task {attempt.task.id!r} of agent {attempt.agent.name!r}")
        return found

    async def call(self, attempt: Attempt, emit: Callable[[AgentEvent], None]) -> Outcome:
        """Play the script of this attempt."""
        self.attempts.append(attempt)
        account = Account()
        for step in self.script(attempt).steps:
            match step:
                case _Write(path, content):
                    _write(Path(attempt.workspace) / path, content)
                case _Take(seconds):
                    await asyncio.sleep(seconds)
                case _Do(function):
                    found = function(attempt)
                    if asyncio.iscoroutine(found) or isinstance(found, asyncio.Future):
                        await found
                case _Hang():
                    await asyncio.get_running_loop().create_future()
                case _End(ok, message, reason):
                    outcome = account.ended(ok=ok, message=message)
                    return outcome if reason is None else replace(outcome, reason=reason)
                case _:
                    account.add(step)
                    emit(step)
        return account.ended(ok=True)

    def outcome(self, value: object) -> Outcome:
        """What :meth:`call` gave already says what it means."""
        return cast("Outcome", value)


def _write(path: Path, content: str | bytes | None) -> None:
    if content is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def use_driver(driver: Driver | FunctionDriver | Callable[..., Any]) -> Generator[None]:
    """Have ``driver`` play every agent that is defined nowhere, in the groups and runs made meanwhile."""
    token = default_driver.set(driver)
    try:
        yield
    finally:
        default_driver.reset(token)
