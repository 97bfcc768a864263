"""``agentful run``, ``resume`` and ``retry``: what carries runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from .. import config
from ..model import State
from ..progress import one_line
from ..runtime.run import LiveRun, RunSpec
from .exits import Exit, Fault, outcome
from .land import land_run, tell_landed
from .live import carry_out, shown_as
from .options import planning_flags, running_flags, settings_of, showing_flags
from .plan import prepare, show_plan
from .shared import find_task, here, here_without_journal, run_argument, run_option, say, tasks_argument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..model import Options
    from ..runtime.git import Repository
    from .plan import Prepared
    from .shared import Place, RunReader

_OPTIONS = frozenset(
    {"conflicts", "fail_fast", "on_conflict", "on_failure", "retries", "scope", "task_timeout", "timeout"}
)
"""Settings that are options of a run by the same name."""


@click.command()
@click.argument("plan", required=False)
@planning_flags
@running_flags
@click.option("--base", metavar="REV", help="The commit to begin at; what is checked out, if left out.")
@click.option("--title", metavar="TEXT", help="What the run is about; the plan's title, if left out.")
@click.option("--land/--no-land", default=None, help="Land on your branch when everything succeeded.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, as `agentful plan` does.")
@showing_flags
def run(
    plan: str | None,
    base: str | None,
    title: str | None,
    dry_run: bool,
    progress: str,
    as_json: bool,
    **flags: Any,
) -> int:
    """Run PLAN: its agents work in parallel where that is safe, and their results land on a branch.

    Without PLAN, it is plan.yaml (or agentful.yaml, plan.toml, ...) at the top of the repository.
    Everything is checked first; nothing starts on bad input. Your branch, index and files stay as they
    are. Ctrl-C once lets running agents finish and land; twice stops them, and pins their work.

    \b
    Exit codes: 0 done, 1 tasks failed, 2 bad plan or usage, 3 waits for a decision,
    4 conflict or red checks stopped the landing, 5 time limit, 130 interrupted.
    """
    repo = here_without_journal()
    prepared = prepare(repo, plan, flags, base=base, lenient=dry_run)
    if dry_run:
        show_plan(repo, prepared, as_json=as_json)
        return Exit.DONE
    shown = shown_as(progress, as_json=as_json)
    _tell_uncommitted(repo, prepared)
    settings = prepared.settings
    live = LiveRun.create(
        repo,
        RunSpec(
            tasks=prepared.tasks,
            agents=prepared.agents,
            options=prepared.options,
            setup=settings.setup,
            check_timeout=settings.check_timeout,
            title=title or prepared.plan.title,
            plan=prepared.plan.source,
            plan_text=prepared.plan.text,
            base=prepared.base,
        ),
        workspaces=settings.workspace_folder,
    )
    return carry_out(live, shown, after=_landing(repo, live) if settings.land else None)


def _tell_uncommitted(repo: Repository, prepared: Prepared) -> None:
    """What is not committed is not part of a run, which is easily forgotten."""
    paths = [path for path in repo.dirty() if (repo.root / path).resolve() != prepared.path]
    if paths:
        named = ", ".join(map(one_line, paths[:3])) + (", ..." if len(paths) > 3 else "")
        count = f"{len(paths)} file{'s' if len(paths) != 1 else ''}"
        say(f"note: {count} in your checkout are not committed, and so not part of the run: {named}")


def _landing(repo: Repository, live: LiveRun) -> Callable[[Exit], Exit]:
    """Land a run that succeeded on the user's branch, as `agentful land` does."""

    def land(code: Exit) -> Exit:
        if code is Exit.DONE:
            tell_landed(land_run(repo, live.info), live.info.branch.removeprefix("refs/heads/"), err=True)
        return code

    return land


# --- resume --------------------------------------------------------------------------------------


@click.command()
@run_argument
@planning_flags
@running_flags
@showing_flags
def resume(run: str | None, progress: str, as_json: bool, **flags: Any) -> int:
    """Go on with a run where it was left: the latest that has not ended, or RUN.

    What has landed stays; only what had not finished is run again. Flags change how it is carried out
    from here on. The exit codes are those of `agentful run`.
    """
    settings = settings_of(flags)
    with here() as place:
        reader = _to_resume(place, run)
        view = reader.view
        if view.total and view.done == view.total:
            say(f"run {reader.info.id} has ended; agentful retry runs what failed of it again")
            return outcome(view)
        live = LiveRun.resume(
            place.repo, reader.info.id, options=_changed(settings), workspaces=place.workspaces
        )
    return carry_out(live, shown_as(progress, as_json=as_json), begin=_submit_if_missing)


def _to_resume(place: Place, name: str | None) -> RunReader:
    if name is None:
        waiting = next((reader for reader in place.unfinished() if not reader.is_live()), None)
        if waiting is not None:
            return waiting
    return place.run(name)


def _changed(settings: Mapping[str, Any]) -> Callable[[Options], Options] | None:
    """How flags change the options of a run; ``None`` where they do not."""
    changes = {name: value for name, value in settings.items() if name in _OPTIONS}
    if settings.get("checks"):
        changes["checks"] = tuple(settings["checks"])
    if changes.get("conflicts") == "auto":
        changes["conflicts"] = "avoid"
    if settings.get("mode") == "sequential":
        changes |= {"max_concurrency": 1, "sequential": True}
    elif "max_concurrency" in settings:
        chosen = config.Settings(max_concurrency=settings["max_concurrency"])
        changes["max_concurrency"] = chosen.slots
    if not changes:
        return None
    return lambda options: msgspec.structs.replace(options, **changes)


def _submit_if_missing(run: LiveRun) -> None:
    """A run that was killed before its tasks were written down has its plan all the same."""
    if run.view.total or not run.info.plan_text:
        return
    plan = config.parse_plan(run.info.plan_text, run.info.plan)
    settings = config.load_settings(run.repo.root, plan=plan.options)
    run.submit(config.resolve(plan, settings, run.info.agents)[0])


# --- retry ---------------------------------------------------------------------------------------


@click.command()
@tasks_argument
@run_option
@planning_flags
@running_flags
@showing_flags
def retry(tasks: tuple[str, ...], run_name: str | None, progress: str, as_json: bool, **flags: Any) -> int:
    """Run failed or cancelled tasks again, and what was skipped because of them.

    Without a TASK, all that failed or were cancelled. A run that is live takes them up at once, and goes
    on where it is; another is carried out here, as by `agentful resume`.
    """
    settings = settings_of(flags)
    with here() as place:
        reader = place.run(run_name)
        ids = _to_retry(reader, tasks)
        if reader.is_live():
            if settings:
                raise Fault(f"run {reader.info.id} is live, so flags cannot change how it is carried out")
            reader.request("retry", {"tasks": ids})
            click.echo(f"run {reader.info.id} runs {', '.join(map(one_line, ids))} again")
            return Exit.DONE
        live = LiveRun.resume(
            place.repo, reader.info.id, options=_changed(settings), workspaces=place.workspaces
        )
    return carry_out(live, shown_as(progress, as_json=as_json), begin=lambda run: run.retry(ids))


def _to_retry(reader: RunReader, names: tuple[str, ...]) -> list[str]:
    if not names:
        ids = [
            record.id
            for record in reader.view.records.values()
            if record.state in (State.FAILED, State.CANCELLED)
        ]
        if not ids:
            raise Fault(f"nothing failed in run {reader.info.id}, so there is nothing to run again")
        return ids
    records = [find_task(reader.view, name) for name in names]
    for record in records:
        if not record.state.settled:
            raise Fault(f"{record.id} is {record.state}, so there is nothing to run again yet")
        if record.state is State.SUCCEEDED:
            raise Fault(f"{record.id} has succeeded, so there is nothing to run again")
    return [record.id for record in records]
