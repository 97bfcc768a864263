"""Settings: how runs are carried out, from flags, the environment, files and defaults, with their origins.

From the highest: flags, ``AGENTFUL_*`` variables, the plan, ``.agentful/config.toml``, ``[tool.agentful]``
in ``pyproject.toml``, the user's own ``config.toml``. Each value remembers where it came from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import platformdirs
from msgspec import Struct
from msgspec.structs import replace

from ..errors import ConfigError, PlanError
from ..model import Options, format_duration
from ..runtime import capacity
from .agents import AGENT_FIELDS, Definition, lay_over, read_definition, read_definitions
from .fields import (
    Anything,
    Choice,
    Duration,
    Field,
    Flag,
    Folder,
    Slots,
    Text,
    Texts,
    Whole,
    check,
    parse_duration,
    pick,
    read,
    refuse_unknown,
)
from .source import MAX_CONFIG, Source, Value, from_text, is_plain_file, parse_toml, read_text
from .tomltext import toml_key, toml_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIG_FILE = ".agentful/config.toml"
VARIABLE = "AGENTFUL_"

_ON_END = Choice(("fail", "decide"))

OPTION_FIELDS = (
    Field(
        "mode",
        Choice(("auto", "sequential", "parallel")),
        "`sequential` is one slot. `parallel` and `auto` start whatever may start.",
    ),
    Field(
        "max_concurrency",
        Slots(),
        "How many attempts at once; `auto` is what this machine carries.",
        ("maxConcurrency", "max_concurrent", "maxConcurrent"),
    ),
    Field("fail_fast", Flag(), "Cancel the rest at the first task that fails for good.", ("failFast",)),
    Field(
        "conflicts",
        Choice(("auto", "avoid", "optimistic")),
        "`avoid` never runs tasks with overlapping `writes` at once; `optimistic` may; `auto` is `avoid`.",
    ),
    Field("timeout", Duration(), "The longest that the whole run may take."),
    Field("task_timeout", Duration(), "The longest that one attempt may take.", ("taskTimeout",)),
    Field(
        "retries",
        Whole(0, 100),
        "How many more attempts after a failed one. Left out: 1 for agents, 0 for commands.",
    ),
    Field("retry_delay", Duration(zero=True), "The pause before a retry; it doubles with each."),
    Field(
        "conflict_retries",
        Whole(0, 10),
        "Attempts on the new tip after a conflict, the last of them with nothing else running.",
    ),
    Field("checks", Texts(), "Commands that must pass on the merged tree for a task to land."),
    Field("setup", Texts(), "Commands that are run in every fresh workspace, before anything else."),
    Field("check_timeout", Duration(), "The longest that one check may take.", ("checkTimeout",)),
    Field("scope", Choice(("warn", "fail")), "What writing outside the declared scope leads to."),
    Field("on_failure", _ON_END, "What happens to a task that has used up its attempts."),
    Field("on_conflict", _ON_END, "The same, for a conflict that the retries did not resolve."),
    Field("base", Text(), "The revision that a run begins at; what is checked out, if left out."),
)
"""What a plan may say, too."""

SETTING_FIELDS = (
    *OPTION_FIELDS,
    Field("land", Flag(), "Land on the checked-out branch when everything succeeded."),
    Field("workspaces", Folder(), "The folder that workspaces are kept in, outside of the repository."),
)

_TABLES = (
    Field("agents", Anything(), "Agents by name; each adds to what its Markdown file says."),
    Field("agent_defaults", Anything(), "What is taken for an agent that does not say."),
)

CONFIG_FIELDS = (*SETTING_FIELDS, *_TABLES)
"""What may stand in a configuration file."""


class Settings(Struct, frozen=True, kw_only=True):
    """All settings, merged; ``None`` is what nobody said. ``origins`` names the place of each that was."""

    mode: str = "auto"
    max_concurrency: int | str = "auto"
    fail_fast: bool = False
    conflicts: str = "auto"
    timeout: float | None = None
    task_timeout: float | None = None
    retries: int | None = None
    retry_delay: float = 1.0
    conflict_retries: int = 2
    checks: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    check_timeout: float = 1800.0
    scope: str = "warn"
    on_failure: str = "fail"
    on_conflict: str | None = None
    base: str | None = None
    land: bool = False
    workspaces: str | None = None
    agents: dict[str, Definition] = {}
    agent_defaults: Definition = {}
    origins: dict[str, str] = {}

    @property
    def slots(self) -> int:
        """How many attempts at once, as a number."""
        if self.mode == "sequential":
            return 1
        if not isinstance(self.max_concurrency, str):
            return self.max_concurrency
        return max(capacity.slots(), 2 if self.mode == "parallel" else 1)

    @property
    def workspace_folder(self) -> Path | None:
        """Where workspaces are kept; ``None`` for the usual place."""
        return None if self.workspaces is None else Path(self.workspaces)

    def options(self, *, retries: int, on_conflict: str) -> Options:
        """The options of a run; ``retries`` and ``on_conflict`` are for what nobody said."""
        return msgspec.convert(
            {
                "max_concurrency": self.slots,
                "sequential": self.mode == "sequential" and self.slots == 1,
                "fail_fast": self.fail_fast,
                "conflicts": "optimistic" if self.conflicts == "optimistic" else "avoid",
                "retries": retries if self.retries is None else self.retries,
                "retry_delay": self.retry_delay,
                "conflict_retries": self.conflict_retries,
                "timeout": self.timeout,
                "task_timeout": self.task_timeout,
                "checks": self.checks,
                "scope": self.scope,
                "on_failure": self.on_failure,
                "on_conflict": self.on_conflict or on_conflict,
            },
            Options,
        )


class Layer(Struct, frozen=True):
    """Settings from one place, each with where it stands."""

    values: dict[str, Any]
    origins: dict[str, str]


def merge(layers: Sequence[Layer]) -> Settings:
    """The settings of these layers, the lowest first. Agents' tables are joined, all else is replaced."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for above in layers:
        for name, value in above.values.items():
            if name == "agents":
                agents: dict[str, Definition] = dict(values.get(name, {}))
                for agent, definition in value.items():
                    agents[agent] = lay_over(agents.get(agent, {}), definition)
                values[name] = agents
            elif name == "agent_defaults":
                values[name] = lay_over(values.get(name, {}), value)
            else:
                values[name] = value
            origins[name] = above.origins[name]
    return Settings(**values, origins=origins)


def load_settings(
    root: Path | None,
    *,
    flags: Mapping[str, Any] | None = None,
    plan: Layer | None = None,
    env: Mapping[str, str] | None = None,
) -> Settings:
    """The settings that hold in a repository, or without one.

    ``flags`` are checked values by name; ``None`` is a flag that was not given. To say how many attempts
    at once is to ask for that many, also where a file says ``mode = "sequential"``. A relative
    ``workspaces`` folder of a file starts at the repository's root. Raises :class:`ConfigError` with the
    place of whatever cannot be used.
    """
    layers: list[Layer] = []
    user = user_config()
    if is_plain_file(user):
        layers.append(_file(user, str(user)))
    if root is not None:
        layers += [layer for layer in (_pyproject(root), _project(root)) if layer is not None]
    if plan is not None:
        layers.append(plan)
    layers.append(_environment(os.environ if env is None else env))
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    if "max_concurrency" in given:
        given.setdefault("mode", "auto")
    layers.append(Layer(given, dict.fromkeys(given, "flag")))
    settings = merge(layers)
    if root is None or settings.workspaces is None or "workspaces" in given:
        return settings
    return replace(settings, workspaces=str(root / settings.workspaces))


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """Each setting as its key, its value as TOML has it, and where that stands (``default`` for nowhere).

    The value is ``""`` for a setting that nobody made and that has no default.
    """
    rows: list[tuple[str, str, str]] = []
    for field in SETTING_FIELDS:
        value = getattr(settings, field.name)
        text = "" if value is None else _shown(field, value)
        rows.append((field.name, text, settings.origins.get(field.name, "default")))
    tables = {f"agents.{toml_key(name)}": definition for name, definition in settings.agents.items()}
    for table, definition in {**tables, "agent_defaults": settings.agent_defaults}.items():
        source = definition.get("source", "default")
        rows += [
            (f"{table}.{field.name}", _shown(field, definition[field.name]), source)
            for field in AGENT_FIELDS
            if field.name in definition
        ]
    return rows


def _shown(field: Field, value: Any) -> str:
    """A checked value as somebody would write it."""
    if not isinstance(field.kind, Duration):
        return toml_text(value)
    text = format_duration(value)
    # It is rounded for the eye; what is shown here may be copied.
    exact = f"{value:.9f}".rstrip("0").rstrip(".")
    return toml_text(text if parse_duration(text) == value else f"{exact}s")


def user_config() -> Path:
    """The user's own configuration file, whether it is there or not."""
    return platformdirs.user_config_path("agentful") / "config.toml"


def _project(root: Path) -> Layer | None:
    path = root / CONFIG_FILE
    return _file(path, CONFIG_FILE) if is_plain_file(path) else None


def _pyproject(root: Path) -> Layer | None:
    path = root / "pyproject.toml"
    if not is_plain_file(path):
        return None
    text = read_text(path, name="pyproject.toml", limit=MAX_CONFIG * 4, what="it", error=ConfigError)
    if "agentful" not in text:
        return None
    source = parse_toml(text, "pyproject.toml", error=ConfigError)
    tool = source.data.get("tool", {}).get("agentful") if isinstance(source.data.get("tool"), dict) else None
    return None if tool is None else layer(Value(source, ("tool", "agentful"), tool), CONFIG_FIELDS)


def _file(path: Path, name: str) -> Layer:
    text = read_text(path, name=name, limit=MAX_CONFIG, what="a configuration file", error=ConfigError)
    return layer(parse_toml(text, name, error=ConfigError).root, CONFIG_FIELDS)


def layer(value: Value, fields: tuple[Field, ...]) -> Layer:
    """The settings that a mapping says. Fails for an unknown one."""
    found, unknown = pick(value, fields, "a mapping of settings")
    refuse_unknown(unknown, fields, "the settings")
    values = check(found, fields)
    if "agents" in found:
        values["agents"] = read_definitions(found["agents"])
    if "agent_defaults" in found:
        values["agent_defaults"] = read_definition(found["agent_defaults"], "agent_defaults")
    return Layer(values, {name: item.where for name, item in found.items()})


def _environment(env: Mapping[str, str]) -> Layer:
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for field in SETTING_FIELDS:
        name = VARIABLE + field.name.upper()
        text = env.get(name, "").strip()
        if text:
            values[field.name] = field.kind.read(from_text(text, name).root)
            origins[field.name] = name
    return Layer(values, origins)


# --- options from Python --------------------------------------------------------------------------

_SEED_FIELDS = (
    Field("conflictDetection", Flag(), "`false` is `conflicts: optimistic`."),
    Field("dependencyCheck", Flag(), "Always on."),
)
_CALLBACKS = ("on_progress", "onProgress")


def options_from_dict(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Checked options from a plain mapping, in our spelling or the seed's.

    Where a camel-case name is used, a bare number is milliseconds for a duration, as it is in the seed.
    ``conflictDetection`` is ``conflicts``; ``dependencyCheck`` is always on; ``onProgress`` is handed
    through as ``on_progress``. Raises PlanError, naming the nearest known option.
    """
    source = Source(
        name="options",
        data={name: value for name, value in mapping.items() if name not in _CALLBACKS},
        error=PlanError,
        milliseconds=any(name != name.lower() for name in map(str, mapping)),
    )
    found, unknown = pick(source.root, (*SETTING_FIELDS, *_SEED_FIELDS), "a mapping of options")
    refuse_unknown(unknown, (*SETTING_FIELDS, *_SEED_FIELDS), "the options")
    values = check(found, (*SETTING_FIELDS, *_SEED_FIELDS))
    if not values.pop("dependencyCheck", True):
        found["dependencyCheck"].fail("what a task needs is always waited for; take this away")
    if "conflictDetection" in values:
        values.setdefault("conflicts", "avoid" if values.pop("conflictDetection") else "optimistic")
    callbacks = [mapping[name] for name in _CALLBACKS if mapping.get(name) is not None]
    return {**values, "on_progress": callbacks[0]} if callbacks else values


def check_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Checked options from keyword arguments: a bare number is seconds. Raises PlanError."""
    source = Source(name="options", data=dict(given), error=PlanError)
    return read(source.root, SETTING_FIELDS, "a mapping of options")
