"""The choice of the waiting chunks that form the next batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar

from pipeline.asr.batch_cost import CostModel

MAX_SLOWDOWN = 0.25
"""Share by which less urgent chunks may lengthen an urgent batch that they join."""

DEFAULT_SEARCH_WIDTH = 5
"""Hypotheses of one chunk with default options. Wider searches get fewer rows, since memory would not suffice."""

MAX_WASTE_SHARE = 0.05
"""Share by which a batch may cost more than its chunks apart; the predictions are no more accurate than that."""


class BatchCandidate(Protocol):
    """A chunk waiting for a batch."""

    @property
    def rank(self) -> int:
        """Rank of its priority; 0 is served first."""
        ...

    @property
    def key(self) -> Hashable:
        """Key of the batches that it fits into: only chunks with equal keys can share a batch."""
        ...

    @property
    def frames(self) -> int:
        """Window that it needs, in feature frames."""
        ...

    @property
    def cost_factor(self) -> float:
        """Cost relative to the cost with default options; equal for equal keys."""
        ...

    @property
    def width(self) -> int:
        """Number of its hypotheses that are decoded side by side; equal for equal keys."""
        ...

    @property
    def deferred_until(self) -> int:
        """Number of the batch before which it lets others of its rank go first, while chunks of its key gather."""
        ...


AnyCandidate = TypeVar("AnyCandidate", bound=BatchCandidate)


def select_batch(
    waiting: Sequence[AnyCandidate], max_rows: int, max_batch_s: float, cost: CostModel, number: int
) -> list[AnyCandidate]:
    """Select the first chunk in line, and further chunks as long as decoding them together is cheaper than apart.

    If the first chunk is deferred, the next one of its rank that is not takes its place. The chosen chunk is always
    decoded, so no chunk starves because nothing goes with it. Further chunks are considered by rank, then by similarity
    in length, then by age. A chunk joins if the frames that the common window wastes cost less than the overhead of
    another batch, if the batch stays within ``max_batch_s``, and if it does not delay more urgent chunks.

    Args:
        waiting: chunks in the order in which they are due, at least one.
        max_rows: maximum number of chunks with default options.
        max_batch_s: maximum predicted seconds, unless the first chunk alone takes longer.
        cost: predicts the seconds of a batch.
        number: number of this batch.
    """
    seed = _select_first(waiting, max_rows, number)
    rows = max(1, max_rows * DEFAULT_SEARCH_WIDTH // max(DEFAULT_SEARCH_WIDTH, seed.width))
    batch, frames, limit_s = [seed], seed.frames, max_batch_s
    further = [candidate for candidate in waiting if candidate is not seed and candidate.key == seed.key]
    further.sort(key=lambda candidate: (candidate.rank, abs(candidate.frames - seed.frames)))
    rank = seed.rank
    for candidate in further:
        if len(batch) >= rows:
            break
        current_s = cost.predict(len(batch), frames, seed.cost_factor)
        if candidate.rank > rank:
            rank, limit_s = candidate.rank, min(limit_s, (1 + MAX_SLOWDOWN) * current_s)
        widened = max(frames, candidate.frames)
        together_s = cost.predict(len(batch) + 1, widened, seed.cost_factor)
        apart_s = current_s + cost.predict(1, candidate.frames, seed.cost_factor)
        if together_s <= min(limit_s, (1 + MAX_WASTE_SHARE) * apart_s):
            batch.append(candidate)
            frames = widened
    return batch


def _select_first(waiting: Sequence[AnyCandidate], max_rows: int, number: int) -> AnyCandidate:
    """Return the first chunk of the highest rank that is not deferred, or of whose key a full batch waits.

    If all are deferred, return the one whose deferral ends first: there is no other chunk to let go first.
    """
    peers = [candidate for candidate in waiting if candidate.rank == waiting[0].rank]
    gathered = Counter(candidate.key for candidate in peers)
    due = (peer for peer in peers if peer.deferred_until <= number or gathered[peer.key] >= max_rows)
    return next(due, None) or min(peers, key=lambda peer: peer.deferred_until)
