from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cliutil import a_repo, as_json, ok, run_cli
from gitutil import git, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return a_repo(tmp_path, monkeypatch)


def test_what_init_writes_runs_as_it_is(root: Path) -> None:
    said = ok("init")
    assert "wrote .agentful/config.toml\n" in said
    assert "wrote plan.yaml\n" in said
    assert said.endswith("next: agentful doctor, agentful plan, agentful run\n")
    assert git(root, "status", "--short") == "?? plan.yaml", ".agentful is ignored, and .gitignore untouched"
    assert len(as_json("plan", "--json")["tasks"]) == 3
    assert run_cli("run").exit_code == 0


def test_init_overwrites_nothing(root: Path) -> None:
    write(root, {"agentful.yaml": "tasks: {a: {run: x}}", ".agentful/config.toml": "retries = 3\n"})
    said = ok("init")
    assert "kept  .agentful/config.toml\n" in said
    assert "kept  agentful.yaml\n" in said
    assert not (root / "plan.yaml").exists()
    assert (root / ".agentful" / "config.toml").read_text() == "retries = 3\n"
    assert "wrote" not in ok("init")


def test_init_sees_how_the_project_is_tested_and_its_agents(root: Path) -> None:
    write(root, {"tests/test_x.py": "", ".claude/agents/backend.md": "You are the backend."})
    said = ok("init")
    assert "what lands has to pass: pytest -q\n" in said
    assert "agents: backend\n" in said
    assert as_json("config", "show", "--json")["settings"]["checks"]["value"] == ["pytest -q"]


def test_init_where_nothing_can_be_written(root: Path) -> None:
    (root / ".agentful").write_text("in the way")
    result = run_cli("init")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


# --- config ---------------------------------------------------------------------------------------


def test_config_shows_settings_with_their_origins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, {"pyproject.toml": "[tool.agentful]\nretries = 4\nfail_fast = true\n"})
    monkeypatch.setenv("AGENTFUL_RETRIES", "2")
    rows = {line.split()[0]: line.split()[1:] for line in ok("config").splitlines()}
    assert rows["retries"] == ["2", "AGENTFUL_RETRIES"]
    assert rows["fail_fast"] == ["true", "pyproject.toml:3"]
    assert rows["timeout"] == ["-", "default"]
    assert ok("config", "show") == ok("config")
    document = as_json("config", "show", "--json")
    assert document["settings"]["retries"] == {"value": 2, "origin": "AGENTFUL_RETRIES"}


def test_config_in_the_spelling_of_the_seed(root: Path) -> None:
    said = ok("config", "--parallel", "--max-concurrent", "4")
    assert said.splitlines()[0].startswith('mode = "parallel", in .agentful/config.toml:')
    assert said.splitlines()[1].startswith("max_concurrency = 4, in .agentful/config.toml:")
    settings = as_json("config", "show", "--json")["settings"]
    assert (settings["mode"]["value"], settings["max_concurrency"]["value"]) == ("parallel", 4)
    ok("config", "--sequential")
    write(root, {"plan.yaml": "tasks: {a: {run: x}}"})
    assert as_json("plan", "--json")["slots"] == 1


def test_config_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ok("config", "set", "checks", "pytest -q").startswith('checks = ["pytest -q"], in ')
    assert ok("config", "set", "task-timeout", "10m").startswith('task_timeout = "10m", in ')
    assert ok("config", "set", "agents.backend.command", "my-agent {prompt}").startswith(
        "agents.backend.command = "
    )
    monkeypatch.setenv("AGENTFUL_RETRIES", "3")
    said = ok("config", "set", "retries", "5")
    assert said == "retries is set in .agentful/config.toml, but AGENTFUL_RETRIES says 3, and counts more\n"
    for args, problem in [
        (["retris", "2"], "did you mean 'retries'?"),
        (["retries", "many"], "retries"),
        (["nonsense.key", "2"], "no setting"),
    ]:
        result = run_cli("config", "set", *args)
        assert result.exit_code == 2
        assert problem in result.stderr


def test_a_broken_config_starts_nothing(root: Path) -> None:
    write(root, {".agentful/config.toml": "retries = [", "plan.yaml": "tasks: {a: {run: x}}"})
    for command in ("run", "plan", "config", "doctor"):
        result = run_cli(command)
        assert result.exit_code == (1 if command == "doctor" else 2)
        assert ".agentful/config.toml:1" in result.output


@pytest.mark.parametrize("name", ["plan", "config"])
def test_schemas(root: Path, name: str) -> None:
    assert as_json("config", "schema", name)["$schema"] == "http://json-schema.org/draft-07/schema#"


# --- doctor ---------------------------------------------------------------------------------------


def test_doctor_of_a_repository_that_is_ready(root: Path) -> None:
    write(root, {"plan.yaml": "checks: ['true']\ntasks: {a: {run: x}}"})
    result = run_cli("doctor")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert not [line for line in lines if line.startswith("bad")]
    assert any(line.startswith("ok   git 2.") for line in lines)
    assert "ok   the plan plan.yaml has 1 tasks, and its agents are there" in lines
    assert "ok   check: true" in lines


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("tasks: {a: {agent: nobody, prompt: x}}", "there is no agent 'nobody'"),
        ("tasks: [", "not valid YAML"),
        (
            "agents: {b: {command: [no-such-program]}}\ntasks: {a: {agent: b, prompt: x}}",
            "'no-such-program', which is not on this machine",
        ),
    ],
)
def test_doctor_finds_what_would_stop_a_run(root: Path, plan: str, said: str) -> None:
    write(root, {"plan.yaml": plan})
    result = run_cli("doctor")
    assert result.exit_code == 1
    bad = [line for line in result.stdout.splitlines() if line.startswith("bad")]
    assert len(bad) == 1
    assert said in bad[0]


def test_doctor_tells_what_would_not_stop_a_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        root,
        {
            ".agentful/config.toml": '[agents.spare]\ncommand = ["no-such-program"]\n',
            "tests/test_x.py": "",
        },
    )
    result = run_cli("doctor")
    assert result.exit_code == 0, result.output
    assert "note there is no plan here" in result.stdout
    assert "the agent 'spare' (.agentful/config.toml:1) runs 'no-such-program'" in result.stdout
    assert "fix: agentful config set checks 'pytest -q'" in result.stdout
    ok("config", "set", "checks", "no-such-tool --all")
    assert "note check: no-such-tool --all: no-such-tool is not on this machine" in ok("doctor")
    monkeypatch.setenv("AGENTFUL_WORKSPACES", str(root / "inside"))
    result = run_cli("doctor")
    assert result.exit_code == 1
    assert "inside the repository" in result.stdout


def test_doctor_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_repo(tmp_path, monkeypatch)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = run_cli("doctor")
    assert result.exit_code == 1
    assert "bad  " in result.stdout
    assert "git init" in result.stdout


def test_doctor_finds_a_damaged_journal(root: Path) -> None:
    write(root, {".agentful/journal.db": "no database at all, but long enough to be one" * 99})
    result = run_cli("doctor")
    assert result.exit_code == 1
    assert "the journal: " in result.stdout
