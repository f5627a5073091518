"""The order of splits while all slots are taken, in a Dispatcher whose Splitter pauses until it is released."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator

import pytest

from pipeline.domain.scheduling.split_pause import PAUSE_GROWTH
from pipeline.domain.tasks.task import NewTask, Priority, Stage, Status, Task
from pipeline.ports import SplitDone, SplitPart, SplitRequest, TaskQuery
from pipeline.testing.fake_splitter import FakeSplitter, make_chunks
from tests.support.builders import blocks
from tests.unit.pipeline.usecases.dispatch.test_dispatcher import DispatchWorld, quick_settings


class LongRecordings(FakeSplitter):
    """A splitter that splits recordings without a client part by part on release, and those of clients at once."""

    def __init__(self, parts: int, part_s: float) -> None:
        chunks = (make_chunks(1, first=number, seconds=part_s, part=number) for number in range(parts))
        super().__init__(*chunks)
        self.go_on = asyncio.Event()
        self.parts = 0

    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        async for event in super().split(request):
            if request.share_key.startswith("task"):
                self.parts += 1
                await self.go_on.wait()
                for _ in range(50):  # so that other tasks can queue
                    await asyncio.sleep(0)
            yield event


class HoldingSplitter(FakeSplitter):
    """A splitter that never ends the recordings of the client ``holds``, and splits all others at once."""

    def __init__(self, holds: str) -> None:
        super().__init__(make_chunks(1))
        self._holds = holds

    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        if request.share_key == f"client {self._holds}":
            self.requests.append(request)
            await asyncio.Event().wait()
        async for event in super().split(request):
            yield event

    def begun_by(self, client: str) -> int:
        return sum(request.share_key == f"client {client}" for request in self.requests)


async def add(world: DispatchWorld, client: str | None, priority: Priority = Priority.NORMAL) -> Task:
    prefix = f"t{len(await world.media.prefixes())}"
    await world.media.write(f"{prefix}/source", blocks(b"sound"))
    new = NewTask(media_prefix=prefix, media_key=f"{prefix}/source", priority=priority, client=client)
    task, _ = await world.store.create(new)
    return task


def crowded(**dispatch: object) -> tuple[DispatchWorld, HoldingSplitter]:
    splitter = HoldingSplitter("greedy")
    return DispatchWorld(splitter=splitter, settings=quick_settings(**dispatch)), splitter


@pytest.mark.parametrize("priority", list(Priority))
@pytest.mark.parametrize("client", ["modest", None])
async def test_one_clients_long_recordings_leave_slots_to_others(client: str | None, priority: Priority) -> None:
    world, splitter = crowded(max_concurrent_splits=8)
    greedy = [await add(world, "greedy") for _ in range(20)]
    async with world.running():
        await world.until(greedy[0], lambda _: splitter.begun_by("greedy") == 4)
        clip = await add(world, client, priority)
        assert (await world.end_of(clip)).status is Status.COMPLETED
        assert splitter.begun_by("greedy") == 4


async def test_a_clients_own_urgent_recording_does_not_wait_for_its_others() -> None:
    world, splitter = crowded(max_concurrent_splits=8)
    greedy = [await add(world, "greedy") for _ in range(20)]
    async with world.running():
        await world.until(greedy[0], lambda _: splitter.begun_by("greedy") == 4)
        urgent = await add(world, "greedy", Priority.HIGH)
        await world.until(greedy[0], lambda _: any(request.task_id == urgent.id for request in splitter.requests))


async def test_the_splitter_gets_the_share_key_and_the_priority() -> None:
    world, splitter = crowded()
    named, nameless = await add(world, "modest", Priority.HIGH), await add(world, None, Priority.LOW)
    async with world.running():
        await world.end_of(named)
        await world.end_of(nameless)
    shares = {request.task_id: (request.share_key, request.priority_rank) for request in splitter.requests}
    assert shares == {named.id: ("client modest", 0), nameless.id: (f"task {nameless.id}", 2)}


async def test_a_long_recording_pauses_at_the_end_of_a_part_and_is_resumed_there() -> None:
    splitter = LongRecordings(parts=8, part_s=300.0)
    world = DispatchWorld(splitter=splitter, settings=quick_settings(max_concurrent_splits=1))
    long = await add(world, None)
    async with world.running():
        await world.until(long, lambda _: splitter.parts == 1)
        clip = await add(world, "modest")
        await world.until(clip, lambda task: task.stage is Stage.SPLITTING)
        splitter.go_on.set()
        assert (await world.end_of(clip)).status is Status.COMPLETED
        assert (await world.end_of(long)).status is Status.COMPLETED
    assert [(request.task_id, request.first_part) for request in splitter.requests] == [
        (long.id, 0),
        (clip.id, 0),
        (long.id, 2),  # resumed after ten minutes of audio
    ]
    assert len((await world.store.get(long.id, include_result=True)).result.segments) == 8  # type: ignore[union-attr]


async def claimed_of(world: DispatchWorld) -> int:
    return sum(task.status is Status.PROCESSING for task in (await world.store.query(TaskQuery(limit=100))).tasks)


async def test_long_recordings_that_wait_for_a_slot_do_not_keep_others_from_the_queue() -> None:
    world = DispatchWorld(
        splitter=LongRecordings(parts=1, part_s=300.0),
        settings=quick_settings(max_concurrent_splits=4, max_active_tasks=24),
    )
    for _ in range(30):
        await add(world, None)
    clip = await add(world, None)
    async with world.running():
        await world.until(clip, lambda task: task.stage is Stage.SPLITTING)


async def test_tasks_that_wait_for_a_slot_are_limited() -> None:
    splitter = LongRecordings(parts=1, part_s=300.0)
    world = DispatchWorld(
        splitter=splitter,
        settings=quick_settings(max_concurrent_splits=2, max_active_tasks=24),
    )
    tasks = [await add(world, None) for _ in range(60)]
    async with world.running() as dispatcher:
        await world.until(tasks[0], lambda _: splitter.parts == 2)
        for _ in range(5):
            dispatcher.wake()
            await asyncio.sleep(0.01)
        assert await claimed_of(world) == 24 + 24
        splitter.go_on.set()
        for task in tasks:
            assert (await world.end_of(task)).status is Status.COMPLETED


async def test_a_recording_is_not_paused_if_no_other_waits() -> None:
    splitter = LongRecordings(parts=8, part_s=300.0)
    splitter.go_on.set()
    world = DispatchWorld(splitter=splitter, settings=quick_settings(max_concurrent_splits=1))
    task = await add(world, None)
    async with world.running():
        await world.end_of(task)
    assert len(splitter.requests) == 1


async def test_recordings_with_equal_progress_do_not_alternate_in_one_slot() -> None:
    splitter = LongRecordings(parts=16, part_s=300.0)
    splitter.go_on.set()
    world = DispatchWorld(splitter=splitter, settings=quick_settings(max_concurrent_splits=1))
    tasks = [await add(world, None) for _ in range(4)]
    async with world.running():
        for task in tasks:
            assert (await world.end_of(task)).status is Status.COMPLETED
    for task in tasks:
        begun = [request.first_part for request in splitter.requests if request.task_id == task.id]
        assert all(later >= PAUSE_GROWTH * earlier for earlier, later in itertools.pairwise(begun))
        assert sum(begun) < 1.5 * 16
