"""Access to task records, limited to the tasks of one client."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from typing_extensions import override

from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.summaries.summary import Summary
from pipeline.domain.tasks.client import Client, ClientLoad
from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Task
from pipeline.errors import TaskNotFound
from pipeline.ports import QueueStats, StoredChunks, TaskPage, TaskQuery, TaskRecords


class ClientScopedTasks(TaskRecords):
    """The task records of one client; the tasks of other clients do not exist for it.

    A task never changes its client, so it is safe to check the client first and act afterwards.
    """

    def __init__(self, store: TaskRecords, client: Client) -> None:
        self._store = store
        self._client = client
        self._own: set[int] = set()

    @override
    async def ping(self) -> None:
        await self._store.ping()

    @override
    async def create(
        self, new: NewTask, idempotency: IdempotencyClaim | None = None, client: Client | None = None
    ) -> tuple[Task, bool]:
        """Store a task of this client, whatever client ``new`` names."""
        return await self._store.create(replace(new, client=self._client.name), idempotency, client or self._client)

    @override
    async def client_load(self, client: str) -> ClientLoad:
        return await self._store.client_load(client)

    @override
    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        task = await self._store.get(task_id, include_result=include_result)
        if task.client != self._client.name:
            raise TaskNotFound(f"There is no task {task_id}.")
        self._own.add(task_id)
        return task

    @override
    async def crawl_record(self, task_id: int) -> CrawlRecord | None:
        await self._check(task_id)
        return await self._store.crawl_record(task_id)

    @override
    async def query(self, query: TaskQuery) -> TaskPage:
        return await self._store.query(replace(query, client=self._client.name))

    @override
    async def stats(self) -> QueueStats:
        """Return the figures of the whole queue, since a client waits behind the tasks of others too."""
        return await self._store.stats()

    @override
    async def cancel(self, task_id: int) -> Task:
        await self._check(task_id)
        return await self._store.cancel(task_id)

    @override
    async def retry(self, task_id: int, client: Client | None = None) -> Task:
        await self._check(task_id)
        return await self._store.retry(task_id, client or self._client)

    @override
    async def begin_extraction(self, client: Client, extraction_id: str, size_bytes: int) -> float:
        return await self._store.begin_extraction(client, extraction_id, size_bytes)

    @override
    async def charge_extraction(self, extraction_id: str, audio_s: float) -> None:
        await self._store.charge_extraction(extraction_id, audio_s)

    @override
    async def extend_wait(self, task_id: int, until: datetime) -> None:
        if await self._is_own(task_id):
            await self._store.extend_wait(task_id, until)

    @override
    async def delete(self, task_id: int) -> str:
        await self._check(task_id)
        return await self._store.delete(task_id)

    @override
    async def chunks(self, task_id: int) -> StoredChunks:
        return await self._store.chunks(task_id) if await self._is_own(task_id) else StoredChunks()

    @override
    async def results(self, task_id: int, first: int) -> tuple[ChunkResult, ...]:
        return await self._store.results(task_id, first) if await self._is_own(task_id) else ()

    @override
    async def save_summary(self, task_id: int, summary: Summary) -> None:
        await self._check(task_id)
        await self._store.save_summary(task_id, summary)

    async def _check(self, task_id: int) -> None:
        """Raise ``TaskNotFound`` unless the task belongs to the client."""
        if task_id not in self._own:
            await self.get(task_id)

    async def _is_own(self, task_id: int) -> bool:
        try:
            await self._check(task_id)
        except TaskNotFound:
            return False
        return True
