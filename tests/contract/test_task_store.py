"""What every task store promises; the same tests over memory, SQLite and MySQL."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.domain.access import Client, ClientLoad, Scope
from pipeline.domain.audio import Chunk, Span
from pipeline.domain.crawl import CrawlRecord, Link, LinkKind
from pipeline.domain.options import TaskType, TranscriptionOptions
from pipeline.domain.summary import SummaryOptions
from pipeline.domain.task import (
    CallbackState,
    EngineName,
    IdempotencyClaim,
    NewTask,
    Priority,
    Stage,
    Status,
    Task,
    TaskError,
)
from pipeline.domain.transcript import ChunkResult, LanguageDetection, Segment, Transcript, TranscriptInfo, Word
from pipeline.errors import IdempotencyConflict, LeaseLost, QuotaExceeded, TaskNotFound, TaskStateConflict
from pipeline.ports import DeliveryAttempt, Lease, StoredChunks, TaskQuery, TaskStore
from pipeline.testing.clock import ManualClock

LEASE = timedelta(seconds=30)
ALL_RANKS = (0, 1, 2)
ERROR = TaskError("source_timeout", "The source took longer than 10 s.")
URL = "https://example.com/hook"
DELIVERED = DeliveryAttempt(True, 200, "ok", None)

WORDS = (Word(0.0, 0.5, " 你好", 0.987654321), Word(0.5, 1.1, " naïve 😀", 0.5))
SEGMENTS = (
    Segment(1, 0, 0.0, 1.1, " 你好 naïve 😀", (50364, 2425), 0.2, -0.123456789, 1.25, 1e-9, WORDS),
    Segment(2, 110, 1.1, 2.0, ' "quoted" \\ %s :x', (), 0.0, -0.5, 1.0, 0.0, None),
)
TRANSCRIPT = Transcript(
    '你好 naïve 😀 "quoted" \\ %s :x',
    SEGMENTS,
    TranscriptInfo("zh", 0.75, 12.5, 9.25, (("zh", 0.75), ("en", 0.2)), {"beam_size": 5}, {"threshold": 0.5}),
)


def new_task(prefix: str = "a", **fields: Any) -> NewTask:
    return NewTask(media_prefix=prefix, **({"media_key": f"{prefix}/source"} | fields))


def chunk(index: int, part: int = 0, seconds: int = 10) -> Chunk:
    start = index * 20 * 16_000
    spans = (Span(start, start + 16_000), Span(start + 32_000, start + 32_000 + (seconds - 1) * 16_000))
    return Chunk(index, part, part_start=0, spans=spans)


def result(index: int, text: str = " hello") -> ChunkResult:
    segment = replace(SEGMENTS[0], id=0, text=text)
    return ChunkResult(index, 10.0, (segment,), "en", LanguageDetection("en", 0.9, (("en", 0.9), ("de", 0.1))), 2)


async def claim_all(store: TaskStore, limit: int = 10, ranks: tuple[int, ...] = ALL_RANKS) -> list[Task]:
    return await store.claim("owner", LEASE, limit, ranks)


async def claimed(store: TaskStore, **fields: Any) -> tuple[Task, Lease]:
    """A task that runs, and its lease."""
    task, _new = await store.create(new_task(**fields))
    tasks = await claim_all(store)
    return next((each, Lease(each.id, each.fence)) for each in tasks if each.id == task.id)


async def completed(store: TaskStore, **fields: Any) -> Task:
    _task, lease = await claimed(store, **fields)
    return await store.complete(lease, TRANSCRIPT)


async def failed(store: TaskStore, **fields: Any) -> Task:
    _task, lease = await claimed(store, **fields)
    return await store.fail(lease, ERROR)


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
    [message] = await store.due_callbacks("me", timedelta(seconds=30), 1)
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


CRAWLED = CrawlRecord(
    platform="tiktok",
    media_id="7332187682480590112",
    url="https://www.tiktok.com/@_/video/7332187682480590112",
    title="会议 😀",
    duration_s=4.5,
    published_at=datetime(2024, 2, 5, 16, 20, tzinfo=UTC),
    view_count=2**40,
    crawled_at=datetime(2026, 11, 24, 6, 0, 0, 123456, tzinfo=UTC),
    library="yt-dlp 2026.10.26",
)

LEASED_WRITES: dict[str, Callable[[TaskStore, Lease], Awaitable[object]]] = {
    "update": lambda store, lease: store.update(lease, stage=Stage.TRANSCRIBING),
    "save_crawl": lambda store, lease: store.save_crawl(lease, CRAWLED),
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
    owed = len(await store.due_callbacks("me", timedelta(0), 10))

    with pytest.raises(LeaseLost):
        await LEASED_WRITES[write](store, lease)

    assert ((await store.query(TaskQuery())).tasks, await store.chunks(task.id)) == before
    assert len(await store.due_callbacks("me", timedelta(0), 10)) == owed


# --- the run of a task ------------------------------------------------------------------------------------------------


async def test_what_a_site_says_is_kept_with_the_task(store: TaskStore) -> None:
    task, lease = await claimed(store)
    assert await store.crawl_record(task.id) is None

    await store.save_crawl(lease, replace(CRAWLED, title="before"))
    await store.save_crawl(lease, CRAWLED)

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
    assert await store.due_callbacks("me", LEASE, 10) == []


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
        assert await store.bury(3) == []
        assert len(await claim_all(store)) == 1
    alive = await store.bury(3)
    clock.advance(31)
    claimable = await claim_all(store)

    [dead] = await store.bury(3)

    assert (alive, claimable) == ([], [])
    assert (dead.id, dead.status, dead.attempts) == (task.id, Status.FAILED, 3)
    assert dead.error is not None
    assert dead.error.code == "attempts_exhausted"
    assert (dead.finished_at, dead.owner, dead.lease_expires_at) == (clock.now(), None, None)
    assert await store.get(task.id) == dead
    assert [message.task_id for message in await store.due_callbacks("me", LEASE, 10)] == [task.id]
    assert await store.bury(3) == []


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
    assert await store.due_callbacks("me", LEASE, 10) == []


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
    assert await store.due_callbacks("me", LEASE, 10) == []


# --- callbacks --------------------------------------------------------------------------------------------------------


async def test_every_finished_run_owes_one_callback(store: TaskStore) -> None:
    await completed(store, prefix="silent")
    done = await completed(store, prefix="done", callback_url=URL)
    broken = await failed(store, prefix="broken", callback_url=f"{URL}?broken=1")

    messages = await store.due_callbacks("me", LEASE, 10)

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

    shares = await asyncio.gather(*(each.due_callbacks("x", LEASE, 2) for each in (store, other_store) * 2))
    rest = await store.due_callbacks("x", LEASE, 10)
    clock.advance(30)
    after_the_lease = await store.due_callbacks("x", LEASE, 10)

    taken = [message.id for share in (*shares, rest) for message in share]
    assert len(taken) == len(set(taken)) == 6
    assert all(len(share) <= 2 for share in shares)
    assert {message.id for message in after_the_lease} == set(taken)
    assert await store.due_callbacks("x", LEASE, 0) == []


async def test_a_delivered_callback_is_noted_and_done(store: TaskStore, clock: ManualClock) -> None:
    done = await completed(store, callback_url=URL)
    [message] = await store.due_callbacks("me", LEASE, 10)
    clock.advance(1)

    await store.record_delivery(message, DeliveryAttempt(True, 204, "谢谢 😀", None))

    task = await store.get(done.id)
    assert task == replace(done, callback=CallbackState(204, "谢谢 😀", clock.now()), updated_at=clock.now())
    clock.advance(10_000)
    assert await store.due_callbacks("me", LEASE, 10) == []


async def test_a_callback_is_retried_under_the_same_name(store: TaskStore, clock: ManualClock) -> None:
    done = await completed(store, callback_url=URL)
    [first] = await store.due_callbacks("me", LEASE, 10)
    await store.record_delivery(first, DeliveryAttempt(False, 503, "later", clock.now() + timedelta(seconds=60)))
    noted = (await store.get(done.id)).callback
    clock.advance(59)
    early = await store.due_callbacks("me", LEASE, 10)
    clock.advance(1)

    [second] = await store.due_callbacks("me", LEASE, 10)

    assert (noted.status_code, noted.message, early) == (503, "later", [])
    assert second == replace(first, attempts=1)


async def test_a_callback_without_another_attempt_is_given_up(store: TaskStore, clock: ManualClock) -> None:
    done = await completed(store, callback_url=URL)
    [message] = await store.due_callbacks("me", LEASE, 10)

    await store.record_delivery(message, DeliveryAttempt(False, None, "no connection", None))

    clock.advance(10_000)
    assert await store.due_callbacks("me", LEASE, 10) == []
    assert (await store.get(done.id)).callback.message == "no connection"


async def test_a_settled_callback_stays_as_it_is(store: TaskStore, clock: ManualClock) -> None:
    done = await completed(store, callback_url=URL)
    [message] = await store.due_callbacks("slow", LEASE, 10)
    clock.advance(31)
    [again] = await store.due_callbacks("quick", LEASE, 10)
    await store.record_delivery(again, DELIVERED)

    await store.record_delivery(message, DeliveryAttempt(False, 500, "late", clock.now()))

    assert (await store.get(done.id)).callback.status_code == 200
    assert await store.due_callbacks("me", LEASE, 10) == []


async def test_the_callback_of_a_deleted_task_is_nobodys(store: TaskStore) -> None:
    done = await completed(store, callback_url=URL)
    [message] = await store.due_callbacks("me", LEASE, 10)
    await store.delete(done.id)

    await store.record_delivery(message, DELIVERED)

    assert (await store.query(TaskQuery())).total_count == 0


async def test_a_retry_withdraws_the_callback_of_the_failed_run(store: TaskStore, clock: ManualClock) -> None:
    broken = await failed(store, callback_url=URL)
    [old] = await store.due_callbacks("me", LEASE, 10)
    await store.retry(broken.id)
    await store.record_delivery(old, DELIVERED)
    in_between = (await store.get(broken.id)).callback
    [running] = await claim_all(store)

    await store.complete(Lease(running.id, running.fence), TRANSCRIPT)

    [new] = await store.due_callbacks("me", LEASE, 10)
    assert in_between == CallbackState()
    assert new.message_id != old.message_id
    clock.advance(31)
    assert len(await store.due_callbacks("me", LEASE, 10)) == 1


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
    [message] = await store.due_callbacks("me", LEASE, 10)
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
    await store.await_until(renewed.id, until(10))
    await store.await_until(renewed.id + 1, until(10))

    assert (await store.get(renewed.id)).awaited_until == until(10)
    clock.advance(3)
    assert await store.expire_unawaited(10) == ["first"]
    clock.advance(0.001)
    assert await store.expire_unawaited(1) == ["second"]
    assert await store.expire_unawaited(10) == []
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


# --- progress, and owners that are lost -------------------------------------------------------------------------------


async def test_a_task_that_gets_further_is_no_dead_letter_however_often_its_owner_is_lost(
    store: TaskStore, clock: ManualClock
) -> None:
    _task, lease = await claimed(store)
    for index in range(6):
        await store.save_results(lease, [result(index)])
        clock.advance(31)
        assert await store.bury(3) == []
        [again] = await claim_all(store)
        assert (again.attempts, again.losses) == (index + 2, 1)
        lease = Lease(again.id, again.fence)
    await store.save_results(lease, [result(0)])  # stored before: no progress
    clock.advance(31)
    [again] = await claim_all(store)
    assert again.losses == 2
    clock.advance(31)
    assert await claim_all(store) == []
    [dead] = await store.bury(3)
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
    [message] = await store.due_callbacks("owner", LEASE, 10)
    assert await store.owners() == {"owner"}
    await store.disown("somebody else")
    assert await claim_all(store) == []

    await store.disown("owner")

    [again] = await store.claim("next", LEASE, 10, ALL_RANKS)
    assert (again.id, again.fence, again.losses) == (task.id, lease.fence + 1, 1)
    assert [each.message_id for each in await store.due_callbacks("next", LEASE, 10)] == [message.message_id]
    assert await store.owners() == {"next"}
    with pytest.raises(LeaseLost):
        await store.complete(lease, TRANSCRIPT)


async def test_the_summary_a_dead_owner_had_in_hand_is_due_at_once(store: TaskStore) -> None:
    await completed(store, summary_options=SummaryOptions())
    [turn] = await store.due_summaries("owner", LEASE, 10)
    assert await store.owners() == {"owner"}
    assert await store.due_summaries("next", LEASE, 10) == []

    await store.disown("owner")

    [again] = await store.due_summaries("next", LEASE, 10)
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


# --- retention --------------------------------------------------------------------------------------------------------


async def test_recordings_kept_for_a_retry_expire(store: TaskStore, clock: ManualClock) -> None:
    task, lease = await claimed(store, prefix="failed")
    await store.add_part(lease, 0, 0, 10, [chunk(0)])
    await store.fail(lease, ERROR)
    await completed(store, prefix="completed")
    clock.advance(10)
    statuses = (Status.FAILED, Status.CANCELLED)
    assert await store.expire_media(clock.now() - timedelta(seconds=20), 10, statuses) == []

    assert await store.expire_media(clock.now(), 10, statuses) == ["failed"]

    assert await store.expire_media(clock.now(), 10, statuses) == []
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
    [message] = await store.due_callbacks("me", LEASE, 10)
    await store.record_delivery(message, DELIVERED)
    await completed(store, callback_url=URL)
    clock.advance(60)

    assert await store.prune_callbacks(clock.now() - timedelta(seconds=60), 10) == 0
    assert await store.prune_callbacks(clock.now(), 10) == 1
    assert await store.prune_callbacks(clock.now(), 10) == 0
    assert len(await store.due_callbacks("me", LEASE, 10)) == 1


async def test_expired_keys_are_forgotten(store: TaskStore, clock: ManualClock) -> None:
    await store.create(new_task("old"), IdempotencyClaim("old", "f"))
    clock.advance(3600)
    await store.create(new_task("new"), IdempotencyClaim("new", "f"))

    assert await store.prune_keys(10) == 1
    assert await store.prune_keys(10) == 0
    assert (await store.create(new_task(), IdempotencyClaim("new", "f")))[1] is False


async def test_tasks_with_a_transcript_need_no_media(store: TaskStore) -> None:
    await store.create(new_task("waiting"))
    await claimed(store, prefix="done")
    done = next(task for task in (await store.query(TaskQuery())).tasks if task.media_prefix == "done")
    await store.complete(Lease(done.id, done.fence), TRANSCRIPT)

    assert await store.live_prefixes(["waiting", "done", "none"], transcribed=False) == {"waiting"}
    assert await store.live_prefixes(["waiting", "done", "none"]) == {"waiting", "done"}


# --- clients ----------------------------------------------------------------------------------------------------------

ANN = Client("ann", frozenset({Scope.WRITE}), max_queued_tasks=2, max_audio_s=100.0)


async def split(store: TaskStore, client: str | None, duration_s: float) -> Lease:
    """A task of a client whose recording has been split."""
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
    await store.forget_taken_audio()
    assert (await store.client_load("ann")).audio_s == 90.0
    clock.advance(12 * 3600)
    assert (await store.client_load("ann")).audio_s == 30.0
    await store.forget_taken_audio()
    assert (await store.client_load("ann")).audio_s == 30.0
    clock.advance(12 * 3600)
    await store.forget_taken_audio()
    assert await store.client_load("ann") == ClientLoad()
