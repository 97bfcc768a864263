"""Landing: merge aside, check what came of it, move the branch. One at a time, by whoever schedules it.

Rules of this file:

- What is checked is the tree that lands. The checks run in a workspace of their own, opened at the very
  commit that the branch is then moved to.
- Nothing but the branch moves, and that by compare-and-swap: the user's branch, index and files stay.
- A landed commit has one parent, the tip that it was merged onto, so the branch reads as a list of the
  tasks; its trailers say which task and which pinned commit it came from.
- Both acts may be carried out twice. What has landed is found by asking git.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from ..errors import GitError
from ..events import BranchMoved, Landed, LandingLost, LandingPrepared, LandingRejected
from ..model import Reason, format_duration
from .attempt import Tail, author_of, run_script, subject_of
from .git import RefMoved, commit_message, decode_trailer
from .logs import AttemptLog
from .workspace import slug

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..events import AdvanceBranch, Event, PrepareLanding
    from ..model import Task
    from .context import Context
    from .engine import Stop
    from .git import Merge
    from .workspace import Workspace

_TAIL = 80
"""Lines of a failed check's output that are kept."""


class Landings:
    """Carries out the landings of one run."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._passed: set[tuple[str, tuple[str, ...]]] = set()
        """Trees, and the checks that they passed in this process."""

    async def prepare(self, command: PrepareLanding, stop: Stop) -> Event:
        """Merge a task's pinned work onto the tip, aside, and check it."""
        context, task = self.context, command.task
        repo = context.repo
        tip = await context.blocking(repo.ref, context.branch)
        if tip is None:
            branch = context.branch.removeprefix("refs/heads/")
            message = f"the branch {branch} is gone; have it again by: git branch {branch} COMMIT"
            return LandingLost(context.clock(), task.id, message, held=True)
        if command.commit == "":
            commit = tip  # a person did it on the branch: check what is there
            if not await context.blocking(self._done_by_hand, command, tip):
                branch = context.branch.removeprefix("refs/heads/")
                message = f"nobody has committed it on {branch} yet"
                return LandingRejected(context.clock(), task.id, Reason.NO_CHANGE, message)
        else:
            merged = await context.blocking(repo.merge, tip, command.commit)
            if not merged.clean:
                return await context.blocking(self._conflict, command, merged)
            commit = await context.blocking(self._commit, command, merged, tip)
        name = f"{slug(task.id)}.{command.attempt}.checks"
        failed = await self.check(task, name, commit, stop)
        if stop.requested:
            return LandingLost(context.clock(), task.id, "its checks were stopped")
        rejected = failed and LandingRejected(
            context.clock(), task.id, Reason.CHECKS_FAILED, failed.message, failed.output
        )
        if rejected is not None:
            return rejected
        return LandingPrepared(context.clock(), task.id, commit, tip)

    def _done_by_hand(self, command: PrepareLanding, tip: str) -> bool:
        """Whether somebody else than us has committed on the branch since the task's last attempt began."""
        repo, base = self.context.repo, self.context.base
        pinned = self.context.workspaces.pinned(command.task_id, command.attempt)
        if pinned is not None:
            base = repo.commit(pinned).parents[0]
        landed = repo.commits(f"{base}..{tip}", first_parent=True)
        return any("Task-Key" not in commit.trailers for commit in landed)

    async def advance(self, command: AdvanceBranch) -> Event:
        """Move the branch."""
        return await self.context.blocking(self._advance, command)

    def _advance(self, command: AdvanceBranch) -> Event:
        context = self.context
        repo, at = context.repo, context.clock()
        if command.commit == command.onto:
            tip = repo.ref(context.branch)  # it brought nothing that the branch had not
        elif context.branch in repo.checked_out() and not self._has(command.commit):
            # Moving it would leave the user's index and files behind.
            branch = context.branch.removeprefix("refs/heads/")
            message = f"{branch} is checked out; go to another branch first, as by: git switch -"
            return LandingLost(at, command.task_id, message, held=True)
        else:
            try:
                message = f"agentful: land {slug(command.task_id)}"
                repo.update_ref(context.branch, command.commit, command.onto, message=message)
            except RefMoved as moved:
                tip = moved.actual
            except GitError:
                if repo.exists(command.commit):
                    raise
                # Prepared long ago, and pruned since: what it was made from is pinned.
                return BranchMoved(at, command.task_id)
            else:
                return Landed(at, command.task_id, command.commit)
        if tip is not None and repo.is_ancestor(command.commit, tip):
            return Landed(at, command.task_id, command.commit)
        return BranchMoved(at, command.task_id)

    def _has(self, commit: str) -> bool:
        """Whether the branch has this commit, as after a crash between the move and its being told."""
        repo = self.context.repo
        tip = repo.ref(self.context.branch)
        return tip is not None and repo.exists(commit) and repo.is_ancestor(commit, tip)

    def _commit(self, command: PrepareLanding, merged: Merge, tip: str) -> str:
        context, task = self.context, command.task
        repo = context.repo
        if merged.tree == repo.tree_of(tip):
            return tip  # the branch has all of it already
        pinned = repo.commit(command.commit)
        trailers = {"Task-Key": f"{context.run}/{task.id}", "Attempt-Commit": command.commit}
        if task.agent:
            trailers["Agent"] = task.agent
        return repo.commit_tree(
            merged.tree,
            [tip],
            commit_message(subject_of(task), trailers),
            author=author_of(task),
            at=pinned.at,
        )

    def _conflict(self, command: PrepareLanding, merged: Merge) -> Event:
        """Say what conflicts, and with whom."""
        context, task = self.context, command.task
        paths = merged.paths
        other = self._who_landed(merged.ours, command.commit, paths)
        listed = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
        message = f"{listed} conflicts with " + (f"what {other} landed" if other else "the branch")
        detail = context.repo.conflict_text(merged)
        return LandingRejected(context.clock(), task.id, Reason.CONFLICT, message, detail, paths, other)

    def _who_landed(self, tip: str, commit: str, paths: Sequence[str]) -> str | None:
        """The task that last landed one of these paths since the work began, where one did."""
        repo = self.context.repo
        base = repo.merge_base(tip, commit)
        if base is None:
            return None
        key = f"{self.context.run}/"
        for landed in reversed(repo.commits(f"{base}..{tip}", first_parent=True)):
            task_key = decode_trailer(landed.trailers.get("Task-Key", ""))
            if task_key.startswith(key) and landed.parents:
                touched = repo.changed(landed.parents[0], landed.sha)
                if not set(touched).isdisjoint(paths):
                    return task_key.removeprefix(key)
        return None

    # --- checks ----------------------------------------------------------------------------------

    async def check(self, task: Task, name: str, commit: str, stop: Stop) -> FailedCheck | None:
        """Run a task's checks on exactly this commit's tree; what failed, or ``None``.

        ``name`` is for the workspace that they run in, and for the log.
        """
        context = self.context
        checks = tuple(context.checks_of(task))
        if not checks:
            return None
        tree = await context.blocking(context.repo.tree_of, commit)
        if (tree, checks) in self._passed:
            return None
        workspace = await context.blocking(context.workspaces.open, name, commit)
        try:
            with AttemptLog(context.logs / f"{name}.jsonl", context.redactor, context.clock) as log:
                log.begin(task=task.id, agent="checks", base=commit)
                await context.blocking(context.workspaces.include_ignored, workspace)
                for number, script in enumerate((*context.setup, *checks), 1):
                    failed = await self._run(f"{name}/{number}", script, workspace, log, stop)
                    if failed is not None:
                        return failed
        finally:
            context.workspaces.discard(workspace)
        self._passed.add((tree, checks))
        return None

    async def _run(
        self, mark: str, script: str, workspace: Workspace, log: AttemptLog, stop: Stop
    ) -> FailedCheck | None:
        context = self.context
        tail = Tail(_TAIL)
        log.note(f"check: {script}")
        deadline = _Deadline(stop, context.check_timeout)
        try:
            code = await run_script(
                context,
                script,
                workspace,
                context.marker(mark),
                lambda line: tail.add(log.line(line)),
                deadline,
            )
        finally:
            deadline.cancel()
        if code == 0 and not stop.requested:
            return None
        message = f"{script!r} ended with {code}"
        if deadline.passed:
            message = f"{script!r} did not end within {format_duration(context.check_timeout)}"
        log.note(message)
        return FailedCheck(message, tail.text())


class FailedCheck(NamedTuple):
    """A check that did not pass."""

    message: str
    output: str
    """The end of what it printed."""


class _Deadline:
    """A stop that also asks when the time is up."""

    def __init__(self, stop: Stop, seconds: float) -> None:
        self.passed = False
        self._stop = stop
        self._callbacks: list[Callable[[], object]] = []
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._expire)

    def on_request(self, callback: Callable[[], object]) -> None:
        self._callbacks.append(callback)
        self._stop.on_request(callback)

    def _expire(self) -> None:
        self.passed = True
        for callback in self._callbacks:
            callback()

    def cancel(self) -> None:
        self._timer.cancel()
        self._stop.forget()
