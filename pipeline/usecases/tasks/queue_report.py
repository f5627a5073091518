"""Metrics of the queue: waiting tasks by priority, the audio in them, and the callbacks that are due."""

from __future__ import annotations

from pipeline.errors import StorageFull
from pipeline.ports import Clock, Metrics, TaskStore
from pipeline.usecases.background_loop import SupervisedLoop, failure_messages

INTERVAL_S = 5.0
"""Interval between two reports."""


class QueueReporter:
    """A worker that sets the gauges of the queue. All Dispatchers of one database report the same numbers."""

    def __init__(self, store: TaskStore, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._loop = SupervisedLoop("queue_report", "reporting the queue", clock, metrics)

    @property
    def failure_messages(self) -> tuple[str, ...]:
        """Reasons why the queue is not reported, one sentence each."""
        return failure_messages(self._loop)

    async def run(self) -> None:
        """Report at intervals until cancelled."""
        while True:
            await self._loop.attempt(self.report)
            await self._clock.sleep(INTERVAL_S)

    async def report(self) -> None:
        """Set each gauge once. Raises ``DatabaseUnavailable``."""
        stats = await self._store.stats()
        for priority, count in stats.queued_tasks.items():
            self._metrics.gauge("queued_tasks", count, priority=priority)
            self._metrics.gauge("oldest_task_seconds", stats.oldest_s[priority], priority=priority)
        self._metrics.gauge("processing_tasks", stats.processing_tasks)
        self._metrics.gauge("pending_audio_seconds", stats.pending_audio_s)
        self._metrics.gauge("waiting_callbacks", stats.waiting_callbacks)
        self._metrics.gauge("left_tasks", stats.left_tasks)
        self._metrics.gauge("waiting_for_space", await self._store.count_queued_with_error(StorageFull.code))
