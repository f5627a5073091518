from __future__ import annotations

import asyncio
from dataclasses import replace

from pipeline.domain.tasks.task import NewTask, Status
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.testing.recording_metrics import RecordingMetrics
from pipeline.usecases.task_completion import TaskCompletion
from pipeline.usecases.task_notifier import TaskNotifier


async def test_a_finished_task_is_counted_and_its_watchers_and_callbacks_are_woken() -> None:
    clock, metrics, notifier, due = ManualClock(), RecordingMetrics(), TaskNotifier(), asyncio.Event()
    task, _ = await MemoryTaskStore(clock).create(NewTask(media_prefix="m"))
    clock.advance(12.0)
    watching = asyncio.create_task(notifier.watch_end(task.id, 60.0))
    await asyncio.sleep(0)

    TaskCompletion(notifier, metrics, clock, due.set).report(replace(task, status=Status.COMPLETED))

    await asyncio.wait_for(watching, 5)
    assert due.is_set()
    assert metrics.total("tasks_finished", status="completed") == 1
    assert metrics.values("task_seconds", priority="normal") == [12.0]


async def test_a_task_that_is_tried_again_has_changed_and_has_not_finished() -> None:
    clock, metrics, notifier, due = ManualClock(), RecordingMetrics(), TaskNotifier(), asyncio.Event()
    task, _ = await MemoryTaskStore(clock).create(NewTask(media_prefix="m"))
    seen = await notifier.watch(task.id, -1, 0.0)

    TaskCompletion(notifier, metrics, clock, due.set).report(task)

    assert await notifier.watch(task.id, seen, 5.0) != seen
    assert not due.is_set()
    assert metrics.total("tasks_finished", status="queued") == 0
