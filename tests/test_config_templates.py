"""What ``init`` writes, and what it guesses from a list of files."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from agentful.config import Settings, load_settings, parse_plan, resolve
from agentful.config.templates import Detected, detect, init_files

if TYPE_CHECKING:
    from pathlib import Path

NPM_NONE = '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}'


@pytest.mark.parametrize(
    ("files", "texts", "checks", "setup"),
    [
        ([], {}, (), ()),
        (["README.md", "docs/test.md"], {}, (), ()),
        (["pyproject.toml", "tests/test_app.py"], {}, ("pytest -q",), ()),
        (["pytest.ini"], {}, ("pytest -q",), ()),
        (["src/app.py"], {}, (), ()),
        (["setup.py", "app/test_app.py", "package.json"], {}, ("pytest -q",), ()),
        (
            ["pyproject.toml", "tests/test_app.py"],
            {"Makefile": "test:\n\tpython -m unittest\n", "pyproject.toml": "[project]\n"},
            ("python3 -m unittest",),
            (),
        ),
        (
            ["pyproject.toml", "tests/test_app.py"],
            {"Makefile": "test:\n\tpython -m unittest\n", "pyproject.toml": "dev = ['pytest']\n"},
            ("pytest -q",),
            (),
        ),
        (["conftest.py"], {"Makefile": "\tpython -m unittest\n"}, ("pytest -q",), ()),
        (["tests/test_app.py"], {}, ("pytest -q",), ()),
        (["go.mod", "tools/test_gen.py"], {}, ("go test ./...",), ()),
        (["package.json"], {}, ("npm test",), ("npm install",)),
        (
            ["package.json", "package-lock.json"],
            {"package.json": '{"scripts": {"test": "vitest"}}'},
            ("npm test",),
            ("npm ci",),
        ),
        (["package.json", "pnpm-lock.yaml"], {}, ("pnpm test",), ("pnpm install --frozen-lockfile",)),
        (["package.json", "yarn.lock"], {}, ("yarn test",), ("yarn install --frozen-lockfile",)),
        (["package.json"], {"package.json": NPM_NONE}, (), ()),
        (["package.json"], {"package.json": "{}"}, (), ()),
        (["package.json"], {"package.json": "broken"}, (), ()),
        (["package.json"], {"package.json": "[1]"}, (), ()),
        (["package.json"], {"package.json": '{"scripts": 1}'}, (), ()),
        (["go.mod", "main.go"], {}, ("go test ./...",), ()),
        (["Cargo.toml"], {}, ("cargo test --quiet",), ()),
        (["Makefile"], {}, ("make test",), ()),
        (["Makefile"], {"Makefile": "all: x\n\ttest: y\ntest := 3\n"}, (), ()),
        (["Makefile"], {"Makefile": "all: x\ntest : all\n\tgo\n"}, ("make test",), ()),
        (["web/package.json", "web/Makefile"], {}, (), ()),
    ],
)
def test_what_is_guessed(
    files: list[str], texts: dict[str, str], checks: tuple[str, ...], setup: tuple[str, ...]
) -> None:
    assert detect(files, texts) == Detected(checks=checks, setup=setup)


def test_agents_are_seen() -> None:
    files = [
        ".claude/agents/backend.md",
        ".claude/agents/x/tester.md",
        ".claude/agents/README.md",
        ".claude/agents/note.txt",
        "agents/a.md",
    ]
    assert detect(files).agents == ("backend", "tester")


@pytest.mark.parametrize(
    "detected",
    [
        Detected(),
        Detected(checks=('say "hi"',), setup=("npm ci",), agents=("b: c",)),
    ],
)
def test_what_is_written_is_valid_and_runs_as_it_is(tmp_path: Path, detected: Detected) -> None:
    files = init_files(detected)
    assert set(files) == {
        "plan.yaml",
        ".agentful/config.toml",
        ".agentful/config.schema.json",
        ".agentful/plan.schema.json",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    settings = load_settings(tmp_path, env={})
    assert (settings.checks, settings.setup) == (detected.checks, detected.setup)
    plan = parse_plan(files["plan.yaml"], "plan.yaml")
    assert [task.id for task in plan.tasks] == ["hello", "date", "both"]
    assert resolve(plan, settings, {})[1] == {}


def _uncommented(text: str) -> str:
    """The template as somebody has it who takes away the comment signs before what is no prose."""
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    return "\n".join(line for line in lines if line.startswith(("[", " ")) or " = " in line or not line)


def test_what_stands_in_comments_is_valid_too(tmp_path: Path) -> None:
    files = init_files(Detected())
    text = _uncommented(files[".agentful/config.toml"])
    assert len(tomllib.loads(text)) >= 9
    (tmp_path / ".agentful").mkdir()
    (tmp_path / ".agentful/config.toml").write_text(text)
    settings = load_settings(tmp_path, env={})
    assert settings != Settings()
    assert settings.agents["backend"]["timeout"] == 1200

    plan = files["plan.yaml"].replace("  # api:", "  api:").replace("  #   ", "    ")
    task = parse_plan(plan, "plan.yaml").tasks[-1]
    assert (task.id, task.agent, task.timeout) == ("api", "backend", 1200)
