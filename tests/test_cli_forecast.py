from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentful.cli.forecast import apart, forecast, predicted, warnings, why_apart
from agentful.core.conflicts import scopes_overlap
from agentful.core.view import RunView
from agentful.model import Options, Task
from progressutil import Story


def task(name: str, **fields: Any) -> Task:
    return Task("agent", f"do {name}", id=name, **fields)


def names(pairs: list[Any]) -> list[tuple[str, str]]:
    return [(a.id, b.id) for a, b, _ in pairs]


def test_why_two_tasks_are_apart() -> None:
    free = Options(conflicts="optimistic")
    a, b = task("a", writes=("src/**",)), task("b", writes=("src/api/*.py",))
    assert why_apart(a, b, Options()) == "src/** and src/api/*.py overlap, as in src/api/a.py"
    assert why_apart(a, a, Options()) == "both write src/**"
    assert why_apart(a, b, free) is None
    assert why_apart(a, task("c", writes=("docs/**",)), Options()) is None
    assert why_apart(a, task("c"), Options()) is None
    db = task("d", resources=("port:1", "db"))
    assert why_apart(db, task("e", resources=("db",)), free) == "both use db"


def test_tasks_in_an_order_need_nothing_to_keep_them_apart() -> None:
    scope = ("src/**",)
    tasks = [
        task("last", writes=scope, needs=("middle",)),
        task("first", writes=scope),
        task("middle", needs=("first",)),
        task("other", writes=scope),
    ]
    assert names(apart(tasks, Options())) == [("last", "other"), ("first", "other")]


globs = st.sampled_from(
    [
        "src/**",
        "src/a/**",
        "src/a/x.py",
        "src/b/*.py",
        "*.md",
        "docs/",
        "/docs",
        "docs/x.md",
        "**/x.py",
        "a/b",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(globs, min_size=1, max_size=2), min_size=2, max_size=6))
def test_apart_finds_every_overlap(scopes: list[list[str]]) -> None:
    tasks = [task(f"t{number}", writes=tuple(scope)) for number, scope in enumerate(scopes)]
    expected = [
        (a.id, b.id)
        for place, a in enumerate(tasks)
        for b in tasks[place + 1 :]
        if scopes_overlap(a.writes, b.writes)
    ]
    assert names(apart(tasks, Options())) == expected


def test_the_forecast_keeps_to_scopes_and_slots() -> None:
    tasks = [task(f"t{n}", estimate=300.0) for n in range(10)]
    assert forecast(tasks, Options(max_concurrency=4)).makespan == 900
    tasks = [task(f"t{n}", estimate=300.0, writes=("src/**",)) for n in range(3)]
    assert forecast(tasks, Options(max_concurrency=4)).makespan == 900
    assert forecast(tasks, Options(max_concurrency=4, conflicts="optimistic")).makespan == 300


def test_a_run_is_predicted_only_where_every_task_has_an_estimate() -> None:
    assert predicted(RunView(), Options()) is None
    assert predicted(Story(task("a", estimate=60.0), task("b")).view, Options()) is None
    assert predicted(Story(task("a", estimate=60.0), task("b", estimate=5.0)).view, Options()) == 60


def found(tasks: list[Task], options: Options) -> list[str]:
    return warnings(tasks, options, apart(tasks, options), forecast(tasks, options))


def test_nothing_to_warn_of() -> None:
    tasks = [
        task("a", writes=("a/**",), estimate=5.0),
        task("b", writes=("b/**",), estimate=5.0),
        task("c", reads_only=True, estimate=5.0),
        Task(run="true", id="d", estimate=5.0),
    ]
    assert found(tasks, Options(checks=("true",))) == []


def test_warnings() -> None:
    tasks = [task("a", writes=("x",)), task("b", writes=("x",), estimate=5.0), task("c")]
    first, silent, guessed, checks = found(tasks, Options())
    assert first.endswith("perhaps one should need the other: a and b")
    assert "`writes`" in silent
    assert silent.endswith(": c")
    assert guessed == "tasks without an `estimate` count as 5m: a, c"
    assert "not tested" in checks
    chain = [task("a", writes=("a/",), estimate=5.0), task("b", writes=("b/",), needs=("a",), estimate=5.0)]
    assert found(chain, Options(checks=("true",))) == [
        "no two of its tasks can run at once, so it takes as long as one by one"
    ]
