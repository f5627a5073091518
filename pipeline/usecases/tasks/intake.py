"""The intake of one task: a recording's bytes are written to the media store, then one row makes the task."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from pipeline.domain.tasks.client import Client
from pipeline.domain.tasks.submission import Submission, fingerprint
from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Task
from pipeline.domain.text.file_names import plain_file_name
from pipeline.errors import (
    CommitUnanswered,
    InvalidValue,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionRules:
    """The rules that a submission must meet in this deployment.

    Attributes:
        fetch_available: recordings can be fetched from a ``file_url``.
        check_url: called with a URL and its field's name; raises ``UrlNotAllowed`` if the guard refuses the URL.
        llm: the language model, if any, and the models that a request may name.
    """

    fetch_available: bool
    check_url: Callable[[str, str], Awaitable[None]]
    llm: LlmSettings

    async def check(self, submission: Submission) -> None:
        """Raise an error now rather than fail the task later.

        Raises:
            InvalidValue: there is a URL, and this deployment does not fetch recordings.
            LlmNotConfigured: a summary is requested, and no language model is configured.
            UrlNotAllowed: the guard refuses a URL. A host that can't be reached yet is accepted.
        """
        if submission.file_url is not None and not self.fetch_available:
            raise InvalidValue("This deployment does not fetch recordings: upload the file instead.", "file_url")
        if submission.summary_options is not None:
            chosen_model(self.llm, submission.summary_options.summary_model, own_key=False)
        for field_name, url in (("callback_url", submission.callback_url), ("file_url", submission.file_url)):
            if url is not None:
                with suppress(SourceError):
                    await self.check_url(url, field_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeContext:
    """The adapters and rules that all intakes share.

    Attributes:
        store: stores the row.
        media: stores the bytes.
        clock: tells how long a task is awaited, and times the touches.
        max_upload_bytes: size of the largest recording.
        rules: checked before a task is created.
        on_created: called after the commit of a new task.
    """

    store: TaskRecords
    media: MediaStore
    clock: Clock
    max_upload_bytes: int
    rules: SubmissionRules
    on_created: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ReceivedMedia:
    """A recording that was written to the media store. ``sha256`` (hex) is set if there is an idempotency key."""

    key: str
    file_name: str | None
    size_bytes: int
    sha256: str | None


class Intake:
    """A task that is being submitted.

    ``Submitter.intake`` creates it, and deletes its media unless it becomes a task.

    Attributes:
        prefix: media prefix of the task.
        media: the recording, once it is received.
        commit: the commit of the task's row, once it has begun.
    """

    def __init__(self, context: IntakeContext, idempotency_key: str | None, client: Client | None) -> None:
        self.prefix = uuid.uuid4().hex
        self.media: ReceivedMedia | None = None
        self.commit: asyncio.Task[tuple[Task, bool]] | None = None
        self._wrote = False
        self._context = context
        self._key = idempotency_key
        self._client = client

    async def receive(self, data: AsyncIterator[bytes], file_name: str | None = None) -> ReceivedMedia:
        """Write the recording to the media store as its bytes arrive.

        Raises:
            SourceConflict: a recording was received before.
            SourceMissing: the recording is empty.
            UploadTooLarge: it has more bytes than the limit; the rest is not read.
        """
        if self._wrote:
            raise SourceConflict("Two files were sent: send one file a task.")
        self._wrote = True
        counter = _ByteCounter(self._context.max_upload_bytes, hashlib.sha256() if self._key else None)
        key = f"{self.prefix}/source"
        size_bytes = await self._context.media.write(key, counter.count(data))
        if not size_bytes:
            raise SourceMissing("The uploaded file is empty.")
        name = plain_file_name(file_name or "") or None
        self.media = ReceivedMedia(key, name, size_bytes, counter.digest.hexdigest() if counter.digest else None)
        return self.media

    def refuse_other_source(self, submission: Submission) -> None:
        """Raise ``SourceConflict`` if a recording or URL was sent together with the id of a resumable upload."""
        if self._wrote or submission.file_url is not None:
            raise SourceConflict("An upload_id was sent together with another source: send one of them.")

    async def create(self, submission: Submission) -> tuple[Task, bool]:
        """Create the task. Return it with ``True``, or the earlier task of its idempotency key with ``False``.

        Raises:
            SourceMissing: there is neither a recording nor a URL.
            SourceConflict: there are both.
            InvalidValue, LlmNotConfigured, UrlNotAllowed: as in ``SubmissionRules.check``.
            IdempotencyConflict: the idempotency key was used before, for another request.
            QuotaExceeded: the client may not have another task now.
            DatabaseUnavailable: nothing was stored.
        """
        if self.media is not None and submission.file_url is not None:
            raise SourceConflict("Both a file and file_url were sent: send one of them.")
        if self.media is None and submission.file_url is None:
            raise SourceMissing("There is nothing to transcribe: send a file as file_upload, or a file_url.")
        await self._context.rules.check(submission)
        self.commit = asyncio.create_task(self._commit(submission))
        return await asyncio.shield(self.commit)  # a client that disconnects now must not interrupt the commit

    async def touch_periodically(self, interval_s: float) -> None:
        """Touch the media at intervals, so that housekeeping does not delete it as an orphan during a slow upload."""
        loop = SupervisedLoop("upload_keepalive", "touching the media of an upload", self._context.clock, NullMetrics())
        while True:
            await self._context.clock.sleep(interval_s)
            if self._wrote:
                await loop.attempt(lambda: self._context.media.touch(self.prefix))

    async def delete_media_without_task(self) -> None:
        """Delete what was received, unless a task was created or may have been."""
        if self._wrote and not await self._may_have_committed():
            await asyncio.shield(self._context.media.delete_prefix(self.prefix))

    async def _may_have_committed(self) -> bool:
        """Wait for the commit, and return whether it created a task or may have done so.

        The media of a possible task is kept. If there is no task, housekeeping deletes it as an orphan.
        """
        if self.commit is None:
            return False
        await asyncio.wait([self.commit])
        if self.commit.cancelled():
            return False
        error = self.commit.exception()
        return isinstance(error, CommitUnanswered) if error else self.commit.result()[1]

    async def _commit(self, submission: Submission) -> tuple[Task, bool]:
        claim = self._idempotency_claim(submission)
        task, is_new = await self._context.store.create(self._new_task(submission), claim, self._client)
        if is_new:
            await self._context.on_created()
        return task, is_new

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
            awaited_until=self._context.clock.now() + KEEPALIVE_TTL if submission.awaited else None,
            client=self._client.name if self._client else None,
        )

    def _idempotency_claim(self, submission: Submission) -> IdempotencyClaim | None:
        if self._key is None:
            return None
        key = f"{self._client.name} {self._key}" if self._client else self._key  # two clients may use the same key
        return IdempotencyClaim(key, fingerprint(submission, self.media.sha256 if self.media else None))


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
