"""Shares of clients in the chunk queue. Time is a number here, and a replica is a heap of the units sent to it."""

import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cache
from heapq import heappop, heappush
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.audio.spans import SAMPLE_RATE, Chunk, Span
from pipeline.domain.decoding.decoding_cost import chunk_cost_s, relative_cost
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.scheduling.capacity import Capacity, ReleasedChunks
from pipeline.domain.scheduling.chunk_queue import ChunkQueue
from tests.support.thoroughness import examples

HIGH, NORMAL, LOW = range(3)
AGEING_S = 600.0
NEVER_S = 1e9
ONE = Capacity(replicas=1, max_batch_size=8)
DEAR = TranscriptionOptions(beam_size=20, best_of=20, log_prob_threshold=0.0)


@cache
def chunks(number: int, seconds: float = 10) -> tuple[Chunk, ...]:
    step = int(seconds * SAMPLE_RATE)
    return tuple(Chunk(i, 0, 0, (Span(i * step, (i + 1) * step),)) for i in range(number))


class Queue(ChunkQueue):
    """A queue whose tasks are opened and filled in one call."""

    def __init__(self, ageing_s: float = NEVER_S) -> None:
        super().__init__(ageing_s)
        self.clients: dict[int, str | None] = {}
        self.ids = count(1)

    def put(
        self,
        client: str | None,
        number: int = 1,
        *,
        rank: int = NORMAL,
        seconds: float = 10,
        now: float = 0,
        options: TranscriptionOptions | None = None,
    ) -> int:
        task_id = next(self.ids)
        cost = {} if options is None else {"cost": lambda chunk: chunk_cost_s(chunk.duration_s, options)}
        self.open(task_id, rank, now, client=client, **cost)
        self.add(task_id, chunks(number, seconds), now)
        self.clients[task_id] = client
        return task_id

    def client(self, unit: ReleasedChunks | None) -> str | None:
        assert unit is not None
        return self.clients[unit.task_id]


def cost_of(unit: ReleasedChunks) -> float:
    return sum(chunk.duration_s for chunk in unit.chunks)


def released(queue: Queue, capacity: Capacity = ONE, now: float = 0) -> list[ReleasedChunks]:
    """Release all units that may go out before any chunk comes back."""
    units = []
    while unit := queue.release(capacity, now):
        units.append(unit)
    return units


# --- shares -----------------------------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=5), min_size=2, max_size=5),
    batch=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
def test_clients_with_endless_work_get_equal_shares_to_within_one_unit_each(
    lengths: list[list[int]], batch: int, seed: int
) -> None:
    queue, capacity, source = Queue(), Capacity(1, batch), random.Random(seed)
    for client, tasks in enumerate(lengths):
        for seconds in tasks:
            queue.put(str(client), 2_000, seconds=seconds)
    served: Counter[str] = Counter()
    largest: dict[str, float] = defaultdict(float)
    out: list[ReleasedChunks] = []
    for _ in range(300):
        unit = queue.release(capacity, now=0)
        if unit is None or (out and source.random() < 0.3):
            back = out.pop(source.randrange(len(out)))
            queue.finish(back.task_id, len(back.chunks))
        if unit is not None:
            out.append(unit)
            client = str(queue.client(unit))
            served[client] += cost_of(unit)
            largest[client] = max(largest[client], cost_of(unit))
    for one in served:
        for other in served:
            assert abs(served[one] - served[other]) <= largest[one] + largest[other]


def test_a_client_with_a_thousand_tasks_gets_no_more_than_one_with_a_single_task() -> None:
    queue = Queue()
    for _ in range(1_000):
        queue.put("many", 40)
    queue.put("one", 1_000)
    served: Counter[str | None] = Counter()
    for _ in range(100):
        unit = queue.release(ONE, now=0)
        assert unit
        served[queue.client(unit)] += len(unit.chunks)
        queue.finish(unit.task_id, len(unit.chunks))
    assert abs(served["many"] - served["one"]) <= 8


def test_a_stream_of_clips_gets_no_more_than_another_client_s_long_file() -> None:
    queue = Queue()
    queue.put("file", 10_000)
    served: Counter[str | None] = Counter()
    for _ in range(200):
        queue.put("clips", 1, seconds=5)
        queue.put("clips", 1, seconds=5)
        unit = queue.release(Capacity(1, 1), now=0)
        assert unit
        served[queue.client(unit)] += cost_of(unit)
        queue.finish(unit.task_id)
    assert abs(served["file"] - served["clips"]) <= 15


def test_within_a_client_its_tasks_share_fairly() -> None:
    queue = Queue()
    first, second = queue.put("a", 500), queue.put("a", 500, seconds=5)
    served: Counter[int] = Counter()
    for _ in range(60):
        unit = queue.release(ONE, now=0)
        assert unit
        served[unit.task_id] += int(cost_of(unit))
        queue.finish(unit.task_id, len(unit.chunks))
    assert abs(served[first] - served[second]) <= 2 * 80


def test_dear_options_count_by_what_they_cost() -> None:
    queue = Queue()
    queue.put("dear", 10_000, options=DEAR)
    queue.put("plain", 10_000, options=TranscriptionOptions())
    served: Counter[str | None] = Counter()
    for _ in range(400):
        unit = queue.release(ONE, now=0)
        assert unit
        served[queue.client(unit)] += len(unit.chunks)
        queue.finish(unit.task_id, len(unit.chunks))
    assert served["plain"] / served["dear"] == pytest.approx(relative_cost(DEAR), rel=0.2)


def test_what_decoding_cost_beyond_the_prediction_is_charged_afterwards() -> None:
    queue = Queue()
    climbing = queue.put("climbs", 1_000)
    queue.put("plain", 1_000)
    served: Counter[str | None] = Counter()
    for _ in range(100):
        unit = queue.release(ONE, now=0)
        assert unit
        served[queue.client(unit)] += 1
        if unit.task_id == climbing:
            queue.charge(climbing, 4 * cost_of(unit))
        queue.finish(unit.task_id, len(unit.chunks))
    assert served["plain"] / served["climbs"] == pytest.approx(5, rel=0.2)
    queue.close(climbing)
    queue.charge(climbing, 1.0)


# --- arrivals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 4])
def test_a_clip_goes_out_next_whatever_another_client_has_queued_and_in_flight(replicas: int) -> None:
    """A thousand hours with costly options fill the capacity; another client's clip of 3 s is the very next unit."""
    queue, capacity = Queue(AGEING_S), Capacity(replicas, 8)
    for _ in range(1_000):
        queue.put("a", 240, seconds=15, options=DEAR)
    out = released(queue, capacity, now=10_000)
    assert replicas < sum(len(unit.chunks) for unit in out) < capacity.chunks

    clip = queue.put("b", 1, seconds=3, options=TranscriptionOptions(), now=10_000)
    unit = queue.release(capacity, now=10_000)

    assert unit
    assert unit.task_id == clip
    assert all(unit.start_tag <= other.start_tag for other in out)
    assert queue.release(capacity, now=10_000) is None


def test_the_reserve_of_newcomers_is_bounded() -> None:
    queue = Queue()
    queue.put("a", 1_000)
    released(queue)
    for number in range(100):
        queue.put(f"client {number}", 5)
    assert sum(len(unit.chunks) for unit in released(queue)) == ONE.reserve


def test_the_reserve_is_not_for_the_lesser_priority_of_a_newcomer() -> None:
    queue = Queue()
    queue.put("a", 1_000, rank=HIGH)
    released(queue)
    queue.put("b", 1, rank=LOW)
    assert queue.release(ONE, now=0) is None


def test_where_everyone_has_a_chunk_in_flight_nobody_goes_beside_the_room() -> None:
    queue = Queue()
    for number in range(1_000):
        queue.put(f"client {number}", 1)
    assert sum(len(unit.chunks) for unit in released(queue)) == ONE.chunks


def test_a_clip_overtakes_its_own_client_s_long_file_at_the_replica() -> None:
    queue = Queue()
    queue.put("b", 1_000)
    queue.put("a", 1_000)
    out = released(queue)
    for unit in out[:2]:
        queue.finish(unit.task_id, len(unit.chunks))
    clip = queue.put("a", 1)
    following = [unit for unit in released(queue) if queue.client(unit) == "a"]
    assert following[0].task_id == clip
    assert following[0].start_tag == min(other.start_tag for other in out[2:] if queue.client(other) == "a")


def test_only_so_much_of_a_client_goes_with_the_smallest_of_its_tags() -> None:
    """Otherwise a client with many new tasks would go before all chunks of others at the replica."""
    queue, capacity = Queue(), Capacity(4, 8)
    for _ in range(90):
        queue.put("a", 1, seconds=10)
    tags = [unit.start_tag for unit in released(queue, capacity)]
    assert 20 <= tags.count(min(tags)) <= 30
    assert tags[-1] > 500


def test_what_a_client_sends_goes_first_until_it_has_had_as_much_as_others_have_there() -> None:
    queue = Queue()
    queue.put("a", 1_000)
    out = released(queue)
    for _ in range(3):
        queue.put("b", 1)
    clips = released(queue)
    assert [queue.client(unit) for unit in clips] == ["b"] * 3
    assert all(unit.start_tag < out[1].start_tag for unit in clips)


def test_its_clips_do_not_push_a_client_before_others_for_ever() -> None:
    """At the replica too, another client's chunks are served although new clips of the first keep arriving."""
    queue, capacity = Queue(), Capacity(1, 1)
    queue.put("clips", 1)
    queue.put("file", 10_000)
    line: list[tuple[int, float, int, int]] = []
    arrivals, served = count(), Counter[str | None]()
    for _ in range(400):
        queue.put("clips", 1)
        while unit := queue.release(capacity, now=0):
            heappush(line, (unit.priority_rank, unit.start_tag, next(arrivals), unit.task_id))
        *_, task_id = heappop(line)
        served[queue.clients[task_id]] += 1
        queue.finish(task_id)
    assert abs(served["clips"] - served["file"]) <= capacity.chunks + capacity.reserve


def test_a_client_that_comes_back_has_saved_up_nothing() -> None:
    queue = Queue()
    early = queue.put("a", 1)
    queue.put("b", 10_000)
    for _ in range(100):
        unit = queue.release(ONE, now=0)
        assert unit
        queue.finish(unit.task_id, len(unit.chunks))
    queue.close(early)
    queue.put("a", 1_000)
    served = Counter[str | None]()
    for _ in range(20):
        unit = queue.release(ONE, now=0)
        assert unit
        served[queue.client(unit)] += 1
        queue.finish(unit.task_id, len(unit.chunks))
    assert abs(served["a"] - served["b"]) <= 2


def test_a_client_whose_one_task_was_held_back_has_saved_up_nothing() -> None:
    queue = Queue()
    held = queue.put("a", 1_000)
    queue.limit(held, 1)
    queue.put("b", 10_000)
    assert {queue.client(queue.release(ONE, now=0)) for _ in range(2)} == {"a", "b"}
    for _ in range(100):  # the one chunk of "a" is being decoded meanwhile
        unit = queue.release(ONE, now=0)
        if unit:
            queue.finish(unit.task_id, len(unit.chunks))
    queue.finish(held)
    queue.limit(held, None)
    served = Counter[str | None]()
    for _ in range(20):
        unit = queue.release(ONE, now=0)
        assert unit
        served[queue.client(unit)] += len(unit.chunks)
        queue.finish(unit.task_id, len(unit.chunks))
    assert abs(served["a"] - served["b"]) <= 16


# --- ageing -----------------------------------------------------------------------------------------------------------


def test_ten_thousand_aged_tasks_of_one_client_take_one_unit_in_each_period() -> None:
    queue = Queue(AGEING_S)
    for _ in range(10_000):
        queue.put("old", 10, rank=LOW)
    queue.put("b", 5_000)
    queue.put("c", 5_000)
    served = Counter[str | None]()
    seconds = 10
    for now in range(5_000, 5_000 + 3_000, seconds):
        unit = queue.release(ONE, now=now)
        assert unit
        served[queue.client(unit)] += 1
        queue.finish(unit.task_id, len(unit.chunks))
    assert served["old"] == 3_000 / AGEING_S
    assert abs(served["b"] - served["c"]) <= 1


def test_at_most_every_second_unit_goes_out_for_its_age() -> None:
    queue = Queue(AGEING_S)
    for number in range(100):
        queue.put(f"old {number}", 100, rank=LOW)
    queue.put("b", 1_000, now=5_000)
    order = []
    for _ in range(20):
        unit = queue.release(ONE, now=5_000)
        order.append(queue.client(unit) == "b")
        assert unit
        queue.finish(unit.task_id, len(unit.chunks))
    assert sum(order) == 10


def test_what_was_lifted_counts_as_more_urgent_at_the_replica_too() -> None:
    queue = Queue(AGEING_S)
    queue.put("b", 1, rank=LOW, now=0)
    queue.put("a", 1_000, now=500)
    first = released(queue, now=500)
    queue.finish(first[0].task_id, len(first[0].chunks))
    unit = queue.release(ONE, now=700)
    assert unit
    assert (queue.client(unit), unit.priority_rank) == ("b", NORMAL)
    assert unit.start_tag <= min(other.start_tag for other in first[1:])
    queue.finish(unit.task_id)
    assert sum(len(unit.chunks) for unit in released(queue, now=700)) == 8


def test_age_serves_an_urgent_file_that_urgent_clips_would_starve() -> None:
    queue = Queue(AGEING_S)
    file = queue.put(None, 50, rank=HIGH)
    served = 0
    for number in range(1, 300):
        now = 10.0 * number
        queue.put(None, 1, rank=HIGH, now=now)
        unit = queue.release(Capacity(1, 1, batches_in_flight=1), now=now)
        assert unit
        served += unit.task_id == file
        queue.finish(unit.task_id)
    assert served >= 4


# --- invariants -------------------------------------------------------------------------------------------------------

VERBS = ("put", "release", "finish", "put_back", "close", "limit", "pause", "charge")


class Model:
    """The queue, and beside it the expected state of every chunk."""

    def __init__(self, capacity: Capacity) -> None:
        self.queue = Queue(AGEING_S)
        self.capacity = capacity
        self.now = 0.0
        self.out: list[ReleasedChunks] = []
        self.expected: dict[int, int] = {}
        self.back: Counter[int] = Counter()
        self.limited: set[int] = set()

    def put(self, value: int) -> None:
        number = 1 + value % 7
        task = self.queue.put([None, "a", "b"][value % 3], number, rank=value // 7 % 3, now=self.now)
        self.expected[task] = number

    def release(self, _: int) -> None:
        waiting = self.queue.waiting_chunks
        if unit := self.queue.release(self.capacity, self.now):
            self.out.append(unit)
        elif waiting and not self.limited:
            assert sum(len(one.chunks) for one in self.out) >= self.capacity.room(waiting)

    def finish(self, value: int) -> None:
        if self.out:
            unit = self.out.pop(value % len(self.out))
            self.queue.finish(unit.task_id, len(unit.chunks))
            self.back[unit.task_id] += len(unit.chunks)

    def put_back(self, value: int) -> None:
        if self.out:
            unit = self.out.pop(value % len(self.out))
            self.queue.put_back(unit.task_id, unit.chunks)

    def close(self, task: int) -> None:
        self.queue.close(task)
        self.out = [unit for unit in self.out if unit.task_id != task]
        self.limited.discard(task)
        del self.expected[task], self.back[task]

    def limit(self, task: int) -> None:
        self.queue.limit(task, None if task in self.limited else 1)
        self.limited ^= {task}

    def pause(self, task: int) -> None:
        self.queue.pause(task, paused=True)
        self.queue.pause(task, paused=False)

    def charge(self, task: int) -> None:
        self.queue.charge(task, 50.0)

    def step(self, verb: str, value: int) -> None:
        self.now += value % 900
        if verb in ("put", "release", "finish", "put_back"):
            getattr(self, verb)(value)
        elif self.expected:
            getattr(self, verb)(list(self.expected)[value % len(self.expected)])

    def drain(self) -> None:
        for task in self.limited:
            self.queue.limit(task, None)
        while self.out or self.queue.waiting_chunks:
            self.out += released(self.queue, self.capacity, self.now)
            assert self.out
            while self.out:
                self.finish(0)


@given(
    steps=st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 10**6)), max_size=80),
    replicas=st.integers(1, 3),
    batch=st.integers(1, 4),
)
def test_no_replica_idles_while_anything_may_go_and_every_chunk_goes_once(
    steps: list[tuple[str, int]], replicas: int, batch: int
) -> None:
    model = Model(Capacity(replicas, batch))
    for verb, value in steps:
        model.step(verb, value)
    model.drain()
    assert model.back == Counter(model.expected)


def calls(step: Callable[[], object]) -> int:
    """Count the functions called by a step."""
    number = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        step()
    finally:
        sys.setprofile(None)
    return number


@pytest.mark.parametrize("clients", [1, 3_000])
def test_no_step_looks_at_all_tasks(clients: int) -> None:
    queue = Queue(AGEING_S)
    for number in range(3_000):
        queue.put(f"client {number % clients}", 20)
    most = 0

    def step() -> None:
        unit = queue.release(ONE, now=100)
        assert unit
        queue.finish(unit.task_id, len(unit.chunks))

    for _ in range(examples(200)):
        most = max(most, calls(step))
    assert most < 1_000
