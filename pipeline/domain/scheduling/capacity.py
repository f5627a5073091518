"""The capacity of the replicas for chunks, and the units that are released to them."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from pipeline.domain.audio.spans import Chunk

CHUNK_COST_S = 35.0
"""Cost of the longest chunk with default options. A chunk that costs more counts as several in flight."""


@dataclass(frozen=True, slots=True)
class ReleasedChunks:
    """Chunks of one task that may be sent to a replica together: a unit.

    Attributes:
        priority_rank: rank at the replica: that of the task, or a more urgent one by ageing.
        start_tag: order at the replica within a rank; the smallest goes first.
    """

    task_id: int
    priority_rank: int
    chunks: tuple[Chunk, ...]
    start_tag: float = 0.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """The number of chunks that the replicas can hold.

    Attributes:
        replicas: number of replicas; 0 counts as 1, so that the first unit starts a fleet scaled to zero.
        max_batch_size: most chunks that a replica decodes together.
        batches_in_flight: batches that each replica may have, including the running one: enough to fill the next one,
            too, while some chunks wait to be decoded again. The last of them is used only while more chunks wait than
            fill a batch for each replica: at the end, chunks go to the replica that is done first.
    """

    replicas: int
    max_batch_size: int
    batches_in_flight: int = 3

    @property
    def chunks(self) -> int:
        """Most chunks in flight."""
        return self.batches_in_flight * self._batch_for_each

    def room(self, waiting: int) -> int:
        """Return the most chunks in flight while ``waiting`` chunks wait."""
        if waiting > self._batch_for_each:
            return self.chunks
        return max(1, self.batches_in_flight - 1) * self._batch_for_each

    @property
    def reserve(self) -> int:
        """Further chunks that may be in flight, only of clients that have less than their share there."""
        return self._batch_for_each

    @property
    def _batch_for_each(self) -> int:
        return max(1, self.replicas) * self.max_batch_size


def load_of(cost: float) -> int:
    """Return the number of default chunks that a chunk of this cost counts for."""
    return max(1, ceil(cost / CHUNK_COST_S))
