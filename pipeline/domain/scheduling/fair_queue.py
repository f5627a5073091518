"""A queue for slots of a shared resource: priority first, then a fair share between clients, then size.

The method is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with costs that are known afterwards. For
each priority, a client has a virtual time that advances by the cost of its turns, and the smallest goes first. A client
that arrives starts at the virtual time of the work in progress, so that it neither catches up on time in which it
requested nothing nor waits for what others have used. Among the requests of one client the smallest goes first. Ageing
raises requests that wait long, so that nothing starves. Nothing here waits, locks or reads a clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

AGEING_S = 600.0
"""Default of the seconds of waiting that raise a request by one priority."""

OTHERS_SHARE = 2
"""One slot in this many is left to clients that hold none yet, by clients that take more than one."""

RANK_SHARE = 8
"""One slot in this many is left to more urgent priorities, once for each rank below the first."""

LOWEST_RANK = 2
"""Rank with the largest reserve; lower priorities leave no more."""

MAX_IDLE = 256
"""Most clients without work whose virtual time is kept, for each priority, while other clients have work."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A request for a turn.

    Attributes:
        client: share key of the work. Work without a client has a share key of its own.
        priority_rank: rank; 0 is served first.
        size: size of the work, in any unit, done so far or expected. Among a client's requests the smallest goes first.
        host: the server that the work depends on, if any.
        cost: cost of the turn, charged when it begins; cost by duration is charged afterwards.
    """

    client: str
    priority_rank: int = 1
    size: float = 0.0
    host: str | None = None
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """The number of slots, and the rules for sharing them.

    Attributes:
        slots: most turns held at the same time.
        max_per_host: most of them that depend on one host. ``None``: any number.
        reserve: whether slots are kept free for later requests. Very short turns need no reserve.
    """

    slots: int
    max_per_host: int | None = None
    reserve: bool = False

    def admit(self, priority_rank: int, *, taken: int, further: int, first: bool) -> bool:
        """Return whether a request may have a slot.

        Args:
            priority_rank: rank of the request, as ageing has raised it.
            taken: number of taken slots.
            further: number of taken slots that are not their client's first.
            first: whether its client has no slot yet, at this priority or a more urgent one.
        """
        if not self.reserve:
            return taken < self.slots
        for_urgent = self.slots * min(max(priority_rank, 0), LOWEST_RANK) // RANK_SHARE
        for_others = self.slots // OTHERS_SHARE
        return self.slots - taken > for_urgent and (first or further + 1 < self.slots - for_others)


@dataclass(slots=True, eq=False)
class QueuePosition:
    """A request in the queue, or the turn that it got; ``first`` if its client had no turn then."""

    request: TurnRequest
    since: float
    number: int
    first: bool = True

    def rank_at(self, now: float, ageing_s: float) -> int:
        """Return the priority's rank, raised by one for each ``ageing_s`` that the request has waited."""
        return self.request.priority_rank - int((now - self.since) / ageing_s)

    @property
    def flow(self) -> tuple[int, str]:
        """The key of its flow: rank and client."""
        return self.request.priority_rank, self.request.client


@dataclass(slots=True)
class _Flow:
    """The requests of one client and priority."""

    virtual_time: float = 0.0
    waiting: int = 0
    taken: int = 0

    @property
    def active(self) -> bool:
        return self.waiting + self.taken > 0


@dataclass(slots=True)
class _SlotCounts:
    """The number of taken slots, counted as the limits need it."""

    total: int = 0
    further: int = 0
    of_client: Counter[str] = field(default_factory=Counter)
    of_host: Counter[str] = field(default_factory=Counter)

    def count(self, position: QueuePosition, change: int) -> None:
        request = position.request
        self.total += change
        self.further += 0 if position.first else change
        _change_count(self.of_client, request.client, change)
        if request.host is not None:
            _change_count(self.of_host, request.host, change)


class FairQueue:
    """A queue of requests that wait for turns, and the turns that are held. Each step looks at every waiting request.

    Args:
        limits: number of slots, and the rules for sharing them.
        ageing_s: seconds of waiting that raise a request by one priority.
    """

    def __init__(self, limits: SlotLimits, ageing_s: float) -> None:
        self._limits = limits
        self._ageing_s = ageing_s
        self._waiting: dict[QueuePosition, None] = {}
        self._flows: dict[tuple[int, str], _Flow] = {}
        self._virtual_times: dict[int, float] = {}
        self._taken = _SlotCounts()
        self._number = 0

    def join(self, request: TurnRequest, now: float) -> QueuePosition:
        """Add a request to the queue.

        Args:
            request: the request.
            now: seconds on any clock that does not run backwards.
        """
        self._number += 1
        position = QueuePosition(request, now, self._number)
        flow = self._flows.setdefault(position.flow, _Flow())
        if not flow.active:
            flow.virtual_time = max(flow.virtual_time, self._virtual_times.get(request.priority_rank, 0.0))
        flow.waiting += 1
        self._waiting[position] = None
        return position

    def leave(self, position: QueuePosition) -> None:
        """Remove a request that got no turn."""
        del self._waiting[position]
        self._flows[position.flow].waiting -= 1
        self._drop_idle_flows(position.request.priority_rank)

    def next(self, now: float) -> QueuePosition | None:
        """Start and return the next turn, or return ``None`` while no waiting request may have one."""
        ready = [position for position in self._waiting if self._admits(position, now)]
        if not ready:
            return None
        position = min(ready, key=lambda each: self._order(each, now))
        del self._waiting[position]
        self._advance_virtual_time(position.request.priority_rank)
        position.first = self._is_first(position.request)
        flow = self._flows[position.flow]
        flow.waiting, flow.taken = flow.waiting - 1, flow.taken + 1
        flow.virtual_time += position.request.cost
        self._taken.count(position, 1)
        return position

    def finish(self, position: QueuePosition) -> None:
        """End a turn."""
        self._flows[position.flow].taken -= 1
        self._taken.count(position, -1)
        self._drop_idle_flows(position.request.priority_rank)

    def should_yield(self, position: QueuePosition, size: float, now: float) -> bool:
        """Return whether a turn would go to another request if it ended now and its holder joined the queue again.

        Args:
            position: the turn.
            size: size of its holder's work, as known now.
            now: current time, in seconds.
        """
        flow = self._flows[position.flow]
        flow.taken -= 1
        self._taken.count(position, -1)
        try:
            again = QueuePosition(replace(position.request, size=size), now, self._number + 1)
            own = self._order(again, now)
            return any(self._order(each, now) < own and self._admits(each, now) for each in self._waiting)
        finally:
            flow.taken += 1
            self._taken.count(position, 1)

    def charge(self, position: QueuePosition, cost: float) -> None:
        """Charge a client the cost of its turn; call this before the turn ends, or soon after."""
        if flow := self._flows.get(position.flow):
            flow.virtual_time += cost

    @property
    def waiting(self) -> int:
        """Number of waiting requests."""
        return len(self._waiting)

    @property
    def taken(self) -> int:
        """Number of turns that are held."""
        return self._taken.total

    def _admits(self, position: QueuePosition, now: float) -> bool:
        request, limits = position.request, self._limits
        if request.host is not None and self._taken.of_host[request.host] >= (limits.max_per_host or limits.slots):
            return False
        return limits.admit(
            position.rank_at(now, self._ageing_s),
            taken=self._taken.total,
            further=self._taken.further,
            first=self._is_first(request),
        )

    def _is_first(self, request: TurnRequest) -> bool:
        """Return whether the client holds no turn of this priority or a more urgent one."""
        ranks = range(request.priority_rank + 1)
        flows = (self._flows.get((rank, request.client)) for rank in ranks)
        return not any(flow and flow.taken for flow in flows)

    def _order(self, position: QueuePosition, now: float) -> tuple[int, int, float, float, int]:
        request = position.request
        return (
            position.rank_at(now, self._ageing_s),
            self._taken.of_client[request.client],
            self._flows[position.flow].virtual_time,
            request.size,
            position.number,
        )

    def _advance_virtual_time(self, rank: int) -> None:
        """Advance a priority's virtual time to the smallest one of its active clients."""
        current = min(flow.virtual_time for key, flow in self._flows.items() if key[0] == rank and flow.active)
        self._virtual_times[rank] = max(current, self._virtual_times.get(rank, 0.0))

    def _drop_idle_flows(self, rank: int) -> None:
        """Drop clients without work.

        These are all clients once their priority has no work left; before that, those with the smallest virtual times.
        """
        flows = {key: flow for key, flow in self._flows.items() if key[0] == rank}
        idle = sorted((flow.virtual_time, key) for key, flow in flows.items() if not flow.active)
        if len(idle) == len(flows):
            self._virtual_times.pop(rank, None)
        else:
            idle = idle[: max(0, len(idle) - MAX_IDLE)]
        for _, key in idle:
            del self._flows[key]


def _change_count(counts: Counter[str], key: str, change: int) -> None:
    """Change a count, and drop a key whose count is zero."""
    counts[key] += change
    if not counts[key]:
        del counts[key]


def share_key(task_id: int, client: str | None) -> str:
    """Return the share key of a task: its client's name, or its own id if it has no client."""
    return f"task {task_id}" if client is None else f"client {client}"
