"""Merging two commits in memory, and showing what does not merge.

The verbs are :meth:`.git.Repository.merge` and :meth:`.git.Repository.conflict_text`; this is how they
do it: by ``git merge-tree``, which writes objects and nothing else.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import GitError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .git import Repository

_CONTEXT = 3
"""Lines shown before and after a conflicting hunk."""
_MOST_FILES = 100
"""Files of which the hunks are shown."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path that does not merge. ``kind`` is git's word: ``contents``, ``modify/delete``, ``binary``…"""

    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Merge:
    """What became of a merge in memory. With conflicts, the files in ``tree`` have markers in them."""

    ours: str
    theirs: str
    tree: str
    conflicts: tuple[Conflict, ...] = ()
    messages: tuple[str, ...] = ()
    """What git said of it, one entry a message."""

    @property
    def clean(self) -> bool:
        return not self.conflicts

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths in conflict, sorted."""
        return tuple(conflict.path for conflict in self.conflicts)


def merge(repo: Repository, ours: str, theirs: str) -> Merge:
    merged, touched = _merge_tree(repo, ours, theirs)
    attributes = _attributes(repo, ours, touched) if touched else {}
    if not attributes:
        return merged
    # merge-tree reads attributes from a checkout only, so it is given one that has nothing else.
    with tempfile.TemporaryDirectory(prefix="agentful-merge-") as folder:
        for path, content in attributes.items():
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return _merge_tree(repo, ours, theirs, Path(folder))[0]


def _merge_tree(
    repo: Repository, ours: str, theirs: str, checkout: Path | None = None
) -> tuple[Merge, set[str]]:
    """The merge, and the paths for whose contents both sides had something to say."""
    args = ("merge-tree", "--write-tree", "-z", "--messages", ours, theirs)
    env = {"GIT_WORK_TREE": str(checkout)} if checkout else None
    done = repo.git(*args, env=env, cwd=checkout, check=False)
    if done.returncode not in (0, 1):
        raise GitError(args, done.returncode, done.stderr)
    tree, unmerged, messages = _parse(done.stdout)
    kinds: dict[str, str] = {}
    for paths, kind, _ in messages:
        if kind.startswith("CONFLICT"):
            for path in [path for path in paths if path in unmerged] or paths[:1]:
                kinds.setdefault(path, kind.removeprefix("CONFLICT (").removesuffix(")"))
    for path in unmerged:
        kinds.setdefault(path, "contents")
    if (done.returncode == 1) != bool(kinds):
        raise GitError(args, done.returncode, "its exit code and its list of conflicts disagree")
    conflicts = tuple(Conflict(path, kinds[path]) for path in sorted(kinds))
    touched = {path for paths, _, _ in messages for path in paths}
    return Merge(ours, theirs, tree, conflicts, tuple(said.strip() for *_, said in messages)), touched


def _parse(output: bytes) -> tuple[str, set[str], list[tuple[list[str], str, str]]]:
    """The output of ``merge-tree -z``: the tree, unmerged paths, messages as paths, type and text."""
    parts = [part.decode(errors="backslashreplace") for part in output.split(b"\0")]
    tree = parts[0].strip()
    at = 1
    unmerged: set[str] = set()
    while at < len(parts) and parts[at]:
        unmerged.add(parts[at].partition("\t")[2])
        at += 1
    at += 1
    messages: list[tuple[list[str], str, str]] = []
    # The advice on submodule conflicts follows as free text: whatever is no message ends the list.
    while at < len(parts) and parts[at].isdigit() and (end := at + 1 + int(parts[at])) + 1 < len(parts):
        messages.append((parts[at + 1 : end], parts[end], parts[end + 1]))
        at = end + 2
    return tree, unmerged, messages


def _attributes(repo: Repository, commit: str, paths: Iterable[str]) -> dict[str, bytes]:
    """The attribute files of a commit that say something about these paths."""
    folders = {folder for path in paths for folder in Path(path).parents}
    names = sorted(os.fspath(folder / ".gitattributes") for folder in folders)
    contents = repo.blobs([f"{commit}:{name}" for name in names])
    return {name: content for name, content in zip(names, contents, strict=True) if content is not None}


def conflict_text(repo: Repository, merged: Merge, *, ours: str, theirs: str, limit: int) -> str:
    shown = merged.conflicts[:_MOST_FILES]
    blobs = repo.blobs([f"{merged.tree}:{conflict.path}" for conflict in shown])
    names = {f"<<<<<<< {merged.ours}": f"<<<<<<< {ours}", f">>>>>>> {merged.theirs}": f">>>>>>> {theirs}"}
    parts: list[str] = []
    for conflict, blob in zip(shown, blobs, strict=True):
        parts.append(f"--- {conflict.path} ({conflict.kind})\n")
        if blob is not None and b"\0" not in blob:
            parts.append(_hunks(blob.decode(errors="backslashreplace"), names))
    if len(merged.conflicts) > len(shown):
        parts.append(f"(and {len(merged.conflicts) - len(shown)} more paths)\n")
    whole = "".join(parts)
    if len(whole) <= limit:
        return whole
    return f"{whole[:limit]}\n(cut off here; {len(merged.conflicts)} paths are in conflict)\n"


def _hunks(content: str, names: Mapping[str, str]) -> str:
    """The parts of a merged file that are in conflict, with a few lines around each."""
    lines = content.splitlines()
    shown: set[int] = set()
    start: int | None = None
    for number, line in enumerate(lines):
        if line.startswith("<<<<<<<") and start is None:
            start = number
        elif line.startswith(">>>>>>>") and start is not None:
            shown.update(range(max(0, start - _CONTEXT), min(len(lines), number + _CONTEXT + 1)))
            start = None
    out: list[str] = []
    previous = -1
    for number in sorted(shown):
        if number != previous + 1:
            out.append("…")
        line = lines[number]
        name = next((name for name in names if line == name or line.startswith(f"{name}:")), None)
        out.append(line if name is None else names[name] + line[len(name) :])
        previous = number
    return "".join(f"{line}\n" for line in out)
