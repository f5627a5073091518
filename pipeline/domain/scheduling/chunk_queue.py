"""Which chunks go to a replica next: priority, a fair share between clients, one between a client's tasks, file order.

Shares are counted in what chunks cost (``domain.decoding_cost``), by start-time fair queueing on both levels
(``domain.fair_share``): a client with a thousand tasks gets no more than one with a single task, and a task that has no
client is a client of its own. Each priority has flows of its own, since a share of what is urgent says nothing about
what is not.

A replica orders what it holds by rank and tag. Tags are a virtual time of their own: a client that has nothing in
flight starts it at the smallest tag in flight, so what it sends goes first there until it has had as much as others,
and the first chunks of a task take the smallest that its client has there. So a 10-second clip overtakes even the
chunks of a 10-hour file that wait at the replica, whoever's the file is. That takes nothing from others for long, since
what is in flight is bounded, by cost, and what is released is governed by virtual time. Where others hold all room, a
client that has less than its share of it gets that out beside it, and need not wait until theirs is done.

Ageing keeps an endless stream of arrivals from starving anyone. It is counted for a client, not for each of its tasks,
and lifts at most every second unit: thousands of old tasks of one client take no more than one unit in each period.

Nothing here waits, locks or knows what time it is, and no step looks at all tasks: thousands of them wait where there
are hundreds of replicas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice
from math import ceil, inf, nextafter

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.scheduling.fair_share import Backlog, FairSharing, Flow, InFlightChunk

CHUNK_COST_S = 35.0
"""What the longest chunk costs with default options. One that costs more counts for several in flight."""

MAX_EARLY_S = 8 * CHUNK_COST_S
"""Cost of what a client may have in flight with the smallest tag of its own: what others may have to wait for."""


@dataclass(frozen=True, slots=True)
class ReleasedChunks:
    """Chunks of one task that may be sent to a replica together.

    Attributes:
        priority_rank: what they count as at the replica: the rank of the task, or a higher one that age lifted it to.
        start_tag: within a rank, the smallest goes first.
    """

    task_id: int
    priority_rank: int
    chunks: tuple[Chunk, ...]
    start_tag: float = 0.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the replicas can hold.

    Attributes:
        replicas: how many there are; at least 1, so that the first unit wakes a fleet scaled to zero.
        max_batch_size: chunks one of them decodes together.
        batches_in_flight: batches each may have, the running one included; enough to fill the next one, too, while some
            chunks wait to be decoded again. The last of them only while more waits than fills a batch for each: at the
            end, chunks go to whoever is done first.
    """

    replicas: int
    max_batch_size: int
    batches_in_flight: int = 3

    @property
    def chunks(self) -> int:
        """Chunks that may be in flight."""
        return self.batches_in_flight * self._batch_for_each

    def room(self, waiting: int) -> int:
        """Chunks that may be in flight while so many wait."""
        if waiting > self._batch_for_each:
            return self.chunks
        return max(1, self.batches_in_flight - 1) * self._batch_for_each

    @property
    def reserve(self) -> int:
        """Chunks that may be in flight beyond that, of clients that have less than their share there."""
        return self._batch_for_each

    @property
    def _batch_for_each(self) -> int:
        return max(1, self.replicas) * self.max_batch_size


def _duration_s(chunk: Chunk) -> float:
    return chunk.duration_s


def _load(cost: float) -> int:
    """How many default chunks one of that cost counts for."""
    return max(1, ceil(cost / CHUNK_COST_S))


@dataclass(frozen=True, slots=True)
class _FlowChoice:
    """Whose turn it is.

    Attributes:
        rank: under which the chunks go out.
        room: for so many of them.
        beside: whether that is the reserve.
        aged: whether it is for its age that the client is served.
    """

    flow: Flow
    rank: int
    room: int
    beside: bool = False
    aged: bool = False


class _Rank(FairSharing[Flow]):
    """The clients of one priority."""

    def __init__(self) -> None:
        super().__init__(lambda flow: flow.share, lambda flow: flow.tasks.next is not None, lambda flow: flow.first_tag)
        self.clients_in_flight = 0
        self.last_tag = 0.0

    @property
    def tag_present(self) -> float:
        """The smallest tag in flight, else the last one."""
        return self.last_tag if self.first_tag is None else self.first_tag


class ChunkQueue:
    """The chunks of all running tasks.

    Args:
        ageing_s: a client that was passed over this long is lifted by one priority, for one unit.
    """

    def __init__(self, ageing_s: float) -> None:
        self._ageing_s = ageing_s
        self._backlogs: dict[int, Backlog] = {}
        self._flows: dict[tuple[int, str], Flow] = {}
        self._numbers = count()
        self._ranks: dict[int, _Rank] = {}
        self._in_flight: Counter[int] = Counter()
        self._aged_last = False
        self._waiting_chunks = 0

    def open(
        self,
        task_id: int,
        priority_rank: int,
        now: float,
        max_in_flight: int | None = None,
        *,
        client: str | None = None,
        cost: Callable[[Chunk], float] = _duration_s,
    ) -> None:
        """Admits a task.

        Args:
            task_id: its id, new to the queue.
            priority_rank: 0 is served first.
            now: seconds on any clock that does not run backwards.
            max_in_flight: at most this many of its chunks are out at once; ``None``: no limit of its own.
            client: whose share it takes from; ``None``: it has one of its own.
            cost: of a chunk of it.
        """
        flow = self._flow(priority_rank, client)
        self._backlogs[task_id] = Backlog(task_id, flow, cost, max_in_flight)
        self._backlogs[task_id].share.waiting_since = now

    def limit(self, task_id: int, max_in_flight: int | None) -> None:
        """Changes a task's limit, once its language is known for instance."""
        backlog = self._backlogs[task_id]
        backlog.max_in_flight = max_in_flight
        self._join(backlog)

    def pause(self, task_id: int, paused: bool) -> None:
        """Holds a task's waiting chunks back, or lets them go again. A task that was closed meanwhile is fine."""
        if backlog := self._backlogs.get(task_id):
            backlog.paused = paused
            self._join(backlog)

    def add(self, task_id: int, chunks: Iterable[Chunk], now: float) -> None:
        """Appends chunks of an admitted task, in the order of the file."""
        backlog = self._backlogs[task_id]
        flow = backlog.flow
        if not backlog.waiting and not backlog.sent:
            backlog.share.waiting_since = now
        if not flow.share.ready and not flow.in_flight:
            flow.share.waiting_since = now
        added = tuple(chunks)
        backlog.waiting.extend(added)
        self._waiting_chunks += len(added)
        self._join(backlog)

    def finish(self, task_id: int, count: int = 1) -> None:
        """Notes that chunks came back with a result. A task that was closed meanwhile is fine."""
        if backlog := self._backlogs.get(task_id):
            self._note_returned(backlog, count)
            self._join(backlog)

    def charge(self, task_id: int, cost: float) -> None:
        """Counts what chunks of a task turned out to cost beyond ``cost``. One that was closed meanwhile is fine."""
        if backlog := self._backlogs.get(task_id):
            self._charge(backlog, cost)
            self._join(backlog)

    def put_back(self, task_id: int, chunks: Iterable[Chunk]) -> None:
        """Returns chunks whose replica was lost to the front. A task that was closed meanwhile is fine."""
        if backlog := self._backlogs.get(task_id):
            returned = sorted(chunks, key=lambda chunk: chunk.index)
            self._note_returned(backlog, len(returned))
            backlog.waiting.extendleft(reversed(returned))
            self._waiting_chunks += len(returned)
            self._join(backlog)

    def close(self, task_id: int) -> None:
        """Forgets a task with all that waits of it. An unknown one is fine."""
        if backlog := self._backlogs.pop(task_id, None):
            self._note_returned(backlog, len(backlog.sent))
            self._waiting_chunks -= len(backlog.waiting)
            backlog.waiting.clear()
            self._join(backlog)

    def release(self, capacity: Capacity, now: float) -> ReleasedChunks | None:
        """Takes the next unit out, or ``None`` while the replicas have no room for anything that waits.

        A chunk counts against the room of its own and of lower priorities only: an urgent one goes out at once and
        overtakes at the replica, however much of lesser priority is out already.
        """
        turn = self._next_flow(capacity)
        if turn is None:
            return None
        choice = (None if turn.beside or self._aged_last else self._aged_flow(turn, now)) or turn
        self._aged_last = choice.aged
        backlog, is_turn = choice.flow.choose(now, self._ageing_s)
        if is_turn:
            choice.flow.tasks.note_turn(backlog.share.virtual_time)
        if not choice.aged:
            self._ranks[choice.rank].note_turn(choice.flow.share.virtual_time)
        return self._take(backlog, choice, self._unit(backlog, choice, capacity), now)

    @property
    def waiting_chunks(self) -> int:
        """Chunks that wait, of all tasks."""
        return self._waiting_chunks

    def _flow(self, rank: int, client: str | None) -> Flow:
        """The flow of a client, which outlives its tasks, or a new one."""
        self._ranks.setdefault(rank, _Rank())
        if client is None:
            return Flow(next(self._numbers), rank, is_named=False)
        if (rank, client) not in self._flows:
            self._flows[rank, client] = Flow(next(self._numbers), rank, is_named=True)
        return self._flows[rank, client]

    def _join(self, backlog: Backlog) -> None:
        backlog.flow.join(backlog)
        self._ranks[backlog.flow.rank].join(backlog.flow)

    def _charge(self, backlog: Backlog, cost: float) -> None:
        backlog.flow.tag_time += cost
        backlog.flow.tasks.charge(backlog, cost)
        self._ranks[backlog.flow.rank].charge(backlog.flow, cost)

    def _note_returned(self, backlog: Backlog, count: int) -> None:
        """Chunks came back, the earliest sent for all we know."""
        for _ in range(count):
            sent = backlog.sent.popleft()
            backlog.flow.early_s -= sent.early_s
            self._note_in_flight(backlog.flow, sent.rank, -sent.load)

    def _note_in_flight(self, flow: Flow, rank: int, load: int) -> None:
        before, flow.in_flight = flow.in_flight, flow.in_flight + load
        flow.early_s = flow.early_s if flow.in_flight else 0.0
        self._in_flight[rank] += load
        self._ranks[flow.rank].clients_in_flight += (flow.in_flight > 0) - (before > 0)

    def _next_flow(self, capacity: Capacity) -> _FlowChoice | None:
        """The client whose turn it is in the highest rank that has something to release and room for it."""
        most = capacity.room(self._waiting_chunks)
        ranks = sorted(self._ranks)
        out = accumulate(self._in_flight[rank] for rank in ranks)
        for number, in_flight in zip(ranks, out, strict=True):
            beside = in_flight >= most
            room = most - in_flight + (capacity.reserve if beside else 0)
            flow = self._underserved_flow(number, in_flight, most) if beside else self._ranks[number].next
            if flow and room > 0:
                return _FlowChoice(flow, number, room, beside)
        return None

    def _underserved_flow(self, number: int, in_flight: int, most: int) -> Flow | None:
        """The client whose turn it is, if it has less than its share in flight because others of its rank have more."""
        flow, urgent = self._ranks[number].next, in_flight - self._in_flight[number]
        if flow is None or urgent >= most:
            return None
        clients = self._ranks[number].clients_in_flight + (flow.in_flight == 0)
        return flow if flow.in_flight < most // clients else None

    def _aged_flow(self, turn: _FlowChoice, now: float) -> _FlowChoice | None:
        """A client that goes first because it has been passed over for long: the one that is lifted highest."""
        oldest = (rank.oldest for number, rank in self._ranks.items() if number >= turn.rank)
        aged = [flow for flow in oldest if flow and flow.share.has_aged(now, self._ageing_s)]
        first = min(
            aged, key=lambda flow: (self._aged_rank(flow, now), flow.share.waiting_since, flow.number), default=None
        )
        if first is None or first is turn.flow or self._aged_rank(first, now) > turn.rank:
            return None
        return _FlowChoice(first, turn.rank, turn.room, aged=True)

    def _aged_rank(self, flow: Flow, now: float) -> int:
        return max(0, flow.rank - int((now - flow.share.waiting_since) / self._ageing_s))

    @staticmethod
    def _unit(backlog: Backlog, choice: _FlowChoice, capacity: Capacity) -> list[Chunk]:
        """A batch; less where the rest of the file would otherwise leave replicas idle, or where chunks are dear."""
        size = min(capacity.max_batch_size, ceil(len(backlog.waiting) / max(1, capacity.replicas)))
        unit = list(islice(backlog.waiting, min(size, backlog.room)))
        most = min(choice.room, capacity.max_batch_size)
        loads = accumulate(_load(backlog.cost(chunk)) for chunk in unit)
        return unit[: max(1, sum(load <= most for load in loads))]

    def _take(self, backlog: Backlog, choice: _FlowChoice, chunks: Sequence[Chunk], now: float) -> ReleasedChunks:
        flow, costs = choice.flow, [backlog.cost(chunk) for chunk in chunks]
        start_tag = self._start_tag(backlog, choice, sum(costs))
        is_early = not choice.aged and start_tag < flow.tag_time
        room = choice.room
        for cost in costs:
            early_s, load = cost if is_early else 0.0, min(room, _load(cost))
            room -= load
            sent = InFlightChunk(flow.tag_time, backlog.share.virtual_time, choice.rank, load, early_s)
            backlog.waiting.popleft()
            backlog.sent.append(sent)
            flow.early_s += early_s
            self._note_in_flight(flow, choice.rank, sent.load)
        backlog.fresh = False
        backlog.share.waiting_since = flow.share.waiting_since = now
        self._waiting_chunks -= len(chunks)
        self._charge(backlog, sum(costs))
        self._join(backlog)
        return ReleasedChunks(backlog.number, choice.rank, tuple(chunks), start_tag)

    def _start_tag(self, backlog: Backlog, choice: _FlowChoice, cost: float) -> float:
        """The time of the client's tags; the smallest in flight for what has aged, and for the first of a task.

        A client that has nothing in flight goes on from the smallest of all; where it is a named one, from just before,
        for whatever another one has at the replica may take long.
        """
        flow, rank = choice.flow, self._ranks[choice.flow.rank]
        if not flow.in_flight:
            start = rank.tag_present
            flow.tag_time = max(flow.tag_time, nextafter(start, -inf) if flow.is_named else start)
        if choice.aged:
            return self._ranks[choice.rank].tag_present
        rank.last_tag = max(rank.last_tag, flow.tag_time)
        is_early = backlog.fresh and flow.early_s + cost <= MAX_EARLY_S
        return flow.tag_time if flow.first_tag is None or not is_early else flow.first_tag
