"""Which ready task may start now: what running tasks have to themselves, and who waits for it.

Ready tasks with equal claims wait in one lane, best first. Lanes that cannot go on for the sake of one
thing that they all want, a resource or a glob, wait in one crowd for the task that holds it. When it
lets go, only the best of the crowd is looked at: if it starts, it holds that thing in its turn, and the
others wait for it without having been looked at. So an event costs as much as there are different
things wanted of what it touches, however many tasks want them.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING, NamedTuple

from ..model import Need, Reason, State
from . import policy
from .conflicts import scopes_overlap

if TYPE_CHECKING:
    from typing import Literal

    from .record import TaskRecord

Key = tuple[int, float, int]
Want = tuple[Need, str]


class Claim(NamedTuple):
    """What a task needs to have to itself while it runs and lands."""

    writes: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    alone: bool = False


NO_CLAIM = Claim()

_READY = State.READY


class Obstacle(NamedTuple):
    """One thing that keeps a task from going on: for ``explain`` and ``status``."""

    kind: Need
    text: str
    others: tuple[str, ...] = ()


class _Lane:
    """Ready tasks with one claim."""

    __slots__ = ("claim", "crowd", "heap")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.heap: list[tuple[Key, TaskRecord]] = []
        self.crowd: _Crowd | None = None


class _Crowd:
    """Lanes that want one thing, so that a start from any of them keeps the others waiting.

    Without a ``want`` they have nothing in common but whom they wait for.
    """

    __slots__ = ("heap", "holder", "want")

    def __init__(self, want: Want | None, holder: str) -> None:
        self.want = want
        self.holder: str | None = holder
        """Who has it; ``None`` while the best of them is on offer."""
        self.heap: list[tuple[Key, int, _Lane]] = []


class Admission:
    """The ready tasks and the holders of scopes and resources."""

    def __init__(self, conflicts: Literal["avoid", "optimistic"]) -> None:
        self.conflicts = conflicts
        self.holders: dict[str, Claim] = {}
        self._lanes: dict[Claim, _Lane] = {}
        self._crowds: dict[str, dict[Want | None, _Crowd]] = {}
        """By the holder that they wait for, and by what they want."""
        self._open: list[tuple[Key, int, _Lane]] = []
        """Lanes on offer, by their best task. One that has changed since is passed over when met."""
        self._serial = 0

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
            touched = {
                path
                for failure in record.failures
                if failure.reason is Reason.CONFLICT
                for path in failure.paths
            }
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
        if lane.heap[0][0] is ticket:
            self._put_up(lane)

    def hold(self, task_id: str, claim: Claim) -> None:
        self.holders[task_id] = claim

    def release(self, task_id: str) -> None:
        """A task lets go of what it held; who waited for it is looked at again."""
        del self.holders[task_id]
        crowds = self._crowds.pop(task_id, None)
        if crowds is None:
            return
        for crowd in crowds.values():
            crowd.holder = None
            if crowd.want is not None:
                self._offer(crowd)
                continue
            for _, _, lane in crowd.heap:
                lane.crowd = None
                if self._any_left(lane):
                    self._put_up(lane)

    def next(self) -> TaskRecord | None:
        """The best task that may start, taken off; ``None`` where none may.

        The caller starts it before anything else: who wants what it takes waits for it from here on.
        """
        while self._open:
            ticket, _, lane = heappop(self._open)
            heap, crowd = lane.heap, lane.crowd
            if (crowd is not None and crowd.holder is not None) or not heap or heap[0][0] is not ticket:
                continue  # an offer that another one has replaced
            record = heap[0][1]
            if record.state is not _READY or record.ticket is not ticket:
                self._offer_again(lane)
                continue
            if self.holders and (lane.claim is not NO_CLAIM or self._alone_runs()):
                found = self._obstacle(lane.claim)
                if found is not None:
                    self._park(lane, found[0].others[0], found[1])
                    continue
            heappop(heap)
            if crowd is None:
                self._offer_again(lane)
            else:
                self._any_left(lane)
                self._attach(crowd, record.id)
            return record
        return None

    def blocker(self, claim: Claim) -> Obstacle | None:
        """Who holds what ``claim`` wants."""
        found = self._obstacle(claim)
        return None if found is None else found[0]

    def _obstacle(self, claim: Claim) -> tuple[Obstacle, Want | None] | None:
        """Who holds what ``claim`` wants, and which of its wants that is."""
        for holder, held in self.holders.items():
            if claim.alone:
                text = f"runs alone after a conflict, and waits for {holder}"
                return Obstacle(Need.ALONE, text, (holder,)), (Need.ALONE, "")
            if held is NO_CLAIM:
                continue
            if held.alone:
                return Obstacle(Need.ALONE, f"{holder} runs alone after a conflict", (holder,)), None
            for resource in claim.resources:
                if resource in held.resources:
                    text = f"{holder} holds {resource}"
                    return Obstacle(Need.RESOURCE, text, (holder,)), (Need.RESOURCE, resource)
            if claim.writes and held.writes:
                pair = _shared(claim.writes, held.writes) or scopes_overlap(claim.writes, held.writes)
                if pair is not None:
                    text = f"{holder} writes {pair[1]}"
                    if pair[0] != pair[1]:
                        text += f", which overlaps {pair[0]}"
                    return Obstacle(Need.SCOPE, text, (holder,)), (Need.SCOPE, pair[0])
        return None

    def check(self) -> None:
        """Nobody holds what another holds. For tests; raises ``AssertionError``."""
        claims = [item for item in self.holders.items() if item[1] is not NO_CLAIM]
        for i, (one, a) in enumerate(claims):
            for other, b in claims[i + 1 :]:
                assert not a.alone, (one, other)
                assert not b.alone, (one, other)
                assert not set(a.resources) & set(b.resources), (one, other)
                assert scopes_overlap(a.writes, b.writes) is None, (one, other)

    # --- lanes and crowds ------------------------------------------------------------------------

    def _entry(self, lane: _Lane) -> tuple[Key, int, _Lane]:
        self._serial += 1
        return lane.heap[0][0], self._serial, lane

    def _put_up(self, lane: _Lane) -> None:
        """A lane has another best task: put it up for admission, unless it has to wait anyway."""
        crowd = lane.crowd
        if crowd is not None:
            heappush(crowd.heap, self._entry(lane))
        if crowd is None or crowd.holder is None:
            heappush(self._open, self._entry(lane))

    def _offer(self, crowd: _Crowd) -> None:
        """Put the best lane of a crowd up for admission."""
        heap = crowd.heap
        while heap:
            ticket, _, lane = heap[0]
            if lane.crowd is not crowd or not self._any_left(lane):
                heappop(heap)
            elif lane.heap[0][0] is not ticket:
                heapreplace(heap, self._entry(lane))
            else:
                heappush(self._open, self._entry(lane))
                return

    def _offer_again(self, lane: _Lane) -> None:
        """The best task of a lane on offer is gone."""
        if lane.crowd is not None:
            self._offer(lane.crowd)
        elif self._any_left(lane):
            self._put_up(lane)

    def _park(self, lane: _Lane, holder: str, want: Want | None) -> None:
        """A lane on offer has to wait for ``holder``."""
        before = lane.crowd
        if before is not None and before.want == want:
            self._attach(before, holder)
            return
        crowds = self._crowds.setdefault(holder, {})
        crowd = crowds.get(want)
        if crowd is None:
            crowd = crowds[want] = _Crowd(want, holder)
        lane.crowd = crowd
        heappush(crowd.heap, self._entry(lane))
        if before is not None:
            self._offer(before)

    def _attach(self, crowd: _Crowd, holder: str) -> None:
        """All of a crowd have to wait for ``holder``, who has what they want."""
        crowds = self._crowds.setdefault(holder, {})
        other = crowds.get(crowd.want)
        if other is not None:
            crowd, smaller = (crowd, other) if len(crowd.heap) > len(other.heap) else (other, crowd)
            for entry in smaller.heap:
                if entry[2].crowd is smaller:
                    entry[2].crowd = crowd
                    heappush(crowd.heap, entry)
        crowd.holder = holder
        crowds[crowd.want] = crowd

    def _any_left(self, lane: _Lane) -> bool:
        """Whether a lane still has a task: those that are no longer ready go, and an empty lane too."""
        heap = lane.heap
        while heap and not (heap[0][1].state is _READY and heap[0][1].ticket is heap[0][0]):
            heappop(heap)
        if not heap:
            lane.crowd = None
            self._lanes.pop(lane.claim, None)
        return bool(heap)

    def _alone_runs(self) -> bool:
        # A task that runs alone is the only holder, so looking at one of them is enough.
        return next(iter(self.holders.values())).alone


def _shared(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, str] | None:
    """A glob that both have: the cheapest overlap to find, and the one that most others wait for."""
    return next(((glob, glob) for glob in a if glob in b), None)
