"""The examples, run as they are: real processes, in a real repository, with scripts for agents."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentful.runtime.git import Repository
from agentful.runtime.run import journal_of
from gitutil import commit, git, make_repo, no_user_configuration, script, tree_files

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parent.parent / "examples"

AGENT = """
case "$AGENTFUL_AGENT:$AGENTFUL_TASK" in
    reviewer:*) echo "::summary looks good"; exit 0 ;;
    *:auth-ui) test -f "{repo}/helped" || {{ echo "there is no design"; exit 1; }} ;;
esac
echo "::progress 50 writing"
mkdir -p work
cat "$AGENTFUL_PROMPT_FILE" >> "work/$AGENTFUL_TASK.md"
echo "::summary did $AGENTFUL_TASK"
"""

ROLE = """---
name: {name}
description: The {name} of the team.
---
You are the {name}.
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the agents that the examples name, half of them in each place that there is."""
    no_user_configuration(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("AGENTFUL_WORKSPACES", str(tmp_path / "workspaces"))
    repo = tmp_path / "repo"
    script(tmp_path / "agent.sh", AGENT.format(repo=repo))
    make_repo(repo)
    commit(
        repo,
        "agents",
        {f".claude/agents/{name}.md": ROLE.format(name=name) for name in ("backend", "frontend")},
    )
    (repo / ".agentful").mkdir()
    (repo / ".agentful" / "config.toml").write_text(
        f'[agent_defaults]\ncommand = "{tmp_path}/agent.sh"\nprompt_by = "file"\n'
        "[agents.tester]\n[agents.reviewer]\n"
    )
    monkeypatch.chdir(repo)
    return repo


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Those that a test starts, and that end with it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def example(name: str, *args: str) -> list[str]:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *args],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def landed(root: Path) -> dict[str, str]:
    """What is on the one integration branch; the user's own was left alone."""
    assert git(root, "log", "--format=%s", "main").splitlines() == ["agents", "first"]
    assert git(root, "status", "--porcelain") == "?? .agentful/" or git(root, "status", "--porcelain") == ""
    (branch,) = git(root, "for-each-ref", "--format=%(refname)", "refs/heads/agentful").splitlines()
    files = tree_files(root, branch)
    return {name.removeprefix("work/"): text for name, text in files.items() if name.startswith("work/")}


def test_one_after_another(root: Path) -> None:
    said = example("sequential.py", "login")
    assert said[0] == "Building feature: login"
    assert said[-1] == "✓ Feature login complete"
    files = landed(root)
    assert sorted(files) == ["backend-1.md", "frontend-1.md", "tester-1.md"]
    assert files["backend-1.md"] == "You are the backend.\n\n## Your task\n\nImplement login API per spec"
    assert files["tester-1.md"] == "Write tests for login"


def test_in_parallel_then_in_order(root: Path) -> None:
    said = example("parallel.py", "login")
    assert said[:4] == [
        "Building feature: login (parallel mode)",
        "Phase 1: Parallel implementation...",
        "Phase 2: Testing...",
        "Phase 3: Validation...",
    ]
    assert re.fullmatch(r"✓ Feature login complete \(-?\d+% faster than one by one\)", said[4])
    assert sorted(landed(root)) == ["backend-1.md", "frontend-1.md", "tester-1.md"]


def test_many_features_in_phases_and_as_one_graph(root: Path) -> None:
    said = example("hybrid.py", "authentication", "user-profile")
    assert said[:6] == [
        "Phase 1: Parallel feature implementation...",
        "  4 of 4 done",
        "Phase 2: Parallel testing...",
        "  2 of 2 done",
        "Phase 3: Full codebase review...",
        "✓ All features complete",
    ]
    assert said[-2:] == ["  7/7 reviewer-1 succeeded", "✓ All features complete, as one graph"]
    files = landed(root)
    assert sorted(files) == [f"{role}-{n}.md" for role in ("backend", "frontend", "tester") for n in (1, 2)]
    # As one graph, a tester is told what was done before it.
    assert "### backend-1\n\ndid backend-1" in files["tester-1.md"]


def recovery(processes: list[subprocess.Popen[str]]) -> tuple[subprocess.Popen[str], str]:
    """Start the example, and wait until it asks; the line in which it does."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / "recovery.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    processes.append(process)
    assert process.stderr is not None
    return process, process.stderr.readline()


def ended(process: subprocess.Popen[str]) -> list[str]:
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, said + errors
    assert errors == ""
    return said.splitlines()


ASKED = [
    "✓ 2 tasks completed",
    "✗ 1 tasks failed",
    "Retrying: auth-ui (exit code 1: there is no design)",
    "✗ Retry failed: task 'auth-ui' failed: exit code 1: there is no design",
]


def test_a_failure_ends_in_a_question_that_is_answered_on_the_command_line(
    root: Path, processes: list[subprocess.Popen[str]]
) -> None:
    process, question = recovery(processes)
    assert question.startswith(
        "d1 waits for you: Task auth-ui failed twice. How to proceed? "
        "(Skip and continue | Manual implementation | Simplify requirements) "
        'Answer with: agentful decide d1 "Skip and continue" --run r-'
    )
    decide = [sys.executable, "-m", "agentful", "decide"]
    listed = subprocess.run(decide, capture_output=True, text=True, check=True)
    assert "? d1  Task auth-ui failed twice. How to proceed?" in listed.stdout
    assert "blocks auth-ui" in listed.stdout
    answered = subprocess.run([*decide, "d1", "3"], capture_output=True, text=True, check=False)
    assert answered.returncode == 0, answered.stderr
    assert ended(process) == [*ASKED, "  auth-ui: Simplify requirements"]
    assert sorted(landed(root)) == ["auth-api.md", "profile-api.md"]
    nothing = subprocess.run(decide, capture_output=True, text=True, check=True)
    assert nothing.stdout == "no question waits for you\n"


def test_a_failure_ends_in_a_question_that_is_answered_in_the_file(
    root: Path, processes: list[subprocess.Popen[str]]
) -> None:
    process, _ = recovery(processes)
    path = root / ".agentful" / "decisions.json"
    deadline = time.monotonic() + 60
    document: dict[str, list[dict[str, object]]] = {"decisions": []}
    while not document["decisions"] and time.monotonic() < deadline:
        # It is there a moment after the question was asked.
        time.sleep(0.01)
        document = json.loads(path.read_text())
    (entry,) = document["decisions"]
    assert entry["question"] == "Task auth-ui failed twice. How to proceed?"
    assert entry["blocking"] == ["auth-ui"]
    entry |= {"status": "resolved", "resolution": "Skip and continue"}
    path.write_text(json.dumps(document))
    assert ended(process) == [*ASKED, "  auth-ui: Skip and continue"]


def test_a_retry_with_more_context_may_succeed(root: Path) -> None:
    # The example retries with what went wrong in the prompt; this agent takes the hint.
    agent = root.parent / "agent.sh"
    script(
        agent,
        agent.read_text().replace(
            "{ echo", 'grep -q "first attempt failed" "$AGENTFUL_PROMPT_FILE" || { echo'
        ),
    )
    said = example("recovery.py")
    assert said == [*ASKED[:3], "✓ Retry successful: auth-ui"]
    assert "A first attempt failed: exit code 1: there is no design" in landed(root)["auth-ui.md"]


def test_where_nothing_fails_nothing_is_said_of_it(root: Path) -> None:
    (root / "helped").touch()
    git(root, "config", "core.excludesFile", str(root.parent / "ignore"))
    (root.parent / "ignore").write_text("helped\n")
    assert example("recovery.py") == ["✓ 3 tasks completed"]
    with journal_of(Repository.discover(root)) as journal:
        assert [run.state for run in journal.runs()] == ["succeeded"]
