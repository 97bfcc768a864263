"""Where things stand in TOML and JSON that the standard library has found to be valid.

Its parsers tell the line of an error, and nothing else. What is wrong in our sense (an unknown key, a
need that does not exist) has a line, too, and editing one setting of a file needs to know where its value
begins and ends.
"""

from __future__ import annotations

import bisect
import json as jsonlib
import re
import tomllib
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

Place = tuple[str | int, ...]

MAX_DEPTH = 64

_TOKEN = re.compile(
    r'''(?P<space>[ \t\r]++|\#[^\n]*+)
    |(?P<newline>\n)
    |(?P<string>"""(?:\\.|[^"\\]|"{1,2}(?!"))*+"{3,5}
               |\'\'\'(?:[^']|'{1,2}(?!'))*+'{3,5}
               |"(?:\\.|[^"\\\n])*+"
               |'[^'\n]*+')
    |(?P<mark>[\[\]{}=.,:])
    |(?P<bare>[^\s\[\]{}=.,:"'\#]++)''',
    re.VERBOSE | re.DOTALL,
)


class TooDeep(Exception):
    """Lists and mappings in one another beyond the bound."""


class Twice(Exception):
    """A key that stands twice in one mapping."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class Outline(Struct, frozen=True):
    """Where the parts of a text stand. Lines are from 1, offsets in characters from 0."""

    lines: dict[Place, int]
    """The line of each key or item."""
    values: dict[Place, tuple[int, int]]
    """From where to where the value goes that a key has been given."""
    tables: dict[Place, int]
    """Where the header line of a ``[table]`` begins."""


def toml(text: str) -> Outline:
    """The outline of valid TOML. Raises TooDeep."""
    return _Toml(text).read()


def json(text: str) -> Outline:
    """The outline of valid JSON. Raises TooDeep, and Twice for a key that stands twice."""
    reader = _Reader(text)
    reader.skip(newlines=True)
    reader.value((), unique=True)
    return reader.outline


class _Reader:
    """A cursor over the tokens. It takes the text for valid, and never looks at what a value says."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [(str(match.lastgroup), match) for match in _TOKEN.finditer(text)]
        self.at = 0
        self.ends = [match.start() for match in re.finditer("\n", text)]
        self.outline = Outline({}, {}, {})

    def peek(self) -> str:
        """The mark that comes next, ``"\\n"`` at a line's end, a letter for a word, '' at the end."""
        if self.at >= len(self.tokens):
            return ""
        kind, match = self.tokens[self.at]
        return {"newline": "\n", "string": "s", "bare": "b", "space": " "}.get(kind, match[0])

    def skip(self, *, newlines: bool) -> None:
        while self.peek() == " " or (newlines and self.peek() == "\n"):
            self.at += 1

    def offset(self) -> int:
        return self.tokens[self.at][1].start() if self.at < len(self.tokens) else len(self.text)

    def line(self) -> int:
        return bisect.bisect_left(self.ends, self.offset()) + 1

    def key(self) -> Iterator[str]:
        """The parts of a dotted key; the cursor is left behind it."""
        while True:
            self.skip(newlines=False)
            yield _word(self.tokens[self.at][1][0])
            self.at += 1
            self.skip(newlines=False)
            if self.peek() != ".":
                return
            self.at += 1

    def value(self, place: Place, *, unique: bool = False) -> None:
        """Note all places in the value at the cursor, which is left behind it."""
        if len(place) > MAX_DEPTH:
            raise TooDeep
        start = self.offset()
        opening = self.peek()
        if opening == "[":
            self.at += 1
            for item in self.parts("]", place):
                self.outline.lines[item] = self.line()
                self.value(item, unique=unique)
        elif opening == "{":
            self.at += 1
            for _ in self.parts("}", place):
                line = self.line()
                below = place
                for part in self.key():
                    below = (*below, part)
                    if unique and below in self.outline.lines:
                        first = self.outline.lines[below]
                        raise Twice(f"the key {part!r} stands here twice, first on line {first}", line)
                    self.outline.lines.setdefault(below, line)
                self.skip(newlines=True)
                self.at += 1
                self.skip(newlines=True)
                self.value(below, unique=unique)
        else:
            # A number or date may be several tokens: 1.5, 07:32:00, 1979-05-27 07:32:00.
            while self.peek() not in {"", "\n", ",", "]", "}"}:
                self.at += 1
            while self.tokens[self.at - 1][0] == "space":
                self.at -= 1
        last = self.tokens[self.at - 1][1]
        self.outline.values[place] = (start, last.end())

    def parts(self, closing: str, place: Place) -> Iterator[Place]:
        """The places of the items up to the closing bracket; the cursor is at each in turn."""
        number = 0
        while True:
            self.skip(newlines=True)
            mark = self.peek()
            if mark in {"", closing}:
                self.at += 1
                return
            if mark == ",":
                self.at += 1
                continue
            yield (*place, number)
            number += 1


class _Toml(_Reader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.counts: dict[Place, int] = {}
        """How many items an array of tables has so far."""

    def read(self) -> Outline:
        table: Place = ()
        while True:
            self.skip(newlines=True)
            mark = self.peek()
            if not mark:
                return self.outline
            if mark == "[":
                table = self.header()
                continue
            line = self.line()
            place = table
            for part in self.key():
                place = (*place, part)
                self.outline.lines.setdefault(place, line)
            self.at += 1
            self.skip(newlines=False)
            self.value(place)

    def header(self) -> Place:
        line, start = self.line(), self.offset()
        self.at += 1
        many = self.peek() == "["
        self.at += many
        place: Place = ()
        parts = list(self.key())
        for number, part in enumerate(parts):
            place = (*place, part)
            self.outline.lines.setdefault(place, line)
            if many and number == len(parts) - 1:
                self.counts[place] = self.counts.get(place, 0) + 1
            if place in self.counts:
                place = (*place, self.counts[place] - 1)
                self.outline.lines.setdefault(place, line)
        self.outline.tables[place] = start
        self.at += 1 + many
        return place


def _word(token: str) -> str:
    """A key as its token says it."""
    if token[0] == "'":
        return token[1:-1]
    if token[0] != '"':
        return token
    if "\\" not in token:
        return token[1:-1]
    try:
        return str(jsonlib.loads(token))
    except ValueError:
        return str(tomllib.loads(f"key = {token}")["key"])
