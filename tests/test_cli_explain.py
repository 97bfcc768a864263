from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agentful.events import AttemptFailed, Landed, LandingPrepared, LandingRejected
from agentful.model import Reason, Task
from cliutil import a_repo, ok, run_cli, write_run
from progressutil import START, Story, busy_story

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return a_repo(tmp_path, monkeypatch)


def test_what_waits_for_its_needs(root: Path) -> None:
    write_run(root, busy_story())
    assert ok("explain", "tests").splitlines() == [
        "tests  tester  · waiting",
        "  Write tests",
        "  waits: needs api, ui",
        "    api is ● running",
        "    ui is ● running",
        "  nobody carries out its run at this moment",
    ]


def test_what_is_kept_apart(root: Path) -> None:
    write_run(root, busy_story())
    lines = ok("explain", "fast").splitlines()
    assert lines[2:4] == [
        "  waits: api writes src/api/**, which overlaps src/api/x.py",
        "  nobody carries out its run at this moment",
    ]
    assert "  kept apart from api: src/api/x.py and src/api/** overlap, as in src/api/x.py" in lines


def test_what_waits_for_a_person(root: Path) -> None:
    write_run(root, busy_story())
    lines = ok("explain", "auth").splitlines()
    assert "  waits: waits for the answer to d1" in lines or "  waits: the answer to d1" in lines
    assert lines[-1] == "  next: agentful decide d1 --run r-111111"


def test_what_failed_tells_its_story(root: Path) -> None:
    story = Story(Task("backend", "Do it", id="one"), retries=1)
    story.tell(AttemptFailed(START + 10, "one", 1, Reason.AGENT_FAILED, "exit code 1"))
    from agentful.events import Tick

    story.tell(Tick(START + 12))
    detail = "\n".join(f"line {n} \x1b[31m" for n in range(100))
    story.tell(AttemptFailed(START + 60, "one", 2, Reason.AGENT_FAILED, "exit code 2", detail))
    write_run(root, story)
    lines = ok("explain", "one").splitlines()
    assert lines[0] == "one  backend  ✗ failed  agent failed: exit code 2"
    assert lines[2:7] == [
        "  +0s       everything that it needs has landed",
        "  +0s       attempt 1 started",
        "  +10s      failed, and is tried again: agent failed; exit code 1",
        "  +12s      attempt 2 started",
        "  +1m       failed for good: agent failed; exit code 2",
    ]
    assert "    line 99" in lines
    assert "    line 10" not in lines
    assert lines[-1] == "  next: agentful logs one --run r-111111, agentful retry one"


def test_a_conflict_names_the_other_side(root: Path) -> None:
    story = Story(Task("a", "x", id="one"), Task("b", "y", id="two"), max_concurrency=2)
    story.land("one", 5)
    story.finish("two", 6)
    story.tell(LandingRejected(START + 7, "two", Reason.CONFLICT, "a.py conflicts", "", ("a.py",), "one"))
    story.finish("two", 20, attempt=2)
    story.tell(
        LandingPrepared(START + 21, "two", "feedc0ffee12", "t"), Landed(START + 21, "two", "feedc0ffee12")
    )
    write_run(root, story)
    lines = ok("explain", "two").splitlines()
    assert (
        "  +7s       failed, and is tried again: conflict; a.py conflicts; the other side is one's" in lines
    )
    assert "  +21s      landed as feedc0ffe" in lines


def test_every_trigger_has_words() -> None:
    from agentful.cli.explain import _WORDS
    from agentful.events import Trigger

    assert set(Trigger) - set(_WORDS) <= {Trigger.SUBMITTED}


def test_unknown_tasks(root: Path) -> None:
    write_run(root, busy_story())
    result = run_cli("explain", "testz")
    assert result.exit_code == 2
    assert "Did you mean 'tests'?" in result.stderr
