"""Changing one setting of a file, with the rest of it left as it is."""

from __future__ import annotations

import datetime
import os
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentful.config import load_settings, set_setting
from agentful.config.templates import Detected, config_template
from agentful.config.tomltext import toml_text, with_value
from agentful.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FILE = '''\
# my settings
checks = [
  "pytest -q",   # all of them
]
retries = 1  # one is enough

# about the agent
[agents.backend]
command = ["sh"]  # for now
instructions = """
[not.a.table]
retries = 3
"""
'''


def config_of(root: Path) -> Path:
    return root / ".agentful/config.toml"


def write(root: Path, text: str) -> None:
    config_of(root).parent.mkdir(exist_ok=True)
    config_of(root).write_bytes(text.encode())


def change(root: Path, before: str, key: str, value: object) -> str:
    write(root, before)
    set_setting(root, key, value)
    return config_of(root).read_bytes().decode()


def test_a_new_file_is_made(tmp_path: Path) -> None:
    assert set_setting(tmp_path, "mode", "parallel") == "parallel"
    assert set_setting(tmp_path, "max-concurrent", "4") == 4
    assert config_of(tmp_path).read_text() == 'mode = "parallel"\nmax_concurrency = 4\n'
    assert load_settings(tmp_path, env={}).slots == 4
    assert list(config_of(tmp_path).parent.iterdir()) == [config_of(tmp_path)]


@pytest.mark.parametrize(
    ("key", "value", "before", "after"),
    [
        ("retries", "2", "retries = 1  # one is enough", "retries = 2  # one is enough"),
        ("checks", "make", '[\n  "pytest -q",   # all of them\n]', '["make"]'),
        ("timeout", "10m", "enough\n", 'enough\ntimeout = "10m"\n'),
        ("timeout", "90", "enough\n", "enough\ntimeout = 90\n"),
        ("timeout", datetime.timedelta(minutes=1), "enough\n", "enough\ntimeout = 60.0\n"),
        ("land", True, "enough\n", "enough\nland = true\n"),
        ("base", "1.10", "enough\n", 'enough\nbase = "1.10"\n'),
        ("agents.backend.command", "sh -c 'a b'", '["sh"]', '["sh", "-c", "a b"]'),
        ("agents.backend.model", "big", "[agents.backend]\n", '[agents.backend]\nmodel = "big"\n'),
        ("agent_defaults.env", "{A: 1}", '3\n"""\n', '3\n"""\n\n[agent_defaults]\nenv = { A = "1" }\n'),
        ('agents."x y".writes', '["a/**"]', '3\n"""\n', '3\n"""\n\n[agents."x y"]\nwrites = ["a/**"]\n'),
    ],
)
def test_everything_else_stays(tmp_path: Path, key: str, value: object, before: str, after: str) -> None:
    assert FILE.count(before) == 1
    assert change(tmp_path, FILE, key, value) == FILE.replace(before, after)
    load_settings(tmp_path, env={})


def test_the_line_goes_where_a_reader_looks_for_it(tmp_path: Path) -> None:
    template = config_template(Detected())
    text = change(tmp_path, template, "max_concurrency", 4)
    assert '# max_concurrency = "auto"\nmax_concurrency = 4\n' in text
    assert len(text.splitlines()) == len(template.splitlines()) + 1
    assert change(tmp_path, "[agents.a]\nmodel = 'x'\n", "retries", 1) == (
        "retries = 1\n\n[agents.a]\nmodel = 'x'\n"
    )
    assert change(tmp_path, "# nothing yet", "retries", 1) == "# nothing yet\nretries = 1\n"
    assert change(tmp_path, "failFast = false\n", "fail_fast", "true") == "failFast = true\n"
    assert change(tmp_path, "retries = 1\r\n[agents.a]\r\n", "land", "no") == (
        "retries = 1\r\nland = false\r\n[agents.a]\r\n"
    )


def test_a_value_that_was_wrong_can_be_put_right(tmp_path: Path) -> None:
    assert change(tmp_path, "mode = 'paralel'\n", "mode", "parallel") == 'mode = "parallel"\n'


@pytest.mark.parametrize(
    ("before", "key", "value", "message"),
    [
        ("", "max_concurency", "4", "unknown setting 'max_concurency'; did you mean 'max_concurrency'?"),
        ("", "agents.a.comand", "4", "unknown key 'comand'; did you mean 'command'?"),
        ("", "agents.a", "4", "'agents.a' is no setting; write a setting's name, agents.NAME.KEY"),
        ("", "a.b", "4", "'a.b' is no setting"),
        ("", "mode = 1\nx", "4", "unknown setting"),
        ("", "", "4", "unknown setting ''"),
        ("", "retries", "many", "retries: 'many' is not a whole number"),
        ("", "timeout", "600000", "timeout: a bare number is seconds"),
        ("retries = ", "retries", "1", ".agentful/config.toml:1: not valid TOML"),
        ("unknown = 1\n", "retries", "1", ".agentful/config.toml:1: unknown key 'unknown'"),
        ("agents = {a = {}}\n", "agents.a.model", "x", "agents.a.model cannot be set in the form that this"),
        ("agents.a.model = 'x'\n", "agents.a.driver", "x", "agents.a.driver cannot be set in the form"),
        (
            "",
            "agents.a.extra",
            "{a: ~}",
            "agents.a.extra: it cannot be written down: TOML has no form for not",
        ),
        ("", 'agents."".model', "x", 'agents."".model: the name is empty'),
        ("", "base", "\udcff", "base: it has half a surrogate pair in it, which is not text"),
    ],
)
def test_a_refused_change_leaves_the_file(
    tmp_path: Path, before: str, key: str, value: str, message: str
) -> None:
    write(tmp_path, before)
    with pytest.raises(ConfigError) as info:
        set_setting(tmp_path, key, value)
    assert message in str(info.value)
    assert config_of(tmp_path).read_text() == before


def test_a_link_stays_a_link_and_the_mode_stays(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text("retries = 1\n")
    real.chmod(0o600)
    config_of(tmp_path).parent.mkdir()
    config_of(tmp_path).symlink_to(real)
    set_setting(tmp_path, "retries", "2")
    assert config_of(tmp_path).is_symlink()
    assert real.read_text() == "retries = 2\n"
    assert real.stat().st_mode & 0o777 == 0o600


def test_numbers_and_dates_that_only_toml_has_stay(tmp_path: Path) -> None:
    before = "[agents.a.extra]\nx = nan\nday = 2026-01-20\n"
    assert change(tmp_path, before, "retries", 2) == f"retries = 2\n\n{before}"
    assert change(tmp_path, "", "agents.a.extra", "{x: [.nan, -.inf, 1.5]}") == (
        "[agents.a]\nextra = { x = [nan, -inf, 1.5] }\n"
    )
    day = datetime.datetime(2026, 1, 20, 7, 32, tzinfo=datetime.UTC)
    assert change(tmp_path, "", "agents.a.extra", {"d": day, "t": day.date(), "u": day.time()}) == (
        "[agents.a]\nextra = { d = 2026-01-20T07:32:00+00:00, t = 2026-01-20, u = 07:32:00 }\n"
    )


def test_a_folder_is_written_as_it_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert set_setting(tmp_path, "workspaces", "~/ws") == "/home/me/ws"
    assert config_of(tmp_path).read_text() == 'workspaces = "~/ws"\n'


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    config_of(tmp_path).parent.mkdir()
    os.mkfifo(config_of(tmp_path))
    with pytest.raises(ConfigError, match=r"\.agentful/config\.toml: it is no plain file"):
        set_setting(tmp_path, "retries", "2")


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".agentful").write_text("in the way")
    with pytest.raises(ConfigError, match=r"\.agentful/config\.toml: it cannot be written"):
        set_setting(tmp_path, "retries", "2")


_values = st.recursive(
    st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_names = st.text(max_size=5)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(_names, _values, max_size=3),
    st.dictionaries(_names, _values, max_size=3),
    _names,
    _values,
)
def test_one_value_changes_and_no_other(
    top: dict[str, Any], inner: dict[str, Any], key: str, value: Any
) -> None:
    top.pop("t", None)
    lines = [f"{toml_text(name)} = {toml_text(item)}  # about it" for name, item in top.items()]
    lines += ["", "[t]"] + [f"{toml_text(name)} = {toml_text(item)}" for name, item in inner.items()]
    text = "\n".join(lines)
    assert tomllib.loads(text) == {**top, "t": inner}
    changed = tomllib.loads(with_value(text, ("t",), (key,), toml_text(value)))
    assert changed == {**top, "t": {**inner, key: value}}
    if key != "t":
        changed = tomllib.loads(with_value(text, (), (key,), toml_text(value)))
        assert changed == {**top, "t": inner, key: value}
    added = tomllib.loads(with_value(text, ("new table", "x"), (key,), toml_text(value)))
    if "new table" not in top:
        assert added == {**top, "t": inner, "new table": {"x": {key: value}}}


@settings(max_examples=200, deadline=None)
@given(_values)
def test_toml_text_comes_back(value: Any) -> None:
    assert tomllib.loads(f"x = {toml_text(value)}") == {"x": value}
