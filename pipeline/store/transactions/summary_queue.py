"""Summaries of transcribed tasks: they are claimed when due, and finished or postponed under the lease."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, Select, Update, select, update

from pipeline.domain.scheduling.due_choice import DueWork
from pipeline.domain.summaries.summary import Summary
from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import Status, Task, TaskError
from pipeline.errors import LeaseLost
from pipeline.ports import SummaryLease
from pipeline.store.rows import summary_codec
from pipeline.store.tables import TASKS
from pipeline.store.transactions import task_operations
from pipeline.store.transactions.callback_outbox import enqueue_callback
from pipeline.store.transactions.columns import NO_OWNER, NO_SUMMARY_DUE, not_left_to_newer
from pipeline.store.transactions.due_work import Flow, choose_ids, due_work, not_of, select_per_flow
from pipeline.store.transactions.row_defects import ReportDefect
from pipeline.store.transactions.unreadable_tasks import leave_to_newer


def choose_due(connection: Connection, owner: str, now: datetime, limit: int) -> list[int]:
    """Return the ids of up to ``limit`` tasks whose summary is due, shared between clients. Nothing is locked yet."""
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
) -> list[SummaryLease]:
    """Claim those of the chosen summaries that are still due; return their leases.

    A task whose summary options are damaged is completed without a summary.
    """
    locked = set(connection.scalars(_lock_due(chosen, now)).all())
    ids = [task_id for task_id in chosen if task_id in locked]
    if not ids:
        return []
    read = _read_leases(connection, ids, owner)
    for task_id, (_lease, defect) in read.items():
        if defect is not None:
            report_defect(defect)
            _set_aside(connection, task_id, defect, now)
    readable = [task_id for task_id in ids if task_id in read and read[task_id][1] is None]
    if not readable:
        return []
    connection.execute(_update_owner(readable, owner, now, lease_expires_at))
    leases = _read_leases(connection, readable, owner)
    return [leases[task_id][0] for task_id in readable]


def renew(connection: Connection, leases: Sequence[SummaryLease], lease_expires_at: datetime) -> frozenset[int]:
    """Renew leases; return the ids of the tasks whose summary the caller may not write any more."""
    lost = set()
    for lease in leases:
        if not connection.execute(_update_leased(lease, {"summary_due_at": lease_expires_at})).rowcount:
            lost.add(lease.task_id)
    return frozenset(lost)


def finish(connection: Connection, lease: SummaryLease, outcome: Summary | TaskError, now: datetime) -> Task:
    """Complete the task with its summary, or with the reason for its absence, and enqueue its callback."""
    _change_leased(connection, lease, _completed(now) | summary_codec.summary_columns(outcome))
    task = task_operations.get(connection, lease.task_id)
    enqueue_callback(connection, task, now)
    return task


def postpone(
    connection: Connection,
    lease: SummaryLease,
    due_at: datetime,
    error: TaskError | None,
    now: datetime,
    *,
    counted: bool,
) -> None:
    """Release a summary until ``due_at``."""
    values: dict[str, Any] = {"summary_owner": None, "summary_due_at": due_at, "updated_at": now}
    if error is not None:
        values |= summary_codec.summary_columns(error)
    if not counted:
        values["summary_attempts"] = lease.attempts - 1
    _change_leased(connection, lease, values)


def save(connection: Connection, task_id: int, summary: Summary, now: datetime) -> None:
    """Store a summary that was requested separately from the task's run. Raises ``TaskNotFound``."""
    task_operations.get(connection, task_id)
    connection.execute(_update_task(task_id, summary_codec.summary_columns(summary) | {"updated_at": now}))


def _read_leases(
    connection: Connection, task_ids: Collection[int], owner: str
) -> dict[int, tuple[SummaryLease, RecordDefect | None]]:
    rows = connection.execute(_select_leases(task_ids)).mappings().all()
    return {row["id"]: summary_codec.read_turn(row, owner) for row in rows}


def _set_aside(connection: Connection, task_id: int, defect: RecordDefect, now: datetime) -> None:
    """Leave a task to a newer version, or complete it without its summary."""
    if defect.newer:
        leave_to_newer(connection, [task_id])
        return
    reason = summary_codec.summary_columns(TaskError(defect.code, defect.sentence))
    connection.execute(_update_task(task_id, _completed(now) | reason))
    enqueue_callback(connection, task_operations.get(connection, task_id), now)


def _change_leased(connection: Connection, lease: SummaryLease, values: Mapping[str, Any]) -> None:
    if not connection.execute(_update_leased(lease, values)).rowcount:
        raise LeaseLost(f"The summary of task {lease.task_id} passed to another owner, or is no longer wanted.")


def _completed(now: datetime) -> dict[str, Any]:
    """Return the columns of a task that is completed."""
    completed = {"status": Status.COMPLETED.value, "finished_at": now, "updated_at": now}
    return NO_OWNER | NO_SUMMARY_DUE | completed


def _due_work(row: Row[Any], now: datetime) -> DueWork:
    return due_work(row.id, row.id, row.client, row.priority_rank, row.summary_due_at, now)


def _select_due(now: datetime, limit: int, full: Collection[Flow] = ()) -> Select[Any]:
    """Select tasks whose summary is due, longest due first, except those of some flows. Nothing is locked."""
    columns = TASKS.c.id, TASKS.c.client, TASKS.c.priority_rank, TASKS.c.summary_due_at
    due = select(*columns).where(TASKS.c.summary_due_at <= now, not_left_to_newer(), not_of(full))
    return due.order_by(TASKS.c.summary_due_at, TASKS.c.id).limit(limit)


def _select_held(owner: str, now: datetime) -> Select[Any]:
    """Select tasks on whose summary this owner has a lease."""
    columns = TASKS.c.id, TASKS.c.client, TASKS.c.priority_rank, TASKS.c.summary_due_at
    return select(*columns).where(TASKS.c.summary_due_at > now, TASKS.c.summary_owner == owner)


def _lock_due(task_ids: Collection[int], now: datetime) -> Select[int]:
    """Lock those of the tasks whose summary is still due; skip those that another process has locked."""
    return (
        select(TASKS.c.id)
        .where(TASKS.c.id.in_(task_ids), TASKS.c.summary_due_at <= now)
        .with_for_update(skip_locked=True)
    )


def _update_owner(task_ids: Collection[int], owner: str, now: datetime, due_at: datetime) -> Update:
    """Lease summaries to an owner. They are due again when the lease has expired."""
    return (
        update(TASKS)
        .where(TASKS.c.id.in_(task_ids), TASKS.c.summary_due_at <= now)
        .values(summary_owner=owner, summary_due_at=due_at, summary_attempts=TASKS.c.summary_attempts + 1)
    )


def _select_leases(task_ids: Collection[int]) -> Select[Any]:
    """Select the columns of summary leases."""
    return (
        select(TASKS.c.id, TASKS.c.media_prefix, TASKS.c.fence, TASKS.c.summary_attempts, TASKS.c.summary_options)
        .where(TASKS.c.id.in_(task_ids))
        .order_by(TASKS.c.id)
    )


def _update_leased(lease: SummaryLease, values: Mapping[str, Any]) -> Update:
    """Change the task of a summary lease that still holds."""
    return (
        update(TASKS)
        .where(
            TASKS.c.id == lease.task_id,
            TASKS.c.fence == lease.fence,
            TASKS.c.summary_owner == lease.owner,
            TASKS.c.summary_attempts == lease.attempts,
        )
        .values(**values)
    )


def _update_task(task_id: int, values: Mapping[str, Any]) -> Update:
    """Change a task in any state."""
    return update(TASKS).where(TASKS.c.id == task_id).values(**values)
