"""Statements about the summaries of tasks that are completed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Select,
    Update,
    select,
    update,
)

from pipeline.domain.tasks.task import Stage
from pipeline.ports import SummaryLease
from pipeline.store.queries.common import NEXT_FENCE, NO_OWNER, PROCESSING, QUEUED, Flow, not_left_by, not_of
from pipeline.store.rows.vocabulary import vocabulary_digest
from pipeline.store.tables import (
    TASKS,
    TRANSCRIPTS,
)


def summary_is_due(now: datetime) -> dict[str, Any]:
    """Columns of a task of which only the summary is missing; the higher fence ends the lease under which it ran."""
    return NO_OWNER | {
        "status": PROCESSING,
        "stage": Stage.SUMMARIZING.value,
        "fence": NEXT_FENCE,
        "updated_at": now,
        "summary_error_code": None,
        "summary_error_message": None,
        "summary_attempts": 0,
        "summary_owner": None,
        "summary_due_at": now,
    }


def resume_summary(task_id: int, now: datetime) -> Update:
    """Sends a queued task that has its transcript on to its summary."""
    transcribed = select(TRANSCRIPTS.c.task_id).where(TRANSCRIPTS.c.task_id == task_id).exists()
    return (
        update(TASKS).where(TASKS.c.id == task_id, TASKS.c.status == QUEUED, transcribed).values(**summary_is_due(now))
    )


def due_summaries(now: datetime, limit: int, full: Collection[Flow] = ()) -> Select[Any]:
    """Tasks whose summary is to be written now, longest due first, but for some clients'; nothing is locked."""
    columns = TASKS.c.id, TASKS.c.client, TASKS.c.priority_rank, TASKS.c.summary_due_at
    due = select(*columns).where(TASKS.c.summary_due_at <= now, not_left_by(vocabulary_digest()), not_of(full))
    return due.order_by(TASKS.c.summary_due_at, TASKS.c.id).limit(limit)


def held_summaries(owner: str, now: datetime) -> Select[Any]:
    """Tasks whose summary this owner has in hand."""
    columns = TASKS.c.id, TASKS.c.client, TASKS.c.priority_rank, TASKS.c.summary_due_at
    return select(*columns).where(TASKS.c.summary_due_at > now, TASKS.c.summary_owner == owner)


def lock_summaries(task_ids: Collection[int], now: datetime) -> Select[int]:
    """Those of the tasks whose summary is still to be written, for us alone."""
    return (
        select(TASKS.c.id)
        .where(TASKS.c.id.in_(task_ids), TASKS.c.summary_due_at <= now)
        .with_for_update(skip_locked=True)
    )


def take_summaries(task_ids: Collection[int], owner: str, now: datetime, due_at: datetime) -> Update:
    """Keeps others from them until the lease has run out."""
    return (
        update(TASKS)
        .where(TASKS.c.id.in_(task_ids), TASKS.c.summary_due_at <= now)
        .values(summary_owner=owner, summary_due_at=due_at, summary_attempts=TASKS.c.summary_attempts + 1)
    )


def summaries_of(task_ids: Collection[int]) -> Select[Any]:
    """What has to be known of tasks to write their summaries."""
    return (
        select(TASKS.c.id, TASKS.c.media_prefix, TASKS.c.fence, TASKS.c.summary_attempts, TASKS.c.summary_options)
        .where(TASKS.c.id.in_(task_ids))
        .order_by(TASKS.c.id)
    )


def renew_summary(turn: SummaryLease, due_at: datetime) -> Update:
    """Renews one lease that still holds."""
    return change_summary(turn, {"summary_due_at": due_at})


def change_summary(turn: SummaryLease, values: dict[str, Any]) -> Update:
    """Changes the task of a summary that is still the owner's to write."""
    return (
        update(TASKS)
        .where(
            TASKS.c.id == turn.task_id,
            TASKS.c.fence == turn.fence,
            TASKS.c.summary_owner == turn.owner,
            TASKS.c.summary_attempts == turn.attempts,
        )
        .values(**values)
    )


def change_task(task_id: int, values: dict[str, Any]) -> Update:
    """Changes a task, whatever its state."""
    return update(TASKS).where(TASKS.c.id == task_id).values(**values)
