"""Claims and leases of tasks, those of lost owners included. The same tests over memory, SQLite and MySQL."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.scheduling.claim_rule import RunningTasks
from pipeline.domain.summaries.summary import SummaryOptions
from pipeline.domain.tasks.task import (
    Priority,
    Stage,
    Status,
    Task,
)
from pipeline.errors import LeaseLost
from pipeline.ports import Lease, TaskQuery, TaskStore
from pipeline.testing.manual_clock import ManualClock
from tests.contract.tasks import (
    ALL_RANKS,
    CRAWLED,
    ERROR,
    LEASE,
    TRANSCRIPT,
    URL,
    chunk,
    claim_all,
    claimed,
    completed,
    new_task,
    result,
)

# --- claims -----------------------------------------------------------------------------------------------------------


async def test_a_claim_takes_the_task(store: TaskStore, clock: ManualClock) -> None:
    created, _ = await store.create(new_task())
    clock.advance(1)

    [task] = await store.claim("me", LEASE, 5, ALL_RANKS)

    assert task == replace(
        created,
        status=Status.PROCESSING,
        stage=created.first_stage,
        owner="me",
        lease_expires_at=clock.now() + LEASE,
        fence=1,
        attempts=1,
        started_at=clock.now(),
        updated_at=clock.now(),
    )
    assert await store.get(task.id) == task
    assert await store.claim("you", LEASE, 5, ALL_RANKS) == []


async def test_a_claim_shows_what_the_attempt_begins_with(store: TaskStore, clock: ManualClock) -> None:
    await store.create(new_task("link", media_key=None, file_url="https://example.com/a.mp3"))
    await store.create(new_task("file", media_key="file/source"))
    link, file = await claim_all(store)
    assert (link.stage, file.stage) == (Stage.FETCHING, Stage.SPLITTING)
    await store.update(Lease(file.id, file.fence), split_done=True)
    await store.release(Lease(file.id, file.fence))
    [again] = await claim_all(store)
    assert again.stage is Stage.TRANSCRIBING


async def test_claims_go_by_priority_then_age_then_id(store: TaskStore, clock: ManualClock) -> None:
    for prefix, priority, pause in [
        ("normal 1", Priority.NORMAL, 0),
        ("normal 2", Priority.NORMAL, 1),
        ("low", Priority.LOW, 1),
        ("high", Priority.HIGH, 1),
        ("normal 3", Priority.NORMAL, 0),
    ]:
        await store.create(new_task(prefix, priority=priority))
        clock.advance(pause)

    first = await claim_all(store, limit=2)
    rest = await claim_all(store)

    assert [task.media_prefix for task in first] == ["high", "normal 1"]
    assert [task.media_prefix for task in rest] == ["normal 2", "normal 3", "low"]


async def test_age_lifts_a_task_by_a_rank_each_period(store: TaskStore, clock: ManualClock) -> None:
    await store.create(new_task("low, 1300 s", priority=Priority.LOW))
    clock.advance(701)
    await store.create(new_task("low, 599 s", priority=Priority.LOW))
    await store.create(new_task("normal, 599 s"))
    clock.advance(599)
    await store.create(new_task("high", priority=Priority.HIGH))

    tasks = await claim_all(store)

    assert [task.media_prefix for task in tasks] == ["low, 1300 s", "high", "normal, 599 s", "low, 599 s"]


async def test_age_lifts_without_end(store: TaskStore, clock: ManualClock) -> None:
    await store.create(new_task("low", priority=Priority.LOW))
    clock.advance(600)
    await store.create(new_task("high", priority=Priority.HIGH))
    clock.advance(3 * 600)

    tasks = await claim_all(store)

    # Four periods against three: -2 against -3.
    assert [task.media_prefix for task in tasks] == ["high", "low"]


async def test_a_client_s_task_is_claimed_at_once_although_another_has_hundreds_queued(
    store: TaskStore, clock: ManualClock
) -> None:
    for number in range(200):
        await store.create(new_task(f"many {number}", client="many"))
    clock.advance(1)
    await store.create(new_task("one", client="one"))

    tasks = await claim_all(store, limit=3)

    assert [task.media_prefix for task in tasks] == ["many 0", "one", "many 1"]


async def test_clients_take_turns_given_what_runs_of_each(store: TaskStore) -> None:
    for client, number in (("a", 5), ("b", 5), (None, 2)):
        for index in range(number):
            await store.create(new_task(f"{client} {index}", client=client))
    running = RunningTasks({(1, "a"): 3, (1, "b"): 1})

    tasks = await store.claim("me", LEASE, 6, ALL_RANKS, running)

    assert [task.media_prefix for task in tasks] == ["None 0", "b 0", "None 1", "b 1", "a 0", "b 2"]


async def test_where_all_room_is_taken_only_who_runs_less_than_a_share_gets_more(store: TaskStore) -> None:
    for client in ("a", "b"):
        for index in range(5):
            await store.create(new_task(f"{client} {index}", client=client))

    beside = await store.claim("me", LEASE, 10, ALL_RANKS, RunningTasks({(1, "a"): 4}, limit=4))
    nobody = await store.claim("me", LEASE, 10, ALL_RANKS, RunningTasks({(1, "a"): 4, (1, "b"): 2}, limit=4))

    assert [task.media_prefix for task in beside] == ["b 0", "b 1"]
    assert nobody == []


async def test_of_more_clients_than_one_claim_looks_at_each_gets_its_turn(store: TaskStore, clock: ManualClock) -> None:
    for number in range(3):
        for client in range(40):
            await store.create(new_task(f"{client}/{number}", client=f"client {client:02d}"))
            clock.advance(0.001)
    claims: list[str] = []
    running: Counter[tuple[int, str | None]] = Counter()

    while tasks := await store.claim("me", LEASE, 7, ALL_RANKS, RunningTasks(running)):
        claims += [task.media_prefix for task in tasks]
        running.update((1, task.client) for task in tasks)

    assert claims == [f"{client}/{number}" for number in range(3) for client in range(40)]


async def test_tasks_of_clients_that_wait_for_their_next_attempt_hide_nothing(
    store: TaskStore, clock: ManualClock
) -> None:
    for number in range(3):
        _task, lease = await claimed(store, prefix=f"later {number}", client="a")
        await store.fail(lease, ERROR, retry_at=clock.now() + timedelta(seconds=60))
    await store.create(new_task("due", client="a"))

    assert [task.media_prefix for task in await claim_all(store)] == ["due"]
    clock.advance(60)
    assert {task.media_prefix for task in await claim_all(store)} >= {"later 0", "later 1", "later 2"}


async def test_what_a_lost_owner_had_of_clients_is_claimed_by_turns_too(store: TaskStore, clock: ManualClock) -> None:
    for index in range(3):
        await store.create(new_task(f"a {index}", client="a"))
    await claim_all(store)
    await store.create(new_task("b 0", client="b"))
    clock.advance(31)

    tasks = await claim_all(store)

    assert [task.media_prefix for task in tasks] == ["a 0", "b 0", "a 1", "a 2"]


async def test_a_claim_asks_for_ranks(store: TaskStore) -> None:
    for priority in Priority:
        await store.create(new_task(priority.value, priority=priority))

    nothing = await claim_all(store, ranks=())
    none = await claim_all(store, limit=0)
    tasks = await claim_all(store, ranks=(0, 2))

    assert (nothing, none) == ([], [])
    assert [task.priority for task in tasks] == [Priority.HIGH, Priority.LOW]


async def test_a_task_that_waits_for_its_next_attempt_is_not_claimed_early(
    store: TaskStore, clock: ManualClock
) -> None:
    _task, lease = await claimed(store)
    await store.fail(lease, ERROR, retry_at=clock.now() + timedelta(seconds=5))
    clock.advance(4.999999)
    early = await claim_all(store)
    clock.advance(0.000001)

    [task] = await claim_all(store)

    assert early == []
    assert (task.attempts, task.fence, task.available_at) == (2, 2, None)


async def test_an_expired_lease_is_claimed_by_another(store: TaskStore, clock: ManualClock) -> None:
    first, _lease = await claimed(store)
    clock.advance(30)
    at_the_end = await claim_all(store)
    clock.advance(0.000001)

    [second] = await store.claim("another", LEASE, 1, ALL_RANKS)

    assert at_the_end == []
    assert (second.id, second.owner, second.fence, second.attempts) == (first.id, "another", 2, 2)


async def test_expired_and_queued_tasks_are_claimed_in_one_order(store: TaskStore, clock: ManualClock) -> None:
    await claimed(store, prefix="expired")
    await store.create(new_task("queued"))
    clock.advance(31)
    await store.create(new_task("high", priority=Priority.HIGH))

    tasks = await claim_all(store)

    assert [task.media_prefix for task in tasks] == ["high", "expired", "queued"]


async def test_concurrent_claims_take_each_task_once(store: TaskStore, other_store: TaskStore) -> None:
    ids = [(await store.create(new_task(str(number))))[0].id for number in range(60)]

    async def work(each: TaskStore, owner: str) -> list[Task]:
        taken: list[Task] = []
        while tasks := await each.claim(owner, LEASE, 3, ALL_RANKS):
            taken += tasks
        return taken

    shares = await asyncio.gather(*(work(each, f"{n}") for n, each in enumerate((store, other_store) * 3)))

    counts = Counter(task.id for share in shares for task in share)
    assert counts == Counter(ids)
    assert all(task.fence == 1 for share in shares for task in share)
    assert all([task.id for task in share] == sorted(task.id for task in share) for share in shares)


async def test_a_claim_passes_over_what_another_takes_in_the_same_moment(
    store: TaskStore, other_store: TaskStore
) -> None:
    for number in range(20):
        await store.create(new_task(str(number)))

    shares = await asyncio.gather(*(each.claim("x", LEASE, 1, ALL_RANKS) for each in (store, other_store) * 10))

    assert Counter(len(share) for share in shares) == {1: 20}


# --- leases -----------------------------------------------------------------------------------------------------------


async def test_a_heartbeat_keeps_the_task(store: TaskStore, clock: ManualClock) -> None:
    task, lease = await claimed(store)
    clock.advance(29)

    lost = await store.heartbeat([lease], LEASE)
    clock.advance(29)

    assert lost == frozenset()
    assert await claim_all(store) == []
    assert (await store.get(task.id)).lease_expires_at == clock.now() + timedelta(seconds=1)


async def test_a_heartbeat_names_the_tasks_that_are_lost(store: TaskStore, clock: ManualClock) -> None:
    kept, kept_lease = await claimed(store, prefix="kept")
    stolen, stolen_lease = await claimed(store, prefix="stolen")
    cancelled, cancelled_lease = await claimed(store, prefix="cancelled")
    deleted, deleted_lease = await claimed(store, prefix="deleted")
    await store.cancel(cancelled.id)
    await store.delete(deleted.id)
    await store.heartbeat([kept_lease], timedelta(hours=1))
    clock.advance(31)
    await claim_all(store)

    lost = await store.heartbeat([kept_lease, stolen_lease, cancelled_lease, deleted_lease], LEASE)

    assert lost == {stolen.id, cancelled.id, deleted.id}
    assert (await store.get(kept.id)).lease_expires_at == clock.now() + LEASE
    assert await store.heartbeat([], LEASE) == frozenset()


async def test_a_heartbeat_revives_an_expired_lease_nobody_took(store: TaskStore, clock: ManualClock) -> None:
    _task, lease = await claimed(store)
    clock.advance(100)

    assert await store.heartbeat([lease], LEASE) == frozenset()
    assert await claim_all(store) == []


LEASED_WRITES: dict[str, Callable[[TaskStore, Lease], Awaitable[object]]] = {
    "update": lambda store, lease: store.update(lease, stage=Stage.TRANSCRIBING),
    "save_crawl_record": lambda store, lease: store.save_crawl_record(lease, CRAWLED),
    "add_part": lambda store, lease: store.add_part(lease, 7, 0, 16_000, [chunk(7)]),
    "save_results": lambda store, lease: store.save_results(lease, [result(7)]),
    "complete": lambda store, lease: store.complete(lease, TRANSCRIPT),
    "fail": lambda store, lease: store.fail(lease, ERROR),
    "retry later": lambda store, lease: store.fail(lease, ERROR, lease_end()),
    "release": lambda store, lease: store.release(lease),
}


def lease_end() -> Any:
    return ManualClock().now() + timedelta(hours=1)


async def _reclaimed(store: TaskStore, clock: ManualClock, task: Task) -> None:
    clock.advance(31)
    assert [each.id for each in await claim_all(store)] == [task.id]


async def _cancelled(store: TaskStore, _clock: ManualClock, task: Task) -> None:
    await store.cancel(task.id)


async def _deleted(store: TaskStore, _clock: ManualClock, task: Task) -> None:
    await store.delete(task.id)


async def _released(store: TaskStore, _clock: ManualClock, task: Task) -> None:
    await store.release(Lease(task.id, task.fence))


async def _completed(store: TaskStore, _clock: ManualClock, task: Task) -> None:
    await store.complete(Lease(task.id, task.fence), TRANSCRIPT)


@pytest.mark.parametrize("end", [_reclaimed, _cancelled, _deleted, _released, _completed])
@pytest.mark.parametrize("write", LEASED_WRITES)
async def test_no_write_under_a_lost_lease(
    store: TaskStore,
    clock: ManualClock,
    write: str,
    end: Callable[[TaskStore, ManualClock, Task], Awaitable[None]],
) -> None:
    task, lease = await claimed(store, callback_url=URL)
    await end(store, clock, task)
    before = (await store.query(TaskQuery())).tasks, await store.chunks(task.id)
    owed = len(await store.claim_callbacks("me", timedelta(0), 10))

    with pytest.raises(LeaseLost):
        await LEASED_WRITES[write](store, lease)

    assert ((await store.query(TaskQuery())).tasks, await store.chunks(task.id)) == before
    assert len(await store.claim_callbacks("me", timedelta(0), 10)) == owed


# --- progress, and owners that are lost -------------------------------------------------------------------------------


async def test_a_task_that_gets_further_is_no_dead_letter_however_often_its_owner_is_lost(
    store: TaskStore, clock: ManualClock
) -> None:
    _task, lease = await claimed(store)
    for index in range(6):
        await store.save_results(lease, [result(index)])
        clock.advance(31)
        assert await store.fail_exhausted(3) == []
        [again] = await claim_all(store)
        assert (again.attempts, again.losses) == (index + 2, 1)
        lease = Lease(again.id, again.fence)
    await store.save_results(lease, [result(0)])  # stored before: no progress
    clock.advance(31)
    [again] = await claim_all(store)
    assert again.losses == 2
    clock.advance(31)
    assert await claim_all(store) == []
    [dead] = await store.fail_exhausted(3)
    assert dead.error is not None
    assert "3 times in a row" in dead.error.message


async def test_a_part_is_progress_too(store: TaskStore, clock: ManualClock) -> None:
    _task, lease = await claimed(store)
    await store.fail(lease, ERROR, clock.now())
    [again] = await claim_all(store)
    assert (again.failures, again.losses) == (1, 0)
    await store.add_part(Lease(again.id, again.fence), 0, 0, 10, [])
    assert (await store.get(again.id)).failures == 0


async def test_failures_in_a_row_are_counted_until_a_retry(store: TaskStore, clock: ManualClock) -> None:
    for expected in (0, 1):
        [task] = await claim_all(store) or [(await claimed(store))[0]]
        assert task.failures == expected
        await store.fail(Lease(task.id, task.fence), ERROR, clock.now())
    [task] = await claim_all(store)
    assert (await store.fail(Lease(task.id, task.fence), ERROR)).failures == 3
    fresh = await store.retry(task.id)
    assert (fresh.failures, fresh.losses, fresh.attempts) == (0, 0, 0)


async def test_what_a_dead_owner_held_is_free_at_once(store: TaskStore, clock: ManualClock) -> None:
    await completed(store, callback_url=URL)
    task, lease = await claimed(store)
    [message] = await store.claim_callbacks("owner", LEASE, 10)
    assert await store.lease_owners() == {"owner"}
    await store.expire_leases_of("somebody else")
    assert await claim_all(store) == []

    await store.expire_leases_of("owner")

    [again] = await store.claim("next", LEASE, 10, ALL_RANKS)
    assert (again.id, again.fence, again.losses) == (task.id, lease.fence + 1, 1)
    assert [each.message_id for each in await store.claim_callbacks("next", LEASE, 10)] == [message.message_id]
    assert await store.lease_owners() == {"next"}
    with pytest.raises(LeaseLost):
        await store.complete(lease, TRANSCRIPT)


async def test_the_summary_a_dead_owner_had_in_hand_is_due_at_once(store: TaskStore) -> None:
    await completed(store, summary_options=SummaryOptions())
    [turn] = await store.claim_summaries("owner", LEASE, 10)
    assert await store.lease_owners() == {"owner"}
    assert await store.claim_summaries("next", LEASE, 10) == []

    await store.expire_leases_of("owner")

    [again] = await store.claim_summaries("next", LEASE, 10)
    assert (again.task_id, again.attempts) == (turn.task_id, turn.attempts + 1)


async def test_recordings_that_wait_count_by_their_size(store: TaskStore) -> None:
    await completed(store, file_size_bytes=1_000)  # 12.5 s
    assert (await store.stats()).pending_audio_s == 0.0
    await store.create(new_task(file_size_bytes=8_000))
    assert (await store.stats()).pending_audio_s == pytest.approx(100.0)
    _task, lease = await claimed(store, file_size_bytes=1_000)
    await store.add_part(lease, 0, 0, 10, [chunk(0), chunk(1)])
    await store.update(lease, split_done=True)
    await store.save_results(lease, [result(0)])
    assert (await store.stats()).pending_audio_s == pytest.approx(110.0)


async def test_thousands_of_leases_are_renewed_at_once(store: TaskStore) -> None:
    task, held = await claimed(store)
    others = [Lease(task.id + number, 1) for number in range(1, 3000)]
    lost = await store.heartbeat([held, *others], LEASE)
    assert lost == frozenset(lease.task_id for lease in others)


async def test_a_lease_is_not_renewed_by_the_fence_of_another(store: TaskStore, clock: ManualClock) -> None:
    (first, one), (second, _) = await claimed(store, prefix="a"), await claimed(store, prefix="b")
    stale = Lease(second.id, second.fence + 1)
    assert await store.heartbeat([one, stale], 2 * LEASE) == {second.id}
    clock.advance(1.5 * LEASE.total_seconds())
    assert [task.id for task in await store.claim("other", LEASE, 10, ALL_RANKS)] == [second.id]
    assert first.id != second.id
