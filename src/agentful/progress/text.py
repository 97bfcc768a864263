"""Text that is safe and fits: what agents print is data, and never reaches a terminal as it came."""

from __future__ import annotations

import re
import shlex
import unicodedata
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from ..model import Task

Line = list[tuple[str, str]]
"""A line of a screen: pieces of text, each with a style such as ``bold red``; empty for none."""

_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # a command to the terminal, such as its title
    r"|\x1b[PX^_][^\x1b\x9c]*(?:\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor movements
    r"|\x1b[ -/]*[0-~]"
)
_KEPT = {"\n", "\t"}


def printable(text: str) -> str:
    """The text with nothing in it that a terminal obeys; lines and tabs stay.

    Escape sequences go. Other control characters, those that turn the direction of writing, and halves
    of surrogate pairs become U+FFFD.
    """
    if text.isascii() and text.isprintable():
        return text
    if "\x1b" in text or "\x9b" in text:
        text = _ESCAPES.sub("", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return "".join(char if _is_harmless(char) else "\N{REPLACEMENT CHARACTER}" for char in text)


def _is_harmless(char: str) -> bool:
    if char.isprintable() or char in _KEPT:
        return True
    category = unicodedata.category(char)
    if category in {"Cc", "Cs", "Zl", "Zp"}:
        return False
    # Joiners that emoji and scripts need are of the same category as those that turn the direction.
    return not ("\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069")


def one_line(text: str) -> str:
    """The text on one line, without anything that a terminal obeys and with single spaces."""
    if "\r" in text:
        # What a progress bar overwrote is gone, as it is on a terminal.
        text = text.replace("\r\n", "\n").rstrip("\r\n").rpartition("\r")[2]
    return " ".join(printable(text).split())


def agent_of(task: Task) -> str:
    """Who does a task, in a word: its agent, or the shell."""
    return one_line(task.agent) or "shell"


def as_word(text: str) -> str:
    """The text as one word of a command that a person may copy."""
    return shlex.quote(one_line(text))


def clip(text: str, width: int) -> str:
    """At most ``width`` columns of the text; a cut is shown by an ellipsis."""
    if width <= 0:
        return ""
    # Most characters take a column at least, so no long text has to be measured whole.
    if len(text) <= 4 * width and cell_len(text) <= width:
        return text
    return set_cell_size(text[: 4 * width], width - 1).rstrip() + "…"


def pad(text: str, width: int) -> str:
    """Exactly ``width`` columns: cut or filled up with spaces."""
    return set_cell_size(clip(text, width), width)


def cells(line: Line) -> int:
    """How many columns the line takes."""
    return sum(cell_len(text) for text, _ in line)


def clip_line(line: Line, width: int) -> Line:
    """At most ``width`` columns of the line."""
    found: Line = []
    for text, style in line:
        size = cell_len(text)
        if size <= width:
            found.append((text, style))
            width -= size
            continue
        if width > 0:
            found.append((clip(text, width), style))
        break
    return found


def plain(line: Line) -> str:
    """The line without its styles."""
    return "".join(text for text, _ in line).rstrip()


def listed(names: list[str], width: int) -> str:
    """Names with commas between, as many as fit into ``width`` columns, and how many more there are."""
    text = ""
    for count, name in enumerate(names):
        longer = f"{text}, {name}" if text else name
        left = len(names) - count - 1
        more = f", … {left} more" if left else ""
        if cell_len(longer) + len(more) > width:
            rest = len(names) - count
            if not text:
                return (
                    clip(name, width)
                    if rest == 1
                    else clip(name, max(1, width - 12)) + f", … {rest - 1} more"
                )
            return f"{text}, … {rest} more"
        text = longer
    return text
