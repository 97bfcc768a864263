"""Agents: ``.claude/agents/**/*.md``, the tables of the config, and those that a plan defines.

What a place says about an agent is kept as a *definition*: a mapping with only the fields that it says.
Definitions of one agent are laid over each other, those who say nothing take the defaults, and the whole
is an :class:`~agentful.model.Agent`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..drivers import DRIVERS
from ..errors import ConfigError
from ..model import Agent
from .fields import (
    Anything,
    Choice,
    Duration,
    Field,
    Flag,
    Globs,
    Name,
    Program,
    Text,
    Texts,
    Tools,
    Variables,
    Word,
    check,
    check_name,
    pick,
    read,
    refuse_unknown,
)
from .source import MAX_CONFIG, Source, Value, is_plain_file, nearest, parse_yaml, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from .settings import Settings

Definition = dict[str, Any]
"""What one or several places say about an agent, by the names of Agent's fields."""

AGENT_FOLDER = ".claude/agents"
README = "readme.md"

AGENT_FIELDS = (
    Field("description", Text(), "What the agent is for, in a line."),
    Field(
        "driver",
        Word(tuple(DRIVERS)),
        "The dialect of the client that plays it. Saying a command implies `command`.",
    ),
    Field(
        "command",
        Program(),
        "The program and its arguments. `{prompt}`, `{prompt_file}`, `{workspace}`, `{task}` and `{model}` "
        "in an argument are filled in.",
    ),
    Field(
        "prompt_by",
        Choice(("argv", "stdin", "file")),
        "How the prompt reaches a program whose arguments do not name it: as the last argument, on standard "
        "input, or only as the file that AGENTFUL_PROMPT_FILE names.",
    ),
    Field("instructions", Text(), "The role's own prompt, in front of every task's."),
    Field("model", Text(), "The model that the client is to use."),
    Field("tools", Tools(), "Tools that the client may use: a list, or a text with commas."),
    Field("env", Variables(), "Environment variables that are set for it."),
    Field("pass_env", Texts(), "Names or globs of our own environment variables that are let through to it."),
    Field("timeout", Duration(), "The longest that one attempt may take, for its tasks that do not say."),
    Field("writes", Globs(), "The scope of its tasks that declare none: globs as in .gitignore."),
    Field("reads_only", Flag(), "It writes nothing that is to be kept, as a reviewer."),
    Field("extra", Anything(), "Anything else, for the client that may know it."),
)

_OWN = tuple(field for field in AGENT_FIELDS if field.name not in {"instructions", "extra"})
"""What may stand in a Markdown file's front matter: its instructions are its body."""

_FRONT = (
    Field("name", Name(), "What the agent is called; the file's name, where it is left out."),
    Field("agentful", Anything(), "Keys of agentful's own, where they should not meet the client's."),
    *_OWN,
)

_MARKDOWN_KEY = re.compile(r"(?P<key>[A-Za-z_][\w-]*):[ \t]+(?P<text>\S.*?)[ \t]*")


# --- definitions ---------------------------------------------------------------------------------


def read_definition(value: Value, what: str) -> Definition:
    """What a mapping in a plan or config says about an agent. Fails for an unknown key."""
    return {**read(value, AGENT_FIELDS, what), "source": value.where}


def read_definitions(value: Value) -> dict[str, Definition]:
    """What a mapping of agents in a plan or config says, by their names."""
    found: dict[str, Definition] = {}
    for key, item in value.entries("a mapping of agents"):
        name = check_name(item, key)
        if name in found:
            item.fail(f"the agent {name!r} stands here twice, in two spellings of its characters")
        found[name] = read_definition(item, f"the agent {name!r}")
    return found


def lay_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Definition:
    """Both definitions as one: ``above`` wins, variables and extras are joined, sources are listed."""
    joined = {**below, **above}
    for name in ("env", "extra"):
        if name in below and name in above:
            joined[name] = {**below[name], **above[name]}
    if below.get("source") and above.get("source"):
        joined["source"] = f"{below['source']}, {above['source']}"
    if "command" in above and "driver" not in above:
        joined["driver"] = "command"
    return joined


def make_agent(name: str, definition: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Agent:
    """The agent of this definition; ``defaults`` are for what it does not say.

    A default driver and its command belong together: an agent with a command or driver of its own does
    not take half of them.
    """
    said = lay_over({}, definition)
    below = {key: value for key, value in (defaults or {}).items() if key != "source"}
    driver = below.get("driver", "command")
    if said.get("driver", driver) != driver:
        below = {key: value for key, value in below.items() if key not in {"driver", "command", "prompt_by"}}
    return Agent(name=name, **lay_over(below, said))


def extend_agent(agent: Agent, definition: Mapping[str, Any]) -> Agent:
    """The agent with what the definition says laid over it."""
    return msgspec.structs.replace(agent, **lay_over(msgspec.structs.asdict(agent), definition))


# --- Markdown ------------------------------------------------------------------------------------


def load_agents(root: Path | None, settings: Settings | None = None) -> dict[str, Agent]:
    """The agents of a repository by name: its ``.claude/agents/**/*.md``, and the settings' tables.
    Without a repository, only the latter. A ``README.md`` without front matter is no agent.

    Raises ConfigError for a file that cannot be used, or a name that two files give.
    """
    definitions = {} if root is None else _from_files(root)
    defaults: Mapping[str, Any] = {}
    if settings is not None:
        defaults = settings.agent_defaults
        for name, definition in settings.agents.items():
            definitions[name] = lay_over(definitions.get(name, {}), definition)
    return {name: make_agent(name, definition, defaults) for name, definition in definitions.items()}


def _from_files(root: Path) -> dict[str, Definition]:
    found: dict[str, Definition] = {}
    for path in sorted((root / AGENT_FOLDER).rglob("*.md")):
        if not is_plain_file(path):
            continue
        # A file's name may be bytes that are no text, which nothing could show.
        shown = os.fsencode(path.relative_to(root)).decode("utf-8", "replace")
        text = read_text(path, name=shown, limit=MAX_CONFIG, what="an agent file", error=ConfigError)
        if path.name.casefold() == README and not text.startswith("---"):
            continue
        name, definition = parse_agent(text, shown)
        if name in found:
            other = found[name]["source"]
            raise ConfigError(
                f"the agent {name!r} stands in {other} already; name one differently", where=shown
            )
        found[name] = definition
    return found


def parse_agent(text: str, source: str) -> tuple[str, Definition]:
    """The name and definition of an agent from Markdown with or without front matter.

    Keys that agentful does not know are kept as ``extra``: they are for the client. Raises ConfigError,
    with the line, for front matter that is not YAML or has a value of the wrong kind.
    """
    front, body = _split(text, source)
    found, unknown = pick(front.root, _FRONT, "a mapping of keys to values")
    said = check(found, _FRONT)
    said.pop("agentful", None)
    name = said.pop("name", None) or check_name(front.root, Path(source).stem)
    if "agentful" in found:
        own, strange = pick(found["agentful"], _OWN, "a mapping of keys to values")
        refuse_unknown(strange, _OWN, "the agentful part of an agent")
        said |= check(own, _OWN)
    if "command" in said and "driver" not in said:
        said["driver"] = "command"
    if unknown:
        said["extra"] = {key: item.data for key, item in unknown.items()}
    if body.strip():
        said["instructions"] = body.strip()
    return name, {**said, "source": source}


def _split(text: str, source: str) -> tuple[Source, str]:
    """The front matter and what follows it."""
    # Not by splitlines(), which ends a line at a form feed and other characters, too.
    lines = [f"{line}\n" for line in text.split("\n")]
    if lines[0].rstrip() != "---":
        return Source(name=source, data={}), text
    end = next((at for at, line in enumerate(lines) if at and line.rstrip() == "---"), None)
    if end is None:
        raise ConfigError("the front matter that starts here has no '---' line after it", where=f"{source}:1")
    front = "".join(lines[1:end])
    body = "".join(lines[end + 1 :])
    try:
        found = parse_yaml(front, source, error=ConfigError, first_line=2)
    except ConfigError:
        quoted = _quote(front)
        if quoted == front:
            raise
        found = parse_yaml(quoted, source, error=ConfigError, first_line=2)
    if found.data is None:
        return Source(name=source, data={}), body
    return found, body


def _quote(front: str) -> str:
    """Front matter with quotes around those texts that YAML would not take without.

    Descriptions as ``Use this when: ...`` are common in such files, and clients take them as they are.
    """

    def quote(line: str) -> str:
        bare = line.rstrip("\r\n")
        match = _MARKDOWN_KEY.fullmatch(bare)
        if match is None:
            return line
        text = match["text"]
        if text[0] in "\"'[{|>":
            return line
        if ": " in text or " #" in text or text.endswith(":") or text[0] in "&*!%@`":
            return f"{match['key']}: {json.dumps(text, ensure_ascii=False)}{line[len(bare) :]}"
        return line

    return "\n".join(map(quote, front.split("\n")))


# --- use -----------------------------------------------------------------------------------------


def unknown_agent(name: str, known: Collection[str]) -> str:
    """What to say when there is no agent of this name."""
    if not known:
        return (
            f"there is no agent {name!r}, nor any other; define it in the plan under 'agents:', as "
            f"{AGENT_FOLDER}/{name}.md, or as [agents.{name}] in .agentful/config.toml"
        )
    return f"there is no agent {name!r}; {nearest(name, sorted(known), what='agent')}"


def why_unusable(agent: Agent, *, which: Callable[[str], str | None] = shutil.which) -> str | None:
    """Why an agent cannot be started, and what to do about it; ``None`` where nothing speaks against it.

    A program named by a relative path is looked for in the workspace when it starts, not here.
    """
    label = f"the agent {agent.name!r}" + (f" ({agent.source})" if agent.source else "")
    if agent.driver == "python":
        return f"{label} is a Python function; such an agent can only be given in Python"
    if agent.driver not in DRIVERS:
        hint = nearest(agent.driver, DRIVERS, what="driver")
        return f"{label} has the unknown driver {agent.driver!r}; {hint}"
    if agent.driver != "command":
        return None
    if not agent.command:
        return (
            f"{label} has no command; say which program plays it: `command` in its definition, or in "
            "[agent_defaults] of .agentful/config.toml for all agents that have none"
        )
    program = agent.command[0]
    if "{" in program or ("/" in program and not Path(program).is_absolute()) or "PATH" in agent.env:
        return None
    if which(program) is not None:
        return None
    if "/" in program and Path(program).exists():
        return f"{label} runs {program!r}, which is no program that may be executed"
    return f"{label} runs {program!r}, which is not on this machine; install it, or name its full path"
