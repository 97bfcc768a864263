"""Simulated runs: the real scheduler and engine, with nothing to wait for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentful.core import graph, policy
from agentful.core.scheduler import Scheduler
from agentful.errors import PlanError
from agentful.events import TaskChanged, Trigger
from agentful.model import Decision, Options, Reason, State, Task
from agentful.testing import EPOCH, Deadlock, Script, ScriptedDriver, Simulation, simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

SEED_PLAN = (
    Task("backend", "Implement the API", id="api", estimate=300),
    Task("frontend", "Create the pages", id="ui", estimate=300),
    Task("tester", "Write tests", id="tests", needs=("api", "ui"), estimate=300),
    Task("reviewer", "Review", id="review", needs=("tests",), estimate=180),
)


def task(task_id: str, *needs: str, **fields: Any) -> Task:
    return Task("agent", "do it", id=task_id, needs=needs, **fields)


def starts(simulation: Simulation) -> list[float | None]:
    return [task.start for task in simulation.tasks]


def together(simulation: Simulation, one: str, other: str) -> bool:
    a, b = simulation[one], simulation[other]
    assert a.start is not None
    assert a.finish is not None
    assert b.start is not None
    assert b.finish is not None
    return a.start < b.finish and b.start < a.finish


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, *range(10)])
def test_four_tasks_in_three_waves(seed: int | None) -> None:
    simulation = simulate(SEED_PLAN, seed=seed)
    assert starts(simulation) == [0, 0, 300, 600]
    assert [task.finish for task in simulation.tasks] == [300, 300, 600, 780]
    assert (simulation.makespan, simulation.sequential, simulation.slots) == (780, 1080, 4)
    assert simulation.finished
    assert all(result.ok for result in simulation.results)


def test_one_at_a_time_takes_the_sum() -> None:
    assert simulate(SEED_PLAN, slots=1).makespan == 1080


def test_ten_equal_tasks_on_four_slots_take_three_rounds() -> None:
    simulation = simulate([task(f"t{number}", estimate=300) for number in range(10)], slots=4)
    assert simulation.makespan == 900


def test_durations_may_be_given_by_name_or_by_a_function() -> None:
    tasks = [task("a", estimate=1), task("b", estimate=2), task("c")]
    assert [t.finish for t in simulate(tasks, durations={"a": 50}).tasks] == [50, 2, policy.DEFAULT_ESTIMATE]
    assert [t.finish for t in simulate(tasks, durations=lambda task: 7.5).tasks] == [7.5, 7.5, 7.5]


def test_tasks_may_come_in_any_order_and_are_told_in_that_order() -> None:
    simulation = simulate(list(reversed(SEED_PLAN)))
    assert [task.id for task in simulation.tasks] == ["review", "tests", "ui", "api"]
    assert starts(simulation) == [600, 300, 0, 0]
    assert simulation["tests"].start == 300
    with pytest.raises(KeyError):
        simulation["nobody"]


def test_landings_are_one_at_a_time_and_what_is_needed_starts_after_them() -> None:
    simulation = simulate(SEED_PLAN, landing=10)
    # "api" and "ui" end at 300 and land at 310 and 320; "tests" needs both.
    assert [task.finish for task in simulation.tasks] == [310, 320, 630, 820]
    assert starts(simulation) == [0, 0, 320, 630]


def test_what_only_reads_does_not_land() -> None:
    simulation = simulate([task("look", estimate=5, reads_only=True)], landing=100)
    assert simulation.makespan == 5
    assert simulation.results[0].commit is None


def test_an_empty_plan_takes_no_time() -> None:
    simulation = simulate([])
    assert (simulation.makespan, simulation.tasks, simulation.finished) == (0.0, (), True)


@st.composite
def plans(draw: st.DrawFn) -> list[Task]:
    size = draw(st.integers(0, 14))
    tasks: list[Task] = []
    for number in range(size):
        known = [t.id for t in tasks]
        needs = draw(st.lists(st.sampled_from(known), max_size=3, unique=True)) if known else []
        tasks.append(
            task(
                f"t{number}",
                *needs,
                estimate=draw(st.integers(0, 6)),
                priority=draw(st.integers(0, 2)),
                reads_only=True,
            )
        )
    return draw(st.permutations(tasks))


@settings(max_examples=150, deadline=None)
@given(plans(), st.integers(1, 5), st.one_of(st.none(), st.integers(0, 99)))
def test_a_run_without_surprises_goes_as_predicted(
    tasks: Sequence[Task], slots: int, seed: int | None
) -> None:
    # Two schedulers that share no code: the one that predicts, and the one that runs.
    tasks = graph.order(tasks)
    predicted = graph.timeline(tasks, slots, policy.duration)
    simulation = simulate(tasks, slots=slots, seed=seed)
    assert simulation.makespan == predicted.makespan
    assert [(t.id, t.start, t.finish) for t in simulation.tasks] == [
        (plan.id, plan.start, plan.finish) for plan in predicted.tasks
    ]


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_overlapping_scopes_and_named_resources_keep_tasks_apart(seed: int) -> None:
    tasks = [
        task("a", writes=("src/**",), estimate=10),
        task("b", writes=("src/api/*.py",), estimate=10),
        task("c", resources=("db",), estimate=10),
        task("d", resources=("db",), estimate=10),
    ]
    simulation = simulate(tasks, seed=seed)
    assert not together(simulation, "a", "b")
    assert not together(simulation, "c", "d")
    assert together(simulation, "a", "c")
    optimistic = simulate(tasks, options=Options(conflicts="optimistic"), seed=seed)
    assert together(optimistic, "a", "b")


def test_slots_come_from_the_options_where_they_are_not_given() -> None:
    tasks = [task(f"t{number}", estimate=10) for number in range(4)]
    assert simulate(tasks, options=Options(max_concurrency=2)).makespan == 20
    assert simulate(tasks, options=Options(max_concurrency=2), slots=4).makespan == 10


def test_a_timeout_is_kept() -> None:
    simulation = simulate([task("a", estimate=100, timeout=30), task("b", "a")])
    assert (simulation["a"].state, simulation["a"].finish) == (State.FAILED, 30)
    assert simulation.results[0].reason is Reason.TIMEOUT
    assert (simulation["b"].state, simulation["b"].start) == (State.SKIPPED, None)


def test_the_time_of_the_whole_run_is_kept() -> None:
    simulation = simulate(SEED_PLAN, options=Options(timeout=400))
    assert simulation.makespan == 400
    assert [task.state for task in simulation.tasks] == [
        State.SUCCEEDED,
        State.SUCCEEDED,
        State.CANCELLED,
        State.CANCELLED,
    ]


def test_the_time_of_the_whole_run_cuts_a_landing_short() -> None:
    simulation = simulate([task("a", estimate=10)], landing=100, options=Options(timeout=50))
    assert (simulation["a"].state, simulation.makespan) == (State.CANCELLED, 50)


# --- trouble --------------------------------------------------------------------------------------


def test_failures_are_retried_after_a_while_and_then_final() -> None:
    options = Options(retries=2, retry_delay=4)
    simulation = simulate([task("a", estimate=100)], failures={"a": 2}, options=options)
    assert (simulation["a"].attempts, simulation["a"].finish) == (3, 312)
    simulation = simulate([task("a", estimate=100)], failures={"a": 3}, options=options)
    assert simulation["a"].state is State.FAILED


def test_a_conflict_is_another_attempt_and_the_last_one_runs_alone() -> None:
    tasks = [task("a", estimate=10), task("b", estimate=100)]
    simulation = simulate(tasks, conflicts={"a": 2})
    # Its second attempt at 10, which conflicts at 20; the third waits for "b" to have landed.
    assert (simulation["a"].attempts, simulation["a"].finish) == (3, 110)
    assert simulation.finished


def test_a_decision_is_left_open_or_answered() -> None:
    tasks = [task("a", estimate=10), task("b", "a", estimate=10), task("c", estimate=10)]
    options = Options(on_failure="decide")
    left = simulate(tasks, failures={"a": 1}, options=options)
    assert [task.state for task in left.tasks] == [State.BLOCKED, State.WAITING, State.SUCCEEDED]
    assert not left.finished
    (decision,) = left.decisions
    assert decision.blocking == ("a",)
    assert left["a"].finish is None

    asked: list[Decision] = []

    def answer(decision: Decision) -> str:
        asked.append(decision)
        return decision.options[0]

    answered = simulate(tasks, failures={"a": 1}, options=options, answer=answer)
    assert answered.finished
    assert answered.decisions == ()
    assert asked == [decision]
    assert answered["b"].finish == 30


def test_what_does_not_answer_leaves_it_open() -> None:
    simulation = simulate(
        [task("a")], failures={"a": 1}, options=Options(on_failure="decide"), answer=lambda decision: None
    )
    assert len(simulation.decisions) == 1


@pytest.mark.parametrize(
    "tasks", [[task("a", "b"), task("b", "a")], [task("a", "b")], [task("a"), task("a")]]
)
def test_what_is_no_plan_is_refused(tasks: list[Task]) -> None:
    with pytest.raises(PlanError):
        simulate(tasks)


# --- scripted -------------------------------------------------------------------------------------


def test_scripts_may_play_the_attempts() -> None:
    driver = ScriptedDriver(
        {
            "api": [
                Script().takes(10).fail("no database"),
                Script().write("api/a.py", "1").takes(50).done("ok"),
            ],
            "ui": Script().takes(30).write("ui.py", "2").done(pages=3),
        },
        default=Script().takes(5).done(),
    )
    simulation = simulate(SEED_PLAN, driver=driver, options=Options(retries=1, retry_delay=1), landing=2)
    # "api" again at 11, ends at 61, lands at 63; what wrote nothing has nothing to land.
    assert [task.finish for task in simulation.tasks] == [63, 32, 68, 73]
    api, ui, tests, _ = simulation.results
    assert (api.paths, api.summary, ui.outputs) == (("api/a.py",), "ok", {"pages": 3})
    assert tests.commit is None
    assert "no database" in driver.attempts[2].prompt


def test_failures_and_conflicts_may_be_added_to_scripts() -> None:
    driver = ScriptedDriver(default=Script().write("a.py", "1").takes(10).done())
    options = Options(retries=1, retry_delay=1)
    simulation = simulate([task("a")], driver=driver, failures={"a": 1}, conflicts={"a": 1}, options=options)
    assert (simulation["a"].attempts, simulation["a"].finish) == (3, 31)


def test_a_script_that_hangs_is_stopped_by_a_timeout_or_is_a_deadlock() -> None:
    driver = ScriptedDriver(default=Script().hang())
    assert simulate([task("a", timeout=60)], driver=driver)["a"].finish == 60
    with pytest.raises(Deadlock, match=r"(?s)no timer is set.*a waits in ScriptedDriver.call"):
        simulate([task("a")], driver=driver)


# --- what is given back ---------------------------------------------------------------------------


def test_its_transitions_are_a_journal() -> None:
    simulation = simulate(SEED_PLAN, start=1000.0)
    restored = Scheduler.restore(simulation.transitions)
    restored.check()
    assert restored.finished
    assert [record.result() for record in restored.records.values()] == list(simulation.results)
    started = [
        c.at for c in simulation.transitions if isinstance(c, TaskChanged) and c.trigger is Trigger.STARTED
    ]
    assert started == [1000, 1000, 1300, 1600]


def test_it_starts_at_the_epoch_of_virtual_time() -> None:
    assert simulate([task("a", estimate=1)]).results[0].started_at == EPOCH


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    tasks = [task(f"t{number}", estimate=number % 3) for number in range(30)]
    one, two = (simulate(tasks, slots=3, failures={"t4": 1, "t9": 1}, seed=seed) for _ in range(2))
    assert one.transitions == two.transitions
    assert math.isfinite(one.makespan)
