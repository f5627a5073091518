from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray.serve.config import AutoscalingConfig

from deployments.app import SCALING_POLICY
from deployments.autoscaling import QueuedAudioPolicy, demand_of, measured_rtfx
from pipeline.domain.scheduling.replica_scaling import Demand, ScalingRule
from pipeline.domain.tasks.task import Priority
from pipeline.ports import QueueStats

STATS = QueueStats(
    queued_tasks={Priority.HIGH: 1, Priority.NORMAL: 2, Priority.LOW: 0},
    processing_tasks=4,
    pending_audio_s=6000.0,
    oldest_queued_s=3.0,
)
IDLE = replace(STATS, queued_tasks=dict.fromkeys(Priority, 0), processing_tasks=0, pending_audio_s=0.0)


class FixedMonitor:
    def __init__(self, stats: QueueStats | None) -> None:
        self.stats = stats

    def latest(self) -> QueueStats | None:
        return self.stats


def policy(stats: QueueStats | None, **arguments: Any) -> QueuedAudioPolicy:
    made = QueuedAudioPolicy.__new__(QueuedAudioPolicy)
    made._rule = ScalingRule(60.0, 5.0)
    made._rtfx = 50.0
    made._monitor = FixedMonitor(stats)  # type: ignore[assignment]
    return made


def context(target: int = 3, **speeds: float) -> Any:
    return SimpleNamespace(target_num_replicas=target, aggregated_metrics={"rtfx": speeds})


def test_what_waits_and_what_runs_is_demand() -> None:
    assert demand_of(STATS) == Demand(tasks=7, audio_s=6000.0)


def test_before_a_replica_has_worked_the_expected_speed_counts() -> None:
    assert policy(STATS)(context(r1=0.0)) == (2, {})


def test_the_measured_speed_counts_and_is_remembered_at_zero() -> None:
    scaling = policy(STATS)
    assert scaling(context(r1=8.0, r2=12.0, r3=0.0))[0] == 10
    assert scaling(SimpleNamespace(target_num_replicas=0, aggregated_metrics=None))[0] == 10


def test_an_empty_queue_needs_nobody() -> None:
    assert policy(IDLE)(context())[0] == 0


def test_a_database_that_is_away_moves_no_replica() -> None:
    assert policy(None)(context(target=5))[0] == 5


def test_only_replicas_that_have_worked_are_measured() -> None:
    assert measured_rtfx(None) is None
    assert measured_rtfx({"other": {"r1": 1.0}}) is None
    assert measured_rtfx({"rtfx": {"r1": 0.0, "r2": 30.0}}) == 30.0


def test_serve_takes_the_policy_by_its_path_and_ships_it_to_the_controller() -> None:
    config = AutoscalingConfig(
        min_replicas=0, max_replicas=4, policy={"policy_function": SCALING_POLICY, "policy_kwargs": {"config": "gpu"}}
    )
    config.policy.serialize_policy()
    shipped = cloudpickle.loads(config.policy.get_serialized_policy_def())
    assert shipped.__name__ == "QueuedAudioPolicy"


@pytest.mark.parametrize("secret", ["password", "mysql"])
def test_nothing_secret_is_an_argument(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MURMURATION_DATABASE__URL", "mysql+asyncmy://u:password@db/m")
    from deployments.app import BuildArgs, _placement

    monkeypatch.setattr("deployments.app.gpus", lambda: 2.0)
    assert secret not in json.dumps(_placement("cuda", BuildArgs()))
