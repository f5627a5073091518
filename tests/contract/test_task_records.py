"""The records of tasks: creation, queries and idempotency keys. The same tests over memory, SQLite and MySQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcription_options import TaskType, TranscriptionOptions
from pipeline.domain.links.platforms import Link, LinkKind
from pipeline.domain.tasks.client import Client, ClientLoad, Scope
from pipeline.domain.tasks.task import (
    IdempotencyClaim,
    NewTask,
    Priority,
    Status,
    Task,
)
from pipeline.errors import IdempotencyConflict, QuotaExceeded, TaskNotFound
from pipeline.ports import DeliveryAttempt, Lease, StoredChunks, TaskQuery, TaskStore
from pipeline.testing.manual_clock import ManualClock
from tests.contract.tasks import ALL_RANKS, ERROR, TRANSCRIPT, URL, chunk, claimed, completed, new_task, result

# --- records ----------------------------------------------------------------------------------------------------------


async def test_a_created_task_holds_all_that_was_given(store: TaskStore, clock: ManualClock) -> None:
    options = TranscriptionOptions(
        task_type=TaskType.TRANSLATE, language="zh", initial_prompt="emoji 😀 和中文", clip_timestamps=(0.5, 9.25)
    )
    new = new_task(
        options=options,
        priority=Priority.HIGH,
        engine_name=EngineName.OPENAI_WHISPER,
        platform="douyin",
        callback_url=URL,
        media_key="a/source",
        file_url="https://example.com/?q=%E4%BD%A0",
        file_name="会议 😀 100%.mp3",
        file_size_bytes=5 * 2**32,
        link=Link(LinkKind.ANY, "vimeo", keep_record=False),
    )

    task, is_new = await store.create(new)

    assert is_new
    assert task == Task(
        id=task.id,
        status=Status.QUEUED,
        language="zh",
        created_at=clock.now(),
        updated_at=clock.now(),
        **{name: getattr(new, name) for name in NewTask.__dataclass_fields__},
    )
    assert await store.get(task.id) == task
    assert task.created_at.microsecond == 123456


async def test_ids_grow_and_never_come_back(store: TaskStore) -> None:
    first, _ = await store.create(new_task("a"))
    second, _ = await store.create(new_task("b"))
    await store.delete(second.id)

    third, _ = await store.create(new_task("c"))

    assert first.id < second.id < third.id


@pytest.mark.parametrize("task_id", [0, -1, 987_654_321, 2**63, 10**30])
async def test_an_id_that_names_nothing_is_not_found(store: TaskStore, task_id: int) -> None:
    for method in (store.get, store.cancel, store.retry, store.delete):
        with pytest.raises(TaskNotFound):
            await method(task_id)
    assert await store.chunks(task_id) == StoredChunks()


async def test_a_query_pages_in_a_total_order(store: TaskStore, clock: ManualClock) -> None:
    ids = [(await store.create(new_task(str(number))))[0].id for number in range(3)]
    clock.advance(1)
    ids += [(await store.create(new_task(str(number))))[0].id for number in range(3, 5)]

    pages = [await store.query(TaskQuery(limit=2, offset=offset)) for offset in (0, 2, 4, 6)]
    backwards = await store.query(TaskQuery(descending=True))

    assert [[task.id for task in page.tasks] for page in pages] == [ids[:2], ids[2:4], ids[4:], []]
    assert {page.total_count for page in pages} == {5}
    assert [task.id for task in backwards.tasks] == ids[::-1]


async def test_every_filter_of_a_query(store: TaskStore, clock: ManualClock) -> None:
    start = clock.now()
    plain, _ = await store.create(new_task("plain", options=TranscriptionOptions(language="de")))
    clock.advance(1)
    other, _ = await store.create(
        new_task(
            "other",
            options=TranscriptionOptions(task_type=TaskType.TRANSLATE),
            priority=Priority.LOW,
            engine_name=EngineName.OPENAI_WHISPER,
            platform="tiktok",
        )
    )
    done = await completed(store, prefix="done", priority=Priority.HIGH)
    await store.release(Lease(plain.id, 1))
    await store.fail(Lease(other.id, 1), ERROR)

    async def found(**fields: Any) -> set[int]:
        page = await store.query(TaskQuery(**fields))
        assert page.total_count == len(page.tasks)
        return {task.id for task in page.tasks}

    everything = {plain.id, other.id, done.id}
    assert await found() == everything
    assert await found(status=Status.QUEUED) == {plain.id}
    assert await found(priority=Priority.LOW) == {other.id}
    assert await found(engine_name="openai_whisper") == {other.id}
    assert await found(task_type="translate") == {other.id}
    assert await found(platform="tiktok") == {other.id}
    assert await found(platform="TikTok") == set()
    assert await found(language="de") == {plain.id}
    assert await found(language="zh") == {done.id}
    assert await found(has_result=True) == {done.id}
    assert await found(has_result=False) == everything - {done.id}
    assert await found(has_error=True) == {other.id}
    assert await found(has_error=False) == everything - {other.id}
    assert await found(created_before=start) == {plain.id}
    assert await found(created_after=clock.now()) == {other.id, done.id}
    assert await found(created_after=clock.now() + timedelta(microseconds=1)) == set()
    assert await found(status=Status.COMPLETED, has_error=False, language="zh", engine_name="faster_whisper") == {
        done.id
    }


async def test_a_query_leaves_results_out_when_told(store: TaskStore) -> None:
    task = await completed(store)

    with_result = (await store.query(TaskQuery())).tasks
    without = (await store.query(TaskQuery(include_result=False))).tasks

    assert with_result == (replace(task, result=TRANSCRIPT),)
    assert without == (task,)
    assert task.result is None


async def test_stats_count_what_waits_and_runs(store: TaskStore, clock: ManualClock) -> None:
    empty = await store.stats()
    _task, lease = await claimed(store, prefix="running")
    await store.add_part(lease, 0, 0, 480_000, [chunk(0), chunk(1)])
    await store.save_results(lease, [result(0)])
    await store.create(new_task("old", priority=Priority.LOW))
    clock.advance(2.5)
    await store.create(new_task("young"))

    stats = await store.stats()

    assert empty.queued_tasks == dict.fromkeys(Priority, 0)
    assert (empty.processing_tasks, empty.pending_audio_s, empty.oldest_queued_s) == (0, 0.0, 0.0)
    assert stats.queued_tasks == {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 1}
    assert (stats.processing_tasks, stats.pending_audio_s, stats.oldest_queued_s) == (1, 10.0, 2.5)
    assert stats.oldest_s == {Priority.HIGH: 0.0, Priority.NORMAL: 0.0, Priority.LOW: 2.5}


async def test_stats_count_the_callbacks_still_to_be_delivered(store: TaskStore) -> None:
    for number in range(2):
        _task, lease = await claimed(store, prefix=f"t{number}", callback_url="https://example.org/hook")
        await store.complete(lease, TRANSCRIPT)
    [message] = await store.claim_callbacks("me", timedelta(seconds=30), 1)
    await store.record_delivery(message, DeliveryAttempt(True, 200, "ok", None))

    assert (await store.stats()).waiting_callbacks == 1


# --- idempotency ------------------------------------------------------------------------------------------------------


KEY = IdempotencyClaim("k" * 300 + " 😀", "f" * 64)


async def test_the_same_key_and_request_return_the_original(store: TaskStore) -> None:
    first, is_new = await store.create(new_task("a"), KEY)
    again, is_new_again = await store.create(new_task("b"), KEY)
    other, is_new_other = await store.create(new_task("c"), replace(KEY, key="K" * 300 + " 😀"))

    assert (is_new, is_new_again, is_new_other) == (True, False, True)
    assert again == first
    assert other.id != first.id
    assert (await store.query(TaskQuery())).total_count == 2


async def test_the_original_is_returned_as_it_stands_now(store: TaskStore) -> None:
    first, _ = await store.create(new_task(), KEY)
    await store.cancel(first.id)

    again, _ = await store.create(new_task(), KEY)

    assert again.status is Status.CANCELLED


async def test_the_same_key_with_another_request_is_a_conflict(store: TaskStore) -> None:
    await store.create(new_task("a"), KEY)

    with pytest.raises(IdempotencyConflict):
        await store.create(new_task("b"), replace(KEY, fingerprint="0" * 64))

    assert (await store.query(TaskQuery())).total_count == 1


async def test_a_key_expires(store: TaskStore, clock: ManualClock) -> None:
    first, _ = await store.create(new_task("a"), KEY)
    clock.advance(3599)
    _, is_new_before = await store.create(new_task("b"), KEY)
    clock.advance(1)

    second, is_new = await store.create(new_task("c"), replace(KEY, fingerprint="0" * 64))

    assert (is_new_before, is_new) == (False, True)
    assert second.id != first.id
    assert (await store.create(new_task("d"), replace(KEY, fingerprint="0" * 64)))[0] == second


async def test_a_key_goes_with_its_task(store: TaskStore) -> None:
    first, _ = await store.create(new_task("a"), KEY)
    await store.delete(first.id)

    second, is_new = await store.create(new_task("b"), KEY)

    assert is_new
    assert second.id != first.id


async def test_of_two_racing_for_a_key_one_creates_the_task(store: TaskStore, other_store: TaskStore) -> None:
    stores = (store, other_store) * 5

    created = await asyncio.gather(*(each.create(new_task(str(n)), KEY) for n, each in enumerate(stores)))

    assert sum(is_new for _, is_new in created) == 1
    assert len({task.id for task, _ in created}) == 1
    assert (await store.query(TaskQuery())).total_count == 1


# --- clients ----------------------------------------------------------------------------------------------------------


ANN = Client("ann", frozenset({Scope.WRITE}), max_queued_tasks=2, max_audio_s=100.0)


async def split(store: TaskStore, client: str | None, duration_s: float) -> Lease:
    """Create a task of a client whose recording has been split."""
    await store.create(NewTask(media_prefix="a", media_key="a/source", client=client))
    [task] = await store.claim("test", timedelta(days=9), 1, ALL_RANKS)
    lease = Lease(task.id, task.fence)
    await store.update(lease, split_done=True, file_duration_s=duration_s)
    return lease


async def test_a_task_keeps_its_client(store: TaskStore) -> None:
    task, _ = await store.create(NewTask(media_prefix="a", client="ann"))
    await store.create(NewTask(media_prefix="b"))
    assert (await store.get(task.id)).client == "ann"
    page = await store.query(TaskQuery(client="ann"))
    assert (page.total_count, [found.id for found in page.tasks]) == (1, [task.id])


async def test_a_clients_waiting_tasks_are_counted_and_limited(store: TaskStore) -> None:
    for client in ("ann", "bob", None, "ann"):
        task, _ = await store.create(NewTask(media_prefix="a", client=client))
    assert (await store.client_load("ann")).queued_tasks == 2
    with pytest.raises(QuotaExceeded, match="2 of your tasks wait"):
        await store.create(NewTask(media_prefix="a", client="ann"), None, ANN)
    assert (await store.query(TaskQuery(client="ann"))).total_count == 2
    await store.cancel(task.id)
    await store.create(NewTask(media_prefix="a", client="ann"), None, ANN)


async def test_the_same_request_again_is_no_task_more(store: TaskStore) -> None:
    claim = IdempotencyClaim("key", "f" * 64)
    task, _ = await store.create(NewTask(media_prefix="a", client="ann"), claim, ANN)
    await store.create(NewTask(media_prefix="a", client="ann"), None, ANN)
    assert await store.create(NewTask(media_prefix="b", client="ann"), claim, ANN) == (task, False)


async def test_audio_is_counted_once_and_outlives_its_task(store: TaskStore, clock: ManualClock) -> None:
    begun_at = clock.now()
    lease = await split(store, "ann", 60.0)
    await store.update(lease, split_done=True, file_duration_s=60.0)
    clock.advance(60)
    await split(store, None, 1000.0)
    await store.delete((await split(store, "ann", 39.5)).task_id)
    load = await store.client_load("ann")
    assert (load.audio_s, load.oldest_at, load.queued_tasks) == (99.5, begun_at, 0)
    await store.create(NewTask(media_prefix="a", client="ann"), None, ANN)
    await split(store, "ann", 1.0)
    with pytest.raises(QuotaExceeded, match="minutes of audio"):
        await store.create(NewTask(media_prefix="a", client="ann"), None, ANN)


async def test_audio_leaves_the_count_after_a_day(store: TaskStore, clock: ManualClock) -> None:
    await split(store, "ann", 60.0)
    clock.advance(12 * 3600)
    await split(store, "ann", 30.0)
    await store.delete_old_usage()
    assert (await store.client_load("ann")).audio_s == 90.0
    clock.advance(12 * 3600)
    assert (await store.client_load("ann")).audio_s == 30.0
    await store.delete_old_usage()
    assert (await store.client_load("ann")).audio_s == 30.0
    clock.advance(12 * 3600)
    await store.delete_old_usage()
    assert await store.client_load("ann") == ClientLoad()
