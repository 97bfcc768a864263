"""Plans from files and from plain mappings: what is taken, and what is said of the rest."""

from __future__ import annotations

import json
import unicodedata
from datetime import timedelta
from textwrap import dedent
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentful import config
from agentful.config import Plan, Settings, parse_plan, task_from_dict
from agentful.config.agents import AGENT_FIELDS
from agentful.config.plan import PLAN_FIELDS, TASK_FIELDS
from agentful.errors import PlanError
from agentful.model import Agent, Task

if TYPE_CHECKING:
    from pathlib import Path

DESIGN = """\
# plan.yaml
checks: [pytest -q]
agents:                      # or .claude/agents/*.md, or the config
  backend: {driver: command, command: [python, tools/backend.py]}
tasks:
  api:     {agent: backend,  prompt: Implement the auth API, writes: ["src/api/**"]}
  ui:      {agent: frontend, prompt: Create the login page,  writes: ["src/pages/**"]}
  tests:   {agent: tester,   prompt: Write tests for auth,   needs: [api, ui]}
  review:  {agent: reviewer, prompt: Review the auth work,   needs: [tests]}
"""


def plan_of(text: str, name: str = "plan.yaml") -> Plan:
    return parse_plan(dedent(text), name)


def refused(text: str, name: str = "plan.yaml") -> str:
    with pytest.raises(PlanError) as info:
        plan_of(text, name)
    return str(info.value)


def task_of(text: str) -> Task:
    """The one task of a plan whose task has these lines."""
    return plan_of(f"tasks:\n  it: {{{text}}}\n").tasks[0]


# --- whole plans ---------------------------------------------------------------------------------


def test_the_plan_of_the_design() -> None:
    plan = plan_of(DESIGN)
    assert [task.id for task in plan.tasks] == ["api", "ui", "tests", "review"]
    assert plan.tasks[0] == Task("backend", "Implement the auth API", id="api", writes=("src/api/**",))
    assert plan.tasks[2].needs == ("api", "ui")
    assert plan.agents["backend"]["command"] == ("python", "tools/backend.py")
    assert plan.options.values == {"checks": ("pytest -q",)}
    assert plan.options.origins == {"checks": "plan.yaml:2"}
    assert plan.lines == {"api": 6, "ui": 7, "tests": 8, "review": 9}
    assert (plan.where("ui"), plan.where("nothing")) == ("plan.yaml:7", "plan.yaml")
    assert (plan.source, plan.text) == ("plan.yaml", DESIGN)


def test_the_same_plan_in_toml_and_json() -> None:
    toml = plan_of(
        """\
        title = "Auth"
        checks = "pytest -q"
        [agents.backend]
        command = ["python", "tools/backend.py"]
        [tasks.api]
        agent = "backend"
        prompt = "Implement it"
        timeout = "10m"
        [tasks.tests]
        run = "true"
        needs = ["api"]
        """,
        "plan.toml",
    )
    json = plan_of(
        """\
        {"title": "Auth", "checks": "pytest -q",
         "agents": {"backend": {"command": ["python", "tools/backend.py"]}},
         "tasks": {
           "api": {"agent": "backend", "prompt": "Implement it", "timeout": 600},
           "tests": {"run": "true", "needs": ["api"]}}}
        """,
        "plan.json",
    )
    assert toml.tasks == json.tasks
    assert (toml.lines, json.lines) == ({"api": 5, "tests": 9}, {"api": 4, "tests": 5})
    assert toml.title == json.title == "Auth"


def test_all_keys_of_a_task() -> None:
    plan = plan_of(
        """\
        tasks:
          other: {run: "true"}
          it:
            agent: backend
            prompt: |
              Do it.
              Well.
            needs: other
            writes: [./src//a/**, "*.md", src/a/**]
            resources: [db, "port:3000"]
            timeout: 1h30m
            retries: 2
            priority: -5
            estimate: 90
            checks: []
            reads_only: false
            affinity: node-1
            speculative: true
        """
    )
    assert plan.tasks[1] == Task(
        "backend",
        "Do it.\nWell.\n",
        id="it",
        needs=("other",),
        writes=("src/a/**", "*.md"),
        resources=("db", "port:3000"),
        timeout=5400,
        retries=2,
        priority=-5,
        estimate=90,
        checks=(),
        affinity="node-1",
        speculative=True,
    )


@pytest.mark.parametrize("key", ["needs", "dependencies", "depends_on", "dependsOn"])
def test_the_spellings_of_needs(key: str) -> None:
    plan = plan_of(f"tasks: {{a: {{run: x}}, b: {{run: y, {key}: [a, a]}}}}")
    assert plan.tasks[1].needs == ("a",)


@pytest.mark.parametrize("key", ["prompt", "task", "description"])
def test_the_spellings_of_a_prompt(key: str) -> None:
    assert task_of(f"agent: a, {key}: do it").prompt == "do it"


def test_two_spellings_of_one_key_are_refused() -> None:
    assert refused("tasks: {a: {agent: a, prompt: x, task: y}}") == (
        "plan.yaml:1: task: 'prompt' says the same already; take one of them away"
    )


def test_options_in_the_seeds_spelling() -> None:
    values = plan_of("maxConcurrency: 4\nfailFast: true\ntasks: {a: {run: x}}").options.values
    assert values == {"max_concurrency": 4, "fail_fast": True}


def test_all_options_that_a_plan_may_make() -> None:
    plan = plan_of(
        """\
        version: 1
        name: Auth
        checks: [pytest -q, pytest -q]
        setup: npm ci
        max_concurrency: auto
        fail_fast: false
        conflicts: auto
        mode: sequential
        timeout: 2h
        task_timeout: 30m
        retries: 0
        retry_delay: 0
        conflict_retries: 1
        scope: fail
        on_failure: decide
        on_conflict: fail
        check_timeout: 5m
        base: 1234567
        tasks: {a: {run: x}}
        """
    )
    assert plan.title == "Auth"
    assert plan.options.values == {
        "checks": ("pytest -q", "pytest -q"),
        "setup": ("npm ci",),
        "max_concurrency": "auto",
        "fail_fast": False,
        "conflicts": "auto",
        "mode": "sequential",
        "timeout": 7200.0,
        "task_timeout": 1800.0,
        "retries": 0,
        "retry_delay": 0.0,
        "conflict_retries": 1,
        "scope": "fail",
        "on_failure": "decide",
        "on_conflict": "fail",
        "check_timeout": 300.0,
        "base": "1234567",
    }
    assert config.load_settings(None, plan=plan.options, env={}).slots == 1


def test_what_is_meant_as_text_stays_as_it_was_written() -> None:
    plan = plan_of(
        """\
        checks: [true]
        tasks:
          1.10: {run: true}
          007: {run: false, needs: [1.10], resources: [3000]}
          null: {run: no, needs: 007}
        """
    )
    assert [(task.id, task.run, task.needs) for task in plan.tasks] == [
        ("1.10", "true", ()),
        ("007", "false", ("1.10",)),
        ("null", "no", ("007",)),
    ]
    assert plan.tasks[1].resources == ("3000",)
    assert plan.options.values["checks"] == ("true",)


def test_a_key_with_nothing_after_it_is_left_out() -> None:
    task = plan_of("checks:\ntasks:\n  a:\n    run: x\n    writes:\n    needs:\n").tasks[0]
    assert (task.writes, task.needs) == (None, ())


# --- ids -----------------------------------------------------------------------------------------


def test_a_list_of_tasks_gives_the_ids_that_are_left_out() -> None:
    plan = plan_of(
        """\
        tasks:
          - {agent: backend, prompt: a}
          - {agent: backend, prompt: b, id: backend-1}
          - {agent: backend, prompt: c}
          - run: ls
          - {agent: tester, prompt: d, needs: [backend-1, backend-3, run-1]}
        """
    )
    assert [task.id for task in plan.tasks] == ["backend-2", "backend-1", "backend-3", "run-1", "tester-1"]
    assert plan.lines["backend-3"] == 4


def test_ten_thousand_tasks_without_ids() -> None:
    plan = plan_of("tasks:\n" + "- {agent: a, prompt: x}\n" * 10_000)
    assert plan.tasks[-1].id == "a-10000"


def test_ids_may_be_anything_that_people_write() -> None:
    names = ["a/b", "a b", "v1.2", "überprüfen", "名前", "👩‍💻", "x" * 200, "-", "a:b"]
    plan = parse_plan("tasks:\n" + "".join(f'  "{name}": {{run: x}}\n' for name in names), "plan.yaml")
    assert [task.id for task in plan.tasks] == names


def test_ids_are_composed_so_that_they_meet_their_needs() -> None:
    apart, one = unicodedata.normalize("NFD", "über"), unicodedata.normalize("NFC", "über")
    plan = parse_plan(f"tasks:\n  {apart}: {{run: x}}\n  b: {{run: x, needs: {one}}}\n", "plan.yaml")
    assert plan.tasks[1].needs == (plan.tasks[0].id,) == (one,)
    assert refused(f"tasks:\n  {apart}: {{run: x}}\n  {one}: {{run: y}}\n") == (
        "plan.yaml:3: two tasks have the id 'über', the first at plan.yaml:2"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the name is empty"),
        ("  ", "the name is empty"),
        (" a", "has white space around it"),
        ("a\\nb", "has the control character '\\n' in it"),
        ("\\e[31m", "has the control character '\\x1b' in it"),
        ("x" * 201, "the name has 201 characters; the most is 200"),
    ],
)
def test_ids_that_nothing_could_show_are_refused(name: str, message: str) -> None:
    assert message in refused(f'tasks:\n  "{name}": {{run: x}}\n')
    assert message in refused(f'tasks:\n  - {{id: "{name}", run: x}}\n')


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "plan.yaml: it is empty"),
        ("# nothing\n", "plan.yaml: it is empty"),
        ("{}", "plan.yaml: it is empty"),
        ("- run: x\n", "plan.yaml:1: a mapping with 'tasks' is wanted here, not a list"),
        ("hello", "plan.yaml:1: a mapping with 'tasks' is wanted here, not a text"),
        ("title: x\n", "plan.yaml: it has no tasks"),
        ("tasks:\n", "plan.yaml: it has no tasks"),
        ("tasks: {}\n", "plan.yaml:1: tasks: there is no task in it"),
        ("tasks: []\n", "plan.yaml:1: tasks: there is no task in it"),
        ("tasks: x\n", "plan.yaml:1: tasks: a mapping of tasks, or a list, is wanted here, not a text"),
        ("tasks:\n  a: ls\n", "plan.yaml:2: a: a mapping of keys to values is wanted here, not a text"),
        ("tasks:\n  a:\n", "plan.yaml:2: a: a mapping of keys to values is wanted here, not nothing"),
        ("tsaks: {a: {run: x}}", "plan.yaml:1: unknown key 'tsaks' in the plan; did you mean 'tasks'?"),
        (
            "tasks:\n  a:\n    run: x\n    need: b\n",
            "plan.yaml:4: unknown key 'need' in a task; did you mean 'needs'?",
        ),
        ("version: 2\ntasks: {a: {run: x}}", "plan.yaml:1: version: '2' is not a version"),
        ("mode: paralel\ntasks: {a: {run: x}}", "plan.yaml:1: mode: 'paralel' cannot be used here; did you"),
        ("mode: [auto]\ntasks: {a: {run: x}}", "plan.yaml:1: mode: a list cannot be used here; known values"),
        ("fail_fast: yes\ntasks: {a: {run: x}}", "plan.yaml:1: fail_fast: 'yes' is neither true nor false"),
        ("max_concurrency: 0\ntasks: {a: {run: x}}", "max_concurrency: 0 is not between 1 and 1024"),
        ("max_concurrency: many\ntasks: {a: {run: x}}", "'many' is neither a whole number nor 'auto'"),
        ("retries: 1.5\ntasks: {a: {run: x}}", "retries: '1.5' is not a whole number"),
        ("retries: true\ntasks: {a: {run: x}}", "retries: 'true' is not a whole number"),
        ("checks: [[x]]\ntasks: {a: {run: x}}", "checks: a text is wanted here, not a list"),
        ("checks: ['']\ntasks: {a: {run: x}}", "checks: it is blank"),
        ("land: true\ntasks: {a: {run: x}}", "unknown key 'land' in the plan"),
        ("zzz: 1\ntasks: {a: {run: x}}", "known keys: version, title, mode, max_concurrency, fail_fast"),
        ("tasks: {a: {}}", "plan.yaml:1: a: it says neither 'run' nor 'agent' and 'prompt'"),
        ("tasks: {a: {agent: b}}", "plan.yaml:1: a: it has an agent and no prompt"),
        ("tasks: {a: {prompt: b}}", "plan.yaml:1: a: it has a prompt and no agent"),
        ("tasks: {a: {run: x, agent: b}}", "plan.yaml:1: a: it has both 'run' and 'agent'"),
        ("tasks: {a: {run: x, task: b}}", "plan.yaml:1: a: it has both 'run' and 'prompt'"),
        ("tasks: {a: {run: '  '}}", "plan.yaml:1: run: it is blank"),
        ('tasks: {a: {run: "a\\0b"}}', "plan.yaml:1: run: it has a NUL character"),
        ("tasks: {a: {id: b, run: x}}", "plan.yaml:1: a: it is called 'a' and has the id 'b'"),
        (
            "tasks:\n  - {id: a, run: x}\n  - {id: a, run: y}\n",
            "plan.yaml:3: two tasks have the id 'a', the first at plan.yaml:2",
        ),
        ("tasks:\n  a: {run: x}\n  a: {run: y}\n", "plan.yaml:3: the key 'a' stands here twice"),
        (
            "tasks:\n  ab:\n    run: x\n    needs:\n    - ab2\n    - cd\n  ab2: {run: x}\n  cde: {run: x}\n",
            "plan.yaml:6: the task 'ab' needs 'cd', which does not exist; did you mean 'cde'?",
        ),
        ("tasks: {a: {run: x, needs: [a]}}", "plan.yaml:1: task 'a': it needs itself"),
        (
            "tasks:\n  a: {run: x}\n  b: {run: x, needs: c}\n  c: {run: x, needs: [a, b]}\n",
            "plan.yaml:3: a cycle: b needs c needs b",
        ),
        (
            "tasks:\n  'a b': {run: x, needs: c}\n  c: {run: x, needs: 'a b'}\n",
            "plan.yaml:2: a cycle: 'a b' needs c needs 'a b'",
        ),
        ("tasks: {a: {run: x, writes: [../b]}}", "plan.yaml:1: writes: the glob '../b' cannot be used"),
        ("tasks: {a: {run: x, writes: [[b]]}}", "plan.yaml:1: writes: a glob is wanted here, not a list"),
        ("tasks: {a: {run: x, writes: .git/hooks}}", "plan.yaml:1: writes: the glob '.git/hooks' cannot be"),
        ("agents: [a]\ntasks: {a: {run: x}}", "plan.yaml:1: agents: a mapping of agents is wanted here"),
        (
            "agents:\n  b:\n    comand: x\ntasks: {a: {run: x}}",
            "plan.yaml:3: unknown key 'comand' in the agent 'b'; did you mean 'command'?",
        ),
    ],
)
def test_a_bad_plan_is_refused_with_its_place(text: str, message: str) -> None:
    assert message in refused(text)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90), ("0.5", 0.5), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h 30m", 5400), ("500ms", 0.5)],
)
def test_durations(written: str, seconds: float) -> None:
    assert task_of(f"run: x, timeout: {written}").timeout == seconds
    assert task_of("run: x, timeout: 86400").timeout == 86_400
    assert task_of("run: x, timeout: 2d").timeout == 172_800


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "600000",
            "timeout: a bare number is seconds; write 600s or 10m (600000 looks like milliseconds)",
        ),
        ("0", "timeout: '0' is no time at all; write more than 0"),
        ("0s", "timeout: '0s' is no time at all"),
        ("-5", "timeout: '-5' is no time at all"),
        ("1:30", "timeout: '1:30' is not a length of time; write 90s, 10m, 1h30m or 500ms"),
        ("10 minutes", "timeout: '10 minutes' is not a length of time"),
        ("'600'", "timeout: '600' is not a length of time"),
        (".inf", "timeout: '.inf' is not a length of time"),
        ("true", "timeout: a length of time is wanted here, not true or false"),
        ("[1]", "timeout: a length of time is wanted here, not a list"),
        ("99999d", "timeout: '99999d' is not between nothing and a year"),
    ],
)
def test_what_is_no_duration(written: str, message: str) -> None:
    assert message in refused(f"tasks: {{a: {{run: x, timeout: {written}}}}}")


def test_messages_stay_short_and_printable() -> None:
    assert refused(f"{'k' * 900}: 1\ntasks: {{a: {{run: x}}}}").startswith(
        f"plan.yaml:1: unknown key '{'k' * 57}...' in the plan; "
    )
    assert refused('tasks: {"a\\e[2J": 3}') == (
        "plan.yaml:1: 'a\\x1b[2J': a mapping of keys to values is wanted here, not a number"
    )
    assert len(refused(f"tasks: {{{'k' * 900}: 3}}")) < 200


def test_one_agent_in_two_spellings_of_its_characters_is_refused() -> None:
    apart, one = unicodedata.normalize("NFD", "über"), unicodedata.normalize("NFC", "über")
    assert refused(f"agents:\n  {apart}: {{}}\n  {one}: {{}}\ntasks: {{a: {{run: x}}}}") == (
        "plan.yaml:3: über: the agent 'über' stands here twice, in two spellings of its characters"
    )


# --- anything at all -----------------------------------------------------------------------------

_TASK_KEYS = sorted({name for field in TASK_FIELDS for name in (field.name, *field.aliases)})
_KEYS = sorted(
    {name for field in (*PLAN_FIELDS, *AGENT_FIELDS) for name in (field.name, *field.aliases)}
    | set(_TASK_KEYS)
    | {"<<"}
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["10m", "auto", "a", "b", "../x", "!x", "**", "[", "~nobody", "sh 'x", "9" * 400 + "d"]),
)
_DATA = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=10,
)
_TASK = st.dictionaries(st.sampled_from(_TASK_KEYS), _DATA, max_size=5)
_PLANS = st.fixed_dictionaries(
    {
        "tasks": st.dictionaries(st.sampled_from("ab"), _TASK | _DATA, max_size=3)
        | st.lists(_TASK, max_size=3)
    },
    optional={key: _DATA for key in _KEYS if key != "tasks"},
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_PLANS | _DATA)
def test_any_data_is_a_plan_or_a_plan_error(data: Any) -> None:
    text = json.dumps(data)
    for name in ("plan.json", "plan.yaml"):
        try:
            plan = parse_plan(text, name)
        except PlanError as error:
            assert str(error).startswith(name)  # noqa: PT017
        else:
            # What was taken is data that the journal and the scheduler can be given.
            assert msgspec.json.decode(msgspec.json.encode(plan.tasks), type=tuple[Task, ...]) == plan.tasks


_PARTS = ["tasks:", "\n", "  ", "- ", "a: ", "run: x", "agent: b", "{", "}", "[", "]", "&a ", "*a", "<<: "]
_PARTS += ["# ", "'", '"', "\t", "needs: a", "|", ">", "%", "---", "? ", "!!int ", "é", "\x00", "\u2028"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(_PARTS), max_size=14).map("".join) | st.text(max_size=60))
def test_any_text_is_a_plan_or_a_plan_error(text: str) -> None:
    for name in ("plan.yaml", "plan.toml", "plan.json"):
        try:
            parse_plan(text, name)
        except PlanError as error:
            assert str(error).startswith(name)  # noqa: PT017


@settings(max_examples=200, deadline=None)
@given(_TASK | _DATA)
def test_any_mapping_is_a_task_or_a_plan_error(data: Any) -> None:
    try:
        task_from_dict(data)
    except PlanError as error:
        assert str(error).startswith("task ")  # noqa: PT017


# --- files ---------------------------------------------------------------------------------------


def test_a_plan_is_loaded_from_a_file_and_found_at_the_root(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"there is no plan here: none of plan\.yaml"):
        config.find_plan(tmp_path)
    path = tmp_path / "agentful.yaml"
    path.write_text(DESIGN)
    assert config.find_plan(tmp_path) == path
    assert config.load_plan(path, name="agentful.yaml").lines["ui"] == 7
    assert config.load_plan(path).source == str(path)


def test_files_that_are_no_plan(tmp_path: Path) -> None:
    def why(path: Path) -> str:
        with pytest.raises(PlanError) as info:
            config.load_plan(path, name=path.name)
        return str(info.value)

    assert why(tmp_path / "none.yaml") == "none.yaml: there is no such file; a plan was expected"
    assert "this is a folder" in why(tmp_path)
    (tmp_path / "large.yaml").write_bytes(b"#" * 1_000_001)
    assert "larger than 1,000,000 bytes" in why(tmp_path / "large.yaml")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    assert "it is binary" in why(tmp_path / "binary.yaml")


# --- agents of a plan ----------------------------------------------------------------------------


def test_agents_are_resolved_with_what_they_say_for_their_tasks() -> None:
    plan = plan_of(
        """\
        agents:
          backend: {timeout: 5m}
          new: {command: "sh -c {prompt}"}
        tasks:
          api: {agent: backend, prompt: x}
          ui: {agent: new, prompt: y, timeout: 1m, writes: [ui/**]}
          lint: {run: ruff check}
          docs: {run: make docs, retries: 3}
        """
    )
    known = {
        "backend": Agent(
            name="backend", command=("sh",), instructions="You.", writes=("src/**",), source="b.md"
        ),
        "unused": Agent(name="unused"),
    }
    tasks, agents = config.resolve(plan, Settings(), known)
    assert set(agents) == {"backend", "new"}
    assert agents["backend"].timeout == 300
    assert agents["backend"].instructions == "You."
    assert agents["backend"].source == "b.md, plan.yaml:2"
    assert agents["new"].command == ("sh", "-c", "{prompt}")
    assert (tasks[0].timeout, tasks[0].writes) == (300, ("src/**",))
    assert (tasks[1].timeout, tasks[1].writes) == (60, ("ui/**",))
    # A command is not tried again unless somebody said so.
    assert [task.retries for task in tasks] == [None, None, 0, 3]
    assert config.resolve(plan, Settings(retries=2), known)[0][2].retries is None


def test_new_agents_of_a_plan_take_the_defaults() -> None:
    plan = plan_of("agents: {a: {model: big}}\ntasks: {t: {agent: a, prompt: x}}")
    settings = Settings(agent_defaults={"driver": "command", "command": ("sh", "{model}")})
    assert config.resolve(plan, settings, {})[1]["a"].command == ("sh", "{model}")


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        ({}, "plan.yaml:2: there is no agent 'backend', nor any other; define it in the plan"),
        ({"backed": Agent(name="backed")}, "there is no agent 'backend'; did you mean 'backed'?"),
        ({"zzz": Agent(name="zzz")}, "there is no agent 'backend'; known agents: zzz"),
        (
            {"backend": Agent(name="backend", source=".claude/agents/backend.md")},
            "plan.yaml:2: the agent 'backend' (.claude/agents/backend.md) has no command; say which program",
        ),
        (
            {"backend": Agent(name="backend", driver="comand")},
            "unknown driver 'comand'; did you mean 'command'?",
        ),
        ({"backend": Agent(name="backend", driver="python")}, "can only be given in Python"),
        (
            {"backend": Agent(name="backend", command=("no-such-program-here",))},
            "runs 'no-such-program-here', which is not on this machine",
        ),
        ({"backend": Agent(name="backend", command=("/no/such/program",))}, "which is not on this machine"),
    ],
)
def test_agents_that_cannot_play(agents: dict[str, Agent], message: str) -> None:
    plan = plan_of("tasks:\n  api: {agent: backend, prompt: x}\n")
    with pytest.raises(PlanError) as info:
        config.resolve(plan, Settings(), agents)
    assert message in str(info.value)


def test_a_program_of_the_repository_is_not_looked_for_before_it_is_there() -> None:
    for command in (("tools/agent",), ("{workspace}/agent",)):
        assert config.why_unusable(Agent(name="a", command=command)) is None
    assert config.why_unusable(Agent(name="a", command=("mine",), env={"PATH": "/opt"})) is None


# --- mappings from Python ------------------------------------------------------------------------


def test_a_task_in_our_spelling() -> None:
    handle = SimpleNamespace(id="api")
    task = task_from_dict(
        {
            "agent": "tester",
            "prompt": "x",
            "needs": [handle, "ui"],
            "timeout": 600,
            "estimate": "5m",
            "id": None,
        }
    )
    assert task == Task("tester", "x", needs=("api", "ui"), timeout=600, estimate=300)
    assert task_from_dict({"run": "ls", "timeout": timedelta(minutes=1)}).timeout == 60


@pytest.mark.parametrize(
    "mapping",
    [
        {"agent": "backend", "task": "x", "timeout": 600_000},
        {"agent": "backend", "description": "x", "dependencies": [], "timeout": 600_000},
        {"agent": "backend", "description": "x", "dependsOn": [], "timeout": "10m"},
    ],
)
def test_a_task_in_the_seeds_spelling(mapping: dict[str, Any]) -> None:
    assert task_from_dict(mapping) == Task("backend", "x", timeout=600)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"agent": "a", "prompt": "x", "timeout": 600_000}, "task 3: timeout: a bare number is seconds"),
        (
            {"id": "api", "agent": "a", "promt": "x"},
            "task 'api': unknown key 'promt' in a task; did you mean",
        ),
        ({"agent": "a"}, "task 3: it has an agent and no prompt"),
        ({"agent": 3.5, "prompt": b"x"}, "task 3: prompt: a text is wanted here, not a bytes"),
        ({"agent": "a", "prompt": "x", 1: 2}, "task 3: the key 1 is a number; keys are texts"),
        (
            {"run": "x", "needs": [SimpleNamespace(id="")]},
            "task 3: needs: a task without an id cannot be needed",
        ),
        ({"run": "x", "needs": [None]}, "task 3: needs: a name is wanted here, not nothing"),
        ({"run": "x", "writes": ["/etc/../.."]}, "task 3: writes: the glob"),
        (["agent"], "task 3: a task is a Task or a mapping, not a list"),
        ("agent", "task 3: a task is a Task or a mapping, not a text"),
    ],
)
def test_a_bad_mapping_is_refused_with_its_place(mapping: Any, message: str) -> None:
    with pytest.raises(PlanError) as info:
        task_from_dict(mapping, 2)
    assert message in str(info.value)


@pytest.mark.parametrize("odd", [print, "\udcff", {"deeper": [object()]}])
def test_what_goes_into_the_journal_is_plain_data(odd: Any) -> None:
    with pytest.raises(PlanError, match="agent 'a': extra: it has something in it that is not plain data"):
        config.agent_from_dict("a", {"extra": {"x": odd}})
    with pytest.raises(PlanError, match="task 1: run: it has half a surrogate pair"):
        task_from_dict({"run": "\udcff"})
    with pytest.raises(PlanError, match="agent '': the name is empty"):
        config.agent_from_dict("", {"command": "sh"})


def test_an_agent_from_a_mapping() -> None:
    agent = config.agent_from_dict("a", {"command": "sh -c 'echo hi'", "env": {"X": 1}, "timeout": 60})
    assert agent == Agent(name="a", command=("sh", "-c", "echo hi"), env={"X": "1"}, timeout=60)
    with pytest.raises(PlanError, match=r"agent 'a': command: .* cannot be split into words: no closing"):
        config.agent_from_dict("a", {"command": "sh 'x"})
