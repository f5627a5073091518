from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.audio.spans import Chunk, Span
from pipeline.domain.decoding.stitching import chunk_segments, stitch
from pipeline.domain.decoding.transcript import ChunkResult, Segment
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.task import NewTask, Stage, Status, Task, TaskError
from pipeline.ports import Lease
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.usecases.task_notifier import TaskNotifier
from pipeline.usecases.tasks.watch import (
    WATCH_SLICE_S,
    SegmentReady,
    TaskEnded,
    TaskEvent,
    TaskProgressed,
    TaskQueued,
    follow,
)

SECOND = 16_000


def chunk(index: int) -> Chunk:
    return Chunk(index, 0, 0, (Span(index * 10 * SECOND, (index + 1) * 10 * SECOND),))


def result(index: int, *texts: str) -> ChunkResult:
    start, step = index * 10.0, 10.0 / max(1, len(texts))
    segments = tuple(
        Segment(0, index * 1000, start + i * step, start + (i + 1) * step, text, (1,), 0.0, -0.2, 1.0, 0.0)
        for i, text in enumerate(texts)
    )
    return ChunkResult(index, 10.0, segments, "en")


@dataclass
class WatchWorld:
    """A task that the test changes, and a client that follows it."""

    clock: ManualClock = field(default_factory=ManualClock)
    notifier: TaskNotifier = field(default_factory=TaskNotifier)
    events: asyncio.Queue[TaskEvent] = field(default_factory=asyncio.Queue)
    lease: Lease = field(default_factory=lambda: Lease(1, 1))
    results: list[ChunkResult] = field(default_factory=list)
    following: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.store = MemoryTaskStore(self.clock)

    async def create(self) -> Task:
        task, _ = await self.store.create(NewTask(media_prefix="a", media_key="a/source"))
        return task

    async def claim(self, chunks: int = 4) -> None:
        [task] = await self.store.claim("me", timedelta(seconds=30), 1, {1})
        self.lease = Lease(task.id, task.fence)
        await self.store.add_part(self.lease, 0, 0, chunks * 10 * SECOND, [chunk(i) for i in range(chunks)])
        self.tell()

    async def save(self, *results: ChunkResult) -> None:
        self.results += results
        await self.store.save_results(self.lease, results)
        self.tell()

    async def complete(self) -> None:
        await self.store.complete(self.lease, stitch(self.results, TranscriptionOptions(), 40.0))
        self.tell()

    def tell(self) -> None:
        self.notifier.notify(1)
        self.clock.advance(1)

    async def follow(self, after_chunk: int = -1) -> None:
        task = await self.store.get(1, include_result=True)

        async def run() -> None:
            async for event in follow(self.store, self.notifier.watch, self.clock, task, after_chunk):
                self.events.put_nowait(event)

        self.following = asyncio.create_task(run())

    async def next(self) -> TaskEvent:
        """Return the next event; the clock advances meanwhile."""
        async with asyncio.timeout(5):
            while self.events.empty():
                assert self.following is not None
                if self.following.done():
                    self.following.result()
                await asyncio.sleep(0)
                if self.clock.sleepers:
                    self.clock.advance(0.1)
        return self.events.get_nowait()

    async def rest(self) -> list[TaskEvent]:
        assert self.following is not None
        events = []
        while not events or not isinstance(events[-1], TaskEnded):
            events.append(await self.next())
        await self.following
        assert self.events.empty()
        return events


@pytest.fixture
async def world() -> WatchWorld:
    world = WatchWorld()
    await world.create()
    return world


def segments_of(events: list[TaskEvent]) -> list[tuple[int, str, int, bool]]:
    return [
        (event.segment.id, event.segment.text, event.chunk, event.last)
        for event in events
        if isinstance(event, SegmentReady)
    ]


async def test_a_task_is_followed_from_the_queue_to_its_end(world: WatchWorld) -> None:
    await world.follow()
    assert isinstance(await world.next(), TaskQueued)
    await world.claim()
    progressed = await world.next()
    assert isinstance(progressed, TaskProgressed)
    assert progressed.task.stage is Stage.SPLITTING
    await world.save(result(0, " one", " two"))
    events = [await world.next() for _ in range(3)]
    assert isinstance(events[0], TaskProgressed)
    assert events[0].task.audio_done_s == 10.0
    assert segments_of(events) == [(1, " one", 0, False), (2, " two", 0, True)]
    await world.save(result(1), result(2, " three"), result(3, " four"))
    await world.complete()
    ended = (events := await world.rest())[-1]
    assert segments_of(events) == [(3, " three", 1, True), (4, " four", 2, True)]
    assert isinstance(ended, TaskEnded)
    assert ended.task.result is not None
    assert [segment.text for segment in ended.task.result.segments] == [" one", " two", " three", " four"]


async def test_a_growing_total_is_no_progress(world: WatchWorld) -> None:
    await world.claim()
    await world.follow()
    assert isinstance(await world.next(), TaskProgressed)
    await world.store.add_part(world.lease, 1, 40 * SECOND, 50 * SECOND, [chunk(4)])
    world.tell()
    await world.store.update(world.lease, split_done=True)
    world.tell()
    progressed = await world.next()
    assert isinstance(progressed, TaskProgressed)
    assert (progressed.task.split_done, progressed.task.audio_total_s) == (True, 50.0)
    await world.store.cancel(1)
    world.tell()
    assert len(await world.rest()) == 1


async def test_segments_wait_for_those_before_them(world: WatchWorld) -> None:
    await world.claim()
    await world.save(result(2, " three"), result(1, " two"))
    await world.follow()
    assert isinstance(await world.next(), TaskProgressed)
    await world.save(result(0, " one"))
    events = [await world.next() for _ in range(4)]
    assert segments_of(events) == [(1, " one", 0, True), (2, " two", 1, True), (3, " three", 2, True)]


async def test_events_continue_after_a_given_chunk(world: WatchWorld) -> None:
    await world.claim()
    await world.save(result(0, " one", " two"), result(1), result(2, " three"))
    await world.follow(after_chunk=0)
    assert segments_of([await world.next(), await world.next()]) == [(3, " three", 1, True)]
    await world.save(result(3, " four"))
    await world.complete()
    assert segments_of(await world.rest()) == [(4, " four", 2, True)]


@pytest.mark.parametrize(("after_chunk", "missing"), [(-1, 0), (0, 2), (1, 3), (9, 4)])
async def test_a_finished_task_has_the_same_events(world: WatchWorld, after_chunk: int, missing: int) -> None:
    await world.claim()
    await world.save(result(0, " one", " two"), result(1), result(2, " three"), result(3, " four"))
    await world.complete()
    await world.follow(after_chunk)
    all_of_them = [(1, " one", 0, False), (2, " two", 0, True), (3, " three", 1, True), (4, " four", 2, True)]
    assert segments_of(await world.rest()) == all_of_them[missing:]


async def test_a_failed_task_yields_the_segments_it_had(world: WatchWorld) -> None:
    await world.claim()
    await world.save(result(0, " one"))
    await world.store.fail(world.lease, TaskError("decoding_failed", "The model failed."))
    await world.follow()
    events = await world.rest()
    assert segments_of(events) == [(1, " one", 0, True)]
    assert isinstance(events[-1], TaskEnded)
    assert events[-1].task.status is Status.FAILED


async def test_a_task_that_is_deleted_ends_as_cancelled(world: WatchWorld) -> None:
    await world.follow()
    assert isinstance(await world.next(), TaskQueued)
    await world.store.delete(1)
    world.tell()
    [ended] = await world.rest()
    assert isinstance(ended, TaskEnded)
    assert ended.task.status is Status.CANCELLED


async def test_following_continues_after_an_outage_of_the_database(world: WatchWorld) -> None:
    await world.follow()
    assert isinstance(await world.next(), TaskQueued)
    world.store.available = False
    world.tell()
    for _ in range(20):
        await asyncio.sleep(0)
        world.clock.advance(1)
    assert world.events.empty()
    world.store.available = True
    await world.claim()
    assert isinstance(await world.next(), TaskProgressed)


async def test_a_state_is_reported_once_and_reads_are_rate_limited(world: WatchWorld) -> None:
    looks: list[float] = []

    async def restless(task_id: int, seen: int, timeout_s: float) -> int:
        assert (task_id, timeout_s) == (1, WATCH_SLICE_S)
        looks.append(world.clock.monotonic())
        return seen + 1

    world.notifier.watch = restless  # type: ignore[method-assign]
    await world.follow()
    assert isinstance(await world.next(), TaskQueued)
    while len(looks) < 5:
        await asyncio.sleep(0)
        world.clock.advance(0.1 if world.clock.sleepers else 0)
    assert world.events.empty()
    assert all(later - earlier >= 0.099 for earlier, later in pairwise(looks[1:]))


chunk_texts = st.lists(st.lists(st.sampled_from([" a", " b b"]), max_size=3), max_size=6)


@given(chunk_texts)
def test_chunk_by_chunk_gives_the_segments_of_the_whole(texts: list[list[str]]) -> None:
    results = [result(index, *texts_of_chunk) for index, texts_of_chunk in enumerate(texts)]
    grown: list[Segment] = []
    for one in results:
        grown += chunk_segments(one, math.inf, len(grown) + 1)
    assert tuple(grown) == stitch(results, TranscriptionOptions(), 1000.0).segments


def test_a_chunk_is_clamped_to_the_recording() -> None:
    [only] = chunk_segments(result(0, " one"), 7.5, 4)
    assert only == replace(result(0, " one").segments[0], id=4, end=7.5)
