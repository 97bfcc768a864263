from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from agentful.errors import WorkspaceError
from agentful.runtime.git import Repository
from agentful.runtime.workspace import Workspace, Workspaces
from gitutil import (
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
    from collections.abc import Callable
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


# --- submodules -----------------------------------------------------------------------------------


@pytest.fixture
def with_submodule(root: Path, tmp_path: Path) -> Path:
    library = make_repo(tmp_path / "library", {"lib.c": "int x;\n"})
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library), "lib")
    commit(root, "add a submodule")
    return root


def test_a_submodule_stays_what_it_was(with_submodule: Path) -> None:
    spaces, opened = round_trip(with_submodule)

    assert list((opened.path / "lib").iterdir()) == []
    (opened.path / "README.md").write_text("changed\n")
    (opened.path / "lib").rmdir()

    kept = spaces.keep(opened, task_id="t", attempt=1, subject="s")
    assert kept.paths == ("README.md",)
    assert kept.left_out == ()


def test_files_written_into_a_submodules_folder_are_reported(with_submodule: Path) -> None:
    spaces, opened = round_trip(with_submodule)
    write(opened.path, {"lib/new.c": "x"})

    kept = spaces.keep(opened, task_id="t", attempt=1, subject="s")

    assert kept.paths == ()
    assert [left.path for left in kept.left_out] == ["lib"]
    assert "submodule" in kept.left_out[0].reason


def test_a_submodule_at_another_commit_is_reported(with_submodule: Path) -> None:
    spaces, opened = round_trip(with_submodule)
    make_repo(opened.path / "lib", {"lib.c": "int y;\n"})

    kept = spaces.keep(opened, task_id="t", attempt=1, subject="s")

    assert kept.paths == ()
    assert [left.path for left in kept.left_out] == ["lib"]


def test_a_submodule_goes_when_its_entry_goes(with_submodule: Path) -> None:
    spaces, opened = round_trip(with_submodule)
    git(opened.path, "rm", "-q", "lib")

    assert spaces.repo.changed("HEAD", spaces.snapshot(opened)) == (".gitmodules", "lib")


def test_a_submodule_can_become_files(with_submodule: Path) -> None:
    spaces, opened = round_trip(with_submodule)
    write(opened.path, {".gitmodules": "", "lib/lib.c": "int z;\n", "lib/x.log": "", "lib/deep/er.c": "e"})

    files = tree_files(with_submodule, spaces.snapshot(opened))

    assert files["lib/lib.c"] == "int z;"
    assert files["lib/deep/er.c"] == "e"
    assert "lib/x.log" not in files
    assert spaces.snapshot(opened) == spaces.snapshot(opened)


def test_a_submodule_can_become_a_file(with_submodule: Path) -> None:
    spaces, opened = round_trip(with_submodule)
    (opened.path / "lib").rmdir()
    write(opened.path, {"lib": "a file now\n"})

    assert tree_files(with_submodule, spaces.snapshot(opened))["lib"] == "a file now"


def test_a_submodule_that_no_file_names(root: Path) -> None:
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},lib")
    git(root, "commit", "-q", "-m", "a link that nothing names")

    spaces, opened = round_trip(root)
    (opened.path / "lib").rmdir()

    assert spaces.repo.changed("HEAD", spaces.snapshot(opened)) == ("lib",)


# --- snapshots ------------------------------------------------------------------------------------


def test_a_snapshot_is_what_is_there(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    write(
        ws.path,
        {"README.md": "changed\n", "src/a.py": None, "new/deep/file": "n\n", "x.log": "", "build/x": ""},
    )
    (ws.path / "tool.sh").chmod(0o755)
    before = state_of(root)

    tree = spaces.snapshot(ws)

    assert tree_files(root, tree) == {
        ".gitignore": "*.log\n.env\nbuild/",
        "README.md": "changed",
        "new/deep/file": "n",
        "src/b.py": "b = 1",
        "tool.sh": "#!/bin/sh",
    }
    assert git(root, "ls-tree", tree, "tool.sh").startswith("100755")
    assert state_of(root) == before
    assert git(root, "fsck", "--strict", "--no-dangling") == ""
    assert spaces.snapshot(ws) == tree


def test_snapshots_one_after_another(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    base = spaces.snapshot(ws)
    write(ws.path, {"one": "1"})
    first = spaces.snapshot(ws)
    write(ws.path, {"one": None, "two/x": "2", "src/a.py": None})
    second = spaces.snapshot(ws)
    write(ws.path, {"two/x": None, "src/a.py": FILES["src/a.py"]})

    assert set(tree_files(root, first)) == {*FILES, "one"}
    assert set(tree_files(root, second)) == {*FILES, "two/x"} - {"src/a.py"}
    assert spaces.snapshot(ws) == base


def test_a_change_that_keeps_size_and_time_is_seen(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    file = ws.path / "src" / "a.py"
    times = file.stat()
    file.write_text("a = 2\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert tree_files(root, spaces.snapshot(ws))["src/a.py"] == "a = 2"


def test_files_become_folders_and_back(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    write(ws.path, {"README.md": None, "src/a.py": None, "src/b.py": None})
    (ws.path / "src").rmdir()
    write(ws.path, {"README.md/inside": "i", "src": "a file"})

    files = tree_files(root, spaces.snapshot(ws))

    assert files["README.md/inside"] == "i"
    assert files["src"] == "a file"
    assert "src/a.py" not in files


def test_a_folder_becomes_a_link_to_somewhere_else(
    spaces: Workspaces, ws: Workspace, root: Path, tmp_path: Path
) -> None:
    write(tmp_path, {"outside/a.py": "secret\n", "outside/b.py": "b = 1\n", "outside/c.py": "c"})
    shutil.rmtree(ws.path / "src")
    (ws.path / "src").symlink_to(tmp_path / "outside")

    files = tree_files(root, spaces.snapshot(ws))

    assert files["src"] == str(tmp_path / "outside")
    assert not any(path.startswith("src/") for path in files)


def test_everything_deleted_is_a_tree_with_nothing(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    for path in ws.path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    assert tree_files(root, spaces.snapshot(ws)) == {}
    assert set(spaces.keep(ws, task_id="t", attempt=1, subject="s").paths) == set(FILES)


def test_a_deleted_workspace_is_an_error_and_deletes_nothing(spaces: Workspaces, ws: Workspace) -> None:
    shutil.rmtree(ws.path)

    with pytest.raises(WorkspaceError, match=r"api\.1.* is gone.*deleted or moved"):
        spaces.keep(ws, task_id="t", attempt=1, subject="s")

    assert spaces.pinned("t", 1) is None
    assert spaces.existing() == [ws]
    spaces.discard(ws)
    assert spaces.existing() == []


@pytest.mark.parametrize("instead", ["file", "link"])
def test_a_workspace_that_is_no_folder_any_more(
    spaces: Workspaces, ws: Workspace, tmp_path: Path, instead: str
) -> None:
    shutil.rmtree(ws.path)
    ws.path.write_text("x") if instead == "file" else ws.path.symlink_to(tmp_path)

    with pytest.raises(WorkspaceError, match="not a folder any more"):
        spaces.snapshot(ws)


def test_our_own_folder_deleted_or_damaged(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    write(ws.path, {"new": "n", "src/a.py": None})
    expected = spaces.snapshot(ws)

    (ws.admin / "index").write_bytes(b"rubbish")
    assert spaces.snapshot(ws) == expected
    (ws.admin / "index").unlink()
    assert spaces.snapshot(ws) == expected
    (ws.admin / "HEAD").write_text("")
    assert spaces.snapshot(ws) == expected
    shutil.rmtree(ws.admin)
    assert spaces.snapshot(ws) == expected


def test_a_lock_that_a_killed_process_left(spaces: Workspaces, ws: Workspace) -> None:
    (ws.admin / "index.lock").touch()
    write(ws.path, {"new": "n"})

    assert spaces.keep(ws, task_id="t", attempt=1, subject="s").paths == ("new",)


def test_snapshots_of_one_workspace_at_once(spaces: Workspaces, ws: Workspace) -> None:
    write(ws.path, {f"f{number}": "x" for number in range(50)})

    with ThreadPoolExecutor(8) as pool:
        trees = set(pool.map(lambda _: spaces.snapshot(ws), range(16)))

    assert len(trees) == 1


def test_names_that_git_refuses_are_reported(spaces: Workspaces, ws: Workspace) -> None:
    write(ws.path, {"good": "g", "git~1": "x", "sub/.GIT/config": "x", ".gIt": "x"})

    kept = spaces.keep(ws, task_id="t", attempt=1, subject="s")

    assert kept.paths == ("good",)
    assert [left.path for left in kept.left_out] == [".gIt", "git~1", "sub/.GIT/config"]
    assert {left.reason for left in kept.left_out} == {"git does not allow this name"}


def test_a_link_as_gitmodules_is_reported(spaces: Workspaces, ws: Workspace) -> None:
    (ws.path / ".gitmodules").symlink_to("/etc/passwd")
    write(ws.path, {"good": "g"})

    kept = spaces.keep(ws, task_id="t", attempt=1, subject="s")

    assert kept.paths == ("good",)
    assert [left.path for left in kept.left_out] == [".gitmodules"]


def test_what_is_no_file_is_passed_over(
    spaces: Workspaces, ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(ws.path / "pipe")
    (ws.path / "src" / "a.py").unlink()
    os.mkfifo(ws.path / "src" / "a.py")
    monkeypatch.chdir(ws.path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")

        kept = spaces.keep(ws, task_id="t", attempt=1, subject="s")

    assert kept.paths == ()
    assert [left.path for left in kept.left_out] == ["src/a.py"]


def test_files_that_every_server_refuses_are_reported(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    harmful = '[submodule "x"]\n\tpath = x\n\turl = -u./payload\n'
    write(ws.path, {".gitmodules": harmful, "sub/GITMOD~1": harmful, "good/.gitattributes": "* text\n"})
    write(ws.path, {"long/.gitattributes": "x" * 5000, "good/.gitmodules": '[submodule "y"]\n\tpath = y\n'})

    kept = spaces.keep(ws, task_id="t", attempt=1, subject="s")

    assert kept.paths == ("good/.gitattributes", "good/.gitmodules")
    assert [left.path for left in kept.left_out] == [".gitmodules", "long/.gitattributes", "sub/GITMOD~1"]
    assert "gitmodulesUrl" in kept.left_out[0].reason
    assert git(root, "fsck", "--strict", "--no-dangling") == ""


def test_one_file_that_git_cannot_take_costs_only_itself(
    spaces: Workspaces, ws: Workspace, root: Path
) -> None:
    write(ws.path, {f"f{number}": "x" for number in range(20)})
    write(ws.path, {".gitattributes": "f7 working-tree-encoding=UTF-16\n", "f7": b"\x80"})

    kept = spaces.keep(ws, task_id="t", attempt=1, subject="s")

    assert set(kept.paths) == {".gitattributes", *(f"f{number}" for number in range(20))} - {"f7"}
    (left,) = kept.left_out
    assert left.path == "f7"
    assert "UTF-16" in left.reason


def test_a_large_file_is_kept(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    with (ws.path / "big").open("wb") as file:
        file.truncate(20_000_000)

    tree = spaces.snapshot(ws)

    assert git(root, "cat-file", "-s", f"{tree}:big") == "20000000"


def unprivileged(action: Callable[[], None], *folders: Path) -> None:
    """Do something as a user to whom permissions mean something."""
    if os.geteuid() != 0:
        action()
        return
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            os.lchown(path, 65534, 65534)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            action()
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}")
        finally:
            sys.stdout.flush()
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_what_an_agent_made_unreadable_is_kept(
    spaces: Workspaces, ws: Workspace, root: Path, tmp_path: Path
) -> None:
    write(ws.path, {"new/file": "n", "locked": "l", "src/a.py": "a = 2\n", "src/deep/er": "d"})
    for reachable in tmp_path.parents:
        if reachable.name.startswith(("pytest-", "popen-")):  # those of pytest, and nothing above them
            reachable.chmod(0o755)
    tmp_path.chmod(0o755)

    def work() -> None:
        for name, mode in {
            "locked": 0o000,
            "new": 0o000,
            "src/deep": 0o000,
            "src": 0o000,
            ".": 0o500,
        }.items():
            (ws.path / name).chmod(mode)
        kept = spaces.keep(ws, task_id="t", attempt=1, subject="s")
        assert kept.paths == ("locked", "new/file", "src/a.py", "src/deep/er"), kept
        assert kept.left_out == ()

        (ws.path / "new").chmod(0o000)
        (ws.path / "src").chmod(0o500)
        ws.home.chmod(0o500)
        spaces.discard(ws)
        assert spaces.remove_trash() == 1
        assert list((spaces.folder.parent / ".trash").iterdir()) == []

    unprivileged(work, tmp_path)


# --- nested repositories --------------------------------------------------------------------------


def test_a_repository_in_the_workspace_gives_its_files(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    make_repo(ws.path / "sub", {"a": "a", "deep/b": "b", ".gitignore": "*.tmp\n"})
    write(ws.path, {"sub/later": "l", "sub/x.log": "", "sub/x.tmp": "", "sub/build/x": ""})
    make_repo(ws.path / "sub" / "deep" / "inner", {"i": "i"})
    git(ws.path, "init", "-q", "empty")
    git(ws.path, "init", "-q", "fresh")
    write(ws.path, {"fresh/f": "f"})
    expected = {*FILES, "sub/a", "sub/deep/b", "sub/later", "sub/.gitignore", "sub/deep/inner/i", "fresh/f"}

    tree = spaces.snapshot(ws)

    assert set(tree_files(root, tree)) == expected
    assert "commit" not in git(root, "ls-tree", "-r", tree)
    assert git(ws.path / "sub", "log", "--format=%s") == "first"

    write(ws.path, {"sub/more": "m", "sub/a": None, "sub/deep/inner/j": "j"})
    again = spaces.snapshot(ws)
    assert set(tree_files(root, again)) == (expected | {"sub/more", "sub/deep/inner/j"}) - {"sub/a"}


def test_a_repository_made_of_a_folder_that_was_there(spaces: Workspaces, ws: Workspace, root: Path) -> None:
    make_repo(ws.path / "src", {"a.py": "a = 2\n", "c.py": "c"})

    files = tree_files(root, spaces.snapshot(ws))

    assert files["src/a.py"] == "a = 2"
    assert files["src/c.py"] == "c"


def test_a_linked_worktree_in_the_workspace_gives_its_files(
    spaces: Workspaces, ws: Workspace, root: Path
) -> None:
    git(ws.path, "worktree", "add", "-q", "-b", "more", "side")
    write(ws.path, {"side/new": "n"})

    files = tree_files(root, spaces.snapshot(ws))

    assert files["side/new"] == "n"
    assert files["side/README.md"] == "hello"


# --- attacks --------------------------------------------------------------------------------------

HOOKS = (
    "commit-msg",
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-merge",
    "post-rewrite",
    "pre-auto-gc",
    "pre-commit",
    "prepare-commit-msg",
    "reference-transaction",
)


def plant_hooks(ws: Workspace, evil: Path) -> None:
    for hook in HOOKS:
        script(ws.path / ".git" / "hooks" / hook, f"touch {evil}")


def plant_config(ws: Workspace, evil: Path) -> None:
    script(ws.path / "evil.sh", f"touch {evil}; cat")
    program = ws.path / "evil.sh"
    (ws.path / ".git" / "config").write_text(
        f"[core]\n\trepositoryformatversion = 1\n\tfsmonitor = {program}\n\thooksPath = {ws.path}/hooks\n"
        f"\tpager = {program}\n\teditor = {program}\n\tsshCommand = {program}\n\taskPass = {program}\n"
        f"\talternateRefsCommand = {program}\n"
        f"[extensions]\n\tworktreeConfig = true\n[include]\n\tpath = {ws.path}/included\n"
        f'[filter "evil"]\n\tclean = {program}\n\tsmudge = {program}\n\tprocess = {program}\n'
        "\trequired = true\n"
        f'[diff]\n\texternal = {program}\n[diff "evil"]\n\ttextconv = {program}\n\tcommand = {program}\n'
        f'[merge "evil"]\n\tdriver = {program}\n[gpg]\n\tprogram = {program}\n[commit]\n\tgpgSign = true\n'
        f"[status]\n\tsubmoduleSummary = true\n[uploadpack]\n\tpackObjectsHook = {program}\n"
    )
    (ws.path / "included").write_text(f"[core]\n\tfsmonitor = {program}\n")
    (ws.path / ".git" / "config.worktree").write_text(f"[core]\n\tfsmonitor = {program}\n")
    for hook in HOOKS:
        script(ws.path / "hooks" / hook, f"touch {evil}")


def plant_attributes(ws: Workspace, evil: Path) -> None:
    plant_config(ws, evil)
    write(ws.path, {".gitattributes": "* filter=evil diff=evil merge=evil text ident\n"})
    write(ws.path, {".git/info/attributes": "* filter=evil diff=evil merge=evil\n"})


def plant_git_file(ws: Workspace, evil: Path) -> None:
    plant_config(ws, evil)
    (ws.path / ".git").rename(ws.path / "elsewhere.git")
    write(ws.path, {".git": f"gitdir: {ws.path}/elsewhere.git\n"})


def plant_git_link(ws: Workspace, evil: Path) -> None:
    plant_config(ws, evil)
    (ws.path / ".git").rename(ws.home / "elsewhere.git")
    (ws.path / ".git").symlink_to(ws.home / "elsewhere.git")


def plant_commondir(ws: Workspace, evil: Path) -> None:
    plant_config(ws, evil)
    shutil.copytree(ws.path / ".git", ws.path / "common")
    write(ws.path, {".git/commondir": f"{ws.path}/common\n"})


def plant_nested(ws: Workspace, evil: Path) -> None:
    plant_config(ws, evil)
    write(ws.path, {"nested/file": "f"})
    for place in ("nested", "src"):
        shutil.copytree(ws.path / ".git", ws.path / place / ".git")
        plant_hooks(Workspace("x", "", ws.path / place, ws.admin), evil)


def plant_nested_file(ws: Workspace, evil: Path) -> None:
    plant_config(ws, evil)
    write(ws.path, {"nested/file": "f", "nested/.git": f"gitdir: {ws.path}/.git\n"})


def plant_submodule(ws: Workspace, evil: Path) -> None:
    """A folder that the index has as a submodule, with a repository of the agent's in it."""
    plant_config(ws, evil)
    shutil.copytree(ws.path / ".git", ws.path / "lib" / ".git")
    plant_hooks(Workspace("x", "", ws.path / "lib", ws.admin), evil)
    # At the very commit that is recorded, so that nothing but a look inside tells what is new in it.
    write(ws.path, {"lib/dirty": "d", "lib/.git/HEAD": git(ws.path, "rev-parse", "HEAD:lib") + "\n"})
    program = ws.path / "evil.sh"
    write(
        ws.path,
        {
            ".gitmodules": f'[submodule "lib"]\n\tpath = lib\n\turl = ext::{program}\n\tupdate = !{program}\n'
            f"\tignore = none\n[include]\n\tpath = {ws.path}/included\n"
        },
    )


def plant_environment(ws: Workspace, evil: Path) -> None:
    plant_config(ws, evil)
    write(ws.path, {".git/index.lock": "", ".git/HEAD": "rubbish", ".git/objects/info/alternates": "/etc\n"})


def plant_commits(ws: Workspace, evil: Path) -> None:
    git(ws.path, "checkout", "-q", "-b", "elsewhere")
    commit(ws.path, "by the agent", {"committed": "c"})
    git(ws.path, "checkout", "-q", "--detach")
    git(ws.path, "update-index", "--assume-unchanged", "README.md")
    git(ws.path, "update-index", "--skip-worktree", "src/a.py")
    write(ws.path, {"committed": None})
    plant_attributes(ws, evil)


def plant_nothing_left(ws: Workspace, evil: Path) -> None:
    shutil.rmtree(ws.path / ".git")


def test_the_planted_programs_do_run_for_the_careless(with_submodule: Path, marker: Path) -> None:
    """The attacks below are real: without our precautions, these set them off."""
    repo = Repository.discover(with_submodule)
    opened = Workspaces(repo, "r").open("x", repo.head())
    ours = {"GIT_DIR": str(opened.admin), "GIT_WORK_TREE": str(opened.path)}
    ours["GIT_OBJECT_DIRECTORY"] = str(repo.objects)
    plant_submodule(opened, marker)
    marker.unlink(missing_ok=True)

    git(opened.path, "status", "--porcelain", "--ignore-submodules=dirty", env=ours)
    assert not marker.exists()
    git(opened.path, "add", "-A", env=ours, check=False)
    assert marker.exists()

    marker.unlink()
    git(opened.path, "status", check=False)
    assert marker.exists()


@pytest.mark.parametrize(
    "plant",
    [
        plant_hooks,
        plant_config,
        plant_attributes,
        plant_git_file,
        plant_git_link,
        plant_commondir,
        plant_nested,
        plant_nested_file,
        plant_submodule,
        plant_environment,
        plant_commits,
        plant_nothing_left,
    ],
)
def test_nothing_that_an_agent_plants_runs(
    with_submodule: Path, marker: Path, plant: Callable[[Workspace, Path], None]
) -> None:
    repo = Repository.discover(with_submodule)
    spaces = Workspaces(repo, "r")
    opened = spaces.open("x", repo.head())
    before = state_of(with_submodule)
    plant(opened, marker)
    marker.unlink(missing_ok=True)  # the planting itself may have set it off
    write(opened.path, {"README.md": "changed\n", "src/a.py": "a = 2\n"})
    again = time.time() + 5
    os.utime(opened.path / "src" / "b.py", (again, again))

    for attempt in (1, 2):
        kept = spaces.keep(opened, task_id="t", attempt=attempt, subject="s")
        merged = repo.merge(repo.head(), kept.commit)
        repo.diff(repo.head(), kept.commit)
        repo.changed(repo.head(), merged.tree)
        spaces.snapshot(spaces.open(f"check.{attempt}", kept.commit))

    assert not marker.exists()
    assert state_of(with_submodule) == before
    files = tree_files(with_submodule, kept.commit)
    assert files["README.md"] == "changed"
    assert files["src/a.py"] == "a = 2"
    assert files["src/b.py"] == "b = 1"
    assert files[".gitmodules"].startswith('[submodule "lib"]\n\tpath = lib\n\turl = /')
    assert "committed" not in files
    assert len(files["lib"]) == 40
    assert not any(".git" in path.split("/") for path in files)
    assert git(with_submodule, "fsck", "--strict", "--no-dangling") == ""
