from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentful.model import Decision, Reason, State
from agentful.runtime import stateschema
from agentful.runtime.stateschema import (
    DOCUMENTS,
    StateInput,
    TaskLine,
    Unreadable,
    encode,
    parse,
    read_answers,
    read_completed,
)

T0 = 1_768_905_000.0  # 2026-01-20T10:30:00Z


def line(task_id: str, state: State, **more: Any) -> TaskLine:
    return TaskLine(id=task_id, agent=more.pop("agent", task_id), prompt=f"Do {task_id}", state=state, **more)


def source(*tasks: TaskLine, **more: Any) -> StateInput:
    return StateInput(
        run="r-1", at=T0, mode=more.pop("mode", "parallel"), slots=more.pop("slots", 4), tasks=tasks, **more
    )


API = TaskLine(
    id="api",
    agent="backend",
    prompt="Implement auth API",
    state=State.RUNNING,
    started_at=T0,
    timeout=600,
    attempt=1,
    progress=40.7,
)
UI = TaskLine(
    id="ui",
    agent="frontend",
    prompt="Create login UI",
    state=State.RUNNING,
    started_at=T0 + 5,
    timeout=600,
    attempt=2,
)
TESTS = TaskLine(
    id="tests", agent="tester", prompt="Write tests", state=State.WAITING, needs=("api", "ui"), priority=2
)
DONE = TaskLine(
    id="db",
    agent="backend",
    prompt="Design the tables",
    state=State.SUCCEEDED,
    started_at=T0 - 300,
    finished_at=T0,
    attempt=1,
)


# --- state.json -------------------------------------------------------------------------------------


def test_the_state_of_a_parallel_run() -> None:
    assert stateschema.state(source(UI, API, TESTS, DONE)) == {
        "version": "1.0",
        "initialized": True,
        "run": "r-1",
        "execution_mode": "parallel",
        "parallel_mode": {"enabled": True, "max_concurrent": 4},
        "current_phase": "implementing",
        "current_task": "Implement auth API",
        "current_agent": "backend",
        "agent_start_time": "2026-01-20T10:30:00Z",
        "agent_timeout": 600000,
        "iterations": 4,
        "blocked_on": [],
        "active_agents": [
            {
                "id": "api",
                "agent": "backend",
                "task": "Implement auth API",
                "started_at": "2026-01-20T10:30:00Z",
                "timeout": 600000,
                "status": "running",
                "attempt": 1,
                "progress": 40,
            },
            {
                "id": "ui",
                "agent": "frontend",
                "task": "Create login UI",
                "started_at": "2026-01-20T10:30:05Z",
                "timeout": 600000,
                "status": "running",
                "attempt": 2,
                "progress": 0,
            },
        ],
        "agent_pool": {
            "max_concurrent": 4,
            "available_slots": 2,
            "queue": [
                {
                    "id": "tests",
                    "agent": "tester",
                    "task": "Write tests",
                    "dependencies": ["api", "ui"],
                    "priority": 2,
                    "status": "waiting",
                }
            ],
        },
        "agent_history": [
            {
                "id": "db",
                "agent": "backend",
                "task": "Design the tables",
                "started_at": "2026-01-20T10:25:00Z",
                "completed_at": "2026-01-20T10:30:00Z",
                "duration_ms": 300000,
                "status": "completed",
                "attempts": 1,
            }
        ],
    }


def test_a_run_that_does_nothing() -> None:
    state = stateschema.state(source(mode="sequential", slots=1))
    assert state["execution_mode"] == "sequential"
    assert state["parallel_mode"] == {"enabled": False, "max_concurrent": 1}
    assert (state["current_phase"], state["current_agent"], state["agent_start_time"]) == ("idle", None, None)
    assert state["agent_pool"] == {"max_concurrent": 1, "available_slots": 1, "queue": []}
    assert state["agent_history"] == state["active_agents"] == []


def test_what_lands_is_active_and_holds_no_slot() -> None:
    state = stateschema.state(source(line("api", State.LANDING), slots=1))
    assert state["current_phase"] == "validating"
    assert state["active_agents"][0]["status"] == "landing"
    assert state["agent_pool"]["available_slots"] == 1

    more = stateschema.state(source(line("a", State.STOPPING), line("b", State.RUNNING), slots=1))
    assert more["agent_pool"]["available_slots"] == 0


def test_the_queue_goes_by_what_is_said_then_priority_then_submission() -> None:
    tasks = [
        line("a", State.READY),
        line("b", State.WAITING, priority=5),
        line("c", State.BLOCKED),
        line("d", State.READY, priority=-1),
        line("e", State.WAITING),
    ]

    def queue(*first: str) -> str:
        state = stateschema.state(source(*tasks, queue=first))
        return "".join(entry["id"] for entry in state["agent_pool"]["queue"])

    assert queue() == "baced"
    assert queue("d", "e") == "debac"


@pytest.mark.parametrize(
    ("state", "reason", "status"),
    [
        (State.SUCCEEDED, None, "completed"),
        (State.FAILED, Reason.CONFLICT, "failed"),
        (State.FAILED, Reason.TIMEOUT, "timeout"),
        (State.FAILED, Reason.RUN_TIMEOUT, "timeout"),
        (State.CANCELLED, Reason.RUN_TIMEOUT, "cancelled"),
        (State.SKIPPED, Reason.NEED_FAILED, "skipped"),
    ],
)
def test_history_has_what_became_of_each(state: State, reason: Reason | None, status: str) -> None:
    (entry,) = stateschema.state(source(line("a", state, reason=reason, message="why")))["agent_history"]
    assert entry["status"] == status
    assert entry["notes"] == "why"
    assert entry.get("reason") == (reason and reason.value)
    assert entry["started_at"] is entry["completed_at"] is entry["duration_ms"] is None


def test_history_goes_by_the_end_of_each_and_knows_its_time_at_work() -> None:
    late = line("late", State.FAILED, started_at=T0, finished_at=T0 + 60, duration=12.3456)
    early = line("early", State.FAILED, started_at=T0 + 1, finished_at=T0 + 2)
    history = stateschema.state(source(late, early))["agent_history"]
    assert [(entry["id"], entry["duration_ms"]) for entry in history] == [("early", 1000), ("late", 12346)]


def test_open_decisions_block() -> None:
    decisions = (Decision("d1", "?"), Decision("d2", "?", answer="yes"))
    assert stateschema.state(source(decisions=decisions))["blocked_on"] == ["d1"]


# --- completion.json --------------------------------------------------------------------------------


def test_completion() -> None:
    tasks = (API, TESTS, DONE, line("auth/login", State.FAILED, reason=Reason.CHECKS_FAILED, progress=100.0))
    assert stateschema.completion(source(*tasks, tests_passing=True)) == {
        "version": "1.0",
        "run": "r-1",
        "features": {
            "api": {
                "status": "in_progress",
                "progress": 40,
                "subtasks_complete": 0,
                "subtasks_total": 1,
                "agent": "backend",
            },
            "tests": {
                "status": "pending",
                "progress": 0,
                "subtasks_complete": 0,
                "subtasks_total": 1,
                "agent": "tester",
            },
            "db": {
                "status": "complete",
                "progress": 100,
                "subtasks_complete": 1,
                "subtasks_total": 1,
                "agent": "backend",
            },
            "auth/login": {
                "status": "failed",
                "progress": 99,
                "subtasks_complete": 0,
                "subtasks_total": 1,
                "agent": "auth/login",
                "reason": "checks_failed",
            },
        },
        "gates": {"tests_passing": True},
        "overall_progress": 59,
        "features_complete": 1,
        "features_total": 4,
    }


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_a_status(state: State) -> None:
    document = stateschema.completion(source(line("a", state, subtasks=(2, 5))))
    assert document["features"]["a"]["subtasks_complete"] == 2
    assert document["features"]["a"]["subtasks_total"] == 5
    assert (document["overall_progress"] == 100) == (state is State.SUCCEEDED)
    assert stateschema.state(source(line("a", state)))["run"] == "r-1"


def test_nothing_to_do_is_no_progress() -> None:
    assert stateschema.completion(source())["overall_progress"] == 0


# --- decisions.json ---------------------------------------------------------------------------------

OPEN = Decision("d1", "How?", ("Skip", "Retry"), ("api",), "it failed", asked_at=T0)
CLOSED = Decision("d2", "Which?", answer="The first", asked_at=T0, answered_at=T0 + 60)
ASKED = source(API, decisions=(OPEN, CLOSED))


def test_decisions_are_there_for_the_readers_of_both_forms() -> None:
    document = stateschema.decisions(ASKED)
    first, second = document["decisions"]
    assert first == {
        "id": "d1",
        "question": "How?",
        "context": "it failed",
        "options": ["Skip", "Retry"],
        "status": "pending",
        "resolution": None,
        "blocking": ["api"],
        "timestamp": "2026-01-20T10:30:00Z",
        "created_at": "2026-01-20T10:30:00Z",
        "resolved_at": None,
    }
    assert (second["status"], second["resolution"]) == ("resolved", "The first")
    assert second["resolved_at"] == "2026-01-20T10:31:00Z"
    assert document["pending"] == [first]
    assert document["resolved"] == [second]


@pytest.mark.parametrize("name", list(DOCUMENTS))
def test_only_the_time_stamp_tells_two_writings_apart(name: str) -> None:
    data, body = encode(ASKED, name)
    later, later_body = encode(msgspec.structs.replace(ASKED, at=T0 + 9), name)
    assert body == later_body
    assert later.replace(b"10:30:09Z", b"10:30:00Z") == data != later
    stamps = {"last_updated"} | ({"lastUpdated"} if name == "decisions.json" else set())
    assert parse(data).keys() - msgspec.json.decode(body).keys() == stamps


def test_text_that_is_none_is_written_all_the_same() -> None:
    data, _ = encode(source(line("a\udc80", State.READY)), "completion.json")
    assert "a?" in parse(data)["features"]


# --- reading back -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {"decisions": [{"id": "d1", "status": "resolved", "resolution": "Skip"}]},
        {"decisions": [{"id": "d1", "status": "answered", "answer": "Skip"}]},
        {"decisions": [{"id": "d1", "status": "pending", "resolution": " Skip "}]},
        {"decisions": [{"id": "d1", "status": "pending", "resolution": None, "answer": "skip"}]},
        {"pending": [{"id": "d1", "answer": "SKIP"}]},
        {"pending": [], "resolved": [{"id": "d1", "answer": "Skip"}]},
        {"resolved_history": [{"id": "d1", "question": "How?", "answer": "Skip", "timestamp_resolved": "x"}]},
        {"decisions": [{"id": "d1", "status": "pending"}], "pending": [{"id": "d1", "resolution": "Skip"}]},
        {"decisions": [{"id": "d1", "resolution": "Skip"}], "resolved": ["d1"]},
    ],
)
def test_an_answer_counts_in_every_form(document: dict[str, Any]) -> None:
    assert read_answers(document, ASKED) == ({"d1": "Skip"}, [])


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"decisions": [{"id": "d1", "status": "resolved"}]}, "'d1' is resolved, but has no resolution"),
        ({"resolved": ["d1"]}, "'d1' is resolved, but has no resolution"),
        ({"resolved": [{"id": "d1", "answer": "  "}]}, "'d1' is resolved, but has no resolution"),
        (
            {"pending": [{"id": "d1", "answer": "Sk"}]},
            "'Sk' is no answer to 'd1'; choose from 'Skip', 'Retry'",
        ),
        ({"pending": [{"id": "d9", "answer": "Skip"}]}, "there is no decision 'd9'"),
        ({"pending": [{"id": "d2", "answer": "The second"}]}, "'d2' was decided already: 'The first'"),
        (
            {"decisions": [{"id": "d1", "answer": "Skip"}], "pending": [{"id": "d1", "answer": "Retry"}]},
            "'d1' has two answers: 'Skip' and 'Retry'",
        ),
    ],
)
def test_an_answer_that_cannot_be_used_is_told(document: dict[str, Any], problem: str) -> None:
    assert read_answers(document, ASKED) == ({}, [problem])


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"decisions": [], "pending": [], "resolved": []},
        {"decisions": {"d1": "Skip"}, "pending": "d1", "resolved": 5},
        {"decisions": [None, 5, "d1", [], {}, {"id": None}, {"id": ["d1"], "answer": "Skip"}]},
        {
            "decisions": [
                {"id": "d1", "answer": None},
                {"id": "d1", "answer": True},
                {"id": "d1", "answer": []},
            ]
        },
        {"decisions": [{"id": "d1", "status": 5}]},
        {"decisions": [{"id": "d2", "answer": "The first"}], "resolved": ["d2"]},
    ],
)
def test_what_says_nothing_is_passed_over(document: dict[str, Any]) -> None:
    assert read_answers(document, ASKED) == ({}, [])


def test_without_a_run_every_answer_is_handed_out() -> None:
    document = {
        "decisions": [{"id": "d1", "answer": "Whatever"}, {"id": 7, "answer": 2.5}],
        "resolved": ["d8"],
    }
    assert read_answers(document, None) == (
        {"d1": "Whatever", "7": "2.5"},
        ["'d8' is resolved, but has no resolution"],
    )


def test_any_answer_will_do_where_there_are_no_options() -> None:
    free = source(decisions=(Decision("d1", "?"),))
    assert read_answers({"pending": [{"id": "d1", "answer": "Use SQLite"}]}, free) == (
        {"d1": "Use SQLite"},
        [],
    )


def test_options_that_differ_in_case_only_are_told_apart() -> None:
    both = source(decisions=(Decision("d1", "?", ("yes", "Yes")),))
    assert read_answers({"pending": [{"id": "d1", "answer": "Yes"}]}, both) == ({"d1": "Yes"}, [])
    assert read_answers({"pending": [{"id": "d1", "answer": "YES"}]}, both)[0] == {}


TASKS = source(API, DONE, line("auth/login", State.BLOCKED))


@pytest.mark.parametrize(
    ("document", "completed"),
    [
        ({"features": {"api": {"status": "complete"}}}, ["api"]),
        ({"features": {"api": {"status": "Completed"}, "auth/login": "done"}}, ["api", "auth/login"]),
        ({"domains": {"auth": {"features": {"login": {"status": "complete"}}}}}, ["auth/login"]),
        ({"features": {"db": {"status": "complete"}, "api": {"status": "in_progress"}}}, []),
        ({"features": [1], "domains": []}, []),
        ({"features": {"api": None, "db": []}, "domains": {"x": 5, "y": {"features": 1}}}, []),
    ],
)
def test_features_set_to_complete_are_read(document: dict[str, Any], completed: list[str]) -> None:
    assert read_completed(document, TASKS) == (completed, [])


def test_features_that_cannot_be_used_are_told() -> None:
    document = {"features": {"web": {"status": "complete"}, "api": {"status": "compelte"}}}
    completed, problems = read_completed(document, TASKS)
    assert completed == []
    words = "blocked, cancelled, complete, failed, in_progress, pending, skipped"
    assert problems == [
        "there is no task 'web' in this run",
        f"'api' has the status 'compelte', which is none of {words}",
    ]
    assert read_completed(document, None)[0] == ["web"]


@pytest.mark.parametrize("document", [ASKED, TASKS, source()])
def test_what_we_write_has_no_news(document: StateInput) -> None:
    assert read_answers(parse(encode(document, "decisions.json")[0]), document) == ({}, [])
    assert read_completed(parse(encode(document, "completion.json")[0]), document) == ([], [])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b"\xff\xfe{}",
        b"{'a': 1}",
        b'{"a": 1,}',
        b"[" * 100_000,
        b'{"a": 1e999}',
    ],
)
def test_what_is_no_object_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable, match="is not"):
        parse(data)


def test_a_byte_order_mark_is_no_trouble() -> None:
    assert parse(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["d1", "Skip", "resolved", "complete", ""]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "status", "answer", "resolution", "features", "d1", "api"]),
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(["decisions", "pending", "resolved", "resolved_history", "features", "domains"]), json
    ),
    st.sampled_from([ASKED, TASKS, None]),
)
def test_no_document_upsets_it(document: dict[str, Any], known: StateInput | None) -> None:
    answers, problems = read_answers(document, known)
    completed, more = read_completed(document, known)
    assert all(text for text in [*answers, *answers.values(), *problems, *more])
    if known is not None:
        assert answers.items() <= {("d1", "Skip"), ("d1", "Retry")}
        assert set(completed) <= {"api"}
