"""Columns that change together, and statements for any table."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Delete,
    Insert,
    Table,
    and_,
    case,
    delete,
    insert,
    or_,
    true,
)

from pipeline.domain.tasks.task import Status
from pipeline.store.rows.row_reader import MAX_COUNT
from pipeline.store.tables import TASKS

Flow = tuple[str | None, int]
"""A client, and the rank of a priority."""

QUEUED, PROCESSING = Status.QUEUED.value, Status.PROCESSING.value
LIVE = (QUEUED, PROCESSING)
FINISHED = tuple(status.value for status in Status if status.finished)
NEXT_FENCE: ColumnElement[int] = case((TASKS.c.fence < MAX_COUNT, TASKS.c.fence + 1), else_=1)
"""The fence raised; one that is damaged must not overflow its column."""
LONGEST_S = 1e8
"""Three years of audio: a recording that is longer is a number that was damaged."""
DENSITY_SAMPLE = 100
"""Recordings from which the length of those that wait is estimated."""
NO_OWNER: dict[str, Any] = {"owner": None, "lease_expires_at": None, "stage": None}
"""Columns of a task that nobody runs."""
UNPREPARED: dict[str, Any] = {"split_done": False, "audio_total_s": 0.0, "audio_done_s": 0.0}
"""Columns of a task of which nothing is prepared."""
PROGRESS: dict[str, Any] = {"failures": 0, "losses": 0}
"""Columns of a task that got further."""
NO_SUMMARY_DUE: dict[str, Any] = {"summary_owner": None, "summary_due_at": None}
"""Columns of a task whose summary nobody is to write."""


def not_left_by(vocabulary: str) -> ColumnElement[bool]:
    """Tasks that the version of this vocabulary has not left to a newer one."""
    return or_(TASKS.c.left_by.is_(None), TASKS.c.left_by != vocabulary)


def not_of(flows: Collection[Flow]) -> ColumnElement[bool]:
    """Tasks but for those of some clients and priorities."""
    others = (or_(TASKS.c.client.is_distinct_from(client), TASKS.c.priority_rank != rank) for client, rank in flows)
    return and_(true(), *others)


def insert_rows(table: Table) -> Insert:
    """New rows; the values come with the execution."""
    return insert(table)


def delete_of_task(table: Table, task_id: int) -> Delete:
    """A task's rows of one table: its chunks, once the transcript holds them all."""
    return delete(table).where(table.c.task_id == task_id)
