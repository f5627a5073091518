"""Losses of chunks whose replica died, and the suspects among them.

A chunk whose replica died is sent again like any other, since most often the machine was the cause. A chunk whose
replica died twice in a row is a suspect. Suspects are decoded one at a time, each in a call of its own, so that a
recording that kills its replica is identified without affecting other tasks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.domain.audio.spans import Chunk

SUSPECT_LOSSES = 2
"""Number of losses in a row after which a chunk is a suspect."""


@dataclass(frozen=True, slots=True)
class SuspectChunk:
    """A chunk that may have caused the death of its replicas."""

    task_id: int
    priority_rank: int
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class LossDecision:
    """The consequences of a lost unit for its chunks.

    Attributes:
        retried: chunks to queue again.
        suspects: chunks that are suspects now, and wait for their turn.
        exhausted: chunks whose replicas died too often, each with the number of its losses.
    """

    retried: tuple[Chunk, ...]
    suspects: tuple[Chunk, ...]
    exhausted: tuple[tuple[Chunk, int], ...]


class ChunkLosses:
    """The losses in a row of each chunk, and the queue of suspects, of which one is at a replica at a time.

    Args:
        max_losses: losses in a row after which a chunk is not sent again.
    """

    def __init__(self, max_losses: int) -> None:
        self._max_losses = max_losses
        self._counts: dict[tuple[int, int], int] = {}
        self._suspects: deque[SuspectChunk] = deque()
        self._suspect_in_flight = False

    def next_suspect(self) -> SuspectChunk | None:
        """Return the suspect to send now; ``None`` if there is none or one is at a replica."""
        if self._suspect_in_flight or not self._suspects:
            return None
        self._suspect_in_flight = True
        return self._suspects.popleft()

    def end_suspect(self) -> None:
        """Declare that the suspect at a replica has been decoded or lost."""
        self._suspect_in_flight = False

    def has_suspect(self, task_id: int) -> bool:
        """Return whether a suspect of the task waits."""
        return any(suspect.task_id == task_id for suspect in self._suspects)

    def count(
        self, task_id: int, priority_rank: int, lost: Sequence[Chunk], *, suspect: bool, accepted: bool
    ) -> LossDecision:
        """Count the loss of a unit against its chunks.

        No chunk is blamed if no replica had accepted the unit. While a suspect is at a replica, only the suspect is
        blamed.

        Args:
            task_id: the task.
            priority_rank: rank of the task's priority.
            lost: chunks of the unit without a result.
            suspect: the unit is the suspect.
            accepted: a replica had sent something for the unit.
        """
        blamed = accepted and (suspect or not self._suspect_in_flight)
        losses = [(chunk, self._count(task_id, chunk) if blamed else 0) for chunk in lost]
        exhausted = tuple((chunk, count) for chunk, count in losses if count >= self._max_losses)
        suspects = tuple(
            chunk for chunk, count in losses if count < self._max_losses and (suspect or count >= SUSPECT_LOSSES)
        )
        self._suspects.extend(SuspectChunk(task_id, priority_rank, chunk) for chunk in suspects)
        retried = tuple(chunk for chunk, count in losses if not suspect and count < SUSPECT_LOSSES)
        return LossDecision(retried, suspects, exhausted)

    def forget_chunk(self, task_id: int, index: int) -> None:
        """Forget the losses of a chunk, which has a result."""
        self._counts.pop((task_id, index), None)

    def forget_task(self, task_id: int) -> None:
        """Forget the losses and the waiting suspects of a task."""
        self._suspects = deque(suspect for suspect in self._suspects if suspect.task_id != task_id)
        self._counts = {key: count for key, count in self._counts.items() if key[0] != task_id}

    def _count(self, task_id: int, chunk: Chunk) -> int:
        key = (task_id, chunk.index)
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key]
