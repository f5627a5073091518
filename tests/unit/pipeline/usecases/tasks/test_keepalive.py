from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from pipeline.domain.tasks.task import NewTask
from pipeline.errors import TaskNotFound
from pipeline.settings import Settings
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_media import MemoryMediaStore
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.testing.memory_uploads import MemoryUploadStore
from pipeline.usecases.tasks.housekeeping import Housekeeper
from pipeline.usecases.tasks.keepalive import (
    KEEPALIVE_INTERVAL_S,
    KEEPALIVE_TTL,
    delete_task_and_media,
    discard_task,
    keep_alive,
)


class KeepaliveWorld:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryTaskStore(self.clock)
        self.media = MemoryMediaStore()
        self.cancelled: list[int] = []

    async def cancel(self, task_id: int) -> None:
        self.cancelled.append(task_id)

    async def task(self, *, awaited: bool = True) -> int:
        async def sound() -> AsyncIterator[bytes]:
            yield b"sound"

        await self.media.write("a/source", sound())
        until = self.clock.now() + KEEPALIVE_TTL if awaited else None
        task, _ = await self.store.create(NewTask(media_prefix="a", media_key="a/source", awaited_until=until))
        return task.id

    async def run_housekeeping(self) -> None:
        uploads = MemoryUploadStore(self.clock)
        await Housekeeper(self.store, uploads, self.media, self.clock, Settings()).run_once()

    async def pass_time(self, seconds: float) -> None:
        """Advance the clock in steps, so that every sleeper wakes in time and can sleep again."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            for _ in range(5):
                await asyncio.sleep(0)


async def test_a_defect_does_not_end_the_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    world = KeepaliveWorld()
    task_id = await world.task()
    async with keep_alive(world.store, world.clock, task_id):
        await asyncio.sleep(0)
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "extend_wait", lambda *_: {}[7])
            await world.pass_time(KEEPALIVE_INTERVAL_S)
        await world.pass_time(2 * KEEPALIVE_TTL.total_seconds())
        await world.run_housekeeping()
        assert await world.store.get(task_id)


async def test_a_task_without_a_readable_media_prefix_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = KeepaliveWorld()
    task_id = await world.task()

    async def delete(_task_id: int) -> str:
        return ""

    monkeypatch.setattr(world.store, "delete", delete)
    await delete_task_and_media(world.store, world.media, world.cancel, task_id)
    assert world.cancelled == [task_id]


async def test_a_task_is_kept_alive_and_deleted_when_its_process_dies() -> None:
    world = KeepaliveWorld()
    task_id = await world.task()
    async with keep_alive(world.store, world.clock, task_id):
        await asyncio.sleep(0)
        await world.pass_time(10 * KEEPALIVE_TTL.total_seconds())
        await world.run_housekeeping()
        assert await world.store.get(task_id)
    await world.pass_time(KEEPALIVE_TTL.total_seconds() - KEEPALIVE_INTERVAL_S)
    await world.run_housekeeping()
    assert await world.store.get(task_id)
    await world.pass_time(KEEPALIVE_INTERVAL_S + 1)
    await world.run_housekeeping()
    with pytest.raises(TaskNotFound):
        await world.store.get(task_id)
    assert not world.media.keys


async def test_other_tasks_stay() -> None:
    world = KeepaliveWorld()
    task_id = await world.task(awaited=False)
    await world.pass_time(500)
    await world.run_housekeeping()
    assert await world.store.get(task_id)


async def test_an_outage_of_the_database_does_not_end_the_keep_alive() -> None:
    world = KeepaliveWorld()
    task_id = await world.task()
    async with keep_alive(world.store, world.clock, task_id):
        await asyncio.sleep(0)
        world.store.available = False
        await world.pass_time(KEEPALIVE_INTERVAL_S + 1)
        world.store.available = True
        await world.pass_time(KEEPALIVE_INTERVAL_S)
        until = (await world.store.get(task_id)).awaited_until
    assert until == world.clock.now() - timedelta(seconds=1) + KEEPALIVE_TTL


async def test_a_deleted_task_leaves_no_media() -> None:
    world = KeepaliveWorld()
    task_id = await world.task()
    await delete_task_and_media(world.store, world.media, world.cancel, task_id)
    assert (world.cancelled, world.media.keys) == ([task_id], frozenset())
    with pytest.raises(TaskNotFound):
        await delete_task_and_media(world.store, world.media, world.cancel, task_id)
    await discard_task(world.store, world.media, world.cancel, task_id)


async def test_a_task_that_can_not_be_discarded_now_is_left_to_housekeeping(caplog: pytest.LogCaptureFixture) -> None:
    world = KeepaliveWorld()
    task_id = await world.task()
    world.store.available = False
    await discard_task(world.store, world.media, None, task_id)
    assert "left to housekeeping" in caplog.text
    world.store.available = True
    assert await world.store.get(task_id)
