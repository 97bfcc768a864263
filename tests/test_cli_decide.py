from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agentful.cli.shared import choose
from agentful.events import AttemptAsked
from agentful.model import Decision, Task
from agentful.runtime.git import Repository
from agentful.runtime.run import lock_of
from cliutil import a_repo, as_json, ok, run_cli, write_run
from progressutil import START, Story, busy_story

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return a_repo(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("options", "text", "answer"),
    [
        ((), "anything", "anything"),
        ((), "  ", None),
        (("Sessions", "JWT"), "1", "Sessions"),
        (("Sessions", "JWT"), " 2 ", "JWT"),
        (("Sessions", "JWT"), "3", None),
        (("Sessions", "JWT"), "0", None),
        (("Sessions", "JWT"), "jwt", "JWT"),
        (("Sessions", "JWT"), "sess", "Sessions"),
        (("Sessions", "JWT"), "", None),
        (("Skip it", "Skip all"), "skip", None),
        (("10", "20"), "20", "20"),
        (("Sessions", "JWT"), "²", None),
    ],
)
def test_choose(options: tuple[str, ...], text: str, answer: str | None) -> None:
    assert choose(Decision(id="d1", question="?", options=options), text) == answer


def test_decide_lists_what_waits(root: Path) -> None:
    assert ok("decide") == "no question waits for you\n"
    write_run(root, busy_story())
    said = ok("decide")
    assert said.splitlines()[:6] == [
        "? d1  Sessions or JWT?",
        "      asked by backend in attempt 1",
        "      blocks auth",
        "   1  Sessions",
        "   2  JWT",
        "   agentful decide d1 NUMBER --run r-111111",
    ]
    assert ok("decide", "d1") == said


@pytest.mark.parametrize("choice", ["2", "jwt", "JWT"])
def test_an_answer_to_a_run_that_nobody_carries_out_is_written_down(root: Path, choice: str) -> None:
    write_run(root, busy_story())
    assert ok("answer", "d1", choice) == "d1: JWT; go on with: agentful resume r-111111\n"
    document = as_json("status", "--json")
    assert (document["decisions"][0]["status"], document["decisions"][0]["answer"]) == ("resolved", "JWT")
    states = {task["id"]: task["state"] for task in document["tasks"]}
    assert states["auth"] == "ready"
    assert states["api"] == "running", "what was under way is for the resume to find out about"
    again = run_cli("decide", "d1", choice, "--run", "r-111111")
    assert again.exit_code == 2
    assert "d1 was decided already: JWT" in again.stderr


def test_what_is_no_answer(root: Path) -> None:
    write_run(root, busy_story())
    result = run_cli("decide", "d1", "cookies")
    assert result.exit_code == 2
    assert "choose from: 1 Sessions, 2 JWT" in result.stderr
    result = run_cli("decide", "d9", "1")
    assert result.exit_code == 2
    assert "no question 'd9' waits for you" in result.stderr
    assert as_json("status", "--json")["decisions"][0]["status"] == "pending"


def test_two_runs_may_ask_by_the_same_name(root: Path) -> None:
    write_run(root, busy_story(), "r-aaaaaa")
    write_run(root, busy_story(), "r-bbbbbb")
    result = run_cli("decide", "d1", "1")
    assert result.exit_code == 2
    assert "say which with --run: r-bbbbbb, r-aaaaaa" in result.stderr
    ok("decide", "d1", "1", "--run", "a")
    assert as_json("status", "r-bbbbbb", "--json")["decisions"][0]["status"] == "pending"
    ok("decide", "d1", "1")
    assert ok("decide") == "no question waits for you\n"


def test_a_locked_run_is_not_written_to(root: Path) -> None:
    write_run(root, busy_story())
    from agentful.cli.decide import decide_offline
    from agentful.cli.shared import here
    from agentful.errors import RunLocked
    from agentful.events import DecisionAnswered

    with lock_of(Repository.discover(root), "r-111111"), here() as place:
        reader = place.run("latest")
        with pytest.raises(RunLocked):
            decide_offline(reader, DecisionAnswered(START + 500, "d1", "JWT"))


def test_stop_says_so_where_there_is_nothing_to_stop(root: Path) -> None:
    write_run(root, busy_story())
    result = run_cli("stop")
    assert result.exit_code == 0
    assert "run r-111111 is not live (interrupted), so there is nothing to stop" in result.stderr
    assert run_cli("cancel", "111111").exit_code == 0


def test_tasks_of_a_run_that_nobody_carries_out_can_be_cancelled(root: Path) -> None:
    write_run(root, busy_story())
    assert ok("cancel", "fast", "ui") == "fast: cancelled\nui: stopping\n"
    states = {task["id"]: task["state"] for task in as_json("status", "--json")["tasks"]}
    assert (states["fast"], states["ui"]) == ("cancelled", "stopping")
    assert run_cli("cancel", "nobody").exit_code == 2
    assert run_cli("stop", "api", "--drain").exit_code == 2


def test_a_question_without_options(root: Path) -> None:
    story = Story(Task("a", "x", id="one"))
    story.tell(AttemptAsked(START + 1, "one", 1, "Which port?"))
    write_run(root, story)
    assert "agentful decide d1 ANSWER" in ok("decide")
    assert ok("decide", "d1", "8080") == "d1: 8080; go on with: agentful resume r-111111\n"
