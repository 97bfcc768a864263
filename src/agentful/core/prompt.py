"""What an agent is told: its role, what was done before it, the task, its bounds, what went wrong.

The parts stand in this order, each under a heading of its own, and a part with nothing to say is left
out. In a task's own prompt ``{{ needs.ID.summary }}`` and ``{{ needs.ID.outputs.NAME }}`` are replaced
by what the task ``ID`` handed on; a need that is named so is not repeated in "what was done before you".

All of it is data from agents and files; nothing here is ever run by a shell.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..events import StartAttempt
    from ..model import Agent, Failure

_REFERENCE = re.compile(r"\{\{\s*needs\.(?P<id>[^{}\n]+?)\.(?:summary|outputs\.(?P<name>[\w-]+))\s*\}\}")
_MOST = 8_000
"""Characters of a summary or a failure's output that are handed on: its end, which has the point."""


def build(start: StartAttempt, agent: Agent, checks: Sequence[str] = ()) -> str:
    """The whole prompt for one attempt, ending in a newline."""
    task = start.task
    needs = {need: (summary, outputs) for need, summary, outputs in start.needs}
    used: set[str] = set()
    wish = _fill_in(task.prompt.strip(), needs, used)
    parts = [agent.instructions.strip()]
    before = [
        f"### {need}\n\n{_tail(summary.strip()) or '(it left no summary)'}{_outputs(outputs)}"
        for need, (summary, outputs) in needs.items()
        if need not in used
    ]
    if before:
        parts.append("## What was done before you\n\n" + "\n\n".join(before))
    parts.append(("## Your task\n\n" if len(parts) > 1 or parts[0] else "") + wish)
    if task.reads_only:
        parts.append("## Where you may write\n\nNowhere: you only read. What you write is thrown away.")
    elif task.writes is not None:
        globs = "\n".join(f"- {glob}" for glob in task.writes)
        parts.append("## Where you may write\n\n" + (globs or "Nowhere."))
    if checks and not task.reads_only:
        said = "These commands have to pass once your work is merged:"
        parts.append(f"## Checks\n\n{said}\n\n" + "\n".join(f"- {check}" for check in checks))
    if start.answers:
        answers = (f"- {answer.question}\n  Answer: {answer.answer}" for answer in start.answers)
        parts.append("## Decisions\n\n" + "\n".join(answers))
    if start.failures:
        parts.append("## What went wrong before\n\n" + "\n\n".join(map(_failure, start.failures)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _fill_in(prompt: str, needs: dict[str, tuple[str, dict[str, Any]]], used: set[str]) -> str:
    def replace(match: re.Match[str]) -> str:
        need = match["id"]
        if need not in needs:
            return match[0]
        used.add(need)
        summary, outputs = needs[need]
        if match["name"] is None:
            return _tail(summary.strip())
        return _tail(str(outputs.get(match["name"], "")))

    return _REFERENCE.sub(replace, prompt)


def _failure(failure: Failure) -> str:
    text = f"Attempt {failure.attempt}: {str(failure.reason).replace('_', ' ')}. {failure.message}".rstrip()
    if failure.other:
        text += f"\nThe other side came from the task {failure.other!r}, which has landed."
    if failure.paths:
        text += "\nPaths: " + ", ".join(failure.paths[:50])
    if failure.commit:
        text += f"\nWhat that attempt had done is kept as the commit {failure.commit}."
    if failure.detail.strip():
        text += f"\n\n{_fence(_tail(failure.detail.strip()))}"
    return text


def _outputs(outputs: dict[str, Any]) -> str:
    return "".join(f"\n- {name}: {_tail(str(value))}" for name, value in outputs.items())


def _tail(text: str) -> str:
    return text if len(text) <= _MOST else "[...]\n" + text[-_MOST:]


def _fence(text: str) -> str:
    """A code block whose fence the text cannot close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{text}\n{fence}"
