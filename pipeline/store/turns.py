"""Rows whose turn may have come, as ``domain.fair_choice`` compares them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipeline.domain.fair_choice import Due, choose
from pipeline.domain.fair_line import AGEING_S, LOWEST_RANK, sharer


def due(row_id: int, task_id: int, client: str | None, priority_rank: object, due_at: object, now: datetime) -> Due:
    """Return a row as it takes turns; a rank or a time that can't be read counts as the lowest and the latest."""
    since = due_at if isinstance(due_at, datetime) else now
    rank = priority_rank if isinstance(priority_rank, int) else LOWEST_RANK
    return Due(row_id, sharer(task_id, client), rank, since.timestamp())


def whose_turn(waiting: Sequence[Due], held: Sequence[Due], limit: int, now: datetime) -> list[int]:
    """Return the ids of the rows to take next, in the order of their turns."""
    return choose(waiting, held, limit, now.timestamp(), AGEING_S)
