"""What an agent is told."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentful.core import prompt
from agentful.events import StartAttempt
from agentful.model import Agent, Answer, Failure, Reason, Task

AGENT = Agent(name="backend")
NEEDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("api", "Made the API.", {"port": 3000, "path": "/v1"}),
    ("ui v1.2", "Made the page.", {}),
)


def build(task: Task, agent: Agent = AGENT, checks: tuple[str, ...] = (), **said: Any) -> str:
    return prompt.build(StartAttempt(task.id, task, 1, **said), agent, checks)


def test_a_task_alone_is_its_prompt_alone() -> None:
    assert build(Task("backend", "  Make it.\n", id="a")) == "Make it.\n"


def test_the_parts_stand_in_their_order_each_under_its_heading() -> None:
    agent = Agent(name="backend", instructions="You are careful.\n")
    text = build(
        Task("backend", "Make it.", id="a", writes=("src/**", "docs")),
        agent,
        ("pytest -q", "ruff check"),
        needs=NEEDS,
        answers=(Answer("Which database?", "sqlite"),),
        failures=(
            Failure(
                attempt=1,
                reason=Reason.CONFLICT,
                message="src/a.py conflicts with what ui landed",
                detail="<<<<<<<\n```\n>>>>>>>",
                paths=("src/a.py",),
                other="ui",
                commit="abc",
            ),
            Failure(attempt=2, reason=Reason.NO_CHANGE, message=""),
        ),
    )
    assert text == (
        "You are careful.\n\n"
        "## What was done before you\n\n"
        "### api\n\nMade the API.\n- port: 3000\n- path: /v1\n\n"
        "### ui v1.2\n\nMade the page.\n\n"
        "## Your task\n\nMake it.\n\n"
        "## Where you may write\n\n- src/**\n- docs\n\n"
        "## Checks\n\nThese commands have to pass once your work is merged:\n\n- pytest -q\n- ruff check\n\n"
        "## Decisions\n\n- Which database?\n  Answer: sqlite\n\n"
        "## What went wrong before\n\n"
        "Attempt 1: conflict. src/a.py conflicts with what ui landed\n"
        "The other side came from the task 'ui', which has landed.\n"
        "Paths: src/a.py\n"
        "What that attempt had done is kept as the commit abc.\n\n"
        "````\n<<<<<<<\n```\n>>>>>>>\n````\n\n"
        "Attempt 2: no change.\n"
    )


def test_who_only_reads_is_told_so_once_and_has_no_checks_to_pass() -> None:
    text = build(Task("r", "Review.", id="a", reads_only=True, writes=("src",)), checks=("pytest",))
    assert text.count("## Where you may write") == 1
    assert "you only read" in text
    assert "pytest" not in text


def test_a_scope_of_nothing_is_said_and_one_that_was_not_declared_is_not() -> None:
    assert build(Task("r", "Do.", id="a", writes=())).endswith("## Where you may write\n\nNowhere.\n")
    assert "Where" not in build(Task("r", "Do.", id="a"))


def test_a_need_is_filled_in_where_the_prompt_wants_it_and_not_repeated() -> None:
    wish = "Use {{ needs.api.outputs.port }} at {{needs.api.outputs.path}}. {{ needs.ui v1.2.summary }}"
    text = build(Task("r", wish, id="a"), needs=NEEDS)
    assert text == "Use 3000 at /v1. Made the page.\n"
    text = build(Task("r", "After: {{ needs.api.summary }}", id="a"), needs=NEEDS)
    assert text.startswith("## What was done before you\n\n### ui v1.2")
    assert text.endswith("## Your task\n\nAfter: Made the API.\n")


def test_an_output_that_there_is_not_is_empty() -> None:
    assert build(Task("r", "[{{ needs.api.outputs.nope }}]", id="a"), needs=NEEDS[:1]) == "[]\n"


def test_what_refers_to_nothing_stays_and_does_not_hide_what_comes_after_it() -> None:
    wish = "{{ needs.gone.summary }} {{ needs.api.output }} {{ name }} {{ needs.api.summary }}"
    text = build(Task("r", wish, id="a"), needs=NEEDS[:1])
    assert text == "{{ needs.gone.summary }} {{ needs.api.output }} {{ name }} Made the API.\n"


def test_what_a_task_handed_on_is_not_read_as_a_template() -> None:
    needs: Any = (("a", "{{ needs.b.summary }}", {}), ("b", "secret", {}))
    assert "{{ needs.b.summary }}" in build(Task("r", "{{ needs.a.summary }}", id="x"), needs=needs)


def test_a_need_without_a_summary_says_so() -> None:
    assert "### a\n\n(it left no summary)" in build(Task("r", "Do.", id="x"), needs=(("a", " ", {}),))


def test_what_is_long_is_cut_and_its_end_kept() -> None:
    long = "x" * 50_000 + "the point"
    needs: list[tuple[str, str, dict[str, Any]]] = [("a", long, {"out": long}), ("b", long, {"out": long})]
    failures = (Failure(attempt=1, reason=Reason.LOST, message="no", detail=long, paths=("p",) * 1000),)
    text = build(
        Task("r", "{{ needs.b.summary }} {{ needs.b.outputs.out }}", id="x"),
        needs=tuple(needs),
        failures=failures,
    )
    assert text.count("the point") == 5
    assert text.count("[...]") == 5
    assert len(text) < 45_000


@given(st.text(alphabet="`~\n x", max_size=60))
def test_output_never_closes_the_block_that_it_stands_in(detail: str) -> None:
    text = build(
        Task("r", "Do.", id="a"),
        failures=(Failure(attempt=1, reason=Reason.AGENT_FAILED, message="no", detail=detail),),
    )
    if not detail.strip():
        assert "```" not in text
        return
    lines = text.rstrip("\n").split("\n")
    fence = lines[-1]
    assert set(fence) == {"`"}
    assert lines.count(fence) == 2
    inside = lines[lines.index(fence) + 1 : -1]
    assert "\n".join(inside) == detail.strip()
    assert not any(line.strip(" ").startswith(fence) for line in inside)


@given(st.text(max_size=80))
def test_any_prompt_comes_through_as_it_is(wish: str) -> None:
    assert build(Task("r", wish, id="a")).strip() == wish.strip()
