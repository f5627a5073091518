"""Work that is due, found for every client: whoever has thousands of rows hides nobody else's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline.domain.scheduling.due_choice import DueWork, choose_fairly
from pipeline.domain.scheduling.fair_queue import AGEING_S, LOWEST_RANK, share_key
from pipeline.store.queries.common import Flow

MAX_PAGES = 8
"""Queries of one search: as many clients with more than enough may stand before one that is found still."""


async def select_per_client(
    connection: AsyncConnection, query: Callable[[int, Collection[Flow]], Select[Any]], enough: int
) -> list[Row[Any]]:
    """Return rows that are due, longest due first: of each client and priority ``enough``, if there are.

    Where few rows are due, this is one query, which walks an index in its order.

    Args:
        connection: of a transaction that only reads.
        query: takes a limit and what to leave out; its rows have ``id``, ``client`` and ``priority_rank``.
        enough: how many rows of one client and priority are of use.
    """
    rows_by_id: dict[int, Row[Any]] = {}
    full: set[Flow] = set()
    for _ in range(MAX_PAGES):
        rows = (await connection.execute(query(2 * enough, full))).all()
        rows_by_id |= {row.id: row for row in rows}
        counts = Counter[Flow]((row.client, row.priority_rank) for row in rows_by_id.values())
        newly_full = {flow for flow, count in counts.items() if count >= enough} - full
        if len(rows) < 2 * enough or not newly_full:
            break
        full |= newly_full
    return list(rows_by_id.values())


def due(row_id: int, task_id: int, client: str | None, priority_rank: object, due_at: object, now: datetime) -> DueWork:
    """Return a row as it takes turns; a rank or a time that can't be read counts as the lowest and the latest."""
    since = due_at if isinstance(due_at, datetime) else now
    rank = priority_rank if isinstance(priority_rank, int) else LOWEST_RANK
    return DueWork(row_id, share_key(task_id, client), rank, since.timestamp())


def choose_ids(waiting: Sequence[DueWork], held: Sequence[DueWork], limit: int, now: datetime) -> list[int]:
    """Return the ids of the rows to take next, in the order of their turns."""
    return choose_fairly(waiting, held, limit, now.timestamp(), AGEING_S)
