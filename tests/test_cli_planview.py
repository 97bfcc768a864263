from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from agentful.cli.forecast import apart, forecast
from agentful.cli.planview import plan_document, plan_lines, run_command
from agentful.model import Options, Task
from agentful.progress import plain

FOUR = [
    Task("backend", "Implement API", id="api", estimate=300),
    Task("frontend", "Create UI", id="ui", estimate=300),
    Task("tester", "Write tests", id="tests", needs=("api", "ui"), estimate=300),
    Task("reviewer", "Validate code", id="review", needs=("tests",), estimate=180),
]


def text(tasks: list[Task], width: int = 80, warnings: tuple[str, ...] = (), **options: Any) -> list[str]:
    given = Options(**options)
    found = plan_lines(
        tasks,
        forecast(tasks, given),
        apart(tasks, given),
        warnings,
        base="main@3f2c1d",
        command="agentful run plan.yaml",
        width=width,
    )
    return [plain(line) for line in found]


def test_the_plan_of_four_tasks() -> None:
    assert text(FOUR, warnings=("look here",)) == [
        "4 tasks · 3 waves · 4 at once · from main@3f2c1d",
        " wave 1  api    ███████████                      5m  backend",
        "         ui     ███████████                      5m  frontend",
        " wave 2  tests            ████████████           5m  tester  needs api, ui",
        " wave 3  review                      ███████     3m  reviewer  needs tests",
        " +0m    api and ui start IN PARALLEL",
        " +5m    tests starts (both needs met)",
        " +10m   review starts (its need is met)",
        " +13m   ALL DONE",
        "one by one 18m · critical path api → tests → review",
        "warning: look here",
        "next: agentful run plan.yaml",
    ]


def test_why_a_task_starts_when_it_does() -> None:
    tasks = [
        Task("a", "x", id="one", estimate=60, writes=("src/**",)),
        Task("a", "x", id="two", estimate=90, writes=("docs/**",)),
        Task("a", "x", id="apart", estimate=10, writes=("src/a",)),
        Task("a", "x", id="late", estimate=5),
    ]
    lines = text(tasks, max_concurrency=2)
    assert (
        " +1m    apart starts (kept apart from one)" in lines
        or " +1m    late starts (a slot is free)" in lines
    )
    assert "never at once: one and apart, src/** and src/a overlap, as in src/a" in lines
    assert "one at a time" in text(tasks, max_concurrency=1)[0]


def test_the_json_is_the_documented_one() -> None:
    options = Options()
    assert plan_document(FOUR, forecast(FOUR, options), apart(FOUR, options), ["careful"]) == {
        "version": 1,
        "slots": 4,
        "makespan": 780,
        "sequential": 1080,
        "critical_path": ["api", "tests", "review"],
        "waves": [["api", "ui"], ["tests"], ["review"]],
        "tasks": [
            {
                "id": name,
                "agent": agent,
                "wave": wave,
                "start": start,
                "finish": finish,
                "needs": needs,
                "conflicts_with": [],
            }
            for name, agent, wave, start, finish, needs in [
                ("api", "backend", 1, 0, 300, []),
                ("ui", "frontend", 1, 0, 300, []),
                ("tests", "tester", 2, 300, 600, ["api", "ui"]),
                ("review", "reviewer", 3, 600, 780, ["tests"]),
            ]
        ],
        "warnings": ["careful"],
    }


def test_whole_seconds_are_whole_numbers_and_conflicts_go_both_ways() -> None:
    tasks = [
        Task("a", "x", id="one", estimate=1.5, resources=("db",)),
        Task(run="true", id="two", estimate=2, resources=("db",)),
    ]
    options = Options()
    document = plan_document(tasks, forecast(tasks, options), apart(tasks, options), [])
    assert document["makespan"] == 3.5
    assert [type(entry["finish"]) for entry in document["tasks"]] in ([float, int], [float, float])
    assert [entry["conflicts_with"] for entry in document["tasks"]] == [["two"], ["one"]]
    assert document["tasks"][1]["agent"] == "shell"


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_it_fits(width: int) -> None:
    tasks = [
        Task(
            "agent-with-a-long-name",
            "x",
            id=f"a-long-name-{n}",
            needs=tuple(f"a-long-name-{m}" for m in range(n)),
        )
        for n in range(8)
    ]
    assert max(cell_len(line) for line in text(tasks, width)) <= max(width, 60)


def test_a_large_plan_is_cut_short() -> None:
    tasks = [Task("a", "x", id=f"t{n}", estimate=60 + n) for n in range(500)]
    lines = text(tasks)
    assert " … 400 more tasks" in lines
    assert len(lines) < 150


def test_the_next_command_can_be_copied() -> None:
    assert run_command("") == "agentful run"
    assert run_command("my plan.yaml") == "agentful run 'my plan.yaml'"
