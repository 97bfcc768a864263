"""What there is in the repository of past runs: branches to land, pins to recover, leftovers to clean.

Nothing here happens by itself: each is something that a person asked for.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from ..core.view import RunView
from ..errors import AgentfulError, ChecksFailed, ConflictError, WorkspaceError
from ..model import Task
from . import proctree
from .engine import Stop
from .git import RefMoved, commit_message, decode_trailer
from .landing import Landings
from .run import BRANCHES, context_of, journal_of, lock_of
from .workspace import Workspace, Workspaces, slug

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .git import Repository
    from .journal import RunInfo

PINS = "refs/agentful/"
"""Where attempts are pinned: ``<run>/<task>/<attempt>``."""


class LandReport(Struct, frozen=True, kw_only=True):
    """What `land` did."""

    kind: Literal["nothing", "fast-forward", "merge"]
    branch: str
    """The short name of the branch that was moved."""
    commit: str
    """Where it is now."""
    commits: tuple[str, ...] = ()
    """The subjects of what it has now and had not before, oldest first."""


async def land(
    repo: Repository, info: RunInfo, *, into: str | None = None, workspaces: Path | None = None
) -> LandReport:
    """Bring what a run landed on its integration branch to a branch of the user's.

    By default to the branch that is checked out; its files move with it. Where that branch went on in
    the meantime, the two are merged aside and the run's checks pass on the merged tree first.

    Raises :class:`ConflictError` or :class:`ChecksFailed` where that cannot be, and
    :class:`WorkspaceError` where the user's own uncommitted work is in the way. Then nothing has moved.
    """
    tip = repo.ref(info.branch)
    if tip is None:
        short = info.branch.removeprefix("refs/heads/")
        raise WorkspaceError(f"the branch {short} is gone. agentful recover lists what the run pinned")
    current = repo.head_branch()
    target = into or current
    if target is None:
        raise WorkspaceError(
            "no branch is checked out; say which one to land on: agentful land --into BRANCH"
        )
    ref = f"refs/heads/{target}"
    old = repo.ref(ref)
    if old is None:
        raise WorkspaceError(f"there is no branch {target!r}; make it first: git branch {target}")
    if repo.is_ancestor(tip, old):
        return LandReport(kind="nothing", branch=target, commit=old)
    commits = [commit.subject for commit in repo.commits(f"{old}..{tip}", first_parent=True)]
    kind: Literal["fast-forward", "merge"] = "fast-forward"
    new = tip
    if not repo.is_ancestor(old, tip):
        kind, new = "merge", await _merged(repo, info, target, old, tip, workspaces)
    _move(repo, target, old, new, checked_out=target == current)
    return LandReport(kind=kind, branch=target, commit=new, commits=tuple(commits))


async def _merged(repo: Repository, info: RunInfo, target: str, old: str, tip: str, base: Path | None) -> str:
    """A commit that has both, and that passed the run's checks."""
    merged = repo.merge(old, tip)
    short = info.branch.removeprefix("refs/heads/")
    if not merged.clean:
        listed = ", ".join(merged.paths[:10])
        raise ConflictError(
            f"{target} and {short} conflict in {listed}. Nothing was changed. "
            f"Merge them by hand: git merge {short}",
            task_id=info.id,
            paths=merged.paths,
        )
    identity = repo.identity()
    message = commit_message(f"Merge {short}", {"Run": info.id})
    commit = repo.commit_tree(merged.tree, [old, tip], message, author=identity)
    # Under a name and a lock of its own, so that nobody takes its checks for leftovers of the run.
    own = f"land-{os.getpid()}"
    workspaces = Workspaces(repo, own, base=base)
    with lock_of(repo, own), ThreadPoolExecutor(max_workers=1) as pool:
        context = context_of(repo, info, workspaces, pool=pool)
        context.run = own
        failed = await Landings(context).check(Task(id="land"), "land.checks", commit, Stop())
        await context.blocking(workspaces.remove_trash)
    if failed is not None:
        raise ChecksFailed(
            f"{target} and {short} merge cleanly, but the merged tree does not pass: {failed.message}. "
            f"Nothing was changed.\n{failed.output}",
            task_id=info.id,
        )
    return commit


def _move(repo: Repository, target: str, old: str, new: str, *, checked_out: bool) -> None:
    if checked_out:
        flags = ("--ff-only", "--no-autostash", "--no-overwrite-ignore", "--quiet")
        moved = repo.user_git("merge", *flags, new, check=False)
        if moved.returncode != 0:
            raise WorkspaceError(
                f"{target} was not moved, because of what is uncommitted in your checkout. "
                f"Commit or stash it, and land again. git says:\n{moved.stderr.strip()}"
            )
        return
    if f"refs/heads/{target}" in repo.checked_out():
        raise WorkspaceError(f"{target} is checked out in another worktree; land from there")
    try:
        repo.update_ref(f"refs/heads/{target}", new, old, message="agentful: land")
    except RefMoved as error:
        raise WorkspaceError(f"{target} moved at this very moment; land again") from error


# --- pins -----------------------------------------------------------------------------------------


class Pin(Struct, frozen=True, kw_only=True):
    """The pinned work of one attempt."""

    ref: str
    run: str
    task: str
    attempt: str
    commit: str
    at: float
    landed: bool
    """Whether it is what the task landed."""


def pins(repo: Repository, run: str | None = None) -> list[Pin]:
    """Everything that is pinned, of one run or of all; oldest first."""
    landed = _landed_pins(repo)
    found: list[Pin] = []
    for ref, commit in repo.refs(f"{PINS}{run}/" if run else PINS).items():
        run_id, name, attempt = [*ref.removeprefix(PINS).split("/"), "", ""][:3]
        info = repo.commit(commit)
        task = decode_trailer(info.trailers.get("Task-Key", f"{run_id}/{name}")).removeprefix(f"{run_id}/")
        found.append(
            Pin(
                ref=ref,
                run=run_id,
                task=task,
                attempt=attempt,
                commit=commit,
                at=float(info.at),
                landed=commit in landed,
            )
        )
    return sorted(found, key=lambda pin: (pin.at, pin.ref))


def restore_pin(repo: Repository, pin: Pin, name: str | None = None) -> str:
    """Make a branch of a pin, and return its name. Raises :class:`WorkspaceError` where it is taken."""
    name = name or f"recovered/{pin.run}/{slug(pin.task)}-{pin.attempt}"
    if repo.git("check-ref-format", f"refs/heads/{name}", check=False).returncode != 0:
        raise WorkspaceError(f"{name!r} cannot be the name of a branch")
    try:
        repo.update_ref(f"refs/heads/{name}", pin.commit, None, message=f"agentful: recover {pin.ref}")
    except RefMoved as error:
        if error.actual == pin.commit:
            return name
        raise WorkspaceError(f"there is a branch {name!r} already; name another one") from error
    return name


def _landed_pins(repo: Repository) -> set[str]:
    """The pinned commits that are on some branch as a landed commit."""
    if not repo.refs("refs/heads/"):
        return set()
    grep = ("--fixed-strings", "--grep=Attempt-Commit: ")
    listed = repo.git("log", "--format=%(trailers:key=Attempt-Commit,valueonly)", *grep, "--branches")
    return set(os.fsdecode(listed.stdout).split())


_UNKNOWN = "its run is not in this journal"

# --- leftovers ------------------------------------------------------------------------------------


class Leftover(Struct, frozen=True, kw_only=True):
    """Something of a past run that takes up room."""

    kind: Literal["workspace", "branch", "pin", "process"]
    name: str
    run: str
    unlanded: bool
    """Whether it may hold work that is nowhere else on the user's branches."""
    why: str
    commit: str = ""
    """Where the ref was when it was looked at. One that has moved since is not removed."""


def leftovers(repo: Repository, *, workspaces: Path | None = None) -> list[Leftover]:
    """What `clean` could remove. Nothing of a live run is in it."""
    found: list[Leftover] = []
    live, unfinished, needed = _runs(repo)
    known = _known(repo)
    users = [sha for ref, sha in repo.refs("refs/heads/").items() if not ref.startswith(BRANCHES)]
    for run, folders in Workspaces.all_runs(repo, workspaces).items():
        if run in live or lock_of(repo, run).holder() is not None:
            continue
        pinned = repo.refs(f"{PINS}{run}/")
        for folder in folders:
            name, _, attempt = folder.name.rpartition(".")
            unlanded, why = False, "the run has ended"
            if run in unfinished:
                unlanded, why = True, "the run can be resumed"
            elif run not in known:
                unlanded, why = not run.startswith("land-"), _UNKNOWN
            elif attempt != "checks" and f"{PINS}{run}/{name}/{attempt}" not in pinned:
                unlanded, why = True, "what is in it is pinned nowhere"
            found.append(Leftover(kind="workspace", name=str(folder), run=run, unlanded=unlanded, why=why))
    for ref, sha in repo.refs(BRANCHES).items():
        run = ref.removeprefix(BRANCHES)
        if ref in needed:
            continue
        kept = any(repo.is_ancestor(sha, user) for user in users)
        why = "your branches have all of it" if kept else "it is on no branch of yours"
        if run not in known:
            kept, why = False, _UNKNOWN
        found.append(Leftover(kind="branch", name=ref, run=run, unlanded=not kept, why=why, commit=sha))
    for pin in pins(repo):
        if pin.run in live or pin.run in unfinished:
            continue
        landed, why = pin.landed, "it landed" if pin.landed else "it is on no branch"
        if pin.run not in known:
            landed, why = False, _UNKNOWN
        found.append(
            Leftover(kind="pin", name=pin.ref, run=pin.run, unlanded=not landed, why=why, commit=pin.commit)
        )
    for run in known:
        if run not in live:
            found += [
                Leftover(kind="process", name=str(pid), run=run, unlanded=False, why="its run is not live")
                for pid in proctree.marked(run)
            ]
    return found


def clean(
    repo: Repository, found: Iterable[Leftover], *, workspaces: Path | None = None
) -> list[tuple[Leftover, str]]:
    """Remove these. Returns those that could not be removed, each with the reason."""
    trouble: list[tuple[Leftover, str]] = []
    needed = _runs(repo)[2]
    for leftover in found:
        # Between listing and cleaning the run may have been taken up again.
        lock = lock_of(repo, leftover.run)
        try:
            lock.acquire()
            if leftover.name in needed:
                raise WorkspaceError("a run that has not ended goes on with it")
            _remove(repo, leftover, workspaces)
        except AgentfulError as error:
            trouble.append((leftover, str(error)))
        finally:
            lock.release()
    shelf = Workspaces(repo, "clean", base=workspaces)
    shelf.remove_trash()
    return trouble


def _remove(repo: Repository, leftover: Leftover, workspaces: Path | None) -> None:
    match leftover.kind:
        case "workspace":
            folder = Path(leftover.name)
            of_run = Workspaces(repo, leftover.run, base=workspaces)
            if folder.parent != of_run.folder:
                raise WorkspaceError(f"{folder} is no workspace of run {leftover.run}")
            of_run.discard(Workspace(folder.name, "", folder / "tree", folder / "git"))
        case "branch" | "pin":
            try:
                repo.delete_refs({leftover.name: leftover.commit})
            except RefMoved as error:
                if error.actual is not None:
                    raise WorkspaceError(f"{leftover.name} moved meanwhile: it was left alone") from error
        case "process":
            proctree.sweep(leftover.run)


def _runs(repo: Repository) -> tuple[set[str], set[str], set[str]]:
    """The runs that a process carries out now, those that have not ended, and the branches of both."""
    live: set[str] = set()
    unfinished: set[str] = set()
    needed: set[str] = set()
    with journal_of(repo) as journal:
        for info in journal.runs():
            if lock_of(repo, info.id).holder() is not None:
                live.add(info.id)
            view = RunView(journal.read(info.id)[0])
            if view.done < view.total:
                unfinished.add(info.id)
            if info.id in live or info.id in unfinished:
                needed.add(info.branch)
    return live, unfinished, needed


def _known(repo: Repository) -> set[str]:
    """All runs that the journal has."""
    with journal_of(repo) as journal:
        return {info.id for info in journal.runs()}
