"""Leases on tasks: they are renewed and ended here, and every change of a task under its lease is checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Connection, Select, Update, insert, select, tuple_, union, update

from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.tasks.task import Task
from pipeline.errors import LeaseLost
from pipeline.ports import Lease
from pipeline.store.rows import crawl_codec, task_codec
from pipeline.store.tables import CRAWL_RECORDS, OUTBOX, TASKS
from pipeline.store.transactions.client_usage import charge_recording
from pipeline.store.transactions.columns import PROCESSING, delete_of_task

EXPIRED_AGO = timedelta(seconds=1)
"""An ended lease is stored as one that expired so long ago."""


def renew(connection: Connection, leases: Sequence[Lease], lease_expires_at: datetime) -> frozenset[int]:
    """Renew leases; return the ids of the tasks that the caller has lost."""
    connection.execute(_update_expiry(leases, lease_expires_at))
    rows = connection.execute(_select_fences([lease.task_id for lease in leases]))
    held = {Lease(row.id, row.fence) for row in rows}
    return frozenset(lease.task_id for lease in leases if lease not in held)


def owners(connection: Connection, now: datetime) -> frozenset[str]:
    """Return the owners of task leases, and of callback and summary leases that have not expired."""
    names = connection.scalars(_select_owners(now))
    return frozenset(name for name in names if isinstance(name, str))


def expire_of(connection: Connection, owner: str, now: datetime) -> None:
    """End every lease of an owner."""
    connection.execute(_update_expired_tasks(owner, now - EXPIRED_AGO))
    connection.execute(_update_expired_callbacks(owner, now))
    connection.execute(_update_expired_summaries(owner, now))


def lock_leased_task(connection: Connection, lease: Lease) -> Task:
    """Lock the task of a lease until the transaction ends, and return it. Raises ``LeaseLost``."""
    row = connection.execute(_lock_leased(lease)).mappings().one_or_none()
    if row is None:
        raise _lease_lost_error(lease)
    return task_codec.read_task(row)


def change_leased_task(connection: Connection, lease: Lease, values: Mapping[str, Any]) -> None:
    """Set columns of the task of a lease. Raises ``LeaseLost``."""
    if not connection.execute(_update_leased(lease, values)).rowcount:
        raise _lease_lost_error(lease)


def update_task(connection: Connection, lease: Lease, changes: Mapping[str, Any], now: datetime) -> None:
    """Set fields of the task (names of ``Task``). ``split_done`` charges the recording to the task's client."""
    change_leased_task(connection, lease, task_codec.columns_of(changes) | {"updated_at": now})
    if changes.get("split_done"):
        charge_recording(connection, lease.task_id, now)


def save_crawl_record(connection: Connection, lease: Lease, record: CrawlRecord, now: datetime) -> None:
    """Store the record of the task's link in place of an earlier one."""
    lock_leased_task(connection, lease)
    connection.execute(delete_of_task(CRAWL_RECORDS, lease.task_id))
    row = {"task_id": lease.task_id, "record": crawl_codec.crawl_to_json(record)}
    connection.execute(insert(CRAWL_RECORDS), row)
    change_leased_task(connection, lease, {"updated_at": now})


def _lease_lost_error(lease: Lease) -> LeaseLost:
    return LeaseLost(f"Task {lease.task_id} passed to another owner, or ended, after fence {lease.fence}.")


def _update_expiry(leases: Sequence[Lease], lease_expires_at: datetime) -> Update:
    """Renew those of the leases that still hold."""
    return (
        update(TASKS)
        .where(
            TASKS.c.id.in_([lease.task_id for lease in leases]),
            TASKS.c.status == PROCESSING,
            # Pairs, not an OR of conditions: SQLite refuses an expression that is more than 1,000 deep.
            tuple_(TASKS.c.id, TASKS.c.fence).in_([(lease.task_id, lease.fence) for lease in leases]),
        )
        .values(lease_expires_at=lease_expires_at)
    )


def _select_fences(task_ids: Collection[int]) -> Select[int, int]:
    """Select the fences of those of the tasks that run."""
    return select(TASKS.c.id, TASKS.c.fence).where(TASKS.c.id.in_(task_ids), TASKS.c.status == PROCESSING)


def _select_owners(now: datetime) -> CompoundSelect[str]:
    """Select the owners of all task leases, and of callback and summary leases that have not expired."""
    of_tasks = select(TASKS.c.owner).where(TASKS.c.status == PROCESSING, TASKS.c.owner.is_not(None))
    of_callbacks = select(OUTBOX.c.owner).where(OUTBOX.c.due_at > now, OUTBOX.c.owner.is_not(None))
    of_summaries = select(TASKS.c.summary_owner).where(TASKS.c.summary_due_at > now, TASKS.c.summary_owner.is_not(None))
    return union(of_tasks, of_callbacks, of_summaries)


def _update_expired_tasks(owner: str, expired_at: datetime) -> Update:
    """End the leases of an owner on tasks."""
    conditions = TASKS.c.status == PROCESSING, TASKS.c.owner == owner
    return update(TASKS).where(*conditions).values(lease_expires_at=expired_at)


def _update_expired_callbacks(owner: str, now: datetime) -> Update:
    """End the leases of an owner on callbacks."""
    return update(OUTBOX).where(OUTBOX.c.owner == owner, OUTBOX.c.due_at > now).values(due_at=now, owner=None)


def _update_expired_summaries(owner: str, now: datetime) -> Update:
    """End the leases of an owner on summaries."""
    return (
        update(TASKS)
        .where(TASKS.c.summary_owner == owner, TASKS.c.summary_due_at > now)
        .values(summary_due_at=now, summary_owner=None)
    )


def _lock_leased(lease: Lease) -> Select[Any]:
    """Lock the task of a lease that still holds, so that no other process can take it before the transaction ends."""
    return select(TASKS).where(*_lease_holds(lease)).with_for_update()


def _update_leased(lease: Lease, values: Mapping[str, Any]) -> Update:
    """Change the task of a lease that still holds."""
    return update(TASKS).where(*_lease_holds(lease)).values(**values)


def _lease_holds(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return TASKS.c.id == lease.task_id, TASKS.c.status == PROCESSING, TASKS.c.fence == lease.fence
