"""Any program as an agent: a script, a codemod, a linter, a client that has no driver of its own.

How the prompt gets there
    ``{prompt}``, ``{prompt_file}``, ``{workspace}``, ``{task}``, ``{model}`` and ``{attempt}`` in the
    command's arguments are filled in; other braces stay as they are. Where no argument names the prompt,
    the agent's ``prompt_by`` says how it goes: as the last argument (``argv``), on standard input
    (``stdin``), or in neither way (``file``). The environment always has ``AGENTFUL_PROMPT_FILE``,
    and ``AGENTFUL_RUN``, ``AGENTFUL_TASK``, ``AGENTFUL_ATTEMPT`` (1, 2, ...), ``AGENTFUL_AGENT``,
    ``AGENTFUL_WORKSPACE``; ``AGENTFUL_MODEL`` and ``AGENTFUL_DEADLINE`` (seconds since the epoch) where
    there is one.

How the program says how it goes: the line protocol
    A program need not know any of it: each line that it prints is a message, and exit code 0 means that
    it has done its task. Lines of these forms mean more, on standard output and standard error alike::

        ::progress 40 writing tests     40 % done; the message, or the number, may be left out
        ::summary Added the login page  what it did; each further one is a further line
        ::output port 8080              a named value, handed on to the tasks that need this one
        ::ask Which database? [postgres|sqlite]
                                        end, and have a person asked; the options may be left out

    The same as JSON, one object on a line, for values that are not plain text::

        {"type": "message", "text": "..."}
        {"type": "progress", "percentage": 40, "message": "..."}
        {"type": "summary", "text": "..."}
        {"type": "output", "name": "ports", "value": [8080, 8081]}
        {"type": "ask", "question": "...", "options": ["...", "..."]}
        {"type": "usage", "input_tokens": 10, "output_tokens": 20, "cost": 0.01}

    Usage is what was used since the last such line, cost in US dollars. Fields that are not known are
    ignored. A line that is nearly of one of these forms, but not quite, is a message like any other.

    After ``::ask`` the program is expected to end. Its exit code does not matter then; the next attempt
    gets the answer in its prompt.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from ..errors import AgentError
from ..model import Usage
from .base import (
    Account,
    AgentEvent,
    AgentMessage,
    AgentOutput,
    AgentProgress,
    AgentQuestion,
    AgentSummary,
    AgentUsage,
    Attempt,
    Outcome,
    ProcessSpec,
    too_deep,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..model import Agent

MAX_PROMPT_ARGUMENT = 100_000
"""Bytes of a prompt that may go into an argument: Linux takes 131,072 for one, all included."""

_MOST_OUTPUTS = 1_000
_PLACEHOLDER = re.compile(r"\{(prompt|prompt_file|workspace|task|model|attempt)\}")
_PLAIN = re.compile(r"::(progress|summary|output|ask)(?:[ \t]+(.*))?", re.DOTALL)
_PROGRESS = re.compile(r"(\d{1,3}(?:\.\d+)?)[ \t]*%?(?:[ \t]+(.*))?", re.DOTALL)
_OUTPUT = re.compile(r"([A-Za-z_][\w.-]*)(?:[ \t]+(.*))?", re.DOTALL)
_ASK = re.compile(r"(.*\S)[ \t]+\[([^\[\]]*\|[^\[\]]*)\]", re.DOTALL)
# What would move the cursor, colour, or ring in the terminal of whoever watches.
_CONTROL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)

_SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    5: "SIGTRAP",
    6: "SIGABRT",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
}
"""Those that have the same number on every system that we run on."""


class _Message(Struct, tag="message"):
    text: str


class _Progress(Struct, tag="progress"):
    percentage: float | None = None
    message: str = ""


class _Summary(Struct, tag="summary"):
    text: str


class _Output(Struct, tag="output"):
    name: str
    value: Any


class _Ask(Struct, tag="ask"):
    question: str
    options: tuple[str, ...] = ()


class _Usage(Struct, tag="usage"):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None


_decoder = msgspec.json.Decoder(_Message | _Progress | _Summary | _Output | _Ask | _Usage)


class CommandDriver:
    """Runs a program for one attempt, and reads the line protocol above.

    With ``verbatim`` the agent's command is run as it stands: nothing is filled in, and no prompt is
    added. That is for a task that is a command itself.
    """

    def __init__(self, agent: Agent, *, verbatim: bool = False) -> None:
        self._agent = agent
        self._verbatim = verbatim
        self._account = Account()

    def command(self, attempt: Attempt) -> ProcessSpec:
        """What to start. Raises `AgentError` where the prompt cannot go where the command wants it."""
        argv, stdin_file = self._agent.command, None
        if not argv:
            raise AgentError(f"agent {self._agent.name!r} has no command to run")
        if not self._verbatim:
            named = any(
                match[1].startswith("prompt") for word in argv for match in _PLACEHOLDER.finditer(word)
            )
            argv = self._filled_in(attempt)
            if not named and self._agent.prompt_by == "argv":
                argv = (*argv, self._prompt_argument(attempt))
            elif not named and self._agent.prompt_by == "stdin":
                stdin_file = attempt.prompt_file
        return ProcessSpec(
            argv=argv,
            env={**self._agent.env, **_environment(attempt)},
            pass_env=self._agent.pass_env,
            stdin_file=stdin_file,
        )

    def read(self, line: str) -> Iterable[AgentEvent]:
        """What one line of its output means. Never raises."""
        text = _CONTROL.sub("", line).rstrip()
        if not text:
            return ()
        event = _from_plain(text) if text.startswith("::") else _from_json(text) if text[0] == "{" else None
        if isinstance(event, AgentOutput) and not self._has_room_for(event):
            event = None
        if event is None:
            event = AgentMessage(text)
        self._account.add(event)
        return (event,)

    def outcome(self, returncode: int) -> Outcome:
        """What its end meant."""
        if returncode == 0:
            return self._account.ended(ok=True)
        how = (
            f"exit code {returncode}"
            if returncode > 0
            else f"killed by {_SIGNALS.get(-returncode, f'signal {-returncode}')}"
        )
        said = self._account.last_words
        return self._account.ended(ok=False, message=f"{how}: {said[:300]}" if said else how)

    def _has_room_for(self, output: AgentOutput) -> bool:
        known = self._account.outputs
        return output.name in known or len(known) < _MOST_OUTPUTS

    def _filled_in(self, attempt: Attempt) -> tuple[str, ...]:
        command = self._agent.command
        script = _script_index(command)
        if script is not None and (found := _PLACEHOLDER.search(command[script])):
            raise AgentError(
                f"agent {self._agent.name!r} has {found[0]} inside a shell script, where what it stands for "
                f"would be run as code; give it to the script as an argument of its own "
                f"([sh, -c, 'tool \"$1\"', sh, '{found[0]}']) or use the AGENTFUL_ variables"
            )

        def value(match: re.Match[str]) -> str:
            match match[1]:
                case "prompt":
                    return self._prompt_argument(attempt)
                case "prompt_file":
                    return attempt.prompt_file
                case "workspace":
                    return attempt.workspace
                case "task":
                    return attempt.task.id
                case "attempt":
                    return str(attempt.number)
                case _:
                    if attempt.agent.model is None:
                        raise AgentError(
                            f"agent {self._agent.name!r} has {{model}} in its command, but names no model"
                        )
                    return attempt.agent.model

        return tuple(_PLACEHOLDER.sub(value, word) for word in command)

    def _prompt_argument(self, attempt: Attempt) -> str:
        size = len(attempt.prompt.encode("utf-8", "surrogatepass"))
        if size > MAX_PROMPT_ARGUMENT:
            raise AgentError(
                f"the prompt of task {attempt.task.id!r} has {size:,} bytes, too many for an argument of "
                f"agent {self._agent.name!r}: set its prompt_by to stdin or file, or use {{prompt_file}}"
            )
        # No argument can hold one, and a prompt has one only by quoting something binary.
        return attempt.prompt.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _environment(attempt: Attempt) -> dict[str, str]:
    env = {
        "AGENTFUL_RUN": attempt.run,
        "AGENTFUL_TASK": attempt.task.id,
        "AGENTFUL_ATTEMPT": str(attempt.number),
        "AGENTFUL_AGENT": attempt.agent.name,
        "AGENTFUL_PROMPT_FILE": attempt.prompt_file,
        "AGENTFUL_WORKSPACE": attempt.workspace,
    }
    if attempt.agent.model is not None:
        env["AGENTFUL_MODEL"] = attempt.agent.model
    if attempt.deadline is not None:
        env["AGENTFUL_DEADLINE"] = f"{attempt.deadline:.3f}"
    return env


# --- the line protocol -----------------------------------------------------------------------------


def _from_plain(text: str) -> AgentEvent | None:
    match = _PLAIN.fullmatch(text)
    if match is None or not match[2]:
        return None
    rest = match[2].strip()
    match match[1]:
        case "progress":
            return _progress(rest)
        case "summary":
            return AgentSummary(rest)
        case "output":
            output = _OUTPUT.fullmatch(rest)
            return AgentOutput(output[1], output[2] or "") if output else None
        case _:
            ask = _ASK.fullmatch(rest)
            return AgentQuestion(ask[1], _options(ask[2].split("|"))) if ask else AgentQuestion(rest)


def _progress(rest: str) -> AgentEvent | None:
    number = _PROGRESS.fullmatch(rest)
    if number is None:
        return AgentProgress(None, rest)
    percentage = float(number[1])
    return AgentProgress(percentage, number[2] or "") if percentage <= 100 else None


def _options(options: Iterable[str]) -> tuple[str, ...]:
    stripped = (option.strip() for option in options)
    return tuple(dict.fromkeys(option for option in stripped if option))


def _from_json(text: str) -> AgentEvent | None:
    try:
        said = _decoder.decode(text)
    # Too deeply nested, or text that is no text: a message all the same.
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    match said:
        case _Message() if text := _clean(said.text):
            return AgentMessage(text)
        case _Progress(percentage=percentage):
            message = " ".join(_clean(said.message).split())
            if percentage is None and not message:
                return None
            return AgentProgress(percentage, message) if 0 <= (percentage or 0) <= 100 else None
        case _Summary() if text := _clean(said.text):
            return AgentSummary(text)
        case _Output(name=name, value=value) if name.strip() and not too_deep(value):
            return AgentOutput(name.strip(), value)
        case _Ask() if text := _clean(said.question):
            return AgentQuestion(text, _options(map(_clean, said.options)))
        case _Usage(input_tokens=tokens_in, output_tokens=tokens_out, cost=cost):
            if any(number is not None and number < 0 for number in (tokens_in, tokens_out, cost)):
                return None
            return AgentUsage(Usage(tokens_in, tokens_out, cost))
        case _:
            return None


def _clean(text: str) -> str:
    """Text that can be shown on a terminal."""
    return _CONTROL.sub("", text).strip()


# --- shells ----------------------------------------------------------------------------------------

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash", "fish"})
_META = frozenset("\n\r\v\f&;|<>()$`\\*?[]#~!{}%^")
_WORDS_OF_THE_SHELL = frozenset(
    {
        # reserved, and those that change the shell itself
        *("if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "in"),
        *("function", "select", "time", "coproc", ".", ":", "break", "continue", "eval", "exec", "exit"),
        *("export", "readonly", "return", "set", "shift", "source", "times", "trap", "unset", "alias"),
        *("bg", "bind", "builtin", "caller", "cd", "chdir", "command", "compgen", "complete", "compopt"),
        *("declare", "dirs", "disown", "enable", "fc", "fg", "getopts", "hash", "help", "history", "jobs"),
        *("let", "local", "logout", "mapfile", "popd", "pushd", "read", "readarray", "shopt", "suspend"),
        *("type", "typeset", "ulimit", "umask", "unalias", "wait"),
        # programs too, but not the same ones
        *("echo", "kill", "printf", "pwd", "test"),
    }
)


def shell_argv(script: str) -> tuple[str, ...]:
    """The arguments that do what ``/bin/sh -c script`` does: directly where no shell is needed, as make
    does it, for that takes half the time; by the shell in all cases of doubt.
    """
    shell = ("/bin/sh", "-c", script)
    if not _META.isdisjoint(script):
        return shell
    try:
        words = tuple(shlex.split(script))
    except ValueError:
        return shell
    if not words or not words[0] or "=" in words[0] or words[0] in _WORDS_OF_THE_SHELL:
        return shell
    return words


def _script_index(command: Sequence[str]) -> int | None:
    """Where in a command the script of a shell stands, as in ``bash -euo pipefail -c SCRIPT``."""
    if command[0].rpartition("/")[2] not in _SHELLS:
        return None
    has_script = takes_next = False
    for index, word in enumerate(command[1:], start=1):
        if takes_next:
            takes_next = False
        elif word[:1] not in ("-", "+"):
            return index if has_script else None
        elif not word.startswith("--"):
            has_script |= "c" in word
            takes_next = word[-1] in "oO"
    return None
