from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from pipeline.domain.decoding.transcript import Transcript, TranscriptInfo
from pipeline.domain.tasks.task import NewTask, Status, Task, TaskError
from pipeline.ports import DeliveryAttempt, Lease, TaskQuery
from pipeline.settings import Settings
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_media import MemoryMediaStore
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.testing.memory_uploads import MemoryUploadStore
from pipeline.usecases.tasks.housekeeping import Housekeeper
from pipeline.usecases.tasks.resumable_uploads import ResumableUploads
from tests.support.recordings import stream

NOTHING_SAID = Transcript("", (), TranscriptInfo("en", 1.0, 1.0, 0.0, (), {}, {}))
DAY_S = 86_400.0


class HousekeepingWorld:
    def __init__(self, **settings: object) -> None:
        self.clock = ManualClock()
        self.store = MemoryTaskStore(self.clock, idempotency_ttl_s=DAY_S)
        self.media = MemoryMediaStore(now=self.clock.now)
        self.uploads = MemoryUploadStore(self.clock)
        self.housekeeper = Housekeeper(self.store, self.uploads, self.media, self.clock, Settings(**settings))  # type: ignore[arg-type]

    async def add(self, name: str, callback_url: str | None = None) -> Task:
        await self.media.write(f"{name}/source", stream(b"sound"))
        new = NewTask(media_prefix=name, media_key=f"{name}/source", callback_url=callback_url)
        return (await self.store.create(new))[0]

    async def run_to(self, status: Status, name: str, callback_url: str | None = None) -> Task:
        task = await self.add(name, callback_url)
        if status is Status.CANCELLED:
            return await self.store.cancel(task.id)
        [claimed] = await self.store.claim("me", timedelta(seconds=30), 1, [1])
        lease = Lease(claimed.id, claimed.fence)
        if status is Status.FAILED:
            return await self.store.fail(lease, TaskError("source_timeout", "Too slow."))
        return await self.store.complete(lease, NOTHING_SAID) if status is Status.COMPLETED else claimed

    async def left(self) -> set[str]:
        return set(await self.media.prefixes())


async def test_media_without_a_task_is_deleted_once_it_is_old() -> None:
    world = HousekeepingWorld(media={"orphan_age_s": 600})
    await world.media.write("orphan/source", stream(b"sound"))
    await world.add("waiting")
    world.clock.advance(600)
    await world.housekeeper.run_once()
    assert await world.left() == {"orphan", "waiting"}
    world.clock.advance(1)
    await world.housekeeper.run_once()
    assert await world.left() == {"waiting"}


async def test_media_of_a_completed_task_is_deleted_if_its_dispatcher_died() -> None:
    world, keeping = HousekeepingWorld(), HousekeepingWorld(media={"keep_source": True, "retention_s": None})
    for each in (world, keeping):
        for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.PROCESSING):
            await each.run_to(status, status.value)
        await each.housekeeper.run_once()
    assert await world.left() == {"failed", "cancelled", "processing"}
    assert await keeping.left() == {"completed", "failed", "cancelled", "processing"}


@pytest.mark.parametrize("keep_source", [False, True])
async def test_recordings_of_finished_tasks_are_deleted_after_their_retention(keep_source: bool) -> None:
    world = HousekeepingWorld(media={"retention_s": 7 * DAY_S, "keep_source": keep_source, "orphan_age_s": 1e9})
    for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED):
        await world.run_to(status, status.value)
    await world.add("waiting")
    world.clock.advance(7 * DAY_S)
    await world.housekeeper.run_once()
    assert await world.left() == {"waiting", "failed", "cancelled"} | ({"completed"} if keep_source else set())
    world.clock.advance(1)
    await world.housekeeper.run_once()
    assert await world.left() == {"waiting"}
    assert (await world.store.query(TaskQuery())).total_count == 4


async def test_results_are_deleted_after_their_retention() -> None:
    world = HousekeepingWorld(dispatch={"retention_s": DAY_S})
    await world.run_to(Status.COMPLETED, "old")
    world.clock.advance(DAY_S)
    await world.run_to(Status.COMPLETED, "new")
    world.clock.advance(1)
    await world.housekeeper.run_once()
    assert [task.media_prefix for task in (await world.store.query(TaskQuery())).tasks] == ["new"]
    assert await world.left() == set()


async def test_callbacks_are_deleted_after_their_retention_unless_undelivered() -> None:
    world = HousekeepingWorld(callback={"retention_s": DAY_S})
    await world.run_to(Status.COMPLETED, "told", "https://example.com/")
    [message] = await world.store.claim_callbacks("me", timedelta(), 1)
    await world.store.record_delivery(message, DeliveryAttempt(True, 200, "ok", None))
    await world.run_to(Status.COMPLETED, "owed", "https://example.com/")
    world.clock.advance(DAY_S + 1)
    await world.housekeeper.run_once()
    assert await world.store.prune_callbacks(world.clock.now(), 10) == 0
    assert len(await world.store.claim_callbacks("me", timedelta(), 10)) == 1


async def test_housekeeping_continues_after_an_exception(caplog: pytest.LogCaptureFixture) -> None:
    world = HousekeepingWorld(dispatch={"retention_s": DAY_S})
    await world.media.write("orphan/source", stream(b"sound"))
    world.clock.advance(601)
    prefixes, failures = world.media.prefixes, [OSError("The bucket does not answer."), OSError("Again.")]

    async def moody() -> object:
        if failures:
            raise failures.pop()
        return await prefixes()

    world.media.prefixes = moody  # type: ignore[method-assign, assignment]
    running = asyncio.create_task(world.housekeeper.run())
    for _ in range(3):
        while not world.clock.sleepers:
            await asyncio.sleep(0)
        world.clock.advance(60)
    while await world.left():
        await asyncio.sleep(0)
    running.cancel()
    assert caplog.text.count("deleting orphaned media failed") == 2


async def test_without_a_retention_finished_tasks_stay() -> None:
    world = HousekeepingWorld(media={"retention_s": None})
    await world.run_to(Status.FAILED, "old")
    world.clock.advance(1e9)
    await world.housekeeper.run_once()
    assert await world.left() == {"old"}
    assert (await world.store.query(TaskQuery())).total_count == 1


async def test_an_upload_goes_when_it_has_expired_and_not_before() -> None:
    world = HousekeepingWorld()
    ttl_s = 3 * Settings().media.orphan_age_s
    resumable = ResumableUploads(world.uploads, world.media, world.clock, max_upload_bytes=100, ttl_s=ttl_s)

    upload = await resumable.append(await resumable.create(10, {}), 0, stream(b"sound"))
    world.clock.advance(ttl_s - 1)
    await world.housekeeper.run_once()
    assert len(world.media.keys) == 1
    world.clock.advance(1)
    await world.housekeeper.run_once()
    assert world.media.keys == frozenset()
    assert await world.uploads.live_prefixes({upload.id}) == set()


async def test_housekeeping_continues_after_an_outage_of_the_database() -> None:
    world = HousekeepingWorld(dispatch={"retention_s": 1})
    await world.run_to(Status.FAILED, "old")
    world.clock.advance(10)
    world.store.available = False
    running = asyncio.create_task(world.housekeeper.run())
    while not world.clock.sleepers:
        await asyncio.sleep(0)
    world.store.available = True
    world.clock.advance(60)
    while await world.left():
        await asyncio.sleep(0)
    running.cancel()


async def test_nothing_expires_because_the_clock_was_changed() -> None:
    world = HousekeepingWorld(media={"orphan_age_s": 600})
    await world.media.write("upload-under-way/source", stream(b"sound"))
    await world.housekeeper.run_once()
    world.clock.jump(3600)
    await world.housekeeper.run_once()
    assert await world.left() == {"upload-under-way"}
    world.clock.advance(60)
    await world.media.write("upload-under-way/source", stream(b"more"))
    await world.housekeeper.run_once()
    assert await world.left() == {"upload-under-way"}
    world.clock.advance(601)
    await world.housekeeper.run_once()
    assert await world.left() == set(), "what is really old goes"


async def test_a_drifting_clock_does_not_count_as_changed() -> None:
    world = HousekeepingWorld(media={"orphan_age_s": 600})
    await world.media.write("orphan/source", stream(b"sound"))
    world.clock.advance(601)
    world.clock.jump(-0.5)
    await world.housekeeper.run_once()
    assert await world.left() == set()


async def test_callbacks_that_a_changed_clock_postponed_are_due() -> None:
    world = HousekeepingWorld()
    world.clock.jump(3600)
    await world.run_to(Status.COMPLETED, "task", "https://example.com/hook")
    world.clock.jump(-3600)
    await world.housekeeper.run_once()
    assert len(await world.store.claim_callbacks("me", timedelta(seconds=30), 10)) == 1
