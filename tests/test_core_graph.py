from __future__ import annotations

import graphlib
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentful.core import graph
from agentful.errors import PlanError
from agentful.model import Task


def plan(**needs: str) -> list[Task]:
    """Tasks by keyword: ``plan(api="", tests="api ui")``."""
    return [Task(id=name, needs=tuple(value.split())) for name, value in needs.items()]


def estimate(task: Task) -> float:
    return 1.0 if task.estimate is None else task.estimate


def sharing(a: Task, b: Task) -> bool:
    return not set(a.resources).isdisjoint(b.resources)


SEED = [
    Task("backend", "api", id="api", estimate=300),
    Task("frontend", "ui", id="ui", estimate=300),
    Task("tester", "tests", id="tests", estimate=300, needs=("api", "ui")),
    Task("reviewer", "review", id="review", estimate=180, needs=("tests",)),
]


@st.composite
def plans(draw: st.DrawFn, *, shortest: int = 0) -> list[Task]:
    """Tasks without a cycle, in any order, with whole durations so that sums are exact."""
    count = draw(st.integers(0, 14))
    tasks = [
        Task(
            id=f"t{number}",
            needs=tuple(f"t{need}" for need in draw(st.sets(st.integers(0, number - 1), max_size=4)))
            if number
            else (),
            estimate=draw(st.integers(shortest, 9)),
            priority=draw(st.sampled_from([0, 0, 0, 1, -1])),
            resources=tuple(draw(st.sets(st.sampled_from("ab"), max_size=1))),
        )
        for number in range(count)
    ]
    return draw(st.permutations(tasks))


def depth(tasks: dict[str, Task], name: str) -> int:
    return max((1 + depth(tasks, need) for need in tasks[name].needs), default=0)


def tail(tasks: list[Task], task: Task) -> float:
    return estimate(task) + max((tail(tasks, other) for other in tasks if task.id in other.needs), default=0)


# --- check ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "known", "message"),
    [
        (plan(api="") + plan(api=""), (), "two tasks have the id 'api', the 1st and the 2nd of the plan"),
        (plan(api=""), ("api",), "a task with the id 'api' exists already"),
        (plan(api="api"), (), "task 'api': it needs itself"),
        (plan(tests="api"), (), "task 'tests': it needs 'api', which does not exist"),
        (plan(api="", tests="apii"), (), "did you mean 'api'?"),
        (plan(tests="apii"), ("api", "ui"), "did you mean 'api'?"),
        (plan(tests="zzzzz", api=""), (), "no task has an id like that"),
        (plan(a="b", b="a"), (), "a cycle: a needs b needs a;"),
        (plan(x="", ui="api", api="tests x", tests="ui"), (), "a cycle: ui needs api needs tests needs ui;"),
        ([Task(id="a b", needs=("a b",))], (), "task 'a b': it needs itself"),
        ([Task()], (), "the 1st task of the plan: it has no id"),
        ([*plan(a="", b=""), Task(id=" c")], (), "the 3rd task of the plan: its id ' c' has white space"),
        ([Task(id="a\n")], (), "white space"),
        ([Task(id="a\nb")], (), "control character '\\n'"),
        ([Task(id="a\x00b")], (), "control character '\\x00'"),
        ([Task(id="a\x7f")], (), "control character"),
        ([Task(id="a\u2028b")], (), "control character"),
        ([Task(id="a\ud800")], (), "control character"),
        ([Task(id="x" * 201)], (), "201 characters; the most is 200"),
    ],
)  # fmt: skip
def test_check_says_what_is_wrong(tasks: list[Task], known: tuple[str, ...], message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        graph.check(tasks, known)


@pytest.mark.parametrize(
    "name", ["a", "x" * 200, "a/b", "../a", ".", "a b", "naïve", "日本", "👩‍💻", "-rf", "a:b", "'", "\ue000"]
)
def test_check_takes_every_other_id(name: str) -> None:
    graph.check([Task(id=name), Task(id="other", needs=(name,))])


def test_check_takes_what_can_run() -> None:
    graph.check([])
    graph.check(SEED)
    graph.check(SEED[::-1])
    graph.check(plan(tests="api api"), known={"api"})


@pytest.mark.parametrize(("position", "said"), [(0, "1st"), (1, "2nd"), (2, "3rd"), (3, "4th"), (10, "11th"),
                                                (11, "12th"), (21, "22nd"), (111, "112th")])  # fmt: skip
def test_places_are_named_as_people_do(position: int, said: str) -> None:
    tasks = [Task(id=str(number)) for number in range(position)]
    with pytest.raises(PlanError, match=f"the {said} task of the plan"):
        graph.check([*tasks, Task()])


def test_an_id_with_a_space_is_quoted_in_a_cycle() -> None:
    with pytest.raises(PlanError, match="a cycle: 'a b' needs c needs 'a b';"):
        graph.check([Task(id="a b", needs=("c",)), Task(id="c", needs=("a b",))])


def test_of_two_cycles_the_short_one_is_named() -> None:
    tasks = plan(a="b", b="c", c="d", d="a", x="y", y="x")
    with pytest.raises(PlanError, match="a cycle: x needs y needs x;"):
        graph.check(tasks)


def test_a_long_cycle_is_named_in_part() -> None:
    count = 50_000
    tasks = [Task(id=f"t{number}", needs=(f"t{(number + 1) % count}",)) for number in range(count)]
    with pytest.raises(PlanError) as caught:
        graph.check(tasks)
    message = str(caught.value)
    assert message.startswith("a cycle: t0 needs t1 needs t2 ")
    assert " needs t49999 needs t0;" in message
    assert len(message) < 500


@given(st.lists(st.sets(st.integers(0, 7), max_size=2), min_size=8, max_size=8))
@settings(max_examples=150, deadline=None)
def test_a_cycle_is_found_where_there_is_one_and_is_a_shortest(needs: list[set[int]]) -> None:
    tasks = [
        Task(id=f"t{at}", needs=tuple(f"t{need}" for need in sorted(some - {at})))
        for at, some in enumerate(needs)
    ]
    by_id = {task.id: task for task in tasks}
    try:
        graphlib.TopologicalSorter({task.id: task.needs for task in tasks}).prepare()
    except graphlib.CycleError:
        with pytest.raises(PlanError) as caught:
            graph.check(tasks)
        named = str(caught.value).removeprefix("a cycle: ").split(";")[0].split(" needs ")
        assert named[0] == named[-1]
        assert all(b in by_id[a].needs for a, b in itertools.pairwise(named))
        shortest = min(filter(None, (girth(by_id, name) for name in by_id)))
        assert len(named) - 1 == shortest
    else:
        graph.check(tasks)


def girth(tasks: dict[str, Task], start: str) -> int | None:
    reached = {start}
    for length in range(1, len(tasks) + 1):
        reached = {need for name in reached for need in tasks[name].needs}
        if start in reached:
            return length
    return None


# --- what it says --------------------------------------------------------------------------------


def test_the_four_tasks_of_the_seed() -> None:
    found = graph.timeline(SEED, 4, estimate)
    assert [task.start for task in found.tasks] == [0, 0, 300, 600]
    assert [task.finish for task in found.tasks] == [300, 300, 600, 780]
    assert [task.wave for task in found.tasks] == [1, 1, 2, 3]
    assert [task.slot for task in found.tasks] == [0, 1, 0, 0]
    assert (found.slots, found.makespan, found.sequential) == (4, 780, 1080)
    assert found.critical_path == ("api", "tests", "review")
    assert found.waves == (("api", "ui"), ("tests",), ("review",))
    assert graph.critical_path(SEED, estimate) == ["api", "tests", "review"]
    assert graph.tails(SEED, estimate) == {"api": 780, "ui": 780, "tests": 480, "review": 180}
    assert graph.timeline(SEED, 1, estimate).makespan == 1080


def test_ten_tasks_on_four_slots_take_three_rounds() -> None:
    tasks = [Task(id=f"t{number}", estimate=300) for number in range(10)]
    found = graph.timeline(tasks, 4, estimate)
    assert found.makespan == 900
    assert [task.start for task in found.tasks] == [0] * 4 + [300] * 4 + [600] * 2
    assert [task.slot for task in found.tasks] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_nothing_takes_no_time() -> None:
    assert graph.timeline([], 3, estimate) == graph.Timeline(3, 0.0, 0.0, (), (), ())
    assert graph.order([]) == []
    assert graph.waves([]) == []
    assert graph.tails([], estimate) == {}
    assert graph.critical_path([], estimate) == []


def test_priority_goes_before_the_longest_tail_and_that_before_the_place() -> None:
    tasks = [
        Task(id="first", estimate=1),
        Task(id="long", estimate=5),
        Task(id="urgent", estimate=1, priority=1),
        Task(id="second", estimate=1),
    ]
    found = graph.timeline(tasks, 1, estimate)
    assert [task.start for task in found.tasks] == [6, 1, 0, 7]


def test_what_is_excluded_is_passed_over_and_not_waited_for() -> None:
    tasks = [
        Task(id="a", resources=("db",), estimate=5),
        Task(id="b", resources=("db",), estimate=5),
        Task(id="c", estimate=2),
        Task(id="d", estimate=2),
    ]
    found = graph.timeline(tasks, 2, estimate, sharing)
    assert [task.start for task in found.tasks] == [0, 5, 0, 2]
    assert graph.timeline(tasks, 2, estimate).makespan == 7


def test_needs_on_tasks_that_are_not_given_are_met() -> None:
    tasks = plan(tests="api", review="tests gone")
    assert graph.waves(tasks) == [["tests"], ["review"]]
    assert graph.timeline(tasks, 1, estimate).makespan == 2


def test_more_slots_than_anybody_has() -> None:
    assert graph.timeline(SEED, 10**12, estimate).makespan == 780


@pytest.mark.parametrize("slots", [0, -1])
def test_no_slots_run_nothing(slots: int) -> None:
    with pytest.raises(PlanError, match="at least one"):
        graph.timeline(SEED, slots, estimate)


@pytest.mark.parametrize("length", [-1.0, float("nan"), float("inf")])
def test_impossible_durations_are_refused(length: float) -> None:
    for call in (graph.tails, graph.critical_path, lambda tasks, f: graph.timeline(tasks, 1, f)):
        with pytest.raises(PlanError, match="task 'api': it is expected to take"):
            call(SEED, lambda task: length)


def test_a_cycle_is_refused_everywhere() -> None:
    tasks = plan(a="b", b="a")
    for call in (
        graph.order,
        graph.waves,
        lambda tasks: graph.tails(tasks, estimate),
        lambda tasks: graph.critical_path(tasks, estimate),
        lambda tasks: graph.timeline(tasks, 1, estimate),
    ):
        with pytest.raises(PlanError, match="a cycle: a needs b needs a"):
            call(tasks)


@given(plans())
@settings(max_examples=100, deadline=None)
def test_order_is_the_earliest_given_whose_needs_are_placed(tasks: list[Task]) -> None:
    found = graph.order(tasks)
    left = list(tasks)
    placed: set[str] = set()
    for task in found:
        assert task is next(task for task in left if placed.issuperset(task.needs))
        left.remove(task)
        placed.add(task.id)
    assert not left
    assert graph.order(found) == found


@given(plans())
@settings(max_examples=100, deadline=None)
def test_waves_tails_and_critical_path_agree_with_their_definitions(tasks: list[Task]) -> None:
    by_id = {task.id: task for task in tasks}
    found = graph.waves(tasks)
    assert all(found)
    assert found == [
        [task.id for task in tasks if depth(by_id, task.id) == wave] for wave in range(len(found))
    ]
    assert sum(map(len, found)) == len(tasks)

    assert graph.tails(tasks, estimate) == {task.id: tail(tasks, task) for task in tasks}

    path = graph.critical_path(tasks, estimate)
    assert all(a in by_id[b].needs for a, b in itertools.pairwise(path))
    assert sum(estimate(by_id[name]) for name in path) == max(
        (tail(tasks, task) for task in tasks), default=0
    )


@given(plans(shortest=1), st.integers(1, 5), st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_timeline_is_a_schedule_that_wastes_nothing(tasks: list[Task], slots: int, exclusive: bool) -> None:
    found = graph.timeline(tasks, slots, estimate, sharing if exclusive else None)
    by_id = {task.id: (task, planned) for task, planned in zip(tasks, found.tasks, strict=True)}
    assert [planned.id for planned in found.tasks] == [task.id for task in tasks]

    def running(at: float) -> list[Task]:
        return [task for task, planned in by_id.values() if planned.start <= at < planned.finish]

    for task, planned in by_id.values():
        assert planned.finish == planned.start + estimate(task)
        assert 0 <= planned.slot < slots
        ready = max((by_id[need][1].finish for need in task.needs), default=0)
        assert planned.start >= ready
        others = running(planned.start)
        assert len(others) <= slots
        if exclusive:
            assert not any(sharing(task, other) for other in others if other is not task)
        for instant in range(int(ready), int(planned.start)):
            at_work = running(instant)
            assert len(at_work) == slots or (exclusive and any(sharing(task, other) for other in at_work))
    for a, b in itertools.combinations(found.tasks, 2):
        assert a.slot != b.slot or a.finish <= b.start or b.finish <= a.start

    work = sum(map(estimate, tasks))
    longest = max((tail(tasks, task) for task in tasks), default=0)
    assert found.sequential == work
    assert found.makespan == max((planned.finish for planned in found.tasks), default=0)
    assert found.makespan >= max(longest, work / slots)
    if not exclusive:
        assert slots * found.makespan <= work + (slots - 1) * longest  # Graham


@given(plans(), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_a_timeline_is_what_the_rule_gives_when_carried_out_plainly(tasks: list[Task], slots: int) -> None:
    found = graph.timeline(tasks, slots, estimate, sharing)
    assert {planned.id: planned.start for planned in found.tasks} == plainly(tasks, slots)


def plainly(tasks: list[Task], slots: int) -> dict[str, float]:
    """The same rule, looking at everything at every step."""
    rank = {task.id: (-task.priority, -tail(tasks, task), at) for at, task in enumerate(tasks)}
    starts: dict[str, float] = {}
    running: list[tuple[float, Task]] = []
    done: set[str] = set()
    now = 0.0
    while len(done) < len(tasks):
        for task in sorted(tasks, key=lambda task: rank[task.id]):
            ready = task.id not in starts and done.issuperset(task.needs)
            alone = not any(sharing(task, other) for _, other in running)
            if ready and alone and len(running) < slots:
                starts[task.id] = now
                running.append((now + estimate(task), task))
        now = min(finish for finish, _ in running)
        done.update(task.id for finish, task in running if finish == now)
        running = [(finish, task) for finish, task in running if finish > now]
    return starts


def test_a_chain_of_100_000_tasks() -> None:
    count = 100_000
    tasks = [Task(id=f"t{at}", needs=(f"t{at - 1}",) if at else ()) for at in range(count)]
    graph.check(tasks[::-1])
    assert graph.critical_path(tasks, estimate) == [task.id for task in tasks]
    found = graph.timeline(tasks, 64, estimate)
    assert found.makespan == count
    assert len(found.waves) == count


def test_exclusions_are_asked_for_once_a_start_and_running_task() -> None:
    asked = 0

    def never(a: Task, b: Task) -> bool:
        nonlocal asked
        asked += 1
        return False

    tasks = [Task(id=f"t{at}") for at in range(2_000)]
    graph.timeline(tasks, 4, estimate, never)
    assert asked <= 3 * len(tasks)
