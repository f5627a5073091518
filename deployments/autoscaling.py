"""How many WhisperReplicas there are: Serve asks this policy, ten times a second, in its controller.

::

    autoscaling_config:
      policy:
        policy_function: deployments.autoscaling:QueuedAudioPolicy
        policy_kwargs: {config: gpu, target_wait_s: 60}

Serve's own policy counts requests. Ours counts the seconds of audio that wait and run, as the database knows them, so
that it also sees what nobody has sent to a replica yet, and scales from zero to what the queue needs in one step.
Bounds and delays stay Serve's. Secrets are not arguments, since Serve's REST API shows those: the settings are read
where the policy runs, from the file that ``config`` names and from the head node's environment.

Serve pickles this module by value; what it imports must be installed on the head node.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from deployments.queue_watch import QueueMonitor
from deployments.wiring import settings_file, task_store
from pipeline.domain.scheduling.replica_scaling import Demand, ScalingRule
from pipeline.ports import QueueStats, TaskStore
from pipeline.settings import load_settings

logger = logging.getLogger(__name__)

RTFX_KEY = "rtfx"
"""What a WhisperReplica calls its speed in ``record_autoscaling_stats``."""


class QueuedAudioPolicy:
    """Replicas for a target wait; made once by Serve, and called with its ``AutoscalingContext``.

    Args:
        config: the application's ``args.config``.
        target_wait_s: seconds in which all that waits and runs should be decoded.
        expected_rtfx: speed of a replica before one was measured.
        min_task_s: seconds of audio that a task counts for at least.
        poll_s: how often the database is asked.
    """

    def __init__(
        self,
        config: str = "gpu",
        target_wait_s: float = 60.0,
        expected_rtfx: float = 50.0,
        min_task_s: float = 5.0,
        poll_s: float = 1.0,
    ) -> None:
        self._rule = ScalingRule(target_wait_s, min_task_s)
        self._rtfx = expected_rtfx
        self._watch = QueueMonitor(lambda: _store(config), poll_s)

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """The number of replicas there should be, and no state: Serve keeps this object."""
        self._rtfx = measured_rtfx(ctx.aggregated_metrics) or self._rtfx
        stats = self._watch.latest()
        if stats is None:  # a database that is away is no reason to move a replica
            return ctx.target_num_replicas, {}
        return self._rule.replicas(demand_of(stats), self._rtfx), {}


def demand_of(stats: QueueStats) -> Demand:
    """The work behind the queue's totals."""
    return Demand(sum(stats.queued_tasks.values()) + stats.processing_tasks, stats.pending_audio_s)


def measured_rtfx(metrics: Mapping[str, Mapping[Any, float]] | None) -> float | None:
    """The replicas' mean speed, of those that have worked; ``None`` while none has."""
    speeds = [speed for speed in (metrics or {}).get(RTFX_KEY, {}).values() if speed > 0]
    return fmean(speeds) if speeds else None


def _store(config: str) -> TaskStore:
    return task_store(load_settings(settings_file(config)))
