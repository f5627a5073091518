"""Two nodes and a database server: what only a cluster can lose, and updates of what runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.chaos.batch import Batch
from tests.chaos.service import (
    DATABASE,
    DATABASE_DOWN_S,
    WORKER_NODE,
    ChaosService,
    Receiver,
    interrupt,
    without_its_database,
)
from tests.support.processes import ROOT
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(180, func_only=True)

RecordProperty = Callable[[str, object], None]


def test_a_node(cluster: ChaosService, cluster_batch: Batch, record_property: RecordProperty) -> None:
    idle_s = cluster.cpu_s("WhisperReplica")
    cluster_batch.submit_mixed([12, 8, 6, 2, 2])
    eventually(lambda: cluster.cpu_s("WhisperReplica") > idle_s + 0.4, "the replicas are decoding")
    cluster_batch.kill(WORKER_NODE)
    records = cluster_batch.check_nothing_is_lost()
    record_property("recovery_s", cluster_batch.recovery_s(records))


def test_the_database_for_longer_than_the_leases_last(
    cluster: ChaosService, cluster_batch: Batch, record_property: RecordProperty
) -> None:
    cluster_batch.submit_mixed([10, 6, 4, 2])
    eventually(lambda: any(record["progress"] for record in cluster_batch.records().values()), "a task gets on")
    cluster_batch.kill(DATABASE)
    records = cluster_batch.check_nothing_is_lost()
    assert {record["attempts"] for record in records.values()} == {1}, "who had the tasks went on with them"
    assert cluster.told_without_database
    record_property(
        f"recovery_s ({DATABASE_DOWN_S:.0f} s without a database among them)", cluster_batch.recovery_s(records)
    )


@pytest.mark.slow
def test_a_rolling_update_loses_nothing(cluster: ChaosService, cluster_batch: Batch, tmp_path: Path) -> None:
    assert cluster.restart is not None
    cluster_batch.submit_mixed([10, 6, 4])
    eventually(lambda: any(record["progress"] for record in cluster_batch.records().values()), "a task gets on")
    before = {process.pid for process in cluster.replicas("Dispatcher")}
    settings = tmp_path / "other.yaml"
    settings.write_text((ROOT / "configs" / "cpu.yaml").read_text())
    cluster.roots.append(cluster.restart(settings))
    cluster_batch.submit_mixed([2, 2])
    records = cluster_batch.check_nothing_is_lost()
    assert {record["attempts"] for record in records.values()} == {1}, "a task that is handed back lost no attempt"
    eventually(lambda: {process.pid for process in cluster.replicas("Dispatcher")} - before, "it was replaced")


@pytest.mark.slow
def test_a_service_that_is_shut_down_hands_its_tasks_back(cluster: ChaosService, cluster_batch: Batch) -> None:
    assert cluster.restart is not None
    cluster_batch.submit_mixed([20, 20, 20])
    eventually(lambda: any(record["progress"] for record in cluster_batch.records().values()), "a task gets on")
    interrupt(cluster.roots.pop(0))
    assert not cluster.replicas("Dispatcher")
    cluster.roots.insert(0, cluster.restart(None))
    records = cluster_batch.check_nothing_is_lost()
    assert {record["attempts"] for record in records.values()} == {1}, "a task that is handed back lost no attempt"


@pytest.mark.slow
def test_a_database_that_is_away_at_the_start_is_waited_for(receiver: Receiver) -> None:
    with without_its_database() as (service, database):
        answer = eventually(lambda: told_by_the_ingress(service), "an Ingress that answers")
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert int(answer.headers["Retry-After"]) > 0
        assert not service.is_ready()
        database.start()
        eventually(service.is_ready, "a ready service")
        batch = Batch(service, receiver)
        batch.submit_mixed([2, 2])
        batch.check_nothing_is_lost()


def told_by_the_ingress(service: ChaosService) -> httpx.Response | None:
    answer = service.answer_about_a_task()
    return answer if answer is not None and "database_unavailable" in answer.text else None
