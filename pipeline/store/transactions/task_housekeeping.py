"""Housekeeping: deletion of tasks and recordings that have expired or that no client waits for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, Update, select, update

from pipeline.domain.tasks.task import Status
from pipeline.store.rows.row_reader import RowReader, media_prefix
from pipeline.store.tables import OUTBOX, TASKS
from pipeline.store.transactions.columns import PREPARED_TABLES, UNPREPARED, delete_of_task
from pipeline.store.transactions.task_filters import has_transcript
from pipeline.store.transactions.task_operations import delete_tasks

IDS_PER_QUERY = 500
"""Values in one ``IN (…)``. SQLite takes at most 32,766 parameters."""


def expire(connection: Connection, older_than: datetime, limit: int) -> list[str]:
    """Delete up to ``limit`` of the oldest finished tasks; return their media prefixes."""
    return _delete(connection, _lock_expired(older_than, limit))


def delete_unawaited(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Delete up to ``limit`` tasks that no client waits for any more; return their media prefixes."""
    return _delete(connection, _lock_unawaited(now, limit))


def delete_expired_media(
    connection: Connection, older_than: datetime, limit: int, statuses: Collection[Status]
) -> list[str]:
    """Release the recordings of up to ``limit`` finished tasks; return their media prefixes."""
    rows = connection.execute(_lock_with_recording(older_than, limit, statuses)).all()
    if rows:
        connection.execute(_update_without_recording([row.id for row in rows]))
    for row in rows:
        for table in PREPARED_TABLES:
            connection.execute(delete_of_task(table, row.id))
    return _readable_prefixes(rows)


def live_prefixes(connection: Connection, prefixes: Collection[str], *, transcribed: bool) -> set[str]:
    """Return those of the media prefixes that belong to a task."""
    names, live = sorted(prefixes), set[str]()
    for start in range(0, len(names), IDS_PER_QUERY):
        some = names[start : start + IDS_PER_QUERY]
        live.update(connection.scalars(_select_prefixes(some, transcribed=transcribed)))
    return live


def _delete(connection: Connection, locked: Select[Any]) -> list[str]:
    rows = connection.execute(locked).all()
    if rows:
        connection.execute(delete_tasks([row.id for row in rows]))
    return _readable_prefixes(rows)


def _readable_prefixes(rows: Sequence[Row[Any]]) -> list[str]:
    """Return the media prefixes of tasks. Media under a prefix that can't be read are deleted later, as orphans."""
    readers = [RowReader("tasks", {"id": row.id, "media_prefix": row.media_prefix}) for row in rows]
    prefixes = [reader.read("media_prefix", media_prefix, "") for reader in readers]
    return [prefix for prefix in prefixes if prefix]


def _lock_expired(older_than: datetime, limit: int) -> Select[Any]:
    """Lock finished tasks, oldest first, except those whose callback is still to be delivered."""
    undelivered = select(OUTBOX.c.id).where(OUTBOX.c.task_id == TASKS.c.id, OUTBOX.c.due_at.is_not(None))
    return (
        select(TASKS.c.id, TASKS.c.media_prefix)
        .where(TASKS.c.finished_at < older_than, ~undelivered.correlate(TASKS).exists())
        .order_by(TASKS.c.finished_at, TASKS.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def _lock_unawaited(now: datetime, limit: int) -> Select[Any]:
    """Lock tasks that are kept only while a client waits, and for which none waits any more."""
    return (
        select(TASKS.c.id, TASKS.c.media_prefix)
        .where(TASKS.c.awaited_until < now)
        .order_by(TASKS.c.awaited_until, TASKS.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def _lock_with_recording(older_than: datetime, limit: int, statuses: Collection[Status]) -> Select[Any]:
    """Lock finished tasks whose recording is still stored, oldest first."""
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


def _update_without_recording(task_ids: Collection[int]) -> Update:
    """Mark tasks as having no recording and no prepared audio."""
    return update(TASKS).where(TASKS.c.id.in_(task_ids)).values(media_key=None, **UNPREPARED)


def _select_prefixes(prefixes: Collection[str], *, transcribed: bool) -> Select[str]:
    """Select those of the media prefixes that belong to a task.

    Without ``transcribed``, only those of tasks without a transcript.
    """
    statement = select(TASKS.c.media_prefix).where(TASKS.c.media_prefix.in_(prefixes)).distinct()
    return statement if transcribed else statement.where(~has_transcript())
