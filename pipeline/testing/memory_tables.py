"""State of the task store in memory, and the operations on it that all of its methods share."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from pipeline.domain.tasks.client import SECONDS_PER_BYTE, AudioCharge, refuse_more_audio
from pipeline.domain.tasks.lifecycle import message_id
from pipeline.domain.tasks.task import Status, Task, TaskError
from pipeline.errors import DatabaseUnavailable, LeaseLost, TaskNotFound
from pipeline.ports import Clock, Lease, OutboxMessage, TaskStore
from pipeline.testing.memory_rows import StoredCallback, StoredKey, StoredTask, without_owner


class MemoryTables(TaskStore):
    """The rows of a task store in memory. Its subclasses add the methods of ``TaskStore``, a group each."""

    def __init__(
        self, clock: Clock, *, idempotency_ttl_s: float = 86_400.0, ageing_s: float = 600.0, max_losses: int = 3
    ) -> None:
        self.available = True
        self._clock = clock
        self._idempotency_ttl = timedelta(seconds=idempotency_ttl_s)
        self._ageing_s = ageing_s
        self._max_losses = max_losses
        self._records: dict[int, StoredTask] = {}
        self._keys: dict[str, StoredKey] = {}
        self._outbox: dict[int, StoredCallback] = {}
        self._charges: dict[tuple[int, int], tuple[str, float, datetime]] = {}
        self._extraction_charges: dict[str, tuple[str, float, datetime]] = {}
        self._last_task_id = 0
        self._last_message_id = 0

    def _now(self) -> datetime:
        """Return the time of day. Every method calls this first, so that an unavailable store raises its error."""
        if not self.available:
            raise DatabaseUnavailable("The task database does not answer.")
        return self._clock.now()

    def _record(self, task_id: int) -> StoredTask:
        record = self._records.get(task_id)
        if record is None:
            raise TaskNotFound(f"There is no task {task_id}.")
        return record

    def _put(self, task: Task) -> Task:
        self._records[task.id].task = task
        return task

    def _in_status(self, status: Status) -> list[Task]:
        return [record.task for record in self._records.values() if record.task.status is status]

    def _held(self, lease: Lease) -> bool:
        record = self._records.get(lease.task_id)
        return record is not None and record.task.status is Status.PROCESSING and record.task.fence == lease.fence

    def _leased(self, lease: Lease) -> StoredTask:
        if not self._held(lease):
            raise LeaseLost(f"Task {lease.task_id} passed to another owner, or ended, after fence {lease.fence}.")
        return self._records[lease.task_id]

    async def _charge_audio(self, client: str, part: tuple[int, int], charge: AudioCharge) -> None:
        now = self._now()
        refuse_more_audio(charge.max_audio_s, await self.client_load(client), now)
        self._charges[part] = (client, charge.audio_s, now)

    def _unsplit_s(self, client: str) -> float:
        """Return the estimated seconds of the client's recordings that are not split yet."""
        live = self._in_status(Status.QUEUED) + self._in_status(Status.PROCESSING)
        unsplit = [task for task in live if task.client == client and not task.split_done]
        ids = {task.id for task in unsplit}
        taken_s = sum(audio_s for (task_id, _), (_, audio_s, _) in self._charges.items() if task_id in ids)
        size_bytes = sum(task.file_size_bytes or 0 for task in unsplit)
        return max(0.0, size_bytes * (self._seconds_per_byte or SECONDS_PER_BYTE) - taken_s)

    def _pending_audio_s(self, task: Task) -> float:
        total_s = task.audio_total_s
        if not task.split_done:
            total_s = max(total_s, (task.file_size_bytes or 0) * self._seconds_per_byte)
        return total_s - task.audio_done_s

    @property
    def _seconds_per_byte(self) -> float:
        recent = sorted(
            (task.finished_at, task.file_duration_s, task.file_size_bytes)
            for task in (record.task for record in self._records.values())
            if task.finished_at and task.file_duration_s and task.file_size_bytes
        )[-100:]
        return sum(each[1] for each in recent) / sum(each[2] for each in recent) if recent else 0.0

    def _finish(self, task: Task, status: Status, error: TaskError | None, now: datetime) -> Task:
        if task.callback_url:
            self._last_message_id += 1
            name = message_id(task.id, task.fence, task.media_prefix)
            message = OutboxMessage(self._last_message_id, name, task.id, task.callback_url, 0, task.client)
            self._outbox[message.id] = StoredCallback(message, now, now)
        return self._put(replace(without_owner(task, status, now), finished_at=now, error=error))

    def _remove(self, task: Task) -> str:
        del self._records[task.id]
        self._keys = {name: key for name, key in self._keys.items() if key.task_id != task.id}
        self._drop_callbacks(task.id, settled_too=True)
        return task.media_prefix

    def _drop_callbacks(self, task_id: int, *, settled_too: bool) -> None:
        self._outbox = {
            number: callback
            for number, callback in self._outbox.items()
            if callback.message.task_id != task_id or not (settled_too or callback.due_at)
        }
