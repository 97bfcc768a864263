from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from agentful.errors import GitError
from agentful.runtime.git import Conflict, Repository
from gitutil import branch, commit, git, make_repo, no_user_configuration, tree_files, write

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


def test_a_clean_merge(repo: Repository, root: Path) -> None:
    ours = branch(root, "ours", {"a.txt": "ONE\ntwo\nthree\n"})
    theirs = branch(root, "theirs", {"a.txt": "one\ntwo\nthree\n4\n", "new": "n"})
    before = git(root, "status", "--porcelain"), git(root, "for-each-ref")

    merge = repo.merge(ours, theirs)

    assert merge.clean
    assert merge.paths == ()
    assert tree_files(root, merge.tree) == {"a.txt": "ONE\ntwo\nthree\n4", "new": "n", "src/b.py": "b = 1"}
    assert (git(root, "status", "--porcelain"), git(root, "for-each-ref")) == before
    assert repo.conflict_text(merge) == ""


def test_conflicts_say_path_and_kind(repo: Repository, root: Path) -> None:
    ours = branch(root, "ours", {"a.txt": "1\ntwo\nthree\n", "src/b.py": None, "new": "x\n", "bin": b"\0a"})
    theirs = branch(
        root, "theirs", {"a.txt": "I\ntwo\nthree\n", "src/b.py": "b = 2\n", "new": "y\n", "bin": b"\0b"}
    )

    merge = repo.merge(ours, theirs)

    assert not merge.clean
    assert merge.conflicts == (
        Conflict("a.txt", "contents"),
        Conflict("bin", "binary"),
        Conflict("new", "contents"),
        Conflict("src/b.py", "modify/delete"),
    )
    assert any("Merge conflict in a.txt" in message for message in merge.messages)
    text = repo.conflict_text(merge, ours="api", theirs="ui")
    assert "--- a.txt (contents)\n<<<<<<< api\n1\n||||||| " in text
    assert "\none\n=======\nI\n>>>>>>> ui\ntwo\nthree\n" in text
    assert "--- bin (binary)\n--- new" in text
    assert "--- src/b.py (modify/delete)\n" in text
    assert ours not in text


def test_conflict_text_shows_the_hunks_and_not_the_file(repo: Repository, root: Path) -> None:
    lines = [f"line {number}\n" for number in range(200)]
    git(root, "checkout", "-q", "-b", "long")
    commit(root, "long", {"long": "".join(lines)})

    def changed(word: str) -> str:
        return "".join(word + "\n" if number in (50, 150) else line for number, line in enumerate(lines))

    ours = branch(root, "ours", {"long": changed("ours")}, "long")
    theirs = branch(root, "theirs", {"long": changed("theirs")}, "long")

    text = repo.conflict_text(repo.merge(ours, theirs))

    assert text.count("<<<<<<< already landed") == text.count(">>>>>>> this task") == 2
    assert "line 47\n" in text
    assert "line 46\n" not in text
    assert "line 100\n" not in text
    assert "…\n" in text


def test_conflict_text_is_bounded(repo: Repository, root: Path) -> None:
    ours = branch(root, "ours", {f"f{number:03}": "ours\n" * 50 for number in range(120)})
    theirs = branch(root, "theirs", {f"f{number:03}": "theirs\n" * 50 for number in range(120)})
    merge = repo.merge(ours, theirs)

    assert len(merge.conflicts) == 120
    assert "(and 20 more paths)" in repo.conflict_text(merge, limit=1_000_000)
    short = repo.conflict_text(merge, limit=500)
    assert len(short) < 600
    assert "120 paths are in conflict" in short


def test_renames_are_followed(repo: Repository, root: Path) -> None:
    ours = branch(root, "ours", {"a.txt": None, "b.txt": "one\ntwo\nthree\n"})
    theirs = branch(root, "theirs", {"a.txt": "one\ntwo\n3\n"})
    other = branch(root, "other", {"a.txt": None, "c.txt": "one\ntwo\nthree\n"})

    assert tree_files(root, repo.merge(ours, theirs).tree)["b.txt"] == "one\ntwo\n3"
    clash = repo.merge(ours, other)
    assert {conflict.kind for conflict in clash.conflicts} == {"rename/rename"}
    assert "a.txt" in clash.paths
    assert "rename/rename" in repo.conflict_text(clash)


def test_a_folder_that_was_renamed_is_a_conflict(repo: Repository, root: Path) -> None:
    git(root, "checkout", "-q", "-b", "lib")
    commit(root, "lib", {f"lib/f{number}": f"content {number}\n" * 5 for number in range(4)})
    git(root, "checkout", "-q", "-b", "ours")
    git(root, "mv", "lib", "core")
    ours = commit(root, "moved")
    git(root, "checkout", "-q", "main")
    theirs = branch(root, "theirs", {"lib/new": "new\n"}, "lib")

    assert not repo.merge(ours, theirs).clean


def test_a_file_in_the_way_of_a_folder(repo: Repository, root: Path) -> None:
    ours = branch(root, "ours", {"place": "file\n"})
    theirs = branch(root, "theirs", {"place/inside": "x\n"})

    merge = repo.merge(ours, theirs)

    assert [conflict.kind for conflict in merge.conflicts] == ["file/directory"]
    assert "place" in merge.paths[0]


def test_submodules_in_conflict_do_not_confuse(repo: Repository, root: Path) -> None:
    def at(name: str, sha: str, text: str) -> str:
        git(root, "checkout", "-q", "-b", name, "main")
        git(root, "update-index", "--add", "--cacheinfo", f"160000,{sha},lib")
        write(root, {"a.txt": text})
        git(root, "add", "a.txt")
        git(root, "commit", "-q", "-m", name)
        return git(root, "rev-parse", "HEAD")

    ours = at("ours", "1" * 40, "ours\n")
    theirs = at("theirs", "2" * 40, "theirs\n")

    merge = repo.merge(ours, theirs)

    assert merge.paths == ("a.txt", "lib")
    assert "--- lib (" in repo.conflict_text(merge)


def test_names_that_are_hard_to_parse(repo: Repository, root: Path) -> None:
    names = ["two words", "tab\there", "line\nbreak", "1", "ünï", '"quoted"', "-dash"]
    ours = branch(root, "ours", dict.fromkeys(names, "ours\n"))
    theirs = branch(root, "theirs", dict.fromkeys(names, "theirs\n"))

    merge = repo.merge(ours, theirs)

    assert set(merge.paths) == set(names)
    assert repo.conflict_text(merge).count("<<<<<<<") == len(names)


def test_attributes_of_our_side_choose_the_merge_driver(repo: Repository, root: Path) -> None:
    files: dict[str, str | bytes | None] = {
        ".gitattributes": "CHANGES merge=union\n",
        "sub/.gitattributes": "*.lock -merge\n",
        "CHANGES": "old\n",
        "sub/x.lock": "1\n2\n3\n4\n5\n",
    }
    git(root, "checkout", "-q", "-b", "attributes")
    commit(root, "attributes", files)
    ours = branch(root, "ours", {"CHANGES": "a\nold\n", "sub/x.lock": "one\n2\n3\n4\n5\n"}, "attributes")
    theirs = branch(root, "theirs", {"CHANGES": "b\nold\n", "sub/x.lock": "1\n2\n3\n4\nfive\n"}, "attributes")

    merge = repo.merge(ours, theirs)

    assert tree_files(root, merge.tree)["CHANGES"] == "a\nb\nold"
    assert merge.conflicts == (Conflict("sub/x.lock", "binary"),)


def test_unrelated_histories_do_not_merge(repo: Repository, root: Path) -> None:
    head = repo.head()
    git(root, "checkout", "-q", "--orphan", "elsewhere")
    alone = commit(root, "alone", {"x": "x"})

    with pytest.raises(GitError, match="unrelated"):
        repo.merge(head, alone)
    with pytest.raises(GitError):
        repo.merge(head, "0" * 40)


def test_merges_run_in_parallel(repo: Repository, root: Path) -> None:
    ours = branch(root, "ours", {"a.txt": "ours\n"})
    theirs = branch(root, "theirs", {"a.txt": "theirs\n"})

    with ThreadPoolExecutor(8) as pool:
        merges = list(pool.map(lambda _: repo.merge(ours, theirs), range(16)))

    assert len({merge.tree for merge in merges}) == 1
    assert all(merge.paths == ("a.txt",) for merge in merges)
