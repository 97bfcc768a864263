"""The shipped JSON Schemas: not stale, and of one mind with what reads the files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentful.config import parse_plan
from agentful.config.schema import SCHEMAS, config_schema, plan_schema, schema_text, write_schemas
from agentful.config.settings import CONFIG_FIELDS, layer
from agentful.config.source import parse_json, parse_toml, parse_yaml
from agentful.config.templates import Detected, init_files
from agentful.errors import ConfigError, PlanError

ROOT = Path(__file__).parent.parent
PLANS = sorted(
    path
    for folder in ("src/agentful/demo", "examples")
    for pattern in ("*plan*.yaml", "*plan*.toml", "*plan*.json")
    for path in (ROOT / folder).rglob(pattern)
)
BLOCK = re.compile(r"^```ya?ml\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def problems(data: Any, schema: Any, root: Any, place: str = "") -> list[str]:
    """What does not conform, by as much of draft-07 as our schemas use."""
    if isinstance(schema, bool):
        return [] if schema else [f"{place}: not allowed"]
    if "$ref" in schema:
        assert set(schema) == {"$ref"}, "draft-07 ignores what stands beside a reference"
        return problems(data, root["definitions"][schema["$ref"].rpartition("/")[2]], root, place)

    def fits(other: Any) -> bool:
        return not problems(data, other, root)

    found: list[str] = []
    number = isinstance(data, (int, float)) and not isinstance(data, bool)
    for keyword, value in schema.items():
        good = True
        match keyword:
            case "type":
                names = [value] if isinstance(value, str) else value
                good = any(
                    isinstance(data, _TYPES[name]) and (name == "boolean" or not isinstance(data, bool))
                    for name in names
                )
            case "enum":
                good = any(data == item and type(data) is type(item) for item in value)
            case "const":
                good = data == value
            case "pattern":
                good = not isinstance(data, str) or re.search(value, data) is not None
            case "minLength":
                good = not isinstance(data, str) or len(data) >= value
            case "maxLength":
                good = not isinstance(data, str) or len(data) <= value
            case "minimum":
                good = not number or data >= value
            case "exclusiveMinimum":
                good = not number or data > value
            case "maximum":
                good = not number or data <= value
            case "minItems":
                good = not isinstance(data, list) or len(data) >= value
            case "minProperties":
                good = not isinstance(data, dict) or len(data) >= value
            case "required":
                good = not isinstance(data, dict) or all(name in data for name in value)
            case "anyOf":
                good = any(map(fits, value))
            case "oneOf":
                good = sum(map(fits, value)) == 1
            case "not":
                good = not fits(value)
            case "allOf":
                for other in value:
                    found += problems(data, other, root, place)
            case "items" if isinstance(data, list):
                for at, item in enumerate(data):
                    each = value
                    if isinstance(value, list):
                        each = value[at] if at < len(value) else schema["additionalItems"]
                    found += problems(item, each, root, f"{place}/{at}")
            case "propertyNames" if isinstance(data, dict):
                for name in data:
                    found += problems(name, value, root, f"{place}/{name}")
            case "properties" if isinstance(data, dict):
                for name in set(data) & set(value):
                    found += problems(data[name], value[name], root, f"{place}/{name}")
            case "additionalProperties" if isinstance(data, dict):
                for name in set(data) - set(schema.get("properties", {})):
                    found += problems(data[name], value, root, f"{place}/{name}")
            case "additionalItems" | "definitions" | "description" | "title" | "$schema":
                pass
            case _ if isinstance(data, (dict, list)):
                pass
            case _:
                assert keyword in {"items", "propertyNames", "properties", "additionalProperties"}, keyword
        if not good:
            found.append(f"{place}: {keyword}")
    return found


def plan_problems(data: Any) -> list[str]:
    schema = plan_schema()
    return problems(data, schema, schema)


def config_problems(data: Any) -> list[str]:
    schema = config_schema()
    return problems(data, schema, schema)


# --- the files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_shipped_schema_is_not_stale(name: str) -> None:
    assert json.loads(schema_text(name)) == SCHEMAS[name](), "run: python -m agentful.config.schema"


def test_writing_the_schemas_makes_what_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentful.config import schema

    before = {name: schema_text(name) for name in SCHEMAS}
    monkeypatch.setattr(schema, "_packaged", lambda name: tmp_path / name)
    write_schemas()
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in SCHEMAS} == before


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_key_is_described_and_every_pattern_compiles(name: str) -> None:
    def walk(schema: Any) -> None:
        if isinstance(schema, dict):
            if isinstance(schema.get("pattern"), str):
                re.compile(schema["pattern"])
            for key, item in (schema.get("properties") or {}).items():
                assert item["description"].endswith((".", "1.")), key
            for item in schema.values():
                walk(item)
        elif isinstance(schema, list):
            for item in schema:
                walk(item)

    walk(SCHEMAS[name]())


# --- plans that people read ----------------------------------------------------------------------


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_the_plans_in_the_repository_conform(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    parse_plan(text, path.name)
    assert path.suffix != ".yaml" or plan_problems(parse_yaml(text, path.name, error=PlanError).data) == []


def test_there_are_plans_in_the_repository() -> None:
    assert PLANS


def test_the_plans_in_the_documentation_conform() -> None:
    for page in filter(Path.exists, PAGES):
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            if re.search(r"^tasks:", block, re.MULTILINE):
                parse_plan(block, page.name)
                assert plan_problems(parse_yaml(block, page.name, error=PlanError).data) == []


def test_what_init_writes_conforms() -> None:
    files = init_files(Detected(checks=("make test",), agents=("backend",)))
    assert plan_problems(parse_yaml(files["plan.yaml"], "plan.yaml", error=PlanError).data) == []
    config = parse_toml(files[".agentful/config.toml"], "config.toml", error=ConfigError).data
    assert config_problems(config) == []
    for name in SCHEMAS:
        assert json.loads(files[f".agentful/{name}.schema.json"])["$schema"].endswith("draft-07/schema#")


# --- of one mind ---------------------------------------------------------------------------------

_names = st.sampled_from(["a", "b", "a b", "", " a", "x" * 201])
_texts = st.sampled_from(["x", "", "  ", 1, 1.5, True])
_durations = st.sampled_from(
    [1, 0, -1, 90.5, 86_400, 86_401, "10m", "1h 30m", "500ms", "soon", "10", True, []]
)
_globs = st.sampled_from(["src/**", "", "*.md"])


def _one_or_more(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return values | st.lists(values, max_size=2)


_task_keys: dict[str, st.SearchStrategy[Any]] = {
    "agent": _names,
    "prompt": _texts,
    "task": _texts,
    "description": _texts,
    "run": _texts,
    "writes": _one_or_more(_globs),
    "resources": _one_or_more(_names),
    "timeout": _durations,
    "estimate": _durations,
    "retries": st.sampled_from([0, 2, 100, 101, -1, 1.5, "2", True]),
    "priority": st.sampled_from([0, -5, 5, 10**7]),
    "checks": _one_or_more(_texts),
    "reads_only": st.sampled_from([True, False, "yes", 1]),
    "affinity": _texts,
    "speculative": st.booleans(),
    "promt": _texts,
}
_WHOLE: tuple[dict[str, st.SearchStrategy[Any]], ...] = (
    {"run": st.just("x")},
    {"agent": st.just("a"), "prompt": st.just("y")},
)
_tasks = st.one_of(
    st.fixed_dictionaries({}, optional=_task_keys),
    # A good task with one more key, so that this key decides.
    *[st.fixed_dictionaries({**whole, key: value}) for whole in _WHOLE for key, value in _task_keys.items()],
    st.sampled_from(["x", 1, []]),
)
_agent_keys: dict[str, st.SearchStrategy[Any]] = {
    "driver": _texts,
    "command": _one_or_more(_texts),
    "prompt_by": st.sampled_from(["argv", "stdin", "file", "mail"]),
    "tools": st.sampled_from(["a, b", ["a"], [""], 1]),
    "env": st.sampled_from([{}, {"A": "x", "B": 1}, {"A=": "x"}, {"A": []}, 1]),
    "pass_env": _one_or_more(_texts),
    "timeout": _durations,
    "writes": _one_or_more(_globs),
    "reads_only": st.sampled_from([True, 1]),
    "extra": st.sampled_from([{}, {"x": [1]}, 1]),
    "comand": _texts,
}
_option_keys: dict[str, st.SearchStrategy[Any]] = {
    "mode": st.sampled_from(["auto", "sequential", "parallel", "fast"]),
    "max_concurrency": st.sampled_from([1, 0, 1024, 1025, "auto", "many", True, 4.5]),
    "maxConcurrency": st.just(2),
    "max_concurrent": st.just(2),
    "fail_fast": st.booleans(),
    "failFast": st.booleans(),
    "conflicts": st.sampled_from(["auto", "avoid", "optimistic", 1]),
    "timeout": _durations,
    "retry_delay": _durations,
    "checks": _one_or_more(_texts),
    "base": _texts,
    "scope": st.sampled_from(["warn", "fail", "ok"]),
    "concurrency": st.just(1),
}
_agents = st.dictionaries(
    st.sampled_from(["a", " a", ""]), st.fixed_dictionaries({}, optional=_agent_keys), max_size=1
)


def _mostly_one(keys: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings with one of the keys, so that its own fault is what decides; now and then with several."""
    alone = [st.fixed_dictionaries({key: value}) for key, value in keys.items()]
    return st.one_of(*alone, st.fixed_dictionaries({}, optional=keys))


@settings(max_examples=400, deadline=None)
@given(_tasks, st.booleans())
def test_a_task_is_taken_by_the_reader_exactly_if_by_the_schema(task: Any, listed: bool) -> None:
    _same_verdict({"tasks": [task] if listed else {"t": task}})


@settings(max_examples=250, deadline=None)
@given(_mostly_one(_option_keys), _mostly_one(_agent_keys), st.sampled_from(["a", "a", " a", ""]))
def test_options_and_agents_are_as_well(options: dict[str, Any], agent: dict[str, Any], name: str) -> None:
    _same_verdict({**options, "tasks": {"t": {"run": "x"}}})
    _same_verdict({"agents": {name: agent}, "tasks": {"t": {"run": "x"}}})


@settings(max_examples=150, deadline=None)
@given(
    _mostly_one({**_option_keys, "land": st.sampled_from([True, 1]), "agents": _agents, "workspaces": _texts})
)
def test_settings_are_as_well(data: dict[str, Any]) -> None:
    try:
        layer(parse_json(json.dumps(data), "config.json", error=ConfigError).root, CONFIG_FIELDS)
        said = "taken"
    except ConfigError as error:
        said = str(error)
    assert (said == "taken") is (config_problems(data) == []), said


def _same_verdict(data: dict[str, Any]) -> None:
    try:
        parse_plan(json.dumps(data), "plan.json")
        said = "taken"
    except PlanError as error:
        said = str(error)
    assert (said == "taken") is (plan_problems(data) == []), said


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        ({}, False),
        ({"tasks": {}}, False),
        ({"tasks": []}, False),
        ({"tasks": [{"run": "x"}]}, True),
        ({"tasks": {"a": {"run": True}}, "version": 1, "title": "x"}, True),
        ({"tasks": {"a": {"run": "x"}}, "version": 2}, False),
        ({"tasks": {"a": {"run": "x"}}, "title": "x", "name": "y"}, False),
        ({"tasks": {"a": {"run": "x", "needs": "b"}, "b": {"run": "y", "dependsOn": []}}}, True),
        ({"tasks": {"a": {"run": "x", "needs": [], "depends_on": []}}}, False),
    ],
)
def test_plans_that_do_and_do_not_conform(data: Any, fits: bool) -> None:
    assert (plan_problems(data) == []) is fits
    _same_verdict(data)
