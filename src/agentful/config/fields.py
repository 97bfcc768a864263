"""What may stand at a key: how it is read, checked, and described in a JSON Schema.

One table of fields each for tasks, plans, agents and settings; reading, the shipped schemas, environment
variables and ``agentful config set`` are all made from them, so that they cannot disagree.
"""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import Struct

from ..core.conflicts import check_glob
from ..errors import PlanError
from ..model import format_duration
from .source import Value, is_unicode, kind_of, nearest, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST_NAME = 200
LONGEST_DURATION = 366 * 86_400.0
MOST_BARE_SECONDS = 86_400
"""The largest duration without a unit: a larger number was most likely meant as milliseconds."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d) ?)+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})

Schema = dict[str, Any]


class Kind(Protocol):
    """A kind of value."""

    def read(self, value: Value) -> Any:
        """The checked value; ``value.fail`` is called for one that is of another kind."""
        ...

    def schema(self) -> Schema:
        """What :meth:`read` takes, as JSON Schema."""
        ...


class Field(Struct, frozen=True):
    """A key that may stand in a mapping."""

    name: str
    kind: Kind
    doc: str
    aliases: tuple[str, ...] = ()
    """Other spellings that are taken."""


def pick(value: Value, fields: Sequence[Field], what: str) -> tuple[dict[str, Value], dict[str, Value]]:
    """The values of a mapping by the names of their fields, and those with keys that no field has.

    A key with nothing after it counts as left out. Fails for a field that is given in two spellings, and
    for what is no mapping; ``what`` says what was wanted.
    """
    names = {spelling: field.name for field in fields for spelling in (field.name, *field.aliases)}
    found: dict[str, Value] = {}
    unknown: dict[str, Value] = {}
    for key, item in value.entries(what):
        name = names.get(key)
        if name is None:
            unknown[key] = item
        elif name in found:
            item.fail(f"{found[name].key!r} says the same already; take one of them away")
        elif item.data is not None:
            found[name] = item
    return found, unknown


def read(value: Value, fields: Sequence[Field], what: str) -> dict[str, Any]:
    """The checked values of a mapping by the names of their fields; fails for an unknown key.

    ``what`` is what the mapping is, as a message names it.
    """
    found, unknown = pick(value, fields, "a mapping of keys to values")
    refuse_unknown(unknown, fields, what)
    return check(found, fields)


def check(found: Mapping[str, Value], fields: Sequence[Field]) -> dict[str, Any]:
    """What :func:`pick` found, checked."""
    kinds = {field.name: field.kind for field in fields}
    return {name: kinds[name].read(item) for name, item in found.items()}


def refuse_unknown(unknown: Mapping[str, Value], fields: Sequence[Field], what: str) -> None:
    """Fail for the first of the unknown keys, naming the nearest known one."""
    for key, item in unknown.items():
        known = [spelling for field in fields for spelling in (field.name, *field.aliases)]
        hint = nearest(key, known, what="key", listed=[field.name for field in fields])
        raise item.source.error(f"unknown key {shorten(key)!r} in {what}; {hint}", where=item.where)


# --- kinds ---------------------------------------------------------------------------------------


class Text(Struct, frozen=True):
    """A text that is not blank."""

    def read(self, value: Value) -> str:
        text = value.text
        if text is None:
            value.fail(f"a text is wanted here, not {kind_of(value.data)}")
        if not text.strip():
            value.fail("it is blank")
        return check_text(value, text)

    def schema(self) -> Schema:
        return {"type": ["string", "number", "boolean"], "pattern": r"\S"}


def check_text(value: Value, text: str) -> str:
    """The text, which has to be one that programs and files can be given."""
    if "\0" in text:
        value.fail("it has a NUL character in it, which no program can be given")
    if not is_unicode(text):
        value.fail("it has half a surrogate pair in it, which is not text")
    return text


class Name(Struct, frozen=True):
    """A name of a task, agent or resource, in Unicode's composed form."""

    def read(self, value: Value) -> str:
        return check_name(value)

    def schema(self) -> Schema:
        return {
            "type": ["string", "number", "boolean"],
            "maxLength": LONGEST_NAME,
            "pattern": r"^\S(.*\S)?$",
        }


def check_name(value: Value, text: str | None = None) -> str:
    """The value, or ``text`` that stands there as a key, as a name."""
    given = value.text if text is None else text
    if given is None:
        value.fail(f"a name is wanted here, not {kind_of(value.data)}")
    name = unicodedata.normalize("NFC", given)
    if not name.strip():
        value.fail("the name is empty")
    if len(name) > LONGEST_NAME:
        value.fail(f"the name has {len(name)} characters; the most is {LONGEST_NAME}")
    if name != name.strip():
        value.fail(f"the name {name!r} has white space around it")
    for char in name:
        if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}:
            value.fail(f"the name {name!r} has the control character {char!r} in it")
    return name


class Flag(Struct, frozen=True):
    """True or false."""

    def read(self, value: Value) -> bool:
        if isinstance(value.data, bool):
            return value.data
        text = (value.text or "").casefold()
        if not value.source.loose or text not in _YES | _NO:
            value.fail(f"{value.shown} is neither true nor false")
        return text in _YES

    def schema(self) -> Schema:
        return {"type": "boolean"}


class Whole(Struct, frozen=True):
    """A whole number between two bounds."""

    minimum: int
    maximum: int

    def read(self, value: Value) -> int:
        number = value.data
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int):
            value.fail(f"{value.shown} is not a whole number")
        if not self.minimum <= number <= self.maximum:
            value.fail(f"{shorten(value.text or '')} is not between {self.minimum} and {self.maximum}")
        return number

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


class Choice(Struct, frozen=True):
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: Value) -> str:
        text = value.text
        if text is None or text not in self.words:
            hint = nearest(text or "", self.words, what="value")
            value.fail(f"{value.shown} cannot be used here; {hint}")
        return text

    def schema(self) -> Schema:
        return {"enum": list(self.words)}


class Word(Struct, frozen=True):
    """A text that is most likely one of a few."""

    words: tuple[str, ...]

    def read(self, value: Value) -> str:
        return Text().read(value)

    def schema(self) -> Schema:
        return {"anyOf": [{"enum": list(self.words)}, Text().schema()]}


class Slots(Struct, frozen=True):
    """A number of slots, or ``auto``."""

    most: int = 1024

    def read(self, value: Value) -> int | str:
        if value.text == "auto":
            return "auto"
        if isinstance(value.data, bool) or not isinstance(value.data, (int, float)):
            value.fail(f"{value.shown} is neither a whole number nor 'auto'")
        return Whole(1, self.most).read(value)

    def schema(self) -> Schema:
        return {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": self.most}]}


class Duration(Struct, frozen=True):
    """A length of time: seconds, or a text with units as ``90s``, ``10m``, ``1h30m``, ``500ms``."""

    zero: bool = False
    """Whether it may be none at all."""

    def read(self, value: Value) -> float:
        seconds = self._seconds(value)
        if not self.zero and seconds <= 0:
            value.fail(f"{value.shown} is no time at all; write more than 0")
        if not 0 <= seconds <= LONGEST_DURATION:
            value.fail(f"{value.shown} is not between nothing and a year")
        return seconds

    def _seconds(self, value: Value) -> float:
        data = value.data
        if isinstance(data, timedelta):
            return data.total_seconds()
        if isinstance(data, (int, float)) and not isinstance(data, bool):
            if not _is_number(data):
                value.fail(f"{value.shown} is not a length of time")
            if value.source.milliseconds:
                return data / 1000
            if data > MOST_BARE_SECONDS:
                meant = data / 1000
                value.fail(
                    f"a bare number is seconds; write {meant:.10g}s or {format_duration(meant)} "
                    f"({data} looks like milliseconds), or {format_duration(data)} if seconds are meant"
                )
            return float(data)
        if not isinstance(data, str):
            value.fail(f"a length of time is wanted here, not {kind_of(data)}")
        if not _DURATION.fullmatch(data.strip()):
            value.fail(f"{value.shown} is not a length of time; write 90s, 10m, 1h30m or 500ms")
        return parse_duration(data)

    def schema(self) -> Schema:
        least: Schema = {"minimum": 0} if self.zero else {"exclusiveMinimum": 0}
        return {
            "anyOf": [
                {"type": "number", **least, "maximum": MOST_BARE_SECONDS},
                {"type": "string", "pattern": f"^{_DURATION.pattern}$"},
            ]
        }


def _is_number(data: float) -> bool:
    """Whether a number can be counted with: it is finite, and not beyond what a float can be."""
    try:
        return math.isfinite(data)
    except OverflowError:
        return False


def parse_duration(text: str) -> float:
    """Seconds of a duration as people write it. Raises ValueError for what is none."""
    if not _DURATION.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is not a length of time; write 90s, 10m, 1h30m or 500ms")
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))


class Texts(Struct, frozen=True):
    """Texts as a tuple; one may stand without a list around it."""

    item: Text | Name = Text()

    def read(self, value: Value) -> tuple[str, ...]:
        return tuple(self.item.read(item) for item in items_of(value))

    def schema(self) -> Schema:
        item = self.item.schema()
        return {"anyOf": [item, {"type": "array", "items": item}]}


def items_of(value: Value) -> list[Value]:
    """The items of a list; one value that is no list is a list of one."""
    if isinstance(value.data, (list, tuple)):
        return value.items()
    return [value]


class Needs(Struct, frozen=True):
    """Ids of tasks, or in Python whatever has one."""

    def read(self, value: Value) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.one(item) for item in items_of(value)))

    def one(self, item: Value) -> str:
        handle = getattr(item.data, "id", None)
        if isinstance(handle, str):
            if not handle:
                item.fail("a task without an id cannot be needed; give it one")
            return check_name(item, handle)
        return check_name(item)

    def schema(self) -> Schema:
        return Texts(Name()).schema()


class Globs(Struct, frozen=True):
    """Gitignore-style globs, relative to the repository's root."""

    def read(self, value: Value) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.one(item) for item in items_of(value)))

    def one(self, item: Value) -> str:
        text = item.text
        if text is None:
            item.fail(f"a glob is wanted here, not {kind_of(item.data)}")
        check_text(item, text)
        try:
            return check_glob(text)
        except PlanError as error:
            item.fail(error.message)

    def schema(self) -> Schema:
        item = {"type": ["string", "number", "boolean"], "minLength": 1}
        return {"anyOf": [item, {"type": "array", "items": item}]}


class Program(Struct, frozen=True):
    """A program and its arguments: a list, or one text that is split as a shell would. ``~`` as a shell."""

    def read(self, value: Value) -> tuple[str, ...]:
        if isinstance(value.data, (list, tuple)):
            argv = tuple(self.argument(item) for item in value.items())
        else:
            text = Text().read(value)
            try:
                argv = tuple(shlex.split(text))
            except ValueError as error:
                value.fail(f"{value.shown} cannot be split into words: {str(error).lower()}")
        if not argv or not argv[0].strip():
            value.fail("it names no program")
        try:
            # No shell is there to read the '~' of one's own folder.
            program = str(Path(argv[0]).expanduser()) if argv[0].startswith("~") else argv[0]
        except RuntimeError:
            value.fail(f"{argv[0]!r}: there is no such user's folder")
        return (program, *argv[1:])

    def argument(self, item: Value) -> str:
        text = str(item.data) if isinstance(item.data, Path) else item.text
        if text is None:
            item.fail(f"an argument is a text, not {kind_of(item.data)}")
        return check_text(item, text)

    def schema(self) -> Schema:
        rest = {"type": ["string", "number", "boolean"]}
        argv = {"type": "array", "minItems": 1, "items": [Text().schema()], "additionalItems": rest}
        return {"anyOf": [Text().schema(), argv]}


class Tools(Struct, frozen=True):
    """Names of tools: a list, or one text with commas between them."""

    def read(self, value: Value) -> tuple[str, ...]:
        if isinstance(value.data, (list, tuple)):
            return Texts().read(value)
        text = value.text
        if text is None:
            value.fail(f"tools are a list, or one text with commas, not {kind_of(value.data)}")
        # A tool may have a rule in brackets, with commas of its own: Bash(git log, git diff).
        parts = re.findall(r"(?:[^,(]|\([^)]*\)?)+", text)
        return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))

    def schema(self) -> Schema:
        one = {"type": ["string", "number", "boolean"]}
        return {"anyOf": [one, {"type": "array", "items": Text().schema()}]}


class Variables(Struct, frozen=True):
    """Environment variables by name."""

    def read(self, value: Value) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, item in value.entries("a mapping of variables to texts"):
            text = item.text
            if not name or "=" in name or "\0" in name or not is_unicode(name):
                item.fail(f"{shorten(name)!r} cannot be the name of an environment variable")
            if text is None:
                item.fail(f"a text is wanted here, not {kind_of(item.data)}")
            found[name] = check_text(item, text)
        return found

    def schema(self) -> Schema:
        return {
            "type": "object",
            "propertyNames": {"pattern": "^[^=]+$"},
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        }


class Folder(Struct, frozen=True):
    """A folder on this machine; ``~`` is the user's own."""

    def read(self, value: Value) -> str:
        text = str(value.data) if isinstance(value.data, Path) else Text().read(value)
        try:
            return str(Path(text).expanduser())
        except RuntimeError:
            value.fail(f"{value.shown}: there is no such user's folder")

    def schema(self) -> Schema:
        return Text().schema()


class Anything(Struct, frozen=True):
    """A mapping of plain data that is kept as it is."""

    def read(self, value: Value) -> dict[str, Any]:
        found = {key: item.data for key, item in value.entries("a mapping")}
        try:
            # It is journalled with the run, which Python's own objects cannot be.
            msgspec.json.encode(found)
        except (TypeError, ValueError, RecursionError):
            value.fail("it has something in it that is not plain data")
        return found

    def schema(self) -> Schema:
        return {"type": "object"}
