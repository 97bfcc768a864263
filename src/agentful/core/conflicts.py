r"""Scopes: which paths a glob covers, and whether two globs share one.

A scope is a tuple of globs, relative to the repository's root. They read as lines of a ``.gitignore``
do, with the word "ignores" taken for "covers":

- A glob with a wildcard and without a slash, other than a trailing one, matches at any depth: ``*.py``.
- A leading or inner slash ties it to the root: ``/*.toml``, ``src/api``. So does having no wildcard:
  ``docs`` and ``README.md`` are the ones at the root. That is not git's rule, by which two plain names
  would share a path (``docs/README.md`` inside of each other); ``**/docs`` is any folder of that name.
- ``*`` is any run of characters, ``?`` any one, ``[abc]``, ``[a-z]``, ``[[:digit:]]`` one of some,
  ``[!a-z]`` or ``[^a-z]`` one of all others. None of them matches a slash.
- ``**`` as a whole segment is any number of folders: ``**/x`` and ``a/**/b`` also match where there is
  none, a last ``a/**`` is everything inside ``a`` but not ``a``. Within a segment it is ``*``.
- What matches a folder covers everything below it: ``src/api``, ``src/api/`` and ``src/api/**`` all
  cover ``src/api/x.py``. A trailing slash matches folders only, so ``src/api/`` does not cover a file
  ``src/api``.
- A backslash takes the meaning from the character after it: ``app/\[id\]/page.tsx``.

Where this also is not git: there is no ``!`` negation and no ``#`` comment; a character is a Unicode
character and not a byte; case always matters. Globs that git would take and never match are refused
by :func:`check_glob` instead, as are those that mean something in other dialects (``{a,b}``).

A path, here, is one or more non-empty names joined by slashes. Whether two globs share one is decided
exactly, in time that at worst grows with the product of their lengths. Note what follows from the rule
on folders: ``*.py`` and ``*.js`` share ``a.py/b.js``, while ``src/*.py`` and ``src/*.js`` share nothing.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from ..errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["check_glob", "common_path", "globs_overlap", "matches", "outside", "scopes_overlap"]

LONGEST_GLOB = 1000

Scope: TypeAlias = tuple[str, ...] | None

# A glob is read into two levels of the same form: a sequence in which None stands for any number of
# whatever the level is made of, none included. A name is a sequence of characters, a glob one of names.
Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""A set of characters: code points from, to and with; in order, apart."""
Char: TypeAlias = str | Ranges
"""One character, or a set of more than one."""
Name: TypeAlias = tuple[Char | None, ...]

_NAMES_TO_EXPLAIN = {
    ".": "'.' names no path below the root; leave it out",
    "..": "'..' leaves the repository; name paths from its root",
    ".git": "nothing inside .git is ever landed; leave it out",
}
_WILDCARD = re.compile(r"(?<!\\)(?:\\\\)*[*?\[]")
_LAST = 0x10FFFF
_ANY: Ranges = ((1, ord("/") - 1), (ord("/") + 1, _LAST))
_CLASSES: dict[str, Ranges] = {
    "alnum": ((48, 57), (65, 90), (97, 122)),
    "alpha": ((65, 90), (97, 122)),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((1, 31), (127, 127)),
    "digit": ((48, 57),),
    "graph": ((33, 126),),
    "lower": ((97, 122),),
    "print": ((32, 126),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)),
    "upper": ((65, 90),),
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}
_PLEASANT = "abcdefghijklmnopqrstuvwxyz0123456789_-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Characters for examples, the first choice first."""

_ANY_NAME: Name = (None,)

T = TypeVar("T")
Pairs: TypeAlias = list[tuple[T | None, T | None]]
"""Elements that have to have something in common; None has with all."""


class _Glob(NamedTuple):
    text: str
    names: tuple[Name | None, ...]
    """Always with a last None: everything below what matched."""


# --- reading -------------------------------------------------------------------------------------


def check_glob(pattern: str) -> str:
    """The glob as it is best written: without ``./``, ``//`` and ``***``. Its meaning stays the same.

    Raises PlanError, with what is wrong and what to do, for a glob that is empty, malformed, leaves the
    repository, reaches into ``.git``, or is not of this dialect. All other functions here raise the
    same for such a glob.
    """
    return _glob(pattern).text


@lru_cache(maxsize=1 << 14)
def _glob(pattern: str) -> _Glob:
    try:
        return _read(pattern)
    except ValueError as error:
        shown = pattern if len(pattern) <= 100 else pattern[:100] + "..."
        raise PlanError(f"the glob {shown!r} cannot be used: {error}") from None


def _read(pattern: str) -> _Glob:
    text = re.sub(r"\A(\./+)+", "", pattern)
    _refuse_at_sight(text)
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if not parts:
        raise ValueError("it names no path; '**' is the whole repository")
    only_folders = text.endswith(("/", "/."))
    # "./x" says "here, at the root" and has to go on saying it once the dot is gone.
    lead = text.startswith("/") or (len(parts) == 1 and text != pattern)

    tied = lead or len(parts) > 1 or not _WILDCARD.search(text)
    names: list[Name | None] = [] if tied else [None]
    texts: list[str] = []
    for part in parts:
        if set(part) == {"*"} and len(part) > 1:
            texts.append("**")
            if names[-1:] != [None]:
                names.append(None)
        else:
            texts.append(part)
            names.append(_read_name(part))
    # Something has to be at the place of a last "**", and below a folder.
    if texts[-1] == "**":
        names[-1] = _ANY_NAME
    if only_folders:
        names.append(_ANY_NAME)
    names.append(None)

    return _Glob("/" * lead + "/".join(texts) + "/" * only_folders, tuple(names))


def _refuse_at_sight(pattern: str) -> None:
    if not pattern:
        raise ValueError("it is empty; '**' is the whole repository")
    if len(pattern) > LONGEST_GLOB:
        raise ValueError(f"it has {len(pattern)} characters; the most is {LONGEST_GLOB}")
    for char in pattern:
        if unicodedata.category(char) in {"Cc", "Cs"}:
            raise ValueError(f"it has the control character {char!r}; '?' matches any one character")
    if pattern[0].isspace() or (pattern[-1].isspace() and not re.search(r"(?<!\\)(\\\\)*\\.\Z", pattern)):
        raise ValueError("it has white space around it; take that away, or put a backslash before it")
    if pattern[0] == "!":
        raise ValueError(
            "a scope has no '!' negation; list what may be written, or write '\\!' for a name with one"
        )
    if pattern[0] == "~":
        raise ValueError(
            "'~' is no place in the repository; name paths from its root, or write '\\~' for a name with one"
        )
    if re.match(r"[A-Za-z]:([/\\]|\Z)", pattern):
        raise ValueError("a drive is no place in the repository; name paths from its root")
    if re.search(r"(?<!\\)\{[^{}/]*,[^{}/]*\}", pattern):
        raise ValueError("braces are not expanded; write one glob for each, or '\\{' for a name with one")


def _read_name(part: str) -> Name:
    name: list[Char | None] = []
    at = 0
    while at < len(part):
        match part[at]:
            case "*":
                at += 1
                if not name or name[-1] is not None:
                    name.append(None)
            case "?":
                at += 1
                name.append(_ANY)
            case "[":
                some, at = _read_set(part, at + 1)
                name.append(some)
            case _:
                char, at = _read_char(part, at)
                name.append(char)
    literal = "".join(char for char in name if isinstance(char, str))
    if len(literal) == len(name) and literal.lower() in _NAMES_TO_EXPLAIN:
        raise ValueError(_NAMES_TO_EXPLAIN[literal.lower()])
    return tuple(name)


def _read_char(part: str, at: int) -> tuple[str, int]:
    """The character at a place, escaped or not, and the place after it."""
    if part[at] != "\\":
        return part[at], at + 1
    if at + 1 == len(part):
        raise ValueError("a backslash has nothing after it to escape; folders are separated by '/'")
    char = part[at + 1]
    # Nobody escapes a letter but who means a Windows path, or a \d of regular expressions.
    if char.isalnum():
        raise ValueError(f"'\\{char}' escapes nothing; folders are separated by '/', digits are '[0-9]'")
    return char, at + 2


def _read_set(part: str, at: int) -> tuple[Char, int]:
    """The set whose ``[`` stands before a place, and the place after its ``]``."""
    negated = part[at : at + 1] in {"!", "^"}
    at += negated
    first = at
    ranges: list[tuple[int, int]] = []
    while at == first or part[at : at + 1] != "]":
        named = re.compile(r"\[:([^\]]*):\]").match(part, at)
        if named:
            if named[1] not in _CLASSES:
                raise ValueError(f"there is no class '[:{named[1]}:]'; there are {', '.join(_CLASSES)}")
            ranges += _CLASSES[named[1]]
            at = named.end()
            continue
        if at >= len(part):
            raise ValueError("a '[' has no ']' before the next '/'; write '\\[' for a name with one")
        low, at = _read_char(part, at)
        high = low
        if part[at : at + 1] == "-" and part[at + 1 : at + 2] not in {"", "]"}:
            high, at = _read_char(part, at + 1)
        if high < low:
            raise ValueError(f"the range '{low}-{high}' is the wrong way round")
        ranges.append((ord(low), ord(high)))
    others = _complement(ranges)
    some = _meet_ranges(others if negated else _complement(others), _ANY)
    if not some:
        raise ValueError("a '[...]' in it matches no character")
    if len(some) == 1 and some[0][0] == some[0][1]:
        return chr(some[0][0]), at + 1
    return some, at + 1


def _complement(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The characters that are in none of these ranges, which may be in any order and overlap."""
    found: list[tuple[int, int]] = []
    start = 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    if start <= _LAST:
        found.append((start, _LAST))
    return tuple(found)


def _meet_ranges(a: Ranges, b: Ranges) -> Ranges:
    return tuple(
        (max(low, other_low), min(high, other_high))
        for low, high in a
        for other_low, other_high in b
        if max(low, other_low) <= min(high, other_high)
    )


def _pieces(sequence: Sequence[T | None]) -> list[list[T]]:
    """What stands before, between and after the Nones."""
    pieces: list[list[T]] = [[]]
    for element in sequence:
        if element is None:
            pieces.append([])
        else:
            pieces[-1].append(element)
    return pieces


# --- covering ------------------------------------------------------------------------------------


def matches(pattern: str, path: str) -> bool:
    """Whether the glob covers the file of this path, relative to the root.

    Raises PlanError for a glob that :func:`check_glob` refuses.
    """
    return _regex(pattern).match(path + "/") is not None


def outside(scope: Scope, paths: Iterable[str]) -> tuple[str, ...]:
    """The paths that no glob of the scope covers, in the order given.

    A scope of None was not declared, and nothing is outside it. Raises PlanError as :func:`matches`.
    """
    if scope is None:
        return ()
    covers = [_regex(pattern).match for pattern in scope]
    return tuple(path for path in paths if not any(cover(path + "/") for cover in covers))


@lru_cache(maxsize=1 << 12)
def _regex(pattern: str) -> re.Pattern[str]:
    """What the glob covers, as an expression for the start of a path with a slash after it.

    Between two stars the first fit is as good as any, at either level, so those pieces are atomic
    groups: no path and no glob makes it go back further than one piece.
    """
    first, *rest = ("".join(map(_name_regex, piece)) for piece in _pieces(_glob(pattern).names))
    return re.compile(first + "".join(f"(?>(?:[^/]++/)*?{piece})" for piece in rest if piece))


def _name_regex(name: Name) -> str:
    chars: list[list[Char]] = _pieces(name)
    first, *rest = ("".join(map(_char_regex, piece)) for piece in chars)
    if not rest:
        return first + "/"
    *middle, last = rest
    if name == _ANY_NAME:
        return "[^/]++/"
    return first + "".join(f"(?>[^/]*?{piece})" for piece in middle) + f"[^/]*{last}/"


def _char_regex(char: Char) -> str:
    if isinstance(char, str):
        return re.escape(char)
    if char == _ANY:
        return "[^/]"
    return "[" + "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in char) + "]"


# --- overlapping ---------------------------------------------------------------------------------


def globs_overlap(a: str, b: str) -> bool:
    """Whether there is a path that both globs cover. Raises PlanError as :func:`matches`."""
    return common_path(a, b) is not None


def common_path(a: str, b: str) -> str | None:
    """A path that both globs cover, as an example; None where there is none.

    Which glob is named first makes no difference. Raises PlanError as :func:`matches`.
    """
    return _common_path(a, b) if a <= b else _common_path(b, a)


def scopes_overlap(a: Scope, b: Scope) -> tuple[str, str] | None:
    """The first glob of ``a``, and of those of ``b`` that overlap it the first; None where none do.

    A scope of None was not declared, and keeps nobody out. Raises PlanError as :func:`matches`.
    """
    return None if a is None or b is None else _scopes_overlap(a, b)


@lru_cache(maxsize=1 << 16)
def _scopes_overlap(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, str] | None:
    return next(((x, y) for x in a for y in b if globs_overlap(x, y)), None)


@lru_cache(maxsize=1 << 16)
def _common_path(a: str, b: str) -> str | None:
    # Every glob ends in "and all below": there is a None in each, and nothing after the last.
    pairs, _ = _line_up(_pieces(_glob(a).names), _pieces(_glob(b).names))
    return _joined("/", (_common_name(x or _ANY_NAME, y or _ANY_NAME) for x, y in pairs))


@lru_cache(maxsize=1 << 14)
def _common_name(a: Name, b: Name) -> str | None:
    loose: list[list[Char]] = _pieces(a)
    other: list[list[Char]] = _pieces(b)
    if len(loose) == 1:
        loose, other = other, loose
    pairs: Pairs[Char] | None = None
    if len(other) > 1:
        before, after = _line_up(loose, other)
        # Both have a star here. A character for it makes a name of two lone stars, and a better example.
        pairs = [*before, (None, None), *after]
    elif len(loose) > 1:
        pairs = _fit(loose, other[0])
    elif len(a) == len(b):
        pairs = list(zip(loose[0], other[0], strict=True))
    return None if pairs is None else _joined("", (_common_char(x, y) for x, y in pairs))


def _line_up(a: list[list[T]], b: list[list[T]]) -> tuple[Pairs[T], Pairs[T]]:
    """What has to be equal for two sequences, both with a None, to have one in common.

    Before the first None of either and after the last, element stands against element. Between these
    there is room for all that either asks for, one after the other: a None of each takes what the other
    asks for. So nothing has to be searched. Returned in two parts, before and after that last room.
    """
    before = [*zip_longest(a[0], b[0])]
    for piece in (*a[1:-1], *b[1:-1]):
        before += [(element, None) for element in piece]
    after = [*zip_longest(reversed(a[-1]), reversed(b[-1]))]
    return before, after[::-1]


def _fit(loose: list[list[Char]], fixed: list[Char]) -> Pairs[Char] | None:
    """The same for a sequence with a None and one without; None where the pieces find no room.

    Of the places where a piece between two Nones fits, the first leaves most room for the others.
    """
    head, *middle, tail = loose
    at, stop = len(head), len(fixed) - len(tail)
    if at > stop:
        return None
    wanted: list[Char | None] = [*head, *[None] * (stop - at), *tail]
    for piece in middle:
        while any(_common_char(x, y) is None for x, y in zip(piece, fixed[at:stop], strict=False)):
            at += 1
        if at + len(piece) > stop:
            return None
        wanted[at : at + len(piece)] = piece
        at += len(piece)
    return list(zip(wanted, fixed, strict=True))


def _joined(separator: str, elements: Iterable[str | None]) -> str | None:
    found: list[str] = []
    for element in elements:
        if element is None:
            return None
        found.append(element)
    return separator.join(found)


def _common_char(a: Char | None, b: Char | None) -> str | None:
    if isinstance(a, str) and isinstance(b, str):
        return a if a == b else None
    return _example(_ranges(a), _ranges(b))


def _ranges(char: Char | None) -> Ranges:
    if char is None:
        return _ANY
    return ((ord(char), ord(char)),) if isinstance(char, str) else char


@lru_cache(maxsize=1 << 14)
def _example(a: Ranges, b: Ranges) -> str | None:
    both = _meet_ranges(a, b)
    for char in _PLEASANT:
        if any(low <= ord(char) <= high for low, high in both):
            return char
    return chr(both[0][0]) if both else None
