"""Which of the waiting tasks are claimed next: priority lifted by age, then turns between clients, then age.

Clients take turns: of one rank, the next task goes to whoever has fewest of them running. So a client with a single
task does not wait behind another's thousands. Tasks without a client are one client's together.
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
    """A candidate's place in line."""

    rank: int
    turn: int
    created_at: datetime
    id: int


@dataclass(frozen=True, slots=True)
class RunningTasks:
    """What the claiming Dispatcher runs already.

    Attributes:
        tasks: how many, by rank and client.
        limit: tasks of a rank, where it is to be divided: a client then gets no more of them than its share, which is
            an equal one for each client that holds some and for itself. ``None``: whatever there is.
    """

    tasks: Mapping[tuple[int, str | None], int] = field(default_factory=dict)
    limit: int | None = None

    def held(self, rank: int, client: str | None) -> int:
        """Return how many tasks the client has running."""
        return self.tasks.get((rank, client), 0)

    def share(self, rank: int, client: str | None) -> float:
        """Return how many it may have."""
        if self.limit is None:
            return inf
        holders = {holder for (of_rank, holder), count in self.tasks.items() if of_rank == rank and count}
        return max(1, self.limit // len(holders | {client}))


NO_RUNNING_TASKS = RunningTasks()
"""A Dispatcher that runs no task."""


class ClaimRule:
    """The order in which candidates are claimed.

    Args:
        running_tasks: what the caller runs already.
        now: the time of the claim.
        ageing_s: a task is lifted by one rank for each full period of this length that it has waited.
    """

    def __init__(self, running_tasks: RunningTasks, now: datetime, ageing_s: float) -> None:
        self._holdings = running_tasks
        self._now = now
        self._ageing_s = ageing_s

    def places(self, candidates: Iterable[ClaimCandidate]) -> list[tuple[ClaimPosition, ClaimCandidate]]:
        """Return those that may be claimed, in order, each with its place."""
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
    """Return the ids of candidates in order, up to where one that was not looked up might come before them.

    Args:
        rule: the order.
        heads: the first task of every client and rank.
        groups: the first ``depth`` tasks of some of those, or all where there are fewer.
        depth: see ``groups``.
        others: further candidates, all there are.
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
