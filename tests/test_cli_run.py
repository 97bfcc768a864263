"""Plans run through the command line, in this process, with real git and real commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agentful.runtime.git import Repository
from agentful.runtime.run import LiveRun, RunSpec
from cliutil import a_repo, as_json, ok, run_cli
from gitutil import commit, git, write

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

THREE = """\
title: Three files
tasks:
  one: {run: echo 1 > one.txt, writes: [/one.txt], estimate: 1s}
  two: {run: echo 2 > two.txt, writes: [/two.txt], estimate: 1s}
  both: {run: cat one.txt two.txt > both.txt, needs: [one, two], writes: [/both.txt], estimate: 1s}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return a_repo(tmp_path, monkeypatch)


def ran(root: Path, plan: str, *args: str) -> Result:
    write(root, {"plan.yaml": plan})
    return run_cli("run", *args)


def lines_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_plan_runs_and_lands_on_a_branch_of_its_own(root: Path) -> None:
    result = ran(root, THREE)
    assert result.exit_code == 0, result.output
    run = as_json("status", "--json")["run"]
    assert git(root, "show", f"agentful/{run}:both.txt") == "1\n2"
    assert result.stdout.splitlines()[0].startswith(
        f"{run}: 3 of 3 tasks done, 3 landed on agentful/{run} in "
    )
    assert f"next   agentful land {run}" in result.stdout
    assert "predicted 2s" in result.stdout
    plain = result.stderr.splitlines()
    assert plain[0].startswith(f"run {run} Three files: ")
    assert sum(line.split("] ")[1].startswith("done ") for line in plain[1:]) == 3
    assert git(root, "status", "--short") == "?? plan.yaml"
    assert git(root, "branch", "--show-current") == "main"
    assert ok("land").startswith("main is at ")
    assert (root / "both.txt").read_text() == "1\n2\n"
    assert ok("land") == f"main has all of agentful/{run} already\n"


def test_a_run_as_json(root: Path) -> None:
    result = ran(root, THREE, "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    first, *others, last = lines_of(result)
    assert (first["type"], first["version"]) == ("version", 1)
    assert (last["type"], last["exit_code"], last["state"]) == ("result", 0, "succeeded")
    assert last == {"type": "result", "exit_code": 0} | as_json("status", "--json")
    states = [(entry["task"], entry["state"]) for entry in others if entry["type"] == "task"]
    assert [state for task, state in states if task == "both"] == [
        "ready",
        "running",
        "landing",
        "landing",
        "succeeded",
    ]


def test_quiet_says_only_what_came_of_it(root: Path) -> None:
    result = ran(root, THREE, "--progress", "quiet")
    assert result.stderr == ""
    assert "3 of 3 tasks done" in result.stdout


def test_run_and_land_in_one(root: Path) -> None:
    result = ran(root, THREE, "--land")
    assert result.exit_code == 0
    assert (root / "both.txt").read_text() == "1\n2\n"
    assert "main is at " in result.stderr


def test_a_run_that_failed_is_not_landed(root: Path) -> None:
    result = ran(root, "tasks: {a: {run: touch a}, b: {run: exit 3}}", "--land")
    assert result.exit_code == 1
    assert not (root / "a").exists()


CLASH = """\
conflict_retries: 0
conflicts: optimistic
tasks:
  one: {run: "until [ -e GATE ]; do sleep 0.02; done; echo 1 > README.md"}
  two: {run: "echo 2 > README.md; touch GATE"}
"""


@pytest.mark.parametrize(
    ("plan", "args", "code"),
    [
        ("tasks: {a: {run: exit 3}}", [], 1),
        ("tasks: {a: {run: exit 3}, b: {run: touch b, needs: [a]}}", [], 1),
        ("tasks: {a: {run: exit 3}}", ["--on-failure", "decide"], 3),
        ("checks: ['false']\ntasks: {a: {run: touch a}}", [], 4),
        ("tasks: {a: {run: touch a}}", ["--checks", "true", "--checks", "false"], 4),
        (CLASH, ["--on-conflict", "fail"], 4),
        (CLASH, [], 3),
        ("tasks: {a: {run: sleep 60}}", ["--timeout", "0.2s"], 5),
        ("tasks: {a: {run: sleep 60, timeout: 0.2s}}", [], 1),
    ],
)
def test_exit_codes(root: Path, tmp_path: Path, plan: str, args: list[str], code: int) -> None:
    result = ran(root, plan.replace("GATE", str(tmp_path / "gate")), *args, "--json")
    assert result.exit_code == code, result.output
    assert lines_of(result)[-1]["exit_code"] == code
    assert run_cli("status", "--exit-code").exit_code == code


def test_what_waits_for_a_person_says_how_to_answer(root: Path) -> None:
    result = ran(root, "tasks: {a: {run: exit 3}, b: {run: touch b}}", "--on-failure", "decide")
    assert result.exit_code == 3
    run = as_json("status", "--json")["run"]
    assert f"agentful decide d1 NUMBER --run {run}" in result.stdout
    assert f"agentful resume {run}" in result.stdout
    assert as_json("status", "--json")["state"] == "waiting"
    assert ok("decide", "d1", "skip").startswith("d1: Skip and continue; go on with: agentful resume")
    assert run_cli("resume").exit_code == 1
    states = {task["id"]: task["state"] for task in as_json("status", "--json")["tasks"]}
    assert states == {"a": "skipped", "b": "succeeded"}


def test_flags_go_above_the_plan(root: Path) -> None:
    plan = f"max_concurrency: 3\nmode: parallel\n{THREE}"
    assert as_json("plan", str(_written(root, plan)), "--json")["slots"] == 3
    assert as_json("plan", "--json", "-j", "7")["slots"] == 7
    assert as_json("plan", "--json", "--mode", "sequential")["slots"] == 1
    assert as_json("plan", "--json", "-j", "auto")["slots"] >= 1
    result = run_cli("run", "-j", "1", "--title", "A title")
    assert "A title: one at a time" in result.stderr


def _written(root: Path, plan: str) -> Path:
    write(root, {"plan.yaml": plan})
    return root / "plan.yaml"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-j", "0"], "--max-concurrency"),
        (["-j", "many"], "--max-concurrency"),
        (["--timeout", "soon"], "--timeout"),
        (["--retries", "-1"], "--retries"),
        (["--retries", "x"], "--retries"),
        (["--base", "no-such-branch"], "there is no commit 'no-such-branch'"),
        (["--mode", "paralel"], "'paralel' is not one of"),
    ],
)
def test_a_bad_flag_starts_nothing(root: Path, args: list[str], said: str) -> None:
    result = ran(root, THREE, *args)
    assert result.exit_code == 2
    assert said in result.stderr
    assert_nothing_began(root)


def assert_nothing_began(root: Path) -> None:
    assert not (root / ".agentful" / "journal.db").exists()
    assert git(root, "branch", "--list", "agentful/*") == ""


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("", "it is empty"),
        ("tasks: {}", "there is no task"),
        ("tasks: [", "plan.yaml:"),
        ("just words", "plan.yaml"),
        ("tasks: {a: {run: x, needs: [b]}, b: {run: x, needs: [a]}}", "a cycle: a needs b needs a"),
        ("tasks: {a: {run: x, needs: [bb]}, b: {run: x}}", "'bb'"),
        ("tasks: {a: {run: x, need: [b]}}", "did you mean 'needs'?"),
        ("tasks: {a: {agent: nobody, prompt: x}}", "there is no agent 'nobody'"),
        (
            "agents: {b: {command: [no-such-program-here]}}\ntasks: {a: {agent: b, prompt: x}}",
            "no-such-program-here",
        ),
        ("tasks: {a: {run: x, writes: ['../x']}}", "leaves the repository"),
        ("tasks: {a: {prompt: x}}", "no agent"),
        ("checks: {a: b}\ntasks: {a: {run: x}}", "checks"),
    ],
)
def test_a_bad_plan_starts_nothing(root: Path, plan: str, said: str) -> None:
    result = ran(root, plan)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert_nothing_began(root)


def test_there_is_no_plan(root: Path) -> None:
    result = run_cli("run")
    assert result.exit_code == 2
    assert "agentful init" in result.stderr
    result = run_cli("run", "nowhere.yaml")
    assert result.exit_code == 2
    assert "nowhere.yaml: there is no such file" in result.stderr
    assert run_cli("run", ".").exit_code == 2


def test_a_dry_run_is_a_plan(root: Path) -> None:
    result = ran(root, THREE, "--dry-run")
    assert result.exit_code == 0
    assert result.stdout == ok("plan")
    assert json.loads(ran(root, THREE, "--dry-run", "--json").stdout) == as_json("plan", "--json")
    assert_nothing_began(root)


def test_plan_shows_what_run_would_refuse(root: Path) -> None:
    write(root, {"plan.yaml": "tasks: {a: {agent: nobody, prompt: x, estimate: 5s}}"})
    document = as_json("plan", "--json")
    assert document["makespan"] == 5
    assert "it cannot be run as it is: plan.yaml:1: there is no agent 'nobody'" in document["warnings"][0]
    assert "next: agentful run\n" in ok("plan")
    assert "next: agentful run plan.yaml\n" in ok("plan", "plan.yaml")
    write(root, {"plan.yaml": "tasks: {a: {run: x, needs: [a]}}"})
    assert run_cli("plan").exit_code == 2


def test_what_is_not_committed_is_told_of(root: Path) -> None:
    write(root, {"README.md": "changed\n", "new.txt": "x"})
    result = ran(root, THREE)
    assert "note: 2 files in your checkout are not committed" in result.stderr
    assert "README.md, new.txt" in result.stderr
    assert (root / "README.md").read_text() == "changed\n"


def test_land_says_why_it_cannot(root: Path) -> None:
    ran(root, "tasks: {a: {run: echo run > README.md}}")
    write(root, {"README.md": "mine\n"})
    result = run_cli("land")
    assert result.exit_code == 1
    assert "uncommitted" in result.stderr
    assert (root / "README.md").read_text() == "mine\n"
    commit(root, "mine", {"README.md": "mine\n"})
    result = run_cli("land")
    assert result.exit_code == 4
    assert "conflict in README.md" in result.stderr
    result = run_cli("land", "--into", "nowhere")
    assert result.exit_code == 1
    assert "there is no branch 'nowhere'" in result.stderr


def test_land_merges_where_your_branch_went_on(root: Path) -> None:
    ran(root, "checks: [test -e a -a -e README.md]\ntasks: {a: {run: touch a}}")
    commit(root, "mine", {"mine.txt": "mine\n"})
    said = ok("land")
    assert "(a merge, which passed the checks): 1 commit from agentful/r-" in said
    assert (root / "a").exists()
    assert (root / "mine.txt").exists()


def test_retry(root: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    plan = "tasks: {a: {run: 'test -e GATE && touch a'}, b: {run: touch b, needs: [a]}, c: {run: touch c}}"
    plan = plan.replace("GATE", str(gate))
    assert ran(root, plan).exit_code == 1
    assert run_cli("retry", "c").exit_code == 2
    assert run_cli("retry", "nobody").exit_code == 2
    assert run_cli("retry").exit_code == 1, "it fails again"
    gate.touch()
    result = run_cli("retry", "a")
    assert result.exit_code == 0, result.output
    states = {task["id"]: (task["state"], task["attempts"]) for task in as_json("status", "--json")["tasks"]}
    assert states == {"a": ("succeeded", 3), "b": ("succeeded", 1), "c": ("succeeded", 1)}
    result = run_cli("retry")
    assert result.exit_code == 2
    assert "nothing failed in run" in result.stderr


def test_resume_of_a_run_that_has_ended(root: Path) -> None:
    ran(root, THREE)
    result = run_cli("resume")
    assert result.exit_code == 0
    assert "has ended; agentful retry runs what failed" in result.stderr


def test_resume_of_a_run_that_was_killed_before_its_tasks_were_written_down(root: Path) -> None:
    spec = RunSpec(tasks=(), plan="plan.yaml", plan_text=THREE, title="Three files")

    run = LiveRun.create(Repository.discover(root), spec)
    run._lock.release()
    run._journal.close()
    assert as_json("status", "--json")["tasks"] == []
    result = run_cli("resume", "-j", "1")
    assert result.exit_code == 0, result.output
    assert "3 of 3 tasks done" in result.stdout
    assert "one at a time" in result.stderr


def test_recover(root: Path) -> None:
    ran(root, "tasks: {a: {run: 'echo half > a; exit 1'}, b: {run: touch b}}")
    run = as_json("status", "--json")["run"]
    result = run_cli("recover")
    assert result.exit_code == 0
    rows = {line.split("  ")[-1]: line for line in result.stdout.splitlines()}
    assert "not landed" in rows["a, attempt 1"]
    assert "not landed" not in rows["b, attempt 1"]
    said = ok("recover", run[2:4], "a")
    assert said == f"a, attempt 1, is on the branch recovered/{run}/a-1: git switch recovered/{run}/a-1\n"
    assert git(root, "show", f"recovered/{run}/a-1:a") == "half"
    assert ok("recover", "latest", "b", "--branch", "mine").startswith("b, attempt 1, is on the branch mine")
    for args, problem in [
        (["nope"], "nothing is pinned of a run 'nope'"),
        ([run, "zzz"], "nothing of 'zzz' is pinned"),
        ([run, "a", "--attempt", "9"], "attempt 9 of a is not pinned"),
    ]:
        result = run_cli("recover", *args)
        assert result.exit_code == 2
        assert problem in result.stderr
    assert run_cli("recover", run, "a", "--branch", "mine").exit_code == 1


def test_clean(root: Path) -> None:
    assert ok("clean") == "there is nothing to clean\n"
    ran(root, "tasks: {a: {run: 'echo half > a; exit 1'}, b: {run: touch b}}")
    run = as_json("status", "--json")["run"]
    result = run_cli("clean")
    assert result.exit_code == 0
    assert "to remove 1 pin: agentful clean --yes" in result.stdout
    assert "2 more may hold work that is on no branch of yours" in result.stderr
    assert git(root, "for-each-ref", "--format=%(refname)", "refs/agentful") != ""
    assert ok("clean", "--yes").endswith("removed 1 of 1\n")
    left = git(root, "for-each-ref", "--format=%(refname)", "refs/agentful").splitlines()
    assert left == [f"refs/agentful/{run}/a/1"]
    assert ok("clean", "--yes", "--unlanded").endswith("removed 2 of 2\n")
    assert git(root, "for-each-ref", "refs/agentful", "refs/heads/agentful") == ""
