"""Values as TOML text, and one value of a file changed with the rest of it left as it is."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from . import positions
from .source import kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml_key(key: str) -> str:
    """A key, in quotes where TOML wants them."""
    return key if _BARE_KEY.fullmatch(key) else toml_text(key)


def toml_text(value: Any) -> str:
    """A text, number, truth value, date, list or mapping as it is written in TOML, on one line.

    Raises ValueError for what TOML has no way to say, as nothing.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return "[" + ", ".join(map(toml_text, cast("Sequence[Any]", value))) + "]"
        case Mapping():
            entries = cast("Mapping[str, Any]", value)
            inner = ", ".join(f"{toml_key(key)} = {toml_text(item)}" for key, item in entries.items())
            return f"{{ {inner} }}" if inner else "{}"
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case int() | float():
            return str(value)
        case str():
            # JSON's texts are TOML's, but for one control character.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case _:
            raise ValueError(f"TOML has no form for {kind_of(value)}")


def with_value(text: str, table: tuple[str, ...], keys: Sequence[str], value: str) -> str:
    """The text of a valid TOML file with one value set in one of its tables.

    ``keys`` are the spellings of the key: the one that is there already gets the value, else the first is
    added. A table written in braces or with dotted keys cannot be added to: the result is not valid then.
    """
    outline = positions.toml(text)
    for key in keys:
        span = outline.values.get((*table, key))
        if span is not None:
            return text[: span[0]] + value + text[span[1] :]
    end = "\r\n" if "\r\n" in text else "\n"
    line = f"{toml_key(keys[0])} = {value}{end}"
    if not table:
        return _add_at_top(text, outline, keys[0], line, end)
    header = outline.tables.get(table)
    if header is not None:
        return _add_below(text, header, line, end)
    gap = end if text.strip() else ""
    return f"{_ended(text, end)}{gap}[{'.'.join(map(toml_key, table))}]{end}{line}"


def _add_at_top(text: str, outline: positions.Outline, key: str, line: str, end: str) -> str:
    """Add a line before all tables: below the comment that shows the key, else below what is there."""
    first_table = min(outline.tables.values(), default=len(text))
    shown = re.search(rf"^#[ \t]*{re.escape(key)}[ \t]*=", text[:first_table], re.MULTILINE)
    if shown is not None:
        return _add_below(text, shown.start(), line, end)
    last = max((stop for _, stop in outline.values.values() if stop <= first_table), default=None)
    if last is not None:
        return _add_below(text, last, line, end)
    if first_table == len(text):
        return _ended(text, end) + line
    return f"{text[:first_table]}{line}{end}{text[first_table:]}"


def _add_below(text: str, at: int, line: str, end: str) -> str:
    """Add a line below the one that ``at`` is in."""
    stop = text.find("\n", at)
    if stop < 0:
        return _ended(text, end) + line
    return text[: stop + 1] + line + text[stop + 1 :]


def _ended(text: str, end: str) -> str:
    return text if not text or text.endswith("\n") else text + end
