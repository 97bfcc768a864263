"""The git command line, typed.

Two kinds of call, never mixed:

- :meth:`Repository.git` is ours: plumbing, in a fixed git directory, with an environment and a
  configuration that we set. Of what the user configured, only the repository's own file is read. No
  hook, no prompt, no pager; it never looks at a checkout unless it is told to.
- :meth:`Repository.user_git` is for what the user asks to happen in the user's own checkout, with the
  user's own configuration.

Everything here blocks, is safe to call from any thread, and starts git in a session of its own, so
that an interrupt at the terminal ends no git command half-way. Works with git 2.38 and later.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from ..errors import ConfigError, GitError
from . import merging
from .gitcall import NOBODY, Output, call_ours, call_users, check_version, directory_lock, text
from .merging import Conflict, Merge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "CommitInfo",
    "Conflict",
    "Merge",
    "Output",
    "RefMoved",
    "Repository",
    "commit_message",
    "decode_trailer",
    "encode_trailer",
]

_TRAILER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_NOT_IN_TRAILERS = re.compile(r"[%\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|^\s|\s$")

_OUR_REFS = ("refs/agentful/", "refs/heads/agentful/")
_STALE_LOCK_AGE = 10.0
"""Seconds after which the lock file of one of our refs has no living owner: one lives milliseconds."""
_LOCK_TRIES = 15
"""Tries at a locked ref. Git itself waits a second in each."""


class RefMoved(GitError):
    """A ref was not where it had to be for the change, so nothing was changed.

    ``expected`` and ``actual`` are commit ids, ``None`` for "no such ref".
    """

    def __init__(self, ref: str, expected: str | None, actual: str | None) -> None:
        super().__init__(
            ("update-ref", ref), 1, f"{ref} is at {actual or 'nothing'}, not at {expected or 'nothing'}"
        )
        self.ref = ref
        self.expected = expected
        self.actual = actual


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """A commit. ``at`` is when it was committed, in seconds since the epoch."""

    sha: str
    tree: str
    parents: tuple[str, ...]
    at: int
    subject: str
    trailers: dict[str, str] = field(default_factory=dict[str, str])


class Repository:
    """A repository of the user's, as seen from one checkout of it. Made by :meth:`discover`."""

    def __init__(self, root: Path, git_dir: Path, checkout_dir: Path) -> None:
        self.root = root
        """The top of the user's checkout."""
        self.git_dir = git_dir
        """The git directory that all checkouts of the repository share; absolute."""
        self.objects = git_dir / "objects"
        self.id = hashlib.sha256(os.fsencode(git_dir)).hexdigest()[:12]
        """A short name for folders: the same for every checkout of the repository, for ever."""
        # Where HEAD and the index of this checkout are; for a linked worktree not the git_dir.
        self._checkout_dir = checkout_dir

    def __repr__(self) -> str:
        return f"Repository({str(self.root)!r})"

    @classmethod
    def discover(cls, path: Path | str = ".") -> Repository:
        """The repository that ``path``, a folder, lies in.

        Raises :class:`ConfigError` that says what to do: git is missing or too old, there is no
        repository, it is bare, it has no commits, or git does not trust its owner.
        """
        check_version()
        try:
            where = Path(path).absolute()
        except FileNotFoundError:
            raise ConfigError("the current folder does not exist any more") from None
        if not where.is_dir():
            raise ConfigError("no such folder", where=str(where))
        args = ("rev-parse", "--path-format=absolute", "--show-toplevel", "--git-common-dir", "--git-dir")
        found = call_users(where, args, check=False)
        lines = os.fsdecode(found.stdout).splitlines()
        if found.returncode != 0 or len(lines) != 3:
            raise _undiscovered(where, found.stderr)
        root, git_dir, checkout_dir = (Path(line).resolve() for line in lines)
        repo = cls(root, git_dir, checkout_dir)
        if repo._rev_parse("HEAD^{commit}") is None:
            raise ConfigError(
                "this repository has no commits yet, and agents start from a commit. "
                "Make one first: git add -A && git commit -m 'First commit'",
                where=str(root),
            )
        return repo

    # --- calls -----------------------------------------------------------------------------------

    def git(
        self,
        *args: str,
        input: bytes | None = None,  # noqa: A002
        env: Mapping[str, str] | None = None,
        check: bool = True,
        cwd: Path | None = None,
        holding: int | None = None,
    ) -> Output:
        """Run a git command of ours. ``env`` adds variables, ``cwd`` is the git directory if not given.

        Pathspecs are taken literally. Standard input is empty without ``input``. ``holding`` is a lock
        (see ``directory_lock``) that git holds too: should we be killed, it ends when git does. Raises
        :class:`GitError` where the command fails and ``check`` is true, or cannot be started.
        """
        return call_ours(self.git_dir, args, input=input, env=env, cwd=cwd, check=check, holding=holding)

    def user_git(self, *args: str, input: bytes | None = None, check: bool = True) -> Output:  # noqa: A002
        """Run git in the user's own checkout, as the user: own configuration, own hooks; no prompts.

        Only for what the user asked to happen there. Raises as :meth:`git` does.
        """
        return call_users(self.root, args, input=input, check=check)

    # --- what the user configured ----------------------------------------------------------------

    def identity(self) -> tuple[str, str]:
        """The user's configured name and address; agentful's where there is none. Read once."""
        return self._identity

    @cached_property
    def _identity(self) -> tuple[str, str]:
        said = self.user_git("-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT", check=False)
        match = re.fullmatch(r"(.+) <(.+)> \d+ [-+]\d+", said.line)
        return (match[1], match[2]) if said.returncode == 0 and match else NOBODY

    def user_config(self, pattern: str, *, paths: bool = False) -> dict[str, str]:
        """The effective settings, from all of the user's files, whose lower-case names match a regex.

        ``paths`` expands ``~`` in the values.
        """
        kind = ("--type=path",) if paths else ()
        found = self.user_git("config", "--null", *kind, "--get-regexp", pattern, check=False)
        entries = (entry.partition("\n") for entry in _fields(found.stdout))
        return {key: value if separator else "true" for key, separator, value in entries}

    # --- reading ---------------------------------------------------------------------------------

    def resolve(self, rev: str) -> str:
        """The id of the commit that ``rev`` names, as seen from the user's checkout."""
        sha = self._rev_parse(f"{rev}^{{commit}}")
        if sha is None:
            raise GitError(("rev-parse", rev), 1, f"there is no commit {rev!r}")
        return sha

    def head(self) -> str:
        """The commit that the user's checkout is at."""
        return self.resolve("HEAD")

    def head_branch(self) -> str | None:
        """The short name of the branch in the user's checkout; ``None`` where HEAD is detached."""
        found = self.git("symbolic-ref", "--quiet", "--short", "HEAD", env=self._as_checkout, check=False)
        return found.line if found.returncode == 0 else None

    def tree_of(self, rev: str) -> str:
        """The id of a commit's tree."""
        sha = self._rev_parse(f"{rev}^{{tree}}")
        if sha is None:
            raise GitError(("rev-parse", rev), 1, f"there is no tree {rev!r}")
        return sha

    def ref(self, name: str) -> str | None:
        """What the ref with this full name points to; ``None`` where there is none."""
        found = self.git("show-ref", "--verify", "--hash", name, check=False)
        return found.line if found.returncode == 0 else None

    def exists(self, commit: str) -> bool:
        """Whether there is a commit of this id."""
        return self.git("cat-file", "-e", f"{commit}^{{commit}}", check=False).returncode == 0

    def checked_out(self) -> set[str]:
        """The full names of the branches that are checked out, here or in another worktree."""
        lines = text(self.git("worktree", "list", "--porcelain").stdout).splitlines()
        return {line.removeprefix("branch ") for line in lines if line.startswith("branch ")}

    def refs(self, prefix: str) -> dict[str, str]:
        """All refs at or under ``prefix``, as full name to id."""
        listed = self.git("for-each-ref", "--format=%(objectname) %(refname)", prefix.rstrip("/"))
        pairs = (line.split(" ", 1) for line in text(listed.stdout).splitlines())
        return {name: sha for sha, name in pairs}

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        """Whether the first commit is the second, or comes before it."""
        args = ("merge-base", "--is-ancestor", ancestor, descendant)
        found = self.git(*args, check=False)
        if found.returncode not in (0, 1):
            raise GitError(args, found.returncode, found.stderr)
        return found.returncode == 0

    def merge_base(self, a: str, b: str) -> str | None:
        """The best common ancestor of two commits; ``None`` where they have none."""
        found = self.git("merge-base", a, b, check=False)
        if found.returncode not in (0, 1):
            raise GitError(("merge-base", a, b), found.returncode, found.stderr)
        return found.line or None

    def changed(self, a: str, b: str) -> tuple[str, ...]:
        """The paths at which two commits or trees differ, sorted. A renamed file is two of them."""
        found = self.git("diff-tree", "-r", "-z", "--name-only", "--no-renames", a, b)
        return tuple(sorted(_fields(found.stdout)))

    def diff(
        self, a: str, b: str, *, stat: bool = False, color: bool = False, paths: Sequence[str] = ()
    ) -> str:
        """The difference between two commits or trees as text for people; ``stat`` for its summary."""
        options = [
            "--no-ext-diff",
            "--no-textconv",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            "--submodule=short",
        ]
        options.append("--color=always" if color else "--color=never")
        options.append("--stat" if stat else "--patch")
        return text(self.git("diff", *options, a, b, "--", *paths).stdout)

    def commits(self, revisions: str, *, first_parent: bool = False) -> list[CommitInfo]:
        """The commits in a range such as ``base..tip``, oldest first.

        ``first_parent`` follows a branch through its merges: what landed, without what was merged in.
        """
        follow = ("--first-parent",) if first_parent else ()
        return self._log("--topo-order", "--reverse", *follow, revisions)

    def commit(self, rev: str) -> CommitInfo:
        """One commit."""
        return self._log("--max-count=1", rev)[0]

    def trailers(self, rev: str) -> dict[str, str]:
        """The trailers of a commit's message; of a name that is there twice, the last."""
        return self.commit(rev).trailers

    def _log(self, *args: str) -> list[CommitInfo]:
        form = "--format=%H%x00%T%x00%P%x00%ct%x00%s%x00%(trailers:only,unfold)"
        listed = self.git("log", "-z", "--no-color", "--no-patch", "--no-notes", form, *args, "--")
        fields = text(listed.stdout).split("\0")
        commits: list[CommitInfo] = []
        for index in range(0, len(fields) - 5, 6):
            sha, tree, parents, at, subject, block = fields[index : index + 6]
            pairs = (line.partition(":") for line in block.splitlines() if line)
            trailers = {key: value.strip() for key, _, value in pairs}
            commits.append(CommitInfo(sha, tree, tuple(parents.split()), int(at), subject, trailers))
        return commits

    @property
    def _as_checkout(self) -> dict[str, str]:
        return {"GIT_DIR": str(self._checkout_dir)}

    def _rev_parse(self, rev: str) -> str | None:
        args = ("rev-parse", "--verify", "--quiet", "--end-of-options", rev)
        found = self.git(*args, env=self._as_checkout, check=False)
        return found.line if found.returncode == 0 else None

    # --- refs and commits ------------------------------------------------------------------------

    def update_ref(self, name: str, new: str, old: str | None, *, message: str = "") -> None:
        """Move a ref from ``old`` to ``new`` if it is at ``old``; create it if ``old`` is ``None``.

        Raises :class:`RefMoved` where it is anywhere else, also where it is at ``new`` already. A lock
        that somebody holds is waited for; one that a killed process left on a ref of ours is removed.
        """
        reason = ("-m", message) if message else ()
        expected = old or "0" * len(new)
        self._change_refs({name: old}, ("--no-deref", *reason, name, new, expected))

    def delete_refs(self, refs: Mapping[str, str]) -> None:
        """Delete refs, each if it is still at the id given with it: all of them, or none.

        Raises :class:`RefMoved` where one is not.
        """
        if refs:
            lines = "".join(f"option no-deref\0delete {name}\0{old}\0" for name, old in refs.items())
            self._change_refs(refs, ("-z", "--stdin"), lines.encode())

    def _change_refs(self, refs: Mapping[str, str | None], args: Sequence[str], input_: bytes = b"") -> None:
        for remaining in reversed(range(_LOCK_TRIES)):
            done = self.git("update-ref", *args, input=input_, check=False)
            if done.returncode == 0:
                return
            for name, old in refs.items():
                actual = self.ref(name)
                if actual != old:
                    raise RefMoved(name, old, actual)
            if remaining == 0 or ".lock'" not in done.stderr:
                raise GitError(("update-ref", *args), done.returncode, done.stderr)
            for name in refs:
                self._remove_stale_lock(name)

    def _remove_stale_lock(self, name: str) -> None:
        """Remove what a killed process left. Nobody but agentful writes refs of these names."""
        if not name.startswith(_OUR_REFS):
            return
        lock = self.git_dir / f"{name}.lock"
        # One at a time, or a second process would remove the live lock of the first.
        with directory_lock(self.git_dir):
            try:
                if time.time() - lock.stat().st_mtime > _STALE_LOCK_AGE:
                    lock.unlink()
            except FileNotFoundError:
                pass

    def commit_tree(
        self,
        tree: str,
        parents: Sequence[str],
        message: str,
        *,
        author: tuple[str, str] | None = None,
        at: float | None = None,
    ) -> str:
        """Write a commit, and say its id. No ref points to it.

        ``author`` is a name and an address, the user's identity if not given; the committer is always
        the user. ``at`` is seconds since the epoch, now if not given.
        """
        environment: dict[str, str] = {}
        for role, (name, address) in (("AUTHOR", author or self.identity()), ("COMMITTER", self.identity())):
            environment[f"GIT_{role}_NAME"] = _ident(name) or NOBODY[0]
            environment[f"GIT_{role}_EMAIL"] = _ident(address) or NOBODY[1]
            if at is not None:
                environment[f"GIT_{role}_DATE"] = f"@{max(0, int(at))} +0000"
        given = [word for parent in parents for word in ("-p", parent)]
        data = message.replace("\0", "").encode(errors="replace")
        return self.git("commit-tree", tree, *given, "-F", "-", input=data, env=environment).line

    # --- merging in memory -----------------------------------------------------------------------

    def merge(self, ours: str, theirs: str) -> Merge:
        """Merge two commits without touching any checkout, index or ref.

        Merge drivers that the ``.gitattributes`` of ``ours`` select are honoured, as in a merge in a
        checkout. Raises :class:`GitError` where there is no merge at all, as of unrelated histories.
        """
        return merging.merge(self, ours, theirs)

    def conflict_text(
        self, merge: Merge, *, ours: str = "already landed", theirs: str = "this task", limit: int = 20_000
    ) -> str:
        """What does not merge, as text for a prompt or a person: each path, and its hunks with markers.

        The markers show both sides and what was there before (git's zdiff3 style), under the two names
        given. At most about ``limit`` characters.
        """
        return merging.conflict_text(self, merge, ours=ours, theirs=theirs, limit=limit)

    def blobs(self, revs: Sequence[str], *, limit: int = 1_000_000) -> list[bytes | None]:
        """The contents of blobs, each named as ``commit:path`` or by its id.

        ``None`` for one that is not there, is no blob, or has more bytes than ``limit``.
        """
        asked = [os.fsencode(rev) for rev in revs]
        names = b"".join(rev + b"\0" for rev in asked)
        listed = self.git("cat-file", "--batch-check", "-z", input=names).stdout
        shas: list[str | None] = []
        at = 0
        for rev in asked:
            if listed.startswith(missing := rev + b" missing\n", at):
                shas.append(None)
                at += len(missing)
            else:
                end = listed.index(b"\n", at)
                sha, kind, size = listed[at:end].decode().split()
                shas.append(sha if kind == "blob" and int(size) <= limit else None)
                at = end + 1
        wanted = sorted({sha for sha in shas if sha})
        names = "".join(f"{sha}\n" for sha in wanted).encode()
        data = self.git("cat-file", "--batch", input=names).stdout if wanted else b""
        contents: dict[str, bytes] = {}
        at = 0
        for sha in wanted:
            start = data.index(b"\n", at) + 1
            end = start + int(data[at:start].split()[2])
            contents[sha] = data[start:end]
            at = end + 1
        return [contents[sha] if sha else None for sha in shas]

    # --- the user's checkout ---------------------------------------------------------------------

    def dirty(self, paths: Sequence[str] | None = None) -> tuple[str, ...]:
        """What is not committed in the user's checkout: changed, staged or untracked paths, sorted.

        With ``paths``, only what a change of those files would run into; and there ignored files count
        too, because git itself would overwrite them.
        """
        ignored = "--ignored=no" if paths is None else "--ignored=matching"
        args = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", ignored)
        listed = text(self.user_git(*args).stdout).split("\0")
        entries = [(entry[:2], entry[3:].rstrip("/")) for entry in listed if entry]
        if paths is None:
            return tuple(sorted(path for _, path in entries))
        files = set(paths)
        wanted = {part for path in paths for part in _with_folders(path)}
        met: set[str] = set()
        for code, path in entries:
            if path not in wanted and files.isdisjoint(_with_folders(path)):
                continue
            inside = [file for file in files if file.startswith(f"{path}/")] if code == "!!" else []
            # Git names an ignored folder only as a whole, and most of what is in it is in nobody's way.
            met.update([file for file in inside if os.path.lexists(self.root / file)] if inside else [path])
        return tuple(sorted(met))

    def add_exclude(self, pattern: str) -> None:
        """Have git ignore ``pattern`` in this repository, by its own list, never by a tracked file.

        Raises :class:`ConfigError` where that list cannot be written.
        """
        file = self.git_dir / "info" / "exclude"
        try:
            with directory_lock(self.git_dir):
                present = file.read_bytes() if file.exists() else b""
                if pattern.encode() in (line.strip() for line in present.splitlines()):
                    return
                file.parent.mkdir(exist_ok=True)
                with file.open("ab") as out:
                    out.write(
                        (b"" if not present or present.endswith(b"\n") else b"\n") + pattern.encode() + b"\n"
                    )
        except OSError as error:
            raise ConfigError(
                f"cannot have git ignore {pattern!r}: {error.strerror}", where=str(file)
            ) from error

    def fetch_missing(self, commit: str) -> None:
        """In a partial clone: fetch what this commit's tree needs and the clone left out, all at once.

        Raises :class:`GitError` where it cannot be fetched.
        """
        if self._promisor is None:
            return
        args = ("rev-list", "--objects", "--no-object-names", "--no-walk", "--missing=print", commit)
        listed = self.git(*args).stdout.splitlines()
        missing = b"".join(line[1:] + b"\n" for line in listed if line.startswith(b"?"))
        if missing:
            options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no")
            filters = ("-c", "fetch.negotiationAlgorithm=noop", "fetch", *options, "--filter=blob:none")
            self.user_git(*filters, "--stdin", self._promisor, input=missing)

    @cached_property
    def _promisor(self) -> str | None:
        found = self.user_config(r"^(extensions\.partialclone|remote\..*\.promisor)$")
        if "extensions.partialclone" in found:
            return found["extensions.partialclone"]
        return next((key.split(".", 1)[1].rsplit(".", 1)[0] for key in found), None)


def commit_message(subject: str, trailers: Mapping[str, str]) -> str:
    """A message of one line and trailers. Their names are letters, digits and hyphens.

    A value may be any text: what a trailer cannot hold is encoded, as ``%0A`` for a line break, and
    :func:`decode_trailer` gives it back. Raises ``ValueError`` for a name that is none.
    """
    if wrong := [name for name in trailers if not _TRAILER_NAME.fullmatch(name)]:
        raise ValueError(f"{wrong[0]!r} cannot be the name of a trailer")
    lines = (f"{name}: {encode_trailer(value)}\n" for name, value in trailers.items())
    return f"{' '.join(subject.split())[:200] or 'No subject'}\n\n{''.join(lines)}"


def encode_trailer(value: str) -> str:
    """Any text as one line that a trailer can hold."""
    return _NOT_IN_TRAILERS.sub(lambda found: quote(found[0], safe="", errors="surrogatepass"), value)


def decode_trailer(value: str) -> str:
    """The text that :func:`encode_trailer` was given."""
    return unquote(value, errors="surrogatepass")


def _undiscovered(where: Path, stderr: str) -> ConfigError:
    if "dubious ownership" in stderr:
        advice = (
            "git does not trust this repository, because another user owns it. "
            f"If you do: git config --global --add safe.directory {where}"
        )
    elif "must be run in a work tree" in stderr:
        advice = "this is a bare repository, or the inside of a .git folder; agentful is run in a checkout"
    elif "not a git repository" in stderr:
        advice = "not a git repository. Go to one, or make one of this folder: git init"
    else:
        advice = f"git cannot use this repository: {stderr.strip()[:500] or 'its path has a line break'}"
    return ConfigError(advice, where=str(where))


def _fields(data: bytes) -> list[str]:
    return [text(part) for part in data.split(b"\0") if part]


def _ident(value: str) -> str:
    """A name or address without what git refuses in one."""
    return re.sub(r"[\x00-\x1f\x7f<>]+", " ", value).strip(" .,:;\"'\\").encode(errors="replace").decode()


def _with_folders(path: str) -> Iterator[str]:
    """A path, and all folders that it lies in."""
    while path:
        yield path
        path = path.rpartition("/")[0]
