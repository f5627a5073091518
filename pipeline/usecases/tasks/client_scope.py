"""A task store as one client sees it: its own tasks, and nobody else's."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.summaries.summary import Summary
from pipeline.domain.tasks.client import Client, ClientLoad
from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Task
from pipeline.errors import TaskNotFound
from pipeline.ports import QueueStats, StoredChunks, TaskPage, TaskQuery, TaskRecords


class ClientScopedTasks:
    """``ports.TaskRecords`` for one client: another's task is one that does not exist.

    A task never changes hands, so looking first and acting then is safe.
    """

    def __init__(self, store: TaskRecords, client: Client) -> None:
        self._store = store
        self._client = client
        self._own: set[int] = set()

    async def ping(self) -> None:
        """See ``ports.TaskRecords``."""
        await self._store.ping()

    async def create(
        self, new: NewTask, idempotency: IdempotencyClaim | None = None, client: Client | None = None
    ) -> tuple[Task, bool]:
        """See ``ports.TaskRecords``; whatever is asked for, the task is this client's."""
        return await self._store.create(replace(new, client=self._client.name), idempotency, client or self._client)

    async def client_load(self, client: str) -> ClientLoad:
        """See ``ports.TaskRecords``."""
        return await self._store.client_load(client)

    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        """See ``ports.TaskRecords``."""
        task = await self._store.get(task_id, include_result=include_result)
        if task.client != self._client.name:
            raise TaskNotFound(f"There is no task {task_id}.")
        self._own.add(task_id)
        return task

    async def crawl_record(self, task_id: int) -> CrawlRecord | None:
        """See ``ports.TaskRecords``."""
        await self._check(task_id)
        return await self._store.crawl_record(task_id)

    async def query(self, query: TaskQuery) -> TaskPage:
        """See ``ports.TaskRecords``."""
        return await self._store.query(replace(query, client=self._client.name))

    async def stats(self) -> QueueStats:
        """See ``ports.TaskRecords``; of the whole queue, which is what a client waits in."""
        return await self._store.stats()

    async def cancel(self, task_id: int) -> Task:
        """See ``ports.TaskRecords``."""
        await self._check(task_id)
        return await self._store.cancel(task_id)

    async def retry(self, task_id: int, client: Client | None = None) -> Task:
        """See ``ports.TaskRecords``."""
        await self._check(task_id)
        return await self._store.retry(task_id, client or self._client)

    async def begin_extraction(self, client: Client, extraction_id: str, size_bytes: int) -> float:
        """See ``ports.TaskRecords``."""
        return await self._store.begin_extraction(client, extraction_id, size_bytes)

    async def charge_extraction(self, extraction_id: str, audio_s: float) -> None:
        """See ``ports.TaskRecords``."""
        await self._store.charge_extraction(extraction_id, audio_s)

    async def extend_wait(self, task_id: int, until: datetime) -> None:
        """See ``ports.TaskRecords``."""
        if await self._is_own(task_id):
            await self._store.extend_wait(task_id, until)

    async def delete(self, task_id: int) -> str:
        """See ``ports.TaskRecords``."""
        await self._check(task_id)
        return await self._store.delete(task_id)

    async def chunks(self, task_id: int) -> StoredChunks:
        """See ``ports.TaskRecords``."""
        return await self._store.chunks(task_id) if await self._is_own(task_id) else StoredChunks()

    async def results(self, task_id: int, first: int) -> tuple[ChunkResult, ...]:
        """See ``ports.TaskRecords``."""
        return await self._store.results(task_id, first) if await self._is_own(task_id) else ()

    async def save_summary(self, task_id: int, summary: Summary) -> None:
        """See ``ports.TaskRecords``."""
        await self._check(task_id)
        await self._store.save_summary(task_id, summary)

    async def _check(self, task_id: int) -> None:
        """Raises ``TaskNotFound`` unless the task is the client's."""
        if task_id not in self._own:
            await self.get(task_id)

    async def _is_own(self, task_id: int) -> bool:
        try:
            await self._check(task_id)
        except TaskNotFound:
            return False
        return True
