"""The number of tasks that a Dispatcher may claim, by rank of their priority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from pipeline.domain.tasks.task import Priority


def claim_room(
    ranks: Mapping[int, int], limit: int, *, fetching: Collection[int], waiting: Collection[int]
) -> dict[int, int]:
    """Return how many more tasks of each rank may be claimed; 0 or less: none.

    Tasks whose recording is being fetched do not count against the limit, nor do up to ``limit`` tasks of a rank that
    wait to be split. So short recordings can queue for a Splitter even while long ones occupy all of them.

    Args:
        ranks: rank of each claimed task, by its id.
        limit: most tasks of one rank.
        fetching: ids of the tasks whose recording is being fetched.
        waiting: ids of the tasks that wait to be split.
    """
    fetched = {task_id: rank for task_id, rank in ranks.items() if task_id not in fetching}
    uncounted = Counter(rank for task_id, rank in fetched.items() if task_id in waiting)
    counts = Counter(fetched.values())
    return {
        priority.rank: limit - (counts[priority.rank] - min(uncounted[priority.rank], limit)) for priority in Priority
    }


def extra_room(room: Mapping[int, int], limit: int) -> dict[int, int]:
    """Return how many more tasks may be claimed of the ranks without room, for clients with less than their share.

    So a client whose tasks fill the limit does not keep others waiting until they are done. Tasks beyond the limit are
    at most as many as the limit allows.
    """
    return {rank: limit + free for rank, free in room.items() if free <= 0}
