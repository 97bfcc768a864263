"""Who may start: lanes and crowds against a plain search through everybody, and what they cost."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentful.core import policy
from agentful.core.admission import NO_CLAIM, Admission, Claim
from agentful.core.conflicts import check_glob, globs_overlap, matches
from agentful.core.record import TaskRecord
from agentful.events import Detail, TaskChanged, Trigger
from agentful.model import Need, Reason, State, Task
from coreutil import excludes, scheduler_key

if TYPE_CHECKING:
    from typing import Literal


class Hall:
    """An admission with records whose states are set here, and not by a scheduler."""

    def __init__(self, conflicts: Literal["avoid", "optimistic"] = "avoid") -> None:
        self.admission = Admission(conflicts)
        self.ready: dict[str, TaskRecord] = {}
        self.count = 0

    def record(self, task_id: str = "", **said: object) -> TaskRecord:
        task = Task(id=task_id or f"t{self.count}", **said)  # type: ignore[arg-type]
        record = TaskRecord(task, self.count, 0.0)
        record.tail = policy.duration(task)
        self.count += 1
        return record

    def add(self, record: TaskRecord) -> TaskRecord:
        record.state = State.READY
        self.admission.add(record)
        self.ready[record.id] = record
        return record

    def next(self) -> str | None:
        record = self.admission.next()
        if record is None:
            return None
        del self.ready[record.id]
        record.state = State.RUNNING
        self.admission.hold(record.id, self.admission.claim(record))
        self.admission.check()
        return record.id

    def drop(self, record: TaskRecord) -> None:
        """It is ready no more: cancelled, or blocked by a decision."""
        record.state = State.BLOCKED
        del self.ready[record.id]

    def expected(self) -> str | None:
        """The same by looking at everybody."""
        may = [
            record
            for record in self.ready.values()
            if not any(
                excludes(self.admission.claim(record), held) for held in self.admission.holders.values()
            )
        ]
        return min(may, key=scheduler_key).id if may else None


def conflicted(record: TaskRecord, *paths: str, alone: bool = False) -> TaskRecord:
    record.state = State.LANDING
    detail = Detail(paths=paths, alone=alone)
    record.apply(
        TaskChanged(0.0, record.id, Trigger.RETRIED, State.LANDING, State.READY, 1, Reason.CONFLICT, detail)
    )
    return record


# --- claims ------------------------------------------------------------------------------------------


def test_what_a_task_claims() -> None:
    hall = Hall()
    claim = hall.admission.claim
    assert claim(hall.record()) is NO_CLAIM
    assert claim(hall.record(writes=())) is NO_CLAIM
    assert claim(hall.record(writes=("src",), resources=("db",))) == Claim(("src",), ("db",))
    assert claim(conflicted(hall.record(), "a b", "x")) == Claim(("/a\\ b", "/x"))
    assert claim(conflicted(hall.record(writes=("src",)), "x")) == Claim(("src", "/x"))
    assert claim(conflicted(hall.record(resources=("db",)), "x", alone=True)) == Claim((), ("db",), True)


def test_optimistic_tasks_claim_no_scope_but_where_they_have_conflicted() -> None:
    hall = Hall("optimistic")
    claim = hall.admission.claim
    assert claim(hall.record(writes=("src",), resources=("db",))) == Claim((), ("db",))
    assert claim(conflicted(hall.record(writes=("src",)), "x")) == Claim(("/x",))


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=300), st.integers(1, 30))
def test_a_path_in_conflict_is_claimed_whatever_it_is_called(name: str, depth: int) -> None:
    if name in (".", "..") or name.lower() == ".git":
        return
    path = "/".join([name] * depth)
    (glob,) = policy.literal([path])
    check_glob(glob)
    assert matches(glob, path)
    assert globs_overlap(glob, "**")


def test_a_path_in_conflict_is_claimed_and_not_its_neighbour() -> None:
    (glob,) = policy.literal(["src/[id]/a*?.py"])
    assert matches(glob, "src/[id]/a*?.py")
    assert not matches(glob, "src/i/ab.py")
    assert not matches(glob, "x/src/[id]/a*?.py")
    assert policy.literal(["a", "b", "a"]) == ("/a", "/b")


# --- order -------------------------------------------------------------------------------------------


def test_best_first_over_all_lanes() -> None:
    hall = Hall()
    hall.add(hall.record("plain"))
    hall.add(hall.record("scoped", writes=("a",), priority=1))
    hall.add(hall.record("long", estimate=900.0))
    hall.add(hall.record("urgent", resources=("db",), priority=2))
    assert [hall.next() for _ in range(5)] == ["urgent", "scoped", "long", "plain", None]


def test_who_waits_for_a_holder_is_looked_at_again_when_it_lets_go() -> None:
    hall = Hall()
    for task_id in "abc":
        hall.add(hall.record(task_id, resources=("db",)))
    assert [hall.next(), hall.next()] == ["a", None]
    hall.admission.release("a")
    assert [hall.next(), hall.next()] == ["b", None]


def test_a_better_one_that_comes_later_overtakes_those_that_wait() -> None:
    hall = Hall()
    hall.add(hall.record("a", writes=("x", "1")))
    assert hall.next() == "a"
    hall.add(hall.record("b", writes=("x", "2")))
    hall.add(hall.record("c", writes=("x", "3")))
    assert hall.next() is None
    hall.add(hall.record("d", writes=("x", "2"), priority=5))
    hall.add(hall.record("e", writes=("x", "3"), priority=9))
    hall.admission.release("a")
    hall.add(hall.record("f", writes=("x", "3"), priority=99))
    for expected in ("f", "e", "d", "b", "c"):
        assert hall.next() == expected
        assert hall.next() is None
        hall.admission.release(expected)


def test_who_cannot_go_on_for_another_reason_makes_room_for_the_next_of_its_crowd() -> None:
    hall = Hall()
    hall.add(hall.record("other", resources=("port",), priority=9))
    hall.add(hall.record("a", resources=("db",), priority=8))
    assert [hall.next(), hall.next()] == ["other", "a"]
    hall.add(hall.record("both", resources=("db", "port"), priority=7))
    hall.add(hall.record("db", resources=("db",)))
    assert hall.next() is None
    hall.admission.release("a")
    assert hall.next() == "db"
    hall.admission.release("other")
    assert hall.next() is None
    hall.admission.release("db")
    assert hall.next() == "both"


def test_who_is_ready_no_more_is_passed_over_wherever_it_waits() -> None:
    hall = Hall()
    first = hall.add(hall.record("first"))
    hall.drop(first)
    assert hall.next() is None
    hall.add(hall.record("a", resources=("db",)))
    assert hall.next() == "a"
    waiting = [hall.add(hall.record(resources=("db",))) for _ in range(3)]
    assert hall.next() is None
    hall.drop(waiting[0])
    hall.admission.release("a")
    hall.drop(waiting[1])
    assert hall.next() == waiting[2].id


def test_one_that_comes_back_has_one_place_and_not_two() -> None:
    hall = Hall()
    record = hall.add(hall.record("a"))
    hall.drop(record)
    hall.add(record)
    assert [hall.next(), hall.next()] == ["a", None]


def test_alone_means_that_nobody_else_holds_anything() -> None:
    hall = Hall()
    hall.add(hall.record("plain", priority=2))
    hall.add(conflicted(hall.record("alone", priority=1), alone=True))
    assert [hall.next(), hall.next()] == ["plain", None]
    found = hall.admission.blocker(Claim(alone=True))
    assert found is not None
    assert (found.kind, found.others) == (Need.ALONE, ("plain",))
    hall.admission.release("plain")
    assert hall.next() == "alone"
    hall.add(hall.record("after"))
    hall.add(hall.record("scoped", writes=("x",)))
    assert hall.next() is None
    hall.admission.release("alone")
    assert [hall.next(), hall.next(), hall.next()] == ["after", "scoped", None]


def test_why_somebody_waits_is_told_with_both_sides() -> None:
    hall = Hall()
    hall.admission.hold("h", Claim(("src/**", "/go.mod"), ("db",)))
    blocker = hall.admission.blocker
    assert blocker(NO_CLAIM) is None
    assert blocker(Claim(("/go.sum",), ("port",))) is None
    texts = [
        found.text
        for found in (
            blocker(Claim(("src/a.py",))),
            blocker(Claim(("/x", "/go.mod"))),
            blocker(Claim((), ("port", "db"))),
        )
        if found is not None
    ]
    assert texts == ["h writes src/**, which overlaps src/a.py", "h writes /go.mod", "h holds db"]


def test_check_finds_those_that_hold_the_same() -> None:
    for one, other in (
        (Claim(("a",)), Claim(("a/b",))),
        (Claim((), ("db",)), Claim((), ("db",))),
        (Claim(alone=True), Claim(("x",))),
        (Claim(("x",)), Claim(alone=True)),
    ):
        admission = Admission("avoid")
        admission.hold("one", one)
        admission.check()
        admission.hold("other", other)
        with pytest.raises(AssertionError):
            admission.check()


# --- against a plain search ------------------------------------------------------------------------------

GLOBS = ("src/**", "src/api/**", "/src/api/a.py", "*.md", "docs/**", "/go.mod", "src/ui")


def some_record(hall: Hall, rng: Random) -> TaskRecord:
    record = hall.record(
        writes=rng.choice([None, (), *[tuple(rng.sample(GLOBS, rng.randint(1, 3))) for _ in range(4)]]),
        resources=tuple(rng.sample(("db", "port", "gpu"), rng.choice([0, 0, 0, 1, 1, 2]))),
        priority=rng.randint(0, 3),
        estimate=rng.choice([0.0, 5.0, 5.0, 9.0]),
    )
    if rng.random() < 0.1:
        conflicted(record, rng.choice(["src/api/a.py", "x.md"]), alone=rng.random() < 0.5)
    return record


@pytest.mark.parametrize("seed", range(150))
def test_it_admits_whom_a_plain_search_would(seed: int) -> None:
    rng = Random(seed)
    hall = Hall(rng.choice(["avoid", "optimistic"]))
    slots = rng.choice([1, 2, 5, 99])
    gone: list[TaskRecord] = []
    for _ in range(150):
        match rng.choice("aaaannnnrrrdb"):
            case "a":
                hall.add(some_record(hall, rng))
            case "n" if len(hall.admission.holders) < slots:
                expected = hall.expected()
                assert hall.next() == expected
            case "r" if hall.admission.holders:
                hall.admission.release(rng.choice(list(hall.admission.holders)))
            case "d" if hall.ready:
                record = hall.ready[rng.choice(list(hall.ready))]
                hall.drop(record)
                gone.append(record)
            case "b" if gone:
                hall.add(gone.pop())
            case _:
                pass
    while hall.ready or hall.admission.holders:
        expected = hall.expected()
        assert hall.next() == expected
        if expected is None:
            hall.admission.release(rng.choice(list(hall.admission.holders)))


def test_an_empty_hall_keeps_nothing() -> None:
    hall = Hall()
    for n in range(50):
        hall.add(hall.record(writes=(f"p{n}", "shared"), resources=("db",)))
    while (running := hall.next()) is not None:
        hall.admission.release(running)
    assert hall.admission._lanes == {}
    assert hall.admission._crowds == {}
    assert hall.admission.holders == {}
