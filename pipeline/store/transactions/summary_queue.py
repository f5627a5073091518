"""Transactions on summaries: due once the transcript is stored, taken under a lease, and settled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline.domain.scheduling.due_choice import DueWork
from pipeline.domain.summaries.summary import Summary
from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import Status, Task, TaskError
from pipeline.errors import LeaseLost
from pipeline.ports import SummaryLease
from pipeline.store import queries
from pipeline.store.rows import summary_codec
from pipeline.store.rows.vocabulary import vocabulary_digest
from pipeline.store.transactions import task_records
from pipeline.store.transactions.callback_outbox import enqueue_callback
from pipeline.store.transactions.due_work import choose_ids, due, select_per_client

Note = Callable[[RecordDefect], None]


async def choose_due(connection: AsyncConnection, owner: str, now: datetime, limit: int) -> list[int]:
    """The tasks whose summary is next: by priority, and shared between clients. Nothing is locked yet."""
    held = [_due(row, now) for row in await connection.execute(queries.summaries.held_summaries(owner, now))]
    rows = await select_per_client(connection, partial(queries.summaries.due_summaries, now), limit)
    return choose_ids([_due(row, now) for row in rows], held, limit, now)


async def take(
    connection: AsyncConnection,
    owner: str,
    now: datetime,
    lease_expires_at: datetime,
    chosen: Sequence[int],
    note: Note,
) -> list[SummaryLease]:
    """Takes summaries that were chosen and are still due; nobody else is given them while the lease lasts.

    A task that does not say any more what its summary is to be like ends without one.
    """
    locked = set((await connection.scalars(queries.summaries.lock_summaries(chosen, now))).all())
    ids = [task_id for task_id in chosen if task_id in locked]
    if not ids:
        return []
    read = await _turns(connection, ids, owner)
    for task_id, (_turn, defect) in read.items():
        if defect is not None:
            note(defect)
            await _set_aside(connection, task_id, defect, now)
    readable = [task_id for task_id in ids if task_id in read and read[task_id][1] is None]
    if not readable:
        return []
    await connection.execute(queries.summaries.take_summaries(readable, owner, now, lease_expires_at))
    turns = await _turns(connection, readable, owner)
    return [turns[task_id][0] for task_id in readable]


async def _turns(
    connection: AsyncConnection, task_ids: Collection[int], owner: str
) -> dict[int, tuple[SummaryLease, RecordDefect | None]]:
    rows = (await connection.execute(queries.summaries.summaries_of(task_ids))).mappings().all()
    return {row["id"]: summary_codec.read_turn(row, owner) for row in rows}


async def _set_aside(connection: AsyncConnection, task_id: int, defect: RecordDefect, now: datetime) -> None:
    """Leaves a task to a newer version, or ends it without its summary."""
    if defect.newer:
        await connection.execute(queries.runs.leave_tasks([task_id], vocabulary_digest()))
        return
    reason = summary_codec.summary_columns(TaskError(defect.code, defect.sentence))
    await connection.execute(queries.summaries.change_task(task_id, _ended(now) | reason))
    await enqueue_callback(connection, await task_records.get(connection, task_id), now)


def _due(row: Any, now: datetime) -> DueWork:
    return due(row.id, row.id, row.client, row.priority_rank, row.summary_due_at, now)


async def renew(
    connection: AsyncConnection, turns: Sequence[SummaryLease], lease_expires_at: datetime
) -> frozenset[int]:
    """Renews leases; returns the tasks whose summary is no longer the caller's to write."""
    lost = set()
    for turn in turns:
        if not (await connection.execute(queries.summaries.renew_summary(turn, lease_expires_at))).rowcount:
            lost.add(turn.task_id)
    return frozenset(lost)


async def finish(connection: AsyncConnection, turn: SummaryLease, outcome: Summary | TaskError, now: datetime) -> Task:
    """Ends the task with its summary, or without, and owes the callback."""
    await _change(connection, turn, _ended(now) | summary_codec.summary_columns(outcome))
    task = await task_records.get(connection, turn.task_id)
    await enqueue_callback(connection, task, now)
    return task


async def postpone(
    connection: AsyncConnection,
    turn: SummaryLease,
    due_at: datetime,
    error: TaskError | None,
    now: datetime,
    *,
    counted: bool,
) -> None:
    """Gives a summary back until ``due_at``."""
    values: dict[str, Any] = {"summary_owner": None, "summary_due_at": due_at, "updated_at": now}
    if error is not None:
        values |= summary_codec.summary_columns(error)
    if not counted:
        values["summary_attempts"] = turn.attempts - 1
    await _change(connection, turn, values)


async def save(connection: AsyncConnection, task_id: int, summary: Summary, now: datetime) -> None:
    """Stores a summary that was asked for by itself."""
    await task_records.get(connection, task_id)
    await connection.execute(
        queries.summaries.change_task(task_id, summary_codec.summary_columns(summary) | {"updated_at": now})
    )


def _ended(now: datetime) -> dict[str, Any]:
    """Columns of a task of which nothing is missing any more."""
    ended = {"status": Status.COMPLETED.value, "finished_at": now, "updated_at": now}
    return queries.common.NO_OWNER | queries.common.NO_SUMMARY_DUE | ended


async def _change(connection: AsyncConnection, turn: SummaryLease, values: dict[str, Any]) -> None:
    if not (await connection.execute(queries.summaries.change_summary(turn, values))).rowcount:
        raise LeaseLost(f"The summary of task {turn.task_id} passed to another owner, or is no longer wanted.")
