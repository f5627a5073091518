from __future__ import annotations

from dataclasses import replace

from deployments.dispatcher_handle import DispatcherState
from deployments.replicas.ingress_replica import readiness_of
from pipeline.ports import EngineInfo

ENGINE = EngineInfo("faster_whisper", "base", "cpu", "int8", ("en",), 8)
WELL = DispatcherState(database_ready=True, engine=ENGINE)


def test_ready_where_tasks_are_worked_at() -> None:
    readiness = readiness_of(WELL)
    assert (readiness.ready, readiness.waiting_for, readiness.problems) == (True, (), ())


def test_not_ready_while_no_task_is_worked_at() -> None:
    sentence = "Claiming tasks fails: see the log."
    readiness = readiness_of(replace(WELL, stopped=(sentence,)))
    assert (readiness.ready, readiness.problems) == (False, (sentence,))


def test_what_else_fails_is_told_and_no_reason_to_send_clients_away() -> None:
    sentence = "Showing the queue fails: see the log."
    readiness = readiness_of(replace(WELL, failure_messages=(sentence,)))
    assert (readiness.ready, readiness.problems, readiness.failure_messages) == (True, (), (sentence,))


def test_not_ready_without_a_database_or_a_model() -> None:
    assert readiness_of(replace(WELL, database_ready=False)).waiting_for == ("the database",)
    assert readiness_of(replace(WELL, engine=None, gpu_node_missing=True)).waiting_for == ("a GPU node",)
