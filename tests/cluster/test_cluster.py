"""The GPU application on a cluster whose nodes come and go. The tests run in their order, on one cluster."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.listener import POLICY, SCALING, Cluster
from tests.support import recordings, speech
from tests.support.dashboards import dashboard_queries, rule_queries, series_of
from tests.support.local_cluster import serve_config
from tests.support.recordings import noise
from tests.support.waiting import eventually

TASKS = 6
OF_DEFECTS = {"ray_murmuration_loop_errors_total"}
"""Series that only a defect of the service's own makes."""


@pytest.fixture(scope="module")
def nodes() -> list[Any]:
    """The GPU nodes that are up."""
    return []


def test_before_a_gpu_node_is_up_the_service_says_what_it_waits_for(cluster: Cluster) -> None:
    eventually(lambda: "waiting for a GPU node" in cluster.application.ready().text, "words about the GPU node")


def test_replicas_land_one_a_gpu_and_a_task_is_traced_through_all_deployments(
    cluster: Cluster, nodes: list[Any]
) -> None:
    nodes += [cluster.add_gpu_node(1), cluster.add_gpu_node(1)]
    eventually(lambda: cluster.application.ready().status_code == 200, "a ready service")
    for number in range(TASKS):
        cluster.application.create(
            noise(30.0, number),
            vad_filter="false",
            temperature="0",
            log_prob_threshold="0",  # which no chunk passes: each goes round the quality gate once
            summarize="true",
            callback_url=f"{cluster.listener.url}/{number}",
        )
    eventually(lambda: sorted(cluster.application.per_node().values()) == [1, 1], "a replica on each node")
    eventually(cluster.application.finished, "all tasks completed")
    eventually(lambda: sorted(cluster.listener.callbacks) == list(range(TASKS)), "a callback for each")
    expected = {
        ("Ingress", "create"),
        ("Dispatcher", "queued"),
        ("Splitter", "split"),
        ("WhisperReplica", "transcribe"),
        ("Dispatcher", "attempt"),
        ("Summarizer", "summarize"),
        ("Dispatcher", "callback"),
    }
    traces = cluster.listener.spans
    eventually(lambda: sum(expected <= spans for spans in traces.values()) == TASKS, "a whole trace of each task")


def test_an_empty_queue_needs_no_replica_and_the_service_is_still_ready(cluster: Cluster) -> None:
    eventually(lambda: not cluster.application.replicas(), "a fleet at zero")
    assert cluster.application.ready().status_code == 200


def test_a_node_that_dies_in_mid_work_takes_no_task_with_it(cluster: Cluster, nodes: list[Any]) -> None:
    application = cluster.application
    for number in range(TASKS):  # more chunks than one replica is sent at a time: it stays busy
        application.create(noise(90.0, number), vad_filter="false", language="en")
    eventually(lambda: any(0 < (task["progress"] or 0) < 1 for task in application.tasks().values()), "tasks at work")
    busy = min(application.replicas(), key=lambda replica: replica["start_time_s"])["node_id"]
    [victim] = [node for node in nodes if node.node_id == busy]
    nodes.remove(victim)
    cluster.kill_node(victim)
    cluster.database.execute(  # and another Dispatcher takes a task over
        "UPDATE murmuration.tasks SET fence = fence + 1, owner = 'another' WHERE status = 'processing' LIMIT 1"
    )
    nodes.append(cluster.add_gpu_node(1))
    eventually(application.finished, "all tasks completed")


def test_every_series_of_the_dashboard_and_the_alerts_is_exported(cluster: Cluster) -> None:
    asked = {name for query in [*dashboard_queries(), *rule_queries()] for name, _labels in series_of(query)}
    asked -= OF_DEFECTS
    # A replica's own figures go with it, so one stays: new bounds are taken over without a restart.
    cluster.application.deploy(serve_config(cluster.http_port, SCALING | {"min_replicas": 1}, POLICY))
    cluster.application.create(noise(30.0), vad_filter="false", language="en", summarize="true")
    # The engine that waits has two words for all of it, so that most of this speech is decoded again.
    spoken = recordings.wav(speech.recording(speech.of_language("en"), 14.0, seed=1, pause_s=(0.0, 0.1)).audio)
    cluster.application.create(spoken, word_timestamps="true", language="en")

    cluster.database.execute("UPDATE murmuration.tasks SET options = '{' WHERE status = 'completed' LIMIT 1")
    cluster.application.tasks()

    def exported() -> set[str]:
        page = cluster.application.client.get("/metrics").text
        return {line.partition("{")[0] for line in page.splitlines() if line and not line.startswith("#")}

    try:
        eventually(lambda: asked <= exported(), "every series")
    except AssertionError as error:
        error.add_note(f"Those that are missing: {sorted(asked - exported())}")
        raise
