"""Choosing work that waits in a database, by the rules of ``domain.scheduling.fair_queue``."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from pipeline.domain.scheduling.fair_queue import SlotLimits


@dataclass(frozen=True, slots=True)
class DueWork:
    """A piece of work that waits in a database.

    Attributes:
        id: id of its row.
        client: its share key, see ``share_key``.
        priority_rank: rank; 0 is served first.
        since: time at which it became due, in seconds on the clock of ``choose_fairly``.
    """

    id: int
    client: str
    priority_rank: int
    since: float


def choose_fairly(
    due: Sequence[DueWork], held: Iterable[DueWork], limit: int, now: float, ageing_s: float
) -> list[int]:
    """Choose the next pieces of work that is due, each of the same cost.

    Priority decides, raised by age; then the client with the fewest slots; then the longest wait. ``SlotLimits``
    decides what a client and a priority leave free. The time is about that of sorting.

    Args:
        due: the waiting work.
        held: work that the caller has in progress.
        limit: most work to choose; together with ``held`` it fills all slots of the caller.
        now: current time, in seconds.
        ageing_s: seconds after which due work is raised by one priority.

    Returns:
        The ids of rows, in the order in which they are served.
    """
    in_hand = Counter((each.client, each.priority_rank) for each in held)
    choice = _FairChoice(SlotLimits(in_hand.total() + max(0, limit), reserve=True), in_hand, now, ageing_s)
    return choice.of(due)


class _FairChoice:
    """A run of ``choose_fairly``. It compares only the first work of each client and priority: no other can be next."""

    def __init__(self, limits: SlotLimits, in_hand: Counter[tuple[str, int]], now: float, ageing_s: float) -> None:
        self._limits = limits
        self._in_hand = in_hand
        self._now = now
        self._ageing_s = ageing_s
        self._of_client = Counter[str]()
        for (client, _), count in in_hand.items():
            self._of_client[client] += count
        self._taken = in_hand.total()
        self._further = self._taken - len(self._of_client)

    def of(self, due: Sequence[DueWork]) -> list[int]:
        """Return the ids of the chosen work."""
        waiting: dict[tuple[str, int], deque[DueWork]] = {}
        for each in sorted(due, key=lambda one: (one.since, one.id)):
            waiting.setdefault((each.client, each.priority_rank), deque()).append(each)
        heads = [self._order(group[0]) for group in waiting.values()]
        heapify(heads)
        chosen = []
        while heads:
            order = heappop(heads)
            group = waiting[order[-1]]
            if order != (current := self._order(group[0])):  # its client got another slot meanwhile
                heappush(heads, current)
            elif self._admits(group[0]):  # work that is not admitted now will not be admitted later either
                chosen.append(self._take(group.popleft()))
                if group:
                    heappush(heads, self._order(group[0]))
        return chosen

    def _order(self, due: DueWork) -> tuple[int, int, float, int, tuple[str, int]]:
        return self._rank(due), self._of_client[due.client], due.since, due.id, (due.client, due.priority_rank)

    def _rank(self, due: DueWork) -> int:
        return due.priority_rank - int(max(0.0, self._now - due.since) / self._ageing_s)

    def _admits(self, due: DueWork) -> bool:
        return self._limits.admit(self._rank(due), taken=self._taken, further=self._further, first=self._is_first(due))

    def _is_first(self, due: DueWork) -> bool:
        return not any(self._in_hand[due.client, rank] for rank in range(due.priority_rank + 1))

    def _take(self, due: DueWork) -> int:
        self._further += 0 if self._is_first(due) else 1
        self._in_hand[due.client, due.priority_rank] += 1
        self._of_client[due.client] += 1
        self._taken += 1
        return due.id
