"""Scripted agents: what a script says is what happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from agentful.drivers.base import (
    AgentEvent,
    AgentMessage,
    AgentOutput,
    AgentProgress,
    AgentSummary,
    AgentUsage,
    Attempt,
    FunctionDriver,
    Outcome,
)
from agentful.errors import AgentError
from agentful.group import TaskGroup, run
from agentful.group.host import default_driver
from agentful.model import Agent, Options, Reason, State, Task, Usage
from agentful.runtime.local import LocalRun
from agentful.testing import Script, ScriptedDriver, clock, run_virtual, use_driver
from gitutil import git, make_repo, no_user_configuration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agentful.group import Results


def attempt(task_id: str = "api", agent: str = "backend", number: int = 1, workspace: Any = "/") -> Attempt:
    return Attempt(
        run="r-1",
        task=Task(agent, "do it", id=task_id),
        agent=Agent(name=agent),
        number=number,
        prompt="do it",
        workspace=str(workspace),
        prompt_file="",
    )


def play(script: Script, workspace: Any = "/") -> tuple[Outcome, list[AgentEvent], float]:
    """The outcome of a script, what it emitted, and the seconds that it took."""
    said: list[AgentEvent] = []

    async def main() -> tuple[Outcome, float]:
        driver = ScriptedDriver(default=script)
        outcome = driver.outcome(await driver.call(attempt(workspace=workspace), said.append))
        return outcome, asyncio.get_running_loop().time()

    outcome, took = run_virtual(main())
    return outcome, said, took


def test_it_is_a_driver_that_needs_no_process() -> None:
    driver = ScriptedDriver()
    assert isinstance(driver, FunctionDriver)
    assert not driver.blocking


def test_a_script_is_played_step_by_step(tmp_path: Path) -> None:
    script = (
        Script()
        .progress(40, "writing")
        .write("src/a.py", "x = 1\n")
        .takes(300)
        .message("nearly there")
        .progress(None)
        .done("wrote a.py", files=1)
    )
    outcome, said, took = play(script, tmp_path)
    assert outcome == Outcome(ok=True, summary="wrote a.py", outputs={"files": 1})
    assert said == [
        AgentProgress(40, "writing"),
        AgentMessage("nearly there"),
        AgentProgress(None),
        AgentSummary("wrote a.py"),
        AgentOutput("files", 1),
    ]
    assert took == 300
    assert (tmp_path / "src/a.py").read_text() == "x = 1\n"


def test_files_are_written_over_and_removed(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    play(Script().write("new", b"\x00\xff").write("new", b"\x01").remove("old").done(), tmp_path)
    assert (tmp_path / "new").read_bytes() == b"\x01"
    assert not (tmp_path / "old").exists()


def test_a_script_without_an_end_ends_well_and_its_last_words_are_its_summary() -> None:
    assert play(Script())[0] == Outcome(ok=True)
    assert play(Script().message("all green"))[0] == Outcome(ok=True, summary="all green")


def test_a_failure_says_why() -> None:
    outcome, _, _ = play(Script().takes(5).fail("no database"))
    assert (outcome.ok, outcome.reason, outcome.message) == (False, Reason.AGENT_FAILED, "no database")
    outcome, _, _ = play(Script().fail("logged out", Reason.AGENT_MISSING))
    assert outcome.reason is Reason.AGENT_MISSING


def test_a_question_ends_the_attempt() -> None:
    outcome, _, _ = play(Script().ask("JWT or sessions?", ["JWT", "sessions"]))
    assert not outcome.ok
    assert outcome.question is not None
    assert outcome.question.options == ("JWT", "sessions")


def test_usage_is_added_up() -> None:
    script = Script().uses(input_tokens=100, cost=0.25).uses(input_tokens=20, output_tokens=3).done()
    outcome, said, _ = play(script)
    assert outcome.usage == Usage(120, 3, 0.25)
    assert said[0] == AgentUsage(Usage(100, None, 0.25))


def test_anything_else_is_a_function() -> None:
    seen: list[str] = []

    async def slowly(attempt: Attempt) -> None:
        await asyncio.sleep(7)
        seen.append(f"slowly {attempt.number}")

    script = Script().does(lambda attempt: seen.append(attempt.task.id)).does(slowly).done()
    assert play(script)[2] == 7
    assert seen == ["api", "slowly 1"]


def test_what_a_function_raises_is_raised() -> None:
    def broken(attempt: Attempt) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        play(Script().does(broken).done())


def test_scripts_are_data() -> None:
    start = Script().progress(10)
    one, other = start.done("one"), start.fail("other")
    assert start == Script().progress(10)
    assert one != other
    assert "AgentProgress(percentage=10" in repr(one)


@pytest.mark.parametrize(
    "ended", [Script().done(), Script().fail(), Script().ask("?"), Script().hang()], ids=str
)
def test_nothing_follows_the_end(ended: Script) -> None:
    with pytest.raises(ValueError, match="nothing can follow"):
        ended.message("more")
    with pytest.raises(ValueError, match="nothing can follow"):
        ended.done("again")
    with pytest.raises(ValueError, match="nothing can follow"):
        ended.hang()


# --- which script ---------------------------------------------------------------------------------


def test_the_task_comes_before_the_agent_and_the_agent_before_the_rest() -> None:
    task, agent, rest = Script().done("task"), Script().done("agent"), Script().done("rest")
    driver = ScriptedDriver({"api": task, "backend": agent}, default=rest)
    assert driver.script(attempt("api", "backend")) == task
    assert driver.script(attempt("ui", "backend")) == agent
    assert driver.script(attempt("ui", "frontend")) == rest


def test_a_list_has_a_script_for_each_attempt_and_the_last_for_all_that_follow() -> None:
    first, second = Script().fail(), Script().done()
    driver = ScriptedDriver({"api": [first, second]})
    assert [driver.script(attempt(number=number)) for number in (1, 2, 3)] == [first, second, second]


@pytest.mark.parametrize("scripts", [None, {}, {"api": []}, {"other": Script()}])
def test_an_attempt_without_a_script_is_told(scripts: Any) -> None:
    with pytest.raises(AgentError, match="no script for task 'api' of agent 'backend'"):
        ScriptedDriver(scripts).script(attempt())


# --- in a run -------------------------------------------------------------------------------------


def run_local(driver: ScriptedDriver, *tasks: Task, **options: Any) -> LocalRun:
    async def main() -> LocalRun:
        run = LocalRun(Options(**options), driver_for=lambda agent: driver, clock=clock)
        async with run:
            run.submit(tasks)
            await run.wait()
            for decision in run.view.open_decisions():
                run.answer(decision.id, "JWT")
            await run.wait()
        return run

    return run_virtual(main())


def test_the_second_attempt_is_told_what_went_wrong() -> None:
    driver = ScriptedDriver({"api": [Script().takes(300).fail("no database"), Script().done("it works")]})
    run = run_local(driver, Task("backend", "Implement the API", id="api", retries=1))
    assert run.view.records["api"].state is State.SUCCEEDED
    assert [attempt.number for attempt in driver.attempts] == [1, 2]
    assert "no database" in driver.attempts[1].prompt
    assert "no database" not in driver.attempts[0].prompt


def test_an_answer_is_in_the_prompt_of_the_next_attempt() -> None:
    driver = ScriptedDriver({"api": [Script().ask("JWT or sessions?"), Script().done()]})
    run = run_local(driver, Task("backend", "Implement the API", id="api"))
    assert run.view.records["api"].state is State.SUCCEEDED
    assert "Answer: JWT" in driver.attempts[1].prompt


def test_what_hangs_is_stopped_by_its_timeout() -> None:
    driver = ScriptedDriver(default=Script().progress(50).hang())
    run = run_local(driver, Task("backend", "x", id="api", timeout=60))
    record = run.view.records["api"]
    assert (record.state, record.reason, record.active) == (State.FAILED, Reason.TIMEOUT, 60.0)


def test_a_task_without_a_script_fails_and_says_so() -> None:
    run = run_local(ScriptedDriver(), Task("backend", "x", id="api"))
    assert run.view.records["api"].state is State.FAILED
    assert "no script for task 'api'" in run.view.records["api"].message


def test_what_it_hands_on_reaches_what_needs_it() -> None:
    driver = ScriptedDriver({"api": Script().done("12 routes", port=80), "ui": Script().done()})
    run_local(driver, Task("backend", "x", id="api"), Task("frontend", "y", id="ui", needs=("api",)))
    assert "12 routes" in driver.attempts[1].prompt
    assert "80" in driver.attempts[1].prompt


def test_use_driver_plays_agents_that_are_defined_nowhere_meanwhile() -> None:
    driver, other = ScriptedDriver(), ScriptedDriver()
    seen: list[object] = []
    read: Callable[[], None] = lambda: seen.append(default_driver.get())  # noqa: E731
    with use_driver(driver):
        read()
        with use_driver(other):
            read()
        read()
    read()
    assert seen == [driver, other, driver, None]


def test_the_example_of_the_documentation() -> None:
    driver = ScriptedDriver({"api": [Script().takes(300).fail("no database"), Script().done("it works")]})
    with use_driver(driver):
        task = Task("backend", "Implement the API", id="api", retries=1)
        result = run_virtual(run(task, repository=None))
    assert result.ok
    assert "no database" in driver.attempts[1].prompt
    assert result.duration == 300


def test_a_whole_run_on_a_real_repository_takes_virtual_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_user_configuration(monkeypatch, tmp_path / "home")
    repository = make_repo(tmp_path / "repository", {"README": "hello"})
    driver = ScriptedDriver(
        {
            "api": Script().takes(300).write("src/api.py", "x = 1\n").done("the API"),
            "ui": [
                Script().write("half.py", "").takes(60).fail("no luck"),
                Script().write("ui.py", "2").done(),
            ],
        }
    )

    async def main() -> Results:
        async with TaskGroup(repository=repository, max_concurrency=2) as group:
            api = group.submit("backend", "Implement the API", id="api")
            group.submit("frontend", "Create the pages", id="ui", needs=[api], retries=1)
        return group.results

    with use_driver(driver):
        results = run_virtual(main())
    assert [(result.ok, result.duration) for result in results] == [(True, 300), (True, 60)]
    assert [result.paths for result in results] == [("src/api.py",), ("ui.py",)]
    assert results[1].commit is not None
    assert git(repository, "show", f"{results[1].commit}:src/api.py") == "x = 1"
    assert "no luck" in driver.attempts[2].prompt
