"""Kinds of values: what each takes, what it says of the rest, and that tables of fields are well made."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentful.config.agents import AGENT_FIELDS
from agentful.config.fields import (
    Anything,
    Choice,
    Duration,
    Field,
    Flag,
    Folder,
    Globs,
    Kind,
    Name,
    Needs,
    Program,
    Slots,
    Text,
    Texts,
    Tools,
    Variables,
    Whole,
    Word,
    parse_duration,
    pick,
    read,
)
from agentful.config.plan import PLAN_FIELDS, TASK_FIELDS
from agentful.config.settings import CONFIG_FIELDS, SETTING_FIELDS, Settings
from agentful.config.source import Source, from_text
from agentful.errors import ConfigError
from agentful.model import Agent, Task, format_duration

TABLES = {"plan": PLAN_FIELDS, "task": TASK_FIELDS, "agent": AGENT_FIELDS, "config": CONFIG_FIELDS}


def source_of(data: Any, **more: Any) -> Source:
    return Source(name="here", data=data, **more)


def taken(kind: Kind, data: Any, **more: Any) -> Any:
    return kind.read(source_of(data, **more).root)


def refused(kind: Kind, data: Any, **more: Any) -> str:
    with pytest.raises(ConfigError) as info:
        taken(kind, data, **more)
    return str(info.value).removeprefix("here: ")


# --- kinds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        (Text(), " a ", " a "),
        (Text(), 1.5, "1.5"),
        (Text(), False, "false"),
        (Name(), "u\u0308ber", "über"),
        (Name(), 7, "7"),
        (Flag(), True, True),
        (Whole(0, 9), 9.0, 9),
        (Choice(("a", "b")), "b", "b"),
        (Word(("a",)), "anything", "anything"),
        (Slots(), "auto", "auto"),
        (Slots(), 1024, 1024),
        (Duration(), timedelta(days=2), 172_800.0),
        (Duration(), 0.25, 0.25),
        (Duration(), " 1h 30m ", 5400.0),
        (Duration(zero=True), "0s", 0.0),
        (Texts(), "one", ("one",)),
        (Texts(), ["b", "a", "b"], ("b", "a", "b")),
        (Texts(), (), ()),
        (Needs(), [SimpleNamespace(id="a"), "b", "a"], ("a", "b")),
        (Needs(), SimpleNamespace(id="a"), ("a",)),
        (Globs(), ["src/**", "./src/**"], ("src/**",)),
        (Program(), "sh -c 'a b'", ("sh", "-c", "a b")),
        (Program(), [Path("/bin/sh"), "", 1, True], ("/bin/sh", "", "1", "true")),
        (Tools(), " Read,Bash(git log, git diff), ,Read", ("Read", "Bash(git log, git diff)")),
        (Tools(), "", ()),
        (Tools(), ["a, b"], ("a, b",)),
        (Variables(), {"A": "", "B": 1, "C": True}, {"A": "", "B": "1", "C": "true"}),
        (Folder(), Path("/srv/ws"), "/srv/ws"),
        (Anything(), {"a": [1, None, {"b": 1.5}]}, {"a": [1, None, {"b": 1.5}]}),
    ],
)
def test_what_a_kind_takes(kind: Kind, data: Any, value: Any) -> None:
    found = taken(kind, data)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (Text(), None, "a text is wanted here, not nothing"),
        (Text(), b"x", "a text is wanted here, not a bytes"),
        (Text(), " \n", "it is blank"),
        (Text(), "a\0", "it has a NUL character in it, which no program can be given"),
        (Text(), "\ud800", "it has half a surrogate pair in it, which is not text"),
        (Name(), {}, "a name is wanted here, not a mapping"),
        (Name(), "a\u2028b", "the name 'a\\u2028b' has the control character '\\u2028' in it"),
        (Flag(), "yes", "'yes' is neither true nor false"),
        (Flag(), 1, "'1' is neither true nor false"),
        (Flag(), None, "nothing is neither true nor false"),
        (Whole(0, 9), 10, "10 is not between 0 and 9"),
        (Whole(0, 9), float("inf"), "'inf' is not a whole number"),
        (Whole(0, 9), "3", "'3' is not a whole number"),
        (Choice(("auto", "avoid")), "avoidd", "'avoidd' cannot be used here; did you mean 'avoid'?"),
        (Choice(("auto", "avoid")), [], "a list cannot be used here; known values: auto, avoid"),
        (Slots(), True, "'true' is neither a whole number nor 'auto'"),
        (Slots(), 2.5, "'2.5' is not a whole number"),
        (Duration(), timedelta(0), "a timedelta is no time at all; write more than 0"),
        (Duration(), "367d", "'367d' is not between nothing and a year"),
        (Needs(), SimpleNamespace(id=""), "a task without an id cannot be needed; give it one"),
        (Needs(), [3.5, object()], "a name is wanted here, not an object"),
        (Globs(), [["a"]], "a glob is wanted here, not a list"),
        (Globs(), "a\udcff", "it has half a surrogate pair in it, which is not text"),
        (Program(), "", "it is blank"),
        (Program(), "''", "it names no program"),
        (Program(), [], "it names no program"),
        (Program(), ["sh", None], "an argument is a text, not nothing"),
        (Program(), ["sh", "a\0b"], "it has a NUL character in it, which no program can be given"),
        (Program(), "sh 'x", '"sh \'x" cannot be split into words: no closing quotation'),
        (Program(), "~no-such-user-here/x", "'~no-such-user-here/x': there is no such user's folder"),
        (Tools(), {}, "tools are a list, or one text with commas, not a mapping"),
        (Variables(), {"": "x"}, "'' cannot be the name of an environment variable"),
        (Variables(), {"A": "a\0"}, "A: it has a NUL character in it, which no program can be given"),
        (Variables(), {"A": None}, "A: a text is wanted here, not nothing"),
        (Folder(), "~no-such-user-here/x", "'~no-such-user-here/x': there is no such user's folder"),
        (Anything(), {"a": {1, object()}}, "it has something in it that is not plain data"),
        (Anything(), {2: 1}, "the key 2 is a number; keys are texts"),
    ],
)
def test_what_a_kind_refuses(kind: Kind, data: Any, message: str) -> None:
    assert refused(kind, data) == message


def test_a_number_that_python_does_not_write_down_is_refused_all_the_same() -> None:
    number = 1 << 20_000
    shown = f"0x1{'0' * 54}..."
    assert refused(Whole(0, 9), number) == f"{shown} is not between 0 and 9"
    assert refused(Duration(), number) == f"'{shown}' is not a length of time"
    assert refused(Flag(), number) == f"'{shown}' is neither true nor false"
    assert taken(Text(), number).startswith("0x1000")


def test_the_folder_of_a_user_is_known_by_its_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert taken(Folder(), "~/ws") == "/home/me/ws"
    assert taken(Program(), "~/bin/agent ~/x") == ("/home/me/bin/agent", "~/x")
    assert taken(Program(), ["~/bin/agent"]) == ("/home/me/bin/agent",)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("Yes", True), ("on", True), ("0", False), ("FALSE", False), ("off", False)],
)
def test_a_variable_says_yes_in_many_ways(text: str, value: bool) -> None:
    assert Flag().read(from_text(text, "AGENTFUL_LAND").root) is value


def test_milliseconds_are_those_of_the_seed_only() -> None:
    assert taken(Duration(), 600_000, milliseconds=True) == 600
    assert taken(Duration(), "10m", milliseconds=True) == 600
    assert taken(Duration(), timedelta(minutes=10), milliseconds=True) == 600
    assert refused(Duration(), 86_401) == (
        "a bare number is seconds; write 86.401s or 1m26s (86401 looks like milliseconds), or 24h if "
        "seconds are meant"
    )


@settings(max_examples=200, deadline=None)
@given(st.floats(0.001, 360 * 86_400))
def test_a_duration_that_is_shown_is_one_that_is_taken(seconds: float) -> None:
    # It is rounded for people: to a tenth of a second below ten, a second below an hour, else a minute.
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.051, rel=0.01)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.binary(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from([field for fields in TABLES.values() for field in fields]),
)
def test_a_kind_takes_a_value_or_says_why_not(data: Any, field: Field) -> None:
    try:
        taken(field.kind, data)
    except ConfigError as error:
        assert str(error).startswith("here")  # noqa: PT017


# --- mappings ------------------------------------------------------------------------------------

FIELDS = (Field("max", Whole(0, 9), "The most.", ("maxMost", "most")), Field("name", Name(), "A name."))


def test_a_mapping_is_read_by_its_table() -> None:
    assert read(source_of({"most": 3, "name": None}).root, FIELDS, "a thing") == {"max": 3}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"mx": 3}, "here: unknown key 'mx' in a thing; did you mean 'max'?"),
        ({"MOST": 3}, "here: unknown key 'MOST' in a thing; did you mean 'most'?"),
        ({"zz": 3}, "here: unknown key 'zz' in a thing; known keys: max, name"),
        ({"max": 3, "most": 3}, "here: most: 'max' says the same already; take one of them away"),
        ({"max": 33}, "here: max: 33 is not between 0 and 9"),
        ({"name": [1]}, "here: name: a name is wanted here, not a list"),
        ([], "here: a mapping of keys to values is wanted here, not a list"),
    ],
)
def test_what_a_table_refuses(data: Any, message: str) -> None:
    with pytest.raises(ConfigError) as info:
        read(source_of(data).root, FIELDS, "a thing")
    assert str(info.value) == message


def test_picking_leaves_unknown_keys_to_the_caller() -> None:
    found, unknown = pick(source_of({"most": 3, "color": "blue"}).root, FIELDS, "a thing")
    assert (list(found), list(unknown)) == (["max"], ["color"])


# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", TABLES.values(), ids=TABLES)
def test_no_spelling_stands_twice(fields: tuple[Field, ...]) -> None:
    spellings = [name for field in fields for name in (field.name, *field.aliases)]
    assert len(spellings) == len(set(spellings))
    assert all(field.doc.endswith((".", ": 1.")) for field in fields)


def test_the_tables_have_the_fields_of_what_is_made_of_them() -> None:
    assert {field.name for field in TASK_FIELDS} == set(Task.__struct_fields__)
    assert {field.name for field in AGENT_FIELDS} == set(Agent.__struct_fields__) - {"name", "source"}
    assert {field.name for field in CONFIG_FIELDS} == set(Settings.__struct_fields__) - {"origins"}
    assert {field.name for field in SETTING_FIELDS} <= {field.name for field in CONFIG_FIELDS}


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=12))
def test_parsing_a_duration_never_gives_anything_but_seconds_or_a_value_error(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except ValueError as error:
        assert "is not a length of time" in str(error)  # noqa: PT017
