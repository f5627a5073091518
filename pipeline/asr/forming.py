"""Which of the waiting chunks are decoded together next."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar

from pipeline.asr.cost import CostModel

COMPANY_SLACK = 0.25
"""Less urgent chunks may ride along while they lengthen an urgent batch by no more than this share."""


TOLERATED_WASTE = 0.05
"""Share by which a batch may be dearer than its parts apart; the predictions are no better than that."""


class Candidate(Protocol):
    """A waiting chunk."""

    @property
    def rank(self) -> int:
        """Priority; 0 is served first."""
        ...

    @property
    def key(self) -> Hashable:
        """Only chunks with equal keys can share a batch."""
        ...

    @property
    def frames(self) -> int:
        """Window it needs."""
        ...


Waiting = TypeVar("Waiting", bound=Candidate)


def form_batch(waiting: Sequence[Waiting], max_rows: int, max_batch_s: float, cost: CostModel) -> list[Waiting]:
    """The next batch: the first chunk in line, always, and such company as costs less with it than apart.

    Because the first in line is always served, no chunk starves for being odd. Company comes in the order of rank, then
    of likeness in length, then of age. A chunk joins if the frames that the common window wastes cost less than the
    overhead of another batch, if the batch stays within ``max_batch_s``, and if it doesn't hold up more urgent ones.

    Args:
        waiting: in the order they are due, at least one.
        max_rows: chunks at most.
        max_batch_s: predicted seconds at most, unless the first chunk alone takes longer.
        cost: predicts them.
    """
    seed = waiting[0]
    batch, frames, limit_s = [seed], seed.frames, max_batch_s
    company = [candidate for candidate in waiting[1:] if candidate.key == seed.key]
    company.sort(key=lambda candidate: (candidate.rank, abs(candidate.frames - seed.frames)))
    rank = seed.rank
    for candidate in company:
        if len(batch) >= max_rows:
            break
        now_s = cost.predict(len(batch), frames)
        if candidate.rank > rank:
            rank, limit_s = candidate.rank, min(limit_s, (1 + COMPANY_SLACK) * now_s)
        widened = max(frames, candidate.frames)
        together_s = cost.predict(len(batch) + 1, widened)
        apart_s = now_s + cost.predict(1, candidate.frames)
        if together_s <= min(limit_s, (1 + TOLERATED_WASTE) * apart_s):
            batch.append(candidate)
            frames = widened
    return batch
