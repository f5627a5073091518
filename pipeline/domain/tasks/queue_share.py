"""The share of the queue that one client may fill, so that others always find room in it."""

from __future__ import annotations

from pipeline.domain.tasks.client import QUEUE_RETRY_S, ClientLoad
from pipeline.errors import QuotaExceeded

ROOM_FACTOR = 8
"""Limit of a client's waiting tasks, as a multiple of the room left in the queue. One client alone fills eight ninths
of the queue, and others still find room (dynamic thresholds, Choudhury and Hahne, IEEE/ACM Transactions on Networking
6(2), 1998)."""


def share_of(queued_tasks: int, max_queued_tasks: int) -> int:
    """Return how many tasks of one client may wait while ``queued_tasks`` of all clients do."""
    return ROOM_FACTOR * max(0, max_queued_tasks - queued_tasks)


def refuse_over_share(load: ClientLoad, queued_tasks: int, max_queued_tasks: int) -> None:
    """Raise ``QuotaExceeded`` if the client's next task would take room that is left for others in a crowded queue."""
    if load.queued_tasks >= share_of(queued_tasks, max_queued_tasks):
        raise QuotaExceeded(
            f"{load.queued_tasks:,} of your tasks wait already, and the rest of the queue is for others.",
            QUEUE_RETRY_S,
        )
