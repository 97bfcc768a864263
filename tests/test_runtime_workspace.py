from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentful.errors import WorkspaceError
from agentful.runtime import workspace as workspace_module
from agentful.runtime.git import Repository
from agentful.runtime.workspace import Workspace, Workspaces, slug
from gitutil import (
    USER,
    commit,
    git,
    make_repo,
    no_user_configuration,
    round_trip,
    script,
    state_of,
    tree_files,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

FILES: dict[str, str | bytes | None] = {
    "README.md": "hello\n",
    "src/a.py": "a = 1\n",
    "src/b.py": "b = 1\n",
    "tool.sh": "#!/bin/sh\n",
    ".gitignore": "*.log\n.env\nbuild/\n",
}


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_user_configuration(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("AGENTFUL_WORKSPACES", str(tmp_path / "workspaces"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo", FILES)


@pytest.fixture
def repo(root: Path) -> Repository:
    return Repository.discover(root)


@pytest.fixture
def spaces(repo: Repository) -> Workspaces:
    return Workspaces(repo, "run1")


@pytest.fixture
def ws(spaces: Workspaces, repo: Repository) -> Workspace:
    return spaces.open("api.1", repo.head())


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What a planted program would make. It must never be there."""
    return tmp_path / "ran"


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["api", "a", "9", "api-2", "a" * 40, "a--b-"])
def test_a_slug_is_the_id_where_it_can_be(name: str) -> None:
    assert slug(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "A", "a/b", "a b", "..", "-a", "über", "日本", "a" * 41, "a" * 500, "a.lock", "x\ny", "\udcff"],
)
def test_a_slug_is_a_part_and_a_hash_where_it_cannot(name: str) -> None:
    made = slug(name)

    assert made != name
    assert made == slug(name)
    assert len(made) <= 41


def test_a_slug_shows_what_it_is_for() -> None:
    assert slug("Front end/Login page").startswith("front-end-login-page-")
    assert slug("日本").startswith("task-")


def test_ids_that_look_like_slugs_do_not_clash() -> None:
    ids = ["A", "a", slug("A"), slug(slug("A")), "task", slug(""), slug("日本")]

    assert len({slug(each) for each in ids}) == len(ids)


@given(st.sets(st.text(max_size=60), max_size=20))
def test_slugs_are_names_and_differ(ids: set[str]) -> None:
    ids |= {slug(each) for each in ids}
    slugs = [slug(each) for each in ids]

    assert len(set(slugs)) == len(ids)
    for each in slugs:
        assert workspace_module._NAME.fullmatch(each)
        assert each == each.lower()
        assert len(each) <= 61


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".a", "a..b", "a b", "a\n", "-a", "a.lock", "../x"])
def test_other_names_are_refused(spaces: Workspaces, repo: Repository, name: str) -> None:
    with pytest.raises(WorkspaceError, match="cannot be the name"):
        spaces.open(name, repo.head())


@pytest.mark.parametrize("run", ["", "a.b", "a/b", "..", ".trash", "a b"])
def test_other_names_of_runs_are_refused(repo: Repository, run: str) -> None:
    with pytest.raises(WorkspaceError, match="cannot be the name"):
        Workspaces(repo, run)


# --- where ----------------------------------------------------------------------------------------


def test_layout(ws: Workspace, repo: Repository, tmp_path: Path) -> None:
    home = tmp_path / "workspaces" / repo.id / "run1" / "api.1"

    assert (ws.path, ws.admin, ws.home) == (home / "tree", home / "git", home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert ws.env["GIT_CEILING_DIRECTORIES"] == str(home)


def test_the_usual_place_is_the_users_cache(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTFUL_WORKSPACES")

    spaces = Workspaces(repo, "r")

    assert spaces.folder.is_relative_to(os.environ["HOME"])
    assert spaces.folder.parts[-3:] == ("workspaces", repo.id, "r")


@pytest.mark.parametrize("inside", [".", "sub/folder", ".git/ws"])
def test_never_inside_the_repository(repo: Repository, inside: str) -> None:
    with pytest.raises(WorkspaceError, match="inside the repository"):
        Workspaces(repo, "r", base=repo.root / inside)


def test_never_inside_the_repository_by_way_of_a_link(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(repo.root)

    with pytest.raises(WorkspaceError, match="inside the repository"):
        Workspaces(repo, "r", base=tmp_path / "link" / "ws")


# --- open -----------------------------------------------------------------------------------------


def test_a_workspace_is_the_commit(ws: Workspace, root: Path) -> None:
    assert {name: (ws.path / name).read_text() for name in FILES} == FILES
    assert {path.name for path in ws.path.iterdir()} == {".git", *(name.split("/")[0] for name in FILES)}
    assert git(ws.path, "status", "--porcelain") == ""
    assert git(ws.path, "rev-parse", "HEAD") == ws.commit
    assert git(ws.path, "rev-parse", "--show-toplevel") == str(ws.path)


def test_opening_touches_nothing_of_the_users(spaces: Workspaces, root: Path, repo: Repository) -> None:
    write(root, {"README.md": "changed\n", "new": "n"})
    before = state_of(root)

    opened = spaces.open("x", repo.head())

    assert state_of(root) == before
    assert (opened.path / "README.md").read_text() == "hello\n"


def test_a_workspace_shares_the_objects_and_nothing_else(ws: Workspace, root: Path) -> None:
    git(root, "branch", "feature")
    git(root, "tag", "v1")

    assert git(ws.path, "for-each-ref", "--format=%(refname)") == "refs/heads/agentful/api.1"
    assert git(ws.path, "remote") == ""
    assert git(ws.path, "stash", "list") == ""
    assert git(ws.path, "cat-file", "-t", f"{ws.commit}^{{tree}}") == "tree"
    assert not (ws.path / ".git" / "hooks").exists()
    assert (ws.path / ".git" / "index").read_bytes() != b""


def test_an_agent_can_commit_as_the_user(ws: Workspace, root: Path) -> None:
    before = state_of(root)
    sha = commit(ws.path, "by the agent", {"new": "n\n"})

    assert git(ws.path, "show", "-s", "--format=%an <%ae>|%P") == f"{USER[0]} <{USER[1]}>|{ws.commit}"
    assert git(ws.path, "log", "--format=%s") == "by the agent\nfirst"
    assert git(root, "cat-file", "-t", sha, check=False).startswith("fatal")
    assert state_of(root) == before


def test_an_identity_that_needs_quoting(spaces: Workspaces, root: Path) -> None:
    git(root, "config", "user.name", 'A "B" \\ C; # D')
    repo = Repository.discover(root)

    opened = Workspaces(repo, "r").open("x", repo.head())

    assert git(opened.path, "config", "user.name") == 'A "B" \\ C; # D'


def test_it_opens_at_any_commit(spaces: Workspaces, root: Path) -> None:
    old = git(root, "rev-parse", "HEAD")
    commit(root, "second", {"later": "l", "src/a.py": None})

    at_old, at_new = spaces.open("old", old), spaces.open("new", "main")

    assert (at_old.path / "src" / "a.py").exists()
    assert not (at_old.path / "later").exists()
    assert (at_new.path / "later").exists()
    assert at_new.commit == git(root, "rev-parse", "HEAD")


def test_a_name_that_is_taken(spaces: Workspaces, ws: Workspace) -> None:
    with pytest.raises(WorkspaceError, match=r"already"):
        spaces.open(ws.name, ws.commit)


@pytest.mark.parametrize("wrong", ["0" * 40, "no-such-branch", "HEAD:README.md"])
def test_a_commit_that_is_not_there_leaves_no_trace(spaces: Workspaces, wrong: str) -> None:
    with pytest.raises(WorkspaceError, match="cannot be opened"):
        spaces.open("x", wrong)

    assert spaces.existing() == []
    spaces.remove_trash()
    assert not any((spaces.folder.parent / ".opening").glob("*"))


def test_a_place_that_cannot_be_written(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(WorkspaceError, match="cannot be opened"):
        Workspaces(repo, "r", base=tmp_path / "file").open("x", repo.head())


def test_many_open_at_once_in_threads(repo: Repository, root: Path) -> None:
    before = state_of(root)
    runs = [Workspaces(repo, f"run{number % 2}") for number in range(4)]
    barrier = threading.Barrier(16)

    def work(number: int) -> Workspace:
        barrier.wait()
        spaces = runs[number % 4]
        opened = spaces.open(f"w{number}", repo.head())
        (opened.path / "out").write_text(f"{number}\n")
        return opened

    with ThreadPoolExecutor(16) as pool:
        opened = list(pool.map(work, range(48)))

    assert len({ws.path for ws in opened}) == 48
    assert all(git(ws.path, "status", "--porcelain") == "?? out" for ws in opened[:8])
    assert sum(len(paths) for paths in Workspaces.all_runs(repo).values()) == 48
    assert state_of(root) == before

    with ThreadPoolExecutor(16) as pool:
        trees = list(pool.map(lambda ws: runs[0].snapshot(ws), opened))
        pool.map(runs[0].discard, opened)
    assert [tree_files(root, tree)["out"] for tree in trees] == [str(number) for number in range(48)]


def test_many_open_at_once_in_processes(repo: Repository, root: Path) -> None:
    code = (
        "import sys\n"
        "from agentful.runtime.git import Repository\n"
        "from agentful.runtime.workspace import Workspaces\n"
        "repo = Repository.discover(sys.argv[1])\n"
        "spaces = Workspaces(repo, 'run1')\n"
        "for number in range(4):\n"
        "    ws = spaces.open(f'{sys.argv[2]}.{number}', repo.head())\n"
        "    if number % 2: spaces.discard(ws)\n"
        "    spaces.remove_trash()\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(root), f"p{number}"]) for number in range(4)]

    assert [process.wait() for process in started] == [0, 0, 0, 0]
    assert len(Workspaces(repo, "run1").existing()) == 8


def test_a_discard_of_the_last_one_does_not_disturb_an_open(repo: Repository) -> None:
    spaces = Workspaces(repo, "r")

    def churn(number: int) -> None:
        for again in range(5):
            spaces.discard(spaces.open(f"w{number}.{again}", repo.head()))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(churn, range(8)))

    assert spaces.existing() == []


# --- all kinds of repository ----------------------------------------------------------------------


def test_a_sha256_repository(tmp_path: Path) -> None:
    root = make_repo(tmp_path / "r", options=("--object-format=sha256",))

    spaces, opened = round_trip(root)
    commit(opened.path, "by the agent", {"new": "n"})

    assert tree_files(root, spaces.snapshot(opened)) == {"README.md": "hello", "new": "n"}


def test_a_shallow_clone(root: Path, tmp_path: Path) -> None:
    commit(root, "second", {"x": "x"})
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{root}", "shallow")

    _, opened = round_trip(tmp_path / "shallow")

    assert git(opened.path, "log", "--format=%s") == "second"


def test_a_partial_clone(tmp_path: Path) -> None:
    origin = make_repo(tmp_path / "origin", {"a": "a\n", "b/c": "c\n"})
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{origin}", "partial")

    _, opened = round_trip(tmp_path / "partial")

    assert (opened.path / "b" / "c").read_text() == "c\n"


def test_a_clone_that_borrows_objects_itself(root: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--shared", str(root), "shared")
    alternates = tmp_path / "shared" / ".git" / "objects" / "info" / "alternates"
    alternates.write_text("../../../repo/.git/objects\n")

    _, opened = round_trip(tmp_path / "shared")

    assert git(opened.path, "log", "--format=%s") == "first"


def test_a_linked_worktree_as_the_users_checkout(root: Path, tmp_path: Path) -> None:
    git(root, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    there = commit(tmp_path / "side", "on the side", {"s": "s"})

    _, opened = round_trip(tmp_path / "side")

    assert opened.commit == there


def test_a_worktree_of_a_bare_repository(root: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(root), "bare.git")
    git(tmp_path / "bare.git", "worktree", "add", "-q", str(tmp_path / "side"), "main")

    round_trip(tmp_path / "side")


def test_a_sparse_checkout_is_whole_in_a_workspace(root: Path) -> None:
    git(root, "sparse-checkout", "set", "--cone", "nothing")
    assert not (root / "src").exists()

    _, opened = round_trip(root)

    assert (opened.path / "src" / "a.py").exists()


def test_links_are_links(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("s")
    for name, target in {"dangling": "nowhere", "out": str(tmp_path / "outside"), "in": "src"}.items():
        (root / name).symlink_to(target)
    commit(root, "links")

    spaces, opened = round_trip(root)
    (opened.path / "up").symlink_to("../../..")
    files = tree_files(root, spaces.snapshot(opened))

    assert (opened.path / "dangling").is_symlink()
    assert files["out"] == str(tmp_path / "outside")
    assert files["up"] == "../../.."
    assert not any(path.startswith(("out/", "in/", "up/")) for path in files)


def test_line_ends_as_the_user_has_them(root: Path) -> None:
    git(root, "config", "core.autocrlf", "true")
    spaces, opened = round_trip(root)
    assert (opened.path / "README.md").read_bytes() == b"hello\r\n"

    (opened.path / "README.md").write_bytes(b"hello\r\nagain\r\n")

    tree = spaces.snapshot(opened)
    assert spaces.repo.blobs([f"{tree}:README.md"]) == [b"hello\nagain\n"]


def test_modes_as_the_user_has_them(root: Path) -> None:
    (root / "tool.sh").chmod(0o755)
    commit(root, "executable")
    spaces, opened = round_trip(root)
    assert os.access(opened.path / "tool.sh", os.X_OK)

    (opened.path / "src" / "a.py").chmod(0o755)

    assert spaces.repo.changed("HEAD", spaces.snapshot(opened)) == ("src/a.py",)
    git(root, "config", "core.fileMode", "false")
    spaces, opened = round_trip(root, "other")
    (opened.path / "src" / "a.py").chmod(0o755)
    assert spaces.snapshot(opened) == spaces.repo.tree_of("HEAD")


def test_large_file_pointers_stay_pointers(root: Path, tmp_path: Path, marker: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    write(root, {"big.bin": pointer, ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    commit(root, "large")
    filters = f'[filter "lfs"]\n\tsmudge = touch {marker}\n\tclean = touch {marker}\n\trequired = true\n'
    write(tmp_path, {"home/.gitconfig": filters})
    with (root / ".git" / "config").open("a") as config:
        config.write(filters)

    spaces, opened = round_trip(root)
    (opened.path / "big.bin").touch()
    (opened.path / "other.bin").write_bytes(b"\0\1")

    assert tree_files(root, spaces.snapshot(opened))["big.bin"] + "\n" == pointer
    assert not marker.exists()


def test_the_users_hooks_do_not_run(root: Path, tmp_path: Path, marker: Path) -> None:
    names = ["post-checkout", "post-index-change", "pre-commit", "post-commit", "reference-transaction"]
    for name in names:
        script(tmp_path / "hooks" / name, f"touch {marker}")
    write(tmp_path, {"home/.gitconfig": f"[core]\n\thooksPath = {tmp_path}/hooks\n"})
    git(root, "config", "core.hooksPath", str(tmp_path / "hooks"))

    repo = Repository.discover(root)
    spaces = Workspaces(repo, "r")
    opened = spaces.open("x", repo.head())
    (opened.path / "new").write_text("n")
    spaces.keep(opened, task_id="t", attempt=1, subject="s")
    as_agent = {"GIT_CONFIG_GLOBAL": str(tmp_path / "home" / ".gitconfig")}
    git(opened.path, "add", "new", env=as_agent)
    git(opened.path, "commit", "-q", "-m", "by the agent", env=as_agent)

    assert not marker.exists()


def test_the_users_own_ignore_rules_hold(root: Path, tmp_path: Path) -> None:
    write(tmp_path, {"home/.config/git/ignore": "*.swp", "mine": "*.mine"})
    (root / ".git" / "info" / "exclude").write_text("/private/\n")

    spaces, opened = round_trip(root)
    write(opened.path, {"x.swp": "", "private/x": "", "sub/private/x": "", "y.mine": ""})
    assert set(tree_files(root, spaces.snapshot(opened))) == {*FILES, "sub/private/x", "y.mine"}

    git(root, "config", "core.excludesFile", str(tmp_path / "mine"))
    spaces, opened = round_trip(root, "other")
    write(opened.path, {"x.swp": "", "private/x": "", "y.mine": ""})
    assert set(tree_files(root, spaces.snapshot(opened))) == {*FILES, "x.swp"}
    assert git(opened.path, "status", "--porcelain") == "?? x.swp"


def test_a_repository_that_has_no_info_folder(root: Path) -> None:
    shutil.rmtree(root / ".git" / "info")

    round_trip(root)


def test_odd_names_in_the_repository(root: Path) -> None:
    odd = [
        "two words",
        "tab\there",
        "line\nbreak",
        '"q"',
        "-dash",
        "[x]*",
        os.fsdecode(b"caf\xe9"),
        "ünï",
        ":(x)",
    ]
    for name in odd:
        (root / name).write_text(name.encode(errors="replace").decode())
    commit(root, "odd")

    spaces, opened = round_trip(root)
    for name in odd:
        (opened.path / name).write_text("changed\n")
        (opened.path / f"{name}.new").write_text("new\n")

    files = tree_files(root, spaces.snapshot(opened))
    assert {name: files[name] for name in odd} == dict.fromkeys(odd, "changed")
    assert {files[f"{name}.new"] for name in odd} == {"new"}


# --- keep -----------------------------------------------------------------------------------------


def test_keep(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    write(ws.path, {"new": "n", "src/a.py": None})
    outcome = {"State": "ok", "Summary": "two\nlines: ü 100%", "Outputs": '{"a": 1}'}

    kept = spaces.keep(
        ws,
        task_id="My Task/1",
        attempt=2,
        subject="Implement\n the API",
        author=("backend", "backend@agentful"),
        outcome=outcome,
        at=1700000000,
    )

    assert kept.paths == ("new", "src/a.py")
    assert spaces.pinned("My Task/1", 2) == kept.commit
    assert git(root, "rev-parse", f"refs/agentful/run1/{slug('My Task/1')}/2") == kept.commit
    info = spaces.repo.commit(kept.commit)
    assert info.parents == (ws.commit,)
    assert info.subject == "Implement the API"
    assert info.at == 1700000000
    assert spaces.outcome(kept.commit) == outcome | {"Task-Key": "run1/My Task/1", "Attempt": "2"}
    assert git(root, "show", "-s", "--format=%an <%ae>|%cn", kept.commit) == (
        f"backend <backend@agentful>|{USER[0]}"
    )
    assert spaces.pinned("My Task/1", 1) is None
    assert spaces.pinned("other", 2) is None


def test_keep_where_nothing_changed(spaces: Workspaces, ws: Workspace) -> None:
    kept = spaces.keep(ws, task_id="t", attempt=1, subject="")

    assert kept.paths == ()
    assert spaces.pinned("t", 1) == kept.commit
    assert spaces.repo.tree_of(kept.commit) == spaces.repo.tree_of(ws.commit)
    assert spaces.repo.commit(kept.commit).subject == "Task t"


def test_keep_what_the_agent_committed(spaces: Workspaces, ws: Workspace) -> None:
    commit(ws.path, "by the agent", {"committed": "c"})
    write(ws.path, {"left": "l"})

    assert spaces.keep(ws, task_id="t", attempt=1, subject="s").paths == ("committed", "left")


def test_keep_again_the_same_replaces_the_pin(spaces: Workspaces, ws: Workspace, repo: Repository) -> None:
    write(ws.path, {"new": "n"})
    first = spaces.keep(ws, task_id="t", attempt=1, subject="s", at=1)
    same = spaces.keep(ws, task_id="t", attempt=1, subject="s", at=1)
    told = spaces.keep(ws, task_id="t", attempt=1, subject="s", at=2, outcome={"State": "ok"})

    assert same == first
    assert told.commit != first.commit
    assert repo.refs("refs/agentful") == {"refs/agentful/run1/t/1": told.commit}


def test_keep_again_something_else_loses_nothing(spaces: Workspaces, ws: Workspace, repo: Repository) -> None:
    kept: list[str] = []
    for number in range(3):
        write(ws.path, {"new": str(number)})
        kept.append(spaces.keep(ws, task_id="t", attempt=1, subject="s").commit)

    assert repo.refs("refs/agentful") == {
        "refs/agentful/run1/t/1": kept[2],
        "refs/agentful/run1/t/1.1": kept[0],
        "refs/agentful/run1/t/1.2": kept[1],
    }

    write(ws.path, {"new": "0"})
    spaces.keep(ws, task_id="t", attempt=1, subject="s")
    assert set(kept) <= set(repo.refs("refs/agentful").values())


def test_keep_at_once_from_many_threads_loses_nothing(spaces: Workspaces, repo: Repository) -> None:
    opened = [spaces.open(f"w{number}", repo.head()) for number in range(6)]
    for number, ws in enumerate(opened):
        write(ws.path, {"new": str(number)})

    with ThreadPoolExecutor(6) as pool:
        kept = list(pool.map(lambda ws: spaces.keep(ws, task_id="t", attempt=1, subject="s").commit, opened))

    assert set(repo.refs("refs/agentful").values()) == set(kept)


def test_keep_that_cannot_pin_says_so(spaces: Workspaces, ws: Workspace, repo: Repository) -> None:
    repo.update_ref("refs/agentful/run1", repo.head(), None)

    with pytest.raises(WorkspaceError, match=r"cannot be kept.*refs/agentful/run1"):
        spaces.keep(ws, task_id="t", attempt=1, subject="s")


def test_a_snapshot_that_git_cannot_make_says_so(
    spaces: Workspaces, ws: Workspace, root: Path, tmp_path: Path
) -> None:
    (root / ".git" / "objects").rename(tmp_path / "objects")

    with pytest.raises(WorkspaceError, match=r"api\.1.* cannot be kept"):
        spaces.snapshot(ws)

    (tmp_path / "objects").rename(root / ".git" / "objects")
    assert spaces.snapshot(ws) == spaces.repo.tree_of("HEAD")


def test_keep_takes_no_odd_names_of_trailers(spaces: Workspaces, ws: Workspace) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        spaces.keep(ws, task_id="t", attempt=1, subject="s", outcome={"a\nb": "c"})

    kept = spaces.keep(ws, task_id="t", attempt=1, subject="s", outcome={"Attempt": "99"})
    assert spaces.outcome(kept.commit)["Attempt"] == "1"


def test_what_is_kept_outlives_gc(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    write(ws.path, {"new": "n"})
    kept = spaces.keep(ws, task_id="t", attempt=1, subject="s")

    git(root, "gc", "-q", "--prune=now")

    assert tree_files(root, kept.commit)["new"] == "n"
    assert spaces.snapshot(ws) == spaces.repo.tree_of(kept.commit)


# --- ignored files --------------------------------------------------------------------------------


def test_ignored_files_are_brought_in(spaces: Workspaces, ws: Workspace, root: Path, tmp_path: Path) -> None:
    write(tmp_path, {"outside/secret": "s"})
    write(
        root,
        {
            ".worktreeinclude": ".env\nbuild/\n*.md\nuntracked\n.agentful/\n",
            ".env": "KEY=1\n",
            "sub/.env": "KEY=2\n",
            "x.log": "not named\n",
            "build/out/deep": "d",
            "untracked": "named, but not ignored\n",
            "README.md": "tracked, and changed\n",
            ".agentful/journal.db": "j",
        },
    )
    (root / ".git" / "info" / "exclude").write_text("/.agentful/\n")
    (root / "build" / "link").symlink_to(tmp_path / "outside")
    (root / "build" / "tool").write_text("t")
    (root / "build" / "tool").chmod(0o750)
    os.utime(root / ".env", (1700000000, 1700000000))
    os.mkfifo(root / "build" / "pipe")

    copied = spaces.include_ignored(ws)

    assert sorted(copied) == [".env", "build/link", "build/out/deep", "build/tool", "sub/.env"]
    assert (ws.path / "sub" / ".env").read_text() == "KEY=2\n"
    assert (ws.path / "build" / "link").readlink() == tmp_path / "outside"
    assert stat.S_IMODE((ws.path / "build" / "tool").stat().st_mode) == 0o750
    assert (ws.path / ".env").stat().st_mtime == 1700000000
    assert (ws.path / "README.md").read_text() == "hello\n"
    assert git(ws.path, "status", "--porcelain") == ""
    assert spaces.include_ignored(ws) == []


def test_nothing_is_brought_in_without_the_file(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    write(root, {".env": "KEY=1\n"})
    assert spaces.include_ignored(ws) == []

    write(root, {".worktreeinclude": "nothing-of-this-name\n"})
    assert spaces.include_ignored(ws) == []


def test_what_was_brought_in_never_gets_into_a_snapshot(
    spaces: Workspaces, ws: Workspace, root: Path
) -> None:
    write(root, {".worktreeinclude": ".env\n", ".env": "KEY=1\n"})
    spaces.include_ignored(ws)
    write(ws.path, {".gitignore": "", ".env": "KEY=changed\n", "x.log": "not ignored any more\n"})

    kept = spaces.keep(ws, task_id="t", attempt=1, subject="s")

    assert kept.paths == (".gitignore", "x.log")


def test_nothing_is_brought_in_through_a_link(spaces: Workspaces, root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (root / "conf").symlink_to(tmp_path / "outside")
    at_link = commit(root, "conf is a link")
    git(root, "rm", "-q", "--cached", "conf")
    (root / "conf").unlink()
    write(root, {".worktreeinclude": ".env\n", "conf/.env": "KEY=1\n"})
    opened = spaces.open("linked", at_link)

    assert spaces.include_ignored(opened) == []
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_failure_to_bring_in_says_so_and_leaks_nothing(
    spaces: Workspaces, ws: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, {".worktreeinclude": ".env\n", ".env": "KEY=1\n"})

    def half(source: Path, target: Path) -> None:
        target.write_text("KEY")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workspace_module, "_copy_file", half)

    with pytest.raises(WorkspaceError, match="No space left on device"):
        spaces.include_ignored(ws)

    write(ws.path, {".gitignore": ""})
    assert spaces.keep(ws, task_id="t", attempt=1, subject="s").paths == (".gitignore",)


def test_ignore_rules_that_cannot_be_read_are_an_error(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    write(root, {".worktreeinclude": ".env\n", ".env": "KEY=1\n"})
    (root / ".git" / "index").write_bytes(b"rubbish")

    with pytest.raises(WorkspaceError, match="cannot copy ignored files"):
        spaces.include_ignored(ws)


def test_an_ignored_repository_is_brought_in_whole(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    make_repo(root / "build" / "tool", {"t": "t"})
    write(root, {".worktreeinclude": "build/\n"})

    copied = spaces.include_ignored(ws)

    assert "build/tool/t" in copied
    assert git(ws.path / "build" / "tool", "log", "--format=%s") == "first"


# --- what is on disk ------------------------------------------------------------------------------


def test_existing_and_all_runs(repo: Repository) -> None:
    one, two = Workspaces(repo, "one"), Workspaces(repo, "two")
    assert one.existing() == []
    assert Workspaces.all_runs(repo) == {}

    b, a, c = one.open("b", repo.head()), one.open("a", repo.head()), two.open("c", repo.head())

    assert one.existing() == [a, b]
    assert Workspaces(repo, "two").existing() == [c]
    assert Workspaces.all_runs(repo) == {"one": [a.home, b.home], "two": [c.home]}


def test_a_workspace_found_again_is_as_good_as_new(
    spaces: Workspaces, ws: Workspace, repo: Repository
) -> None:
    write(ws.path, {"new": "n"})

    (found,) = Workspaces(repo, "run1").existing()

    assert found == ws
    assert Workspaces(repo, "run1").keep(found, task_id="t", attempt=1, subject="s").paths == ("new",)


def test_a_folder_that_is_no_workspace_is_not_taken_for_one(spaces: Workspaces, ws: Workspace) -> None:
    (spaces.folder / "stray" / "git").mkdir(parents=True)
    (spaces.folder / "stray" / "git" / "HEAD").write_text("ref: refs/heads/main")
    (spaces.folder / "file").write_text("")

    assert spaces.existing() == [ws]
    assert [path.name for path in Workspaces.all_runs(spaces.repo)["run1"]] == ["api.1", "stray"]


def test_discard_is_at_once_and_the_rest_comes_later(spaces: Workspaces, ws: Workspace) -> None:
    spaces.discard(ws)

    assert not ws.home.exists()
    assert not spaces.folder.exists()
    assert spaces.existing() == []
    spaces.discard(ws)
    assert spaces.remove_trash() == 1
    assert spaces.remove_trash() == 0
    assert spaces.open(ws.name, ws.commit) == ws


def test_what_a_crash_left_is_found_and_removed(
    spaces: Workspaces, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = spaces.folder.parent
    write(shelf, {".opening/dead/tree/x": "x", ".opening/young/tree/x": "x", ".trash/old/w/tree/x": "x"})
    long_ago = time.time() - 3600
    os.utime(shelf / ".opening" / "dead", (long_ago, long_ago))

    assert spaces.existing() == []
    assert spaces.remove_trash() == 2

    assert [path.name for path in (shelf / ".opening").iterdir()] == ["young"]
    assert list((shelf / ".trash").iterdir()) == []


def test_what_is_being_made_is_left_alone(
    spaces: Workspaces, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_module, "_HALF_MADE_AGE", -1.0)
    make_private = Workspaces._make_private
    removed: list[int] = []

    def meanwhile(self: Workspaces, ws: Workspace) -> None:
        removed.append(spaces.remove_trash())
        make_private(self, ws)

    monkeypatch.setattr(Workspaces, "_make_private", meanwhile)

    opened = spaces.open("x", repo.head())

    assert removed == [0]
    assert git(opened.path, "status", "--porcelain") == ""


def test_a_full_disk_leaves_no_half_workspace(
    spaces: Workspaces, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Workspaces, ws: Workspace) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Workspaces, "_make_private", full)

    with pytest.raises(WorkspaceError, match="No space left on device"):
        spaces.open("x", repo.head())

    assert spaces.existing() == []
    assert list((spaces.folder.parent / ".opening").iterdir()) == []


@pytest.mark.slow
def test_a_deep_tree_is_removed(spaces: Workspaces, ws: Workspace) -> None:
    here = os.open(ws.path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    spaces.discard(ws)

    assert spaces.remove_trash() == 1


def test_without_its_git_folder_git_finds_no_other_repository(repo: Repository, tmp_path: Path) -> None:
    make_repo(tmp_path / "above")
    spaces = Workspaces(repo, "r", base=tmp_path / "above" / "ws")
    opened = spaces.open("x", repo.head())
    shutil.rmtree(opened.path / ".git")

    said = git(opened.path, "rev-parse", "--show-toplevel", env=opened.env, check=False)

    assert "not a git repository" in said
    assert spaces.snapshot(opened) == repo.tree_of("HEAD")


@pytest.mark.parametrize("killed_at", range(1, 8))
def test_killed_anywhere_the_next_process_goes_on(
    repo: Repository, root: Path, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import itertools, sys\n"
        "from agentful.runtime.git import Repository\n"
        "from agentful.runtime.workspace import Workspaces\n"
        "repo = Repository.discover(sys.argv[1])\n"
        "spaces = Workspaces(repo, 'r')\n"
        "for number in itertools.count():\n"
        "    print('open', flush=True)\n"
        "    ws = spaces.open(f'w{number}', repo.head())\n"
        "    (ws.path / 'new').write_text(str(number))\n"
        "    print('keep', flush=True)\n"
        "    spaces.keep(ws, task_id=f't{number}', attempt=1, subject='s')\n"
        "    print('discard', flush=True)\n"
        "    if number % 2: spaces.discard(ws)\n"
    )
    argv = [sys.executable, "-c", code, str(root)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        for _ in range(killed_at):
            child.stdout.readline()
        child.kill()

    spaces = Workspaces(repo, "r")
    for number, ws in enumerate(spaces.existing()):
        assert git(ws.path, "status", "--porcelain") in ("", "?? new")
        kept = spaces.keep(ws, task_id=f"again{number}", attempt=1, subject="s")
        assert kept.paths in ((), ("new",))
        spaces.discard(ws)
    monkeypatch.setattr(workspace_module, "_HALF_MADE_AGE", -1.0)
    spaces.remove_trash()
    assert Workspaces.all_runs(repo) == {}
    assert list((spaces.folder.parent / ".opening").glob("*")) == []
    assert git(root, "fsck", "--strict", "--no-dangling") == ""
    assert spaces.open("w0", repo.head()).path.is_dir()
