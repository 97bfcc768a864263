"""What past runs left: landing it on the user's branch, pins to recover, leftovers to clean."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from agentful.errors import AgentfulError, ChecksFailed, ConflictError, WorkspaceError
from agentful.events import TaskChanged, Trigger
from agentful.model import Options, State, Task
from agentful.runtime import branch
from agentful.runtime.branch import LandReport, Leftover
from agentful.runtime.git import Repository
from agentful.runtime.run import LiveRun, RunSpec, journal_of, lock_of
from agentful.runtime.workspace import Workspaces
from gitutil import commit, git, make_repo, script, state_of
from runutil import Ran, carry_out, enter, resume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agentful.events import Transition

OPTIONS = Options(retries=0, on_conflict="fail", on_failure="fail")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo", {"a.txt": "one\ntwo\nthree\n", "b.txt": "b\n"})


def made(root: Path, *tasks: Task, **options: Any) -> Ran:
    return carry_out(
        root,
        tasks or [Task(id="t", run="sed -i.bak s/two/2/ a.txt; rm a.txt.bak; echo t > t")],
        options=Options(retries=0, on_conflict="fail", on_failure="fail", **options),
    )


def land(ran: Ran, into: str | None = None) -> LandReport:
    with journal_of(ran.repo) as journal:
        info = journal.find(ran.id)
    return asyncio.run(branch.land(ran.repo, info, into=into))


def left(ran: Ran, kind: str | None = None) -> list[Leftover]:
    return [x for x in branch.leftovers(ran.repo) if kind in (None, x.kind)]


# --- land -----------------------------------------------------------------------------------------


def test_land_moves_the_branch_that_is_checked_out_and_its_files(root: Path) -> None:
    ran = made(root)
    assert not (root / "t").exists()
    report = land(ran)
    assert (report.kind, report.branch, len(report.commits)) == ("fast-forward", "main", 1)
    assert git(root, "rev-parse", "main") == report.commit == ran.repo.ref(ran.branch)
    assert (root / "t").read_text() == "t\n"
    assert git(root, "status", "--porcelain") == ""
    again = land(ran)
    assert (again.kind, again.commits) == ("nothing", ())


def test_land_merges_and_checks_what_it_merged(root: Path) -> None:
    ran = made(root, checks=("! test -f broken || ! test -f t",))
    mine = commit(root, "mine", {"mine.txt": "mine\n"})
    report = land(ran)
    assert report.kind == "merge"
    assert git(root, "rev-parse", "main^1", "main^2").split() == [mine, ran.repo.ref(ran.branch)]
    assert ran.files("main") == {"a.txt": "one\n2\nthree", "b.txt": "b", "t": "t", "mine.txt": "mine"}
    assert git(root, "log", "-1", "--format=%an <%ae>") == "Tess Tester <tess@example.com>"
    assert not Workspaces(ran.repo, ran.id).existing()


def test_land_moves_nothing_where_the_merged_tree_fails(root: Path) -> None:
    ran = made(root, checks=("if test -f broken && test -f t; then echo both; exit 1; fi",))
    commit(root, "mine", {"broken": ""})
    before = state_of(root)
    with pytest.raises(ChecksFailed, match="both"):
        land(ran)
    assert state_of(root) == before
    assert not Workspaces(ran.repo, ran.id).existing()


def test_land_moves_nothing_where_the_two_conflict(root: Path) -> None:
    ran = made(root)
    commit(root, "mine", {"a.txt": "one\nzwei\nthree\n"})
    before = state_of(root)
    with pytest.raises(ConflictError, match=r"a\.txt") as raised:
        land(ran)
    assert raised.value.paths == ("a.txt",)
    assert state_of(root) == before


@pytest.mark.parametrize("staged", [True, False])
def test_land_stays_away_from_uncommitted_work(root: Path, staged: bool) -> None:
    ran = made(root)
    (root / "a.txt").write_text("my own\n")
    if staged:
        git(root, "add", "a.txt")
    before = state_of(root)
    with pytest.raises(WorkspaceError, match="Commit or stash"):
        land(ran)
    assert state_of(root)[:5] == before[:5]
    assert (root / "a.txt").read_text() == "my own\n"


@pytest.mark.parametrize("ignored", [True, False])
def test_land_overwrites_no_untracked_file(root: Path, ignored: bool) -> None:
    if ignored:
        (root / ".git" / "info" / "exclude").write_text("t\n")
    ran = made(root, Task(id="t", run="echo t > t; git add -f t"))
    if ignored:
        assert "t" not in ran.files()
        return
    (root / "t").write_text("my own\n")
    with pytest.raises(WorkspaceError, match="Commit or stash"):
        land(ran)
    assert (root / "t").read_text() == "my own\n"


def test_land_goes_with_uncommitted_work_elsewhere(root: Path) -> None:
    ran = made(root)
    (root / "b.txt").write_text("my own\n")
    assert land(ran).kind == "fast-forward"
    assert (root / "b.txt").read_text() == "my own\n"
    assert git(root, "status", "--porcelain") == " M b.txt"


def test_land_on_another_branch_leaves_the_checkout_alone(root: Path) -> None:
    ran = made(root)
    git(root, "branch", "other")
    before = (git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD"))
    assert land(ran, "other").branch == "other"
    assert git(root, "rev-parse", "other") == ran.repo.ref(ran.branch)
    assert (git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD")) == before


def test_land_moves_no_branch_under_another_worktree(root: Path) -> None:
    ran = made(root)
    git(root, "worktree", "add", "-q", "-b", "other", str(root.parent / "linked"))
    tip = git(root, "rev-parse", "other")
    with pytest.raises(WorkspaceError, match="another worktree"):
        land(ran, "other")
    assert git(root, "rev-parse", "other") == tip


def test_land_from_a_linked_worktree(root: Path) -> None:
    linked = root.parent / "linked"
    git(root, "worktree", "add", "-q", "-b", "other", str(linked))
    ran = made(linked)
    assert land(ran).branch == "other"
    assert (linked / "t").exists()
    assert not (root / "t").exists()


@pytest.mark.parametrize("name", ["nope", "a..b", "-f", "--all", "refs/heads/main", "a b", ""])
def test_land_on_a_branch_that_is_not_there(root: Path, name: str) -> None:
    ran = made(root)
    if name == "":
        git(root, "checkout", "-q", "--detach")
    with pytest.raises(WorkspaceError, match=r"no branch"):
        land(ran, name)


def test_land_when_the_runs_branch_is_gone(root: Path) -> None:
    ran = made(root)
    tip = ran.repo.ref(ran.branch)
    assert tip is not None
    ran.repo.delete_refs({ran.branch: tip})
    with pytest.raises(WorkspaceError, match="recover"):
        land(ran)


# --- pins -----------------------------------------------------------------------------------------


def test_pins_tell_what_landed_and_can_be_brought_back(root: Path) -> None:
    ran = made(root, Task(id="good/one", run="echo t > t"), Task(id="bad", run="echo half > half; exit 1"))
    found = {pin.task: pin for pin in branch.pins(ran.repo)}
    assert set(found) == {"good/one", "bad"}
    assert (found["good/one"].landed, found["bad"].landed) == (True, False)
    assert branch.pins(ran.repo, ran.id) == branch.pins(ran.repo)
    assert branch.pins(ran.repo, "other") == []

    name = branch.restore_pin(ran.repo, found["bad"])
    assert git(root, "show", f"{name}:half") == "half"
    assert branch.restore_pin(ran.repo, found["bad"]) == name, "twice is fine"
    with pytest.raises(WorkspaceError, match="already"):
        branch.restore_pin(ran.repo, found["bad"], "main")
    for bad in ("a..b", "-x y", "a.lock", "@{", f"{name}/below"):
        with pytest.raises(AgentfulError):
            branch.restore_pin(ran.repo, found["bad"], bad)


# --- leftovers ------------------------------------------------------------------------------------


def test_clean_after_all_was_landed(root: Path) -> None:
    ran = made(root)
    assert [(x.kind, x.unlanded) for x in left(ran)] == [("branch", True), ("pin", False)]
    land(ran)
    assert [(x.kind, x.unlanded) for x in left(ran)] == [("branch", False), ("pin", False)]
    assert branch.clean(ran.repo, left(ran)) == []
    assert left(ran) == []
    assert ran.repo.refs("refs/agentful/") == {}
    assert ran.repo.ref(ran.branch) is None
    assert (root / "t").exists()


def test_what_may_be_nowhere_else_is_named_as_that(root: Path) -> None:
    ran = made(root, Task(id="bad", run="echo half > half; exit 1"))
    assert [(x.kind, x.unlanded) for x in left(ran, "pin")] == [("pin", True)]


def test_a_run_that_can_be_resumed_is_left_alone(root: Path) -> None:
    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        if any(isinstance(c, TaskChanged) and c.trigger is Trigger.LANDED for c in changes):
            run.interrupt()

    tasks = [Task(id="a", run="echo a > a"), Task(id="b", run="echo b > b", needs=("a",))]
    ran = carry_out(root, tasks, options=OPTIONS, act=act)
    assert ran["b"].state is State.READY
    assert left(ran) == []
    # A second run may have gone on with the same branch, after this one had ended.
    assert resume(root, ran.id)["b"].ok
    assert left(ran, "branch") != []


def test_the_branch_of_one_run_that_another_goes_on_with(root: Path) -> None:
    first = made(root)
    land(first)
    assert [x.unlanded for x in left(first, "branch")] == [False]
    spec = RunSpec(tasks=(Task(id="u", run="echo u > u"),), options=OPTIONS)
    seen: list[list[Leftover]] = []

    def act(run: LiveRun, changes: Sequence[Transition]) -> None:
        seen.append([x for x in branch.leftovers(run.repo) if x.kind == "branch"])

    second = enter(LiveRun.create(first.repo, spec, branch=first.branch), act)
    assert second["u"].ok
    assert seen
    assert all(found == [] for found in seen), "it is the branch of a live run"


def test_a_live_run_is_left_alone_also_by_a_list_from_before(root: Path) -> None:
    ran = made(root)
    found = left(ran)
    with lock_of(ran.repo, ran.id):
        assert left(ran) == []
        trouble = branch.clean(ran.repo, found)
    assert {x.name for x, _ in trouble} == {x.name for x in found}
    assert ran.repo.ref(ran.branch) is not None


def test_a_branch_that_moved_since_it_was_listed_stays(root: Path) -> None:
    ran = made(root)
    land(ran)
    found = left(ran, "branch")
    tip = ran.repo.ref(ran.branch)
    assert tip is not None
    new = ran.repo.commit_tree(ran.repo.tree_of(tip), [tip], "more\n")
    ran.repo.update_ref(ran.branch, new, tip)
    [(stays, why)] = branch.clean(ran.repo, found)
    assert stays.name == ran.branch
    assert "moved" in why
    assert ran.repo.ref(ran.branch) == new


def test_workspaces_that_hold_work_of_their_own(root: Path) -> None:
    ran = made(root)
    spaces = Workspaces(ran.repo, ran.id)
    one = spaces.open("t.9", ran.repo.head())
    spaces.open("t.9.checks", ran.repo.head())
    spaces.open("t.1", ran.repo.head())
    stranger = Workspaces(ran.repo, "r-unknown").open("x.1", ran.repo.head())
    found = {x.name: x for x in left(ran, "workspace")}
    assert {name.rpartition("/")[2]: x.unlanded for name, x in found.items()} == {
        "t.1": False,
        "t.9": True,
        "t.9.checks": False,
        "x.1": True,
    }
    safe = [x for x in found.values() if not x.unlanded]
    assert branch.clean(ran.repo, safe) == []
    assert branch.clean(ran.repo, safe) == [], "what is gone already is fine, and takes nothing with it"
    assert [w.name for w in spaces.existing()] == ["t.9"]
    assert stranger.path.is_dir()
    (one.admin / "HEAD").unlink()  # broken, and still only itself
    assert branch.clean(ran.repo, [found[str(one.home)]]) == []
    assert left(ran, "workspace") == [found[str(stranger.home)]]


def test_clean_removes_no_folder_that_is_none_of_ours(root: Path, tmp_path: Path) -> None:
    ran = made(root)
    (tmp_path / "precious").mkdir()
    bad = Leftover(kind="workspace", name=str(tmp_path / "precious"), run=ran.id, unlanded=False, why="")
    [(_, why)] = branch.clean(ran.repo, [bad])
    assert "no workspace" in why
    assert (tmp_path / "precious").is_dir()


def test_an_empty_repository_has_no_leftovers(root: Path) -> None:
    repo = Repository.discover(root)
    assert branch.pins(repo) == []
    assert branch.leftovers(repo) == []
    assert branch.clean(repo, []) == []
    assert not (root / ".agentful").exists()


# --- repositories of all kinds ----------------------------------------------------------------------


def test_hooks_of_the_user_are_not_run_and_not_touched(root: Path) -> None:
    hooks = root.parent / "hooks"
    for name in ("pre-commit", "commit-msg", "post-checkout", "reference-transaction", "pre-merge-commit"):
        script(hooks / name, f"touch {root.parent}/ran-{name}; exit 1")
        script(root / ".git" / "hooks" / name, f"touch {root.parent}/ran-{name}; exit 1")
    git(root, "config", "core.hooksPath", str(hooks))
    before = state_of(root)
    ran = made(root, Task(id="t", run="echo t > t; git add t; git commit -qm mine"))
    assert ran["t"].ok, ran["t"].detail
    assert ran.files()["t"] == "t"
    assert not list(root.parent.glob("ran-*"))
    assert state_of(root)[2:5] == before[2:5]


def test_submodules_pointers_and_links_stay_what_they_are(root: Path, tmp_path: Path) -> None:
    inner = make_repo(tmp_path / "inner", {"i.txt": "i\n"})
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "sub")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 5\n"
    (root / "link").symlink_to("a.txt")
    commit(root, "kinds", {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "x.bin": pointer})
    entry = git(root, "ls-tree", "HEAD", "sub", "link", "x.bin")
    before = state_of(root)
    ran = made(root, Task(id="t", run="test -L link && echo t > t"))
    assert ran["t"].ok, ran["t"].detail
    assert git(root, "ls-tree", ran.branch, "sub", "link", "x.bin") == entry
    assert git(root, "diff", "--name-only", "main", ran.branch) == "t"
    assert state_of(root)[2:5] == before[2:5]
    assert land(ran).kind == "fast-forward"
    assert git(root, "status", "--porcelain") == ""
    assert (root / "sub" / "i.txt").exists()
