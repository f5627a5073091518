"""The expiry and deletion of tasks. The same tests over memory, SQLite and MySQL."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from pipeline.domain.tasks.task import (
    IdempotencyClaim,
    Status,
)
from pipeline.errors import TaskStateConflict
from pipeline.ports import Lease, StoredChunks, TaskQuery, TaskStore
from pipeline.testing.manual_clock import ManualClock
from tests.contract.tasks import DELIVERED, ERROR, LEASE, TRANSCRIPT, URL, chunk, claimed, completed, new_task

# --- housekeeping -----------------------------------------------------------------------------------------------------


async def test_finished_tasks_expire_oldest_first(store: TaskStore, clock: ManualClock) -> None:
    for prefix in ("first", "second", "third"):
        await completed(store, prefix=prefix)
        clock.advance(1)
    await store.create(new_task("queued"))
    await claimed(store, prefix="running")
    limit = clock.now() - timedelta(seconds=1)  # when the third finished

    assert await store.expire(limit, 1) == ["first"]
    assert await store.expire(limit, 10) == ["second"]
    assert await store.expire(limit, 10) == []
    assert {task.media_prefix for task in (await store.query(TaskQuery())).tasks} == {"third", "queued", "running"}


async def test_a_task_stays_until_its_callback_is_settled(store: TaskStore, clock: ManualClock) -> None:
    await completed(store, prefix="owing", callback_url=URL)
    clock.advance(100)
    kept = await store.expire(clock.now(), 10)
    [message] = await store.claim_callbacks("me", LEASE, 10)
    await store.record_delivery(message, DELIVERED)

    assert kept == []
    assert await store.expire(clock.now(), 10) == ["owing"]


async def test_a_task_that_nobody_waits_for_goes_whatever_its_state(store: TaskStore, clock: ManualClock) -> None:
    def until(seconds: float) -> datetime:
        return clock.now() + timedelta(seconds=seconds)

    await store.create(new_task("kept"))
    await completed(store, prefix="second", awaited_until=until(3))
    await claimed(store, prefix="first", awaited_until=until(2))
    renewed, _ = await store.create(new_task("renewed", awaited_until=until(1)))
    await store.extend_wait(renewed.id, until(10))
    await store.extend_wait(renewed.id + 1, until(10))

    assert (await store.get(renewed.id)).awaited_until == until(10)
    clock.advance(3)
    assert await store.delete_unawaited(10) == ["first"]
    clock.advance(0.001)
    assert await store.delete_unawaited(1) == ["second"]
    assert await store.delete_unawaited(10) == []
    assert {task.media_prefix for task in (await store.query(TaskQuery())).tasks} == {"kept", "renewed"}


async def test_live_prefixes_are_those_of_tasks(store: TaskStore) -> None:
    task, _ = await store.create(new_task("2025/a"))
    await completed(store, prefix="2025/b")
    strangers = {f"2025/{number}" for number in range(1200)}

    assert await store.live_prefixes(strangers | {"2025/a", "2025/b", "2025/A"}) == {"2025/a", "2025/b"}
    assert await store.live_prefixes(()) == set()
    await store.delete(task.id)
    assert await store.live_prefixes(["2025/a"]) == set()


async def test_a_store_answers_and_migrates_again(store: TaskStore) -> None:
    task, _ = await store.create(new_task())

    await store.migrate()
    await store.ping()

    assert await store.get(task.id) == task


# --- retention --------------------------------------------------------------------------------------------------------


async def test_recordings_kept_for_a_retry_expire(store: TaskStore, clock: ManualClock) -> None:
    task, lease = await claimed(store, prefix="failed")
    await store.add_part(lease, 0, 0, 10, [chunk(0)])
    await store.fail(lease, ERROR)
    await completed(store, prefix="completed")
    clock.advance(10)
    statuses = (Status.FAILED, Status.CANCELLED)
    assert await store.delete_expired_media(clock.now() - timedelta(seconds=20), 10, statuses) == []

    assert await store.delete_expired_media(clock.now(), 10, statuses) == ["failed"]

    assert await store.delete_expired_media(clock.now(), 10, statuses) == []
    assert await store.chunks(task.id) == StoredChunks()
    assert (await store.get(task.id)).media_key is None
    with pytest.raises(TaskStateConflict, match="no longer kept"):
        await store.retry(task.id)


async def test_what_can_be_fetched_again_is_retried_without_its_recording(store: TaskStore, clock: ManualClock) -> None:
    task, _ = await store.create(new_task(media_key=None, file_url="https://example.com/a.mp3"))
    await store.cancel(task.id)
    assert (await store.retry(task.id)).status is Status.QUEUED


async def test_settled_callbacks_are_forgotten_and_open_ones_kept(store: TaskStore, clock: ManualClock) -> None:
    await completed(store, callback_url=URL)
    [message] = await store.claim_callbacks("me", LEASE, 10)
    await store.record_delivery(message, DELIVERED)
    await completed(store, callback_url=URL)
    clock.advance(60)

    assert await store.prune_callbacks(clock.now() - timedelta(seconds=60), 10) == 0
    assert await store.prune_callbacks(clock.now(), 10) == 1
    assert await store.prune_callbacks(clock.now(), 10) == 0
    assert len(await store.claim_callbacks("me", LEASE, 10)) == 1


async def test_expired_keys_are_forgotten(store: TaskStore, clock: ManualClock) -> None:
    await store.create(new_task("old"), IdempotencyClaim("old", "f"))
    clock.advance(3600)
    await store.create(new_task("new"), IdempotencyClaim("new", "f"))

    assert await store.prune_idempotency_keys(10) == 1
    assert await store.prune_idempotency_keys(10) == 0
    assert (await store.create(new_task(), IdempotencyClaim("new", "f")))[1] is False


async def test_tasks_with_a_transcript_need_no_media(store: TaskStore) -> None:
    await store.create(new_task("waiting"))
    await claimed(store, prefix="done")
    done = next(task for task in (await store.query(TaskQuery())).tasks if task.media_prefix == "done")
    await store.complete(Lease(done.id, done.fence), TRANSCRIPT)

    assert await store.live_prefixes(["waiting", "done", "none"], transcribed=False) == {"waiting"}
    assert await store.live_prefixes(["waiting", "done", "none"]) == {"waiting", "done"}
