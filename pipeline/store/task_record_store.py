"""Task records in SQL: the part of the task store that the HTTP surface uses."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError
from typing_extensions import override

from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.durability import Durability
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.summaries.summary import Summary
from pipeline.domain.tasks.client import Client, ClientLoad
from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Task
from pipeline.ports import Clock, Metrics, NullMetrics, QueueStats, StoredChunks, TaskPage, TaskQuery, TaskRecords
from pipeline.store.connection.database_access import Database
from pipeline.store.connection.dialects import parse_url
from pipeline.store.rows import task_codec
from pipeline.store.rows.defect_report import DefectReport
from pipeline.store.transactions import (
    chunk_results,
    client_usage,
    queue_stats,
    summary_queue,
    task_operations,
)
from pipeline.store.transactions.recomputable import RECOMPUTABLE
from pipeline.system_clock import SynchronizedClock


class SqlTaskRecords(TaskRecords):
    """Task records in an SQLite or MySQL database. Each method is one transaction.

    Args:
        url: see ``SqlTaskStore``.
        clock: see ``SqlTaskStore``.
        busy_timeout_s: how long a statement waits for a lock.
        idempotency_ttl_s: how long an idempotency key is kept.
        metrics: counts the rows that can't be read.
        durability: whether a commit that a client relies on waits for the disk.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        busy_timeout_s: float,
        idempotency_ttl_s: float,
        metrics: Metrics | None = None,
        durability: Durability = Durability.FULL,
    ) -> None:
        self._address = parse_url(url)
        self._clock = clock
        self._idempotency_ttl = timedelta(seconds=idempotency_ttl_s)
        self._database = Database(self._address, busy_timeout_s, durability, RECOMPUTABLE)
        self._report = DefectReport(metrics or NullMetrics())
        self._server_clock = clock if isinstance(clock, SynchronizedClock) else None

    @property
    def database(self) -> Database:
        """The connections, for a store of other rows in the same database."""
        return self._database

    @property
    def report(self) -> DefectReport:
        """The report of rows that can't be read, for a store of other rows too."""
        return self._report

    @override
    async def ping(self) -> None:
        await self._database.read(_ping)

    @override
    async def create(
        self, new: NewTask, idempotency: IdempotencyClaim | None = None, client: Client | None = None
    ) -> tuple[Task, bool]:
        now = await self._now()
        arguments = (new, idempotency, client, now, now + self._idempotency_ttl)
        try:
            task, is_new = await self._database.write(task_operations.create, *arguments)
        except IntegrityError:  # another process has just stored the same key, which can be read now
            task, is_new = await self._database.write(task_operations.create, *arguments)
        return self._report.seen(task), is_new

    @override
    async def client_load(self, client: str) -> ClientLoad:
        return await self._database.read(client_usage.client_load, client, self._clock.now())

    @override
    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        if not include_result:
            return self._report.seen(await self._database.read(task_operations.get, task_id))
        row = await self._database.read(task_operations.row_with_transcript, task_id)
        # In a thread, because reading the transcript of hours of audio takes a second.
        return self._report.seen(await asyncio.to_thread(task_codec.read_task, row))

    @override
    async def crawl_record(self, task_id: int) -> CrawlRecord | None:
        return await self._database.read(task_operations.crawl_record, task_id, self._report.note)

    @override
    async def query(self, query: TaskQuery) -> TaskPage:
        page = await self._database.read(task_operations.page, query)
        for task in page.tasks:
            self._report.seen(task)
        return page

    @override
    async def stats(self) -> QueueStats:
        return await self._database.read(queue_stats.measure, await self._now())

    @override
    async def cancel(self, task_id: int) -> Task:
        return self._report.seen(await self._database.write(task_operations.cancel, task_id, await self._now()))

    @override
    async def retry(self, task_id: int, client: Client | None = None) -> Task:
        """Queue a failed or cancelled task again. Delete the undelivered callbacks of its earlier run."""
        return self._report.seen(await self._database.write(task_operations.retry, task_id, await self._now(), client))

    @override
    async def begin_extraction(self, client: Client, extraction_id: str, size_bytes: int) -> float:
        return await self._database.write(
            client_usage.begin_extraction, client, extraction_id, size_bytes, await self._now()
        )

    @override
    async def charge_extraction(self, extraction_id: str, audio_s: float) -> None:
        await self._database.write(client_usage.charge_extraction, extraction_id, audio_s)

    @override
    async def extend_wait(self, task_id: int, until: datetime) -> None:
        await self._database.write(task_operations.extend_wait, task_id, until)

    @override
    async def delete(self, task_id: int) -> str:
        return await self._database.write(task_operations.delete_task, task_id)

    @override
    async def chunks(self, task_id: int) -> StoredChunks:
        """Return the stored chunks; none if the task does not exist or is completed."""
        return await self._database.read(chunk_results.stored_chunks, task_id, self._report.note)

    @override
    async def results(self, task_id: int, first: int) -> tuple[ChunkResult, ...]:
        """Return the stored results; none if the task does not exist or is completed."""
        return await self._database.read(chunk_results.stored_results, task_id, first, self._report.note)

    @override
    async def save_summary(self, task_id: int, summary: Summary) -> None:
        await self._database.write(summary_queue.save, task_id, summary, await self._now())

    async def _now(self) -> datetime:
        """Return the time to store; synchronize the clock with the server's first, at intervals."""
        server = self._address.dialect.server
        if server is not None and self._server_clock is not None and self._server_clock.needs_sync:
            asked_at = self._server_clock.monotonic()
            moment = await self._database.read(server.read_time)
            self._server_clock.follow(moment, (asked_at + self._server_clock.monotonic()) / 2)
        return self._clock.now()


def _ping(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))
