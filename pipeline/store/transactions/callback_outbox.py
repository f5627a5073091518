"""Transactions on the outbox: callbacks that are owed, taken and settled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline.domain.scheduling.due_choice import DueWork
from pipeline.domain.tasks.lifecycle import message_id
from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import Task
from pipeline.ports import DeliveryAttempt, OutboxMessage
from pipeline.store import queries
from pipeline.store.rows import callback_codec
from pipeline.store.tables import OUTBOX
from pipeline.store.transactions.due_work import choose_ids, due, select_per_client


async def enqueue_callback(connection: AsyncConnection, task: Task, now: datetime) -> None:
    """Writes the callback of a run that has just ended, in the transaction that ends it."""
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
    await connection.execute(queries.common.insert_rows(OUTBOX), row)


async def choose_due(connection: AsyncConnection, owner: str, now: datetime, limit: int) -> list[int]:
    """The messages whose turn it is, shared between clients. Nothing is locked yet."""
    held = [_due(row, now) for row in await connection.execute(queries.callbacks.held_callbacks(owner, now))]
    rows = await select_per_client(connection, partial(queries.callbacks.due_callbacks, now), limit)
    return choose_ids([_due(row, now) for row in rows], held, limit, now)


async def take(
    connection: AsyncConnection,
    owner: str,
    now: datetime,
    lease_expires_at: datetime,
    chosen: Sequence[int],
    note: Callable[[RecordDefect], None],
) -> list[OutboxMessage]:
    """Takes callbacks that were chosen and are still due; nobody else is given them while the lease lasts.

    Damaged ones are given up.
    """
    ids = (await connection.scalars(queries.callbacks.lock_callbacks(chosen, now))).all()
    if not ids:
        return []
    await connection.execute(queries.callbacks.take_callbacks(ids, owner, now, lease_expires_at))
    rows = (await connection.execute(queries.callbacks.callbacks(ids))).mappings().all()
    messages = []
    for message, defect in map(callback_codec.read_message, rows):
        if defect is None:
            messages.append(message)
        else:
            note(defect)
            await connection.execute(queries.callbacks.settle_callback(message.id, None, None))
    return messages


def _due(row: Any, now: datetime) -> DueWork:
    return due(row.id, row.task_id, row.client, 0, row.due_at, now)


async def record(connection: AsyncConnection, message: OutboxMessage, attempt: DeliveryAttempt, now: datetime) -> None:
    """Notes what came of an attempt. A message that was settled or withdrawn meanwhile stays as it is."""
    answer = {
        "callback_status_code": attempt.status_code,
        "callback_message": attempt.message,
        "callback_time": now,
        "updated_at": now,
    }
    await connection.execute(queries.callbacks.update_callback_state(message.id, message.task_id, answer))
    delivered_at = now if attempt.delivered else None
    retry_at = None if attempt.delivered else attempt.retry_at
    await connection.execute(queries.callbacks.settle_callback(message.id, retry_at, delivered_at))
