"""Tasks whose rows this version can't read: damaged ones are failed, those of a newer version are left to it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Integer, Select, Update, and_, cast, or_, select, union_all, update

from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import Status, Task
from pipeline.store.rows import task_codec
from pipeline.store.rows.vocabulary import vocabulary_digest
from pipeline.store.tables import TASKS
from pipeline.store.transactions.callback_outbox import enqueue_callback
from pipeline.store.transactions.columns import (
    LIVE,
    NEXT_FENCE,
    NO_OWNER,
    NO_SUMMARY_DUE,
    PROCESSING,
    QUEUED,
    not_left_to_newer,
)
from pipeline.store.transactions.row_defects import ReportDefect
from pipeline.store.transactions.task_operations import get_existing

MAX_DATETIME = datetime.max.replace(tzinfo=UTC)
"""The latest time. SQLite may hold a later text, which is not a time."""


def set_aside(connection: Connection, tasks: Sequence[Task], now: datetime, report_defect: ReportDefect) -> list[Task]:
    """Fail the damaged ones of unreadable tasks and leave the others to a newer version; return those that failed."""
    left = [task.id for task in tasks if task.defect and task.defect.newer]
    if left:
        leave_to_newer(connection, left)
    failed = []
    for task in tasks:
        if task.defect is not None:
            report_defect(task.defect)
            if not task.defect.newer:
                failed.append(_fail_damaged(connection, task.id, task.defect, now))
    return failed


def leave_to_newer(connection: Connection, task_ids: Collection[int]) -> None:
    """Mark tasks as left to a newer version, so that this version does not read them again."""
    connection.execute(_update_left_by(task_ids, vocabulary_digest()))


def find_unreachable(connection: Connection, limit: int) -> list[int]:
    """Return the ids of tasks that no claim finds. This check locks nothing; it precedes ``fail_unreachable``."""
    return list(connection.scalars(_select_unreachable(limit)))


def fail_unreachable(
    connection: Connection, task_ids: Sequence[int], now: datetime, report_defect: ReportDefect
) -> list[Task]:
    """Fail those of the tasks whose damaged row hides them from every claim; return them."""
    rows = connection.execute(_lock_tasks(task_ids)).mappings().all()
    tasks = [task_codec.read_task(row) for row in rows]
    tasks = [task for task in tasks if task.finished_at is None]
    running = [task for task in tasks if task.defect is None and task.status is Status.PROCESSING]
    without_lease = [
        replace(task, defect=RecordDefect("tasks", "lease_expires_at", str(task.id)))
        for task in running
        if task.lease_expires_at is None and task.summary.due_at is None
    ]
    unreadable = [task for task in tasks if task.defect is not None]
    return set_aside(connection, unreadable + without_lease, now, report_defect)


def _fail_damaged(connection: Connection, task_id: int, defect: RecordDefect, now: datetime) -> Task:
    """Fail a task whose row is damaged, and enqueue its callback if its URL can be read."""
    connection.execute(_update_failed(task_id, defect.code, defect.sentence, now))
    task = get_existing(connection, task_id)
    enqueue_callback(connection, task, now)
    return task


def _update_left_by(task_ids: Collection[int], vocabulary: str) -> Update:
    """Mark tasks as left to a newer version by the version of a vocabulary."""
    return update(TASKS).where(TASKS.c.id.in_(task_ids)).values(left_by=vocabulary)


def _update_failed(task_id: int, code: str, message: str, now: datetime) -> Update:
    """Fail a task that has not finished, whoever owns it."""
    return (
        update(TASKS)
        .where(TASKS.c.id == task_id, TASKS.c.status.in_(LIVE))
        .values(
            status=Status.FAILED.value,
            fence=NEXT_FENCE,
            finished_at=now,
            updated_at=now,
            available_at=None,
            error_code=code,
            error_message=message,
            **NO_OWNER,
            **NO_SUMMARY_DUE,
        )
    )


def _select_unreachable(limit: int) -> CompoundSelect[int]:
    """Select tasks that no claim finds: their rank is not a rank, or a time is missing or later than any time."""
    rank = TASKS.c.priority_rank
    no_rank = or_(rank.is_(None), rank < -(2**15), rank >= 2**15, rank != cast(rank, Integer))
    queued = TASKS.c.status == QUEUED, or_(no_rank, TASKS.c.available_at > MAX_DATETIME)
    no_lease = and_(TASKS.c.lease_expires_at.is_(None), TASKS.c.summary_due_at.is_(None))
    never = or_(TASKS.c.lease_expires_at > MAX_DATETIME, TASKS.c.summary_due_at > MAX_DATETIME)
    processing = TASKS.c.status == PROCESSING, or_(no_rank, never, no_lease)
    unreachable = [
        select(TASKS.c.id).where(*conditions, not_left_to_newer()).limit(limit).subquery()
        for conditions in (queued, processing)
    ]
    return union_all(*(select(each) for each in unreachable))


def _lock_tasks(task_ids: Collection[int]) -> Select[Any]:
    """Lock tasks; skip those that another process has locked."""
    return select(TASKS).where(TASKS.c.id.in_(task_ids)).order_by(TASKS.c.id).with_for_update(skip_locked=True)
