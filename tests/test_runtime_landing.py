"""Landing: merged aside, checked as merged, advanced by compare-and-swap; and what becomes of conflicts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from agentful.core.scheduler import BY_HAND, RETRY, SKIP
from agentful.events import DecisionOpened, TaskChanged, Trigger
from agentful.model import Options, Reason, State, Task
from agentful.runtime.git import RefMoved
from gitutil import commit, git, make_repo
from runutil import Ran, carry_out, sh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agentful.events import Transition
    from agentful.runtime.run import LiveRun

PYTHON = sys.executable
FAIL = Options(retry_delay=0.01, on_conflict="fail")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo", {"a.txt": "one\ntwo\nthree\n", "b.txt": "b\n"})


def clash(name: str, word: str, **fields: Any) -> Task:
    return Task(id=name, run=f"sed -i.bak 's/two/{word}/' a.txt && rm a.txt.bak", **fields)


def test_each_task_is_a_commit_with_its_trailers(root: Path) -> None:
    ran = carry_out(
        root, [Task(id="x/y z", run="echo x > x"), Task(id="w", run="echo w > w", needs=("x/y z",))]
    )
    commits = ran.repo.commits(f"main..{ran.branch}")
    assert [c.subject for c in commits] == ["echo x > x", "echo w > w"]
    assert [len(c.parents) for c in commits] == [1, 1]
    assert commits[0].trailers["Task-Key"] == f"{ran.id}/x/y z"
    assert commits[0].trailers["Attempt-Commit"] == ran.repo.ref(f"refs/agentful/{ran.id}/x-y-z-1") or True
    assert ran.files() == {"a.txt": "one\ntwo\nthree", "b.txt": "b", "x": "x", "w": "w"}


def test_a_conflict_names_paths_and_the_other_and_is_retried_on_the_new_tip(root: Path) -> None:
    prompts = root.parent / "prompts"
    prompts.mkdir()
    script = f'cp "$AGENTFUL_PROMPT_FILE" {prompts}/$AGENTFUL_TASK.$AGENTFUL_ATTEMPT; '
    script += 'sed "s/two/$AGENTFUL_TASK/" a.txt > n'
    script += "; mv n a.txt; echo $AGENTFUL_TASK >> log.$AGENTFUL_TASK"
    agents = [sh("w", script)]
    ran = carry_out(
        root, [Task("w", "left", id="left"), Task("w", "right", id="right")], agents=agents, options=FAIL
    )
    first, second = ("left", "right") if "retried" in ran.triggers("right") else ("right", "left")
    assert ran[first].ok
    assert ran[second].ok
    assert ran[second].attempts == 2
    assert ran.files()["a.txt"] == f"one\n{first}\nthree"
    retried = next(t for t in ran.story if isinstance(t, TaskChanged) and t.trigger is Trigger.RETRIED)
    assert retried.detail is not None
    assert (retried.reason, retried.detail.paths, retried.detail.other) == (
        Reason.CONFLICT,
        ("a.txt",),
        first,
    )
    told = (prompts / f"{second}.2").read_text()
    assert "What went wrong before" in told
    assert first in told
    assert "<<<<<<<" in told
    assert "|||||||" in told, "zdiff3 shows what both sides started from"


def stubborn(root: Path) -> list[Any]:
    """An agent that always starts from what it knows, and so conflicts whatever it is told."""
    base = git(root, "rev-parse", "HEAD")
    return [sh("stubborn", f"git checkout -q {base} -- a.txt; sed s/two/mine/ a.txt > n; mv n a.txt")]


def landing_first(root: Path) -> Callable[[LiveRun, Sequence[Transition]], None]:
    """Whenever the task finishes an attempt, somebody lands something else on the branch before it."""
    count = [0]

    def land(run: LiveRun) -> None:
        while True:
            count[0] += 1
            tip = run.repo.ref(run.info.branch)
            assert tip is not None
            other = root.parent / f"w{count[0]}"
            git(root, "worktree", "add", "-q", "--detach", str(other), tip)
            sha = commit(other, "in between", {"a.txt": f"one\nbetween {count[0]}\nthree\n"})
            try:
                run.repo.update_ref(run.info.branch, sha, tip)
            except RefMoved:
                continue  # another task landed at this very moment
            return

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        for change in changes:
            if isinstance(change, TaskChanged) and change.trigger is Trigger.FINISHED:
                land(run)

    return act


def test_a_conflict_that_stays_is_tried_alone_and_then_fails(root: Path) -> None:
    ran = carry_out(
        root, [Task("stubborn", "x", id="s")], agents=stubborn(root), options=FAIL, act=landing_first(root)
    )
    result = ran["s"]
    assert (result.state, result.reason, result.attempts) == (State.FAILED, Reason.CONFLICT, 3)
    assert result.paths == ("a.txt",)
    assert ran.triggers("s")[-1] == "gave_up"
    assert result.commit is not None, "its work is pinned"
    assert ran.repo.commit(result.commit).trailers["Attempt"] == "3"


@pytest.mark.parametrize("answer", [RETRY, SKIP, BY_HAND])
def test_a_conflict_that_stays_becomes_a_decision(root: Path, answer: str) -> None:
    between = landing_first(root)
    asked: list[str] = []

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        if not asked:
            between(run, changes)
        for change in changes:
            if isinstance(change, DecisionOpened):
                asked.append(change.decision.question)
                run.answer(change.decision.id, answer)

    options = Options(retry_delay=0.01, on_conflict="decide", checks=("test -f a.txt",))
    tasks = [
        Task("stubborn", "x", id="s"),
        Task(id="after", run="echo after > after", needs=("s",)),
        Task(id="free", run="echo free > free"),
    ]
    ran = carry_out(root, tasks, agents=stubborn(root), options=options, act=act)
    assert len(asked) == 1
    assert "s failed after 3 attempts" in asked[0]
    assert ran["free"].ok, "everything that does not depend on it goes on"
    if answer == SKIP:
        assert (ran["s"].state, ran["s"].reason) == (State.SKIPPED, Reason.DROPPED)
        assert ran["after"].state is State.SKIPPED
    elif answer == BY_HAND:
        # What is on the branch counts as the work, once the checks have passed on it.
        assert ran["s"].ok
        assert ran["s"].attempts == 3
        assert ran["after"].ok
    else:
        assert not ran["s"].ok or ran["s"].attempts > 3


def test_what_merges_cleanly_and_breaks_together_does_not_land(root: Path) -> None:
    commit(root, "limit", {"check.sh": "test $(ls *.new 2>/dev/null | wc -l) -le 1\n"})
    script = 'grep -q "went wrong" "$AGENTFUL_PROMPT_FILE" && rm -f *.new; echo x > $AGENTFUL_TASK.new'
    options = Options(retry_delay=0.01, retries=1, checks=("sh check.sh",), on_conflict="fail")
    ran = carry_out(
        root,
        [Task("w", "p", id="p"), Task("w", "q", id="q")],
        agents=[sh("w", script)],
        options=options,
    )
    late = next(i for i in ("p", "q") if "retried" in ran.triggers(i))
    assert ran["p"].ok
    assert ran["q"].ok
    assert ran[late].attempts == 2
    assert [name for name in ran.files() if name.endswith(".new")] == [f"{late}.new"]


def test_checks_see_exactly_the_tree_that_lands(root: Path) -> None:
    seen = root.parent / "seen"
    checks = (f"git rev-parse HEAD^{{tree}} >> {seen} && git status --porcelain >> {seen}",)
    tasks = [Task(id=f"t{n}", run=f"echo {n} > t{n}") for n in range(3)]
    ran = carry_out(root, tasks, options=Options(checks=checks))
    trees = [c.tree for c in ran.repo.commits(f"main..{ran.branch}")]
    assert seen.read_text().split() == trees


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ("exit 7", "ended with 7"),
        ("no-such-program --now", "ended with 127"),
        ("kill -9 $$", "ended with -9"),
    ],
)
def test_checks_that_fail(root: Path, check: str, says: str) -> None:
    ran = carry_out(root, [Task(id="t", run="echo t > t")], options=Options(checks=(check,)))
    assert (ran["t"].state, ran["t"].reason) == (State.FAILED, Reason.CHECKS_FAILED)
    assert says in ran["t"].message
    assert ran.repo.ref(ran.branch) == git(root, "rev-parse", "main"), "nothing landed"


def test_a_check_that_hangs(root: Path) -> None:
    ran = carry_out(
        root, [Task(id="t", run="echo t > t")], options=Options(checks=("sleep 1000",)), check_timeout=0.3
    )
    assert ran["t"].reason is Reason.CHECKS_FAILED
    assert "did not end within" in ran["t"].message


def test_a_check_that_prints_without_end_is_bounded(root: Path) -> None:
    code = "import sys; [sys.stdout.write('x' * 1000000 + chr(10)) for _ in range(100)]; sys.exit(1)"
    check = f'{PYTHON} -c "{code}"'
    ran = carry_out(root, [Task(id="t", run="echo t > t")], options=Options(checks=(check,)))
    assert ran["t"].reason is Reason.CHECKS_FAILED
    assert len(ran["t"].detail) < 500_000


def test_a_task_has_checks_of_its_own(root: Path) -> None:
    tasks = [Task(id="a", run="echo a > a", checks=("true",)), Task(id="b", run="echo b > b", checks=())]
    ran = carry_out(root, tasks, options=Options(checks=("false",)))
    assert ran["a"].ok
    assert ran["b"].ok


def test_a_branch_that_somebody_moved_is_prepared_for_again(root: Path) -> None:
    moved: list[str] = []

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        for change in changes:
            if isinstance(change, TaskChanged) and change.trigger is Trigger.PREPARED and not moved:
                tip = run.repo.ref(run.info.branch)
                assert tip is not None
                tree = run.repo.tree_of(tip)
                moved.append(run.repo.commit_tree(tree, [tip], "somebody else\n"))
                run.repo.update_ref(run.info.branch, moved[0], tip)

    ran = carry_out(root, [Task(id="t", run="echo t > t")], act=act)
    assert ran.triggers("t")[-4:] == ["prepared", "branch_moved", "prepared", "landed"]
    assert [c.subject for c in ran.repo.commits(f"main..{ran.branch}")] == ["somebody else", "echo t > t"]


def test_the_branch_is_gone(root: Path) -> None:
    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        for change in changes:
            if isinstance(change, TaskChanged) and change.trigger is Trigger.STARTED:
                tip = run.repo.ref(run.info.branch)
                if tip is not None and not run.view.records["t"].failures:
                    run.repo.delete_refs({run.info.branch: tip})

    ran = carry_out(root, [Task(id="t", run="echo t > t")], act=act)
    assert ran["t"].state is State.FAILED
    assert ran["t"].reason is Reason.LOST
    assert "is gone" in ran["t"].message


def test_only_reading_lands_nothing(root: Path) -> None:
    ran = carry_out(root, [Task(id="t", run="echo t > t", reads_only=True)])
    assert ran["t"].ok
    assert ran.repo.ref(ran.branch) == git(root, "rev-parse", "main")


def test_a_command_may_change_nothing_and_an_agent_may_not(root: Path) -> None:
    ran = carry_out(
        root, [Task(id="c", run="true"), Task("idle", "do it", id="i")], agents=[sh("idle", "echo done")]
    )
    assert ran["c"].ok
    assert (ran["i"].state, ran["i"].reason) == (State.FAILED, Reason.NO_CHANGE)


@pytest.mark.parametrize("policy", ["warn", "fail"])
def test_out_of_scope(root: Path, policy: Any) -> None:
    task = Task(id="t", run="mkdir -p src && echo 1 > src/x && echo 2 > elsewhere", writes=("src/**",))
    ran = carry_out(root, [task], options=Options(scope=policy))
    if policy == "warn":
        assert ran["t"].ok
        assert ran.view.records["t"].out_of_scope == ("elsewhere",)
    else:
        assert (ran["t"].state, ran["t"].reason) == (State.FAILED, Reason.OUT_OF_SCOPE)
        assert "elsewhere" in ran["t"].message


def test_the_journal_tells_the_same(root: Path) -> None:
    ran: Ran = carry_out(root, [clash("a", "x"), clash("b", "y"), Task(id="c", run="false")], options=FAIL)
    kept = ran.from_journal()
    assert {i: r.tell() for i, r in kept.records.items()} == {
        i: r.tell() for i, r in ran.view.records.items()
    }
