from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from agentful.progress.text import as_word, cells, clip, clip_line, listed, one_line, pad, plain, printable

anything = st.text(st.characters(), max_size=60) | st.text(
    "ab\x1b\x9b[];m0\x07\r\n\t\\ 日\u202e", max_size=40
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;a new title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("\x1b(Bcharset", "charset"),
        ("bell\x07", "bell\ufffd"),
        ("\x1b]0;never ended", "0;never ended"),
        ("dos\r\nlines", "dos\nlines"),
        ("turn\u202eed", "turn\ufffded"),
        ("half \udc80", "half \ufffd"),
        ("\u2028", "\ufffd"),
        ("👩\u200d💻 日本語 é", "👩\u200d💻 日本語 é"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(anything)
def test_printable_leaves_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert all(char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cs"} for char in shown)
    assert printable(shown) == shown


def test_printable_is_quick_for_what_never_ends() -> None:
    assert printable("\x1b]" * 200_000) == ""
    assert len(printable("\x1bP" + "x" * 1_000_000)) == 1_000_000


def test_one_line() -> None:
    assert one_line("  a\n\n b\tc ") == "a b c"
    assert one_line("10%\r50%\r100%") == "100%"
    assert one_line("a\r\nb\r\n") == "a b"


@given(anything, st.integers(-2, 30))
def test_clip_fits(text: str, width: int) -> None:
    line = one_line(text)
    assert cell_len(clip(line, width)) <= max(0, width)
    if cell_len(line) <= width:
        assert clip(line, width) == line


@given(anything, st.integers(1, 30))
def test_pad_is_exact(text: str, width: int) -> None:
    assert cell_len(pad(one_line(text), width)) == width


def test_clip_line_keeps_styles() -> None:
    line = [("abc", "bold"), ("日本語", ""), ("xyz", "dim")]
    assert clip_line(line, 5) == [("abc", "bold"), ("…", "")]
    assert clip_line(line, 12) == line
    assert cells(line) == 12
    assert plain(line) == "abc日本語xyz"


def test_as_word() -> None:
    assert as_word("api") == "api"
    assert as_word("my task; rm -rf /\n") == "'my task; rm -rf /'"


def test_listed() -> None:
    assert listed(["a", "b", "c"], 20) == "a, b, c"
    assert listed([], 20) == ""
    assert listed(["alpha", "beta", "gamma", "delta"], 20) == "alpha, … 3 more"
    assert listed(["x" * 50], 20) == "x" * 19 + "…"
    assert listed(["x" * 50, "y"], 20) == "xxxxxxx…, … 1 more"


@given(st.lists(st.text("ab", max_size=12), max_size=30), st.integers(20, 60))
def test_listed_fits(names: list[str], width: int) -> None:
    assert cell_len(listed(names, width)) <= width
