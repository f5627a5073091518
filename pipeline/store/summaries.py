"""Transactions on summaries: due once the transcript is stored, taken under a lease, and settled."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline.domain.fair_choice import Due, choose
from pipeline.domain.fair_line import AGEING_S, sharer
from pipeline.domain.summary import Summary
from pipeline.domain.task import Status, Task, TaskError
from pipeline.errors import LeaseLost
from pipeline.ports import SummaryTurn
from pipeline.store import codec, queries, records
from pipeline.store.callbacks import owe
from pipeline.store.due import of_every_client


async def choose_due(connection: AsyncConnection, owner: str, now: datetime, limit: int) -> list[int]:
    """The tasks whose summary is next: by priority, and shared between clients. Nothing is locked yet."""
    held = [_due(row) for row in await connection.execute(queries.summaries.held_summaries(owner, now))]
    rows = await of_every_client(connection, partial(queries.summaries.due_summaries, now), limit)
    due = [_due(row) for row in rows]
    return choose(due, held, limit, now.timestamp(), AGEING_S)


async def take(
    connection: AsyncConnection, owner: str, now: datetime, lease_expires_at: datetime, chosen: Sequence[int]
) -> list[SummaryTurn]:
    """Takes summaries that were chosen and are still due; nobody else is given them while the lease lasts."""
    locked = set((await connection.scalars(queries.summaries.lock_summaries(chosen, now))).all())
    ids = [task_id for task_id in chosen if task_id in locked]
    if not ids:
        return []
    await connection.execute(queries.summaries.take_summaries(ids, owner, now, lease_expires_at))
    rows: list[Any] = list(await connection.execute(queries.summaries.summaries_of(owner, ids)))
    turns = {
        row.id: SummaryTurn(
            task_id=row.id,
            media_prefix=row.media_prefix,
            fence=row.fence,
            owner=owner,
            attempts=row.summary_attempts,
            options=codec.summary_options_of_json(row.summary_options),
        )
        for row in rows
    }
    return [turns[task_id] for task_id in ids]


def _due(row: Any) -> Due:
    return Due(row.id, sharer(row.id, row.client), row.priority_rank, row.summary_due_at.timestamp())


async def renew(
    connection: AsyncConnection, turns: Sequence[SummaryTurn], lease_expires_at: datetime
) -> frozenset[int]:
    """Renews leases; returns the tasks whose summary is no longer the caller's to write."""
    lost = set()
    for turn in turns:
        if not (await connection.execute(queries.summaries.renew_summary(turn, lease_expires_at))).rowcount:
            lost.add(turn.task_id)
    return frozenset(lost)


async def finish(connection: AsyncConnection, turn: SummaryTurn, outcome: Summary | TaskError, now: datetime) -> Task:
    """Ends the task with its summary, or without, and owes the callback."""
    ended = {"status": Status.COMPLETED.value, "finished_at": now, "updated_at": now}
    values = queries.common.NO_OWNER | queries.common.NO_SUMMARY_DUE | ended | codec.summary_columns(outcome)
    await _change(connection, turn, values)
    task = await records.get(connection, turn.task_id)
    await owe(connection, task, now)
    return task


async def postpone(
    connection: AsyncConnection,
    turn: SummaryTurn,
    due_at: datetime,
    error: TaskError | None,
    now: datetime,
    *,
    counted: bool,
) -> None:
    """Gives a summary back until ``due_at``."""
    values: dict[str, Any] = {"summary_owner": None, "summary_due_at": due_at, "updated_at": now}
    if error is not None:
        values |= codec.summary_columns(error)
    if not counted:
        values["summary_attempts"] = turn.attempts - 1
    await _change(connection, turn, values)


async def save(connection: AsyncConnection, task_id: int, summary: Summary, now: datetime) -> None:
    """Stores a summary that was asked for by itself."""
    await records.get(connection, task_id)
    await connection.execute(
        queries.summaries.change_task(task_id, codec.summary_columns(summary) | {"updated_at": now})
    )


async def _change(connection: AsyncConnection, turn: SummaryTurn, values: dict[str, Any]) -> None:
    if not (await connection.execute(queries.summaries.change_summary(turn, values))).rowcount:
        raise LeaseLost(f"The summary of task {turn.task_id} passed to another owner, or is no longer wanted.")
