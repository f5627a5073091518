"""The number of replicas for the waiting and running work, and the measured speed of a replica."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

HALF_LIFE_S = 300.0
"""Busy seconds after which a measurement counts half: long enough to average batches, short enough to follow them."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The work of all unfinished tasks.

    Attributes:
        tasks: number of tasks, queued or running.
        audio_s: seconds of audio not decoded yet, as far as known.
    """

    tasks: int
    audio_s: float


@dataclass(frozen=True, slots=True)
class ScalingRule:
    """A rule for the number of replicas that reaches a target wait.

    Attributes:
        target_wait_s: seconds in which the fleet should finish all waiting and running work.
        min_task_s: least seconds of audio that a task counts for, since the duration of some is not known yet.
    """

    target_wait_s: float
    min_task_s: float

    def replicas(self, demand: Demand, rtfx: float) -> int:
        """Return the number of replicas: 0 only if no task waits or runs.

        Running work counts until it is decoded: a fleet must not shrink to zero while it runs.

        Args:
            demand: the work.
            rtfx: seconds of audio that one replica decodes per second; above 0.
        """
        if demand.tasks == 0:
            return 0
        audio_s = max(demand.audio_s, demand.tasks * self.min_task_s)
        return max(1, ceil(audio_s / (rtfx * self.target_wait_s)))


@dataclass(frozen=True, slots=True)
class ReplicaSpeed:
    """The speed of a replica while it works, measured by results and not by decodings, so that retries lower it."""

    audio_s: float = 0.0
    busy_s: float = 0.0

    def updated(self, audio_s: float, busy_s: float) -> ReplicaSpeed:
        """Return the speed after ``audio_s`` more were finished in ``busy_s`` of work; older results count less."""
        kept = 0.5 ** (busy_s / HALF_LIFE_S)
        return replace(self, audio_s=self.audio_s * kept + audio_s, busy_s=self.busy_s * kept + busy_s)

    @property
    def rtfx(self) -> float:
        """Seconds of audio per busy second; 0 before the first result."""
        return self.audio_s / self.busy_s if self.busy_s > 0 else 0.0
