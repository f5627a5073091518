"""The outbox: callbacks are enqueued, claimed, and settled by a delivery, a last failure or a withdrawal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Delete, Row, Select, Update, case, delete, insert, select, update

from pipeline.domain.scheduling.due_choice import DueWork
from pipeline.domain.tasks.lifecycle import message_id
from pipeline.domain.tasks.task import Task
from pipeline.ports import DeliveryAttempt, OutboxMessage
from pipeline.store.rows import callback_codec
from pipeline.store.rows.row_reader import MAX_COUNT
from pipeline.store.tables import OUTBOX, TASKS
from pipeline.store.transactions.due_work import Flow, choose_ids, due_work, not_of, select_per_flow
from pipeline.store.transactions.row_defects import ReportDefect

_NEXT_ATTEMPT = case((OUTBOX.c.attempts < MAX_COUNT, OUTBOX.c.attempts + 1), else_=OUTBOX.c.attempts)


def enqueue_callback(connection: Connection, task: Task, now: datetime) -> None:
    """Store the callback of a task that ends, if it wants one, in the transaction that ends it."""
    if not task.callback_url:
        return
    row = {
        "message_id": message_id(task.id, task.fence, task.media_prefix),
        "task_id": task.id,
        "url": task.callback_url,
        "attempts": 0,
        "due_at": now,
        "created_at": now,
    }
    connection.execute(insert(OUTBOX), row)


def withdraw_callbacks(connection: Connection, task_id: int) -> None:
    """Delete the undelivered callbacks of a task that is queued again; they would tell of a task that has not ended."""
    connection.execute(_delete_undelivered(task_id))


def choose_due(connection: Connection, owner: str, now: datetime, limit: int) -> list[int]:
    """Return the ids of up to ``limit`` due callbacks, shared between clients. Nothing is locked yet."""
    held = [_due_work(row, now) for row in connection.execute(_select_held(owner, now))]
    rows = select_per_flow(connection, partial(_select_due, now), limit)
    return choose_ids([_due_work(row, now) for row in rows], held, limit, now)


def claim(
    connection: Connection,
    owner: str,
    now: datetime,
    lease_expires_at: datetime,
    chosen: Sequence[int],
    report_defect: ReportDefect,
) -> list[OutboxMessage]:
    """Claim those of the chosen callbacks that are still due; return them. Damaged ones are given up."""
    ids = connection.scalars(_lock_due(chosen, now)).all()
    if not ids:
        return []
    connection.execute(_update_owner(ids, owner, now, lease_expires_at))
    rows = connection.execute(_select_messages(ids)).mappings().all()
    messages = []
    for message, defect in map(callback_codec.read_message, rows):
        if defect is None:
            messages.append(message)
        else:
            report_defect(defect)
            connection.execute(_update_attempts(message.id, None, None))
    return messages


def record_delivery(connection: Connection, message: OutboxMessage, attempt: DeliveryAttempt, now: datetime) -> None:
    """Record a delivery attempt. A message that was settled meanwhile is left unchanged."""
    response = {
        "callback_status_code": attempt.status_code,
        "callback_message": attempt.message,
        "callback_time": now,
        "updated_at": now,
    }
    connection.execute(_update_task(message.id, message.task_id, response))
    delivered_at = now if attempt.delivered else None
    retry_at = None if attempt.delivered else attempt.retry_at
    connection.execute(_update_attempts(message.id, retry_at, delivered_at))


def prune_callbacks(connection: Connection, older_than: datetime, limit: int) -> int:
    """Delete up to ``limit`` older callbacks that are settled; return the number."""
    ids = connection.scalars(_select_settled(older_than, limit)).all()
    if ids:
        connection.execute(_delete_callbacks(ids))
    return len(ids)


def _due_work(row: Row[Any], now: datetime) -> DueWork:
    return due_work(row.id, row.task_id, row.client, 0, row.due_at, now)


def _select_due(now: datetime, limit: int, full: Collection[Flow] = ()) -> Select[Any]:
    """Select callbacks that are due, longest due first, except those of some flows. Nothing is locked."""
    due = _select_with_client().where(OUTBOX.c.due_at <= now, not_of(full))
    return due.order_by(OUTBOX.c.due_at, OUTBOX.c.id).limit(limit)


def _select_held(owner: str, now: datetime) -> Select[Any]:
    """Select callbacks on which this owner has a lease."""
    return _select_with_client().where(OUTBOX.c.due_at > now, OUTBOX.c.owner == owner)


def _select_with_client() -> Select[Any]:
    columns = OUTBOX.c.id, OUTBOX.c.task_id, OUTBOX.c.due_at, TASKS.c.client, TASKS.c.priority_rank
    return select(*columns).select_from(OUTBOX.outerjoin(TASKS, TASKS.c.id == OUTBOX.c.task_id))


def _lock_due(ids: Collection[int], now: datetime) -> Select[int]:
    """Lock those of the callbacks that are still due; skip those that another process has locked."""
    return select(OUTBOX.c.id).where(OUTBOX.c.id.in_(ids), OUTBOX.c.due_at <= now).with_for_update(skip_locked=True)


def _update_owner(ids: Collection[int], owner: str, now: datetime, due_at: datetime) -> Update:
    """Lease callbacks to an owner. They are due again when the lease has expired."""
    return update(OUTBOX).where(OUTBOX.c.id.in_(ids), OUTBOX.c.due_at <= now).values(owner=owner, due_at=due_at)


def _select_messages(ids: Collection[int]) -> Select[Any]:
    """Select messages, oldest first, each with its task's client."""
    tasks = OUTBOX.outerjoin(TASKS, TASKS.c.id == OUTBOX.c.task_id)
    return select(OUTBOX, TASKS.c.client).select_from(tasks).where(OUTBOX.c.id.in_(ids)).order_by(OUTBOX.c.id)


def _update_task(outbox_id: int, task_id: int, values: dict[str, Any]) -> Update:
    """Change the record of a message's task, unless the message is settled."""
    open_message = select(OUTBOX.c.id).where(OUTBOX.c.id == outbox_id, OUTBOX.c.due_at.is_not(None)).exists()
    return update(TASKS).where(TASKS.c.id == task_id, open_message).values(**values)


def _update_attempts(outbox_id: int, retry_at: datetime | None, delivered_at: datetime | None) -> Update:
    """Count an attempt. Without ``retry_at`` it was the last one, which settles the callback."""
    return (
        update(OUTBOX)
        .where(OUTBOX.c.id == outbox_id, OUTBOX.c.due_at.is_not(None))
        .values(attempts=_NEXT_ATTEMPT, due_at=retry_at, delivered_at=delivered_at, owner=None)
    )


def _select_settled(older_than: datetime, limit: int) -> Select[int]:
    """Select older callbacks that are delivered or given up."""
    return select(OUTBOX.c.id).where(OUTBOX.c.due_at.is_(None), OUTBOX.c.created_at < older_than).limit(limit)


def _delete_callbacks(ids: Collection[int]) -> Delete:
    return delete(OUTBOX).where(OUTBOX.c.id.in_(ids))


def _delete_undelivered(task_id: int) -> Delete:
    return delete(OUTBOX).where(OUTBOX.c.task_id == task_id, OUTBOX.c.due_at.is_not(None))
