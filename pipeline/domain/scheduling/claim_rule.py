"""The order in which waiting tasks are claimed: priority raised by age, then turns between clients, then age.

Clients take turns: within a rank, the next task is that of the client with the fewest running. So a client with a
single task does not wait behind another's thousands. Tasks without a client together count as one client.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import NamedTuple

from pipeline.domain.tasks.lifecycle import claim_order


class ClaimCandidate(NamedTuple):
    """A task that may be claimed."""

    id: int
    rank: int
    client: str | None
    created_at: datetime


class ClaimPosition(NamedTuple):
    """A candidate's position in the order; the smallest is claimed first."""

    rank: int
    turn: int
    created_at: datetime
    id: int


@dataclass(frozen=True, slots=True)
class RunningTasks:
    """The tasks that the claiming Dispatcher runs already.

    Attributes:
        tasks: number of tasks, by rank and client.
        limit: tasks of one rank that are divided between clients. Each client gets at most its share: an equal one for
            itself and every client with running tasks. ``None``: no limit.
    """

    tasks: Mapping[tuple[int, str | None], int] = field(default_factory=dict)
    limit: int | None = None

    def held(self, rank: int, client: str | None) -> int:
        """Return the number of tasks that the client has running."""
        return self.tasks.get((rank, client), 0)

    def share(self, rank: int, client: str | None) -> float:
        """Return the most tasks that the client may have running."""
        if self.limit is None:
            return inf
        holders = {holder for (of_rank, holder), count in self.tasks.items() if of_rank == rank and count}
        return max(1, self.limit // len(holders | {client}))


NO_RUNNING_TASKS = RunningTasks()
"""A Dispatcher that runs no task."""


class ClaimRule:
    """A rule for the order in which candidates are claimed.

    Args:
        running_tasks: the tasks that the caller runs already.
        now: time of the claim.
        ageing_s: seconds of waiting that raise a task by one rank.
    """

    def __init__(self, running_tasks: RunningTasks, now: datetime, ageing_s: float) -> None:
        self._holdings = running_tasks
        self._now = now
        self._ageing_s = ageing_s

    def places(self, candidates: Iterable[ClaimCandidate]) -> list[tuple[ClaimPosition, ClaimCandidate]]:
        """Return the candidates that may be claimed, in order, each with its position."""
        turns: Counter[tuple[int, str | None]] = Counter()
        taken: Counter[tuple[int, str | None]] = Counter()
        placed = []
        for one in sorted(candidates, key=self._age):
            lifted, mine = self._age(one)[0], (one.rank, one.client)
            turn = self._holdings.held(max(0, lifted), one.client) + turns[lifted, one.client]
            if self._holdings.held(*mine) + taken[mine] < self._holdings.share(*mine):
                placed.append((ClaimPosition(lifted, turn, one.created_at, one.id), one))
            turns[lifted, one.client] += 1
            taken[mine] += 1
        return sorted(placed)

    def _age(self, one: ClaimCandidate) -> tuple[int, datetime, int]:
        return claim_order(one.id, one.rank, one.created_at, self._now, self._ageing_s)


def known_order(
    rule: ClaimRule,
    heads: Sequence[ClaimCandidate],
    groups: Mapping[tuple[int, str | None], Sequence[ClaimCandidate]],
    depth: int,
    others: Sequence[ClaimCandidate] = (),
) -> list[int]:
    """Return the ids of candidates in order, up to the first that an unread candidate might precede.

    Args:
        rule: the order.
        heads: the first task of every client and rank.
        groups: the first ``depth`` tasks of some clients and ranks, or all if there are fewer.
        depth: number of tasks read for each group.
        others: all further candidates.
    """
    unknown = [one for one in heads if (one.rank, one.client) not in groups]
    known = [one for group in groups.values() for one in group]
    ends = {one.id for one in unknown} | {group[-1].id for group in groups.values() if len(group) >= depth}
    order = []
    for _, one in rule.places([*known, *unknown, *others]):
        order.append(one.id)
        if one.id in ends:
            break
    return order
