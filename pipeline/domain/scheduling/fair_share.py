"""Fair shares of the replicas: start-time fair queueing between clients, and between the tasks of each.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) is used in the form for servers that hold many requests
(SFQ(D): Jin, Chase and Kaur, SIGMETRICS 2004). A flow has a virtual time that advances by the cost of its releases, and
the flow with the smallest time is next. The current virtual time is that of the last release. A flow that had nothing
to release starts there, so that no flow saves up a share, and none pays for having used what others left. Of two flows
that always have something to release, neither gets more than one unit of each beyond its half.

No step looks at all flows: each order is a heap whose outdated entries are dropped when they come up, or all together
once they are the greater part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, NamedTuple, Protocol, TypeVar

from pipeline.domain.audio.spans import Chunk

MAX_STALE_ENTRIES = 64
"""Outdated entries that any heap may hold, beside twice the number of current ones."""


class Numbered(Protocol):
    """An object with a number that is unique in its line."""

    @property
    def number(self) -> int:
        """The number, which orders it among equals."""
        ...


Entry = TypeVar("Entry", bound=Numbered)


class SortedLine(Generic[Entry]):
    """Entries in the order of a value, the smallest first.

    Args:
        value: returns the current value of an entry, or ``None`` if it does not belong in this line.
    """

    def __init__(self, value: Callable[[Entry], float | None]) -> None:
        self._value = value
        self._heap: list[tuple[float, int]] = []
        self._listed: dict[int, tuple[float, Entry]] = {}

    def join(self, entry: Entry) -> None:
        """Put an entry where its value places it; call this whenever the value may have changed."""
        value = self._value(entry)
        if value is None:
            self._listed.pop(entry.number, None)
        elif self._value_of(entry.number) != value:
            self._listed[entry.number] = value, entry
            heappush(self._heap, (value, entry.number))
        if len(self._heap) > MAX_STALE_ENTRIES + 2 * len(self._listed):
            self._heap = [(value, number) for number, (value, _) in self._listed.items()]
            heapify(self._heap)

    def first(self) -> Entry | None:
        """Return the first entry, or ``None``."""
        while self._heap:
            value, number = self._heap[0]
            if self._value_of(number) == value:
                return self._listed[number][1]
            heappop(self._heap)
        return None

    def _value_of(self, number: int) -> float | None:
        listed = self._listed.get(number)
        return listed[0] if listed else None


class InFlightChunk(NamedTuple):
    """A chunk in flight.

    Attributes:
        start_tag: tag time of its client at its release.
        task_tag: virtual time of its task at its release.
        rank: rank at its release.
        load: number of default chunks that it counts for.
        early_s: its cost if its start tag at the replica was smaller than ``start_tag``, else 0.
    """

    start_tag: float
    task_tag: float
    rank: int
    load: int
    early_s: float


@dataclass(slots=True)
class FlowShare:
    """A flow's position among the flows that share a resource.

    Attributes:
        virtual_time: cost of its releases, counted from the virtual time at which it started.
        waiting_since: time at which it was last served, or began to wait.
        ready: whether it had something to release at the last update.
    """

    virtual_time: float = 0.0
    waiting_since: float = 0.0
    ready: bool = False

    def set_ready(self, ready: bool, virtual_time: float) -> None:
        """Set whether the flow is ready; start at the current virtual time if it was not ready before."""
        if ready and not self.ready:
            self.virtual_time = max(self.virtual_time, virtual_time)
        self.ready = ready

    def has_aged(self, now: float, ageing_s: float) -> bool:
        """Return whether the flow was passed over for ``ageing_s`` or longer."""
        return now - self.waiting_since >= ageing_s


@dataclass(slots=True, eq=False)
class Backlog:
    """The waiting chunks of one task, and those in flight, the earliest first.

    Attributes:
        number: id of the task.
        cost: returns the cost of a chunk: its seconds of audio, weighted by the task's options.
        fresh: whether nothing of the task was released yet.
    """

    number: int
    flow: Flow
    cost: Callable[[Chunk], float]
    max_in_flight: int | None
    share: FlowShare = field(default_factory=FlowShare)
    waiting: deque[Chunk] = field(default_factory=deque)
    sent: deque[InFlightChunk] = field(default_factory=deque)
    paused: bool = False
    fresh: bool = True

    @property
    def room(self) -> int:
        """Number of chunks that may be released before any come back."""
        waiting = 0 if self.paused else len(self.waiting)
        return waiting if self.max_in_flight is None else min(waiting, self.max_in_flight - len(self.sent))


Flows = TypeVar("Flows", bound=Numbered)


class FairSharing(Generic[Flows]):
    """Flows that share one resource: the next one, the one that has waited longest, and the current virtual time.

    Args:
        share: returns the share of a flow.
        is_ready: returns whether a flow has something to release.
        first_tag: returns the smallest start tag that a flow has in flight, or ``None``.
    """

    def __init__(
        self,
        share: Callable[[Flows], FlowShare],
        is_ready: Callable[[Flows], bool],
        first_tag: Callable[[Flows], float | None],
    ) -> None:
        self._share = share
        self._is_ready = is_ready
        self._first_tag = first_tag
        self._fair = SortedLine[Flows](lambda one: share(one).virtual_time if is_ready(one) else None)
        self._oldest = SortedLine[Flows](lambda one: share(one).waiting_since if is_ready(one) else None)
        self._in_flight = SortedLine[Flows](first_tag)
        self._virtual_time = 0.0
        self._finish = 0.0

    def join(self, flow: Flows) -> None:
        """Put a flow where it belongs; call this whenever anything about it has changed."""
        self._share(flow).set_ready(self._is_ready(flow), self.virtual_time)
        for line in (self._fair, self._oldest, self._in_flight):
            line.join(flow)

    @property
    def next(self) -> Flows | None:
        """The flow that is served next."""
        return self._fair.first()

    @property
    def oldest(self) -> Flows | None:
        """The flow that was passed over for the longest time."""
        return self._oldest.first()

    @property
    def virtual_time(self) -> float:
        """The current virtual time, at which a flow starts.

        It is the largest start tag released at a flow's turn; once nothing waits or runs, it is all the virtual time
        received.
        """
        if self._fair.first() is None and self._in_flight.first() is None:
            self._virtual_time = self._finish
        return self._virtual_time

    @property
    def first_tag(self) -> float | None:
        """The smallest start tag in flight."""
        flow = self._in_flight.first()
        return self._first_tag(flow) if flow else None

    def charge(self, flow: Flows, cost: float) -> None:
        """Advance a flow's virtual time by a cost."""
        share = self._share(flow)
        share.virtual_time += cost
        self._finish = max(self._finish, share.virtual_time)

    def advance(self, start_tag: float) -> None:
        """Advance the current virtual time to the start tag of a release, if the release was its flow's turn."""
        self._virtual_time = max(self._virtual_time, start_tag)


class Flow:
    """The tasks of one client and priority.

    Args:
        number: number that no other flow has.
        rank: rank of the priority.
        is_named: whether it belongs to a client; else it belongs to a single task.

    Attributes:
        in_flight: number of default chunks that its chunks in flight count for.
        early_s: cost of its chunks in flight with start tags smaller than its tag time.
        tag_time: cost of its releases, like ``FlowShare.virtual_time``, but counted from the smallest start tag in
            flight. Replicas order by it, so a client that arrives goes before the chunks of others there until it has
            received as much.
    """

    def __init__(self, number: int, rank: int, *, is_named: bool) -> None:
        self.number = number
        self.rank = rank
        self.is_named = is_named
        self.tag_time = 0.0
        self.share = FlowShare()
        self.in_flight = 0
        self.early_s = 0.0
        self.tasks = FairSharing[Backlog](
            lambda task: task.share,
            lambda task: task.room > 0,
            lambda task: task.sent[0].task_tag if task.sent else None,
        )
        self._by_tag = SortedLine[Backlog](lambda task: task.sent[0].start_tag if task.sent else None)
        self._aged_last = False

    def join(self, task: Backlog) -> None:
        """Put a task where it belongs."""
        self.tasks.join(task)
        self._by_tag.join(task)

    @property
    def first_tag(self) -> float | None:
        """The smallest start tag that the client has in flight."""
        task = self._by_tag.first()
        return task.sent[0].start_tag if task else None

    def choose(self, now: float, ageing_s: float) -> tuple[Backlog, bool]:
        """Return the next task, and whether it was its turn.

        Every other release may be for a task that has aged. Raises ``LookupError`` if no task has anything to release.
        """
        fair, oldest = self.tasks.next, self.tasks.oldest
        if fair is None or oldest is None:
            raise LookupError("The client has nothing to release.")
        self._aged_last = oldest is not fair and not self._aged_last and oldest.share.has_aged(now, ageing_s)
        return (oldest, False) if self._aged_last else (fair, True)


class RankSharing(FairSharing[Flow]):
    """The clients of one priority."""

    def __init__(self) -> None:
        super().__init__(lambda flow: flow.share, lambda flow: flow.tasks.next is not None, lambda flow: flow.first_tag)
        self.clients_in_flight = 0
        self.last_tag = 0.0

    @property
    def current_tag(self) -> float:
        """The smallest start tag in flight, else the last one."""
        return self.last_tag if self.first_tag is None else self.first_tag
