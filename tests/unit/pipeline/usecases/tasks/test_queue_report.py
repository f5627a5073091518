from __future__ import annotations

import asyncio

import pytest

from pipeline.domain.tasks.task import NewTask, Priority
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.testing.recording_metrics import RecordingMetrics
from pipeline.usecases.tasks.queue_report import INTERVAL_S, QueueReporter
from tests.support.clocks import settle


async def test_the_queue_is_reported_by_priority() -> None:
    clock, metrics = ManualClock(), RecordingMetrics()
    store = MemoryTaskStore(clock)
    await store.create(NewTask(media_prefix="a", priority=Priority.LOW))
    clock.advance(2.5)
    await store.create(NewTask(media_prefix="b", priority=Priority.HIGH))

    await QueueReporter(store, clock, metrics).report()

    assert [metrics.values("queued_tasks", priority=priority) for priority in Priority] == [[1], [0], [1]]
    assert [metrics.values("oldest_task_seconds", priority=priority) for priority in Priority] == [[0.0], [0.0], [2.5]]
    assert metrics.values("processing_tasks") == [0]
    assert metrics.values("pending_audio_seconds") == [0.0]
    assert metrics.values("waiting_callbacks") == [0]
    assert metrics.values("waiting_for_space") == [0]


async def test_the_report_continues_after_a_defect_and_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, metrics = ManualClock(), RecordingMetrics()
    store = MemoryTaskStore(clock)
    with monkeypatch.context() as patch:
        patch.setattr(store, "stats", lambda: {}[7])
        reporter = QueueReporter(store, clock, metrics)
        reporting = asyncio.create_task(reporter.run())
        await settle()
        assert reporter.failure_messages == ("Reporting the queue fails: see the log.",)
        assert metrics.total("loop_errors", loop="queue_report") == 1

    clock.advance(INTERVAL_S)
    await settle()
    assert reporter.failure_messages == ()
    assert metrics.values("left_tasks") == [0]
    reporting.cancel()


async def test_the_report_continues_after_an_outage_of_the_database() -> None:
    clock, metrics = ManualClock(), RecordingMetrics()
    store = MemoryTaskStore(clock)
    store.available = False
    reporting = asyncio.create_task(QueueReporter(store, clock, metrics).run())
    await settle()
    assert metrics.values("processing_tasks") == []

    store.available = True
    clock.advance(INTERVAL_S)
    await settle()

    assert metrics.values("processing_tasks") == [0]
    reporting.cancel()
