"""Deletion of expired tasks, media, callbacks and keys in memory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from typing_extensions import override

from pipeline.domain.tasks.client import USAGE_RETENTION
from pipeline.domain.tasks.lifecycle import CLOCK_TOLERANCE
from pipeline.domain.tasks.task import Status
from pipeline.testing.memory_rows import without_prepared
from pipeline.testing.memory_tables import MemoryTables


class MemoryHousekeeping(MemoryTables):
    """The methods of ``TaskStore`` for housekeeping, in memory."""

    @override
    async def expire(self, older_than: datetime, limit: int) -> list[str]:
        """Delete expired tasks, except those whose callback is still to be delivered."""
        self._now()
        owed = {callback.message.task_id for callback in self._outbox.values() if callback.due_at}
        finished = sorted(
            (task.finished_at, task.id)
            for task in (record.task for record in self._records.values())
            if task.finished_at and task.finished_at < older_than and task.id not in owed
        )
        return [self._remove(self._record(task_id).task) for _finished_at, task_id in finished[:limit]]

    @override
    async def delete_unawaited(self, limit: int) -> list[str]:
        now = self._now()
        unawaited = sorted(
            (task.awaited_until, task.id)
            for task in (record.task for record in self._records.values())
            if task.awaited_until and task.awaited_until < now
        )
        return [self._remove(self._record(task_id).task) for _awaited_until, task_id in unawaited[:limit]]

    @override
    async def delete_expired_media(self, older_than: datetime, limit: int, statuses: Collection[Status]) -> list[str]:
        self._now()
        kept = sorted(
            (record.task.finished_at, record.task.id)
            for record in self._records.values()
            if record.task.finished_at and record.task.media_key and record.task.status in statuses
        )
        expired = [self._records[task_id] for finished_at, task_id in kept if finished_at < older_than][:limit]
        for record in expired:
            self._put(replace(without_prepared(record), media_key=None))
        return [record.task.media_prefix for record in expired]

    @override
    async def release_postponed(self) -> int:
        now = self._now()
        future, released = now + CLOCK_TOLERANCE, 0
        for task in [record.task for record in self._records.values() if record.task.updated_at > future]:
            if task.status is Status.QUEUED and task.available_at and task.available_at > future:
                self._put(replace(task, available_at=None))
                released += 1
            elif task.summary.due_at and task.summary.due_at > future and task.summary.owner is None:
                self._put(replace(task, summary=replace(task.summary, due_at=now)))
                released += 1
        for callback in self._outbox.values():
            tried_at = self._record(callback.message.task_id).task.callback.time
            stamped_at = max(callback.created_at, tried_at or callback.created_at)
            if callback.due_at and callback.due_at > future and callback.owner is None and stamped_at > future:
                callback.due_at = now
                released += 1
        return released

    @override
    async def prune_callbacks(self, older_than: datetime, limit: int) -> int:
        self._now()
        settled = [
            number
            for number, callback in self._outbox.items()
            if callback.due_at is None and callback.created_at < older_than
        ]
        for number in settled[:limit]:
            del self._outbox[number]
        return len(settled[:limit])

    @override
    async def prune_idempotency_keys(self, limit: int) -> int:
        now = self._now()
        expired = [name for name, key in self._keys.items() if key.expires_at <= now][:limit]
        for name in expired:
            del self._keys[name]
        return len(expired)

    @override
    async def live_prefixes(self, prefixes: Collection[str], *, transcribed: bool = True) -> set[str]:
        self._now()
        needing = [record.task for record in self._records.values() if transcribed or record.result is None]
        return {task.media_prefix for task in needing} & set(prefixes)

    @override
    async def count_queued_with_error(self, code: str) -> int:
        self._now()
        return sum(task.error is not None and task.error.code == code for task in self._in_status(Status.QUEUED))

    @override
    async def delete_old_usage(self) -> None:
        since = self._now() - USAGE_RETENTION
        self._charges = {part: charge for part, charge in self._charges.items() if charge[2] > since}
        self._extraction_charges = {
            name: charge for name, charge in self._extraction_charges.items() if charge[2] > since
        }
