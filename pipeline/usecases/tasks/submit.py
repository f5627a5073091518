"""Submission of tasks: a recording's bytes are written to the media store as they arrive, then one row makes the task.

A task exists from the commit of its row. Any failure before that, including a client that disconnects, deletes what
was written. After it nothing is undone, and the Dispatcher is woken.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field

from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.links.platforms import Link
from pipeline.domain.summaries.summary import SummaryOptions
from pipeline.domain.tasks.client import Client, refuse_over_quota
from pipeline.domain.tasks.queue_share import refuse_over_share, share_of
from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Priority, Task
from pipeline.domain.tasks.upload import Upload
from pipeline.domain.text.file_names import plain_file_name
from pipeline.errors import (
    CommitUnanswered,
    IdempotencyConflict,
    InvalidValue,
    QueueFull,
    SourceConflict,
    SourceError,
    SourceMissing,
    UploadTooLarge,
)
from pipeline.ports import Clock, MediaStore, NullMetrics, TaskRecords
from pipeline.settings import LlmSettings
from pipeline.usecases.background_loop import SupervisedLoop
from pipeline.usecases.summaries.transcript_summarizer import chosen_model
from pipeline.usecases.tasks.keepalive import KEEPALIVE_TTL
from pipeline.usecases.tasks.resumable_uploads import ResumableUploads

STATS_TTL_S = 1.0
"""Time for which a count of the queue is used before the database is queried again."""

FULL_RETRY_S = 30
"""``Retry-After`` of a task that is refused because the queue is full."""

TOUCHES_PER_ORPHAN_AGE = 5
"""Number of times that media being received is touched within the age at which orphans are deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A validated request for a transcription. The recording itself may be sent as bytes.

    ``link`` tells how to read ``file_url``; by default it is the URL of the recording itself.
    """

    options: TranscriptionOptions = field(default_factory=TranscriptionOptions)
    summary_options: SummaryOptions | None = None
    priority: Priority = Priority.NORMAL
    engine_name: EngineName = EngineName.FASTER_WHISPER
    platform: str | None = None
    callback_url: str | None = None
    file_url: str | None = None
    link: Link = field(default_factory=Link)
    awaited: bool = False
    """The task is deleted when its client stops waiting for it: see ``usecases.tasks.keepalive``."""


@dataclass(frozen=True, slots=True)
class ReceivedMedia:
    """A recording that was written to the media store. ``sha256`` (hex) is set if there is an idempotency key."""

    key: str
    file_name: str | None
    size_bytes: int
    sha256: str | None


def fingerprint(submission: Submission, media_sha256: str | None) -> str:
    """Return a SHA-256 (hex) of the submission and its recording, which does not depend on the file's name."""
    fields = asdict(submission) | {"options": submission.options.as_dict(), "media": media_sha256}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class Intake:
    """A task that is being submitted.

    ``Submitter.intake`` creates it, and deletes its media unless it becomes a task.
    """

    def __init__(self, submitter: Submitter, idempotency_key: str | None, client: Client | None) -> None:
        self.prefix = uuid.uuid4().hex
        self.media: ReceivedMedia | None = None
        self.wrote = False
        self.commit: asyncio.Task[tuple[Task, bool]] | None = None
        self._submitter = submitter
        self._key = idempotency_key
        self._client = client

    async def receive(self, data: AsyncIterator[bytes], file_name: str | None = None) -> ReceivedMedia:
        """Write the recording to the media store as its bytes arrive.

        Raises:
            SourceConflict: a recording was received before.
            SourceMissing: the recording is empty.
            UploadTooLarge: it has more bytes than the limit; the rest is not read.
        """
        if self.wrote:
            raise SourceConflict("Two files were sent: send one file a task.")
        self.wrote = True
        counter = _ByteCounter(self._submitter.max_upload_bytes, hashlib.sha256() if self._key else None)
        key = f"{self.prefix}/source"
        size_bytes = await self._submitter.media.write(key, counter.count(data))
        if not size_bytes:
            raise SourceMissing("The uploaded file is empty.")
        name = plain_file_name(file_name or "") or None
        self.media = ReceivedMedia(key, name, size_bytes, counter.digest.hexdigest() if counter.digest else None)
        return self.media

    def refuse_other_source(self, submission: Submission) -> None:
        """Raise ``SourceConflict`` if a recording or URL was sent together with the id of a resumable upload."""
        if self.wrote or submission.file_url is not None:
            raise SourceConflict("An upload_id was sent together with another source: send one of them.")

    async def create(self, submission: Submission) -> tuple[Task, bool]:
        """Create the task. Return it with ``True``, or the earlier task of its idempotency key with ``False``.

        Raises:
            SourceMissing: there is neither a recording nor a URL.
            SourceConflict: there are both.
            InvalidValue: there is a URL, and this deployment does not fetch recordings.
            UrlNotAllowed: the guard refuses a URL.
            LlmNotConfigured: a summary is requested, and no language model is configured.
            IdempotencyConflict: the idempotency key was used before, for another request.
            QuotaExceeded: the client may not have another task now.
            DatabaseUnavailable: nothing was stored.
        """
        if self.media is not None and submission.file_url is not None:
            raise SourceConflict("Both a file and file_url were sent: send one of them.")
        if self.media is None and submission.file_url is None:
            raise SourceMissing("There is nothing to transcribe: send a file as file_upload, or a file_url.")
        if submission.file_url is not None and not self._submitter.fetch_available:
            raise InvalidValue("This deployment does not fetch recordings: upload the file instead.", "file_url")
        self._submitter.check_summary(submission)
        await self._submitter.check_urls(submission)
        self.commit = asyncio.create_task(
            self._submitter.commit(self._new_task(submission), self._idempotency_claim(submission), self._client)
        )
        return await asyncio.shield(self.commit)  # a client that disconnects now must not interrupt the commit

    def _new_task(self, submission: Submission) -> NewTask:
        media = self.media
        return NewTask(
            media_prefix=self.prefix,
            options=submission.options,
            summary_options=submission.summary_options,
            priority=submission.priority,
            engine_name=submission.engine_name,
            platform=submission.platform,
            callback_url=submission.callback_url,
            file_url=submission.file_url,
            link=submission.link if submission.file_url else None,
            media_key=media.key if media else None,
            file_name=media.file_name if media else None,
            file_size_bytes=media.size_bytes if media else None,
            awaited_until=self._submitter.clock.now() + KEEPALIVE_TTL if submission.awaited else None,
            client=self._client.name if self._client else None,
        )

    def _idempotency_claim(self, submission: Submission) -> IdempotencyClaim | None:
        if self._key is None:
            return None
        key = f"{self._client.name} {self._key}" if self._client else self._key  # two clients may use the same key
        return IdempotencyClaim(key, fingerprint(submission, self.media.sha256 if self.media else None))


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
        self._llm = llm
        self._check_url = check_url
        self.fetch_available = fetch_available
        self.media = media
        self.max_upload_bytes = max_upload_bytes
        self._store = store
        self._wake = wake
        self.clock = clock
        self._max_queued_tasks = max_queued_tasks
        self._max_queued_audio_s = max_queued_audio_s
        self._touch_every_s = orphan_age_s / TOUCHES_PER_ORPHAN_AGE
        self._queued_tasks = 0
        self._queued_audio_s = 0.0
        self._counted_at = float("-inf")

    @asynccontextmanager
    async def intake(self, idempotency_key: str | None = None, client: Client | None = None) -> AsyncIterator[Intake]:
        """Open the submission of one task of the client. The checks here come before any byte is read.

        Raises:
            QueueFull: too many tasks wait already.
            QuotaExceeded: the client may not have another task now.
        """
        await self.check_room(client)
        intake = Intake(self, idempotency_key, client)
        touching = asyncio.create_task(self._touch_periodically(intake))
        try:
            yield intake
        finally:
            touching.cancel()
            if intake.wrote and not await _may_have_committed(intake.commit):
                await asyncio.shield(self.media.delete_prefix(intake.prefix))

    async def _touch_periodically(self, intake: Intake) -> None:
        """Touch the media at intervals, so that housekeeping does not delete it as an orphan during a slow upload."""
        loop = SupervisedLoop("upload_keepalive", "touching the media of an upload", self.clock, NullMetrics())
        while True:
            await self.clock.sleep(self._touch_every_s)
            if intake.wrote:
                await loop.attempt(lambda: self.media.touch(intake.prefix))

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

    def check_summary(self, submission: Submission) -> None:
        """Raise an error if the summary could not be written, rather than fail after the transcription."""
        if submission.summary_options is not None:
            chosen_model(self._llm, submission.summary_options.summary_model, own_key=False)

    async def check_urls(self, submission: Submission) -> None:
        """Raise ``UrlNotAllowed`` for a URL that the guard refuses. A host that can't be reached yet is accepted."""
        for field_name, url in (("callback_url", submission.callback_url), ("file_url", submission.file_url)):
            if url is not None:
                with suppress(SourceError):
                    await self._check_url(url, field_name)

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
            return _same_request(await self._store.get(upload.task_id), submission)
        key = idempotency_key or f"upload:{upload.id}"
        content = uploads.content(upload)
        task = await self.submit(submission, content, file_name=upload.file_name, idempotency_key=key, client=client)
        await uploads.close(upload, task.id)
        return task

    async def commit(
        self, new: NewTask, claim: IdempotencyClaim | None, client: Client | None = None
    ) -> tuple[Task, bool]:
        """Store the task's row and wake the Dispatcher."""
        task, is_new = await self._store.create(new, claim, client)
        if is_new:
            self._queued_tasks += 1
            await self._wake()
        return task, is_new

    async def check_room(self, client: Client | None = None) -> None:
        """Raise ``QueueFull`` or ``QuotaExceeded`` if the client may not submit another task now."""
        await self._check_queue()
        crowded = self._queued_tasks >= share_of(self._queued_tasks, self._max_queued_tasks)
        if client and (client.limited or crowded):
            load = await self._store.client_load(client.name)
            refuse_over_quota(client, load, self.clock.now())
            refuse_over_share(load, self._queued_tasks, self._max_queued_tasks)

    async def _check_queue(self) -> None:
        if self.clock.monotonic() - self._counted_at >= STATS_TTL_S:
            stats = await self._store.stats()
            self._queued_tasks, self._counted_at = sum(stats.queued_tasks.values()), self.clock.monotonic()
            self._queued_audio_s = stats.pending_audio_s
        if self._queued_tasks >= self._max_queued_tasks:
            raise QueueFull(
                f"{self._queued_tasks:,} tasks wait already, and the limit is {self._max_queued_tasks:,}: try later.",
                retry_after_s=FULL_RETRY_S,
            )
        if self._max_queued_audio_s is not None and self._queued_audio_s >= self._max_queued_audio_s:
            raise QueueFull(
                f"{self._queued_audio_s:,.0f} seconds of audio wait already, and the limit is "
                f"{self._max_queued_audio_s:,.0f}: try later.",
                retry_after_s=FULL_RETRY_S,
            )


class _ByteCounter:
    """A limit on the bytes of a stream, which also hashes them."""

    def __init__(self, limit_bytes: int, digest: hashlib._Hash | None) -> None:
        self.digest = digest
        self._limit_bytes = limit_bytes

    async def count(self, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        size_bytes = 0
        async for chunk in data:
            size_bytes += len(chunk)
            if size_bytes > self._limit_bytes:
                raise UploadTooLarge(
                    f"The file is too large: {size_bytes:,} bytes have arrived and the limit is {self._limit_bytes:,}."
                )
            if self.digest is not None:
                self.digest.update(chunk)
            yield chunk


def _same_request(task: Task, submission: Submission) -> Task:
    """Return the task. Raises ``IdempotencyConflict`` if the submission differs from it."""
    earlier = Submission(
        options=task.options,
        priority=task.priority,
        engine_name=task.engine_name,
        platform=task.platform,
        callback_url=task.callback_url,
        summary_options=task.summary_options,
    )
    if earlier != submission:
        raise IdempotencyConflict(
            f"This upload became task {task.id}, with other options: upload the file again to use new ones."
        )
    return task


async def _may_have_committed(commit: asyncio.Task[tuple[Task, bool]] | None) -> bool:
    """Wait for the commit, and return whether it created a task or may have done so.

    The media of a possible task is kept. If there is no task, housekeeping deletes it as an orphan.
    """
    if commit is None:
        return False
    await asyncio.wait([commit])
    if commit.cancelled():
        return False
    error = commit.exception()
    return isinstance(error, CommitUnanswered) if error else commit.result()[1]


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
