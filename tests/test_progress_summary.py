from __future__ import annotations

from agentful.events import AttemptLost, Landed, LandingPrepared, LandingRejected
from agentful.model import Reason, Task
from agentful.progress import account, plain, summary
from progressutil import START, Story, busy_story


def told(story: Story, wall: float, **fields: object) -> list[str]:
    given: dict[str, object] = {"run": "r-1", "branch": "agentful/r-1", "predicted": None, "width": 100}
    return [plain(line) for line in summary(story.view, wall=wall, **(given | fields))]  # type: ignore[arg-type]


def pair() -> Story:
    return Story(Task("a", "x", id="one"), Task("b", "y", id="two"), max_concurrency=2)


def test_what_parallel_saved() -> None:
    story = pair()
    story.land("one", 60)
    story.land("two", 90)
    assert account(story.view).busy == 90
    assert account(story.view).one_by_one == 150
    assert told(story, 90.0, predicted=80.0) == [
        "r-1: 2 of 2 tasks done, 2 landed on agentful/r-1 in 1m30s",
        " ✓ done 2: one, two",
        "time   1m30s, predicted 1m20s, one by one about 2m30s: parallel saved 1m (1.7 times as fast)",
        "next   agentful land r-1",
    ]


def test_it_says_so_when_parallel_did_not_pay() -> None:
    story = pair()
    story.land("one", 1)
    story.land("two", 2)
    assert "parallel did not pay here, it lost 7s" in told(story, 10.0)[2]
    assert "parallel made no difference here" in told(story, 3.0)[2]


def test_landings_count_once_though_several_wait_for_theirs() -> None:
    story = pair()
    story.finish("one", 10)
    story.finish("two", 10)
    story.tell(LandingPrepared(START + 15, "one", "c1", "t"), Landed(START + 15, "one", "c1"))
    story.tell(LandingPrepared(START + 20, "two", "c2", "c1"), Landed(START + 20, "two", "c2"))
    assert account(story.view).busy == 20
    assert account(story.view).one_by_one == 10 + 10 + 10


def test_what_a_conflict_or_a_crash_made_void_is_not_counted_as_work() -> None:
    story = pair()
    story.land("one", 10)
    story.finish("two", 10)
    story.tell(LandingRejected(START + 10, "two", Reason.CONFLICT, "a.py", "", ("a.py",), "one"))
    story.tell(AttemptLost(START + 15, "two", 2, "crash"))
    story.land("two", 40, attempt=3)
    assert account(story.view).busy == 40
    assert account(story.view).one_by_one == 10 + 25


def test_a_run_that_is_not_over() -> None:
    lines = told(busy_story(), 200.0, resumable=True)
    assert lines[0] == "r-1: 1 of 8 tasks done, 1 landed on agentful/r-1 in 3m20s"
    assert " ? needs you auth  question: Sessions or JWT?" in lines
    assert " ✗ failed cli  agent failed: exit code 2" in lines
    assert " ↻ tried again: cli (agent failed)" in lines
    assert not any("saved" in line for line in lines)
    assert lines[-1] == "next   agentful decide d1 NUMBER --run r-1, then agentful resume r-1"


def test_what_to_do_next() -> None:
    story = Story(Task("a", "x", id="my task"))
    assert told(story, 1.0, resumable=True)[-1] == "next   agentful resume r-1"
    story.fail("my task", 5, "no")
    assert told(story, 1.0)[-1] == "next   agentful explain 'my task', then agentful retry 'my task'"


def test_work_outside_its_scope_is_named() -> None:
    from agentful.events import AttemptSucceeded

    story = Story(Task("a", "x", id="one", writes=("src/**",)))
    story.tell(AttemptSucceeded(START + 1, "one", 1, "c", ("src/a", "b"), ("b",)))
    assert " ! one wrote outside its scope: b" in told(story, 1.0)


def test_many_failures_are_cut_short() -> None:
    story = Story(*(Task("a", "x", id=f"t{n}") for n in range(30)), max_concurrency=30)
    for number in range(30):
        story.fail(f"t{number}", 1, "no")
    lines = told(story, 1.0)
    assert " ✗ failed and 10 more" in lines
    assert len(lines) < 30
