"""What is taken next of work that waits in a database, by the rules of ``fair_line``."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from pipeline.domain.scheduling.fair_queue import SlotLimits


@dataclass(frozen=True, slots=True)
class DueWork:
    """Work that waits in a database.

    Attributes:
        id: its row.
        client: the name under which it shares, see ``share_key``.
        priority_rank: 0 is served first.
        since: when it became due, in seconds on the clock of ``choose_fairly``.
    """

    id: int
    client: str
    priority_rank: int
    since: float


def choose_fairly(
    due: Sequence[DueWork], held: Iterable[DueWork], limit: int, now: float, ageing_s: float
) -> list[int]:
    """Choose what is taken next of the work that is due, all of which counts the same.

    Priority decides, lifted by age; then the client with the fewest slots, then who has waited longest. What a client
    and a priority leave free is said by ``SlotLimits``. Takes about the time that sorting takes.

    Args:
        due: what waits.
        held: what the taker has in hand already.
        limit: how much more it can take; with what it holds, that is all of its slots.
        now: the time.
        ageing_s: what is due for this long is lifted by one priority.

    Returns:
        The ids of rows, in the order of their turns.
    """
    in_hand = Counter((each.client, each.priority_rank) for each in held)
    choice = _FairChoice(SlotLimits(in_hand.total() + max(0, limit), reserve=True), in_hand, now, ageing_s)
    return choice.of(due)


class _FairChoice:
    """One run of ``choose_fairly``: only the first of each client and priority can be next, so only those compare."""

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
        """Return the ids of those that are chosen."""
        waiting: dict[tuple[str, int], deque[DueWork]] = {}
        for each in sorted(due, key=lambda one: (one.since, one.id)):
            waiting.setdefault((each.client, each.priority_rank), deque()).append(each)
        heads = [self._order(group[0]) for group in waiting.values()]
        heapify(heads)
        chosen = []
        while heads:
            order = heappop(heads)
            group = waiting[order[-1]]
            if order != (current := self._order(group[0])):  # its client got another slot since
                heappush(heads, current)
            elif self._admits(group[0]):  # whoever is not admitted now will not be later either
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
