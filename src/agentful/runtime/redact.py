"""Secrets, kept out of logs, the journal and the screen.

The second line of defence: the first is that an agent gets no secret that it does not need
(`environment`). Known values are found in the encodings that they turn up in; unknown ones by the
shapes that providers give them. A secret that is printed reversed, or a letter a line, is not found.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MASK = "[redacted]"

_SHORTEST = 8
"""Values shorter than this turn up in ordinary text."""

_SECRET_WORDS = frozenset(
    {
        *("apikey", "auth", "authorization", "cookie", "credential", "credentials", "key", "passphrase"),
        *("passwd", "password", "pat", "pw", "pwd", "secret", "secrets", "token"),
    }
)
_SECRET_ENDS = ("apikey", "password", "secret", "token")
_PLACE_WORDS = frozenset({"dir", "file", "folder", "home", "path", "sock", "socket"})
"""A variable whose name ends so says where a secret is, not what it is."""

# Each with the plain text without which it need not be tried: that is what keeps ordinary lines cheap.
_SHAPES: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (hints, re.compile(pattern))
    for hints, pattern in (
        # Anthropic, OpenAI and others. A digit, because words with hyphens have none as a rule.
        (("sk-",), r"(?<![\w-])sk-(?=[\w-]*\d)[\w-]{16,}"),
        (("gh",), r"(?<!\w)(?:gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{22,})"),
        (("glpat-",), r"(?<![\w-])glpat-[\w-]{16,}"),
        (("AKIA", "ASIA"), r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"),
        (("AIza",), r"(?<![\w-])AIza[\w-]{30,}"),
        (("xox",), r"(?<!\w)xox[a-z]-[\w-]{10,}"),
        (("hf_", "npm_"), r"(?<!\w)(?:hf|npm)_[A-Za-z0-9]{30,}"),
        (("eyJ",), r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
        (("earer ",), r"(?<=[Bb]earer )(?=[\w.~+/-]*\d)[\w.~+/=-]{16,}"),
        (("asic ",), r"(?<=[Bb]asic )(?=[A-Za-z+/]*\d)[A-Za-z0-9+/]{16,}={0,2}"),
        (("://",), r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)"),
        (
            ("PRIVATE KEY",),
            r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        ),
    )
)
_KEY_END = re.compile(r"-----END [A-Z ]*PRIVATE KEY-----")
_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_KEY_LINE = re.compile(
    r"[\s\d|>:→+-]{0,16}(?:[A-Za-z0-9+/=]{0,128}|(?:Proc-Type|DEK-Info|Comment): [^\n]{0,80})\s*"
)
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def looks_secret(name: str) -> bool:
    """Whether an environment variable of this name is likely to hold a secret."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    if not words or words[-1] in _PLACE_WORDS or words == ["pwd"]:
        return False
    return any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDS) for word in words)


def secret_values(env: Mapping[str, str]) -> list[str]:
    """The values of those variables whose names look like secrets."""
    return [value for name, value in env.items() if looks_secret(name)]


def without_escapes(text: str) -> str:
    """The text without the codes that colour it or move a terminal's cursor."""
    return _ESCAPES.sub("", text) if "\x1b" in text else text


class Redactor:
    """Replaces secrets in text by ``[redacted]``.

    ``values`` are known secrets; those under eight characters are left alone, as they would be found
    in ordinary text. A value of several lines is also found by each of its lines.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        forms = {form for value in values for form in _forms(value)}
        # The longest first: else a part of one would be replaced, and the rest left.
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))

    def redact(self, text: str) -> str:
        """The text without the secrets in it. It may have many lines."""
        redacted = self._redact(text)
        if "\x1b" in text:
            # A secret with colour codes inside: then the text goes without its colours.
            plain = without_escapes(text)
            without = self._redact(plain)
            if without != plain and without_escapes(redacted) != without:
                return without
        return redacted

    def stream(self) -> LineRedactor:
        """A redactor for lines that come one by one, from one source."""
        return LineRedactor(self)

    def _redact(self, text: str) -> str:
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        for hints, shape in _SHAPES:
            for hint in hints:
                if hint in text:
                    text = shape.sub(MASK, text)
                    break
        return text


class LineRedactor:
    """Redacts the lines of one source, and remembers when it is inside a private key."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._in_key = False

    def redact(self, line: str) -> str:
        """The line without the secrets in it."""
        if self._in_key:
            end = _KEY_END.search(line)
            if end is None and _KEY_LINE.fullmatch(without_escapes(line)):
                return MASK
            # Either its last line, or a line that is in no key: what began was only spoken of.
            self._in_key = False
            if end is not None:
                return MASK + self.redact(line[end.end() :])
        begins = [match.end() for match in _KEY_BEGIN.finditer(line)] if "PRIVATE KEY" in line else []
        if begins and not _KEY_END.search(line, begins[-1]):
            self._in_key = True
        return self._redactor.redact(line)


def _forms(value: str) -> Iterator[str]:
    """The value as it may turn up: plain, and in the encodings that programs print."""
    for part in (value, *value.splitlines()):
        plain = part.strip()
        if len(plain) < _SHORTEST:
            continue
        data = plain.encode("utf-8", "surrogateescape")
        yield plain
        yield json.dumps(plain)[1:-1]
        yield json.dumps(plain, ensure_ascii=False)[1:-1]
        yield quote(data, safe="")
        yield quote(data)
        yield quote_plus(data)
        yield data.hex()
        yield data.hex().upper()
        for lead in range(3):
            # Inside longer data it starts at one of three places. What the neighbours change is left off.
            text = base64.b64encode(b"\0" * lead + data).decode()
            start = (0, 2, 3)[lead]
            core = text[start : len(text) - (0, 3, 2)[(lead + len(data)) % 3]]
            if len(core) >= _SHORTEST:
                yield core
                yield core.replace("+", "-").replace("/", "_")
