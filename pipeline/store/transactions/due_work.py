"""The choice of due work between clients. A client with thousands of due rows does not hide those of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, or_, true

from pipeline.domain.scheduling.due_choice import DueWork, choose_fairly
from pipeline.domain.scheduling.fair_queue import AGEING_S, LOWEST_RANK, share_key
from pipeline.store.tables import TASKS

Flow = tuple[str | None, int]
"""A client, and the rank of a priority."""
MAX_PAGES = 8
"""Queries of one search. Each omits the flows that filled earlier ones, so a search gets past as many crowded flows."""


def select_per_flow(
    connection: Connection, select_due: Callable[[int, Collection[Flow]], Select[Any]], enough: int
) -> list[Row[Any]]:
    """Return due rows, longest due first within each query: up to ``enough`` of each flow, and perhaps more.

    If few rows are due, this is one query, which walks an index in its order.

    Args:
        connection: of a transaction that only reads.
        select_due: takes a limit and the flows to omit. Its rows have ``id``, ``client`` and ``priority_rank``.
        enough: how many rows of one flow can be chosen at most.
    """
    rows_by_id: dict[int, Row[Any]] = {}
    full: set[Flow] = set()
    for _ in range(MAX_PAGES):
        rows = connection.execute(select_due(2 * enough, full)).all()
        rows_by_id |= {row.id: row for row in rows}
        counts = Counter[Flow]((row.client, row.priority_rank) for row in rows_by_id.values())
        newly_full = {flow for flow, count in counts.items() if count >= enough} - full
        if len(rows) < 2 * enough or not newly_full:
            break
        full |= newly_full
    return list(rows_by_id.values())


def not_of(flows: Collection[Flow]) -> ColumnElement[bool]:
    """Return the condition that a task is of none of the flows."""
    others = (or_(TASKS.c.client.is_distinct_from(client), TASKS.c.priority_rank != rank) for client, rank in flows)
    return and_(true(), *others)


def due_work(
    row_id: int, task_id: int, client: str | None, priority_rank: object, due_at: object, now: datetime
) -> DueWork:
    """Return a row as ``choose_ids`` takes it. An unreadable rank is taken as the lowest, an unreadable time as now."""
    since = due_at if isinstance(due_at, datetime) else now
    rank = priority_rank if isinstance(priority_rank, int) else LOWEST_RANK
    return DueWork(row_id, share_key(task_id, client), rank, since.timestamp())


def choose_ids(waiting: Sequence[DueWork], held: Sequence[DueWork], limit: int, now: datetime) -> list[int]:
    """Return the ids of the rows to claim next, in order."""
    return choose_fairly(waiting, held, limit, now.timestamp(), AGEING_S)
