"""How many replicas the work that waits and runs is worth, and how fast they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

HALF_LIFE_S = 300.0
"""Busy seconds after which a measurement counts half: long enough to level out batches, short enough to follow them."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The work of all tasks that are not finished.

    Attributes:
        tasks: how many there are, queued or running.
        audio_s: seconds of audio not decoded yet, as far as that is known.
    """

    tasks: int
    audio_s: float


@dataclass(frozen=True, slots=True)
class ScalingRule:
    """Replicas for a target wait.

    Attributes:
        target_wait_s: seconds in which the fleet should be through with all that waits and runs.
        min_task_s: seconds of audio that a task counts for at least, since of some the length is not known yet.
    """

    target_wait_s: float
    min_task_s: float

    def replicas(self, demand: Demand, rtfx: float) -> int:
        """How many replicas there should be; 0 only when nothing waits and nothing runs.

        Running work counts until it is decoded: a fleet must not shrink to zero under it.

        Args:
            demand: the work.
            rtfx: seconds of audio that one replica decodes in a second; above 0.
        """
        if demand.tasks == 0:
            return 0
        audio_s = max(demand.audio_s, demand.tasks * self.min_task_s)
        return max(1, ceil(audio_s / (rtfx * self.target_wait_s)))


@dataclass(frozen=True, slots=True)
class ReplicaSpeed:
    """How fast a replica is while it works: results, not decodings, so that retries show as slowness."""

    audio_s: float = 0.0
    busy_s: float = 0.0

    def after(self, audio_s: float, busy_s: float) -> ReplicaSpeed:
        """The same after so much more audio was finished in so many more busy seconds; the past fades."""
        kept = 0.5 ** (busy_s / HALF_LIFE_S)
        return replace(self, audio_s=self.audio_s * kept + audio_s, busy_s=self.busy_s * kept + busy_s)

    @property
    def rtfx(self) -> float:
        """Audio seconds per busy second; 0 before anything was decoded."""
        return self.audio_s / self.busy_s if self.busy_s > 0 else 0.0
