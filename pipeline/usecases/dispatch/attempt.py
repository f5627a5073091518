"""One attempt at one task: prepared audio, chunks, results, transcript. Each step is stored before the next begins.

An attempt continues from what earlier attempts have stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pipeline.domain.audio.spans import prepared_prefix, to_seconds
from pipeline.domain.decoding.decoding_cost import charged_audio_s
from pipeline.domain.decoding.quality_gate import next_prompt
from pipeline.domain.decoding.stitching import stitch
from pipeline.domain.decoding.transcript import ChunkResult, Transcript
from pipeline.domain.scheduling.fair_queue import TurnRequest, share_key
from pipeline.domain.tasks.client import AudioCharge, refuse_more_audio
from pipeline.domain.tasks.task import Stage, Status, Task
from pipeline.errors import LeaseLost, MurmurationError, QuotaExceeded, ReplicaLost
from pipeline.ports import (
    Clock,
    Lease,
    MediaStore,
    SplitDone,
    SplitPart,
    SplitRequest,
    Splitter,
    StoredChunks,
    TaskStore,
)
from pipeline.settings import Settings
from pipeline.usecases.dispatch.chunk_scheduler import ChunkScheduler
from pipeline.usecases.dispatch.fetcher import Fetcher
from pipeline.usecases.dispatch.resumable_splitter import may_pause
from pipeline.usecases.dispatch.task_decoding import TaskDecoding
from pipeline.usecases.dispatch.task_slots import TaskSlots
from pipeline.usecases.outage_retry import retry_until_available

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class AttemptContext:
    """The adapters and settings that all attempts share.

    Attributes:
        audio_limits: seconds of audio that a client may use in 24 hours, by client name; clients without a limit are
            absent.
        on_changed: called with the task's id whenever its record changes, to wake its watchers.
        on_finished: called with the task's id as soon as the transcript is stored, before media is deleted.
        split_slots: slots for concurrent splits.
    """

    store: TaskStore
    media: MediaStore
    fetcher: Fetcher
    splitter: Splitter
    scheduler: ChunkScheduler
    clock: Clock
    settings: Settings
    audio_limits: Mapping[str, float]
    on_changed: Callable[[int], None]
    on_finished: Callable[[int], None]
    split_slots: TaskSlots


@dataclass(slots=True)
class Attempt:
    """One run of a claimed task.

    Attributes:
        context: the adapters and settings.
        task: the task's record, as last stored.
        results: results of the task's chunks by index, including those of earlier attempts.
        progressed: this attempt has stored a part or a result.
        stage_s: duration of each stage, in seconds.
    """

    context: AttemptContext
    task: Task
    results: dict[int, ChunkResult] = field(default_factory=dict)
    progressed: bool = False
    stage_s: dict[str, float] = field(default_factory=dict)

    @property
    def lease(self) -> Lease:
        """The lease of the claim, for writes to the task."""
        return Lease(self.task.id, self.task.fence)

    @property
    def failures(self) -> int:
        """Number of failed attempts in a row without progress, not counting this one; 0 once it has made progress."""
        return 0 if self.progressed else self.task.failures

    @property
    def audio_s(self) -> float:
        """Seconds of audio with a result."""
        return sum(result.audio_s for result in self.results.values())

    async def run(self) -> Task:
        """Transcribe the recording, store the transcript, and return the task.

        Raises:
            LeaseLost: another owner has the task now, or it was cancelled or deleted.
            MurmurationError: the attempt failed; the error is the reason.
        """
        stored = await self._retry_until_available(lambda: self.context.store.chunks(self.task.id))
        self.results = {result.index: result for result in stored.results}
        decoding = self._decoding()
        self.context.scheduler.open(decoding, self._max_in_flight(decoding))
        try:
            self.context.scheduler.add(decoding, [chunk for chunk in stored.chunks if chunk.index not in self.results])
            await _run_all(self._prepare_and_wait(decoding, stored), decoding.done)
        finally:
            self.context.scheduler.close(self.task.id)
        return await self._finish()

    def _decoding(self) -> TaskDecoding:
        decoding = TaskDecoding(
            task_id=self.task.id,
            media_prefix=self.task.media_prefix,
            options=self.task.options,
            priority_rank=self.task.priority.rank,
            client=self.task.client,
            language=None if self.task.options.multilingual else self.task.language,
            deliver=lambda results: self._store_results(decoding, results),
        )
        for index in sorted(self.results):
            decoding.previous_tokens = self._prompt_after(decoding, self.results[index])
        return decoding

    def _max_in_flight(self, decoding: TaskDecoding) -> int | None:
        """Return the number of chunks that may be at replicas at once; ``None``: no limit.

        It is 1 if a chunk is prompted with the text before it, and until the language is detected.
        """
        if self.task.options.condition_on_previous_text:
            return 1
        return 1 if decoding.language is None and not self.task.options.multilingual else None

    async def _prepare_and_wait(self, decoding: TaskDecoding, stored: StoredChunks) -> None:
        try:
            if not self.task.split_done:
                await self._prepare(decoding, stored)
        except QuotaExceeded:
            await self._transcribe(decoding)  # finish the parts that were charged to the client already
            raise
        await self._transcribe(decoding)

    async def _prepare(self, decoding: TaskDecoding, stored: StoredChunks) -> None:
        await self._check_quota()
        if self.task.media_key is None:
            with self._timed(Stage.FETCHING):
                await self._fetch()
        with self._timed(Stage.SPLITTING):
            await self._split(decoding, stored)

    async def _transcribe(self, decoding: TaskDecoding) -> None:
        """Wait until all chunks are decoded and stored."""
        decoding.complete_input()
        with self._timed(Stage.TRANSCRIBING):
            await asyncio.shield(decoding.done)

    async def _fetch(self) -> None:
        media_key, media = await self.context.fetcher.fetch(self.task)
        record = media.record
        if record is not None and self.task.link is not None and self.task.link.keep_record:
            await self._retry_until_available(lambda: self.context.store.save_crawl_record(self.lease, record))
        await self._update(
            media_key=media_key,
            file_name=media.file_name,
            file_size_bytes=media.size_bytes,
            platform=self.task.platform or media.platform,
            stage=Stage.SPLITTING,
        )

    async def _split(self, decoding: TaskDecoding, stored: StoredChunks) -> None:
        """Split the recording, with interruptions while other tasks use the slot."""
        remaining: SplitRequest | None = self._split_request(stored)
        while remaining is not None:
            remaining = await self._split_until_preempted(decoding, remaining)

    async def _split_until_preempted(self, decoding: TaskDecoding, request: SplitRequest) -> SplitRequest | None:
        """Split until the end, or until another task should have the slot.

        Return the request for the rest, or ``None`` at the end.
        """
        began_at, remaining = request.resume_at, request
        turn = TurnRequest(request.share_key, request.priority_rank, size=self._split_size(request))
        async with (
            self.context.split_slots.turn(self.task.id, turn) as slot,
            aclosing(self.context.splitter.split(request)) as events,
        ):
            async for event in events:
                if isinstance(event, SplitDone):
                    await self._split_done(event)
                    return None
                await self._store_part(decoding, event)
                remaining = remaining.after(event)
                if may_pause(began_at, remaining.resume_at) and slot.should_yield(remaining.resume_at):
                    logger.info("a split pauses so that another can run", extra={"task_id": self.task.id})
                    return remaining
        raise ReplicaLost("The Splitter's stream ended before the recording did.")

    def _split_size(self, request: SplitRequest) -> int:
        """Estimate the samples to be decoded, at one sample a byte, which is 128 kbit/s."""
        return max(request.resume_at, self.task.file_size_bytes or 0)

    @property
    def _max_audio_s(self) -> float | None:
        """The audio limit of the task's client, in seconds; ``None`` without a limit."""
        return self.context.audio_limits.get(self.task.client or "")

    async def _check_quota(self) -> None:
        """Raise ``QuotaExceeded`` if the client's audio is used up, before the recording is fetched and decoded.

        The audio is charged part by part later.
        """
        if self.task.client is not None and self._max_audio_s is not None:
            client = self.task.client
            load = await self._retry_until_available(lambda: self.context.store.client_load(client))
            refuse_more_audio(self._max_audio_s, load, self.context.clock.now())

    def _split_request(self, stored: StoredChunks) -> SplitRequest:
        if self.task.media_key is None:
            raise MurmurationError("The task has no recording.")
        return SplitRequest(
            task_id=self.task.id,
            media_key=self.task.media_key,
            media_prefix=self.task.media_prefix,
            options=self.task.options,
            max_chunk_s=self.context.settings.split.max_chunk_s,
            first_part=len(stored.parts),
            first_chunk=len(stored.chunks),
            resume_at=stored.parts[-1][2] if stored.parts else 0,
            priority_rank=self.task.priority.rank,
            share_key=share_key(self.task.id, self.task.client),
        )

    async def _store_part(self, decoding: TaskDecoding, part: SplitPart) -> None:
        charge = AudioCharge(charged_audio_s(to_seconds(part.end - part.start), self.task.options), self._max_audio_s)
        position = (part.part, part.start, part.end)
        await self._retry_until_available(
            lambda: self.context.store.add_part(self.lease, *position, part.chunks, charge)
        )
        self.progressed = True
        self.context.scheduler.add(decoding, part.chunks)
        self.context.on_changed(self.task.id)

    async def _split_done(self, done: SplitDone) -> None:
        await self._update(
            split_done=True,
            file_duration_s=done.duration_s,
            truncated=done.truncated,
            tracks=done.tracks,
            stage=Stage.TRANSCRIBING,
        )

    async def _store_results(self, decoding: TaskDecoding, results: Sequence[ChunkResult]) -> None:
        await self._retry_until_available(lambda: self.context.store.save_results(self.lease, results))
        self.progressed = True
        self.results.update((result.index, result) for result in results)
        for result in results:
            decoding.previous_tokens = self._prompt_after(decoding, result)
        await self._fix_language(decoding, results)
        self.context.on_changed(self.task.id)

    def _prompt_after(self, decoding: TaskDecoding, result: ChunkResult) -> tuple[int, ...]:
        if not self.task.options.condition_on_previous_text:
            return ()
        return next_prompt(decoding.previous_tokens, result, self.task.options.temperature)

    async def _fix_language(self, decoding: TaskDecoding, results: Sequence[ChunkResult]) -> None:
        """Set the task's language to that of its first speech, and lift the limit on the other chunks."""
        first_detection = next((result.detection for result in results if result.detection and result.segments), None)
        if first_detection is None or decoding.language is not None:
            return
        if self.task.language is None:
            await self._update(language=first_detection.language, language_probability=first_detection.probability)
        if not self.task.options.multilingual:
            decoding.language = first_detection.language
            self.context.scheduler.limit(self.task.id, self._max_in_flight(decoding))

    async def _finish(self) -> Task:
        with self._timed(Stage.FINISHING):
            task = await self._complete(self._transcript())
            self.context.on_finished(task.id)
            if not self.context.settings.media.keep_source:
                await self.drop_media()
        return task

    async def _complete(self, transcript: Transcript) -> Task:
        try:
            return await self._retry_until_available(lambda: self.context.store.complete(self.lease, transcript))
        except LeaseLost:
            # The connection may have broken after the commit, and the retry then finds the lease gone.
            task = await self._retry_until_available(lambda: self.context.store.get(self.task.id))
            if not was_transcribed_under(self.task.fence, task):
                raise
            return task

    async def drop_media(self) -> None:
        """Delete the recording and its prepared audio. A failure is logged, and housekeeping deletes them later."""
        await self._delete(self.task.media_prefix)

    async def drop_prepared(self) -> None:
        """Delete the prepared audio and keep the recording. A failure is logged."""
        await self._delete(prepared_prefix(self.task.media_prefix))

    async def _delete(self, prefix: str) -> None:
        try:
            await self.context.media.delete_prefix(prefix)
        except OSError:
            logger.exception("media could not be deleted", extra={"task_id": self.task.id})

    def _transcript(self) -> Transcript:
        return stitch(
            [self.results[index] for index in sorted(self.results)],
            options=self.task.options,
            duration_s=self.task.file_duration_s or 0.0,
            vad_options=self._vad_options(),
            tracks=self.task.tracks,
        )

    def _vad_options(self) -> dict[str, Any]:
        """Return the options used, by the names of faster-whisper's ``VadOptions``; empty if VAD was not used."""
        if not self.task.options.uses_vad:
            return {}
        settings = self.context.settings
        vad_options = settings.vad.model_dump() | self.task.options.vad_options
        return vad_options | {"max_speech_duration_s": settings.split.max_chunk_s}

    @contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        started_at = self.context.clock.monotonic()
        try:
            yield
        finally:
            self.stage_s[stage] = self.context.clock.monotonic() - started_at

    async def _update(self, **changes: Any) -> None:
        await self._retry_until_available(lambda: self.context.store.update(self.lease, **changes))
        self.task = replace(self.task, **changes)
        self.context.on_changed(self.task.id)

    async def _retry_until_available(self, call: Callable[[], Awaitable[Result]]) -> Result:
        return await retry_until_available(call, self.context.clock)


def was_transcribed_under(fence: int, task: Task) -> bool:
    """Return whether the task's transcript was stored under this fence: it is completed, or lacks only its summary."""
    if task.stage is Stage.SUMMARIZING:  # entering that stage raises the fence once
        return task.fence == fence + 1
    return task.status is Status.COMPLETED and task.fence == fence


async def _run_all(*awaitables: Awaitable[None]) -> None:
    """Wait for all of them; cancel the others at the first error and raise it."""
    futures = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)
