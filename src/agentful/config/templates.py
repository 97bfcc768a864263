"""What ``agentful init`` writes: a commented configuration, and a first plan that runs as it is."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct

from .agents import AGENT_FOLDER, README
from .schema import SCHEMAS, schema_text
from .settings import CONFIG_FILE
from .tomltext import toml_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

INSPECTED = ("Makefile", "package.json", "pyproject.toml", "requirements.txt", "setup.cfg", "tox.ini")
"""Files whose text tells :func:`detect` more than their name does."""

_STATE = PurePosixPath(CONFIG_FILE).parent
_MAKE_TEST = re.compile(r"^test[ \t]*:(?!=)", re.MULTILINE)
_NO_TEST = "no test specified"
"""What ``npm init`` leaves for a test script."""

_PYTEST = frozenset({"pytest.ini", "conftest.py"})
_PYTHON = frozenset({"pyproject.toml", "requirements.txt", "setup.cfg", "setup.py", "tox.ini"})
_NODE = {
    "pnpm-lock.yaml": ("pnpm install --frozen-lockfile", "pnpm test"),
    "yarn.lock": ("yarn install --frozen-lockfile", "yarn test"),
    "package-lock.json": ("npm ci", "npm test"),
}


class Detected(Struct, frozen=True, kw_only=True):
    """What a repository looks like it needs."""

    checks: tuple[str, ...] = ()
    """The command that most likely runs its tests."""
    setup: tuple[str, ...] = ()
    """What a fresh workspace needs before that command works."""
    agents: tuple[str, ...] = ()
    """The names of its agent files."""


def detect(files: Iterable[str], texts: Mapping[str, str] | None = None) -> Detected:
    """Guess from the paths of a repository's files, and the texts of those in ``INSPECTED`` where known.

    Paths are relative to the root, with forward slashes. The first of these that fits is the check:
    pytest or unittest in a Python project, the package manager's ``test`` script, ``go test``, ``cargo
    test``, ``make test``, pytest where there are only tests for it.
    """
    paths = {PurePosixPath(path) for path in files}
    top = {path.name for path in paths if len(path.parts) == 1}
    known = texts or {}
    folder = PurePosixPath(AGENT_FOLDER)
    agents = tuple(
        sorted(
            path.stem
            for path in paths
            if folder in path.parents and path.suffix == ".md" and path.name.casefold() != README
        )
    )
    tested = bool(top & _PYTEST) or any(map(_is_python_test, paths))
    if tested and top & (_PYTEST | _PYTHON):
        return Detected(checks=(_python_check(top, known),), agents=agents)
    if "package.json" in top and _has_test_script(known.get("package.json")):
        setup, check = next(
            (commands for lock, commands in _NODE.items() if lock in top), ("npm install", "npm test")
        )
        return Detected(checks=(check,), setup=(setup,), agents=agents)
    if "go.mod" in top:
        return Detected(checks=("go test ./...",), agents=agents)
    if "Cargo.toml" in top:
        return Detected(checks=("cargo test --quiet",), agents=agents)
    if "Makefile" in top and _MAKE_TEST.search(known.get("Makefile", "test:")):
        return Detected(checks=("make test",), agents=agents)
    return Detected(checks=(_python_check(top, known),) if tested else (), agents=agents)


def _python_check(top: set[str], known: Mapping[str, str]) -> str:
    """pytest, which runs the tests of unittest as well, unless only unittest is ever spoken of."""
    said = "\n".join(known.values())
    if not top & _PYTEST and "unittest" in said and "pytest" not in said:
        return "python3 -m unittest"
    return "pytest -q"


def _is_python_test(path: PurePosixPath) -> bool:
    name = path.name
    return name == "conftest.py" or (
        name.endswith(".py") and (name.startswith("test_") or "_test.py" in name)
    )


def _has_test_script(package: str | None) -> bool:
    """Whether a package.json has a test script; one that nobody has read is taken to have one."""
    if package is None:
        return True
    try:
        data: Any = json.loads(package)
    except (ValueError, RecursionError):
        return False
    scripts = cast("dict[str, Any]", data).get("scripts") if isinstance(data, dict) else None
    test = cast("dict[str, Any]", scripts).get("test") if isinstance(scripts, dict) else None
    return isinstance(test, str) and _NO_TEST not in test


def init_files(detected: Detected) -> dict[str, str]:
    """The files to write, by path from the root: configuration, its schemas, and an example of a plan."""
    schemas = {str(_STATE / f"{name}.schema.json"): schema_text(name) for name in SCHEMAS}
    return {CONFIG_FILE: config_template(detected), "plan.yaml": plan_template(detected), **schemas}


def config_template(detected: Detected) -> str:
    """A ``config.toml`` in which every usual setting stands, most of them as comments."""
    checks, setup = toml_text(detected.checks), toml_text(detected.setup)
    first = f"checks = {checks}" if detected.checks else '# checks = ["make test"]'
    second = f"setup = {setup}" if detected.setup else '# setup = ["npm ci"]'
    return f"""\
#:schema ./config.schema.json
# Settings of agentful for this repository, on this machine: git ignores this folder.
# To share them, put them under [tool.agentful] in pyproject.toml. 'agentful config' shows what holds.

# Commands that must pass on the merged tree before a task's work lands.
{first}

# Commands that make a fresh workspace ready, as installing what git ignores.
{second}

# How many tasks at once: a number, or "auto" for what this machine carries.
# max_concurrency = "auto"

# "auto" and "parallel" start whatever may start, "sequential" one task after the other.
# mode = "auto"

# More attempts after a failed one, each told what went wrong.
# retries = 1

# The longest that one attempt, and a whole run, may take.
# task_timeout = "30m"
# timeout = "4h"

# At the first task that fails for good: cancel the others, or go on with what does not need it.
# fail_fast = false

# Who plays the agents that do not say so themselves, as those of {AGENT_FOLDER}/*.md.
# [agent_defaults]
# command = ["my-agent", "--prompt-file", "{{prompt_file}}"]

# One agent; what stands here is laid over its Markdown file.
# [agents.backend]
# command = ["my-agent", "{{prompt}}"]
# timeout = "20m"
# writes = ["src/api/**"]
"""


def plan_template(detected: Detected) -> str:
    """A ``plan.yaml`` that runs as it is, with commands, and shows how agents are asked."""
    agent = detected.agents[0] if detected.agents else "backend"
    return f"""\
# yaml-language-server: $schema={_STATE}/plan.schema.json
# 'agentful plan' shows what would run when, and starts nothing; 'agentful run' runs it.
title: A first plan

tasks:
  # A command in a workspace of its own: a formatter, a code generator, any tool.
  hello:
    run: echo "hello" > hello.txt
    writes: [hello.txt]
  # Starts beside the first, as neither needs the other.
  date:
    run: date > date.txt
    writes: [date.txt]
  # Starts when both have landed, and sees what they wrote.
  both:
    run: cat hello.txt date.txt > both.txt
    needs: [hello, date]
    writes: [both.txt]

  # An agent with a prompt.
  # api:
  #   agent: {json.dumps(agent, ensure_ascii=False)}
  #   prompt: Implement the auth API
  #   writes: ["src/api/**"]
  #   timeout: 20m
"""
