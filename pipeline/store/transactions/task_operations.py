"""Task records: transactions that create, read, cancel, retry and delete tasks for clients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Connection, Delete, RowMapping, Select, Update, and_, case, delete, insert, or_, select, update

from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.tasks.client import Client
from pipeline.domain.tasks.lifecycle import CANCEL_REFUSED, RETRY_REFUSED, refusal_sentence
from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Status, Task
from pipeline.errors import QuotaExceeded, TaskNotFound, TaskStateConflict
from pipeline.ports import TaskPage, TaskQuery
from pipeline.store.rows import crawl_codec, task_codec
from pipeline.store.tables import CRAWL_RECORDS, MAX_ID, TASKS, TRANSCRIPTS
from pipeline.store.transactions import client_usage, idempotency
from pipeline.store.transactions.callback_outbox import withdraw_callbacks
from pipeline.store.transactions.columns import (
    FINISHED,
    NEXT_FENCE,
    NO_OWNER,
    NO_SUMMARY_DUE,
    QUEUED,
    summary_is_due,
)
from pipeline.store.transactions.row_defects import ReportDefect, require_readable
from pipeline.store.transactions.task_filters import has_transcript, select_page, select_total


def create(
    connection: Connection,
    new: NewTask,
    claim: IdempotencyClaim | None,
    client: Client | None,
    now: datetime,
    expires_at: datetime,
) -> tuple[Task, bool]:
    """Store a new task, or find the original one of its idempotency key; return it and whether it is new.

    Raises ``IntegrityError`` if another process has just stored the same key.
    """
    if claim and (task_id := idempotency.find_original(connection, claim, now)):
        return get(connection, task_id), False
    if client:
        client_usage.refuse_beyond_limits(connection, client, now)
    result = connection.execute(insert(TASKS), task_codec.new_task_row(new, now))
    task_id = cast("tuple[int]", result.inserted_primary_key)[0]
    if claim:
        idempotency.store_key(connection, claim, task_id, now, expires_at)
    return get(connection, task_id), True


def get(connection: Connection, task_id: int) -> Task:
    """Return the task without its transcript. Raises ``TaskNotFound``."""
    return task_codec.read_task(_row(connection, task_id, with_result=False))


def row_with_transcript(connection: Connection, task_id: int) -> dict[str, Any]:
    """Return the row of a task and of its transcript, for ``task_codec``. Raises ``TaskNotFound``."""
    return dict(_row(connection, task_id, with_result=True))


def get_existing(connection: Connection, task_id: int) -> Task:
    """Return a task that this transaction has locked or changed."""
    rows = connection.execute(_select_tasks(with_result=False).where(TASKS.c.id == task_id))
    return task_codec.read_task(rows.mappings().one())


def crawl_record(connection: Connection, task_id: int, report_defect: ReportDefect) -> CrawlRecord | None:
    """Return the stored record of the task's link. Raises ``TaskNotFound``; ``RecordUnreadable`` if it is damaged."""
    get(connection, task_id)
    row = connection.execute(_select_crawl_record(task_id)).mappings().one_or_none()
    return None if row is None else require_readable(crawl_codec.read_crawl(row), report_defect)


def page(connection: Connection, query: TaskQuery) -> TaskPage:
    """Return a page of the tasks that match."""
    total_count = connection.execute(select_total(query)).scalar_one()
    ids = connection.scalars(select_page(query)).all()
    rows = connection.execute(_select_tasks(with_result=query.include_result).where(TASKS.c.id.in_(ids)))
    tasks = {row["id"]: task_codec.read_task(row) for row in rows.mappings()}
    return TaskPage(tuple(tasks[task_id] for task_id in ids if task_id in tasks), total_count)


def cancel(connection: Connection, task_id: int, now: datetime) -> Task:
    """Cancel a task that waits or runs."""
    return _move(connection, task_id, _update_cancelled(task_id, now), CANCEL_REFUSED)


def retry(connection: Connection, task_id: int, now: datetime, client: Client | None = None) -> Task:
    """Queue a failed or cancelled task again, or make its summary due if only that is missing."""
    refusal = _refusal_of_retry(connection, task_id, now, client)
    task = _move(connection, task_id, _update_requeued(task_id, now), RETRY_REFUSED)
    if refusal:  # after the move, because a conflict takes precedence; the transaction rolls the move back
        raise refusal
    withdraw_callbacks(connection, task_id)
    if connection.execute(_update_summary_due(task_id, now)).rowcount:
        return get(connection, task_id)
    return task


def _refusal_of_retry(
    connection: Connection, task_id: int, now: datetime, client: Client | None
) -> QuotaExceeded | None:
    """Return the error if the client may not have the task in the queue again; audio charged already does not count."""
    if client is None or not client.limited:
        return None
    task = get(connection, task_id)
    if task.client != client.name:  # an administrator retries another client's task
        return None
    try:
        client_usage.refuse_beyond_limits(
            connection, replace(client, max_audio_s=None) if task.split_done else client, now
        )
    except QuotaExceeded as refusal:
        return refusal
    return None


def extend_wait(connection: Connection, task_id: int, until: datetime) -> None:
    """Extend the time until which a client is known to wait for the task."""
    connection.execute(_update_awaited_until(task_id, until))


def delete_task(connection: Connection, task_id: int) -> str:
    """Delete a task and everything that belongs to it; return its media prefix."""
    task = get(connection, task_id)
    if not connection.execute(delete_tasks([task_id])).rowcount:
        raise _not_found_error(task_id)  # another process has deleted it since
    return task.media_prefix


def _move(connection: Connection, task_id: int, statement: Update, refusal: str) -> Task:
    """Run a conditional update of a task. Raises ``TaskStateConflict`` if it changed nothing, ``TaskNotFound``."""
    moved = task_id <= MAX_ID and connection.execute(statement).rowcount
    task = get(connection, task_id)
    if not moved:
        raise TaskStateConflict(refusal_sentence(task, refusal))
    return task


def _row(connection: Connection, task_id: int, *, with_result: bool) -> RowMapping:
    if not 0 < task_id <= MAX_ID:
        raise _not_found_error(task_id)
    result = connection.execute(_select_tasks(with_result=with_result).where(TASKS.c.id == task_id))
    row = result.mappings().one_or_none()
    if row is None:
        raise _not_found_error(task_id)
    return row


def _not_found_error(task_id: int) -> TaskNotFound:
    return TaskNotFound(f"There is no task {task_id}.")


def _select_tasks(*, with_result: bool) -> Select[Any]:
    """Select tasks, with their transcripts if requested; the caller adds the condition."""
    if not with_result:
        return select(TASKS)
    return select(TASKS, TRANSCRIPTS.c.transcript).outerjoin(TRANSCRIPTS, TRANSCRIPTS.c.task_id == TASKS.c.id)


def _select_crawl_record(task_id: int) -> Select[Any]:
    return select(CRAWL_RECORDS).where(CRAWL_RECORDS.c.task_id == task_id)


def _update_cancelled(task_id: int, now: datetime) -> Update:
    """Cancel a task that has not finished, even if this version does not know its status.

    The raised fence ends the lease of its owner.
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


def _update_requeued(task_id: int, now: datetime) -> Update:
    """Queue a failed or cancelled task from the beginning; its chunks are kept.

    A recording that can be fetched again is fetched again, unless it was split already: the stored file may be the
    cause of the failure.
    """
    fetched = and_(TASKS.c.file_url.is_not(None), ~TASKS.c.split_done)
    return (
        update(TASKS)
        .where(
            TASKS.c.id == task_id,
            TASKS.c.status.in_((Status.FAILED.value, Status.CANCELLED.value)),
            or_(TASKS.c.media_key.is_not(None), TASKS.c.file_url.is_not(None), has_transcript()),
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


def _update_summary_due(task_id: int, now: datetime) -> Update:
    """Make the summary of a queued task due, if the task has its transcript."""
    transcribed = select(TRANSCRIPTS.c.task_id).where(TRANSCRIPTS.c.task_id == task_id).exists()
    return (
        update(TASKS).where(TASKS.c.id == task_id, TASKS.c.status == QUEUED, transcribed).values(**summary_is_due(now))
    )


def _update_awaited_until(task_id: int, until: datetime) -> Update:
    return update(TASKS).where(TASKS.c.id == task_id).values(awaited_until=until)


def delete_tasks(task_ids: Collection[int]) -> Delete:
    """Delete tasks; foreign keys delete every row that belongs to them."""
    return delete(TASKS).where(TASKS.c.id.in_(task_ids))
