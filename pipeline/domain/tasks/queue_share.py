"""How much of the queue one client may fill, so that others always find a place in it."""

from __future__ import annotations

from pipeline.domain.tasks.client import QUEUE_RETRY_S, ClientLoad
from pipeline.errors import QuotaExceeded

ROOM_FACTOR = 8
"""A client's tasks may wait as long as they are fewer than this many times the room that is left in the queue: alone
it fills eight ninths of it, and others still find a place (dynamic thresholds, Choudhury and Hahne, IEEE/ACM
Transactions on Networking 6(2), 1998)."""


def share_of(queued_tasks: int, max_queued_tasks: int) -> int:
    """Return how many tasks of one client may wait, where so many of all clients do."""
    return ROOM_FACTOR * max(0, max_queued_tasks - queued_tasks)


def refuse_over_share(load: ClientLoad, queued_tasks: int, max_queued_tasks: int) -> None:
    """Raises ``QuotaExceeded`` if the client's next task would take what is left for others of a crowded queue."""
    if load.queued_tasks >= share_of(queued_tasks, max_queued_tasks):
        raise QuotaExceeded(
            f"{load.queued_tasks:,} of your tasks wait already, and what is left of the queue is for others.",
            QUEUE_RETRY_S,
        )
