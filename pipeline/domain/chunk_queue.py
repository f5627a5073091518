"""Which chunks go to a replica next: priority first, then a fair share between tasks, then the order of the file.

Fairness is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) over seconds of audio: each task has a virtual
time that advances by what is released for it, what is released is tagged with the time it began at, and the smallest
tag goes first, here and again at the replica. A task that arrives starts at the smallest tag in flight, so a
10-second clip overtakes even the chunks of a 10-hour file that wait at the replica; ageing keeps an endless stream of
such clips from starving the file. Nothing here waits, locks or knows what time it is, and no step looks at all tasks:
thousands of them wait where there are hundreds of replicas.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate
from math import ceil

from pipeline.domain.audio import Chunk


@dataclass(frozen=True, slots=True)
class Released:
    """Chunks of one task that may be sent to a replica together; within a rank, the smallest ``tag`` goes first."""

    task_id: int
    priority_rank: int
    chunks: tuple[Chunk, ...]
    tag: float = 0.0


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
    def _batch_for_each(self) -> int:
        return max(1, self.replicas) * self.max_batch_size


@dataclass(slots=True)
class _Backlog:
    """One task's chunks that wait, and how many of its chunks are in flight."""

    task_id: int
    priority_rank: int
    virtual_time: float
    waiting_since: float
    max_in_flight: int | None
    waiting: deque[Chunk] = field(default_factory=deque)
    tags: deque[float] = field(default_factory=deque)
    paused: bool = False

    @property
    def in_flight(self) -> int:
        """Chunks that are out, each with its tag in ``tags``."""
        return len(self.tags)

    @property
    def room(self) -> int:
        """Chunks that may be released before some come back."""
        waiting = 0 if self.paused else len(self.waiting)
        return waiting if self.max_in_flight is None else min(waiting, self.max_in_flight - self.in_flight)

    def rank_at(self, now: float, ageing_s: float) -> int:
        """Priority lifted by one for each ``ageing_s`` the task has been passed over."""
        return max(0, self.priority_rank - int((now - self.waiting_since) / ageing_s))


class _Line:
    """Tasks by a value of theirs, the smallest first; those whose value has changed since are passed over.

    Args:
        backlogs: the tasks there are, by id.
        value: of a task, now; ``None`` for one that has no place in this line.
    """

    def __init__(self, backlogs: Mapping[int, _Backlog], value: Callable[[_Backlog], float | None]) -> None:
        self._backlogs = backlogs
        self._value = value
        self._heap: list[tuple[float, int]] = []
        self._listed: dict[int, float] = {}

    def join(self, backlog: _Backlog) -> None:
        """Puts a task in line, if it has a place there; one that is there already is fine."""
        value = self._value(backlog)
        if value is not None and self._listed.get(backlog.task_id) != value:
            self._listed[backlog.task_id] = value
            heappush(self._heap, (value, backlog.task_id))

    def first(self) -> _Backlog | None:
        """Who is first now."""
        while self._heap:
            value, task_id = self._heap[0]
            backlog = self._backlogs.get(task_id)
            if backlog and value == self._value(backlog):
                return backlog
            heappop(self._heap)
            if self._listed.get(task_id) == value:
                del self._listed[task_id]
        return None


class _Rank:
    """The tasks of one priority that have something to release: by virtual time, and by how long they have waited."""

    def __init__(self, backlogs: Mapping[int, _Backlog]) -> None:
        self._fair = _Line(backlogs, lambda one: one.virtual_time if one.room > 0 else None)
        self._oldest = _Line(backlogs, lambda one: one.waiting_since if one.room > 0 else None)

    def join(self, backlog: _Backlog) -> None:
        """Puts a task in line, if it has something to release."""
        self._fair.join(backlog)
        self._oldest.join(backlog)

    def next(self, now: float, ageing_s: float) -> _Backlog | None:
        """Whoever has waited so long as to be lifted above this priority, the longest first; else the fair choice."""
        oldest = self._oldest.first()
        if oldest and oldest.rank_at(now, ageing_s) < oldest.priority_rank:
            return oldest
        return self._fair.first()


class ChunkQueue:
    """The chunks of all running tasks.

    Args:
        ageing_s: a task that was passed over this long is lifted by one priority.
    """

    def __init__(self, ageing_s: float) -> None:
        self._ageing_s = ageing_s
        self._backlogs: dict[int, _Backlog] = {}
        self._ranks: dict[int, _Rank] = {}
        self._in_flight: Counter[int] = Counter()
        self._earliest = _Line(self._backlogs, lambda one: one.tags[0] if one.tags else None)
        self._virtual_time = 0.0
        self._waiting_chunks = 0

    def open(self, task_id: int, priority_rank: int, now: float, max_in_flight: int | None = None) -> None:
        """Admits a task.

        Args:
            task_id: its id, new to the queue.
            priority_rank: 0 is served first.
            now: seconds on any clock that does not run backwards.
            max_in_flight: at most this many of its chunks are out at once; ``None``: no limit of its own.
        """
        self._backlogs[task_id] = _Backlog(task_id, priority_rank, self._present, now, max_in_flight)

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
        if not backlog.waiting and not backlog.in_flight:
            backlog.virtual_time = max(backlog.virtual_time, self._present)
            backlog.waiting_since = now
        added = tuple(chunks)
        backlog.waiting.extend(added)
        self._waiting_chunks += len(added)
        self._join(backlog)

    def finish(self, task_id: int, count: int = 1) -> None:
        """Notes that chunks came back with a result. A task that was closed meanwhile is fine."""
        if backlog := self._backlogs.get(task_id):
            self._come_back(backlog, count)
            self._join(backlog)

    def put_back(self, task_id: int, chunks: Iterable[Chunk]) -> None:
        """Returns chunks whose replica was lost to the front. A task that was closed meanwhile is fine."""
        if backlog := self._backlogs.get(task_id):
            returned = sorted(chunks, key=lambda chunk: chunk.index)
            self._come_back(backlog, len(returned))
            backlog.waiting.extendleft(reversed(returned))
            self._waiting_chunks += len(returned)
            self._join(backlog)

    def close(self, task_id: int) -> None:
        """Forgets a task with all that waits of it. An unknown one is fine."""
        if backlog := self._backlogs.pop(task_id, None):
            self._come_back(backlog, backlog.in_flight)
            self._waiting_chunks -= len(backlog.waiting)
            backlog.waiting.clear()

    def release(self, capacity: Capacity, now: float) -> Released | None:
        """Takes the next unit out, or ``None`` while the replicas have no room for anything that waits.

        A chunk counts against the room of its own and of lower priorities only: an urgent one goes out at once and
        overtakes at the replica, however much of lesser priority is out already.
        """
        room = self._room_by_rank(capacity)
        candidates = (rank.next(now, self._ageing_s) for number, rank in self._ranks.items() if room[number] > 0)
        ready = [backlog for backlog in candidates if backlog]
        if not ready:
            return None
        backlog = min(ready, key=lambda task: self._order(task, now))
        count = min(backlog.room, room[backlog.priority_rank], self._unit_size(backlog, capacity))
        return self._take(backlog, count, now)

    @property
    def waiting_chunks(self) -> int:
        """Chunks that wait, of all tasks."""
        return self._waiting_chunks

    @property
    def _present(self) -> float:
        """The virtual time of what is being decoded: the smallest tag in flight, else that of the last release."""
        earliest = self._earliest.first()
        return earliest.tags[0] if earliest else self._virtual_time

    def _join(self, backlog: _Backlog) -> None:
        if backlog.priority_rank not in self._ranks:
            self._ranks[backlog.priority_rank] = _Rank(self._backlogs)
        self._ranks[backlog.priority_rank].join(backlog)

    def _come_back(self, backlog: _Backlog, count: int) -> None:
        """Chunks came back, the earliest sent for all we know."""
        for _ in range(count):
            backlog.tags.popleft()
        self._in_flight[backlog.priority_rank] -= count
        self._earliest.join(backlog)

    def _order(self, backlog: _Backlog, now: float) -> tuple[int, float, int]:
        return backlog.rank_at(now, self._ageing_s), backlog.virtual_time, backlog.task_id

    def _room_by_rank(self, capacity: Capacity) -> dict[int, int]:
        ranks = sorted(self._ranks)
        taken = accumulate(self._in_flight[rank] for rank in ranks)
        room = capacity.room(self._waiting_chunks)
        return {rank: room - out for rank, out in zip(ranks, taken, strict=True)}

    @staticmethod
    def _unit_size(backlog: _Backlog, capacity: Capacity) -> int:
        """A batch; less where the rest of the file would otherwise leave replicas idle."""
        return min(capacity.max_batch_size, ceil(len(backlog.waiting) / max(1, capacity.replicas)))

    def _take(self, backlog: _Backlog, count: int, now: float) -> Released:
        chunks = tuple(backlog.waiting.popleft() for _ in range(count))
        tag = backlog.virtual_time
        backlog.tags.extend([tag] * count)
        backlog.waiting_since = now
        self._waiting_chunks -= count
        self._in_flight[backlog.priority_rank] += count
        self._virtual_time = max(self._virtual_time, tag)
        backlog.virtual_time += sum(chunk.duration_s for chunk in chunks)
        self._earliest.join(backlog)
        self._join(backlog)
        return Released(backlog.task_id, backlog.priority_rank, chunks, tag)
