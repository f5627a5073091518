"""A task from its claim to its end. The same tests over memory, SQLite and MySQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.transcript import Transcript, TranscriptInfo
from pipeline.domain.tasks.task import (
    Stage,
    Status,
    TaskError,
)
from pipeline.errors import TaskNotFound, TaskStateConflict
from pipeline.ports import Lease, StoredChunks, TaskQuery, TaskStore
from pipeline.testing.manual_clock import ManualClock
from tests.contract.tasks import (
    CRAWLED,
    ERROR,
    LEASE,
    SEGMENTS,
    TRANSCRIPT,
    URL,
    chunk,
    claim_all,
    claimed,
    completed,
    failed,
    new_task,
    result,
)

# --- the run of a task ------------------------------------------------------------------------------------------------


async def test_what_a_site_says_is_kept_with_the_task(store: TaskStore) -> None:
    task, lease = await claimed(store)
    assert await store.crawl_record(task.id) is None

    await store.save_crawl_record(lease, replace(CRAWLED, title="before"))
    await store.save_crawl_record(lease, CRAWLED)

    assert await store.crawl_record(task.id) == CRAWLED
    await store.delete(task.id)
    with pytest.raises(TaskNotFound):
        await store.crawl_record(task.id)


async def test_an_update_sets_fields(store: TaskStore, clock: ManualClock) -> None:
    task, lease = await claimed(store)
    clock.advance(1)
    changes: dict[str, Any] = {
        "stage": Stage.SPLITTING,
        "media_key": "a/source",
        "file_duration_s": 12.345678901,
        "file_size_bytes": 2**40,
        "split_done": True,
        "truncated": True,
        "tracks": (Track(0, "aac", "zho", "国语", 2, default=True, chosen=True), Track(1, decodable=False)),
        "language": "yue",
        "language_probability": 1 / 3,
        "platform": "bilibili",
    }

    await store.update(lease, **changes)

    assert await store.get(task.id) == replace(task, updated_at=clock.now(), **changes)


@pytest.mark.parametrize("name", ["fence", "status", "audio_done_s", "result", "no_such_field"])
async def test_an_update_refuses_what_only_the_store_moves(store: TaskStore, name: str) -> None:
    _task, lease = await claimed(store)

    with pytest.raises(TypeError, match=name):
        await store.update(lease, **{name: 1})


async def test_parts_and_results_are_stored_once(store: TaskStore) -> None:
    task, lease = await claimed(store)
    await store.add_part(lease, 0, 0, 480_000, [chunk(0), chunk(1)])
    await store.add_part(lease, 1, 480_000, 960_000, [])
    await store.add_part(lease, 0, 0, 480_000, [chunk(0), chunk(1)])
    await store.save_results(lease, [result(1, " first"), result(1, " within one call")])
    await store.save_results(lease, [result(1, " again"), result(0)])
    await store.save_results(lease, [])

    stored = await store.chunks(task.id)

    assert stored == StoredChunks(
        (chunk(0), chunk(1)), (result(0), result(1, " first")), ((0, 0, 480_000), (1, 480_000, 960_000))
    )
    now = await store.get(task.id)
    assert (now.audio_total_s, now.audio_done_s) == (20.0, 20.0)


async def test_a_completed_task_has_all_of_its_audio_decoded(store: TaskStore) -> None:
    _task, lease = await claimed(store)
    await store.add_part(lease, 0, 0, 480_000, [chunk(0), chunk(1)])
    await store.save_results(lease, [result(0)])

    done = await store.complete(lease, TRANSCRIPT)

    assert (done.audio_total_s, done.audio_done_s) == (20.0, 20.0)


async def test_the_next_owner_resumes_from_what_is_stored(store: TaskStore, clock: ManualClock) -> None:
    task, lease = await claimed(store)
    await store.add_part(lease, 0, 0, 480_000, [chunk(0)])
    await store.save_results(lease, [result(0)])
    clock.advance(31)
    [again] = await claim_all(store)
    new_lease = Lease(again.id, again.fence)

    await store.add_part(new_lease, 0, 0, 480_000, [chunk(0)])
    await store.add_part(new_lease, 1, 480_000, 960_000, [chunk(1, part=1)])
    await store.save_results(new_lease, [result(0, " decoded twice"), result(1)])

    stored = await store.chunks(task.id)
    assert stored.results == (result(0), result(1))
    assert stored.chunks == (chunk(0), chunk(1, part=1))
    assert (await store.get(task.id)).audio_total_s == 20.0


async def test_many_chunks_come_back_in_order(store: TaskStore) -> None:
    task, lease = await claimed(store)
    for part in (1, 0):
        indexes = range(part * 30, part * 30 + 30)
        await store.add_part(lease, part, part * 10, part * 10 + 10, [chunk(i, part) for i in indexes])
    await store.save_results(lease, [result(index) for index in reversed(range(60))])

    stored = await store.chunks(task.id)

    assert [each.index for each in stored.chunks] == list(range(60))
    assert [each.index for each in stored.results] == list(range(60))
    assert [number for number, _start, _end in stored.parts] == [0, 1]
    assert [each.index for each in await store.results(task.id, first=58)] == [58, 59]
    assert await store.results(task.id + 1, first=0) == await store.results(2**63, first=0) == ()


async def test_a_completed_task_has_its_transcript_and_no_chunks(store: TaskStore, clock: ManualClock) -> None:
    task, lease = await claimed(store)
    await store.add_part(lease, 0, 0, 480_000, [chunk(0)])
    await store.save_results(lease, [result(0)])
    await store.update(lease, stage=Stage.FINISHING, split_done=True)
    clock.advance(2)

    done = await store.complete(lease, TRANSCRIPT)

    assert done == replace(
        task,
        status=Status.COMPLETED,
        finished_at=clock.now(),
        updated_at=clock.now(),
        owner=None,
        stage=None,
        lease_expires_at=None,
        audio_total_s=10.0,
        audio_done_s=10.0,
        split_done=True,
        language="zh",
        language_probability=0.75,
        file_duration_s=12.5,
    )
    assert await store.get(task.id) == done
    assert await store.get(task.id, include_result=True) == replace(done, result=TRANSCRIPT)
    assert await store.chunks(task.id) == StoredChunks()
    assert done.processing_s == 2.0


async def test_an_empty_transcript_is_a_result(store: TaskStore) -> None:
    _task, lease = await claimed(store)
    empty = Transcript("", (), TranscriptInfo("en", 0.0, 0.05, 0.0))

    done = await store.complete(lease, empty)

    assert (await store.get(done.id, include_result=True)).result == empty


async def test_a_large_transcript_is_kept_whole(store: TaskStore) -> None:
    _task, lease = await claimed(store)
    segments = tuple(replace(SEGMENTS[0], id=number) for number in range(5000))
    large = replace(TRANSCRIPT, text="长" * 100_000, segments=segments)

    done = await store.complete(lease, large)

    assert (await store.get(done.id, include_result=True)).result == large


async def test_a_failed_task_keeps_its_error_and_its_chunks(store: TaskStore, clock: ManualClock) -> None:
    task, lease = await claimed(store)
    await store.add_part(lease, 0, 0, 480_000, [chunk(0)])
    clock.advance(1)

    done = await store.fail(lease, ERROR)

    assert done == replace(
        task,
        status=Status.FAILED,
        failures=1,
        error=ERROR,
        finished_at=clock.now(),
        updated_at=clock.now(),
        owner=None,
        stage=None,
        lease_expires_at=None,
        audio_total_s=10.0,
    )
    assert await store.get(task.id) == done
    assert (await store.chunks(task.id)).chunks == (chunk(0),)


async def test_what_was_prepared_of_a_failed_task_can_be_forgotten(store: TaskStore) -> None:
    _task, lease = await claimed(store)
    await store.add_part(lease, 0, 0, 480_000, [chunk(0), chunk(1)])
    await store.save_results(lease, [result(0)])
    await store.update(lease, split_done=True)

    failed = await store.fail(lease, ERROR, keep_prepared=False)

    assert (failed.split_done, failed.audio_total_s, failed.audio_done_s) == (False, 0.0, 0.0)
    assert failed.media_key is not None
    assert await store.chunks(failed.id) == StoredChunks()


async def test_a_failed_attempt_is_queued_again_with_its_error(store: TaskStore, clock: ManualClock) -> None:
    task, lease = await claimed(store, callback_url=URL)
    retry_at = clock.now() + timedelta(seconds=7)

    again = await store.fail(lease, ERROR, retry_at)

    assert (again.status, again.error, again.available_at) == (Status.QUEUED, ERROR, retry_at)
    assert (again.owner, again.stage, again.lease_expires_at, again.finished_at) == (None, None, None, None)
    assert (again.attempts, again.fence) == (1, task.fence)
    assert await store.get(task.id) == again
    assert await store.claim_callbacks("me", LEASE, 10) == []


async def test_success_clears_the_error_of_an_earlier_attempt(store: TaskStore, clock: ManualClock) -> None:
    _task, lease = await claimed(store)
    await store.fail(lease, ERROR, clock.now())
    [again] = await claim_all(store)

    done = await store.complete(Lease(again.id, again.fence), TRANSCRIPT)

    assert again.error == ERROR
    assert done.error is None


async def test_a_released_task_has_lost_no_attempt(store: TaskStore) -> None:
    task, lease = await claimed(store)
    await store.update(lease, stage=Stage.SPLITTING)

    await store.release(lease)

    now = await store.get(task.id)
    assert (now.status, now.attempts, now.fence, now.owner, now.stage) == (Status.QUEUED, 0, 1, None, None)
    [again] = await claim_all(store)
    assert (again.attempts, again.fence) == (1, 2)


async def test_the_dead_are_buried_after_their_last_attempt(store: TaskStore, clock: ManualClock) -> None:
    task, _lease = await claimed(store, callback_url=URL)
    for _attempt in range(2):
        clock.advance(31)
        assert await store.fail_exhausted(3) == []
        assert len(await claim_all(store)) == 1
    alive = await store.fail_exhausted(3)
    clock.advance(31)
    claimable = await claim_all(store)

    [dead] = await store.fail_exhausted(3)

    assert (alive, claimable) == ([], [])
    assert (dead.id, dead.status, dead.attempts) == (task.id, Status.FAILED, 3)
    assert dead.error is not None
    assert dead.error.code == "attempts_exhausted"
    assert (dead.finished_at, dead.owner, dead.lease_expires_at) == (clock.now(), None, None)
    assert await store.get(task.id) == dead
    assert [message.task_id for message in await store.claim_callbacks("me", LEASE, 10)] == [task.id]
    assert await store.fail_exhausted(3) == []


# --- cancel, retry, delete --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [False, True])
async def test_a_cancelled_task_is_finished_without_a_callback(
    store: TaskStore, clock: ManualClock, running: bool
) -> None:
    task, _ = await store.create(new_task(callback_url=URL))
    fence = (await claim_all(store))[0].fence if running else 0
    clock.advance(1)

    cancelled = await store.cancel(task.id)

    assert (cancelled.status, cancelled.finished_at) == (Status.CANCELLED, clock.now())
    assert (cancelled.owner, cancelled.lease_expires_at, cancelled.stage) == (None, None, None)
    assert cancelled.fence > fence
    assert await store.get(task.id) == cancelled
    clock.advance(100)
    assert await claim_all(store) == []
    assert await store.claim_callbacks("me", LEASE, 10) == []


async def test_a_finished_task_is_not_cancelled(store: TaskStore) -> None:
    done, broken = await completed(store, prefix="done"), await failed(store, prefix="broken")
    cancelled = await store.cancel((await store.create(new_task("cancelled")))[0].id)

    for task in (done, broken, cancelled):
        with pytest.raises(TaskStateConflict):
            await store.cancel(task.id)
        assert await store.get(task.id) == task


async def test_a_failed_task_is_retried_from_its_chunks(store: TaskStore, clock: ManualClock) -> None:
    task, lease = await claimed(store)
    await store.add_part(lease, 0, 0, 480_000, [chunk(0)])
    await store.save_results(lease, [result(0)])
    await store.fail(lease, ERROR)
    clock.advance(1)

    again = await store.retry(task.id)

    assert (again.status, again.attempts, again.error) == (Status.QUEUED, 0, None)
    assert (again.started_at, again.finished_at, again.updated_at) == (None, None, clock.now())
    assert await store.get(task.id) == again
    assert (await store.chunks(task.id)).results == (result(0),)
    [running] = await claim_all(store)
    assert running.fence > task.fence


@pytest.mark.parametrize(
    ("file_url", "split_done", "kept"),
    [(None, False, True), ("https://a.example/a.mp3", False, False), ("https://a.example/a.mp3", True, True)],
)
async def test_a_retry_fetches_again_what_was_not_split(
    store: TaskStore, file_url: str | None, split_done: bool, kept: bool
) -> None:
    task, lease = await claimed(store, file_url=file_url, media_key="a/source")
    await store.update(lease, split_done=split_done)
    await store.fail(lease, ERROR)

    again = await store.retry(task.id)

    assert again.media_key == ("a/source" if kept else None)


async def test_a_cancelled_task_can_be_retried(store: TaskStore) -> None:
    task, lease = await claimed(store)
    await store.cancel(task.id)

    assert (await store.retry(task.id)).status is Status.QUEUED
    [running] = await claim_all(store)
    assert running.fence > lease.fence
    assert running.attempts == 1


async def test_only_failed_and_cancelled_tasks_are_retried(store: TaskStore) -> None:
    done = await completed(store, prefix="done")
    running, _lease = await claimed(store, prefix="running")
    queued, _ = await store.create(new_task("queued"))

    for task in (done, running, queued):
        with pytest.raises(TaskStateConflict):
            await store.retry(task.id)
        assert await store.get(task.id) == task


async def test_a_deleted_task_leaves_nothing(store: TaskStore) -> None:
    task, lease = await claimed(store, prefix="gone", callback_url=URL)
    await store.add_part(lease, 0, 0, 480_000, [chunk(0)])
    await store.save_results(lease, [result(0)])
    await store.fail(lease, ERROR)
    done = await completed(store, prefix="done", callback_url=URL)

    assert await store.delete(task.id) == "gone"
    assert await store.delete(done.id) == "done"

    for task_id in (task.id, done.id):
        with pytest.raises(TaskNotFound):
            await store.get(task_id, include_result=True)
        assert await store.chunks(task_id) == StoredChunks()
    assert (await store.query(TaskQuery())).total_count == 0
    assert await store.claim_callbacks("me", LEASE, 10) == []


async def test_a_wait_is_no_failure_and_is_shown_while_it_lasts(store: TaskStore, clock: ManualClock) -> None:
    full = TaskError("storage_full", "Waiting for space: the media store has no room left.")
    task, lease = await claimed(store)
    for _ in range(5):
        waiting = await store.fail(lease, full, clock.now() + timedelta(seconds=10), counted=False)
        assert (waiting.status, waiting.error, waiting.failures) == (Status.QUEUED, full, 0)
        assert await store.count_queued_with_error("storage_full") == 1
        assert await claim_all(store) == []
        clock.advance(10)
        [task] = await claim_all(store)
        lease = Lease(task.id, task.fence)
        assert await store.count_queued_with_error("storage_full") == 0
    assert (await store.complete(lease, TRANSCRIPT)).error is None
