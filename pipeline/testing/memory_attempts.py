"""Attempts at tasks in memory, from the claim to the completion, failure or release."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import override

from pipeline.domain.audio.spans import Chunk, to_seconds
from pipeline.domain.decoding.transcript import ChunkResult, Transcript
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.scheduling.claim_rule import NO_RUNNING_TASKS, ClaimCandidate, ClaimRule, RunningTasks
from pipeline.domain.tasks.client import AudioCharge
from pipeline.domain.tasks.lifecycle import attempts_exhausted, claimed, refuse_fixed_fields
from pipeline.domain.tasks.task import Status, Task, TaskError
from pipeline.ports import Lease
from pipeline.testing.memory_rows import is_abandoned, with_due_summary, without_owner, without_prepared
from pipeline.testing.memory_tables import MemoryTables


class MemoryAttempts(MemoryTables):
    """The methods of ``TaskStore`` for attempts, in memory."""

    @override
    async def claim(
        self,
        owner: str,
        lease: timedelta,
        limit: int,
        ranks: Collection[int],
        running_tasks: RunningTasks = NO_RUNNING_TASKS,
    ) -> list[Task]:
        now = self._now()
        waiting = [
            record.task
            for record in self._records.values()
            if record.task.priority.rank in ranks and self._claimable(record.task, now)
        ]
        candidates = [ClaimCandidate(task.id, task.priority.rank, task.client, task.created_at) for task in waiting]
        places = ClaimRule(running_tasks, now, self._ageing_s).places(candidates)[: max(0, limit)]
        return [self._put(claimed(self._records[one.id].task, owner, now, now + lease)) for _, one in places]

    @override
    async def heartbeat(self, leases: Sequence[Lease], lease: timedelta) -> frozenset[int]:
        now = self._now()
        held = [each for each in leases if self._held(each)]
        for each in held:
            self._put(replace(self._records[each.task_id].task, lease_expires_at=now + lease))
        return frozenset(each.task_id for each in leases if each not in held)

    @override
    async def fail_exhausted(self, max_losses: int) -> list[Task]:
        now = self._now()
        lost = [task for task in self._in_status(Status.PROCESSING) if is_abandoned(task, now)]
        return [
            self._fail(task, attempts_exhausted(task.losses + 1), now) for task in lost if task.losses + 1 >= max_losses
        ]

    @override
    async def fail_unreachable(self, limit: int) -> list[Task]:
        """Return no task: a record in memory is never damaged."""
        self._now()
        return []

    @override
    async def lease_owners(self) -> frozenset[str]:
        now = self._now()
        claimed_callbacks = [
            callback for callback in self._outbox.values() if callback.due_at and callback.due_at > now
        ]
        of_callbacks = {callback.owner for callback in claimed_callbacks if callback.owner}
        tasks = [record.task for record in self._records.values()]
        of_summaries = {
            task.summary.owner
            for task in tasks
            if task.summary.due_at and task.summary.due_at > now and task.summary.owner
        }
        of_tasks = {task.owner for task in self._in_status(Status.PROCESSING) if task.owner}
        return frozenset(of_tasks | of_callbacks | of_summaries)

    @override
    async def expire_leases_of(self, owner: str) -> None:
        now = self._now()
        for task in self._in_status(Status.PROCESSING):
            if task.owner == owner:
                self._put(replace(task, lease_expires_at=now - timedelta(seconds=1)))
        for callback in self._outbox.values():
            if callback.owner == owner and callback.due_at and callback.due_at > now:
                callback.due_at, callback.owner = now, None
        for task in (record.task for record in self._records.values()):
            if task.summary.owner == owner and task.summary.due_at and task.summary.due_at > now:
                self._put(replace(task, summary=replace(task.summary, due_at=now, owner=None)))

    @override
    async def update(self, lease: Lease, **changes: Any) -> None:
        """Set fields of the task. Raise ``TypeError`` for fields that only the store changes."""
        refuse_fixed_fields(changes)
        now = self._now()
        task = self._put(replace(self._leased(lease).task, updated_at=now, **changes))
        is_charged = any(task_id == task.id for task_id, _ in self._charges)
        if changes.get("split_done") and task.client and task.file_duration_s is not None and not is_charged:
            self._charges[task.id, 0] = (task.client, task.file_duration_s, now)

    @override
    async def save_crawl_record(self, lease: Lease, record: CrawlRecord) -> None:
        now = self._now()
        kept = self._leased(lease)
        kept.crawl = record
        self._put(replace(kept.task, updated_at=now))

    @override
    async def add_part(
        self,
        lease: Lease,
        part: int,
        start: int,
        end: int,
        chunks: Sequence[Chunk],
        charge: AudioCharge | None = None,
    ) -> None:
        """Store a part with its chunks. A part whose number is stored already is not changed."""
        now = self._now()
        record = self._leased(lease)
        if part in record.parts:
            return
        if record.task.client is not None and (record.task.id, part) not in self._charges:
            await self._charge_audio(
                record.task.client, (record.task.id, part), charge or AudioCharge(to_seconds(end - start))
            )
        record.parts[part] = (part, start, end)
        record.chunks.update((chunk.index, chunk) for chunk in chunks)
        total_s = record.task.audio_total_s + sum(chunk.duration_s for chunk in chunks)
        self._put(replace(record.task, audio_total_s=total_s, failures=0, losses=0, updated_at=now))

    @override
    async def save_results(self, lease: Lease, results: Sequence[ChunkResult]) -> None:
        now = self._now()
        record = self._leased(lease)
        for result in results:
            if result.index not in record.results:
                record.results[result.index] = result
                done_s = record.task.audio_done_s + result.audio_s
                self._put(replace(record.task, audio_done_s=done_s, failures=0, losses=0, updated_at=now))

    @override
    async def complete(self, lease: Lease, transcript: Transcript) -> Task:
        """Complete the task. It is returned without its result, which the caller has."""
        now = self._now()
        record = self._leased(lease)
        record.result = transcript
        record.chunks, record.results, record.parts = {}, {}, {}
        info = transcript.info
        known = replace(
            record.task,
            language=info.language,
            language_probability=info.language_probability,
            file_duration_s=info.duration,
            audio_done_s=record.task.audio_total_s,
        )
        if known.summary_options is not None:
            return self._put(with_due_summary(known, now))
        return self._finish(known, Status.COMPLETED, None, now)

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
        now = self._now()
        task = self._leased(lease).task
        if not keep_prepared:
            task = without_prepared(self._records[task.id])
        if retry_at is None:
            return self._fail(task, error, now)
        queued = without_owner(replace(task, failures=task.failures + counted), Status.QUEUED, now)
        return self._put(replace(queued, error=error, available_at=retry_at))

    @override
    async def release(self, lease: Lease) -> None:
        now = self._now()
        task = self._leased(lease).task
        self._put(replace(without_owner(task, Status.QUEUED, now), attempts=task.attempts - 1))

    def _claimable(self, task: Task, now: datetime) -> bool:
        if task.status is Status.QUEUED:
            return task.available_at is None or task.available_at <= now
        return is_abandoned(task, now) and task.losses + 1 < self._max_losses

    def _fail(self, task: Task, error: TaskError, now: datetime) -> Task:
        return self._finish(replace(task, failures=task.failures + 1), Status.FAILED, error, now)
