"""The contract of every task store about summaries; the same tests over memory, SQLite and MySQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.decoding.transcript import Transcript, TranscriptInfo
from pipeline.domain.summaries.summary import (
    Chapter,
    StructuredSummary,
    Summary,
    SummaryFormat,
    SummaryOptions,
    SummaryStatus,
    TokenUsage,
)
from pipeline.domain.tasks.task import NewTask, Priority, Stage, Status, SummaryState, Task, TaskError
from pipeline.errors import LeaseLost, TaskNotFound, TaskStateConflict
from pipeline.ports import Lease, SummaryLease, TaskStore
from pipeline.testing.manual_clock import START, ManualClock

LEASE = timedelta(seconds=30)
ERROR = TaskError("llm_timeout", "The language model took longer than 120 s.")
OPTIONS = SummaryOptions(
    summary_prompt="Für den Vorstand 📈",
    summary_model="llama3.1:8b",
    summary_language="de",
    summary_format=SummaryFormat.STRUCTURED,
)
TRANSCRIPT = Transcript("Hello.", (), TranscriptInfo("en", 0.9, 12.5, 9.0))
SUMMARY = Summary(
    text='Begrüßung 你好 "so" \\ [00:00:01]',
    language="de",
    model="llama3.1:8b",
    created_at=START,
    completion_id="chatcmpl-1",
    parts=StructuredSummary("Titel", "Kurz.", (Chapter(1.5, "Anfang", "Alle grüßen."),), ("Brot kaufen",), ("Gruß",)),
    usage=TokenUsage(3, 1200, None),
    cost=0.0125,
)


async def transcribed(store: TaskStore, prefix: str = "a", **fields: Any) -> Task:
    """Create a task of which only the summary is missing."""
    chosen: dict[str, Any] = {"media_key": "a/source", "summary_options": OPTIONS}
    await store.create(NewTask(media_prefix=prefix, **chosen | fields))
    [task] = await store.claim("runner", LEASE, 1, (0, 1, 2))
    return await store.complete(Lease(task.id, task.fence), TRANSCRIPT)


async def taken(store: TaskStore) -> SummaryLease:
    [turn] = await store.claim_summaries("writer", LEASE, 10)
    return turn


async def test_what_was_asked_for_is_kept(store: TaskStore) -> None:
    task, _ = await store.create(NewTask(media_prefix="a", media_key="a/source", summary_options=OPTIONS))

    assert (await store.get(task.id)).summary_options == OPTIONS
    assert task.summary == SummaryState()
    assert task.summary_status is SummaryStatus.QUEUED


async def test_a_task_without_a_wish_for_a_summary_has_none(store: TaskStore) -> None:
    task = await transcribed(store, summary_options=None)

    assert (task.status, task.summary_status, task.summary_options) == (Status.COMPLETED, None, None)
    assert await store.claim_summaries("writer", LEASE, 10) == []


async def test_a_transcribed_task_stays_in_process_until_its_summary_is_there(store: TaskStore) -> None:
    task = await transcribed(store, callback_url="https://example.com/hook")

    assert (task.status, task.stage, task.owner, task.finished_at) == (
        Status.PROCESSING,
        Stage.SUMMARIZING,
        None,
        None,
    )
    assert (await store.get(task.id, include_result=True)).result == TRANSCRIPT
    assert await store.claim_callbacks("courier", LEASE, 10) == []


async def test_the_lease_of_the_transcription_has_ended(store: TaskStore) -> None:
    task = await transcribed(store)

    for write in (store.release, lambda lease: store.fail(lease, ERROR), lambda lease: store.update(lease, stage=None)):
        with pytest.raises(LeaseLost):
            await write(Lease(task.id, task.fence - 1))


async def test_it_is_not_claimed_or_buried_while_it_waits(store: TaskStore, clock: ManualClock) -> None:
    await transcribed(store)
    clock.advance(3600)

    assert await store.claim("other", LEASE, 10, (0, 1, 2)) == []
    assert await store.fail_exhausted(1) == []


async def test_a_summary_is_taken_by_one_for_the_time_of_its_lease(
    store: TaskStore, other_store: TaskStore, clock: ManualClock
) -> None:
    task = await transcribed(store)

    turn = await taken(store)

    assert turn == SummaryLease(task.id, task.media_prefix, task.fence, "writer", 1, OPTIONS)
    assert (await store.get(task.id)).summary_status is SummaryStatus.PROCESSING
    assert await other_store.claim_summaries("other", LEASE, 10) == []
    clock.advance(31)
    [again] = await other_store.claim_summaries("other", LEASE, 10)
    assert (again.owner, again.attempts) == ("other", 2)
    assert await store.renew_summaries([turn], LEASE) == {task.id}
    with pytest.raises(LeaseLost):
        await store.finish_summary(turn, SUMMARY)
    with pytest.raises(LeaseLost):
        await store.postpone_summary(turn, clock.now())


async def test_a_lease_is_renewed(store: TaskStore, clock: ManualClock) -> None:
    await transcribed(store)
    turn = await taken(store)

    for _ in range(3):
        clock.advance(20)
        assert await store.renew_summaries([turn], LEASE) == frozenset()

    assert await store.claim_summaries("other", LEASE, 10) == []
    assert await store.renew_summaries([], LEASE) == frozenset()


async def test_the_longest_due_are_taken_first_and_no_more_than_asked_for(store: TaskStore, clock: ManualClock) -> None:
    ids = []
    for prefix in "abc":
        ids.append((await transcribed(store, prefix)).id)
        clock.advance(1)

    assert [turn.task_id for turn in await store.claim_summaries("writer", LEASE, 2)] == ids[:2]
    assert await store.claim_summaries("writer", LEASE, 0) == []


async def test_with_its_summary_the_task_is_completed_and_its_callback_owed(
    store: TaskStore, clock: ManualClock
) -> None:
    task = await transcribed(store, callback_url="https://example.com/hook")
    turn = await taken(store)
    clock.advance(7)

    ended = await store.finish_summary(turn, SUMMARY)

    assert ended == await store.get(task.id)
    assert (ended.status, ended.stage, ended.finished_at) == (Status.COMPLETED, None, clock.now())
    assert ended.summary == SummaryState(result=SUMMARY, attempts=1)
    assert ended.summary_status is SummaryStatus.COMPLETED
    assert ended.error is None
    [message] = await store.claim_callbacks("courier", LEASE, 10)
    assert message.task_id == task.id
    clock.advance(3600)
    assert await store.claim_summaries("writer", LEASE, 10) == []


async def test_without_its_summary_the_task_is_completed_too(store: TaskStore) -> None:
    task = await transcribed(store, callback_url="https://example.com/hook")

    ended = await store.finish_summary(await taken(store), ERROR)

    assert (ended.status, ended.error, ended.summary_status) == (Status.COMPLETED, None, SummaryStatus.FAILED)
    assert ended.summary.error == ERROR
    assert (await store.get(task.id, include_result=True)).result == TRANSCRIPT
    assert len(await store.claim_callbacks("courier", LEASE, 10)) == 1


@pytest.mark.parametrize(("counted", "attempts"), [(True, 2), (False, 1)])
async def test_a_postponed_summary_comes_back(
    store: TaskStore, clock: ManualClock, counted: bool, attempts: int
) -> None:
    task = await transcribed(store)

    await store.postpone_summary(await taken(store), clock.now() + timedelta(seconds=60), ERROR, counted=counted)

    waiting = await store.get(task.id)
    assert (waiting.summary.error, waiting.summary_status) == (ERROR, SummaryStatus.QUEUED)
    clock.advance(59)
    assert await store.claim_summaries("writer", LEASE, 10) == []
    clock.advance(1)
    assert (await taken(store)).attempts == attempts
    await store.finish_summary(turn_of(waiting, attempts), SUMMARY)
    assert (await store.get(task.id)).summary.error is None


def turn_of(task: Task, attempts: int) -> SummaryLease:
    return SummaryLease(task.id, task.media_prefix, task.fence, "writer", attempts, OPTIONS)


async def test_cancelling_ends_the_summary_and_retrying_resumes_it(store: TaskStore, clock: ManualClock) -> None:
    task = await transcribed(store)
    turn = await taken(store)

    cancelled = await store.cancel(task.id)

    assert (cancelled.status, cancelled.summary_status) == (Status.CANCELLED, SummaryStatus.SKIPPED)
    with pytest.raises(LeaseLost):
        await store.finish_summary(turn, SUMMARY)
    clock.advance(3600)
    assert await store.claim_summaries("writer", LEASE, 10) == []

    retried = await store.retry(task.id)

    assert (retried.status, retried.stage) == (Status.PROCESSING, Stage.SUMMARIZING)
    again = await taken(store)
    assert again.attempts == 1
    assert again.fence > turn.fence
    with pytest.raises(LeaseLost):
        await store.finish_summary(turn, SUMMARY)
    assert (await store.finish_summary(again, SUMMARY)).status is Status.COMPLETED


async def test_a_task_that_fails_has_no_summary(store: TaskStore) -> None:
    await store.create(NewTask(media_prefix="a", media_key="a/source", summary_options=OPTIONS))
    [task] = await store.claim("runner", LEASE, 1, (0, 1, 2))

    failed = await store.fail(Lease(task.id, task.fence), ERROR)

    assert (failed.status, failed.summary_status) == (Status.FAILED, SummaryStatus.SKIPPED)
    assert (await store.retry(task.id)).status is Status.QUEUED


async def test_a_deleted_task_takes_its_summary_along(store: TaskStore) -> None:
    task = await transcribed(store)
    turn = await taken(store)

    await store.delete(task.id)

    assert await store.renew_summaries([turn], LEASE) == {task.id}
    with pytest.raises(LeaseLost):
        await store.finish_summary(turn, SUMMARY)


async def test_a_summary_can_be_stored_at_any_later_time(store: TaskStore, clock: ManualClock) -> None:
    task = await transcribed(store)
    await store.finish_summary(await taken(store), ERROR)
    clock.advance(5)

    await store.save_summary(task.id, SUMMARY)

    kept = await store.get(task.id)
    assert (kept.summary.result, kept.summary.error, kept.updated_at) == (SUMMARY, None, clock.now())
    assert kept.summary_status is SummaryStatus.COMPLETED
    with pytest.raises(TaskNotFound):
        await store.save_summary(task.id + 1, SUMMARY)
    with pytest.raises(TaskStateConflict):
        await store.retry(task.id)


async def test_one_clients_summaries_leave_room_for_everybody_elses(store: TaskStore) -> None:
    greedy = [await transcribed(store, f"g{number}", client="greedy") for number in range(12)]
    modest, nobodys = await transcribed(store, "m", client="modest"), await transcribed(store, "n")

    first = await store.claim_summaries("writer", LEASE, 8)

    assert [turn.task_id for turn in first] == [greedy[0].id, modest.id, nobodys.id, *(task.id for task in greedy[1:4])]
    assert await store.claim_summaries("writer", LEASE, 2) == []  # what is left free is for those to come
    late = await transcribed(store, "l", client="late")
    assert [turn.task_id for turn in await store.claim_summaries("writer", LEASE, 2)] == [late.id]


async def test_an_urgent_summary_is_taken_first(store: TaskStore) -> None:
    for number in range(4):
        await transcribed(store, f"a{number}", client="a")
    urgent = await transcribed(store, "b", client="b", priority=Priority.HIGH)

    assert (await store.claim_summaries("writer", LEASE, 4))[0].task_id == urgent.id


async def test_a_backlog_hides_neither_another_client_nor_a_clients_own_urgent_wish(store: TaskStore) -> None:
    for number in range(12):
        await transcribed(store, f"a{number}", client="a")
    for number in range(12):
        await transcribed(store, f"b{number}", client="b")
    urgent = await transcribed(store, "u", client="a", priority=Priority.HIGH)
    modest = await transcribed(store, "m", client="modest")

    turns = await store.claim_summaries("writer", LEASE, 4)

    assert {urgent.id, modest.id} <= {turn.task_id for turn in turns}
