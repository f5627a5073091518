"""Statements about task records, what is kept beside them, and idempotency keys."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Delete,
    ScalarSelect,
    Select,
    Update,
    and_,
    case,
    delete,
    func,
    or_,
    select,
    true,
    update,
)

from pipeline.domain.tasks.task import Status
from pipeline.ports import TaskQuery
from pipeline.store.queries.common import (
    DENSITY_SAMPLE,
    FINISHED,
    LIVE,
    LONGEST_S,
    NEXT_FENCE,
    NO_OWNER,
    NO_SUMMARY_DUE,
    QUEUED,
    UNPREPARED,
    not_left_by,
)
from pipeline.store.rows.vocabulary import vocabulary_digest
from pipeline.store.tables import (
    CRAWL_RECORDS,
    IDEMPOTENCY_KEYS,
    OUTBOX,
    TASKS,
    TRANSCRIPTS,
)

MAX_COUNTED_BYTES = 2**50


def task(task_id: int, *, with_result: bool = False) -> Select[Any]:
    """One task, with its transcript where asked."""
    return _tasks(with_result=with_result).where(TASKS.c.id == task_id)


def exists(task_id: int) -> Select[int]:
    """Whether there is such a task."""
    return select(TASKS.c.id).where(TASKS.c.id == task_id)


def tasks(task_ids: Collection[int], *, with_result: bool = False) -> Select[Any]:
    """Several tasks, with their transcripts where asked."""
    return _tasks(with_result=with_result).where(TASKS.c.id.in_(task_ids))


def task_page(query: TaskQuery) -> Select[int]:
    """Ids of one page of the tasks that match: from an index alone, however deep the page lies."""
    order = [column.desc() if query.descending else column for column in (TASKS.c.created_at, TASKS.c.id)]
    return select(TASKS.c.id).where(*_filters(query)).order_by(*order).limit(query.limit).offset(query.offset)


def task_count(query: TaskQuery) -> Select[int]:
    """How many tasks match in all."""
    if query.status is not None or not query.has_result:
        return _count(*_filters(query))
    # Apart, because MariaDB looks up the transcript of every completed task too where both are asked for at once.
    others = _filters(replace(query, has_result=None))
    completed = TASKS.c.status == Status.COMPLETED.value, *others
    transcribed = TASKS.join(TRANSCRIPTS, TRANSCRIPTS.c.task_id == TASKS.c.id)
    unfinished = select(func.count()).select_from(transcribed).where(TASKS.c.status != Status.COMPLETED.value, *others)
    return select(_count(*completed).scalar_subquery() + unfinished.scalar_subquery())


def _count(*conditions: ColumnElement[bool]) -> Select[int]:
    return select(func.count()).select_from(TASKS).where(*conditions)


def recent_density() -> Select[float, int]:
    """Seconds and bytes of the recordings that were finished last."""
    recent = (
        select(TASKS.c.file_duration_s.label("seconds"), TASKS.c.file_size_bytes.label("size_bytes"))
        .where(
            TASKS.c.finished_at.is_not(None),
            TASKS.c.file_duration_s.between(0.001, LONGEST_S),
            TASKS.c.file_size_bytes.between(1, MAX_COUNTED_BYTES),
        )
        .order_by(TASKS.c.finished_at.desc())
        .limit(DENSITY_SAMPLE)
        .subquery()
    )
    return select(func.sum(recent.c.seconds).label("seconds"), func.sum(recent.c.size_bytes).label("size_bytes"))


def live_totals(seconds_per_byte: float) -> Select[Any]:
    """Per status and priority of the tasks that wait or run: how many, their audio to come, the oldest.

    What is not split yet counts by its size.
    """
    estimate_s = func.coalesce(TASKS.c.file_size_bytes, 0) * seconds_per_byte
    unsplit = and_(TASKS.c.split_done.is_(False), estimate_s > TASKS.c.audio_total_s)
    pending_s = case((unsplit, estimate_s), else_=TASKS.c.audio_total_s) - TASKS.c.audio_done_s
    return (
        select(
            TASKS.c.status,
            TASKS.c.priority_rank,
            func.count().label("tasks"),
            func.sum(case((pending_s.between(0.0, LONGEST_S), pending_s), else_=0.0)).label("pending_audio_s"),
            func.min(TASKS.c.created_at).label("oldest"),
        )
        .where(TASKS.c.status.in_(LIVE), not_left_by(vocabulary_digest()))
        .group_by(TASKS.c.status, TASKS.c.priority_rank)
    )


def left_tasks() -> Select[int]:
    """How many tasks that have not finished this version leaves to a newer one."""
    return (
        select(func.count())
        .select_from(TASKS)
        .where(TASKS.c.left_by == vocabulary_digest(), TASKS.c.status.not_in(FINISHED))
    )


def tasks_of_unknown_status() -> Select[int]:
    """How many tasks are in a status that this version does not know, found between those that it does."""
    known = sorted(Status)
    between = [and_(TASKS.c.status > low.value, TASKS.c.status < high.value) for low, high in pairwise(known)]
    outside = TASKS.c.status < known[0].value, TASKS.c.status > known[-1].value
    return select(func.count()).select_from(TASKS).where(or_(*between, *outside))


def waiting_count(code: str) -> Select[int]:
    """How many queued tasks show an error of this code."""
    return select(func.count()).select_from(TASKS).where(TASKS.c.status == QUEUED, TASKS.c.error_code == code)


def cancel_task(task_id: int, now: datetime) -> Update:
    """Ends a task that has not finished, also where this version does not know its status.

    The higher fence takes it from its owner.
    """
    return (
        update(TASKS)
        .where(TASKS.c.id == task_id, or_(TASKS.c.status.is_(None), TASKS.c.status.not_in(FINISHED)))
        .values(
            status=Status.CANCELLED.value,
            fence=NEXT_FENCE,
            finished_at=now,
            updated_at=now,
            available_at=None,
            error_code=None,
            error_message=None,
            **NO_OWNER,
            **NO_SUMMARY_DUE,
        )
    )


def requeue_task(task_id: int, now: datetime) -> Update:
    """Gives a failed or cancelled task a fresh start; its chunks stay.

    A recording that can be fetched again is, unless it was split already: the stored one may be what failed.
    """
    fetched = and_(TASKS.c.file_url.is_not(None), ~TASKS.c.split_done)
    return (
        update(TASKS)
        .where(
            TASKS.c.id == task_id,
            TASKS.c.status.in_((Status.FAILED.value, Status.CANCELLED.value)),
            or_(TASKS.c.media_key.is_not(None), TASKS.c.file_url.is_not(None), _has_result()),
        )
        .values(
            status=QUEUED,
            attempts=0,
            failures=0,
            losses=0,
            started_at=None,
            finished_at=None,
            updated_at=now,
            error_code=None,
            error_message=None,
            callback_status_code=None,
            callback_message=None,
            callback_time=None,
            summary_error_code=None,
            summary_error_message=None,
            media_key=case((fetched, None), else_=TASKS.c.media_key),
        )
    )


def crawl_record(task_id: int) -> Select[Any]:
    """What is kept of a task's link."""
    return select(CRAWL_RECORDS).where(CRAWL_RECORDS.c.task_id == task_id)


def delete_tasks(task_ids: Collection[int]) -> Delete:
    """Removes tasks; foreign keys take along all that hangs on them."""
    return delete(TASKS).where(TASKS.c.id.in_(task_ids))


def expired_records(older_than: datetime, limit: int) -> Select[Any]:
    """Finished tasks to be forgotten, oldest first; not those whose callback is still to be delivered."""
    owed = select(OUTBOX.c.id).where(OUTBOX.c.task_id == TASKS.c.id, OUTBOX.c.due_at.is_not(None))
    return (
        select(TASKS.c.id, TASKS.c.media_prefix)
        .where(TASKS.c.finished_at < older_than, ~owed.correlate(TASKS).exists())
        .order_by(TASKS.c.finished_at, TASKS.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def extend_wait(task_id: int, until: datetime) -> Update:
    """Somebody still waits for the task."""
    return update(TASKS).where(TASKS.c.id == task_id).values(awaited_until=until)


def unawaited_records(now: datetime, limit: int) -> Select[Any]:
    """Tasks that were only wanted while somebody waited, and nobody does."""
    return (
        select(TASKS.c.id, TASKS.c.media_prefix)
        .where(TASKS.c.awaited_until < now)
        .order_by(TASKS.c.awaited_until, TASKS.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def prefixes_in_use(prefixes: Collection[str], *, transcribed: bool) -> Select[str]:
    """Which of these media prefixes belong to a task; without ``transcribed``, to one that has no transcript yet."""
    statement = select(TASKS.c.media_prefix).where(TASKS.c.media_prefix.in_(prefixes)).distinct()
    return statement if transcribed else statement.where(~_has_result())


def finished_recordings(older_than: datetime, limit: int, statuses: Collection[Status]) -> Select[Any]:
    """Finished tasks whose recording is still kept, oldest first."""
    return (
        select(TASKS.c.id, TASKS.c.media_prefix)
        .where(
            TASKS.c.finished_at < older_than,
            TASKS.c.media_key.is_not(None),
            TASKS.c.status.in_([status.value for status in statuses]),
        )
        .order_by(TASKS.c.finished_at, TASKS.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def clear_recordings(task_ids: Collection[int]) -> Update:
    """The tasks have no recording and no prepared audio any more."""
    return update(TASKS).where(TASKS.c.id.in_(task_ids)).values(media_key=None, **UNPREPARED)


def idempotency_key(key_sha256: str, now: datetime) -> Select[Any]:
    """A key that still counts."""
    return select(IDEMPOTENCY_KEYS.c.fingerprint, IDEMPOTENCY_KEYS.c.task_id).where(
        IDEMPOTENCY_KEYS.c.key_sha256 == key_sha256, IDEMPOTENCY_KEYS.c.expires_at > now
    )


def forget_expired_key(key_sha256: str, now: datetime) -> Delete:
    """Makes room for a key that may be used again."""
    return delete(IDEMPOTENCY_KEYS).where(
        IDEMPOTENCY_KEYS.c.key_sha256 == key_sha256, IDEMPOTENCY_KEYS.c.expires_at <= now
    )


def forget_key(key_sha256: str) -> Delete:
    """Makes room for a key whatever was kept of it."""
    return delete(IDEMPOTENCY_KEYS).where(IDEMPOTENCY_KEYS.c.key_sha256 == key_sha256)


def expired_keys(now: datetime, limit: int) -> Select[str]:
    """Keys that may be used again."""
    return select(IDEMPOTENCY_KEYS.c.key_sha256).where(IDEMPOTENCY_KEYS.c.expires_at <= now).limit(limit)


def delete_keys(digests: Collection[str], now: datetime) -> Delete:
    """Forgets keys, but not one that was used anew since."""
    return delete(IDEMPOTENCY_KEYS).where(
        IDEMPOTENCY_KEYS.c.key_sha256.in_(digests), IDEMPOTENCY_KEYS.c.expires_at <= now
    )


def _tasks(*, with_result: bool) -> Select[Any]:
    if not with_result:
        return select(TASKS)
    return select(TASKS, TRANSCRIPTS.c.transcript).outerjoin(TRANSCRIPTS, TRANSCRIPTS.c.task_id == TASKS.c.id)


def _filters(query: TaskQuery) -> list[ColumnElement[bool]]:
    equal = {
        TASKS.c.status: query.status,
        TASKS.c.language: query.language,
        TASKS.c.engine_name: query.engine_name,
        TASKS.c.task_type: query.task_type,
        TASKS.c.platform: query.platform,
        TASKS.c.client: query.client,
    }
    # str(): a driver knows text, not enums.
    conditions = [column == str(value) for column, value in equal.items() if value is not None]
    if query.priority is not None:
        conditions.append(TASKS.c.priority_rank == query.priority.rank)
    if query.created_after is not None:
        conditions.append(TASKS.c.created_at >= query.created_after)
    if query.created_before is not None:
        conditions.append(TASKS.c.created_at <= query.created_before)
    if query.has_result is not None:
        conditions.append(_transcribed(query.status) if query.has_result else _untranscribed())
    if query.has_error is not None:
        conditions.append(TASKS.c.error_code.is_not(None) if query.has_error else TASKS.c.error_code.is_(None))
    return conditions


def _transcribed(status: Status | None) -> ColumnElement[bool]:
    """Whether there is a transcript, which every completed task has: only others are looked up."""
    if status is Status.COMPLETED:
        return true()
    return case((TASKS.c.status == Status.COMPLETED.value, 1), else_=_transcripts()) > 0


def _untranscribed() -> ColumnElement[bool]:
    return and_(TASKS.c.status != Status.COMPLETED.value, ~_has_result())


def _has_result() -> ColumnElement[bool]:
    """Whether a task has a transcript."""
    return _transcripts() > 0


def _transcripts() -> ScalarSelect[int]:
    """How many transcripts a task has: one or none.

    Counted, not ``EXISTS``: of that MariaDB makes a list of all transcripts first, and reads every one for it.
    """
    of_task = select(func.count()).select_from(TRANSCRIPTS).where(TRANSCRIPTS.c.task_id == TASKS.c.id)
    return of_task.correlate(TASKS).scalar_subquery()
