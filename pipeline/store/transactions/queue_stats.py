"""The amount of work that waits and runs."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, func, or_, select

from pipeline.domain.tasks.task import Priority, Status
from pipeline.ports import QueueStats
from pipeline.store.rows import task_codec
from pipeline.store.rows.vocabulary import vocabulary_digest
from pipeline.store.tables import OUTBOX, TASKS
from pipeline.store.transactions.columns import FINISHED, LIVE, MAX_AUDIO_S, QUEUED, not_left_to_newer

DENSITY_SAMPLE = 100
"""Finished recordings from which the length of waiting ones is estimated."""
MAX_COUNTED_BYTES = 2**50
"""A recording of more bytes has a damaged size."""


def measure(connection: Connection, now: datetime) -> QueueStats:
    """Return the amount of work that waits and runs."""
    rows: list[Row[Any]] = list(connection.execute(_select_live_totals(seconds_per_byte(connection, 0.0))))
    known = [row for row in rows if row.priority_rank in task_codec.PRIORITY_OF_RANK]
    queued = {task_codec.PRIORITY_OF_RANK[row.priority_rank]: row for row in known if row.status == Status.QUEUED}
    ages_s = {priority: _age_s(row.oldest, now) for priority, row in queued.items()}
    return QueueStats(
        queued_tasks=dict.fromkeys(Priority, 0) | {priority: row.tasks for priority, row in queued.items()},
        processing_tasks=sum(row.tasks for row in known if row.status == Status.PROCESSING),
        pending_audio_s=float(sum(row.pending_audio_s for row in known)),
        oldest_queued_s=max(ages_s.values(), default=0.0),
        oldest_s=dict.fromkeys(Priority, 0.0) | ages_s,
        waiting_callbacks=connection.execute(_select_number_of_callbacks()).scalar_one(),
        left_tasks=sum(row.tasks for row in rows if row not in known) + _count_left(connection),
    )


def seconds_per_byte(connection: Connection, default: float) -> float:
    """Return the length of recent recordings divided by their size, or the default if none has finished yet."""
    density = connection.execute(_select_recent_density()).one()
    return float(density.seconds) / float(density.size_bytes) if density.size_bytes else default


def count_queued_with_error(connection: Connection, code: str) -> int:
    """Return the number of queued tasks that show an error of this code."""
    return int(connection.execute(_select_number_queued_with_error(code)).scalar_one())


def _age_s(oldest: object, now: datetime) -> float:
    return max(0.0, (now - oldest).total_seconds()) if isinstance(oldest, datetime) else 0.0


def _count_left(connection: Connection) -> int:
    """Return the number of tasks that are left to a newer version, except those of a rank unknown to this one."""
    statements = _select_number_left(), _select_number_of_unknown_status()
    return sum([connection.execute(statement).scalar_one() for statement in statements])


def _select_recent_density() -> Select[float, int]:
    """Select the total seconds and bytes of the recordings that finished last."""
    recent = (
        select(TASKS.c.file_duration_s.label("seconds"), TASKS.c.file_size_bytes.label("size_bytes"))
        .where(
            TASKS.c.finished_at.is_not(None),
            TASKS.c.file_duration_s.between(0.001, MAX_AUDIO_S),
            TASKS.c.file_size_bytes.between(1, MAX_COUNTED_BYTES),
        )
        .order_by(TASKS.c.finished_at.desc())
        .limit(DENSITY_SAMPLE)
        .subquery()
    )
    return select(func.sum(recent.c.seconds).label("seconds"), func.sum(recent.c.size_bytes).label("size_bytes"))


def _select_live_totals(seconds_per_byte: float) -> Select[Any]:
    """Select, per status and priority of the tasks that wait or run: their number, pending audio and oldest creation.

    The audio of a recording that is not split yet is estimated from its size.
    """
    estimate_s = func.coalesce(TASKS.c.file_size_bytes, 0) * seconds_per_byte
    unsplit = and_(TASKS.c.split_done.is_(False), estimate_s > TASKS.c.audio_total_s)
    pending_s = case((unsplit, estimate_s), else_=TASKS.c.audio_total_s) - TASKS.c.audio_done_s
    return (
        select(
            TASKS.c.status,
            TASKS.c.priority_rank,
            func.count().label("tasks"),
            func.sum(case((pending_s.between(0.0, MAX_AUDIO_S), pending_s), else_=0.0)).label("pending_audio_s"),
            func.min(TASKS.c.created_at).label("oldest"),
        )
        .where(TASKS.c.status.in_(LIVE), not_left_to_newer())
        .group_by(TASKS.c.status, TASKS.c.priority_rank)
    )


def _select_number_left() -> Select[int]:
    """Select the number of unfinished tasks that this version leaves to a newer one."""
    return (
        select(func.count())
        .select_from(TASKS)
        .where(TASKS.c.left_by == vocabulary_digest(), TASKS.c.status.not_in(FINISHED))
    )


def _select_number_of_unknown_status() -> Select[int]:
    """Select the number of tasks whose status this version does not know.

    The ranges between the known words can be looked up in an index; ``NOT IN`` would read every task.
    """
    known = sorted(Status)
    between = [and_(TASKS.c.status > low.value, TASKS.c.status < high.value) for low, high in pairwise(known)]
    outside = TASKS.c.status < known[0].value, TASKS.c.status > known[-1].value
    return select(func.count()).select_from(TASKS).where(or_(*between, *outside))


def _select_number_queued_with_error(code: str) -> Select[int]:
    return select(func.count()).select_from(TASKS).where(TASKS.c.status == QUEUED, TASKS.c.error_code == code)


def _select_number_of_callbacks() -> Select[int]:
    """Select the number of callbacks that are still to be delivered."""
    return select(func.count()).select_from(OUTBOX).where(OUTBOX.c.due_at.is_not(None))
