"""The queue of chunks: priority, fair shares between clients and between a client's tasks, then order in the recording.

Shares are counted in the cost of chunks (``domain.decoding.decoding_cost``), by start-time fair queueing on both levels
(``domain.scheduling.fair_share``): a client with a thousand tasks gets no more than one with a single task, and a task
without a client is a client of its own. Each priority has its own flows, since a share of urgent work says nothing
about less urgent work.

A replica orders its chunks by rank and start tag. Start tags are a virtual time of their own. A client without chunks
in flight begins at the smallest start tag in flight, so its chunks go first at the replica until it has received as
much as the others. The first chunks of a task take the smallest start tag that its client has in flight. So a 10-second
clip overtakes even those chunks of a 10-hour recording that already wait at the replica, whichever client has that
recording. This delays others only briefly, since the work in flight is bounded by cost, and releases follow virtual
time. When other clients hold all of the capacity, a client that has less than its share of it gets that share from a
reserve, and need not wait until their chunks are done.

Ageing keeps an endless stream of arrivals from starving anyone. It counts for a client, not for each of its tasks, and
applies to every second unit at most: thousands of old tasks of one client get no more than one unit in each period.

Nothing here waits, locks or reads a clock. No step looks at all tasks: there may be thousands of them for hundreds of
replicas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, islice
from math import ceil, inf, nextafter

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.scheduling.capacity import CHUNK_COST_S, Capacity, ReleasedChunks, load_of
from pipeline.domain.scheduling.fair_share import Backlog, Flow, InFlightChunk, RankSharing

MAX_EARLY_S = 8 * CHUNK_COST_S
"""Most cost that a client may have in flight with start tags smaller than its tag time, which delays other clients."""


def _duration_s(chunk: Chunk) -> float:
    return chunk.duration_s


@dataclass(frozen=True, slots=True)
class _FlowChoice:
    """The client that is served next.

    Attributes:
        flow: the client's flow.
        rank: rank of the chunks in flight.
        room: most default chunks to release.
        beside: whether they come from the reserve.
        aged: whether ageing chose the client.
    """

    flow: Flow
    rank: int
    room: int
    beside: bool = False
    aged: bool = False


class ChunkQueue:
    """The queue of the chunks of all running tasks.

    Args:
        ageing_s: seconds after which a client that was passed over is raised by one priority, for one unit.
    """

    def __init__(self, ageing_s: float) -> None:
        self._ageing_s = ageing_s
        self._backlogs: dict[int, Backlog] = {}
        self._flows: dict[tuple[int, str], Flow] = {}
        self._numbers = count()
        self._ranks: dict[int, RankSharing] = {}
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
        """Add a task to the queue.

        Args:
            task_id: id of the task, new to the queue.
            priority_rank: rank; 0 is served first.
            now: seconds on any clock that does not run backwards.
            max_in_flight: most chunks of it in flight; ``None``: no limit of its own.
            client: client whose share it uses; ``None``: it has a share of its own.
            cost: returns the cost of one of its chunks.
        """
        flow = self._flow(priority_rank, client)
        self._backlogs[task_id] = Backlog(task_id, flow, cost, max_in_flight)
        self._backlogs[task_id].share.waiting_since = now

    def limit(self, task_id: int, max_in_flight: int | None) -> None:
        """Change a task's limit, for example once its language is known."""
        backlog = self._backlogs[task_id]
        backlog.max_in_flight = max_in_flight
        self._join(backlog)

    def pause(self, task_id: int, paused: bool) -> None:
        """Hold back a task's waiting chunks, or stop holding them back. A task that was closed is ignored."""
        if backlog := self._backlogs.get(task_id):
            backlog.paused = paused
            self._join(backlog)

    def add(self, task_id: int, chunks: Iterable[Chunk], now: float) -> None:
        """Append chunks to an open task, in the order of the recording."""
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
        """Record that chunks have a result. A task that was closed is ignored."""
        if backlog := self._backlogs.get(task_id):
            self._note_returned(backlog, count)
            self._join(backlog)

    def charge(self, task_id: int, cost: float) -> None:
        """Charge a task the cost of its chunks beyond ``cost``. A task that was closed is ignored."""
        if backlog := self._backlogs.get(task_id):
            self._charge(backlog, cost)
            self._join(backlog)

    def put_back(self, task_id: int, chunks: Iterable[Chunk]) -> None:
        """Return the chunks of a lost replica to the front of their task. A task that was closed is ignored."""
        if backlog := self._backlogs.get(task_id):
            returned = sorted(chunks, key=lambda chunk: chunk.index)
            self._note_returned(backlog, len(returned))
            backlog.waiting.extendleft(reversed(returned))
            self._waiting_chunks += len(returned)
            self._join(backlog)

    def close(self, task_id: int) -> None:
        """Remove a task with its waiting chunks. An unknown task is ignored."""
        if backlog := self._backlogs.pop(task_id, None):
            self._note_returned(backlog, len(backlog.sent))
            self._waiting_chunks -= len(backlog.waiting)
            backlog.waiting.clear()
            self._join(backlog)

    def release(self, capacity: Capacity, now: float) -> ReleasedChunks | None:
        """Remove and return the next unit, or ``None`` while the replicas have no capacity for any waiting chunk.

        A chunk counts against the capacity of its own and of lower priorities only. So an urgent chunk goes out at once
        and overtakes at the replica, however many chunks of lower priority are in flight.
        """
        turn = self._next_flow(capacity)
        if turn is None:
            return None
        choice = (None if turn.beside or self._aged_last else self._aged_flow(turn, now)) or turn
        self._aged_last = choice.aged
        backlog, is_turn = choice.flow.choose(now, self._ageing_s)
        if is_turn:
            choice.flow.tasks.advance(backlog.share.virtual_time)
        if not choice.aged:
            self._ranks[choice.rank].advance(choice.flow.share.virtual_time)
        return self._take(backlog, choice, self._unit(backlog, choice, capacity), now)

    @property
    def waiting_chunks(self) -> int:
        """Number of waiting chunks of all tasks."""
        return self._waiting_chunks

    def _flow(self, rank: int, client: str | None) -> Flow:
        """Return the flow of a client, which outlives its tasks, or a new one."""
        self._ranks.setdefault(rank, RankSharing())
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
        """Remove chunks from those in flight, the earliest first, since it is unknown which ones returned."""
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
        """Choose the client to serve in the highest rank that has chunks to release and capacity for them."""
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
        """Return the next client if it has less than its share in flight because others of its rank have more."""
        flow, urgent = self._ranks[number].next, in_flight - self._in_flight[number]
        if flow is None or urgent >= most:
            return None
        clients = self._ranks[number].clients_in_flight + (flow.in_flight == 0)
        return flow if flow.in_flight < most // clients else None

    def _aged_flow(self, turn: _FlowChoice, now: float) -> _FlowChoice | None:
        """Choose a client that goes first because it was passed over for long: the one that ageing raises highest."""
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
        """Return a batch of chunks.

        There are fewer if the rest of the task would otherwise leave replicas idle, or if chunks are costly.
        """
        size = min(capacity.max_batch_size, ceil(len(backlog.waiting) / max(1, capacity.replicas)))
        unit = list(islice(backlog.waiting, min(size, backlog.room)))
        most = min(choice.room, capacity.max_batch_size)
        loads = accumulate(load_of(backlog.cost(chunk)) for chunk in unit)
        return unit[: max(1, sum(load <= most for load in loads))]

    def _take(self, backlog: Backlog, choice: _FlowChoice, chunks: Sequence[Chunk], now: float) -> ReleasedChunks:
        flow, costs = choice.flow, [backlog.cost(chunk) for chunk in chunks]
        start_tag = self._start_tag(backlog, choice, sum(costs))
        is_early = not choice.aged and start_tag < flow.tag_time
        room = choice.room
        for cost in costs:
            early_s, load = cost if is_early else 0.0, min(room, load_of(cost))
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
        """Return the start tag of a unit.

        It is the smallest start tag in flight for an aged client, the smallest of its client for the first chunks of a
        task, and otherwise the client's tag time. A client without chunks in flight continues from the smallest of all.
        A named client continues from just below that, since the chunks of another client at the replica may take long.
        """
        flow, rank = choice.flow, self._ranks[choice.flow.rank]
        if not flow.in_flight:
            start = rank.current_tag
            flow.tag_time = max(flow.tag_time, nextafter(start, -inf) if flow.is_named else start)
        if choice.aged:
            return self._ranks[choice.rank].current_tag
        rank.last_tag = max(rank.last_tag, flow.tag_time)
        is_early = backlog.fresh and flow.early_s + cost <= MAX_EARLY_S
        return flow.tag_time if flow.first_tag is None or not is_early else flow.first_tag
