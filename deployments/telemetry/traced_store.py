"""A task store that also records a task's steps in its trace, from its creation to its callback."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import override

from deployments.telemetry.trace_export import Tracing
from pipeline.domain.decoding.transcript import Transcript
from pipeline.domain.scheduling.claim_rule import NO_RUNNING_TASKS, RunningTasks
from pipeline.domain.tasks.client import Client
from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Task, TaskError
from pipeline.errors import DatabaseUnavailable, TaskNotFound
from pipeline.ports import Clock, DeliveryAttempt, Lease, OutboxMessage
from pipeline.store.sql_task_store import SqlTaskStore


class TracedTaskStore(SqlTaskStore):
    """``SqlTaskStore`` with a span for each step of a task, which it records once the step is stored."""

    def __init__(self, url: str, clock: Clock, *, tracing: Tracing, **arguments: Any) -> None:
        super().__init__(url, clock, **arguments)
        self._time = clock
        self._tracing = tracing

    @override
    async def create(
        self, new: NewTask, idempotency: IdempotencyClaim | None = None, client: Client | None = None
    ) -> tuple[Task, bool]:
        began = self._time.now()
        task, is_new = await super().create(new, idempotency, client)
        if is_new:
            self._tracing.root("create", task.media_prefix, began, self._time.now(), **_trace_attributes(task))
        return task, is_new

    @override
    async def claim(
        self,
        owner: str,
        lease: timedelta,
        limit: int,
        ranks: Collection[int],
        running_tasks: RunningTasks = NO_RUNNING_TASKS,
    ) -> list[Task]:
        tasks = await super().claim(owner, lease, limit, ranks, running_tasks)
        for task in tasks:
            since = task.created_at if task.attempts == 1 else task.updated_at
            self._tracing.note("queued", task.media_prefix, since, self._time.now(), **_trace_attributes(task))
        return tasks

    @override
    async def complete(self, lease: Lease, transcript: Transcript) -> Task:
        task = await super().complete(lease, transcript)
        self._record_attempt(task, audio_s=task.audio_total_s)
        return task

    @override
    async def fail(
        self,
        lease: Lease,
        error: TaskError,
        retry_at: datetime | None = None,
        *,
        keep_prepared: bool = True,
        counted: bool = True,
    ) -> Task:
        task = await super().fail(lease, error, retry_at, keep_prepared=keep_prepared, counted=counted)
        self._record_attempt(task, failure=error.code)
        return task

    @override
    async def record_delivery(self, message: OutboxMessage, attempt: DeliveryAttempt) -> None:
        await super().record_delivery(message, attempt)
        try:
            task, now = await self.get(message.task_id), self._time.now()
        except (TaskNotFound, DatabaseUnavailable):  # the delivery is stored; only its span is missing
            return
        failure = None if attempt.delivered else f"status {attempt.status_code}"
        self._tracing.note("callback", task.media_prefix, now, now, failure=failure, attempt=message.attempts + 1)

    def _record_attempt(self, task: Task, failure: str | None = None, audio_s: float = 0.0) -> None:
        began = task.started_at or task.updated_at
        attributes = _trace_attributes(task) | {"audio_s": audio_s}
        self._tracing.note("attempt", task.media_prefix, began, self._time.now(), failure=failure, **attributes)


def _trace_attributes(task: Task) -> dict[str, Any]:
    return {"task_id": task.id, "priority": task.priority.value, "attempt": task.attempts}
