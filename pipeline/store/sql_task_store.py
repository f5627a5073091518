"""The task store in SQL: each method is one transaction, at the time of an injected clock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from typing_extensions import override

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.decoding.transcript import ChunkResult, Transcript
from pipeline.domain.durability import Durability
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.scheduling.claim_rule import NO_RUNNING_TASKS, RunningTasks
from pipeline.domain.summaries.summary import Summary
from pipeline.domain.tasks.client import AudioCharge
from pipeline.domain.tasks.lifecycle import refuse_fixed_fields
from pipeline.domain.tasks.task import Status, Task, TaskError
from pipeline.ports import Clock, DeliveryAttempt, Lease, Metrics, OutboxMessage, SummaryLease, TaskStore
from pipeline.store.migrate import migrate
from pipeline.store.task_record_store import SqlTaskRecords
from pipeline.store.transactions import (
    callback_outbox,
    chunk_results,
    claims,
    client_usage,
    clock_changes,
    completion,
    idempotency,
    queue_stats,
    summary_queue,
    task_housekeeping,
    task_leases,
    unreadable_tasks,
)

CLAIM_ROUNDS = 3
"""How often a claim chooses candidates again after other processes claimed all of them."""


class SqlTaskStore(SqlTaskRecords, TaskStore):
    """The task store on SQLite (``sqlite+aiosqlite:////folder/tasks.db``) or MySQL (``mysql+asyncmy://…``).

    Any number of processes may use one database. Connections are opened at first use.

    Args:
        url: SQLAlchemy URL of the database.
        clock: the source of all times. A ``SynchronizedClock`` is kept at the time of the MySQL server, so that
            Dispatchers on nodes whose clocks differ agree on when a lease has expired.
        busy_timeout_s: how long a statement waits for a lock.
        idempotency_ttl_s: how long an idempotency key is kept.
        ageing_s: the priority of a waiting task is raised by one rank each time this much time passes.
        max_losses: a task whose lease expired this many times in a row without progress is left to ``fail_exhausted``.
        metrics: counts the rows that can't be read.
        durability: whether a commit that a client relies on waits for the disk.

    Raises:
        ConfigurationError: the URL names no database that this store can use.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        busy_timeout_s: float,
        idempotency_ttl_s: float,
        ageing_s: float,
        max_losses: int,
        metrics: Metrics | None = None,
        durability: Durability = Durability.FULL,
    ) -> None:
        super().__init__(
            url,
            clock,
            busy_timeout_s=busy_timeout_s,
            idempotency_ttl_s=idempotency_ttl_s,
            metrics=metrics,
            durability=durability,
        )
        self._busy_timeout_s = busy_timeout_s
        self._ageing_s = ageing_s
        self._max_losses = max_losses

    @override
    async def migrate(self) -> None:
        """Upgrade the schema to this version. Create the folder of an SQLite file if it is missing."""
        await migrate(self._address, self._busy_timeout_s)
        await self._database.warn_of_lossy_server()

    @override
    async def close(self) -> None:
        await self._database.close()

    # the run of a task

    @override
    async def claim(
        self,
        owner: str,
        lease: timedelta,
        limit: int,
        ranks: Collection[int],
        running_tasks: RunningTasks = NO_RUNNING_TASKS,
    ) -> list[Task]:
        if limit < 1 or not ranks:
            return []
        rounds = CLAIM_ROUNDS
        while rounds:
            now = await self._now()
            candidates = await self._database.read(
                claims.choose_candidates, ranks, now, self._max_losses, limit, self._ageing_s, running_tasks
            )
            if not candidates:
                break
            claim = (candidates, limit, now, self._max_losses, owner, now + lease, self._report.note)
            outcome = await self._database.write(claims.claim, *claim)
            if outcome.tasks:
                return list(outcome.tasks)
            if not outcome.set_aside:
                rounds -= 1
        return []

    @override
    async def heartbeat(self, leases: Sequence[Lease], lease: timedelta) -> frozenset[int]:
        if not leases:
            return frozenset()
        return await self._database.write(task_leases.renew, leases, await self._now() + lease)

    @override
    async def fail_exhausted(self, max_losses: int) -> list[Task]:
        now = await self._now()
        if not await self._database.read(completion.has_exhausted, now, max_losses):
            return []
        return await self._database.write(completion.fail_exhausted, now, max_losses, self._report.note)

    @override
    async def fail_unreachable(self, limit: int) -> list[Task]:
        ids = await self._database.read(unreadable_tasks.find_unreachable, limit)
        if not ids:
            return []
        return await self._database.write(unreadable_tasks.fail_unreachable, ids, await self._now(), self._report.note)

    @override
    async def lease_owners(self) -> frozenset[str]:
        return await self._database.read(task_leases.owners, await self._now())

    @override
    async def expire_leases_of(self, owner: str) -> None:
        await self._database.write(task_leases.expire_of, owner, await self._now())

    @override
    async def update(self, lease: Lease, **changes: Any) -> None:
        """Set fields of the record. Raises ``TypeError`` for fields that only the store changes."""
        refuse_fixed_fields(changes)
        await self._database.write(task_leases.update_task, lease, changes, await self._now())

    @override
    async def save_crawl_record(self, lease: Lease, record: CrawlRecord) -> None:
        await self._database.write(task_leases.save_crawl_record, lease, record, self._clock.now())

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
        """Commit a part with its chunks. A part whose number is stored already is left unchanged."""
        await self._database.write(chunk_results.add_part, lease, (part, start, end), chunks, await self._now(), charge)

    @override
    async def save_results(self, lease: Lease, results: Sequence[ChunkResult]) -> None:
        await self._database.write(chunk_results.save_results, lease, results, await self._now())

    @override
    async def complete(self, lease: Lease, transcript: Transcript) -> Task:
        """Complete a task. Return it without its transcript, which the caller has."""
        return await self._database.write(completion.complete, lease, transcript, await self._now())

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
        return await self._database.write(
            completion.fail, lease, error, retry_at, await self._now(), keep_prepared=keep_prepared, counted=counted
        )

    @override
    async def release(self, lease: Lease) -> None:
        await self._database.write(completion.release, lease, await self._now())

    # summaries

    @override
    async def claim_summaries(self, owner: str, lease: timedelta, limit: int) -> list[SummaryLease]:
        now = await self._now()
        chosen = await self._database.read(summary_queue.choose_due, owner, now, limit) if limit > 0 else []
        if not chosen:
            return []
        return await self._database.write(summary_queue.claim, owner, now, now + lease, chosen, self._report.note)

    @override
    async def renew_summaries(self, turns: Sequence[SummaryLease], lease: timedelta) -> frozenset[int]:
        if not turns:
            return frozenset()
        return await self._database.write(summary_queue.renew, turns, await self._now() + lease)

    @override
    async def finish_summary(self, turn: SummaryLease, outcome: Summary | TaskError) -> Task:
        return await self._database.write(summary_queue.finish, turn, outcome, await self._now())

    @override
    async def postpone_summary(
        self, turn: SummaryLease, due_at: datetime, error: TaskError | None = None, *, counted: bool = True
    ) -> None:
        await self._database.write(summary_queue.postpone, turn, due_at, error, await self._now(), counted=counted)

    # callbacks

    @override
    async def claim_callbacks(self, owner: str, lease: timedelta, limit: int) -> list[OutboxMessage]:
        now = await self._now()
        chosen = await self._database.read(callback_outbox.choose_due, owner, now, limit) if limit > 0 else []
        if not chosen:
            return []
        return await self._database.write(callback_outbox.claim, owner, now, now + lease, chosen, self._report.note)

    @override
    async def record_delivery(self, message: OutboxMessage, attempt: DeliveryAttempt) -> None:
        await self._database.write(callback_outbox.record_delivery, message, attempt, await self._now())

    # housekeeping

    @override
    async def expire(self, older_than: datetime, limit: int) -> list[str]:
        """Delete tasks that finished long ago, except those whose callback is not delivered yet."""
        return await self._database.write(task_housekeeping.expire, older_than, limit)

    @override
    async def delete_unawaited(self, limit: int) -> list[str]:
        return await self._database.write(task_housekeeping.delete_unawaited, await self._now(), limit)

    @override
    async def delete_expired_media(self, older_than: datetime, limit: int, statuses: Collection[Status]) -> list[str]:
        return await self._database.write(task_housekeeping.delete_expired_media, older_than, limit, statuses)

    @override
    async def release_postponed(self) -> int:
        return await self._database.write(clock_changes.release_postponed, await self._now())

    @override
    async def prune_callbacks(self, older_than: datetime, limit: int) -> int:
        return await self._database.write(callback_outbox.prune_callbacks, older_than, limit)

    @override
    async def prune_idempotency_keys(self, limit: int) -> int:
        return await self._database.write(idempotency.prune_keys, await self._now(), limit)

    @override
    async def live_prefixes(self, prefixes: Collection[str], *, transcribed: bool = True) -> set[str]:
        return await self._database.read(task_housekeeping.live_prefixes, prefixes, transcribed=transcribed)

    @override
    async def count_queued_with_error(self, code: str) -> int:
        return await self._database.read(queue_stats.count_queued_with_error, code)

    @override
    async def delete_old_usage(self) -> None:
        await self._database.write(client_usage.delete_old_usage, await self._now())
