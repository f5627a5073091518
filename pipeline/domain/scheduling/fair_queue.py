"""Who has the next turn at something that is shared: priority first, then a fair share between clients, then size.

Fairness is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with costs that are known afterwards: each
client has, for each priority, a virtual time that advances by what its turns cost, and the smallest goes first. One
that arrives starts at the virtual time of what is being served, so that it neither catches up on what it did not ask
for nor waits for what others have used. Among a client's own requests the smallest goes first. Ageing lifts whoever
waits long, so that nothing starves. Nothing here waits, locks or knows what time it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

AGEING_S = 600.0
"""A request that waits this long is lifted by one priority, unless the settings say otherwise."""

OTHERS_SHARE = 2
"""Clients leave one slot in so many to those that have none yet, when they take more than one."""

RANK_SHARE = 8
"""Each priority leaves one slot in so many to the more urgent ones, and as much again for each rank below the first."""

LOWEST_RANK = 2
"""Ranks below it reserve no more than this one does."""

MAX_IDLE = 256
"""Clients without work whose virtual time is remembered, for each priority, while others have some."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What somebody wants a turn for.

    Attributes:
        client: who shares. Work of nobody in particular has a name of its own each.
        priority_rank: 0 is served first.
        size: of the work, in any unit: done so far, or expected. Among one client's requests the smallest goes first.
        host: the server that the work depends on, if one does.
        cost: what the turn costs its client when it begins; what it costs by its length is charged afterwards.
    """

    client: str
    priority_rank: int = 1
    size: float = 0.0
    host: str | None = None
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """How many turns there are at a time, and how they are shared.

    Attributes:
        slots: turns that are taken at the same time.
        max_per_host: of them, those that depend on one host. ``None``: any number.
        reserve: whether slots are kept free for those to come. For turns that end within a moment there is no need.
    """

    slots: int
    max_per_host: int | None = None
    reserve: bool = False

    def admit(self, priority_rank: int, *, taken: int, further: int, first: bool) -> bool:
        """Return whether a request may have a slot.

        Args:
            priority_rank: of the request, as ageing has lifted it.
            taken: slots that are taken.
            further: those of them that were not their client's first.
            first: whether its client has no slot yet, at this priority or a more urgent one.
        """
        if not self.reserve:
            return taken < self.slots
        for_urgent = self.slots * min(max(priority_rank, 0), LOWEST_RANK) // RANK_SHARE
        for_others = self.slots // OTHERS_SHARE
        return self.slots - taken > for_urgent and (first or further + 1 < self.slots - for_others)


@dataclass(slots=True, eq=False)
class LinePosition:
    """A request in line, or the turn that it got; ``first`` if its client had none then."""

    request: TurnRequest
    since: float
    number: int
    first: bool = True

    def rank_at(self, now: float, ageing_s: float) -> int:
        """Priority lifted by one for each ``ageing_s`` that the request has waited."""
        return self.request.priority_rank - int((now - self.since) / ageing_s)

    @property
    def flow(self) -> tuple[int, str]:
        """Whose virtual time it counts for."""
        return self.request.priority_rank, self.request.client


@dataclass(slots=True)
class _Flow:
    """One client's requests of one priority."""

    virtual_time: float = 0.0
    waiting: int = 0
    taken: int = 0

    @property
    def active(self) -> bool:
        return self.waiting + self.taken > 0


@dataclass(slots=True)
class _SlotCounts:
    """Slots that are taken, counted in the ways that limits look at."""

    total: int = 0
    further: int = 0
    of_client: Counter[str] = field(default_factory=Counter)
    of_host: Counter[str] = field(default_factory=Counter)

    def count(self, place: LinePosition, change: int) -> None:
        request = place.request
        self.total += change
        self.further += 0 if place.first else change
        _change_count(self.of_client, request.client, change)
        if request.host is not None:
            _change_count(self.of_host, request.host, change)


class FairLine:
    """Requests that wait for turns, and the turns that are taken. Each step looks at everyone who waits.

    Args:
        limits: how many turns there are, and how they are shared.
        ageing_s: a request that waits this long is lifted by one priority.
    """

    def __init__(self, limits: SlotLimits, ageing_s: float) -> None:
        self._limits = limits
        self._ageing_s = ageing_s
        self._waiting: dict[LinePosition, None] = {}
        self._flows: dict[tuple[int, str], _Flow] = {}
        self._virtual_times: dict[int, float] = {}
        self._taken = _SlotCounts()
        self._number = 0

    def join(self, request: TurnRequest, now: float) -> LinePosition:
        """Put a request in line.

        Args:
            request: what is wanted.
            now: seconds on any clock that does not run backwards.
        """
        self._number += 1
        place = LinePosition(request, now, self._number)
        flow = self._flows.setdefault(place.flow, _Flow())
        if not flow.active:
            flow.virtual_time = max(flow.virtual_time, self._virtual_times.get(request.priority_rank, 0.0))
        flow.waiting += 1
        self._waiting[place] = None
        return place

    def leave(self, place: LinePosition) -> None:
        """Take a request out of the line that got no turn."""
        del self._waiting[place]
        self._flows[place.flow].waiting -= 1
        self._drop_idle_flows(place.request.priority_rank)

    def next(self, now: float) -> LinePosition | None:
        """Return whose turn begins, or ``None`` while nobody who waits may have one."""
        ready = [place for place in self._waiting if self._admits(place, now)]
        if not ready:
            return None
        place = min(ready, key=lambda each: self._order(each, now))
        del self._waiting[place]
        self._advance_virtual_time(place.request.priority_rank)
        place.first = self._is_first(place.request)
        flow = self._flows[place.flow]
        flow.waiting, flow.taken = flow.waiting - 1, flow.taken + 1
        flow.virtual_time += place.request.cost
        self._taken.count(place, 1)
        return place

    def finish(self, place: LinePosition) -> None:
        """End a turn."""
        self._flows[place.flow].taken -= 1
        self._taken.count(place, -1)
        self._drop_idle_flows(place.request.priority_rank)

    def should_yield(self, place: LinePosition, size: float, now: float) -> bool:
        """Return whether a turn would be somebody else's if it ended now and its holder joined the line again.

        Args:
            place: the turn.
            size: of its holder's work, as it is known now.
            now: the time.
        """
        flow = self._flows[place.flow]
        flow.taken -= 1
        self._taken.count(place, -1)
        try:
            again = LinePosition(replace(place.request, size=size), now, self._number + 1)
            own = self._order(again, now)
            return any(self._order(each, now) < own and self._admits(each, now) for each in self._waiting)
        finally:
            flow.taken += 1
            self._taken.count(place, 1)

    def charge(self, place: LinePosition, cost: float) -> None:
        """Charge what a turn has cost to its client; to be called before the turn ends, or soon after."""
        if flow := self._flows.get(place.flow):
            flow.virtual_time += cost

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def taken(self) -> int:
        """Turns that are taken."""
        return self._taken.total

    def _admits(self, place: LinePosition, now: float) -> bool:
        request, limits = place.request, self._limits
        if request.host is not None and self._taken.of_host[request.host] >= (limits.max_per_host or limits.slots):
            return False
        return limits.admit(
            place.rank_at(now, self._ageing_s),
            taken=self._taken.total,
            further=self._taken.further,
            first=self._is_first(request),
        )

    def _is_first(self, request: TurnRequest) -> bool:
        """Return whether the client has no turn of this priority or a more urgent one."""
        ranks = range(request.priority_rank + 1)
        flows = (self._flows.get((rank, request.client)) for rank in ranks)
        return not any(flow and flow.taken for flow in flows)

    def _order(self, place: LinePosition, now: float) -> tuple[int, int, float, float, int]:
        request = place.request
        return (
            place.rank_at(now, self._ageing_s),
            self._taken.of_client[request.client],
            self._flows[place.flow].virtual_time,
            request.size,
            place.number,
        )

    def _advance_virtual_time(self, rank: int) -> None:
        """Advance a priority's virtual time to the smallest of the clients that have something to do."""
        present = min(flow.virtual_time for key, flow in self._flows.items() if key[0] == rank and flow.active)
        self._virtual_times[rank] = max(present, self._virtual_times.get(rank, 0.0))

    def _drop_idle_flows(self, rank: int) -> None:
        """Drop clients without work: all of them once a priority has none left, else those that are ahead least."""
        flows = {key: flow for key, flow in self._flows.items() if key[0] == rank}
        idle = sorted((flow.virtual_time, key) for key, flow in flows.items() if not flow.active)
        if len(idle) == len(flows):
            self._virtual_times.pop(rank, None)
        else:
            idle = idle[: max(0, len(idle) - MAX_IDLE)]
        for _, key in idle:
            del self._flows[key]


def _change_count(counts: Counter[str], key: str, change: int) -> None:
    """Change a count; a key that counts nothing any more is dropped."""
    counts[key] += change
    if not counts[key]:
        del counts[key]


def share_key(task_id: int, client: str | None) -> str:
    """Return the name under which a task takes turns: its client's, or its own if it has no client."""
    return f"task {task_id}" if client is None else f"client {client}"
