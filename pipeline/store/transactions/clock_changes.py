"""Rows that a clock stamped with times of the future, before it was set back."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import exists, or_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline.domain.tasks.lifecycle import CLOCK_TOLERANCE
from pipeline.store.queries.common import QUEUED
from pipeline.store.tables import OUTBOX, TASKS


async def release_postponed(connection: AsyncConnection, now: datetime) -> int:
    """Makes due now what nobody has in hand and was postponed by a clock ahead of ``now``; returns how many rows."""
    future = now + CLOCK_TOLERANCE
    retries = (
        update(TASKS)
        .where(TASKS.c.status == QUEUED, TASKS.c.available_at > future, TASKS.c.updated_at > future)
        .values(available_at=None)
    )
    summaries = (
        update(TASKS)
        .where(TASKS.c.summary_due_at > future, TASKS.c.updated_at > future, TASKS.c.summary_owner.is_(None))
        .values(summary_due_at=now)
    )
    # Of the few that wait, one by one: no index leads to the time, and a search of all tasks holds up every writer.
    tried_in_future = exists().where(TASKS.c.id == OUTBOX.c.task_id, TASKS.c.callback_time > future)
    callbacks = (
        update(OUTBOX)
        .where(
            OUTBOX.c.due_at > future,
            OUTBOX.c.owner.is_(None),
            or_(OUTBOX.c.created_at > future, tried_in_future),
        )
        .values(due_at=now)
    )
    return sum([(await connection.execute(statement)).rowcount for statement in (retries, summaries, callbacks)])
