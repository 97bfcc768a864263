"""Plans: a file, or plain mappings from Python, as checked tasks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from ..core import graph
from ..errors import PlanError
from ..model import Agent, Task
from .agents import (
    Definition,
    extend_agent,
    make_agent,
    read_definition,
    read_definitions,
    unknown_agent,
    why_unusable,
)
from .fields import (
    LONGEST_DURATION,
    MOST_BARE_SECONDS,
    Anything,
    Duration,
    Field,
    Flag,
    Globs,
    Name,
    Needs,
    Text,
    Texts,
    Whole,
    check,
    check_name,
    items_of,
    pick,
    read,
    refuse_unknown,
)
from .settings import OPTION_FIELDS, Layer, Settings
from .source import MAX_PLAN, Source, Value, kind_of, nearest, parse, read_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PLAN_NAMES = ("plan.yaml", "plan.yml", "agentful.plan.yaml", "agentful.yaml", "plan.toml", "plan.json")
"""What a plan is called that is not named, at the top of the repository."""

TASK_FIELDS = (
    Field("id", Name(), "What the task is called; in a mapping of tasks, its key."),
    Field("agent", Name(), "The agent that does it."),
    Field("prompt", Text(), "What the agent is asked to do.", ("task", "description")),
    Field("run", Text(), "A shell command, in place of an agent and a prompt."),
    Field(
        "needs",
        Needs(),
        "Ids of the tasks whose work has to have landed before it starts.",
        ("dependencies", "depends_on", "dependsOn"),
    ),
    Field("writes", Globs(), "The paths that it writes: globs as in .gitignore, from the repository's root."),
    Field("resources", Texts(Name()), "Things that it needs to itself and git cannot see: db, port:3000."),
    Field("timeout", Duration(), "The longest that one attempt may take."),
    Field("retries", Whole(0, 100), "How many more attempts after a failed one."),
    Field("priority", Whole(-1_000_000, 1_000_000), "Higher goes first."),
    Field("estimate", Duration(zero=True), "How long it is expected to take."),
    Field("checks", Texts(), "Commands that must pass on the merged tree, in place of the plan's."),
    Field("reads_only", Flag(), "It writes nothing that is to be kept, as a review.", ("readsOnly",)),
    Field("affinity", Text(), "Tasks with the same key would like the same agent session."),
    Field("speculative", Flag(), "It may start before what it needs has landed."),
)

_TASKS = Field("tasks", Anything(), "The tasks: a mapping by id, or a list.")
_AGENTS = Field("agents", Anything(), "Agents that this plan defines, or changes, by name.")


class _Version(Struct, frozen=True):
    """The one version of the form of a plan that there is."""

    def read(self, value: Value) -> int:
        if value.text not in {"1", "1.0"}:
            value.fail(f"{value.shown} is not a version that this agentful reads; it reads 1")
        return 1

    def schema(self) -> dict[str, Any]:
        return {"enum": [1, "1", "1.0"]}


_HEAD = (
    Field("version", _Version(), "The version of this form: 1."),
    Field("title", Text(), "What it is about, in a line.", ("name",)),
)

_BLANK = Task()
_SEED_KEYS = frozenset({"task", "dependencies"})

PLAN_FIELDS = (*_HEAD, *OPTION_FIELDS, _AGENTS, _TASKS)


class Plan(Struct, frozen=True, kw_only=True):
    """A plan as it was read: checked in itself, its agents not yet looked for."""

    source: str
    """The file's name."""
    text: str = ""
    title: str = ""
    tasks: tuple[Task, ...] = ()
    agents: dict[str, Definition] = {}
    options: Layer = Layer({}, {})
    """The settings that it makes."""
    lines: dict[str, int] = {}
    """The line of each task."""

    def where(self, task_id: str) -> str:
        """The place of a task, as ``plan.yaml:12``."""
        line = self.lines.get(task_id)
        return self.source if line is None else f"{self.source}:{line}"


def find_plan(root: Path) -> Path:
    """The plan at the top of a repository that has one. Raises :class:`PlanError` where there is none."""
    for name in PLAN_NAMES:
        if (root / name).is_file():
            return root / name
    raise PlanError(
        f"there is no plan here: none of {', '.join(PLAN_NAMES)}. Name one (agentful run PLAN), or have "
        "an example written: agentful init"
    )


def load_plan(path: Path, *, name: str | None = None) -> Plan:
    """Read a plan from a file. Raises :class:`PlanError` with the line of whatever is wrong."""
    name = name or str(path)
    return parse_plan(read_text(path, name=name, limit=MAX_PLAN, what="a plan", error=PlanError), name)


def parse_plan(text: str, name: str) -> Plan:
    """A plan from its text, in the form that the end of its name says (YAML, TOML, JSON)."""
    source = parse(text, name, error=PlanError)
    if source.data is None or source.data == {}:
        raise PlanError(
            "it is empty; a plan has tasks: tasks: {hello: {run: echo hello > hello.txt}}", where=name
        )
    found, unknown = pick(source.root, PLAN_FIELDS, "a mapping with 'tasks'")
    refuse_unknown(unknown, PLAN_FIELDS, "the plan")
    if "tasks" not in found:
        raise PlanError("it has no tasks; they stand under the key 'tasks'", where=name)
    simple = {key: item for key, item in found.items() if key not in ("agents", "tasks")}
    values = check(simple, PLAN_FIELDS)
    agents = read_definitions(found["agents"]) if "agents" in found else {}
    tasks, places = _tasks(found["tasks"])
    _check_graph(tasks, places)
    names = [field.name for field in OPTION_FIELDS]
    return Plan(
        source=name,
        text=text,
        title=values.get("title", ""),
        tasks=tuple(tasks),
        agents=agents,
        options=Layer(
            {key: value for key, value in values.items() if key in names},
            {key: item.where for key, item in simple.items()},
        ),
        lines={name: place.line for name, place in places.items() if place.line is not None},
    )


def _tasks(value: Value) -> tuple[list[Task], dict[str, Value]]:
    """The tasks, and where each stands by its id."""
    if isinstance(value.data, (list, tuple)):
        items = value.items()
        tasks = _with_ids([_task(item, None) for item in items])
    else:
        entries = value.entries("a mapping of tasks, or a list,")
        items = [item for _, item in entries]
        tasks = [_task(item, key) for key, item in entries]
    if not tasks:
        value.fail("there is no task in it")
    places: dict[str, Value] = {}
    for task, item in zip(tasks, items, strict=True):
        if task.id in places:
            raise PlanError(
                f"two tasks have the id {task.id!r}, the first at {places[task.id].where}", where=item.where
            )
        places[task.id] = item
    return tasks, places


def _with_ids(tasks: list[Task]) -> list[Task]:
    """The tasks with ids for those that have none: the agent's name and a number."""
    taken = {task.id for task in tasks}
    numbers: dict[str, int] = {}
    named: list[Task] = []
    for task in tasks:
        name, stem = task.id, task.agent or "run"
        while not name:
            numbers[stem] = numbers.get(stem, 0) + 1
            name = f"{stem}-{numbers[stem]}"
            if name in taken:
                name = ""
        named.append(task if task.id else replace(task, id=name))
    return named


def _task(value: Value, key: str | None) -> Task:
    said = read(value, TASK_FIELDS, "a task")
    if key is not None:
        key = check_name(value, key)
        if said.setdefault("id", key) != key:
            value.fail(f"it is called {key!r} and has the id {said['id']!r}; take the id away")
    _check_kind(said, value)
    return Task(**said)


def _check_kind(said: Mapping[str, Any], value: Value) -> None:
    """Either an agent and a prompt, or a command."""
    if "run" in said:
        for name in ("agent", "prompt"):
            if name in said:
                value.fail(f"it has both 'run' and {name!r}; a task is a command, or an agent with a prompt")
    elif "agent" not in said and "prompt" not in said:
        value.fail("it says neither 'run' nor 'agent' and 'prompt'; a task is one or the other")
    elif "agent" not in said:
        value.fail("it has a prompt and no agent; say who is to do it")
    elif "prompt" not in said:
        value.fail("it has an agent and no prompt; say what is to be done")


def _check_graph(tasks: Sequence[Task], places: Mapping[str, Value]) -> None:
    for task in tasks:
        for need in task.needs:
            if need not in places:
                hint = nearest(need, [name for name in places if name != task.id], what="task")
                raise PlanError(
                    f"the task {task.id!r} needs {need!r}, which does not exist; {hint}",
                    where=_where_needed(need, places[task.id]),
                )
    try:
        graph.check(tasks)
    except PlanError as error:
        for task in tasks:
            # A cycle is told from its first task; what is wrong with one task is told of that.
            cycle = error.message.startswith((f"a cycle: {task.id} ", f"a cycle: {task.id!r} "))
            if cycle or error.where == f"task {task.id!r}":
                message = error.message if cycle else f"{error.where}: {error.message}"
                raise PlanError(message, where=places[task.id].where) from None
        raise


def _where_needed(need: str, task: Value) -> str:
    """The place at which a task says that it needs this."""
    found, _ = pick(task, TASK_FIELDS, "a task")
    for item in items_of(found["needs"]):
        if check_name(item) == need:
            return item.where
    return task.where


# --- agents ---------------------------------------------------------------------------------------


def resolve(
    plan: Plan, settings: Settings, known: Mapping[str, Agent]
) -> tuple[tuple[Task, ...], dict[str, Agent]]:
    """The plan's tasks with what their agents say for them, and the agents that they need.

    Raises :class:`PlanError` for an agent that there is not, or that cannot be started.
    """
    agents = dict(known)
    for name, definition in plan.agents.items():
        if name in agents:
            agents[name] = extend_agent(agents[name], definition)
        else:
            agents[name] = make_agent(name, definition, settings.agent_defaults)
    used: dict[str, Agent] = {}
    tasks: list[Task] = []
    for task in plan.tasks:
        if task.run is None:
            if task.agent not in used:
                check_agent(task.agent, agents, where=plan.where(task.id))
                used[task.agent] = agents[task.agent]
        elif task.retries is None and settings.retries is None:
            # A command that failed fails again, as a rule; an agent learns from what went wrong.
            task = replace(task, retries=0)  # noqa: PLW2901
        tasks.append(with_agent_defaults(task, agents))
    return tuple(tasks), used


def check_agent(name: str, agents: Mapping[str, Agent], *, where: str) -> None:
    """Raise :class:`PlanError` where there is no such agent, or it cannot be started."""
    agent = agents.get(name)
    if agent is None:
        raise PlanError(unknown_agent(name, agents.keys()), where=where)
    why = why_unusable(agent)
    if why is not None:
        raise PlanError(why, where=where)


def with_agent_defaults(task: Task, agents: Mapping[str, Agent]) -> Task:
    """The task with its agent's timeout, scope and ``reads_only`` where it has none of its own."""
    agent = agents.get(task.agent) if task.run is None else None
    if agent is None:
        return task
    changes: dict[str, Any] = {}
    if task.timeout is None and agent.timeout is not None:
        changes["timeout"] = agent.timeout
    if task.writes is None and agent.writes is not None:
        changes["writes"] = agent.writes
    if agent.reads_only and not task.reads_only:
        changes["reads_only"] = True
    return replace(task, **changes) if changes else task


# --- mappings from Python -------------------------------------------------------------------------


def task_from_dict(mapping: Mapping[str, Any], index: int = 0) -> Task:
    """A task from a plain mapping, in our spelling or the seed's.

    In the seed's (with ``task``, ``dependencies`` or a camel-case key) a bare number is milliseconds for
    a duration; in ours, seconds. ``index`` is its position, to tell of one that has no id. Raises
    PlanError, naming the nearest key for one that is unknown.
    """
    given: Any = mapping
    if not isinstance(given, Mapping):
        raise PlanError(f"a task is a Task or a mapping, not {kind_of(given)}", where=f"task {index + 1}")
    seed = any(key in _SEED_KEYS or key != key.lower() for key in map(str, mapping))
    return _from_mapping(mapping, index, milliseconds=seed)


def task_from_fields(fields: Mapping[str, Any], index: int = 0) -> Task:
    """A task from keyword arguments: as :func:`task_from_dict`, but a bare number is always seconds."""
    return _from_mapping(fields, index, milliseconds=False)


def check_task(task: Task, index: int = 0) -> Task:
    """The task with its fields checked, as those of a mapping are. Raises PlanError."""
    said: dict[str, Any] = {}
    for name in Task.__struct_fields__:
        value = getattr(task, name)
        if value != getattr(_BLANK, name):
            said[name] = value
    for name in ("timeout", "estimate"):
        # It is in seconds by now, also where it was given as a timedelta of many days.
        seconds = said.get(name)
        if isinstance(seconds, float) and MOST_BARE_SECONDS < seconds < LONGEST_DURATION:
            said[name] = timedelta(seconds=seconds)
    return _from_mapping(said, index, milliseconds=False)


def _from_mapping(mapping: Mapping[str, Any], index: int, *, milliseconds: bool) -> Task:
    name = mapping.get("id")
    label = f"task {name!r}" if isinstance(name, str) and name else f"task {index + 1}"
    source = Source(name=label, data=mapping, error=PlanError, milliseconds=milliseconds)
    return _task(source.root, None)


def agent_from_dict(name: str, mapping: Mapping[str, Any]) -> Agent:
    """An agent from a plain mapping of its fields. Raises PlanError."""
    source = Source(name=f"agent {name!r}", data=mapping, error=PlanError)
    check_name(source.root, name)
    return make_agent(name, {**read_definition(source.root, "an agent"), "source": ""})
