from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.scheduling.replica_scaling import HALF_LIFE_S, Demand, ReplicaSpeed, ScalingRule

RULE = ScalingRule(target_wait_s=60.0, min_task_s=5.0)
demands = st.builds(Demand, tasks=st.integers(0, 10**6), audio_s=st.floats(0, 1e9))


@pytest.mark.parametrize(
    ("demand", "rtfx", "replicas"),
    [
        (Demand(0, 0.0), 10.0, 0),
        (Demand(1, 0.0), 10.0, 1),  # its recording was not split yet
        (Demand(1, 1.0), 10.0, 1),  # the last second of a running task keeps its replica
        (Demand(1, 600.0), 10.0, 1),
        (Demand(1, 600.1), 10.0, 2),
        (Demand(1, 36_000.0), 10.0, 60),  # one long recording needs a whole fleet
        (Demand(1000, 0.0), 10.0, 9),  # 1000 unknown recordings of at least 5 s
        (Demand(1000, 60_000.0), 100.0, 10),
    ],
)
def test_replicas_are_the_audio_over_what_one_decodes_in_the_wait(demand: Demand, rtfx: float, replicas: int) -> None:
    assert RULE.replicas(demand, rtfx) == replicas


@given(demands, st.floats(0.1, 1000), st.floats(0, 1e6))
def test_more_audio_never_means_fewer_replicas(demand: Demand, rtfx: float, more_s: float) -> None:
    more = Demand(demand.tasks, demand.audio_s + more_s)
    assert RULE.replicas(more, rtfx) >= RULE.replicas(demand, rtfx)


@given(demands, st.floats(0.1, 1000))
def test_the_fleet_is_at_zero_only_without_tasks(demand: Demand, rtfx: float) -> None:
    assert (RULE.replicas(demand, rtfx) == 0) == (demand.tasks == 0)


def test_speed_is_audio_over_busy_time() -> None:
    assert ReplicaSpeed().rtfx == 0.0
    assert ReplicaSpeed().updated(30.0, 2.0).rtfx == pytest.approx(15.0)


def test_speed_forgets() -> None:
    fast = ReplicaSpeed().updated(1000.0, 100.0)
    slow = fast.updated(HALF_LIFE_S, HALF_LIFE_S)
    assert 1.0 < slow.rtfx < 3.0
    assert slow.updated(10 * HALF_LIFE_S, 10 * HALF_LIFE_S).rtfx == pytest.approx(1.0, abs=0.01)


def test_audio_that_arrives_between_two_batches_counts() -> None:
    assert ReplicaSpeed().updated(30.0, 2.0).updated(30.0, 0.0).rtfx == pytest.approx(30.0)
