"""Agents from Markdown, from the tables of the config, and what they become together."""

from __future__ import annotations

import os
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from agentful.config import Settings, load_agents, unknown_agent, why_unusable
from agentful.config.agents import extend_agent, lay_over, make_agent, parse_agent
from agentful.errors import ConfigError
from agentful.model import Agent

if TYPE_CHECKING:
    from pathlib import Path


def agent_of(text: str, source: str = ".claude/agents/backend.md") -> Agent:
    return make_agent(*parse_agent(dedent(text), source))


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as info:
        agent_of(text)
    return str(info.value)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / ".claude/agents" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))


# --- Markdown ------------------------------------------------------------------------------------


def test_a_file_as_the_client_knows_it() -> None:
    agent = agent_of(
        """\
        ---
        name: backend
        description: Implements backend services
        tools: Read, Write, Bash(git log, git diff:*), mcp__db
        model: sonnet
        permissionMode: acceptEdits
        hooks:
          Stop: [{command: x}]
        color: blue
        ---

        # Backend Agent

        You implement services.
        ---
        Dashes in the text end nothing.
        """
    )
    assert agent == Agent(
        name="backend",
        description="Implements backend services",
        tools=("Read", "Write", "Bash(git log, git diff:*)", "mcp__db"),
        model="sonnet",
        instructions="# Backend Agent\n\nYou implement services.\n---\nDashes in the text end nothing.",
        source=".claude/agents/backend.md",
        extra={"permissionMode": "acceptEdits", "hooks": {"Stop": [{"command": "x"}]}, "color": "blue"},
    )


def test_our_own_keys_stand_beside_the_clients_or_apart() -> None:
    agent = agent_of(
        """\
        ---
        tools: [Read, Grep]
        command: [my-agent, --file, "{prompt_file}"]
        timeout: 20m
        agentful:
          prompt_by: file
          timeout: 5m
          writes: src/**
          reads_only: false
          env: {PORT: 3000, DEBUG: true}
          pass_env: ["MY_*"]
        ---
        You.
        """
    )
    assert (agent.driver, agent.command) == ("command", ("my-agent", "--file", "{prompt_file}"))
    assert (agent.prompt_by, agent.timeout, agent.writes) == ("file", 300, ("src/**",))
    assert (agent.env, agent.pass_env) == ({"PORT": "3000", "DEBUG": "true"}, ("MY_*",))
    assert agent.tools == ("Read", "Grep")
    assert (agent.name, agent.extra) == ("backend", {})


def test_a_file_without_front_matter_is_all_instructions() -> None:
    assert agent_of("# Writer\n\nYou write.\n").instructions == "# Writer\n\nYou write."
    assert agent_of("").instructions == ""
    assert agent_of("---\n---\nYou.\n").instructions == "You."
    assert agent_of("---\r\nmodel: x\r\n---\r\nYou.\r\n") == Agent(
        name="backend", model="x", instructions="You.", source=".claude/agents/backend.md"
    )


def test_only_a_line_end_ends_a_line() -> None:
    agent = agent_of("---\ndescription: a\u2029 ---\u2029 b\nmodel: x\n---\nYou\u2028---\x0c\n")
    assert (agent.model, agent.instructions) == ("x", "You\u2028---")


def test_a_description_may_have_what_yaml_would_not_take() -> None:
    agent = agent_of(
        """\
        ---
        name: helper
        description: Use this when: <example>user: "do # it"</example>
        tools: *
        reads_only: true
        argument-hint: [file]
        ---
        You.
        """
    )
    assert agent.description == 'Use this when: <example>user: "do # it"</example>'
    assert (agent.tools, agent.reads_only) == (("*",), True)
    assert agent.extra == {"argument-hint": ["file"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\nname: x\n", "backend.md:1: the front matter that starts here has no '---' line after it"),
        ("---\nname: x\nmodel: [\n---\n", "backend.md:3: not valid YAML"),
        ("---\n- x\n---\n", "backend.md:2: a mapping of keys to values is wanted here, not a list"),
        ("---\nmodel: x\nname: ''\n---\n", "backend.md:3: name: the name is empty"),
        ("---\nmodel: x\ntimeout: soon\n---\n", "backend.md:3: timeout: 'soon' is not a length of time"),
        (
            "---\nprompt_by: mail\n---\n",
            "backend.md:2: prompt_by: 'mail' cannot be used here; known values: argv",
        ),
        ("---\nwrites: ../x\n---\n", "backend.md:2: writes: the glob '../x' cannot be used"),
        ("---\nenv: [A]\n---\n", "backend.md:2: env: a mapping of variables to texts is wanted here"),
        ("---\nenv: {'A=B': x}\n---\n", "'A=B' cannot be the name of an environment variable"),
        ("---\nenv: {A: [x]}\n---\n", "backend.md:2: A: a text is wanted here, not a list"),
        ("---\ncommand: []\n---\n", "backend.md:2: command: it names no program"),
        ("---\ncommand: [x, {a: b}]\n---\n", "backend.md:2: command: an argument is a text, not a mapping"),
        ("---\ntools: {a: b}\n---\n", "backend.md:2: tools: tools are a list, or one text with commas"),
        (
            "---\nmodel: x\nagentful:\n  tiemout: 5m\n---\n",
            "backend.md:4: unknown key 'tiemout' in the agentful part of an agent; did you mean 'timeout'?",
        ),
        ("---\nagentful: x\n---\n", "backend.md:2: agentful: a mapping"),
    ],
)
def test_bad_front_matter_is_refused_with_its_line(text: str, message: str) -> None:
    assert message in refused(text)


# --- folders -------------------------------------------------------------------------------------


def test_agents_are_found_in_folders_below(tmp_path: Path) -> None:
    assert load_agents(tmp_path) == {}
    write(
        tmp_path,
        {
            "backend.md": "---\nname: api\n---\nYou.",
            "ephemeral/2026-fix.md": "You fix.",
            "notes.txt": "no agent",
        },
    )
    agents = load_agents(tmp_path)
    assert {name: agent.source for name, agent in agents.items()} == {
        "api": ".claude/agents/backend.md",
        "2026-fix": ".claude/agents/ephemeral/2026-fix.md",
    }


def test_a_page_about_the_folder_is_no_agent(tmp_path: Path) -> None:
    write(tmp_path, {"README.md": "# Our agents", "more/readme.md": "x", "a.md": "You."})
    assert set(load_agents(tmp_path)) == {"a"}
    write(tmp_path, {"README.md": "---\nname: writer\n---\nYou write READMEs."})
    assert set(load_agents(tmp_path)) == {"a", "writer"}


def test_without_a_repository_there_are_the_tables() -> None:
    settings = Settings(agents={"a": {"model": "x"}}, agent_defaults={"command": ("sh",)})
    assert load_agents(None) == {}
    assert load_agents(None, settings) == {"a": Agent(name="a", model="x", command=("sh",))}


def test_one_name_in_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "---\nname: same\n---\n", "b/same.md": "You."})
    with pytest.raises(ConfigError) as info:
        load_agents(tmp_path)
    assert str(info.value) == (
        ".claude/agents/b/same.md: the agent 'same' stands in .claude/agents/a.md already; "
        "name one differently"
    )


def test_what_is_no_readable_file_is_no_agent_or_says_so(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "You."})
    folder = tmp_path / ".claude/agents"
    # Opening a pipe would wait for whoever writes to it.
    os.mkfifo(folder / "pipe.md")
    (folder / "folder.md").mkdir()
    (folder / "gone.md").symlink_to("nowhere")
    assert set(load_agents(tmp_path)) == {"a"}
    (folder / "binary.md").write_bytes(b"\0\1")
    with pytest.raises(ConfigError, match=r"\.claude/agents/binary\.md: it is binary"):
        load_agents(tmp_path)
    (folder / "binary.md").write_bytes(b"x" * 300_000)
    with pytest.raises(ConfigError, match="larger than 256,000 bytes"):
        load_agents(tmp_path)


# --- together ------------------------------------------------------------------------------------


def test_tables_are_laid_over_files(tmp_path: Path) -> None:
    write(tmp_path, {"backend.md": "---\nmodel: small\nenv: {A: '1', B: '1'}\n---\nYou."})
    settings = Settings(
        agents={
            "backend": {"model": "big", "env": {"B": "2"}, "source": "config.toml:3"},
            "new": {"command": ("sh",), "source": "config.toml:7"},
        }
    )
    agents = load_agents(tmp_path, settings)
    assert agents["backend"] == Agent(
        name="backend",
        model="big",
        env={"A": "1", "B": "2"},
        instructions="You.",
        source=".claude/agents/backend.md, config.toml:3",
    )
    assert agents["new"] == Agent(name="new", command=("sh",), source="config.toml:7")


def test_one_default_points_all_files_at_one_program(tmp_path: Path) -> None:
    write(
        tmp_path, {"a.md": "You.", "b.md": "---\ntimeout: 1m\n---\nYou.", "c.md": "---\ncommand: mine\n---\n"}
    )
    defaults = {"command": ("sh", "-c"), "prompt_by": "stdin", "timeout": 60.0, "source": "config.toml:1"}
    agents = load_agents(tmp_path, Settings(agent_defaults=defaults))
    assert agents["a"].command == agents["b"].command == ("sh", "-c")
    assert agents["a"].prompt_by == "stdin"
    assert agents["c"].command == ("mine",)
    assert agents["a"].source == ".claude/agents/a.md"


def test_a_default_driver_and_its_command_belong_together() -> None:
    other = {"driver": "claude", "prompt_by": "stdin", "model": "big"}
    assert make_agent("a", {}, other).driver == "claude"
    # An agent with a command of its own is played by that command, and by the default's model.
    assert make_agent("a", {"command": ("sh",)}, other) == Agent(name="a", command=("sh",), model="big")
    ours = {"driver": "command", "command": ("sh",), "env": {"A": "1"}}
    assert make_agent("a", {"driver": "claude"}, ours) == Agent(name="a", driver="claude", env={"A": "1"})
    assert make_agent("a", {"driver": "command", "env": {"B": "2"}}, ours) == Agent(
        name="a", command=("sh",), env={"A": "1", "B": "2"}
    )


def test_laying_over_and_extending() -> None:
    below = {"model": "a", "env": {"X": "1"}, "extra": {"p": 1}, "source": "one"}
    above = {"command": ("sh",), "extra": {"q": 2}, "source": "two"}
    assert lay_over(below, above) == {
        "model": "a",
        "env": {"X": "1"},
        "extra": {"p": 1, "q": 2},
        "command": ("sh",),
        "driver": "command",
        "source": "one, two",
    }
    agent = Agent(name="a", driver="claude", model="m", source="one")
    assert extend_agent(agent, above) == Agent(
        name="a", command=("sh",), model="m", extra={"q": 2}, source="one, two"
    )


def test_a_file_that_is_no_program_is_told_from_a_missing_one(tmp_path: Path) -> None:
    program = tmp_path / "agent"
    agent = Agent(name="a", command=(str(program),))
    assert "which is not on this machine; install it" in str(why_unusable(agent))
    program.write_text("#!/bin/sh\n")
    assert str(why_unusable(agent)).endswith("/agent', which is no program that may be executed")
    program.chmod(0o755)
    assert why_unusable(agent) is None


def test_who_is_not_there() -> None:
    assert ".claude/agents/x.md" in unknown_agent("x", [])
    assert unknown_agent("bakend", ["backend", "tester"]) == (
        "there is no agent 'bakend'; did you mean 'backend'?"
    )
