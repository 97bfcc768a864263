"""Files as plain data with lines: YAML, TOML, JSON, and what is refused of them."""

from __future__ import annotations

import json
import os
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agentful.config import positions, source, yamlfile
from agentful.config.source import from_text, nearest, parse, read_text
from agentful.config.tomltext import toml_text
from agentful.errors import ConfigError, PlanError

if TYPE_CHECKING:
    from pathlib import Path


def read(text: str, name: str = "plan.yaml") -> source.Source:
    return parse(text, name, error=PlanError)


def refused(text: str, name: str = "plan.yaml") -> str:
    with pytest.raises(PlanError) as info:
        read(text, name)
    return str(info.value)


# --- YAML ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("2026-01-20", "2026-01-20"),
        ("1_000", "1_000"),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("-3", -3),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("~", None),
        ("'1'", "1"),
        ('"true"', "true"),
        ("10m", "10m"),
        ("9" * 5000, "9" * 5000),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    assert read(f"key: {text}").data == {"key": value}


def test_how_a_value_was_written_is_kept_for_where_text_is_wanted() -> None:
    found = read("a: 1.10\nb: {c: true, 1.20: x}\n")
    assert found.raw == {("a",): "1.10", ("b", "c"): "true"}
    assert list(found.data["b"]) == ["c", "1.20"]


def test_every_part_has_its_line() -> None:
    found = read("a:\n  - x\n  - y: 1\n    z: |\n      text\nb: 2\n")
    assert found.where(("a",)) == "plan.yaml:1"
    assert found.where(("a", 1, "z")) == "plan.yaml:4"
    assert found.where(("b",)) == "plan.yaml:6"
    # What has no line of its own stands where its parent does.
    assert found.where(("a", 1, "z", "nothing")) == "plan.yaml:4"


def test_the_same_key_twice_is_refused_with_both_lines() -> None:
    assert refused("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n") == (
        "plan.yaml:5: the key 'c' stands here twice, first on line 3"
    )


def test_aliases_and_merges_are_taken() -> None:
    text = """
    base: &base {timeout: 5m, retries: 1}
    more: &more {retries: 2, writes: [x]}
    one: {<<: *base, timeout: 1m}
    two:
      <<: [*more, *base]
    three: *base
    """
    data = read(text).data
    assert data["one"] == {"timeout": "1m", "retries": 1}
    assert data["two"] == {"retries": 2, "writes": ["x"], "timeout": "5m"}
    assert data["three"] == {"timeout": "5m", "retries": 1}


def test_what_a_few_hundred_bytes_expand_to_is_bounded() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    assert "more than 200,000 values" in refused(laughs)
    merges = "a0: &a0 {k: v}\n" + "".join(
        f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    assert "more than 200,000 values" in refused(merges)
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200))
    assert "nested more than 64 deep" in refused(chain)
    merged = "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}}}\n" for n in range(1, 200))
    assert "merged more than 64 deep" in refused(merged)


@pytest.mark.parametrize("bomb", ["[", "{", "- ", "? ", "[{", "{a: ", "[: ", "- - ? "])
def test_deep_nesting_is_refused_before_it_is_read_to_its_end(bomb: str) -> None:
    # Read to its end, each of these takes minutes or overflows the stack.
    message = refused(bomb * 100_000)
    assert "nested more than 64 deep" in message or "key has to be" in message or "not valid" in message


def test_very_many_values_are_refused() -> None:
    assert "more than 200,000 values" in refused("[" + "a," * 210_000 + "]")
    assert "more than 200,000 values" in refused("[" + "a," * 450_000 + "]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object:os.system x", "plan.yaml:1: the tag tag:yaml.org,2002:python/object:os.system"),
        ("a: !thing [1]", "plan.yaml:1: the tag !thing is not supported"),
        ("a: 1\n---\nb: 2\n", "plan.yaml:2: a second document starts here"),
        ("? [a, b]\n: c\n", "plan.yaml:1: a key has to be a plain value"),
        ("a: *nothing", "plan.yaml:1: the alias *nothing has no anchor before it"),
        ("a: &a\n  b: *a\n", "plan.yaml:2: the alias *a stands inside what it repeats"),
        ("a:\n  <<: 3\n", "plan.yaml:2: what '<<' merges has to be a mapping"),
        ("x: 1\na: b: c\n", "plan.yaml:2: not valid YAML: mapping values are not allowed"),
        ("a:\n\t- b\n", "plan.yaml:2: not valid YAML"),
        ("a: 'b\n", "not valid YAML"),
        ("a: 1\nb: \x07\n", "plan.yaml:2: the control character '\\x07'"),
        ("\ud800", "half a surrogate pair"),
    ],
)
def test_what_is_refused_says_where_and_why(text: str, message: str) -> None:
    assert message in refused(text)


def test_pyyamls_own_parser_does_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert read("a: [1, no, {b: 'x'}]\n").data == {"a": [1, "no", {"b": "x"}]}
    assert "plan.yaml:2: not valid YAML" in refused("a:\n\t- b\n")
    assert "nested more than 64 deep" in refused("[" * 10_000)


_plain = st.one_of(st.booleans(), st.none(), st.integers(-(10**17), 10**17), st.text(max_size=12))
_keys = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=6)
_trees = st.recursive(
    _plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(_trees)
def test_yaml_that_pyyaml_wrote_comes_back(tree: Any) -> None:
    # In quotes all text is text, whichever version of YAML reads it.
    text = yaml.safe_dump({"tree": tree}, default_style='"', allow_unicode=True, sort_keys=False)
    quoted = yaml.safe_dump({"tree": _as_text(tree)}, default_style='"', sort_keys=False)
    assert yamlfile.read_yaml(quoted).data == {"tree": _as_text(tree)}
    if "!!" in text:
        with pytest.raises(yamlfile.YamlProblem, match="tag"):
            yamlfile.read_yaml(text)


def _as_text(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _as_text(item) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_as_text(item) for item in tree]
    return str(tree)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_text_at_all_is_data_or_a_plan_error(text: str) -> None:
    for name in ("p.yaml", "p.toml", "p.json"):
        try:
            read(text, name)
        except PlanError as error:
            assert str(error).startswith(name)  # noqa: PT017


# --- TOML and JSON -------------------------------------------------------------------------------

TOML = '''\
# a comment with [brackets] and key = "value"
title = "A \\"plan\\" = [x]"   # [not.a.table]
prompt = """
[tasks.fake]
run = "no"
"""
quotes = """x""\\"""""
raw = \'\'\'
a = 1
\'\'\'
dates = [1979-05-27T07:32:00Z, 1979-05-27, 07:32:00]
[tasks.api]
"agent" = 'back"end'
needs = [
  "a",  # first
  "b",
]
env = { A = "1", B.C = "2" }
[ tasks . "with.dot" ]
run = "x"
[[list]]
a = 1
[[list]]
a = 2
[list.sub]
b = 1.5
'''


def test_toml_has_the_line_of_every_key() -> None:
    found = read(TOML, "plan.toml")
    lines = {
        ("title",): 2,
        ("prompt",): 3,
        ("quotes",): 7,
        ("raw",): 8,
        ("dates", 2): 11,
        ("tasks", "api"): 12,
        ("tasks", "api", "agent"): 13,
        ("tasks", "api", "needs", 1): 16,
        ("tasks", "api", "env", "B", "C"): 18,
        ("tasks", "with.dot", "run"): 20,
        ("list", 0, "a"): 22,
        ("list", 1, "a"): 24,
        ("list", 1, "sub", "b"): 26,
    }
    assert {place: found.lines[place] for place in lines} == lines
    assert ("tasks", "fake") not in found.lines


def test_toml_keys_in_quotes() -> None:
    text = """'a.b' = 1\n"c.d" = 2\n"e\\U0001F600" = 3\n"f\\"" = 4\n"""
    assert positions.toml(text).lines == {("a.b",): 1, ("c.d",): 2, ("e😀",): 3, ('f"',): 4}


def _places(data: Any, place: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    found = {place} if place else set()
    if isinstance(data, dict):
        return found.union(*(_places(item, (*place, key)) for key, item in data.items()))
    if isinstance(data, list):
        return found.union(*(_places(item, (*place, at)) for at, item in enumerate(data)))
    return found


_toml_trees = st.dictionaries(
    st.text(max_size=6),
    st.recursive(
        st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=10,
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(_toml_trees)
def test_the_outline_has_exactly_the_places_of_the_data(tree: dict[str, Any]) -> None:
    text = "".join(f"{toml_text(key)} = {toml_text(item)}\n" for key, item in tree.items())
    assert tomllib.loads(text) == tree
    assert set(positions.toml(text).lines) == _places(tree)
    assert set(positions.json(json.dumps(tree, indent=1)).lines) == _places(tree)


def test_json_has_lines_and_no_key_twice() -> None:
    found = read('{\n "tasks": [\n  {"id": "a"},\n\t{"id": "\\ud83d\\ude00"}\n ]\n}', "plan.json")
    assert found.data["tasks"][1]["id"] == "😀"
    assert found.where(("tasks", 1, "id")) == "plan.json:4"
    assert refused('{"a": {\n"b": 1,\n"b": 2}}', "p.json") == (
        "p.json:3: the key 'b' stands here twice, first on line 2"
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.toml", "a = 1\nb = x\n", "p.toml:2: not valid TOML: invalid value"),
        ("p.toml", "a = 1\n\na = 2\n", "p.toml:3: not valid TOML: cannot overwrite a value"),
        ("p.toml", 'a = """x', "p.toml:1: not valid TOML"),
        ("p.toml", "a = " + "[" * 5000, "p.toml: it is nested too deeply"),
        ("p.toml", "a = " + "[" * 100 + "]" * 100, "p.toml: it is nested too deeply"),
        ("p.toml", "x = 1\n" + ".".join(["a"] * 20_000) + " = 1", "p.toml:2: a key with more than 64 parts"),
        ("p.toml", "[" + ".".join(["a"] * 20_000) + "]", "a key with more than 64 parts"),
        ("p.json", "{", "p.json:1: not valid JSON"),
        ("p.json", '{"a": 1,\n}', "p.json:"),
        ("p.json", '{"a": NaN}', "p.json: not valid JSON: NaN is not JSON"),
        ("p.json", '{"a": "\n"}', "p.json:1: not valid JSON: invalid control character"),
        ("p.toml", "a = " + "9" * 5000, "p.toml: not valid TOML: a number has too many digits"),
        ("p.json", "[" * 100_000, "p.json: it is nested too deeply"),
        ("p.json", "[" * 100 + "]" * 100, "p.json: it is nested too deeply"),
        ("p.json", '{"a": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_broken_toml_and_json_say_where(name: str, text: str, message: str) -> None:
    assert message in refused(text, name)


def test_nothing_is_no_data() -> None:
    assert read("").data is None
    assert read("# only a comment\n").data is None
    assert read(" \n", "p.json").data is None
    assert read("", "p.toml").data == {}


# --- files ---------------------------------------------------------------------------------------


def from_file(path: Path, limit: int = 100) -> str:
    return read_text(path, name=path.name, limit=limit, what="a plan", error=PlanError)


def test_files_that_cannot_be_read_each_have_their_message(tmp_path: Path) -> None:
    def why(name: str, content: bytes | None = None, **more: int) -> str:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(PlanError) as info:
            from_file(path, **more)
        return str(info.value)

    assert why("missing.yaml") == "missing.yaml: there is no such file; a plan was expected"
    (tmp_path / "folder").mkdir()
    assert why("folder") == "folder: this is a folder; a plan is a file"
    assert why("binary", b"\x7fELF\0\0") == "binary: it is binary; a plan is text"
    assert why("latin", b"a: 1\nb: caf\xe9\n") == "latin:2: the byte 0xe9 is not UTF-8; a plan is UTF-8 text"
    assert why("wide", "a: 1".encode("utf-16")) == "wide: it is UTF-16; save it as UTF-8"
    assert "larger than 100 bytes" in why("large", b"#" * 101)
    assert "cannot be read" in why("under/a/nul\0")
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be read" in why("loop")
    if os.geteuid():
        (tmp_path / "closed").write_text("a: 1")
        (tmp_path / "closed").chmod(0)
        assert "Permission denied" in why("closed")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read(from_file(path)).data == {"a": 1, "b": 2}


# --- single values and names ---------------------------------------------------------------------


def test_a_value_from_a_command_line() -> None:
    assert from_text(" 4 ", "X").data == 4
    assert from_text("1.10", "X").root.text == "1.10"
    assert from_text('["a b", c]', "X").data == ["a b", "c"]
    with pytest.raises(ConfigError, match=r"X: not valid YAML"):
        from_text("[a", "X")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("max-concurrncy", "did you mean 'max_concurrency'?"),
        ("FailFast", "did you mean 'fail_fast'?"),
        ("zzz", "known keys: max_concurrency, fail_fast"),
    ],
)
def test_the_nearest_name(word: str, hint: str) -> None:
    assert nearest(word, ["max_concurrency", "fail_fast"], what="key") == hint
    assert nearest(word, [], what="key") == "no key is known"
