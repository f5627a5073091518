"""Rows with times in the future, from before the clock was set back."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Update, exists, or_, update

from pipeline.domain.tasks.lifecycle import CLOCK_TOLERANCE
from pipeline.store.tables import OUTBOX, TASKS
from pipeline.store.transactions.columns import QUEUED


def release_postponed(connection: Connection, now: datetime) -> int:
    """Make due now what has no owner and was postponed by a clock ahead of ``now``; return the number of rows."""
    future = now + CLOCK_TOLERANCE
    statements = _update_retries(future), _update_summaries(future, now), _update_callbacks(future, now)
    return sum([connection.execute(statement).rowcount for statement in statements])


def _update_retries(future: datetime) -> Update:
    """Make queued tasks due that were changed and postponed in the future."""
    return (
        update(TASKS)
        .where(TASKS.c.status == QUEUED, TASKS.c.available_at > future, TASKS.c.updated_at > future)
        .values(available_at=None)
    )


def _update_summaries(future: datetime, now: datetime) -> Update:
    """Make summaries due that were postponed in the future and have no owner."""
    return (
        update(TASKS)
        .where(TASKS.c.summary_due_at > future, TASKS.c.updated_at > future, TASKS.c.summary_owner.is_(None))
        .values(summary_due_at=now)
    )


def _update_callbacks(future: datetime, now: datetime) -> Update:
    """Make callbacks due that were stored or tried in the future and have no owner.

    The time of the last try is looked up for each of the few waiting callbacks: no index leads to it, and a search of
    all tasks would hold up every writer.
    """
    tried_in_future = exists().where(TASKS.c.id == OUTBOX.c.task_id, TASKS.c.callback_time > future)
    return (
        update(OUTBOX)
        .where(
            OUTBOX.c.due_at > future,
            OUTBOX.c.owner.is_(None),
            or_(OUTBOX.c.created_at > future, tried_in_future),
        )
        .values(due_at=now)
    )
