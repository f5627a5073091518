"""Tasks in memory as clients see them: their creation, queries, changes and stored results."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from typing_extensions import override

from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.summaries.summary import Summary
from pipeline.domain.tasks.client import DAY, SECONDS_PER_BYTE, Client, ClientLoad, refuse_more_audio, refuse_over_quota
from pipeline.domain.tasks.lifecycle import CANCEL_REFUSED, RETRY_REFUSED, refusal_sentence
from pipeline.domain.tasks.task import CallbackState, IdempotencyClaim, NewTask, Priority, Status, Task
from pipeline.errors import IdempotencyConflict, TaskStateConflict
from pipeline.ports import QueueStats, StoredChunks, TaskPage, TaskQuery
from pipeline.testing.memory_rows import (
    StoredKey,
    StoredTask,
    in_order,
    matches,
    oldest_age_s,
    queued_task,
    to_task,
    with_due_summary,
    without_due_summary,
    without_owner,
)
from pipeline.testing.memory_tables import MemoryTables


class MemoryRecords(MemoryTables):
    """The methods of ``TaskRecords`` in memory."""

    @override
    async def create(
        self, new: NewTask, idempotency: IdempotencyClaim | None = None, client: Client | None = None
    ) -> tuple[Task, bool]:
        now = self._now()
        if idempotency and (known := self._keys.get(idempotency.key)) and known.expires_at > now:
            if known.fingerprint != idempotency.fingerprint:
                raise IdempotencyConflict("This Idempotency-Key was already used for another request; use a new key.")
            return self._record(known.task_id).task, False
        if client:
            refuse_over_quota(client, await self.client_load(client.name), now)
        self._last_task_id += 1
        task = queued_task(self._last_task_id, new, now)
        self._records[task.id] = StoredTask(task)
        if idempotency:
            self._keys[idempotency.key] = StoredKey(idempotency.fingerprint, task.id, now + self._idempotency_ttl)
        return task, True

    @override
    async def client_load(self, client: str) -> ClientLoad:
        since = self._now() - DAY
        counted = (*self._charges.values(), *self._extraction_charges.values())
        taken = [(at, audio_s) for name, audio_s, at in counted if name == client and at > since]
        return ClientLoad(
            queued_tasks=sum(task.client == client for task in self._in_status(Status.QUEUED)),
            audio_s=sum(audio_s for _at, audio_s in taken),
            oldest_at=min((at for at, _audio_s in taken), default=None),
            pending_s=self._unsplit_s(client),
        )

    @override
    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        self._now()
        return to_task(self._record(task_id), include_result=include_result)

    @override
    async def query(self, query: TaskQuery) -> TaskPage:
        self._now()
        matching = [record for record in self._records.values() if matches(record, query)]
        matching.sort(key=lambda record: (record.task.created_at, record.task.id), reverse=query.descending)
        page = matching[query.offset : query.offset + query.limit]
        tasks = tuple(to_task(record, include_result=query.include_result) for record in page)
        return TaskPage(tasks, len(matching))

    @override
    async def stats(self) -> QueueStats:
        now = self._now()
        queued = self._in_status(Status.QUEUED)
        processing = self._in_status(Status.PROCESSING)
        oldest = min((task.created_at for task in queued), default=now)
        return QueueStats(
            queued_tasks={priority: sum(task.priority is priority for task in queued) for priority in Priority},
            processing_tasks=len(processing),
            pending_audio_s=sum(self._pending_audio_s(task) for task in queued + processing),
            oldest_queued_s=max(0.0, (now - oldest).total_seconds()),
            oldest_s={priority: oldest_age_s(queued, priority, now) for priority in Priority},
            waiting_callbacks=sum(callback.due_at is not None for callback in self._outbox.values()),
        )

    @override
    async def cancel(self, task_id: int) -> Task:
        now = self._now()
        task = self._record(task_id).task
        if task.status.finished:
            raise TaskStateConflict(refusal_sentence(task, CANCEL_REFUSED))
        ended = replace(without_owner(task, Status.CANCELLED, now), summary=without_due_summary(task.summary))
        return self._put(replace(ended, fence=task.fence + 1, finished_at=now, available_at=None, error=None))

    @override
    async def retry(self, task_id: int, client: Client | None = None) -> Task:
        """Put a finished task back into the queue, and withdraw undelivered callbacks of its earlier run."""
        now = self._now()
        record = self._record(task_id)
        task = record.task
        possible = task.media_key or task.file_url or record.result is not None
        if task.status not in (Status.FAILED, Status.CANCELLED) or not possible:
            raise TaskStateConflict(refusal_sentence(task, RETRY_REFUSED))
        if client and client.name == task.client:
            limited = replace(client, max_audio_s=None) if task.split_done else client
            refuse_over_quota(limited, await self.client_load(client.name), now)
        self._drop_callbacks(task_id, settled_too=False)
        fresh = replace(
            task,
            attempts=0,
            failures=0,
            losses=0,
            started_at=None,
            finished_at=None,
            error=None,
            callback=CallbackState(),
            summary=replace(task.summary, error=None),
            media_key=None if task.file_url and not task.split_done else task.media_key,
        )
        if record.result is not None:
            return self._put(with_due_summary(fresh, now))
        return self._put(without_owner(fresh, Status.QUEUED, now))

    @override
    async def begin_extraction(self, client: Client, extraction_id: str, size_bytes: int) -> float:
        now = self._now()
        refuse_more_audio(client.max_audio_s, await self.client_load(client.name), now)
        estimate_s = size_bytes * (self._seconds_per_byte or SECONDS_PER_BYTE)
        self._extraction_charges[extraction_id] = (client.name, estimate_s, now)
        return estimate_s

    @override
    async def charge_extraction(self, extraction_id: str, audio_s: float) -> None:
        self._now()
        client, _, taken_at = self._extraction_charges[extraction_id]
        self._extraction_charges[extraction_id] = (client, audio_s, taken_at)

    @override
    async def extend_wait(self, task_id: int, until: datetime) -> None:
        self._now()
        if task_id in self._records:
            self._put(replace(self._records[task_id].task, awaited_until=until))

    @override
    async def delete(self, task_id: int) -> str:
        self._now()
        return self._remove(self._record(task_id).task)

    @override
    async def crawl_record(self, task_id: int) -> CrawlRecord | None:
        self._now()
        return self._record(task_id).crawl

    @override
    async def chunks(self, task_id: int) -> StoredChunks:
        """Return the stored chunks; empty for a task that does not exist or is completed."""
        self._now()
        record = self._records.get(task_id)
        if record is None:
            return StoredChunks()
        return StoredChunks(in_order(record.chunks), in_order(record.results), in_order(record.parts))

    @override
    async def results(self, task_id: int, first: int) -> tuple[ChunkResult, ...]:
        """Return the stored results; empty for a task that does not exist or is completed."""
        self._now()
        record = self._records.get(task_id)
        return in_order(record.results, first) if record else ()

    @override
    async def save_summary(self, task_id: int, summary: Summary) -> None:
        now = self._now()
        task = self._record(task_id).task
        self._put(replace(task, updated_at=now, summary=replace(task.summary, result=summary, error=None)))
