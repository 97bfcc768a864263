"""YAML as plain data with lines: the core of YAML 1.2, read from PyYAML's events.

PyYAML's own construction is not used, for four reasons: it reads YAML 1.1, where ``no`` is false and
``1:30`` is ninety; it forgets lines; the last of two equal keys wins in silence; and a few hundred bytes
of aliases or merge keys expand to more than the machine has. Its composer is recursive, too: events come
one by one, so that a bound is met before anything has grown.

Left out on purpose: tags, more than one document, keys that are not plain values.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 64
MAX_NODES = 200_000
"""Nodes of a whole file, those that an alias stands for counted each time."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_OCTAL = re.compile(r"0o[0-7]{1,18}")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,15}")
# A whole number with more digits than _INT takes is text: nothing here wants one.
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+")
_INF = re.compile(r"(?P<sign>[-+]?)\.(inf|Inf|INF)")
_NAN = frozenset({".nan", ".NaN", ".NAN"})

_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_HINTS = {
    "mapping values are not allowed": "text with ': ' in it has to be in quotes",
    "cannot start any token": "indent with spaces, not tabs, and put text that starts so in quotes",
    "did not find expected key": "the indentation is wrong, or a quote or bracket is missing",
    "could not find expected ':'": "a key has no ':' after it",
    "did not find expected '-'": "the indentation is wrong, or a '-' is missing",
    "while scanning an alias": "text that starts with '*' has to be in quotes",
}


class YamlProblem(Exception):
    """What is wrong, and on which line."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class YamlData(Struct, frozen=True):
    """A document as plain data; ``lines`` and ``raw`` are keyed by the place in it."""

    data: Any
    lines: dict[tuple[str | int, ...], int]
    raw: dict[tuple[str | int, ...], str]
    """The text of each plain value that was not read as text."""


def read_yaml(text: str, *, first_line: int = 1) -> YamlData:
    """One YAML document; ``None`` for an empty one. Raises YamlProblem."""
    control = _CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + first_line
        raise YamlProblem(f"the control character {control[0]!r}; YAML has none but tab and line end", line)
    root = _compose(text, first_line)
    out = YamlData(None, {}, {})
    return YamlData(_Builder(out).build(root, ()) if root else None, out.lines, out.raw)


def read_scalar(text: str) -> Any:
    """What a plain value is by YAML 1.2: nothing, a truth value, a number, else the text itself."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text, 0)
    if _HEX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    infinite = _INF.fullmatch(text)
    if infinite:
        return float(infinite["sign"] + "inf")
    if text in _NAN:
        return float("nan")
    return text


# --- nodes ---------------------------------------------------------------------------------------


class _Scalar(Struct):
    line: int
    text: str
    plain: bool


class _List(Struct):
    line: int
    items: list[_Node]


class _Map(Struct):
    line: int
    entries: list[tuple[_Scalar, _Node]]
    key: _Scalar | None = None
    """The key whose value has not come yet."""


_Node = _Scalar | _List | _Map


def _compose(text: str, first_line: int) -> _Node | None:
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    root: _Node | None = None
    open_nodes: list[_List | _Map] = []
    anchors: dict[str, _Node] = {}
    documents = count = 0

    for event in _events(text, loader, first_line):
        line = event.start_mark.line + first_line
        count += 1
        if count > 2 * MAX_NODES:
            raise YamlProblem(f"it has more than {MAX_NODES:,} values", line)
        node: _Node
        match event:
            case yaml.DocumentStartEvent():
                documents += 1
                if documents > 1:
                    raise YamlProblem("a second document starts here; one file is one document", line)
                continue
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                open_nodes.pop()
                continue
            case yaml.AliasEvent():
                if event.anchor not in anchors:
                    raise YamlProblem(f"the alias *{event.anchor} has no anchor before it", line)
                node = anchors[event.anchor]
                if any(node is parent for parent in open_nodes):
                    raise YamlProblem(f"the alias *{event.anchor} stands inside what it repeats", line)
            case yaml.ScalarEvent():
                # The style of a plain value is None in one of PyYAML's parsers and '' in the other.
                node = _Scalar(line, event.value, not event.style)
            case yaml.SequenceStartEvent():
                node = _List(line, [])
            case yaml.MappingStartEvent():
                node = _Map(line, [])
            case _:
                continue
        if not isinstance(event, yaml.AliasEvent):
            if event.tag is not None:
                raise YamlProblem(f"the tag {event.tag} is not supported; take it away", line)
            if event.anchor is not None:
                anchors[event.anchor] = node
        if open_nodes:
            _attach(open_nodes[-1], node, line)
        else:
            root = node
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            assert not isinstance(node, _Scalar)
            open_nodes.append(node)
            if len(open_nodes) > MAX_DEPTH:
                raise YamlProblem(f"it is nested more than {MAX_DEPTH} deep", line)
    return root


def _events(text: str, loader: Any, first_line: int) -> Iterator[Any]:
    """PyYAML's events, its errors turned into ours."""
    import yaml

    try:
        yield from yaml.parse(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = error.problem or error.context or "it cannot be read"
        both = f"{error.context} {said}"
        hint = next((f" ({hint})" for part, hint in _HINTS.items() if part in both), "")
        # What is missing at the end is missing on the last line that has anything.
        line = min(mark.line if mark else 0, text.rstrip().count("\n"))
        raise YamlProblem(f"not valid YAML: {said}{hint}", line + first_line) from None
    except yaml.YAMLError as error:
        raise YamlProblem(f"not valid YAML: {error}", first_line) from None


def _attach(parent: _List | _Map, node: _Node, line: int) -> None:
    if isinstance(parent, _List):
        parent.items.append(node)
    elif parent.key is not None:
        parent.entries.append((parent.key, node))
        parent.key = None
    elif isinstance(node, _Scalar):
        # An alias as a key stands on its own line, not on its anchor's.
        parent.key = _Scalar(line, node.text, node.plain)
    else:
        raise YamlProblem("a key has to be a plain value, not a list or mapping", line)


class _Builder:
    """Makes plain data of nodes. What is visited is counted, so that aliases cannot grow beyond it."""

    def __init__(self, out: YamlData) -> None:
        self.out = out
        self.count = 0

    def build(self, node: _Node, place: tuple[str | int, ...], line: int | None = None) -> Any:
        self.visit(node)
        if len(place) > MAX_DEPTH:
            raise YamlProblem(f"it is nested more than {MAX_DEPTH} deep", node.line)
        self.out.lines[place] = line or node.line
        match node:
            case _Scalar():
                data = read_scalar(node.text) if node.plain else node.text
                if not isinstance(data, str):
                    self.out.raw[place] = node.text
                return data
            case _List():
                return [self.build(item, (*place, at)) for at, item in enumerate(node.items)]
            case _Map():
                return {
                    key: self.build(value, (*place, key), at)
                    for key, (at, value) in self.entries(node).items()
                }

    def entries(self, node: _Map, depth: int = 0) -> dict[str, tuple[int, _Node]]:
        """The entries by key, each with the line of its key; those of a merge key after its own."""
        if depth > MAX_DEPTH:
            raise YamlProblem(f"it is merged more than {MAX_DEPTH} deep", node.line)
        own: dict[str, tuple[int, _Node]] = {}
        merged: dict[str, tuple[int, _Node]] = {}
        for key, value in node.entries:
            if depth:
                self.visit(value)
            if key.plain and key.text == "<<":
                for other in value.items if isinstance(value, _List) else (value,):
                    if not isinstance(other, _Map):
                        raise YamlProblem("what '<<' merges has to be a mapping, or a list of them", key.line)
                    for name, entry in self.entries(other, depth + 1).items():
                        merged.setdefault(name, entry)
            elif key.text in own:
                first = own[key.text][0]
                raise YamlProblem(f"the key {key.text!r} stands here twice, first on line {first}", key.line)
            else:
                own[key.text] = (key.line, value)
        return own | {name: entry for name, entry in merged.items() if name not in own}

    def visit(self, node: _Node) -> None:
        self.count += 1
        if self.count > MAX_NODES:
            raise YamlProblem(f"it has more than {MAX_NODES:,} values, aliases written out", node.line)
