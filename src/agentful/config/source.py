"""Files as plain data, with the line that every part of it stands on.

A :class:`Source` is one file (or mapping, or variable) that was read; a :class:`Value` is a place in it.
Whatever is wrong with a value is said through :meth:`Value.fail`, so that every message names file and
line. Reading is bounded in size, depth and number of nodes, so that no file can take the machine down.
"""

from __future__ import annotations

import difflib
import json
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from msgspec import Struct

from ..errors import ConfigError, PlanError
from . import positions
from .yamlfile import YamlProblem, read_scalar, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

Place = tuple[str | int, ...]
"""The keys and positions that lead to a part of a file: ``("tasks", "api", "needs", 0)``."""

MAX_PLAN = 1_000_000
"""Bytes of the largest plan that is read."""
MAX_CONFIG = 256_000
"""Bytes of the largest configuration or agent file that is read."""

_TOML_LINE = re.compile(r" ?\(at line (?P<line>\d+), column \d+\)$")
_LONGEST_SHOWN = 60
_LONGEST_NUMBER = 4096

# tomllib takes quadratic time for a dotted key, and a file of 40 kB is enough for ten seconds of it.
_LONG_KEY = re.compile(
    r"""(?<![\w-])(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
    r"""(?:[ \t]*+\.[ \t]*+(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')){64}"""
)


class Source(Struct, frozen=True, kw_only=True):
    """Something that was read: its name, its data, and where in it everything stands."""

    name: str
    """What messages call it, as ``plan.yaml`` or ``task 'api'``."""
    data: Any
    error: type[PlanError] | type[ConfigError] = ConfigError
    """What is raised for anything wrong in it."""
    lines: Mapping[Place, int] = {}
    """Lines, from 1. A place that is not here stands where its nearest parent does."""
    raw: Mapping[Place, str] = {}
    """How those values were written that were read as something else than text: ``1.10``, ``true``."""
    milliseconds: bool = False
    """Whether a bare number means milliseconds where a duration is wanted, as in the seed's spelling."""
    loose: bool = False
    """Whether ``1``, ``yes`` and ``on`` mean true, as people write it in environment variables."""

    @property
    def root(self) -> Value:
        return Value(self, (), self.data)

    def where(self, place: Place = ()) -> str:
        """The place as ``plan.yaml:12``, or only the name where no line is known."""
        while place and place not in self.lines:
            place = place[:-1]
        line = self.lines.get(place)
        return self.name if line is None else f"{self.name}:{line}"


class Value:
    """A place in a source, and what stands there."""

    __slots__ = ("data", "place", "source")

    def __init__(self, source: Source, place: Place, data: Any) -> None:
        self.source = source
        self.place = place
        self.data = data

    @property
    def where(self) -> str:
        return self.source.where(self.place)

    @property
    def line(self) -> int | None:
        return self.source.lines.get(self.place)

    @property
    def key(self) -> str:
        """The key that it is the value, or an item of the value, of; empty for the whole."""
        return next((part for part in reversed(self.place) if isinstance(part, str)), "")

    @property
    def text(self) -> str | None:
        """A text, number or truth value as it was written; ``None`` for all else."""
        if self.place in self.source.raw:
            return self.source.raw[self.place]
        match self.data:
            case str():
                return self.data
            case bool():
                return "true" if self.data else "false"
            case int():
                # A number of thousands of digits is not written in tens, by a rule of Python's.
                return str(self.data) if self.data.bit_length() < _LONGEST_NUMBER else hex(self.data)
            case float():
                return str(self.data)
            case _:
                return None

    @property
    def shown(self) -> str:
        """What stands there, short enough for a message."""
        text = self.text
        if text is None:
            return kind_of(self.data)
        return repr(shorten(text))

    def fail(self, message: str) -> NoReturn:
        """Raise the source's error, with the place and the key in front of the message."""
        key = shorten(self.key)
        label = key if key.isprintable() else repr(key)
        raise self.source.error(f"{label}: {message}" if label else message, where=self.where)

    def entries(self, what: str) -> list[tuple[str, Value]]:
        """The entries of a mapping; ``what`` says what it should have been, where it is none."""
        given: Any = self.data
        if not isinstance(given, Mapping):
            self.fail(f"{what} is wanted here, not {kind_of(given)}")
        entries: Mapping[Any, Any] = self.data
        found: list[tuple[str, Value]] = []
        for key, data in entries.items():
            if not isinstance(key, str):
                self.fail(f"the key {key!r} is {kind_of(key)}; keys are texts")
            found.append((key, Value(self.source, (*self.place, key), data)))
        return found

    def items(self) -> list[Value]:
        """The items of a list."""
        return [Value(self.source, (*self.place, at), item) for at, item in enumerate(self.data)]


def shorten(text: str) -> str:
    """A text short enough for a message."""
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


def kind_of(data: Any) -> str:
    """What a value is, in words."""
    match data:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "a mapping"
        case _:
            name = type(data).__name__
            return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def nearest(word: str, known: Iterable[str], *, what: str, listed: Iterable[str] | None = None) -> str:
    """The end of a message about an unknown name: the nearest known one, else those that there are.

    ``listed`` are the names to list then, where ``known`` has several spellings of each.
    """
    names = list(known)
    # What differs only in spelling is meant: maxconcurrency, Max-Concurrency, max_concurrency.
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(_fold(name), name)
    close = difflib.get_close_matches(_fold(word), folded, n=1)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    if not names:
        return f"no {what} is known"
    shown = names if listed is None else list(listed)
    return f"known {what}s: {', '.join(shown[:24])}" + (", ..." if len(shown) > 24 else "")


def _fold(name: str) -> str:
    return name.replace("-", "").replace("_", "").casefold()


# --- files ---------------------------------------------------------------------------------------


def read_text(
    path: Path, *, name: str, limit: int, what: str, error: type[PlanError] | type[ConfigError]
) -> str:
    """The text of a file of at most ``limit`` bytes. Raises ``error`` for everything that stops that."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        raise error(f"there is no such file; {what} was expected", where=name) from None
    except IsADirectoryError:
        raise error(f"this is a folder; {what} is a file", where=name) from None
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise error(f"it cannot be read: {reason}", where=name) from None
    if len(content) > limit:
        raise error(f"it is larger than {limit:,} bytes, the most for {what}", where=name)
    return decode(content, name=name, what=what, error=error)


def decode(content: bytes, *, name: str, what: str, error: type[PlanError] | type[ConfigError]) -> str:
    """The text that these bytes are in UTF-8. Raises ``error`` where they are none."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error("it is UTF-16; save it as UTF-8", where=name)
    if b"\0" in content:
        raise error(f"it is binary; {what} is text", where=name)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        byte = content[problem.start]
        raise error(
            f"the byte 0x{byte:02x} is not UTF-8; {what} is UTF-8 text", where=f"{name}:{line}"
        ) from None


def is_plain_file(path: Path) -> bool:
    """Whether there is a file that can be read without waiting, as a pipe cannot."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


# --- formats -------------------------------------------------------------------------------------


def parse(text: str, name: str, *, error: type[PlanError] | type[ConfigError]) -> Source:
    """YAML, TOML or JSON, by the end of the name; what has no such end is read as YAML.

    Raises ``error`` for text that is not of that form, or goes beyond a bound.
    """
    if not is_unicode(text):
        raise error("it has half a surrogate pair in it, which is not text", where=name)
    suffix = Path(name).suffix.lower()
    if suffix == ".toml":
        return parse_toml(text, name, error=error)
    if suffix == ".json":
        return parse_json(text, name, error=error)
    return parse_yaml(text, name, error=error)


def parse_yaml(
    text: str, name: str, *, error: type[PlanError] | type[ConfigError], first_line: int = 1
) -> Source:
    """YAML, whose first line is ``first_line`` of the file."""
    try:
        found = read_yaml(text, first_line=first_line)
    except YamlProblem as problem:
        raise error(problem.message, where=f"{name}:{problem.line}") from None
    return Source(name=name, data=found.data, error=error, lines=found.lines, raw=found.raw)


def parse_toml(text: str, name: str, *, error: type[PlanError] | type[ConfigError]) -> Source:
    long = _LONG_KEY.search(text)
    if long:
        line = text.count("\n", 0, long.start()) + 1
        raise error("a key with more than 64 parts", where=f"{name}:{line}")
    try:
        data = tomllib.loads(text)
        outline = positions.toml(text)
    except tomllib.TOMLDecodeError as problem:
        message = str(problem)
        at = _TOML_LINE.search(message)
        line = int(at["line"]) if at else text.rstrip().count("\n") + 1
        said = _TOML_LINE.sub("", message).removesuffix(" (at end of document)")
        raise error(f"not valid TOML: {said[:1].lower()}{said[1:]}", where=f"{name}:{line}") from None
    except ValueError:
        raise error("not valid TOML: a number has too many digits", where=name) from None
    except (RecursionError, positions.TooDeep):
        raise error("it is nested too deeply", where=name) from None
    return Source(name=name, data=data, error=error, lines=outline.lines)


def parse_json(text: str, name: str, *, error: type[PlanError] | type[ConfigError]) -> Source:
    if not text.strip():
        return Source(name=name, data=None, error=error)
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
        outline = positions.json(text)
    except json.JSONDecodeError as problem:
        said = problem.msg[:1].lower() + problem.msg[1:].removesuffix(" at")
        raise error(f"not valid JSON: {said}", where=f"{name}:{problem.lineno}") from None
    except (RecursionError, positions.TooDeep):
        raise error("it is nested too deeply", where=name) from None
    except positions.Twice as problem:
        raise error(problem.message, where=f"{name}:{problem.line}") from None
    except _NotANumber as problem:
        raise error(f"not valid JSON: {problem}", where=name) from None
    except ValueError:
        raise error("not valid JSON: a number has too many digits", where=name) from None
    return Source(name=name, data=data, error=error, lines=outline.lines)


def from_text(text: str, name: str, *, error: type[PlanError] | type[ConfigError] = ConfigError) -> Source:
    """The value that a person writes on a command line or in an environment variable.

    ``[...]`` and ``{...}`` are lists and mappings; all else is one value, as YAML would read it.
    """
    if text.lstrip().startswith(("[", "{")):
        try:
            found = read_yaml(text)
        except YamlProblem as problem:
            raise error(problem.message, where=name) from None
        return Source(name=name, data=found.data, error=error, raw=found.raw, loose=True)
    text = text.strip()
    return Source(name=name, data=read_scalar(text), error=error, raw={(): text}, loose=True)


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8, which half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _NotANumber(Exception):
    """NaN or an infinity, which Python's JSON takes."""


def _refuse_constant(constant: str) -> NoReturn:
    raise _NotANumber(f"{constant} is not JSON")
