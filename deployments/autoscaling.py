"""The policy that sets the number of WhisperReplicas. Serve's controller calls it ten times a second.

::

    autoscaling_config:
      policy:
        policy_function: deployments.autoscaling:QueuedAudioPolicy
        policy_kwargs: {config: gpu, target_wait_s: 60}

Serve's own policy counts requests. This one counts the seconds of audio in the queue and in progress, from the
database. So it includes work that no replica has received yet, and scales from zero to the required number in one step.
Serve still applies its bounds and delays. Secrets are not arguments, since Serve's REST API shows arguments: the policy
reads the settings in the controller, from the file that ``config`` names and from the head node's environment.

Serve pickles this module by value; the modules that it imports must be installed on the head node.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from deployments.queue_monitor import QueueMonitor
from deployments.wiring import settings_file, task_store
from pipeline.domain.scheduling.replica_scaling import Demand, ScalingRule
from pipeline.ports import QueueStats, TaskStore
from pipeline.settings import load_settings

logger = logging.getLogger(__name__)

RTFX_KEY = "rtfx"
"""The name of a WhisperReplica's speed in ``record_autoscaling_stats``."""


class QueuedAudioPolicy:
    """A scaling policy for a target wait. Serve creates it once and calls it with its ``AutoscalingContext``.

    Args:
        config: the application's ``args.config``.
        target_wait_s: seconds in which all audio in the queue and in progress should be decoded.
        expected_rtfx: speed of a replica before any has been measured, as audio seconds per second.
        min_task_s: smallest number of audio seconds that a task counts for.
        poll_s: seconds between two queries of the database.
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
        self._monitor = QueueMonitor(lambda: _store(config), poll_s)

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas to run, and no state, since Serve keeps this object."""
        self._rtfx = measured_rtfx(ctx.aggregated_metrics) or self._rtfx
        stats = self._monitor.latest()
        if stats is None:  # an unreachable database is no reason to change the number
            return ctx.target_num_replicas, {}
        return self._rule.replicas(demand_of(stats), self._rtfx), {}


def demand_of(stats: QueueStats) -> Demand:
    """Return the demand that the queue's totals describe."""
    return Demand(sum(stats.queued_tasks.values()) + stats.processing_tasks, stats.pending_audio_s)


def measured_rtfx(metrics: Mapping[str, Mapping[Any, float]] | None) -> float | None:
    """Return the mean speed of the replicas that have decoded something, or ``None`` if none has."""
    speeds = [speed for speed in (metrics or {}).get(RTFX_KEY, {}).values() if speed > 0]
    return fmean(speeds) if speeds else None


def _store(config: str) -> TaskStore:
    return task_store(load_settings(settings_file(config)))
