"""Tasks whose clock is set back. The same tests over memory, SQLite and MySQL."""

from __future__ import annotations

from datetime import timedelta

from pipeline.domain.summaries.summary import SummaryOptions
from pipeline.domain.tasks.task import Task
from pipeline.ports import DeliveryAttempt, TaskStore
from pipeline.testing.manual_clock import ManualClock
from tests.contract.tasks import ALL_RANKS, DELIVERED, ERROR, LEASE, TRANSCRIPT, URL, claimed, completed

HOUR_S = 3600.0


async def failed_once(store: TaskStore, clock: ManualClock) -> Task:
    _task, lease = await claimed(store)
    return await store.fail(lease, ERROR, clock.now() + timedelta(seconds=30))


async def test_retries_callbacks_and_summaries_of_the_future_are_due_now(store: TaskStore, clock: ManualClock) -> None:
    clock.jump(HOUR_S)
    retried = await failed_once(store, clock)
    await completed(store, prefix="told", callback_url=URL)
    _task, lease = await claimed(store, prefix="summed", summary_options=SummaryOptions())
    await store.complete(lease, TRANSCRIPT)
    clock.jump(-HOUR_S)
    assert await store.claim("me", LEASE, 10, ALL_RANKS) == []
    assert await store.claim_callbacks("me", LEASE, 10) == []
    assert await store.claim_summaries("me", LEASE, 10) == []

    assert await store.release_postponed() == 3
    assert [task.id for task in await store.claim("me", LEASE, 10, ALL_RANKS)] == [retried.id]
    assert len(await store.claim_callbacks("me", LEASE, 10)) == 1
    assert len(await store.claim_summaries("me", LEASE, 10)) == 1
    assert await store.release_postponed() == 0


async def test_a_callback_that_failed_in_the_future_is_tried_again(store: TaskStore, clock: ManualClock) -> None:
    await completed(store, callback_url=URL)
    clock.jump(HOUR_S)
    [message] = await store.claim_callbacks("me", LEASE, 10)
    later = clock.now() + timedelta(seconds=30)
    await store.record_delivery(message, DeliveryAttempt(False, None, "No connection.", later))
    clock.jump(-HOUR_S)
    assert await store.release_postponed() == 1
    assert len(await store.claim_callbacks("me", LEASE, 10)) == 1


async def test_what_waits_for_good_reason_goes_on_waiting(store: TaskStore, clock: ManualClock) -> None:
    await failed_once(store, clock)
    await completed(store, prefix="told", callback_url=URL)
    [message] = await store.claim_callbacks("me", LEASE, 10)
    an_hour = clock.now() + timedelta(hours=1)
    await store.record_delivery(message, DeliveryAttempt(False, 503, "Later.", an_hour))
    assert await store.release_postponed() == 0


async def test_what_somebody_has_in_hand_is_left_to_them(store: TaskStore, clock: ManualClock) -> None:
    clock.jump(HOUR_S)
    await completed(store, callback_url=URL)
    [message] = await store.claim_callbacks("me", LEASE, 10)
    _task, running = await claimed(store, prefix="running")
    clock.jump(-HOUR_S)
    assert await store.release_postponed() == 0
    assert await store.heartbeat([running], LEASE) == frozenset()
    await store.record_delivery(message, DELIVERED)
