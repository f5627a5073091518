"""The port of task records, as clients see and change them."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.summaries.summary import Summary
from pipeline.domain.tasks.client import Client, ClientLoad
from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Task
from pipeline.ports.task_values import QueueStats, StoredChunks, TaskPage, TaskQuery


class TaskRecords(Protocol):
    """The record of every task, as clients see and change it: the part of the task store that the HTTP surface uses.

    Every method raises ``DatabaseUnavailable`` while the database does not answer. A record that can't be read never
    prevents another from being read: it is returned as far as it is readable, with the reason in ``Task.defect``.
    """

    async def ping(self) -> None:
        """Return if the database answers."""
        ...

    async def create(
        self, new: NewTask, idempotency: IdempotencyClaim | None = None, client: Client | None = None
    ) -> tuple[Task, bool]:
        """Store a task as ``queued``; return it and whether it is new.

        The same idempotency key with the same fingerprint returns the original task; with another, it raises
        ``IdempotencyConflict``. Keys expire after the time that the store was given. Raises ``QuotaExceeded`` if the
        client may not have another task now.
        """
        ...

    async def client_load(self, client: str) -> ClientLoad:
        """Return a client's queued tasks, and the audio it has used in the last 24 hours."""
        ...

    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        """Return the task. Raises ``TaskNotFound``."""
        ...

    async def crawl_record(self, task_id: int) -> CrawlRecord | None:
        """Return what is stored about the task's link. Raises ``TaskNotFound``, ``RecordUnreadable``."""
        ...

    async def query(self, query: TaskQuery) -> TaskPage:
        """Return a page of the tasks that match."""
        ...

    async def stats(self) -> QueueStats:
        """Return the amount of work that waits and runs."""
        ...

    async def cancel(self, task_id: int) -> Task:
        """Cancel a queued or running task at once. A running task's fence is raised, so that its owner loses the lease.

        Raises ``TaskNotFound``, or ``TaskStateConflict`` for a finished task.
        """
        ...

    async def retry(self, task_id: int, client: Client | None = None) -> Task:
        """Queue a failed or cancelled task again with attempts 0; its stored chunks are kept.

        A task that was cancelled while only its summary was missing goes back to that stage instead.

        Raises ``TaskStateConflict`` in any other state, and for a task whose recording was deleted
        (``delete_expired_media``) and can't be fetched again. Raises ``QuotaExceeded`` if the task belongs to the
        client and the client may not have another one in the queue now.
        """
        ...

    async def begin_extraction(self, client: Client, extraction_id: str, size_bytes: int) -> float:
        """Charge the client for the audio of an extraction, as estimated from the recording's size.

        Returns the estimate in seconds. Raises ``QuotaExceeded`` if the client's audio is used up.
        """
        ...

    async def charge_extraction(self, extraction_id: str, audio_s: float) -> None:
        """Replace the estimate by the seconds that were decoded, so far or in all."""
        ...

    async def extend_wait(self, task_id: int, until: datetime) -> None:
        """Extend the time until which a client is known to wait for the task. A missing task is ignored."""
        ...

    async def delete(self, task_id: int) -> str:
        """Delete the task and everything that belongs to it, in any state; return its media prefix."""
        ...

    async def chunks(self, task_id: int) -> StoredChunks:
        """Return the task's stored chunks. Raises ``RecordUnreadable`` if a chunk or a part is damaged.

        A damaged result is omitted, so that its chunk is decoded again.
        """
        ...

    async def results(self, task_id: int, first: int) -> tuple[ChunkResult, ...]:
        """Return the stored results of the chunk of index ``first`` and of later ones, in order."""
        ...

    async def save_summary(self, task_id: int, summary: Summary) -> None:
        """Store a summary that was requested separately from the task's run. Raises ``TaskNotFound``."""
        ...
