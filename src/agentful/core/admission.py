"""Which ready task may start now: what running tasks have to themselves, and who waits for it.

Ready tasks with equal claims wait in one lane, best first. A lane whose claim somebody holds is parked
with that holder and looked at again only when it lets go. So an event costs as much as there are
different claims waiting for what it touches, however many tasks there are.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

from ..model import Need, State
from . import policy
from .conflicts import scopes_overlap

if TYPE_CHECKING:
    from typing import Literal

    from .record import TaskRecord

Key = tuple[int, float, int]


class Claim(NamedTuple):
    """What a task needs to have to itself while it runs and lands."""

    writes: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    alone: bool = False


NO_CLAIM = Claim()


class Obstacle(NamedTuple):
    """One thing that keeps a task from going on: for ``explain`` and ``status``."""

    kind: Need
    text: str
    others: tuple[str, ...] = ()


class _Lane:
    __slots__ = ("claim", "heap", "parked")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.heap: list[tuple[Key, TaskRecord]] = []
        self.parked = False


class Admission:
    """The ready tasks and the holders of scopes and resources."""

    def __init__(self, conflicts: Literal["avoid", "optimistic"]) -> None:
        self.conflicts = conflicts
        self.holders: dict[str, Claim] = {}
        self._lanes: dict[Claim, _Lane] = {}
        self._open: list[tuple[Key, int, _Lane]] = []
        self._serial = 0
        self._parked: dict[str, list[_Lane]] = {}

    def claim(self, record: TaskRecord) -> Claim:
        """What this task would have to itself if it started now."""
        task = record.task
        if record.alone:
            return Claim(resources=task.resources, alone=True)
        if not task.writes and not task.resources and not record.conflicts:
            return NO_CLAIM
        writes = () if self.conflicts == "optimistic" else task.writes or ()
        if record.conflicts:
            # Where it has conflicted before is where it will write again, declared or not.
            touched = {path for failure in record.failures for path in failure.paths}
            writes += policy.literal(sorted(touched))
        return Claim(writes, task.resources)

    def add(self, record: TaskRecord) -> None:
        """A task may start as far as its needs and delays go."""
        claim = self.claim(record)
        lane = self._lanes.get(claim)
        if lane is None:
            lane = self._lanes[claim] = _Lane(claim)
        record.ticket = ticket = policy.key(record)
        heappush(lane.heap, (ticket, record))
        if not lane.parked and lane.heap[0][0] is ticket:
            self._offer(lane)

    def hold(self, task_id: str, claim: Claim) -> None:
        self.holders[task_id] = claim

    def release(self, task_id: str) -> None:
        """A task lets go of what it held; who waited for it is looked at again."""
        del self.holders[task_id]
        for lane in self._parked.pop(task_id, ()):
            lane.parked = False
            self._offer(lane)

    def next(self) -> TaskRecord | None:
        """The best task that may start, taken off; ``None`` where none may."""
        while self._open:
            ticket, _, lane = heappop(self._open)
            heap = lane.heap
            if lane.parked or not heap or heap[0][0] is not ticket:
                continue  # an offer that another one has replaced
            record = heap[0][1]
            if record.state is not State.READY or record.ticket is not ticket:
                self._offer(lane)
                continue
            if self.holders and (lane.claim is not NO_CLAIM or self._alone_runs()):
                blocked = self.blocker(lane.claim)
                if blocked is not None:
                    lane.parked = True
                    self._parked.setdefault(blocked.others[0], []).append(lane)
                    continue
            heappop(heap)
            self._offer(lane)
            return record
        return None

    def blocker(self, claim: Claim) -> Obstacle | None:
        """Who holds what ``claim`` wants."""
        for holder, held in self.holders.items():
            if claim.alone:
                text = f"runs alone after a conflict, and waits for {holder}"
                return Obstacle(Need.ALONE, text, (holder,))
            if held is NO_CLAIM:
                continue
            if held.alone:
                return Obstacle(Need.ALONE, f"{holder} runs alone after a conflict", (holder,))
            for resource in claim.resources:
                if resource in held.resources:
                    return Obstacle(Need.RESOURCE, f"{holder} holds {resource}", (holder,))
            if claim.writes and held.writes:
                pair = scopes_overlap(claim.writes, held.writes)
                if pair is not None:
                    text = f"{holder} writes {pair[1]}, which overlaps {pair[0]}"
                    return Obstacle(Need.SCOPE, text, (holder,))
        return None

    def check(self) -> None:
        """Nobody holds what another holds. For tests; raises ``AssertionError``."""
        claims = list(self.holders.items())
        for i, (one, a) in enumerate(claims):
            for other, b in claims[i + 1 :]:
                assert not (a.alone or b.alone), (one, other)
                assert not set(a.resources) & set(b.resources), (one, other)
                assert scopes_overlap(a.writes, b.writes) is None, (one, other)

    def _offer(self, lane: _Lane) -> None:
        """Put a lane up for admission, by its best task."""
        heap = lane.heap
        while heap and not (heap[0][1].state is State.READY and heap[0][1].ticket is heap[0][0]):
            heappop(heap)
        if heap:
            self._serial += 1
            heappush(self._open, (heap[0][0], self._serial, lane))
        else:
            self._lanes.pop(lane.claim, None)

    def _alone_runs(self) -> bool:
        # A task that runs alone is the only holder, so looking at one of them is enough.
        return next(iter(self.holders.values())).alone
