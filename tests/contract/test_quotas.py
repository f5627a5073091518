"""Limits of clients, checked and used up in one step: whatever begins at the same moment can't all find room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.domain.tasks.client import DAY, AudioCharge, Client, Scope
from pipeline.domain.tasks.task import NewTask, Status, Task
from pipeline.domain.tasks.upload import Upload
from pipeline.errors import QuotaExceeded, TaskStateConflict
from pipeline.ports import Lease, TaskStore, UploadStore
from pipeline.store.sql_task_store import SqlTaskStore
from pipeline.store.upload_store import SqlUploadStore
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_uploads import MemoryUploadStore
from tests.contract.tasks import ERROR, chunk, claim_all, claimed, failed

ANN = Client("ann", frozenset({Scope.WRITE}), max_queued_tasks=5, max_audio_s=600.0)
AT_ONCE = 50
MINUTE = 16_000 * 60


def task_of(client: str = "ann", **fields: object) -> NewTask:
    return NewTask(media_prefix="a", media_key="a/source", client=client, **fields)  # type: ignore[arg-type]


async def accepted(attempts: Iterable[Awaitable[object]]) -> int:
    """Return the number of calls that succeed; the others have to be refused by a quota."""
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert all(isinstance(refusal, QuotaExceeded) for refusal in refused), refused
    return len(outcomes) - len(refused)


async def test_of_fifty_tasks_at_once_as_many_are_taken_as_the_limit_says(
    store: TaskStore, other_store: TaskStore
) -> None:
    stores = [store, other_store] * (AT_ONCE // 2)
    assert await accepted(each.create(task_of(), None, ANN) for each in stores) == ANN.max_queued_tasks
    assert (await store.client_load("ann")).queued_tasks == ANN.max_queued_tasks
    await store.create(task_of("bob"), None, replace(ANN, name="bob"))


async def test_of_fifty_retries_at_once_too(store: TaskStore, other_store: TaskStore) -> None:
    ended = [await store.create(task_of()) for _ in range(AT_ONCE)]
    for task, _ in ended:
        await store.cancel(task.id)
    retries = ((store, other_store)[number % 2].retry(task.id, ANN) for number, (task, _) in enumerate(ended))
    assert await accepted(retries) == ANN.max_queued_tasks
    assert (await store.client_load("ann")).queued_tasks == ANN.max_queued_tasks
    cancelled = [task for task, _ in ended if (await store.get(task.id)).status is Status.CANCELLED]
    assert len(cancelled) == AT_ONCE - ANN.max_queued_tasks, "a task that was refused stays as it was"


async def test_a_task_that_cant_be_retried_is_a_conflict_whatever_the_quota(store: TaskStore) -> None:
    tasks = [await store.create(task_of()) for _ in range(6)]
    with pytest.raises(TaskStateConflict):
        await store.retry(tasks[0][0].id, ANN)


async def test_an_administrator_may_retry_another_clients_task(store: TaskStore) -> None:
    tasks = [await store.create(task_of()) for _ in range(6)]
    await store.cancel(tasks[0][0].id)
    admin = Client("root", frozenset({Scope.ADMIN}), max_queued_tasks=1)
    assert (await store.retry(tasks[0][0].id, admin)).status is Status.QUEUED


async def test_of_fifty_uploads_at_once_as_many_begin_as_the_limit_says(store: TaskStore, clock: ManualClock) -> None:
    uploads: UploadStore = MemoryUploadStore(clock)
    if isinstance(store, SqlTaskStore):
        uploads = SqlUploadStore(store.database, clock)
    expires_at = clock.now() + timedelta(hours=1)
    begun = [Upload(id=f"{n:032x}", size_bytes=1, client="ann", expires_at=expires_at) for n in range(AT_ONCE)]
    assert await accepted(uploads.create(upload, ANN) for upload in begun) == ANN.max_queued_tasks
    assert await uploads.open_uploads("ann") == ANN.max_queued_tasks


async def take(store: TaskStore, lease: Lease, part: int, minutes: float = 1.0) -> None:
    length = int(minutes * MINUTE)
    charge = AudioCharge(minutes * 60.0, ANN.max_audio_s)
    await store.add_part(lease, part, part * length, (part + 1) * length, [chunk(part, part)], charge)


async def test_audio_counts_part_by_part_as_it_is_decoded(store: TaskStore) -> None:
    _task, lease = await claimed(store, client="ann")
    for part in range(7):
        await take(store, lease, part)
        assert (await store.client_load("ann")).audio_s == 60.0 * (part + 1)
    await store.update(lease, split_done=True, file_duration_s=420.0)
    await store.delete(lease.task_id)
    assert (await store.client_load("ann")).audio_s == 420.0


async def test_of_running_tasks_no_more_is_decoded_than_the_limit_says(
    store: TaskStore, other_store: TaskStore
) -> None:
    leases = [(await claimed(store, prefix=f"t{number}", client="ann"))[1] for number in range(AT_ONCE)]
    parts = (take((store, other_store)[number % 2], lease, 0) for number, lease in enumerate(leases))
    assert await accepted(parts) == 10
    assert (await store.client_load("ann")).audio_s == ANN.max_audio_s
    chunks = [await store.chunks(lease.task_id) for lease in leases]
    assert sum(bool(stored.parts) for stored in chunks) == 10, "a part that was refused is not there"


async def test_a_part_that_is_decoded_again_is_not_taken_again(store: TaskStore, clock: ManualClock) -> None:
    _task, lease = await claimed(store, client="ann")
    await take(store, lease, 0, minutes=10.0)
    await store.fail(lease, ERROR, clock.now(), keep_prepared=False)
    [again] = await claim_all(store)
    await take(store, Lease(again.id, again.fence), 0, minutes=10.0)
    with pytest.raises(QuotaExceeded, match=r"You have used 10\.0 of 10\.0 minutes of audio"):
        await take(store, Lease(again.id, again.fence), 1, minutes=10.0)
    assert (await store.client_load("ann")).audio_s == 600.0


async def test_a_retry_of_what_is_paid_for_needs_no_more_audio(store: TaskStore) -> None:
    _task, lease = await claimed(store, client="ann")
    await take(store, lease, 0, minutes=10.0)
    await store.update(lease, split_done=True, file_duration_s=600.0)
    await store.fail(lease, ERROR)
    unpaid = await failed(store, client="ann")
    assert (await store.retry(lease.task_id, ANN)).status is Status.QUEUED
    with pytest.raises(QuotaExceeded):
        await store.retry(unpaid.id, ANN)


async def test_recordings_that_wait_count_by_their_size(store: TaskStore) -> None:
    five_minutes = 300 * 16_000
    for _ in range(2):
        task, _ = await store.create(task_of(file_size_bytes=five_minutes), None, ANN)
    with pytest.raises(QuotaExceeded, match=r"used 0\.0 of 10\.0 .* waiting recordings have about 10\.0 more"):
        await store.create(task_of(), None, ANN)
    await store.cancel(task.id)
    await store.create(task_of(), None, ANN)


async def _split_some(store: TaskStore) -> Task:
    task, lease = await claimed(store, client="ann", file_size_bytes=300 * 16_000)
    await take(store, lease, 0)
    return task


async def test_what_is_decoded_of_a_recording_counts_only_once(store: TaskStore) -> None:
    await _split_some(store)
    load = await store.client_load("ann")
    assert (load.audio_s, load.pending_s) == (60.0, 240.0)


async def test_an_extraction_counts_by_its_size_and_then_by_its_length(store: TaskStore, clock: ManualClock) -> None:
    assert await store.begin_extraction(ANN, "e1", 120 * 16_000) == 120.0
    load = await store.client_load("ann")
    assert (load.audio_s, load.oldest_at) == (120.0, clock.now())
    await store.charge_extraction("e1", 600.0)
    assert (await store.client_load("ann")).audio_s == 600.0
    with pytest.raises(QuotaExceeded, match=r"You have used 10\.0 of 10\.0 minutes of audio"):
        await store.begin_extraction(ANN, "e2", 1)
    with pytest.raises(QuotaExceeded):
        await store.create(task_of(), None, ANN)
    clock.advance(DAY.total_seconds())
    await store.begin_extraction(ANN, "e3", 1)


async def test_of_fifty_extractions_at_once_as_many_begin_as_the_limit_says(
    store: TaskStore, other_store: TaskStore
) -> None:
    begun = (
        (store, other_store)[number % 2].begin_extraction(ANN, f"e{number}", 60 * 16_000) for number in range(AT_ONCE)
    )
    assert await accepted(begun) == 10


async def test_a_clock_that_jumps_forth_and_back_forgets_and_invents_nothing(
    store: TaskStore, clock: ManualClock
) -> None:
    _task, lease = await claimed(store, client="ann")
    await take(store, lease, 0)
    clock.advance(23.5 * 3600)
    clock.jump(3600.0)
    await store.delete_old_usage()
    assert (await store.client_load("ann")).audio_s == 0.0
    await take(store, lease, 1)
    clock.jump(-3600.0)
    assert (await store.client_load("ann")).audio_s == 120.0, "what counted before the jump counts again"
    await take(store, lease, 2, minutes=8.0)
    with pytest.raises(QuotaExceeded) as refusal:
        await store.create(task_of(), None, ANN)
    assert 0 < refusal.value.retry_after_s <= DAY.total_seconds()
    clock.advance(25 * 3600)
    assert (await store.client_load("ann")).audio_s == 0.0
