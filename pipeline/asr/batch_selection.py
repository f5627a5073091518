"""Which of the waiting chunks are decoded together next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar

from pipeline.asr.batch_cost import CostModel

MAX_SLOWDOWN = 0.25
"""Less urgent chunks may ride along while they lengthen an urgent batch by no more than this share."""


DEFAULT_SEARCH_WIDTH = 5
"""Texts side by side of a chunk, with default options: wider searches get fewer rows, or memory would not suffice."""

MAX_WASTE_SHARE = 0.05
"""Share by which a batch may be dearer than its parts apart; the predictions are no better than that."""


class BatchCandidate(Protocol):
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

    @property
    def cost_factor(self) -> float:
        """How many times as much as with default options it costs; equal for equal keys."""
        ...

    @property
    def width(self) -> int:
        """Texts of it that are decoded side by side; equal for equal keys."""
        ...

    @property
    def deferred_until(self) -> int:
        """Number of the batch before which it lets others of its rank go first, for company of its key to gather."""
        ...


AnyCandidate = TypeVar("AnyCandidate", bound=BatchCandidate)


def select_batch(
    waiting: Sequence[AnyCandidate], max_rows: int, max_batch_s: float, cost: CostModel, number: int
) -> list[AnyCandidate]:
    """The next batch: the chunk whose turn it is, always, and such company as costs less with it than apart.

    It is the first in line's turn, or, while that one is patient, the turn of the next of its rank that is not; so no
    chunk starves for being odd. Company comes in the order of rank, then of likeness in length, then of age. A chunk
    joins if the frames that the common window wastes cost less than the overhead of another batch, if the batch stays
    within ``max_batch_s``, and if it doesn't hold up more urgent ones.

    Args:
        waiting: in the order they are due, at least one.
        max_rows: chunks at most, of those that are decoded with default options.
        max_batch_s: predicted seconds at most, unless the first chunk alone takes longer.
        cost: predicts them.
        number: of this batch.
    """
    seed = _select_first(waiting, max_rows, number)
    rows = max(1, max_rows * DEFAULT_SEARCH_WIDTH // max(DEFAULT_SEARCH_WIDTH, seed.width))
    batch, frames, limit_s = [seed], seed.frames, max_batch_s
    company = [candidate for candidate in waiting if candidate is not seed and candidate.key == seed.key]
    company.sort(key=lambda candidate: (candidate.rank, abs(candidate.frames - seed.frames)))
    rank = seed.rank
    for candidate in company:
        if len(batch) >= rows:
            break
        now_s = cost.predict(len(batch), frames, seed.cost_factor)
        if candidate.rank > rank:
            rank, limit_s = candidate.rank, min(limit_s, (1 + MAX_SLOWDOWN) * now_s)
        widened = max(frames, candidate.frames)
        together_s = cost.predict(len(batch) + 1, widened, seed.cost_factor)
        apart_s = now_s + cost.predict(1, candidate.frames, seed.cost_factor)
        if together_s <= min(limit_s, (1 + MAX_WASTE_SHARE) * apart_s):
            batch.append(candidate)
            frames = widened
    return batch


def _select_first(waiting: Sequence[AnyCandidate], max_rows: int, number: int) -> AnyCandidate:
    """Of the chunks of the highest rank the first that isn't patient, or whose company is complete.

    If there is none, the one whose patience ends first: nobody else is there to be let go first.
    """
    peers = [candidate for candidate in waiting if candidate.rank == waiting[0].rank]
    gathered = Counter(candidate.key for candidate in peers)
    due = (peer for peer in peers if peer.deferred_until <= number or gathered[peer.key] >= max_rows)
    return next(due, None) or min(peers, key=lambda peer: peer.deferred_until)
