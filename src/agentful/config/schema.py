"""The JSON Schemas (draft-07) of plans and configuration files, made from the tables that read them.

``python -m agentful.config.schema`` writes them anew into the package; a test fails where they are stale.
A schema is a little narrower than the reader: an editor is told to leave a key out rather than to write
it with nothing after it, which the reader takes for the same.
"""

from __future__ import annotations

import itertools
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from .agents import AGENT_FIELDS
from .fields import Name
from .plan import PLAN_FIELDS, TASK_FIELDS
from .settings import CONFIG_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.resources.abc import Traversable

    from .fields import Field, Schema

_DRAFT = "http://json-schema.org/draft-07/schema#"


def plan_schema() -> Schema:
    """The schema of a plan."""
    task = {"$ref": "#/definitions/task"}
    return {
        "$schema": _DRAFT,
        "title": "A plan of agentful",
        **_mapping(
            PLAN_FIELDS,
            tasks={
                "anyOf": [
                    {
                        "type": "object",
                        "minProperties": 1,
                        "propertyNames": Name().schema() | {"type": "string"},
                        "additionalProperties": task,
                    },
                    {"type": "array", "minItems": 1, "items": task},
                ]
            },
            agents=_agents(),
        ),
        "required": ["tasks"],
        "definitions": {"task": _task(), "agent": _mapping(AGENT_FIELDS)},
    }


def config_schema() -> Schema:
    """The schema of ``.agentful/config.toml``, and of ``[tool.agentful]`` in ``pyproject.toml``."""
    return {
        "$schema": _DRAFT,
        "title": "Settings of agentful",
        **_mapping(CONFIG_FIELDS, agents=_agents(), agent_defaults={"$ref": "#/definitions/agent"}),
        "definitions": {"agent": _mapping(AGENT_FIELDS)},
    }


SCHEMAS: dict[str, Callable[[], Schema]] = {"plan": plan_schema, "config": config_schema}
"""What there are schemas of."""


def schema_text(name: str) -> str:
    """The schema of ``plan`` or ``config`` as the package ships it."""
    return _packaged(name).read_text(encoding="utf-8")


def write_schemas() -> None:
    """Make the shipped files anew, in a source tree."""
    for name, schema in SCHEMAS.items():
        path = Path(str(_packaged(name)))
        path.write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _packaged(name: str) -> Traversable:
    return resources.files("agentful") / "schemas" / f"{name}.schema.json"


def _mapping(fields: Sequence[Field], **instead: Schema) -> Schema:
    """A mapping of these fields and no others; ``instead`` are schemas for some of them."""
    properties: dict[str, Schema] = {}
    for field in fields:
        schema = instead.get(field.name) or field.kind.schema()
        if "$ref" in schema:
            # Draft-07 ignores all that stands beside a reference.
            schema = {"allOf": [schema]}
        properties[field.name] = {"description": field.doc, **schema}
        for alias in field.aliases:
            properties[alias] = {"description": f"The same as `{field.name}`.", **schema}
    pairs = [
        {"not": {"required": list(pair)}}
        for field in fields
        for pair in itertools.combinations((field.name, *field.aliases), 2)
    ]
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"allOf": pairs} if pairs else {}),
    }


def _agents() -> Schema:
    return {
        "type": "object",
        "propertyNames": Name().schema() | {"type": "string"},
        "additionalProperties": {"$ref": "#/definitions/agent"},
    }


def _task() -> Schema:
    """A task: a command, or an agent with a prompt."""
    prompt = next(field for field in TASK_FIELDS if field.name == "prompt")
    prompts: list[Schema] = [{"required": [name]} for name in (prompt.name, *prompt.aliases)]
    command: Schema = {
        "required": ["run"],
        "not": {"anyOf": [{"required": ["agent"]}, *prompts]},
    }
    wish: Schema = {"required": ["agent"], "anyOf": prompts, "not": {"required": ["run"]}}
    return {**_mapping(TASK_FIELDS), "oneOf": [command, wish]}


if __name__ == "__main__":
    write_schemas()
