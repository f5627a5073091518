"""Who is split while the places are taken: a Dispatcher whose Splitter holds every recording until it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from pipeline.domain.task import NewTask, Priority, Status, Task
from pipeline.ports import SplitDone, SplitPart, SplitRequest
from pipeline.testing.fleet import FakeSplitter, made_chunks
from tests.unit.pipeline.usecases.test_dispatch import World, once, quick_settings


class HoldingSplitter(FakeSplitter):
    """Holds recordings of the client ``holds`` for ever, and lets all others through at once."""

    def __init__(self, holds: str) -> None:
        super().__init__(made_chunks(1))
        self._holds = holds

    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        if request.sharer == f"client {self._holds}":
            self.requests.append(request)
            await asyncio.Event().wait()
        async for event in super().split(request):
            yield event

    def begun_by(self, client: str) -> int:
        return sum(request.sharer == f"client {client}" for request in self.requests)


async def add(world: World, client: str | None, priority: Priority = Priority.NORMAL) -> Task:
    prefix = f"t{len(await world.media.prefixes())}"
    await world.media.write(f"{prefix}/source", once(b"sound"))
    new = NewTask(media_prefix=prefix, media_key=f"{prefix}/source", priority=priority, client=client)
    task, _ = await world.store.create(new)
    return task


def crowded(**dispatch: object) -> tuple[World, HoldingSplitter]:
    splitter = HoldingSplitter("greedy")
    return World(splitter=splitter, settings=quick_settings(**dispatch)), splitter


@pytest.mark.parametrize("priority", list(Priority))
@pytest.mark.parametrize("client", ["modest", None])
async def test_one_clients_long_recordings_leave_room_for_everybody_else(
    client: str | None, priority: Priority
) -> None:
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


async def test_the_splitter_is_told_who_shares_and_how_urgent_it_is() -> None:
    world, splitter = crowded()
    named, nameless = await add(world, "modest", Priority.HIGH), await add(world, None, Priority.LOW)
    async with world.running():
        await world.end_of(named)
        await world.end_of(nameless)
    shares = {request.task_id: (request.sharer, request.priority_rank) for request in splitter.requests}
    assert shares == {named.id: ("client modest", 0), nameless.id: (f"task {nameless.id}", 2)}
