"""Columns of a task that change together, and conditions on tasks that several modules use."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Delete, Table, case, delete, or_

from pipeline.domain.tasks.task import Stage, Status, TaskError
from pipeline.store.rows.row_reader import MAX_COUNT
from pipeline.store.rows.vocabulary import vocabulary_digest
from pipeline.store.tables import CHUNK_RESULTS, CHUNKS, PARTS, TASKS

QUEUED, PROCESSING = Status.QUEUED.value, Status.PROCESSING.value
LIVE = (QUEUED, PROCESSING)
FINISHED = tuple(status.value for status in Status if status.finished)
NEXT_FENCE: ColumnElement[int] = case((TASKS.c.fence < MAX_COUNT, TASKS.c.fence + 1), else_=1)
"""The raised fence. It restarts at 1 where a damaged one would overflow the column."""
MAX_AUDIO_S = 1e8
"""Three years of audio. A longer recording is a damaged number."""
NO_OWNER: dict[str, Any] = {"owner": None, "lease_expires_at": None, "stage": None}
"""Columns of a task that no Dispatcher runs."""
UNPREPARED: dict[str, Any] = {"split_done": False, "audio_total_s": 0.0, "audio_done_s": 0.0}
"""Columns of a task that has no prepared audio."""
PROGRESS: dict[str, Any] = {"failures": 0, "losses": 0}
"""Columns of a task that made progress."""
NO_SUMMARY_DUE: dict[str, Any] = {"summary_owner": None, "summary_due_at": None}
"""Columns of a task whose summary is not due."""
PREPARED_TABLES = (CHUNK_RESULTS, CHUNKS, PARTS)
"""Tables whose rows a task has only until its transcript is stored."""


def error_columns(error: TaskError | None) -> dict[str, Any]:
    """Return the columns of a task's error, or of its absence."""
    return {"error_code": error and error.code, "error_message": error and error.message}


def summary_is_due(now: datetime) -> dict[str, Any]:
    """Return the columns of a task that lacks only its summary. The raised fence ends the lease of its run."""
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


def not_left_to_newer() -> ColumnElement[bool]:
    """Return the condition that this version has not left the task to a newer one."""
    return or_(TASKS.c.left_by.is_(None), TASKS.c.left_by != vocabulary_digest())


def delete_of_task(table: Table, task_id: int) -> Delete:
    """Delete a task's rows of one table."""
    return delete(table).where(table.c.task_id == task_id)
