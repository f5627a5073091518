"""The callbacks that a task store owes. The same tests over memory, SQLite and MySQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from pipeline.domain.tasks.task import (
    CallbackState,
)
from pipeline.ports import DeliveryAttempt, Lease, TaskQuery, TaskStore
from pipeline.testing.manual_clock import ManualClock
from tests.contract.tasks import DELIVERED, LEASE, TRANSCRIPT, URL, claim_all, completed, failed


async def test_every_finished_run_owes_one_callback(store: TaskStore) -> None:
    await completed(store, prefix="silent")
    done = await completed(store, prefix="done", callback_url=URL)
    broken = await failed(store, prefix="broken", callback_url=f"{URL}?broken=1")

    messages = await store.claim_callbacks("me", LEASE, 10)

    assert [(message.task_id, message.url, message.attempts) for message in messages] == [
        (done.id, URL, 0),
        (broken.id, f"{URL}?broken=1", 0),
    ]
    assert len({message.message_id for message in messages}) == 2


async def test_a_callback_is_given_to_one_at_a_time(
    store: TaskStore, other_store: TaskStore, clock: ManualClock
) -> None:
    for number in range(6):
        await completed(store, prefix=str(number), callback_url=URL)

    shares = await asyncio.gather(*(each.claim_callbacks("x", LEASE, 2) for each in (store, other_store) * 2))
    rest = await store.claim_callbacks("x", LEASE, 10)
    clock.advance(30)
    after_the_lease = await store.claim_callbacks("x", LEASE, 10)

    taken = [message.id for share in (*shares, rest) for message in share]
    assert len(taken) == len(set(taken)) == 6
    assert all(len(share) <= 2 for share in shares)
    assert {message.id for message in after_the_lease} == set(taken)
    assert await store.claim_callbacks("x", LEASE, 0) == []


async def test_a_delivered_callback_is_noted_and_done(store: TaskStore, clock: ManualClock) -> None:
    done = await completed(store, callback_url=URL)
    [message] = await store.claim_callbacks("me", LEASE, 10)
    clock.advance(1)

    await store.record_delivery(message, DeliveryAttempt(True, 204, "谢谢 😀", None))

    task = await store.get(done.id)
    assert task == replace(done, callback=CallbackState(204, "谢谢 😀", clock.now()), updated_at=clock.now())
    clock.advance(10_000)
    assert await store.claim_callbacks("me", LEASE, 10) == []


async def test_a_callback_is_retried_under_the_same_name(store: TaskStore, clock: ManualClock) -> None:
    done = await completed(store, callback_url=URL)
    [first] = await store.claim_callbacks("me", LEASE, 10)
    await store.record_delivery(first, DeliveryAttempt(False, 503, "later", clock.now() + timedelta(seconds=60)))
    noted = (await store.get(done.id)).callback
    clock.advance(59)
    early = await store.claim_callbacks("me", LEASE, 10)
    clock.advance(1)

    [second] = await store.claim_callbacks("me", LEASE, 10)

    assert (noted.status_code, noted.message, early) == (503, "later", [])
    assert second == replace(first, attempts=1)


async def test_a_callback_without_another_attempt_is_given_up(store: TaskStore, clock: ManualClock) -> None:
    done = await completed(store, callback_url=URL)
    [message] = await store.claim_callbacks("me", LEASE, 10)

    await store.record_delivery(message, DeliveryAttempt(False, None, "no connection", None))

    clock.advance(10_000)
    assert await store.claim_callbacks("me", LEASE, 10) == []
    assert (await store.get(done.id)).callback.message == "no connection"


async def test_a_settled_callback_stays_as_it_is(store: TaskStore, clock: ManualClock) -> None:
    done = await completed(store, callback_url=URL)
    [message] = await store.claim_callbacks("slow", LEASE, 10)
    clock.advance(31)
    [again] = await store.claim_callbacks("quick", LEASE, 10)
    await store.record_delivery(again, DELIVERED)

    await store.record_delivery(message, DeliveryAttempt(False, 500, "late", clock.now()))

    assert (await store.get(done.id)).callback.status_code == 200
    assert await store.claim_callbacks("me", LEASE, 10) == []


async def test_the_callback_of_a_deleted_task_is_nobodys(store: TaskStore) -> None:
    done = await completed(store, callback_url=URL)
    [message] = await store.claim_callbacks("me", LEASE, 10)
    await store.delete(done.id)

    await store.record_delivery(message, DELIVERED)

    assert (await store.query(TaskQuery())).total_count == 0


async def test_a_retry_withdraws_the_callback_of_the_failed_run(store: TaskStore, clock: ManualClock) -> None:
    broken = await failed(store, callback_url=URL)
    [old] = await store.claim_callbacks("me", LEASE, 10)
    await store.retry(broken.id)
    await store.record_delivery(old, DELIVERED)
    in_between = (await store.get(broken.id)).callback
    [running] = await claim_all(store)

    await store.complete(Lease(running.id, running.fence), TRANSCRIPT)

    [new] = await store.claim_callbacks("me", LEASE, 10)
    assert in_between == CallbackState()
    assert new.message_id != old.message_id
    clock.advance(31)
    assert len(await store.claim_callbacks("me", LEASE, 10)) == 1


async def test_one_clients_callbacks_leave_room_for_everybody_elses(store: TaskStore) -> None:
    greedy = [await completed(store, prefix=f"g{number}", callback_url=URL, client="greedy") for number in range(8)]
    modest = await completed(store, prefix="m", callback_url=URL, client="modest")

    first = await store.claim_callbacks("me", LEASE, 6)

    assert [message.task_id for message in first] == [*(task.id for task in greedy[:3]), modest.id]
    assert [message.client for message in first] == ["greedy"] * 3 + ["modest"]
    assert await store.claim_callbacks("me", LEASE, 2) == []
    nobodys = await completed(store, prefix="n", callback_url=URL)
    assert [message.task_id for message in await store.claim_callbacks("me", LEASE, 2)] == [nobodys.id]
    assert len(await store.claim_callbacks("another", LEASE, 100)) == 5
