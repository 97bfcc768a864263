from __future__ import annotations

import json
import shlex
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentful.drivers import DRIVERS, driver_for
from agentful.drivers.base import (
    AgentEvent,
    AgentMessage,
    AgentOutput,
    AgentProgress,
    AgentQuestion,
    AgentSummary,
    AgentUsage,
    Attempt,
    Driver,
    Outcome,
)
from agentful.drivers.command import MAX_PROMPT_ARGUMENT, CommandDriver, shell_argv
from agentful.errors import AgentError
from agentful.model import Agent, Reason, Task, Usage


def attempt(agent: Agent, prompt: str = "Do {task}\n", **more: Any) -> Attempt:
    return Attempt(
        run="r1",
        task=Task("tool", prompt, id="api"),
        agent=agent,
        number=2,
        prompt=prompt,
        workspace="/work space",
        prompt_file="/state/prompt",
        **more,
    )


def command(*argv: str, prompt: str = "Do {task}\n", **more: Any) -> tuple[tuple[str, ...], str | None]:
    agent = Agent(name="tool", command=argv, **more)
    spec = CommandDriver(agent).command(attempt(agent, prompt))
    return spec.argv, spec.stdin_file


def refused(*argv: str, prompt: str = "Do it", **more: Any) -> str:
    with pytest.raises(AgentError) as caught:
        command(*argv, prompt=prompt, **more)
    return str(caught.value)


def read(*lines: str) -> list[AgentEvent]:
    driver = CommandDriver(Agent(name="tool", command=("tool",)))
    return [event for line in lines for event in driver.read(line)]


def outcome(returncode: int, *lines: str) -> Outcome:
    driver = CommandDriver(Agent(name="tool", command=("tool",)))
    for line in lines:
        driver.read(line)
    return driver.outcome(returncode)


# --- what is started -------------------------------------------------------------------------------


def test_placeholders_are_filled_in_once() -> None:
    argv, stdin = command(
        *("tool", "--at={workspace}", "{task}#{attempt}", "{model}", "{prompt}", "{other} {} {{x}}"),
        model="m-1",
    )
    assert argv == ("tool", "--at=/work space", "api#2", "m-1", "Do {task}\n", "{other} {} {{x}}")
    assert stdin is None


@pytest.mark.parametrize(
    ("prompt_by", "argv", "stdin"),
    [
        ("argv", ("tool", "Do {task}\n"), None),
        ("stdin", ("tool",), "/state/prompt"),
        ("file", ("tool",), None),
    ],
)
def test_how_the_prompt_goes_where_no_argument_names_it(
    prompt_by: str, argv: tuple[str, ...], stdin: str | None
) -> None:
    assert command("tool", prompt_by=prompt_by) == (argv, stdin)
    assert command("tool", "-f", "{prompt_file}", prompt_by=prompt_by) == (
        ("tool", "-f", "/state/prompt"),
        None,
    )


def test_the_environment() -> None:
    agent = Agent(name="tool", command=("tool",), env={"A": "1", "AGENTFUL_TASK": "x"}, pass_env=("B_*",))
    spec = CommandDriver(agent).command(attempt(agent))
    assert spec.pass_env == ("B_*",)
    assert spec.env == {
        "A": "1",
        "AGENTFUL_RUN": "r1",
        "AGENTFUL_TASK": "api",
        "AGENTFUL_ATTEMPT": "2",
        "AGENTFUL_AGENT": "tool",
        "AGENTFUL_PROMPT_FILE": "/state/prompt",
        "AGENTFUL_WORKSPACE": "/work space",
    }
    agent = Agent(name="tool", command=("tool",), model="m-1")
    env = CommandDriver(agent).command(attempt(agent, deadline=1234.5)).env
    assert (env["AGENTFUL_MODEL"], env["AGENTFUL_DEADLINE"]) == ("m-1", "1234.500")


def test_verbatim_runs_the_command_as_it_stands() -> None:
    agent = Agent(name="", command=("/bin/sh", "-c", "echo {prompt} {task}"))
    spec = CommandDriver(agent, verbatim=True).command(attempt(agent))
    assert (spec.argv, spec.stdin_file) == (agent.command, None)


def test_a_prompt_that_no_argument_can_hold() -> None:
    long = "é" * (MAX_PROMPT_ARGUMENT // 2)
    assert command("tool", prompt=long)[0] == ("tool", long)
    for argv in (("tool",), ("tool", "-p", "{prompt}")):
        said = refused(*argv, prompt=long + "x")
        assert "100,001 bytes" in said
        assert "prompt_by to stdin or file" in said
    assert command("tool", prompt=long + "x", prompt_by="stdin")[1] == "/state/prompt"
    assert command("tool", prompt="a\0b")[0] == ("tool", "a\N{REPLACEMENT CHARACTER}b")


def test_what_is_missing() -> None:
    assert "agent 'tool' has no command" in refused()
    assert "names no model" in refused("tool", "{model}")


@pytest.mark.parametrize(
    "argv",
    [
        ("sh", "-c", "tool '{prompt}'"),
        ("/bin/bash", "-euo", "pipefail", "-c", "cd {workspace}"),
        ("bash", "-ceuo", "pipefail", "echo {task}", "x"),
        ("bash", "--norc", "-lc", "echo {model}"),
        ("zsh", "+x", "-c", "echo {prompt}"),
    ],
)
def test_nothing_is_filled_into_a_shell_script(argv: tuple[str, ...]) -> None:
    assert "inside a shell script" in refused(*argv)


def test_arguments_of_a_shell_script_are_filled_in() -> None:
    assert command("sh", "-c", 'tool "$1"', "sh", "{prompt}")[0][-1] == "Do {task}\n"
    assert command("bash", "-e", "script.sh", "-c", "{task}", "{prompt}")[0][-2:] == ("api", "Do {task}\n")
    assert command("bash", "-o", prompt_by="file")[0] == ("bash", "-o")


# --- what it says ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("hello", AgentMessage("hello")),
        ("  indented \t", AgentMessage("  indented")),
        ("\x1b[1;31mred\x1b[0m\x07\x9b ü \ttab", AgentMessage("red ü \ttab")),
        ("::progress 40 writing tests", AgentProgress(40.0, "writing tests")),
        ("::progress 12.5", AgentProgress(12.5)),
        ("::progress 100% done", AgentProgress(100.0, "done")),
        ("::progress  0\tstart ", AgentProgress(0.0, "start")),
        ("::progress writing", AgentProgress(None, "writing")),
        ("::progress 3rd try", AgentProgress(None, "3rd try")),
        ("::summary  Added it ", AgentSummary("Added it")),
        ("::output port 8080", AgentOutput("port", "8080")),
        ("::output a.b-c two  words", AgentOutput("a.b-c", "two  words")),
        ("::output empty", AgentOutput("empty", "")),
        (
            "::ask Which database? [postgres | sqlite||sqlite]",
            AgentQuestion("Which database?", ("postgres", "sqlite")),
        ),
        ("::ask Why a[0|1] or b[1]?", AgentQuestion("Why a[0|1] or b[1]?")),
        ("::ask Really? [yes]", AgentQuestion("Really? [yes]")),
        ('{"type": "message", "text": "a\\nb\\u001b[31m"}', AgentMessage("a\nb")),
        ('{"type": "progress", "percentage": 40, "message": "a\\nb", "new": 1}', AgentProgress(40.0, "a b")),
        ('{"message": "so", "type": "progress"}', AgentProgress(None, "so")),
        ('{"type": "progress", "percentage": 0}', AgentProgress(0.0)),
        ('{"type": "summary", "text": "Added it"}', AgentSummary("Added it")),
        (
            '{"type": "output", "name": "p q", "value": [1, {"a": null}]}',
            AgentOutput("p q", [1, {"a": None}]),
        ),
        (
            '{"type": "ask", "question": "Which?", "options": ["a", " b", ""]}',
            AgentQuestion("Which?", ("a", "b")),
        ),
        ('{"type": "ask", "question": "Why?"}', AgentQuestion("Why?")),
        ('{"type": "usage", "input_tokens": 10, "cost": 0.5}', AgentUsage(Usage(10, None, 0.5))),
    ],
)
def test_the_protocol(line: str, event: AgentEvent) -> None:
    assert read(line) == [event]


@pytest.mark.parametrize(
    "line",
    [
        "::",
        "::progress",
        "::progress 101 x",
        "::progressive 4",
        "::Progress 4",
        " ::progress 4",
        "::summary",
        "::output",
        "::output 1a b",
        "::output =b",
        "::ask",
        "::unknown x",
        "{}",
        "{",
        "{not json}",
        '{"type": "other"}',
        '{"type": "progress"}',
        '{"type": "progress", "percentage": -1}',
        '{"type": "progress", "percentage": 101}',
        '{"type": "progress", "percentage": "40"}',
        '{"type": "progress", "percentage": 1e999}',
        '{"type": "summary"}',
        '{"type": "summary", "text": " "}',
        '{"type": "output", "name": "a"}',
        '{"type": "output", "name": " ", "value": 1}',
        '{"type": "output", "name": "a", "value": ' + "9" * 5000 + "}",
        '{"type": "output", "name": "a", "value": ' + "[" * 100 + "]" * 100 + "}",
        '{"type": "output", "name": "a", "value": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"type": "ask", "question": ""}',
        '{"type": "ask", "question": "a", "options": "b"}',
        '{"type": "usage", "input_tokens": -1}',
        '{"type": "usage", "cost": "much"}',
        '{"type": "summary", "text": "x"} trailing',
        '{"type": "summary", "text": "\ud800"}',
    ],
)
def test_what_is_not_quite_the_protocol_is_a_message(line: str) -> None:
    assert read(line) == [AgentMessage(line)]


@pytest.mark.parametrize("line", ["", "  \t", "\x1b[2K\r", "\x00"])
def test_nothing_is_nothing(line: str) -> None:
    assert read(line) == []


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["message", "progress", "summary", "output", "ask", "usage", "x"])
FIELDS = st.sampled_from(
    ["text", "percentage", "message", "name", "value", "question", "options", "input_tokens", "cost"]
)
LINES = st.one_of(
    st.text(),
    st.builds("::{} {}".format, st.sampled_from(["progress", "summary", "output", "ask"]), st.text()),
    st.builds(
        lambda kind, fields: json.dumps({"type": kind, **fields}),
        TYPES,
        st.dictionaries(FIELDS, VALUES, max_size=4),
    ),
)


@given(st.lists(LINES, max_size=5), st.integers(-64, 255))
@settings(max_examples=300)
def test_no_line_makes_it_raise_and_all_it_says_can_be_kept(lines: list[str], returncode: int) -> None:
    driver = CommandDriver(Agent(name="tool", command=("tool",)))
    for line in lines:
        for event in driver.read(line):
            if isinstance(event, AgentProgress):
                assert event.percentage is None or 0 <= event.percentage <= 100
            if isinstance(event, AgentOutput):
                json.dumps(event.value)
    ended = driver.outcome(returncode)
    assert ended.ok == (returncode == 0 and ended.question is None)
    assert ended.ok == (ended.reason is None)


# --- how it ended ----------------------------------------------------------------------------------


def test_a_good_end() -> None:
    assert outcome(0) == Outcome(ok=True)
    ended = outcome(0, *(f"line {n}" for n in range(30)), "::progress 100", "")
    assert ended == Outcome(ok=True, summary="\n".join(f"line {n}" for n in range(20, 30)))
    assert len(outcome(0, "x" * 100_000, "y").summary) <= 4_000


def test_what_was_said_is_added_up() -> None:
    ended = outcome(
        *(0, "::summary one", "talk", '{"type": "summary", "text": "two"}', "::output a 1", "::output a 2"),
        *('{"type": "output", "name": "b", "value": 3}', '{"type": "usage", "input_tokens": 1}'),
        '{"type": "usage", "input_tokens": 2, "cost": 0.25}',
    )
    assert ended == Outcome(
        ok=True, summary="one\ntwo", outputs={"a": "2", "b": 3}, usage=Usage(3, None, 0.25)
    )


@pytest.mark.parametrize(
    ("returncode", "lines", "message"),
    [
        (3, (), "exit code 3"),
        (1, ("starting", "error: no such file", " ", "::progress 3"), "exit code 1: error: no such file"),
        (-9, (), "killed by SIGKILL"),
        (-15, ("bye",), "killed by SIGTERM: bye"),
        (-64, (), "killed by signal 64"),
        (2, ("x" * 1000,), "exit code 2: " + "x" * 300),
        (2, ('{"type": "message", "text": "a\\n\\nb\\n"}',), "exit code 2: b"),
    ],
)
def test_a_bad_end(returncode: int, lines: tuple[str, ...], message: str) -> None:
    ended = outcome(returncode, *lines)
    assert (ended.ok, ended.reason, ended.message) == (False, Reason.AGENT_FAILED, message)


@pytest.mark.parametrize("returncode", [0, 1, -15])
def test_a_question_is_what_the_end_means(returncode: int) -> None:
    ended = outcome(returncode, "thinking", "::ask Which? [a|b]")
    question = AgentQuestion("Which?", ("a", "b"))
    assert ended == Outcome(
        ok=False, reason=Reason.QUESTION, message="Which?", summary="thinking", question=question
    )


def test_outputs_have_a_bound() -> None:
    ended = outcome(0, *(f"::output n{n} x" for n in range(1_010)), "::output n0 y")
    assert len(ended.outputs) == 1_000
    assert ended.outputs["n0"] == "y"


# --- shells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "argv"),
    [
        ("true", ("true",)),
        ("  pytest   -q ", ("pytest", "-q")),
        ("ruff check --fix src", ("ruff", "check", "--fix", "src")),
        ('pytest -k "a and b" --x=1', ("pytest", "-k", "a and b", "--x=1")),
        ("tool 'it is' ''", ("tool", "it is", "")),
        ("./script.sh é", ("./script.sh", "é")),
    ],
)
def test_what_needs_no_shell(script: str, argv: tuple[str, ...]) -> None:
    assert shell_argv(script) == argv


@pytest.mark.parametrize(
    "script",
    [
        *(
            "",
            "  ",
            "''",
            "'unclosed",
            "a; b",
            "a && b",
            "a | b",
            "a > b",
            "a $b",
            "a `b`",
            "a \\ b",
            "a *",
            "a ?",
        ),
        *(
            "a [b]",
            "a ~",
            "a #b",
            "a\nb",
            "{ a; }",
            "a {b,c}",
            "(a)",
            "! a",
            "A=1 b",
            "cd src",
            "exit 3",
            ". x",
        ),
        *(
            "export A",
            "eval a",
            "if a",
            "echo hi",
            "test -f x",
            "kill %1",
            "[ -f x ]",
            ": a",
            "time a",
            "wait",
        ),
        '"cd" src',
    ],
)
def test_what_may_need_one(script: str) -> None:
    assert shell_argv(script) == ("/bin/sh", "-c", script)


@given(st.text(st.sampled_from("ab -='\"$*\\;\t\n#~"), max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_arguments_are_the_shells(text: str) -> None:
    argv = shell_argv(f"env {text}")
    if argv[0] == "env":
        said = subprocess.run(
            ["/bin/sh", "-c", f'set -- {text}; printf "<%s>" "$@"'], capture_output=True, check=True
        )
        assert said.stdout.decode() == "".join(f"<{word}>" for word in argv[1:]) or not argv[1:]
        assert shlex.split(text) == list(argv[1:])


# --- the drivers there are -------------------------------------------------------------------------


def test_a_driver_by_name() -> None:
    agent = Agent(name="tool", command=("tool",))
    assert isinstance(driver_for(agent), CommandDriver)
    assert driver_for(agent) is not driver_for(agent)
    for make in DRIVERS.values():
        assert isinstance(make(agent), Driver)


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        ("comand", "agent 'tool' (here.md) has the unknown driver 'comand'; known are: command"),
        ("comand", "did you mean 'command'?"),
        ("python", "is a Python function"),
    ],
)
def test_a_driver_that_is_not_known(driver: str, said: str) -> None:
    with pytest.raises(AgentError) as caught:
        driver_for(Agent(name="tool", driver=driver, source="here.md"))
    assert said in str(caught.value)
