"""The end of a run: a task is completed, failed or released."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, insert, select

from pipeline.domain.decoding.transcript import Transcript
from pipeline.domain.tasks.lifecycle import attempts_exhausted
from pipeline.domain.tasks.task import Status, Task, TaskError
from pipeline.ports import Lease
from pipeline.store.rows import task_codec, transcript_codec
from pipeline.store.tables import TASKS, TRANSCRIPTS
from pipeline.store.transactions.callback_outbox import enqueue_callback
from pipeline.store.transactions.columns import (
    NO_OWNER,
    PREPARED_TABLES,
    PROCESSING,
    QUEUED,
    UNPREPARED,
    delete_of_task,
    error_columns,
    not_left_to_newer,
    summary_is_due,
)
from pipeline.store.transactions.row_defects import ReportDefect
from pipeline.store.transactions.task_leases import change_leased_task, lock_leased_task
from pipeline.store.transactions.task_operations import get_existing
from pipeline.store.transactions.unreadable_tasks import set_aside


def complete(connection: Connection, lease: Lease, transcript: Transcript, now: datetime) -> Task:
    """Store the transcript, delete the chunks, and complete the task, or make its summary due if one was requested."""
    task = lock_leased_task(connection, lease)
    row = {"task_id": task.id, "transcript": transcript_codec.transcript_to_json(transcript)}
    connection.execute(insert(TRANSCRIPTS), row)
    for table in PREPARED_TABLES:
        connection.execute(delete_of_task(table, task.id))
    info = transcript.info
    facts = {
        "language": info.language,
        "language_probability": info.language_probability,
        "file_duration_s": info.duration,
        "audio_done_s": TASKS.c.audio_total_s,
    }
    if task.summary_options is None:
        return _finish(connection, task, Status.COMPLETED, None, now, facts)
    change_leased_task(connection, lease, summary_is_due(now) | error_columns(None) | facts)
    return get_existing(connection, task.id)


def fail(
    connection: Connection,
    lease: Lease,
    error: TaskError,
    retry_at: datetime | None,
    now: datetime,
    *,
    keep_prepared: bool,
    counted: bool = True,
) -> Task:
    """Fail the task, or queue it again from ``retry_at`` on."""
    task = lock_leased_task(connection, lease)
    if not keep_prepared:
        _delete_prepared(connection, lease)
    if retry_at is None:
        return _fail(connection, task, error, now)
    changes = error_columns(error) | {"available_at": retry_at, "failures": task.failures + counted}
    return _requeue(connection, lease, task.attempts, changes, now)


def release(connection: Connection, lease: Lease, now: datetime) -> None:
    """Queue the task again without counting the attempt. The fence is kept, so that late writes are refused."""
    task = lock_leased_task(connection, lease)
    _requeue(connection, lease, task.attempts - 1, {}, now)


def has_exhausted(connection: Connection, now: datetime, max_losses: int) -> bool:
    """Return whether ``fail_exhausted`` has work. This check locks nothing; it precedes every claim."""
    return connection.execute(_select_exhausted(now, max_losses)).first() is not None


def fail_exhausted(connection: Connection, now: datetime, max_losses: int, report_defect: ReportDefect) -> list[Task]:
    """Fail the tasks whose lease expired too often; return them."""
    rows = connection.execute(_lock_exhausted(now, max_losses)).mappings().all()
    lost = [task_codec.read_task(row) for row in rows]
    unreadable = set_aside(connection, [task for task in lost if task.defect is not None], now, report_defect)
    return unreadable + [
        _fail(connection, task, attempts_exhausted(task.losses + 1), now) for task in lost if task.defect is None
    ]


def _delete_prepared(connection: Connection, lease: Lease) -> None:
    for table in PREPARED_TABLES:
        connection.execute(delete_of_task(table, lease.task_id))
    change_leased_task(connection, lease, UNPREPARED)


def _requeue(connection: Connection, lease: Lease, attempts: int, changes: dict[str, Any], now: datetime) -> Task:
    values = NO_OWNER | {"status": QUEUED, "attempts": attempts, "updated_at": now} | changes
    change_leased_task(connection, lease, values)
    return get_existing(connection, lease.task_id)


def _fail(connection: Connection, task: Task, error: TaskError, now: datetime) -> Task:
    return _finish(connection, task, Status.FAILED, error, now, {"failures": task.failures + 1})


def _finish(
    connection: Connection,
    task: Task,
    status: Status,
    error: TaskError | None,
    now: datetime,
    facts: dict[str, Any],
) -> Task:
    """Finish a task and, in the same transaction, enqueue its callback."""
    finished = {"status": status.value, "finished_at": now, "updated_at": now}
    values = NO_OWNER | finished | error_columns(error) | facts
    change_leased_task(connection, Lease(task.id, task.fence), values)
    enqueue_callback(connection, task, now)
    return get_existing(connection, task.id)


def _select_exhausted(now: datetime, max_losses: int) -> Select[int]:
    """Select one task whose lease expired too often."""
    return select(TASKS.c.id).where(*_is_exhausted(now, max_losses)).limit(1)


def _lock_exhausted(now: datetime, max_losses: int) -> Select[Any]:
    """Lock the tasks whose lease expired too often; skip those that another process has locked."""
    return select(TASKS).where(*_is_exhausted(now, max_losses)).order_by(TASKS.c.id).with_for_update(skip_locked=True)


def _is_exhausted(now: datetime, max_losses: int) -> tuple[ColumnElement[bool], ...]:
    expired = TASKS.c.status == PROCESSING, TASKS.c.lease_expires_at < now, not_left_to_newer()
    return *expired, TASKS.c.losses + 1 >= max_losses
