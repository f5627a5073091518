"""Submission of tasks: a recording's bytes are written to the media store as they arrive, then one row makes the task.

A task exists from the commit of its row. Any failure before that, including a client that disconnects, deletes what
was written. After it nothing is undone, and the Dispatcher is woken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pipeline.domain.tasks.client import Client
from pipeline.domain.tasks.submission import Submission, refuse_other_submission
from pipeline.domain.tasks.task import Task
from pipeline.domain.tasks.upload import Upload
from pipeline.ports import Clock, MediaStore, TaskRecords
from pipeline.settings import LlmSettings
from pipeline.usecases.tasks.intake import Intake, IntakeContext, SubmissionRules
from pipeline.usecases.tasks.queue_limit import QueueLimit
from pipeline.usecases.tasks.resumable_uploads import ResumableUploads

TOUCHES_PER_ORPHAN_AGE = 5
"""Number of times that media being received is touched within the age at which orphans are deleted."""


class Submitter:
    """The creator of tasks from HTTP streams, bytes and URLs.

    Args:
        store: stores the row.
        media: stores the bytes.
        wake: signals the Dispatcher that there is a task; called after the commit.
        clock: measures the age of the queue's count, and how long a task is awaited.
        max_upload_bytes: size of the largest recording.
        max_queued_tasks: new tasks are refused while this many wait.
        max_queued_audio_s: new tasks are refused while this many seconds of audio are not decoded; ``None``: no limit.
        orphan_age_s: age in seconds at which unchanged media without a task is deleted.
        fetch_available: recordings can be fetched from a ``file_url``.
        check_url: called with a URL and its field's name; raises ``UrlNotAllowed`` if the guard refuses the URL.
        llm: the language model, if any, and the models that a request may name.
    """

    def __init__(
        self,
        store: TaskRecords,
        media: MediaStore,
        wake: Callable[[], Awaitable[None]],
        *,
        clock: Clock,
        max_upload_bytes: int,
        max_queued_tasks: int,
        fetch_available: bool,
        check_url: Callable[[str, str], Awaitable[None]],
        llm: LlmSettings,
        max_queued_audio_s: float | None = None,
        orphan_age_s: float = 600.0,
    ) -> None:
        self.max_upload_bytes = max_upload_bytes
        self._store = store
        self._wake = wake
        self._queue_limit = QueueLimit(store, clock, max_queued_tasks, max_queued_audio_s)
        self._touch_interval_s = orphan_age_s / TOUCHES_PER_ORPHAN_AGE
        self._context = IntakeContext(
            store=store,
            media=media,
            clock=clock,
            max_upload_bytes=max_upload_bytes,
            rules=SubmissionRules(fetch_available=fetch_available, check_url=check_url, llm=llm),
            on_created=self._report_new_task,
        )

    @asynccontextmanager
    async def intake(self, idempotency_key: str | None = None, client: Client | None = None) -> AsyncIterator[Intake]:
        """Open the submission of one task of the client. The checks here come before any byte is read.

        Raises:
            QueueFull: too many tasks wait already.
            QuotaExceeded: the client may not have another task now.
        """
        await self.check_room(client)
        intake = Intake(self._context, idempotency_key, client)
        touching = asyncio.create_task(intake.touch_periodically(self._touch_interval_s))
        try:
            yield intake
        finally:
            touching.cancel()
            await intake.delete_media_without_task()

    async def submit(
        self,
        submission: Submission,
        data: AsyncIterator[bytes] | bytes | None = None,
        *,
        file_name: str | None = None,
        idempotency_key: str | None = None,
        client: Client | None = None,
    ) -> Task:
        """Create a task from bytes, from a stream of them, or, if ``data`` is ``None``, from ``file_url``.

        Raises:
            RequestError: as in ``Intake.receive`` and ``Intake.create``.
            Unavailable: the queue is full, or the database or the media store is unavailable.
        """
        async with self.intake(idempotency_key, client) as intake:
            if data is not None:
                await intake.receive(_once(data) if isinstance(data, bytes) else data, file_name)
            task, _ = await intake.create(submission)
        return task

    async def submit_upload(
        self,
        uploads: ResumableUploads,
        upload: Upload,
        submission: Submission,
        *,
        idempotency_key: str | None = None,
        client: Client | None = None,
    ) -> Task:
        """Create a task from a complete resumable upload, or return the task that was made of it before.

        Raises:
            UploadStateConflict: the upload is not complete.
            IdempotencyConflict: a task was made of it before, with other options.
            RequestError, Unavailable: as in ``submit``.
        """
        if upload.task_id is not None:
            earlier = await self._store.get(upload.task_id)
            refuse_other_submission(earlier, submission)
            return earlier
        key = idempotency_key or f"upload:{upload.id}"
        content = uploads.content(upload)
        task = await self.submit(submission, content, file_name=upload.file_name, idempotency_key=key, client=client)
        await uploads.close(upload, task.id)
        return task

    async def check_room(self, client: Client | None = None) -> None:
        """Raise ``QueueFull`` or ``QuotaExceeded`` if the client may not submit another task now."""
        await self._queue_limit.check(client)

    async def _report_new_task(self) -> None:
        self._queue_limit.count_new_task()
        await self._wake()


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
