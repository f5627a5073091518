from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

from pipeline.domain.task import NewTask, TaskError
from pipeline.ports import Lease, TaskQuery
from pipeline.settings import DispatchSettings
from pipeline.testing.clock import ManualClock
from pipeline.testing.media import MemoryMediaStore
from pipeline.testing.store import MemoryTaskStore
from pipeline.testing.uploads import MemoryUploadStore
from pipeline.usecases.reap import INTERVAL_S, ORPHAN_AGE, Reaper
from pipeline.usecases.resumable import ResumableUploads


class World:
    def __init__(self, **settings: float) -> None:
        self.clock = ManualClock()
        self.store = MemoryTaskStore(self.clock)
        self.media = MemoryMediaStore(now=self.clock.now)
        self.uploads = MemoryUploadStore(self.clock)
        self.reaper = Reaper(self.store, self.uploads, self.media, self.clock, DispatchSettings(**settings))

    async def media_of(self, prefix: str) -> None:
        async def sound() -> AsyncIterator[bytes]:
            yield b"sound"

        await self.media.write(f"{prefix}/source", sound())

    async def failed(self, prefix: str) -> None:
        await self.media_of(prefix)
        await self.store.create(NewTask(media_prefix=prefix))
        [task] = await self.store.claim("me", timedelta(seconds=30), 1, {1})
        await self.store.fail(Lease(task.id, task.fence), TaskError("media_undecodable", "No."))

    async def prefixes(self) -> set[str]:
        return {task.media_prefix for task in (await self.store.query(TaskQuery())).tasks}


async def test_finished_tasks_go_when_their_retention_is_over() -> None:
    world = World(retention_s=100)
    await world.failed("old")
    world.clock.advance(60)
    await world.failed("new")
    world.clock.advance(50)
    await world.reaper.reap()
    assert await world.prefixes() == {"new"}
    assert world.media.keys == {"new/source"}


async def test_without_a_retention_finished_tasks_stay() -> None:
    world = World()
    await world.failed("old")
    world.clock.advance(10_000_000)
    await world.reaper.reap()
    assert await world.prefixes() == {"old"}


async def test_media_without_a_task_goes_when_it_is_old_enough() -> None:
    world = World()
    await world.media_of("orphan")
    await world.failed("kept")
    await world.reaper.reap()
    assert world.media.keys == {"orphan/source", "kept/source"}
    world.clock.advance(ORPHAN_AGE.total_seconds() + 1)
    await world.reaper.reap()
    assert world.media.keys == {"kept/source"}


async def test_an_upload_goes_when_it_has_expired_and_not_before() -> None:
    world = World()
    ttl_s = 3 * ORPHAN_AGE.total_seconds()
    resumable = ResumableUploads(world.uploads, world.media, world.clock, max_upload_bytes=100, ttl_s=ttl_s)

    async def sound() -> AsyncIterator[bytes]:
        yield b"sound"

    upload = await resumable.append(await resumable.create(10, {}), 0, sound())
    world.clock.advance(ttl_s - 1)
    await world.reaper.reap()
    assert len(world.media.keys) == 1
    world.clock.advance(1)
    await world.reaper.reap()
    assert world.media.keys == frozenset()
    assert await world.uploads.live_prefixes({upload.id}) == set()


async def test_it_goes_on_after_an_outage_of_the_database() -> None:
    world = World(retention_s=1)
    await world.failed("old")
    world.clock.advance(10)
    world.store.available = False
    running = asyncio.create_task(world.reaper.run())
    while not world.clock.sleepers:
        await asyncio.sleep(0)
    world.store.available = True
    world.clock.advance(INTERVAL_S)
    while await world.prefixes():
        await asyncio.sleep(0)
    running.cancel()
