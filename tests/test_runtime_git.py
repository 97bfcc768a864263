from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentful.errors import ConfigError, GitError
from agentful.runtime import git as git_module
from agentful.runtime import gitcall
from agentful.runtime.git import RefMoved, Repository, commit_message, decode_trailer, encode_trailer
from gitutil import USER, branch, commit, git, make_repo, no_user_configuration, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_user_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_user_configuration(monkeypatch, tmp_path / "home")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "repo", {"a.txt": "one\ntwo\nthree\n", "src/b.py": "b = 1\n"})


@pytest.fixture
def repo(root: Path) -> Repository:
    return Repository.discover(root)


# --- discovery ------------------------------------------------------------------------------------


def test_discover_from_the_top_and_from_a_subfolder(root: Path) -> None:
    at_top, below = Repository.discover(root), Repository.discover(root / "src")

    assert at_top.root == below.root == root
    assert at_top.git_dir == root / ".git"
    assert at_top.objects == root / ".git" / "objects"
    assert at_top.id == below.id
    assert at_top.id.isalnum()


def test_discover_from_the_current_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "src")

    assert Repository.discover().root == root


def test_discover_from_a_linked_worktree(root: Path, tmp_path: Path) -> None:
    git(root, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    there = commit(tmp_path / "side", "on the side", {"s": "s"})

    repo = Repository.discover(tmp_path / "side")

    assert repo.root == tmp_path / "side"
    assert repo.git_dir == root / ".git"
    assert repo.id == Repository.discover(root).id
    assert repo.head() == there
    assert repo.head_branch() == "side"


def test_discover_ignores_what_ties_git_to_another_repository(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_repo(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))

    repo = Repository.discover(root)

    assert repo.root == root
    assert repo.head() == git(root, "rev-parse", "HEAD")


def test_no_repository_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a git repository.*git init"):
        Repository.discover(tmp_path)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        Repository.discover(tmp_path / "nowhere")


def test_the_current_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(ConfigError, match="does not exist any more"):
        Repository.discover()


def test_a_bare_repository_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "bare.git")

    with pytest.raises(ConfigError, match="bare repository"):
        Repository.discover(tmp_path / "bare.git")


def test_the_inside_of_a_git_folder_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"inside of a \.git folder"):
        Repository.discover(root / ".git")


def test_a_repository_without_commits_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "new")

    with pytest.raises(ConfigError, match=r"no commits yet.*git commit"):
        Repository.discover(tmp_path / "new")


def test_a_repository_of_somebody_else_says_what_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")

    with pytest.raises(ConfigError, match=r"does not trust.*safe.directory"):
        Repository.discover(root)


# --- calls ----------------------------------------------------------------------------------------


def test_our_calls_see_no_user_configuration_and_no_git_variables(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"home/.gitconfig": "[alias]\n\tx = !false\n[user]\n\tname = Global\n"})
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Environment")
    monkeypatch.setenv("GIT_WORK_TREE", "/nowhere")

    origins = repo.git("config", "--show-origin", "--list").stdout.decode()

    assert "Global" not in origins
    assert "Environment" not in repo.git("var", "GIT_AUTHOR_IDENT").line
    assert repo.git("config", "core.hooksPath").line == "/dev/null"


def test_our_calls_run_no_hooks(repo: Repository, root: Path, tmp_path: Path) -> None:
    write(root, {".git/hooks/reference-transaction": f"#!/bin/sh\ntouch {tmp_path}/ran\n"})
    (root / ".git/hooks/reference-transaction").chmod(0o755)

    repo.update_ref("refs/agentful/r/t/1", repo.head(), None)

    assert not (tmp_path / "ran").exists()


def test_a_failing_call_raises_unless_told_otherwise(repo: Repository) -> None:
    with pytest.raises(GitError, match="cat-file") as caught:
        repo.git("cat-file", "-t", "0" * 40)

    assert caught.value.returncode == 128
    assert caught.value.argv == ("cat-file", "-t", "0" * 40)
    assert repo.git("cat-file", "-e", "0" * 40, check=False).returncode != 0


def test_a_call_that_cannot_start_is_a_git_error(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(GitError, match="127"):
        repo.git("status")


def test_standard_input_is_empty_or_what_was_given(repo: Repository) -> None:
    empty = repo.git("hash-object", "--stdin").line
    given = repo.git("hash-object", "--stdin", input=b"hello\n").line

    assert empty == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert given == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_user_calls_have_the_users_configuration_and_hooks(
    repo: Repository, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"home/.gitconfig": "[agentful]\n\ttest = yes\n"})
    write(root, {".git/hooks/post-merge": f"#!/bin/sh\ntouch {tmp_path}/ran\n"})
    (root / ".git/hooks/post-merge").chmod(0o755)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    branch(root, "topic", {"new.txt": "new"})

    assert repo.user_git("config", "agentful.test").line == "yes"
    repo.user_git("merge", "--ff-only", "topic")

    assert (tmp_path / "ran").exists()
    assert (root / "new.txt").read_text() == "new"
    with pytest.raises(GitError):
        repo.user_git("merge", "--ff-only", "no-such-branch")


# --- what the user configured ---------------------------------------------------------------------


def test_identity_of_the_user_is_read_once(repo: Repository, root: Path) -> None:
    assert repo.identity() == USER

    git(root, "config", "user.name", "Somebody Else")

    assert repo.identity() == USER
    assert Repository.discover(root).identity() == ("Somebody Else", USER[1])


def test_identity_where_none_is_configured(repo: Repository, root: Path) -> None:
    git(root, "config", "--unset", "user.email")

    assert repo.identity() == ("agentful", "agentful@localhost")


def test_user_config_is_the_effective_one(repo: Repository, root: Path, tmp_path: Path) -> None:
    write(tmp_path, {"home/.gitconfig": "[core]\n\tautocrlf = input\n\teol = lf\n\texcludesFile = ~/x\n"})
    git(root, "config", "core.eol", "crlf")
    with (root / ".git" / "config").open("a") as config:
        config.write("[core]\n\tignoreCase\n")

    found = repo.user_config(r"^core\.(autocrlf|eol|ignorecase)$")

    assert found == {"core.autocrlf": "input", "core.eol": "crlf", "core.ignorecase": "true"}
    assert repo.user_config(r"^core\.excludesfile$", paths=True) == {
        "core.excludesfile": str(tmp_path / "home" / "x")
    }
    assert repo.user_config(r"^no\.such$") == {}


# --- reading --------------------------------------------------------------------------------------


def test_resolve_names_commits_only(repo: Repository, root: Path) -> None:
    head = git(root, "rev-parse", "HEAD")
    git(root, "tag", "-a", "-m", "v1", "v1")

    assert repo.resolve("main") == repo.resolve("HEAD") == repo.resolve("v1") == repo.head() == head
    for wrong in ("no-such", "-h", "HEAD^{tree}", "", "HEAD:a.txt", "0" * 40):
        with pytest.raises(GitError, match="there is no commit"):
            repo.resolve(wrong)


def test_head_branch_is_none_where_head_is_detached(repo: Repository, root: Path) -> None:
    assert repo.head_branch() == "main"

    git(root, "checkout", "-q", "--detach")

    assert repo.head_branch() is None


def test_tree_of(repo: Repository, root: Path) -> None:
    assert repo.tree_of("HEAD") == git(root, "rev-parse", "HEAD^{tree}")
    with pytest.raises(GitError, match="there is no tree"):
        repo.tree_of("nothing")


def test_ancestry(repo: Repository, root: Path) -> None:
    base = repo.head()
    one = branch(root, "one", {"1": "1"})
    two = branch(root, "two", {"2": "2"})
    git(root, "checkout", "-q", "--orphan", "elsewhere")
    alone = commit(root, "alone", {"x": "x"})

    assert repo.is_ancestor(base, one)
    assert repo.is_ancestor(one, one)
    assert not repo.is_ancestor(one, two)
    assert repo.merge_base(one, two) == base
    assert repo.merge_base(one, alone) is None
    with pytest.raises(GitError):
        repo.is_ancestor(base, "0" * 40)
    with pytest.raises(GitError):
        repo.merge_base(base, "0" * 40)


def test_changed_lists_both_names_of_a_renamed_file(repo: Repository, root: Path) -> None:
    base = repo.head()
    tip = branch(root, "t", {"a.txt": None, "moved.txt": "one\ntwo\nthree\n", "ü b\n\t'\".txt": "x"})

    assert repo.changed(base, tip) == ("a.txt", "moved.txt", "ü b\n\t'\".txt")
    assert repo.changed(tip, tip) == ()
    assert repo.changed(repo.tree_of(base), repo.tree_of(tip)) == repo.changed(base, tip)


def test_changed_shows_names_that_are_not_utf8(repo: Repository, root: Path) -> None:
    (root / os.fsdecode(b"caf\xe9")).write_text("x")
    base = repo.head()
    tip = commit(root, "odd")

    assert repo.changed(base, tip) == ("caf\\xe9",)


def test_diff_as_text(repo: Repository, root: Path) -> None:
    base = repo.head()
    tip = branch(root, "t", {"a.txt": "one\n2\nthree\n", "src/b.py": "b = 2\n", "src/[b].py": "x\n"})

    assert "-two\n+2\n" in repo.diff(base, tip)
    assert "\x1b[" in repo.diff(base, tip, color=True)
    assert "3 files changed" in repo.diff(base, tip, stat=True)
    only = repo.diff(base, tip, paths=["src/[b].py"])
    assert "[b].py" in only
    assert "b/src/b.py" not in only


def test_diff_runs_no_program_of_the_configuration(repo: Repository, root: Path, tmp_path: Path) -> None:
    base = repo.head()
    git(root, "config", "diff.external", f"touch {tmp_path}/ran; true")
    git(root, "config", "diff.evil.textconv", f"touch {tmp_path}/ran; cat")
    git(root, "config", "diff.evil.command", f"touch {tmp_path}/ran; true")
    tip = branch(root, "t", {".gitattributes": "* diff=evil\n", "a.txt": "1\n"})

    assert "+1" in repo.diff(base, tip)
    assert not (tmp_path / "ran").exists()


def test_commits_of_a_range_with_their_trailers(repo: Repository, root: Path) -> None:
    base = repo.head()
    one = branch(root, "one", {"1": "1"})
    git(root, "merge", "-q", "--no-ff", "-m", "merge one\n\nTask-Key: r/one\nNote: a\n  b\n", "one")
    plain = commit(root, "a subject\nin two lines\n\nA body: with a colon\n\nand no trailers here")

    merged, last = repo.commits(f"{base}..main", first_parent=True)

    assert [info.sha for info in repo.commits(f"{base}..main")] == [one, merged.sha, plain]
    assert merged.parents == (base, one)
    assert merged.subject == "merge one"
    assert merged.trailers == {"Task-Key": "r/one", "Note": "a b"}
    assert merged.tree == repo.tree_of(merged.sha)
    assert merged.at == 1704110400
    assert last.sha == plain
    assert last.subject == "a subject in two lines"
    assert last.trailers == {}
    assert repo.commit("main") == last
    assert repo.trailers(merged.sha)["Task-Key"] == "r/one"
    assert repo.commits(f"{base}..{base}") == []


def test_first_commit_has_no_parents(repo: Repository) -> None:
    assert repo.commit("HEAD").parents == ()


def test_blobs(repo: Repository) -> None:
    found = repo.blobs(["HEAD:a.txt", "HEAD:no\nsuch", "HEAD:src", "HEAD:a.txt", "HEAD:src/b.py"])

    assert found == [b"one\ntwo\nthree\n", None, None, b"one\ntwo\nthree\n", b"b = 1\n"]
    assert repo.blobs(["HEAD:a.txt"], limit=3) == [None]
    assert repo.blobs([]) == []


# --- refs and commits -----------------------------------------------------------------------------


def test_update_ref_is_compare_and_swap(repo: Repository, root: Path) -> None:
    one, two = repo.head(), branch(root, "t", {"x": "x"})
    ref = "refs/heads/agentful/run"

    assert repo.ref(ref) is None
    repo.update_ref(ref, one, None)
    with pytest.raises(RefMoved) as caught:
        repo.update_ref(ref, two, None)
    assert (caught.value.ref, caught.value.expected, caught.value.actual) == (ref, None, one)
    repo.update_ref(ref, two, one, message="land t")
    with pytest.raises(RefMoved, match="is at"):
        repo.update_ref(ref, two, one)

    assert repo.ref(ref) == two
    assert "land t" in git(root, "reflog", "show", "agentful/run")
    assert repo.refs("refs/heads/agentful/") == {ref: two}
    assert repo.refs("refs/heads/agentful") == {ref: two}
    assert repo.refs("refs/heads/agent") == {}


def test_update_ref_of_a_ref_that_is_not_there(repo: Repository) -> None:
    with pytest.raises(RefMoved) as caught:
        repo.update_ref("refs/agentful/x", repo.head(), repo.head())

    assert caught.value.actual is None


def test_update_ref_to_nothing_is_an_error(repo: Repository) -> None:
    with pytest.raises(GitError) as caught:
        repo.update_ref("refs/agentful/x", "1" * 40, None)

    assert not isinstance(caught.value, RefMoved)


def test_a_branch_named_as_our_folder_is_in_the_way(repo: Repository, root: Path) -> None:
    git(root, "branch", "agentful")

    with pytest.raises(GitError, match="refs/heads/agentful"):
        repo.update_ref("refs/heads/agentful/run", repo.head(), None)


def test_delete_refs_all_or_none(repo: Repository, root: Path) -> None:
    one, two = repo.head(), branch(root, "t", {"x": "x"})
    repo.update_ref("refs/agentful/a", one, None)
    repo.update_ref("refs/agentful/b", two, None)

    with pytest.raises(RefMoved):
        repo.delete_refs({"refs/agentful/a": one, "refs/agentful/b": one})
    assert set(repo.refs("refs/agentful")) == {"refs/agentful/a", "refs/agentful/b"}

    repo.delete_refs(repo.refs("refs/agentful"))
    repo.delete_refs({})
    assert repo.refs("refs/agentful") == {}


def test_delete_refs_that_are_packed(repo: Repository, root: Path) -> None:
    repo.update_ref("refs/agentful/a", repo.head(), None)
    git(root, "pack-refs", "--all")

    repo.delete_refs(repo.refs("refs/agentful"))

    assert repo.ref("refs/agentful/a") is None


def stale_lock(root: Path, ref: str, *, age: float) -> Path:
    lock = root / ".git" / f"{ref}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    then = lock.stat().st_mtime - age
    os.utime(lock, (then, then))
    return lock


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git gives up a locked ref at once, and so do we soon after."""
    settings = tuple(
        "core.filesRefLockTimeout=0" if setting.startswith("core.filesRefLockTimeout") else setting
        for setting in gitcall._OUR_SETTINGS
    )
    monkeypatch.setattr(gitcall, "_OUR_SETTINGS", settings)
    monkeypatch.setattr(git_module, "_LOCK_TRIES", 2)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("ref", ["refs/agentful/r/t/1", "refs/heads/agentful/r"])
def test_a_stale_lock_of_ours_is_removed(repo: Repository, root: Path, ref: str) -> None:
    lock = stale_lock(root, ref, age=60)

    repo.update_ref(ref, repo.head(), None)

    assert repo.ref(ref) == repo.head()
    assert not lock.exists()

    stale_lock(root, ref, age=60)
    repo.delete_refs({ref: repo.head()})
    assert repo.ref(ref) is None


@pytest.mark.usefixtures("_impatient")
def test_a_lock_that_may_be_alive_is_left_alone(repo: Repository, root: Path) -> None:
    lock = stale_lock(root, "refs/agentful/x", age=0)

    with pytest.raises(GitError, match="lock"):
        repo.update_ref("refs/agentful/x", repo.head(), None)

    assert lock.exists()


@pytest.mark.usefixtures("_impatient")
def test_a_lock_of_somebody_elses_ref_is_left_alone(repo: Repository, root: Path) -> None:
    lock = stale_lock(root, "refs/heads/feature", age=60)

    with pytest.raises(GitError, match="lock"):
        repo.update_ref("refs/heads/feature", repo.head(), None)

    assert lock.exists()


def test_many_writers_lose_nothing(repo: Repository) -> None:
    ref, tree, base = "refs/heads/agentful/run", repo.tree_of("HEAD"), repo.head()
    repo.update_ref(ref, base, None)

    def land(writer: int) -> None:
        for number in range(5):
            while True:
                tip = repo.ref(ref)
                assert tip is not None
                new = repo.commit_tree(tree, [tip], f"{writer}.{number}")
                try:
                    repo.update_ref(ref, new, tip)
                    break
                except RefMoved:
                    continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(land, range(4)))

    landed = [info.subject for info in repo.commits(f"{base}..{ref}")]
    assert sorted(landed) == sorted(f"{writer}.{number}" for writer in range(4) for number in range(5))


def test_commit_tree(repo: Repository, root: Path) -> None:
    head = repo.head()

    sha = repo.commit_tree(
        repo.tree_of(head), [head], "subject\n\nKey: ü\0", author=("An Agent", "agent@x"), at=1700000000.9
    )

    shown = git(root, "show", "-s", "--format=%an|%ae|%at|%cn|%ce|%ct|%P|%B", sha)
    name, address = USER
    assert shown == f"An Agent|agent@x|1700000000|{name}|{address}|1700000000|{head}|subject\n\nKey: ü"
    assert git(root, "fsck", "--strict", "--no-dangling") == ""
    assert repo.head() == head


def test_commit_tree_takes_any_author_and_time(repo: Repository, root: Path) -> None:
    tree = repo.tree_of("HEAD")

    odd = repo.commit_tree(tree, [], "m", author=("<a>\nb", "\x00"), at=-5)
    now = repo.commit_tree(tree, [repo.head(), odd], "m")

    assert git(root, "show", "-s", "--format=%an|%ae|%at", odd) == "a b|agentful@localhost|0"
    assert len(repo.commit(now).parents) == 2
    assert repo.commit(now).at > 1700000000


def test_a_new_commit_and_its_ref_outlive_a_power_loss(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = tmp_path / "trace"
    tree, head = repo.tree_of("HEAD"), repo.head()
    sha = repo.git("commit-tree", tree, "-p", head, "-m", "x", env={"GIT_TRACE2_PERF": str(traced)}).line
    args = ("update-ref", "refs/agentful/x", sha)
    repo.git(*args, env={"GIT_TRACE2_PERF": str(traced)})

    flushes = [line for line in traced.read_text().splitlines() if "fsync/hardware-flush" in line]
    assert len(flushes) == 2


@given(st.text())
def test_any_text_comes_back_from_a_trailer(value: str) -> None:
    encoded = encode_trailer(value)

    assert encoded == encoded.strip()
    assert len(encoded.splitlines()) <= 1
    encoded.encode()
    assert decode_trailer(encoded) == value


def test_a_commit_message_comes_back(repo: Repository) -> None:
    trailers = {"Task-Key": "run/täsk: 1", "Empty": "", "Text": "two\nlines, 100%\n\n---\n# no comment"}
    sha = repo.commit_tree(repo.tree_of("HEAD"), [], commit_message("  A\nsubject ", trailers))

    info = repo.commit(sha)

    assert info.subject == "A subject"
    assert {name: decode_trailer(value) for name, value in info.trailers.items()} == trailers
    assert repo.commit(repo.commit_tree(info.tree, [], commit_message(" ", {}))).subject == "No subject"
    with pytest.raises(ValueError, match="cannot be the name"):
        commit_message("s", {"a b": "c"})


# --- the user's checkout --------------------------------------------------------------------------


def test_dirty_lists_all_that_is_not_committed(repo: Repository, root: Path) -> None:
    assert repo.dirty() == ()

    write(root, {"a.txt": "changed", "new/file": "x", "staged": "s", ".gitignore": "*.log\n", "x.log": "l"})
    git(root, "add", "staged")
    (root / "src" / "b.py").unlink()

    assert repo.dirty() == (".gitignore", "a.txt", "new/file", "src/b.py", "staged")


def test_dirty_where_files_are_to_change(repo: Repository, root: Path) -> None:
    commit(root, "ignore", {".gitignore": "*.log\nbuild/\n"})
    write(root, {"a.txt": "changed", "new/file": "x", "x.log": "l", "build/out": "o", "plain": "p"})

    assert repo.dirty(["src/b.py", "other.log", "build/elsewhere"]) == ()
    assert repo.dirty(["a.txt", "src/b.py"]) == ("a.txt",)
    assert repo.dirty(["x.log"]) == ("x.log",)
    assert repo.dirty(["build/out"]) == ("build/out",)
    assert repo.dirty(["build"]) == ("build",)
    assert repo.dirty(["new"]) == ("new/file",)
    assert repo.dirty(["plain/below"]) == ("plain",)
    assert repo.dirty([]) == ()


def test_add_exclude_once(repo: Repository, root: Path) -> None:
    exclude = root / ".git" / "info" / "exclude"
    exclude.write_text("mine")

    barrier = threading.Barrier(4)

    def add(_: int) -> None:
        barrier.wait()
        repo.add_exclude("/.agentful/")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))

    assert exclude.read_text() == "mine\n/.agentful/\n"
    write(root, {".agentful/journal.db": "x"})
    assert repo.dirty() == ()


def test_add_exclude_where_there_is_no_such_file(repo: Repository, root: Path) -> None:
    exclude = root / ".git" / "info" / "exclude"
    exclude.unlink()
    exclude.parent.rmdir()

    repo.add_exclude("/.agentful/")

    assert exclude.read_text() == "/.agentful/\n"


def test_add_exclude_that_cannot_be_written(repo: Repository, root: Path) -> None:
    exclude = root / ".git" / "info" / "exclude"
    exclude.unlink()
    exclude.mkdir()

    with pytest.raises(ConfigError, match="cannot have git ignore"):
        repo.add_exclude("/.agentful/")


# --- other kinds of repository --------------------------------------------------------------------


def test_a_sha256_repository(tmp_path: Path) -> None:
    root = make_repo(tmp_path / "r", options=("--object-format=sha256",))
    repo = Repository.discover(root)
    one = repo.head()
    two = branch(root, "t", {"x": "x"})

    repo.update_ref("refs/agentful/x", one, None)
    with pytest.raises(RefMoved):
        repo.update_ref("refs/agentful/x", two, None)

    assert len(one) == 64
    assert repo.changed(one, two) == ("x",)
    assert repo.merge(one, two).tree == repo.tree_of(two)


def test_a_partial_clone_gets_what_is_missing_at_once(tmp_path: Path) -> None:
    origin = make_repo(tmp_path / "origin", {"a": "a\n", "b": "b\n"})
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{origin}", "partial")
    repo = Repository.discover(tmp_path / "partial")
    listed = ("rev-list", "--objects", "--missing=print", "--no-walk", "HEAD")
    assert b"?" in repo.git(*listed).stdout

    repo.fetch_missing(repo.head())

    assert b"?" not in repo.git(*listed).stdout


def test_nothing_is_fetched_in_a_whole_clone(repo: Repository) -> None:
    repo.fetch_missing("not even looked at")


def test_an_interrupt_at_the_terminal_does_not_reach_git(repo: Repository) -> None:
    sessions = repo.user_git("-c", "alias.sid=!ps -o sid= -p $$", "sid").line

    assert int(sessions) != os.getsid(0)
