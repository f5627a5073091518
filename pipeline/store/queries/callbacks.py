"""Statements about the callbacks that are owed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Delete,
    Select,
    Update,
    case,
    delete,
    func,
    select,
    update,
)

from pipeline.store.queries.common import Flow, not_of
from pipeline.store.rows.row_reader import MAX_COUNT
from pipeline.store.tables import (
    OUTBOX,
    TASKS,
)

_NEXT_ATTEMPT = case((OUTBOX.c.attempts < MAX_COUNT, OUTBOX.c.attempts + 1), else_=OUTBOX.c.attempts)


def due_callbacks(now: datetime, limit: int, full: Collection[Flow] = ()) -> Select[Any]:
    """Callbacks to be delivered now, longest due first, but for some clients'; nothing is locked."""
    due = _with_client().where(OUTBOX.c.due_at <= now, not_of(full))
    return due.order_by(OUTBOX.c.due_at, OUTBOX.c.id).limit(limit)


def held_callbacks(owner: str, now: datetime) -> Select[Any]:
    """Callbacks that this owner has in hand."""
    return _with_client().where(OUTBOX.c.due_at > now, OUTBOX.c.owner == owner)


def _with_client() -> Select[Any]:
    columns = OUTBOX.c.id, OUTBOX.c.task_id, OUTBOX.c.due_at, TASKS.c.client, TASKS.c.priority_rank
    return select(*columns).select_from(OUTBOX.outerjoin(TASKS, TASKS.c.id == OUTBOX.c.task_id))


def lock_callbacks(ids: Collection[int], now: datetime) -> Select[int]:
    """Those of the callbacks that are still to be delivered, for us alone."""
    return select(OUTBOX.c.id).where(OUTBOX.c.id.in_(ids), OUTBOX.c.due_at <= now).with_for_update(skip_locked=True)


def take_callbacks(ids: Collection[int], owner: str, now: datetime, due_at: datetime) -> Update:
    """Keeps others from them until the lease has run out."""
    return update(OUTBOX).where(OUTBOX.c.id.in_(ids), OUTBOX.c.due_at <= now).values(owner=owner, due_at=due_at)


def callbacks(ids: Collection[int]) -> Select[Any]:
    """Messages, longest waiting first, each with its task's client."""
    tasks = OUTBOX.outerjoin(TASKS, TASKS.c.id == OUTBOX.c.task_id)
    return select(OUTBOX, TASKS.c.client).select_from(tasks).where(OUTBOX.c.id.in_(ids)).order_by(OUTBOX.c.id)


def update_callback_state(outbox_id: int, task_id: int, values: dict[str, Any]) -> Update:
    """The answer in the task's record; nothing once the message is delivered, given up or withdrawn."""
    open_message = select(OUTBOX.c.id).where(OUTBOX.c.id == outbox_id, OUTBOX.c.due_at.is_not(None)).exists()
    return update(TASKS).where(TASKS.c.id == task_id, open_message).values(**values)


def settle_callback(outbox_id: int, retry_at: datetime | None, delivered_at: datetime | None) -> Update:
    """Counts an attempt; without ``retry_at`` it was the last."""
    return (
        update(OUTBOX)
        .where(OUTBOX.c.id == outbox_id, OUTBOX.c.due_at.is_not(None))
        .values(attempts=_NEXT_ATTEMPT, due_at=retry_at, delivered_at=delivered_at, owner=None)
    )


def waiting_callbacks() -> Select[int]:
    """How many callbacks are still to be delivered."""
    return select(func.count()).select_from(OUTBOX).where(OUTBOX.c.due_at.is_not(None))


def settled_callbacks(older_than: datetime, limit: int) -> Select[int]:
    """Callbacks with which nothing more will happen."""
    return select(OUTBOX.c.id).where(OUTBOX.c.due_at.is_(None), OUTBOX.c.created_at < older_than).limit(limit)


def delete_callbacks(ids: Collection[int]) -> Delete:
    """Forgets callbacks."""
    return delete(OUTBOX).where(OUTBOX.c.id.in_(ids))


def withdraw_callbacks(task_id: int) -> Delete:
    """Drops what is undelivered of earlier runs: a receiver would be shown a task that is queued again."""
    return delete(OUTBOX).where(OUTBOX.c.task_id == task_id, OUTBOX.c.due_at.is_not(None))
