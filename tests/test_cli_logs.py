from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agentful.events import AttemptFailed
from agentful.model import Reason, Task
from agentful.runtime.git import Repository
from agentful.runtime.logs import AttemptLog
from agentful.runtime.redact import Redactor
from agentful.runtime.workspace import Workspaces
from cliutil import Terminal, a_repo, ok, run_cli, write_run
from gitutil import commit, git
from progressutil import Story, busy_story

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return a_repo(tmp_path, monkeypatch)


def log(root: Path, name: str, *lines: str, run: str = "r-111111") -> Path:
    path = root / ".agentful" / "logs" / run / f"{name}.jsonl"
    with AttemptLog(path, Redactor([]), lambda: 1.0) as opened:
        opened.begin(
            task="x", attempt=int(name.split(".")[1]), agent="backend", base="0123456789abc", prompt="p"
        )
        for line in lines:
            opened.line(line)
        opened.note("exit code 0")
    return path


def test_logs_shows_the_latest_attempt_and_its_checks(root: Path) -> None:
    write_run(root, busy_story())
    log(root, "cli.1", "first try")
    log(root, "cli.2", "second \x1b[31mtry\x1b[0m", "日本語")
    log(root, "cli.2.checks", "1 passed")
    assert ok("logs", "cli").splitlines() == [
        "── attempt 2 · backend · from 012345678",
        "second try",
        "日本語",
        "── exit code 0",
        "── attempt 2 · backend · from 012345678",
        "1 passed",
        "── exit code 0",
    ]
    assert "first try" in ok("logs", "cli", "--attempt", "1")
    assert "second" not in ok("logs", "cli", "--attempt", "1")


def test_raw_logs_are_json_lines(root: Path) -> None:
    write_run(root, busy_story())
    path = log(root, "cli.2", "a line")
    assert ok("logs", "cli", "--raw") == path.read_text()


def test_a_log_with_a_torn_line(root: Path) -> None:
    write_run(root, busy_story())
    path = log(root, "cli.2", "a line")
    with path.open("ab") as file:
        file.write(b'not json\n[1]\n{"line": "half')
    assert ok("logs", "cli").splitlines()[-1] == "── exit code 0"


def test_logs_of_what_has_none(root: Path) -> None:
    write_run(root, busy_story())
    assert "has not started yet; agentful explain tests says why" in run_cli("logs", "tests").stderr
    assert "there is no log of cli" in run_cli("logs", "cli").stderr
    assert "there is no attempt 7" in run_cli("logs", "cli", "--attempt", "7").stderr


def test_follow_ends_with_a_run_that_nobody_carries_out(root: Path) -> None:
    write_run(root, busy_story())
    log(root, "api.1", "still going")
    assert "still going" in ok("logs", "api", "-f")


def test_a_task_is_named_by_the_start_of_its_id(root: Path) -> None:
    write_run(root, busy_story())
    result = run_cli("logs", "a")
    assert result.exit_code == 2
    assert "could be any of 2 tasks: api, auth" in result.stderr
    result = run_cli("logs", "doks")
    assert result.exit_code == 2
    assert "Did you mean 'docs'?" in result.stderr


def landed(root: Path) -> str:
    """A commit with a change, on the run's branch."""
    git(root, "switch", "-q", "-c", "work")
    sha = commit(root, "change", {"README.md": "hello\nworld \x1b[31mred\n", "new.py": "x = 1\n"})
    git(root, "switch", "-q", "main")
    return sha


def failed_with(sha: str | None) -> Story:
    story = Story(Task("a", "x", id="one"), Task("a", "y", id="two"), max_concurrency=1)
    story.tell(AttemptFailed(1_000_001.0, "one", 1, Reason.AGENT_FAILED, "no", "", sha))
    return story


def test_diff_shows_what_a_task_left(root: Path) -> None:
    write_run(root, failed_with(landed(root)))
    text = ok("diff", "one")
    assert "+x = 1" in text
    assert "+world red" in text
    stat = ok("diff", "one", "--stat")
    assert "new.py" in stat
    assert "2 files changed" in stat


def test_diff_of_one_attempt(root: Path) -> None:
    write_run(root, failed_with(None))
    result = run_cli("diff", "one", "--attempt", "1")
    assert result.exit_code == 2
    assert "nothing is pinned for attempt 1 of one" in result.stderr
    git(root, "update-ref", "refs/agentful/r-111111/one/1", landed(root))
    assert "+x = 1" in ok("diff", "one", "--attempt", "1")


def test_diff_of_nothing(root: Path) -> None:
    write_run(root, failed_with(None))
    assert "one is failed, and has left nothing" in run_cli("diff", "one").stderr
    assert "agentful attach two goes there" in run_cli("diff", "two").stderr


def test_attach_prints_where_a_task_is_at_work(root: Path) -> None:
    write_run(root, failed_with(None))
    spaces = Workspaces(Repository.discover(root), "r-111111")
    workspace = spaces.open("two.1", git(root, "rev-parse", "HEAD"))
    assert ok("attach", "two").strip() == str(workspace.path)
    assert ok("attach", "two", "--path").strip() == str(workspace.path)
    result = run_cli("attach", "one")
    assert result.exit_code == 2
    assert "has no workspace now" in result.stderr


def test_attach_opens_a_shell_there(root: Path, tmp_path: Path) -> None:
    write_run(root, failed_with(None))
    spaces = Workspaces(Repository.discover(root), "r-111111")
    workspace = spaces.open("two.1", git(root, "rev-parse", "HEAD"))
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\npwd > here\n")
    shell.chmod(0o755)
    terminal = Terminal("attach", "two", cwd=root, SHELL=str(shell))
    assert terminal.end() == 0
    assert (workspace.path / "here").read_text().strip() == str(workspace.path)
    assert "becomes part of its result" in terminal.said


def test_the_shell_completes_tasks_and_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(root, busy_story())
    monkeypatch.setenv("_AGENTFUL_COMPLETE", "bash_complete")
    for words, found in [
        ("agentful logs a", ["plain,api", "plain,auth"]),
        ("agentful diff do", ["plain,docs"]),
        ("agentful status r-", ["plain,r-111111"]),
    ]:
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", "2")
        assert run_cli().output.split() == found
    monkeypatch.chdir("/")
    assert run_cli().output.split() == []
