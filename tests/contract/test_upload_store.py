"""The contract of every upload store; the same tests over memory, SQLite and MySQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import uuid4

import pytest

from pipeline.domain.tasks.task import NewTask
from pipeline.domain.tasks.upload import Upload, UploadPart
from pipeline.errors import UploadNotFound, UploadStateConflict
from pipeline.ports import TaskStore, UploadStore
from pipeline.store.upload_store import SqlUploadStore
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.testing.memory_uploads import MemoryUploadStore
from tests.support.stores import sql_store

TTL = timedelta(hours=1)


@dataclass
class Stores:
    uploads: UploadStore
    tasks: TaskStore
    clock: ManualClock

    async def begun(self, size_bytes: int = 10, **fields: object) -> Upload:
        upload = Upload(id=uuid4().hex, size_bytes=size_bytes, expires_at=self.clock.now() + TTL)
        upload = replace(upload, **fields)  # type: ignore[arg-type]
        await self.uploads.create(upload)
        return upload


@pytest.fixture(params=["memory", "sqlite", "mysql"])
def url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "memory" else request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
async def stores(url: str | None, clock: ManualClock) -> AsyncIterator[Stores]:
    if url is None:
        yield Stores(MemoryUploadStore(clock), MemoryTaskStore(clock), clock)
        return
    async with AsyncExitStack() as stack:
        tasks = sql_store(url, clock)
        stack.push_async_callback(tasks.close)
        yield Stores(SqlUploadStore(tasks.database, clock), tasks, clock)


def part(start: int, end: int, key: str = "") -> UploadPart:
    return UploadPart(start, end, key or f"folder/{start:020d}")


async def test_an_upload_is_as_it_was_stored(stores: Stores) -> None:
    upload = await stores.begun(client="ann", metadata={"filename": "Gespräch 你好.m4a", "type": ""})
    assert await stores.uploads.get(upload.id) == upload
    assert await stores.uploads.parts(upload.id) == ()


async def test_parts_follow_each_other(stores: Stores) -> None:
    upload = await stores.begun()
    await stores.uploads.append(upload.id, [part(0, 4), part(4, 7)], upload.expires_at + TTL)
    await stores.uploads.append(upload.id, [part(7, 10)], upload.expires_at + TTL)
    now = await stores.uploads.get(upload.id)
    assert (now.received_bytes, now.complete, now.expires_at) == (10, True, upload.expires_at + TTL)
    assert await stores.uploads.parts(upload.id) == (part(0, 4), part(4, 7), part(7, 10))


@pytest.mark.parametrize("start", [0, 3, 5])
async def test_a_part_elsewhere_is_refused(stores: Stores, start: int) -> None:
    upload = await stores.begun()
    await stores.uploads.append(upload.id, [part(0, 4)], upload.expires_at)
    with pytest.raises(UploadStateConflict, match=f"is at byte 4, not at {start}"):
        await stores.uploads.append(upload.id, [part(start, 10)], upload.expires_at)
    assert await stores.uploads.parts(upload.id) == (part(0, 4),)


async def test_of_many_that_add_at_once_one_wins(stores: Stores) -> None:
    upload = await stores.begun()
    outcomes = await asyncio.gather(
        *(stores.uploads.append(upload.id, [part(0, 4, f"try/{number}")], upload.expires_at) for number in range(8)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes].count(UploadStateConflict) == 7
    [kept] = await stores.uploads.parts(upload.id)
    assert outcomes[int(kept.media_key.removeprefix("try/"))] is None


async def test_an_upload_becomes_a_task_and_goes_with_it(stores: Stores) -> None:
    upload = await stores.begun(size_bytes=4)
    await stores.uploads.append(upload.id, [part(0, 4)], upload.expires_at)
    task, _ = await stores.tasks.create(NewTask(media_prefix="a"))
    await stores.uploads.close(upload.id, task.id)
    closed = await stores.uploads.get(upload.id)
    assert (closed.task_id, await stores.uploads.parts(upload.id)) == (task.id, ())
    with pytest.raises(UploadStateConflict):
        await stores.uploads.append(upload.id, [part(4, 5)], upload.expires_at)


async def test_absent_and_expired_are_the_same(stores: Stores) -> None:
    upload = await stores.begun()
    stores.clock.advance(TTL.total_seconds())
    for upload_id in (upload.id, "absent"):
        with pytest.raises(UploadNotFound):
            await stores.uploads.get(upload_id)
    with pytest.raises(UploadNotFound):
        await stores.uploads.append("absent", [part(0, 1)], upload.expires_at)
    await stores.uploads.delete("absent")


async def test_the_expired_are_forgotten_and_the_living_stay(stores: Stores) -> None:
    old = [await stores.begun() for _ in range(3)]
    await stores.uploads.append(old[0].id, [part(0, 4)], old[0].expires_at)
    stores.clock.advance(TTL.total_seconds())
    young = await stores.begun()
    names = {upload.id for upload in [*old, young]}
    assert await stores.uploads.live_prefixes(names | {"absent"}) == names
    first = await stores.uploads.expire(2)
    second = await stores.uploads.expire(10)
    assert (len(first), set(first) | set(second)) == (2, {upload.id for upload in old})
    assert await stores.uploads.live_prefixes(names) == {young.id}
    assert await stores.uploads.parts(old[0].id) == ()
    await stores.uploads.delete(young.id)
    assert await stores.uploads.live_prefixes(names) == set()


async def test_uploads_under_way_are_counted_by_client(stores: Stores) -> None:
    first, second = [await stores.begun(client="ann") for _ in range(2)]
    await stores.begun()
    await stores.begun(client="bob")
    assert await stores.uploads.open_uploads("ann") == 2
    task, _ = await stores.tasks.create(NewTask(media_prefix="a"))
    await stores.uploads.close(first.id, task.id)
    assert await stores.uploads.open_uploads("ann") == 1
    stores.clock.advance(TTL.total_seconds())
    assert await stores.uploads.open_uploads("ann") == 0
    assert second.client == "ann"
