"""Settings from all their places, in their order, each with its origin."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from agentful.config import (
    Settings,
    check_options,
    describe,
    load_settings,
    options_from_dict,
    parse_duration,
    user_config,
)
from agentful.config.plan import parse_plan
from agentful.config.settings import Layer, merge
from agentful.errors import ConfigError, PlanError
from agentful.model import Options


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that has no settings of this machine's user."""
    folder = tmp_path / "home"
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    return folder


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))


def project(root: Path, text: str) -> None:
    write(root / ".agentful/config.toml", text)


def load(root: Path | None, **more: Any) -> Settings:
    return load_settings(root, **{"env": {}, **more})


def refused(root: Path, **more: Any) -> str:
    with pytest.raises(ConfigError) as info:
        load(root, **more)
    return str(info.value)


# --- order and origins ---------------------------------------------------------------------------


def test_defaults(root: Path) -> None:
    assert load(root) == load(None) == Settings()
    options = Settings(max_concurrency=3).options(retries=1, on_conflict="decide")
    assert options == Options(max_concurrency=3, retries=1)


def test_the_order_of_places(root: Path) -> None:
    write(user_config(), "retries = 1\nscope = 'fail'\nfail_fast = true\nbase = 'user'\n")
    write(
        root / "pyproject.toml",
        "[project]\nname = 'x'\n[tool.agentful]\nretries = 2\nscope = 'warn'\nmode = 'parallel'\n",
    )
    project(root, "retries = 3\nmode = 'sequential'\ntask_timeout = '5m'\n")
    plan = parse_plan("retries: 4\ntask_timeout: 6m\ntimeout: 1h\ntasks: {a: {run: x}}", "plan.yaml")
    env = {"AGENTFUL_RETRIES": "5", "AGENTFUL_TIMEOUT": "2h", "AGENTFUL_CHECKS": '["a b", "c"]'}
    settings = load(root, env=env, plan=plan.options, flags={"retries": 6, "checks": None})
    assert settings == Settings(
        retries=6,
        timeout=7200.0,
        checks=("a b", "c"),
        task_timeout=360.0,
        mode="sequential",
        scope="warn",
        fail_fast=True,
        base="user",
        origins={
            "retries": "flag",
            "timeout": "AGENTFUL_TIMEOUT",
            "checks": "AGENTFUL_CHECKS",
            "task_timeout": "plan.yaml:2",
            "mode": ".agentful/config.toml:2",
            "scope": "pyproject.toml:5",
            "fail_fast": f"{user_config()}:3",
            "base": f"{user_config()}:4",
        },
    )


def test_agents_tables_are_joined(root: Path) -> None:
    write(user_config(), "[agents.a]\nmodel = 'x'\ntimeout = '1m'\n[agent_defaults]\ncommand = 'sh'\n")
    project(root, "[agents.a]\nmodel = 'y'\n[agents.b]\nreads_only = true\n[agent_defaults]\nmodel = 'z'\n")
    settings = load(root)
    assert settings.agents == {
        "a": {"model": "y", "timeout": 60.0, "source": f"{user_config()}:1, .agentful/config.toml:1"},
        "b": {"reads_only": True, "source": ".agentful/config.toml:3"},
    }
    assert settings.agent_defaults["command"] == ("sh",)
    assert settings.agent_defaults["model"] == "z"


def test_merging_is_a_function_of_layers() -> None:
    low = Layer({"retries": 1, "agents": {"a": {"model": "x"}}}, {"retries": "low:1", "agents": "low:2"})
    high = Layer({"retries": 2}, {"retries": "high:1"})
    settings = merge([low, high])
    assert (settings.retries, settings.origins["retries"]) == (2, "high:1")
    assert merge([high, low]).origins == {"retries": "low:1", "agents": "low:2"}
    assert merge([]) == Settings()


def test_all_settings_are_described(root: Path) -> None:
    project(root, "timeout = '90m'\n[agents.'my agent']\ncommand = ['sh', '-c']\n")
    rows = {key: (value, origin) for key, value, origin in describe(load(root, flags={"checks": ("x",)}))}
    assert rows["timeout"] == ('"1h30m"', ".agentful/config.toml:1")
    assert rows["checks"] == ('["x"]', "flag")
    assert rows["check_timeout"] == ('"30m"', "default")
    assert rows["base"] == ("", "default")
    assert rows['agents."my agent".command'] == ('["sh", "-c"]', ".agentful/config.toml:2")


def test_what_is_described_can_be_written_back(root: Path) -> None:
    project(
        root,
        """\
        retry_delay = 0.25
        timeout = 6161.5
        [agent_defaults]
        timeout = '20m'
        extra = {day = 2026-01-20}
        """,
    )
    rows = {key: value for key, value, _ in describe(load(root))}
    assert (rows["retry_delay"], rows["timeout"]) == ('"0.25s"', '"6161.5s"')
    assert rows["agent_defaults.timeout"] == '"20m"'
    assert rows["agent_defaults.extra"] == "{ day = 2026-01-20 }"


# --- how many at once ----------------------------------------------------------------------------


def test_slots(root: Path) -> None:
    assert Settings(mode="sequential", max_concurrency=8).slots == 1
    assert Settings(max_concurrency=8).slots == 8
    assert Settings(mode="parallel", max_concurrency=1).slots == 1
    assert Settings().slots >= 1
    assert Settings(mode="parallel").slots >= 2
    # Who says a number where the run is started wants that many.
    project(root, "mode = 'sequential'\n")
    assert load(root).slots == 1
    assert load(root, flags={"max_concurrency": 4}).slots == 4
    assert load(root, flags={"max_concurrency": 4, "mode": "sequential"}).slots == 1
    assert load(root, env={"AGENTFUL_MAX_CONCURRENCY": "4"}).slots == 1


@pytest.mark.parametrize(("said", "becomes"), [("auto", "avoid"), ("avoid", "avoid"), ("optimistic",) * 2])
def test_conflicts_auto_is_avoid(said: str, becomes: str) -> None:
    assert Settings(conflicts=said).options(retries=0, on_conflict="fail").conflicts == becomes


def test_options_have_what_was_said() -> None:
    settings = Settings(retries=0, on_conflict="decide", timeout=60.0, checks=("x",), scope="fail")
    options = settings.options(retries=1, on_conflict="fail")
    assert (options.retries, options.on_conflict, options.timeout) == (0, "decide", 60.0)
    assert (options.checks, options.scope) == (("x",), "fail")


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_concurency = 4\n",
            ".agentful/config.toml:1: unknown key 'max_concurency' in the settings; did you mean 'max_conc",
        ),
        ("\nretries = 'x'\n", ".agentful/config.toml:2: retries: 'x' is not a whole number"),
        (
            "timeout = 600000\n",
            ".agentful/config.toml:1: timeout: a bare number is seconds; write 600s or 10m",
        ),
        (
            "timeout = 07:32:00\n",
            ".agentful/config.toml:1: timeout: a length of time is wanted here, not a time",
        ),
        ("mode = \n", ".agentful/config.toml:1: not valid TOML: invalid value"),
        ("agents = 3\n", ".agentful/config.toml:1: agents: a mapping is wanted here, not a number"),
        (
            "[agents]\na = 1\n",
            ".agentful/config.toml:2: a: a mapping of keys to values is wanted here, not a number",
        ),
        (
            "[agents.a]\n\ncmd = 1\n",
            ".agentful/config.toml:3: unknown key 'cmd' in the agent 'a'; did you mean 'command'?",
        ),
        ("[agent_defaults]\ndriver = ''\n", ".agentful/config.toml:2: driver: it is blank"),
        ("x = \0", ".agentful/config.toml: it is binary"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(root: Path, text: str, message: str) -> None:
    project(root, text)
    assert message in refused(root)


def test_pyproject_matters_only_where_it_speaks_of_us(root: Path) -> None:
    write(root / "pyproject.toml", "this is broken, and none of our business")
    assert load(root) == Settings()
    write(root / "pyproject.toml", "[project]\ndependencies = ['agentful']\n")
    assert load(root) == Settings()
    write(root / "pyproject.toml", "[tool]\nagentful = 3\n")
    assert refused(root) == "pyproject.toml:2: agentful: a mapping of settings is wanted here, not a number"
    write(root / "pyproject.toml", "[tool.agentful]\nlandd = true\n")
    assert "pyproject.toml:2: unknown key 'landd' in the settings; did you mean 'land'?" in refused(root)
    write(root / "pyproject.toml", "[tool.agentful\n")
    assert "pyproject.toml:1: not valid TOML" in refused(root)


def test_the_folder_of_workspaces(root: Path, home: Path) -> None:
    project(root, "workspaces = '../ws'\n")
    assert load(root).workspace_folder == root / "../ws"
    assert load(root, flags={"workspaces": "ws"}).workspace_folder == Path("ws")
    assert load(root, env={"AGENTFUL_WORKSPACES": "~/ws"}).workspace_folder == home / "ws"
    assert load(None).workspace_folder is None


# --- environment ---------------------------------------------------------------------------------


def test_variables_are_written_as_people_write_them(root: Path) -> None:
    env = {
        "AGENTFUL_LAND": "yes",
        "AGENTFUL_FAIL_FAST": "0",
        "AGENTFUL_MAX_CONCURRENCY": " 4 ",
        "AGENTFUL_CHECKS": "pytest -q",
        "AGENTFUL_BASE": "1.10",
        "AGENTFUL_RETRIES": "",
        "AGENTFUL_SOMETHING_ELSE": "of a run's own",
    }
    settings = load(root, env=env)
    assert (settings.land, settings.fail_fast, settings.max_concurrency) == (True, False, 4)
    assert (settings.checks, settings.base, settings.retries) == (("pytest -q",), "1.10", None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "AGENTFUL_MAX_CONCURRENCY",
            "many",
            "AGENTFUL_MAX_CONCURRENCY: 'many' is neither a whole number nor",
        ),
        ("AGENTFUL_LAND", "maybe", "AGENTFUL_LAND: 'maybe' is neither true nor false"),
        ("AGENTFUL_TIMEOUT", "600000", "AGENTFUL_TIMEOUT: a bare number is seconds"),
        ("AGENTFUL_CHECKS", "[a", "AGENTFUL_CHECKS: not valid YAML"),
        ("AGENTFUL_CHECKS", "{a: b}", "AGENTFUL_CHECKS: a text is wanted here, not a mapping"),
    ],
)
def test_a_bad_variable_is_named(root: Path, name: str, text: str, message: str) -> None:
    assert message in refused(root, env={name: text})


# --- options from Python -------------------------------------------------------------------------


def test_options_in_the_seeds_spelling() -> None:
    def on_progress(agent: str, progress: object) -> None: ...

    assert options_from_dict(
        {
            "mode": "parallel",
            "failFast": False,
            "maxConcurrency": 4,
            "timeout": 600_000,
            "onProgress": on_progress,
            "dependencyCheck": True,
        }
    ) == {
        "mode": "parallel",
        "fail_fast": False,
        "max_concurrency": 4,
        "timeout": 600.0,
        "on_progress": on_progress,
    }
    assert options_from_dict({"conflictDetection": True}) == {"conflicts": "avoid"}
    assert options_from_dict({"conflictDetection": False}) == {"conflicts": "optimistic"}
    assert options_from_dict({"maxConcurrent": "auto", "taskTimeout": 1500}) == {
        "max_concurrency": "auto",
        "task_timeout": 1.5,
    }
    assert options_from_dict({}) == {}


def test_the_mode_alone_does_not_make_seconds_milliseconds() -> None:
    assert options_from_dict({"mode": "parallel", "timeout": 600})["timeout"] == 600
    with pytest.raises(PlanError, match="600000 looks like milliseconds"):
        options_from_dict({"mode": "parallel", "timeout": 600_000})


def test_options_in_our_spelling() -> None:
    assert options_from_dict({"timeout": 600, "max_concurrency": 2}) == {
        "timeout": 600.0,
        "max_concurrency": 2,
    }
    assert check_options({"timeout": timedelta(minutes=2), "checks": ["x"], "retries": None}) == {
        "timeout": 120.0,
        "checks": ("x",),
    }


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"maxConcurency": 4}, "options: unknown key 'maxConcurency' in the options; did you mean 'max"),
        ({"timeout": 600_000}, "options: timeout: a bare number is seconds; write 600s or 10m"),
        ({"dependencyCheck": False}, "options: dependencyCheck: what a task needs is always waited for"),
        ({"failFast": "no"}, "options: failFast: 'no' is neither true nor false"),
        ({"failFast": True, "fail_fast": False}, "options: fail_fast: 'failFast' says the same already"),
        ({1: 2}, "options: the key 1 is a number; keys are texts"),
    ],
)
def test_bad_options_are_refused(mapping: dict[Any, Any], message: str) -> None:
    with pytest.raises(PlanError) as info:
        options_from_dict(mapping)
    assert message in str(info.value)


def test_durations_as_text() -> None:
    assert parse_duration(" 1h30m ") == 5400
    assert parse_duration("1.5s") == 1.5
    with pytest.raises(ValueError, match="not a length of time"):
        parse_duration("soon")
