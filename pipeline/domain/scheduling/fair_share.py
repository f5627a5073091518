"""Fair shares of the replicas: start-time fair queueing between clients, and between the tasks of each.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996), in the form for servers that have many requests at hand
(SFQ(D): Jin, Chase and Kaur, SIGMETRICS 2004): a flow has a virtual time that advances by the cost of what is released
of it, and the flow whose time is smallest is next. The present is the time of the last release; a flow that had nothing
to release starts there, so that nobody saves up a share, and nobody pays for having used what others left. Of two flows
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
"""Outdated entries that any heap may hold."""


class Numbered(Protocol):
    """Something with a number that nothing else in its line has."""

    @property
    def number(self) -> int:
        """Orders it among equals."""
        ...


Entry = TypeVar("Entry", bound=Numbered)


class SortedLine(Generic[Entry]):
    """Entries by a value of theirs, the smallest first.

    Args:
        value: of an entry, now; ``None`` for one that has no place in this line.
    """

    def __init__(self, value: Callable[[Entry], float | None]) -> None:
        self._value = value
        self._heap: list[tuple[float, int]] = []
        self._listed: dict[int, tuple[float, Entry]] = {}

    def join(self, entry: Entry) -> None:
        """Put an entry where its value places it now; to be called whenever that may have changed."""
        value = self._value(entry)
        if value is None:
            self._listed.pop(entry.number, None)
        elif self._place(entry.number) != value:
            self._listed[entry.number] = value, entry
            heappush(self._heap, (value, entry.number))
        if len(self._heap) > MAX_STALE_ENTRIES + 2 * len(self._listed):
            self._heap = [(value, number) for number, (value, _) in self._listed.items()]
            heapify(self._heap)

    def first(self) -> Entry | None:
        """Return the entry that is first."""
        while self._heap:
            value, number = self._heap[0]
            if self._place(number) == value:
                return self._listed[number][1]
            heappop(self._heap)
        return None

    def _place(self, number: int) -> float | None:
        listed = self._listed.get(number)
        return listed[0] if listed else None


class InFlightChunk(NamedTuple):
    """A chunk in flight.

    Attributes:
        start_tag: the time of its client's tags at its release.
        task_tag: the virtual time of its task then.
        rank: that it went under.
        load: default chunks that it counts for.
        early_s: its cost, where it went with a smaller tag than that.
    """

    start_tag: float
    task_tag: float
    rank: int
    load: int
    early_s: float


@dataclass(slots=True)
class FlowShare:
    """A flow's place among its like.

    Attributes:
        virtual_time: cost of what was released of the flow, counted from the present it started at.
        waiting_since: when it was last served, or began to wait.
        ready: whether it had something to release when that was last asked.
    """

    virtual_time: float = 0.0
    waiting_since: float = 0.0
    ready: bool = False

    def note_ready(self, ready: bool, present: float) -> None:
        """Start at the present where there was nothing to release before."""
        if ready and not self.ready:
            self.virtual_time = max(self.virtual_time, present)
        self.ready = ready

    def has_aged(self, now: float, ageing_s: float) -> bool:
        """Return whether it was passed over for so long."""
        return now - self.waiting_since >= ageing_s


@dataclass(slots=True, eq=False)
class Backlog:
    """One task's chunks that wait, and those in flight, the earliest first.

    Attributes:
        number: the task's id.
        cost: of a chunk: seconds of audio, each as dear as the task's options make it.
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
        """Chunks that may be released before some come back."""
        waiting = 0 if self.paused else len(self.waiting)
        return waiting if self.max_in_flight is None else min(waiting, self.max_in_flight - len(self.sent))


Flows = TypeVar("Flows", bound=Numbered)


class FairSharing(Generic[Flows]):
    """Flows that share one thing: who is next, who has waited longest, and the present.

    Args:
        share: of a flow.
        is_ready: whether a flow has something to release.
        first_tag: smallest tag that a flow has in flight; ``None`` where nothing is.
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
        """Put a flow where it belongs now; to be called whenever something about it has changed."""
        self._share(flow).note_ready(self._is_ready(flow), self.present)
        for line in (self._fair, self._oldest, self._in_flight):
            line.join(flow)

    @property
    def next(self) -> Flows | None:
        """The flow whose turn it is."""
        return self._fair.first()

    @property
    def oldest(self) -> Flows | None:
        """The flow that was passed over for the longest time."""
        return self._oldest.first()

    @property
    def present(self) -> float:
        """Return where a flow starts: at the last tag released; with nothing to do, forget all that was released."""
        if self._fair.first() is None and self._in_flight.first() is None:
            self._virtual_time = self._finish
        return self._virtual_time

    @property
    def first_tag(self) -> float | None:
        """The smallest tag in flight."""
        flow = self._in_flight.first()
        return self._first_tag(flow) if flow else None

    def charge(self, flow: Flows, cost: float) -> None:
        """Advance a flow's virtual time."""
        share = self._share(flow)
        share.virtual_time += cost
        self._finish = max(self._finish, share.virtual_time)

    def note_turn(self, start_tag: float) -> None:
        """Move the present to the tag of a release that was its flow's turn."""
        self._virtual_time = max(self._virtual_time, start_tag)


class Flow:
    """The tasks of one client and priority.

    Args:
        number: new among the flows.
        rank: of the priority.
        is_named: whether it is that of a client; else it is one task's.

    Attributes:
        in_flight: default chunks that what it has in flight counts for.
        early_s: cost of what it has in flight with smaller tags than its own.
        tag_time: cost of what was released, as ``FlowShare.virtual_time``, but from the smallest tag in flight on: a
            replica orders by it. So a client that arrives goes before what others have there, until it has had as much.
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
        """Put a task where it belongs now."""
        self.tasks.join(task)
        self._by_tag.join(task)

    @property
    def first_tag(self) -> float | None:
        """The smallest tag that the client has in flight."""
        task = self._by_tag.first()
        return task.sent[0].start_tag if task else None

    def choose(self, now: float, ageing_s: float) -> tuple[Backlog, bool]:
        """Return the task that is next, and whether it was its turn: every other release may be for one that has aged.

        Raises ``LookupError`` where no task has anything to release.
        """
        fair, oldest = self.tasks.next, self.tasks.oldest
        if fair is None or oldest is None:
            raise LookupError("The client has nothing to release.")
        self._aged_last = oldest is not fair and not self._aged_last and oldest.share.has_aged(now, ageing_s)
        return (oldest, False) if self._aged_last else (fair, True)
