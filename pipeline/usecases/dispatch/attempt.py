"""One attempt at one task: prepared audio, chunks, results, transcript. Each step is stored before the next begins.

An attempt continues from what earlier attempts have stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.domain.audio.spans import prepared_prefix
from pipeline.domain.decoding.quality_gate import next_prompt
from pipeline.domain.decoding.stitching import stitch
from pipeline.domain.decoding.transcript import ChunkResult, Transcript
from pipeline.domain.tasks.client import refuse_more_audio
from pipeline.domain.tasks.lifecycle import was_transcribed_under
from pipeline.domain.tasks.task import Stage, Task
from pipeline.errors import LeaseLost, QuotaExceeded
from pipeline.ports import Lease, StoredChunks
from pipeline.usecases.dispatch.attempt_context import AttemptContext
from pipeline.usecases.dispatch.claimed_task import ClaimedTask
from pipeline.usecases.dispatch.split_stage import SplitStage
from pipeline.usecases.dispatch.task_decoding import TaskDecoding

logger = logging.getLogger(__name__)


class Attempt:
    """One run of a claimed task.

    Args:
        context: the adapters and settings.
        task: the task's record at the claim.

    Attributes:
        stage_s: duration of each stage, in seconds.
    """

    def __init__(self, context: AttemptContext, task: Task) -> None:
        self.stage_s: dict[str, float] = {}
        self._context = context
        self._task = ClaimedTask(task, context.store, context.clock, context.on_changed)
        self._results: dict[int, ChunkResult] = {}  # by index, including those of earlier attempts

    @property
    def task(self) -> Task:
        """The task's record, as last stored."""
        return self._task.record

    @property
    def lease(self) -> Lease:
        """The lease of the claim, for writes to the task."""
        return self._task.lease

    @property
    def failures(self) -> int:
        """Number of failed attempts in a row without progress, not counting this one; 0 once it has made progress."""
        return self._task.failures

    @property
    def audio_s(self) -> float:
        """Seconds of audio with a result."""
        return sum(result.audio_s for result in self._results.values())

    async def run(self) -> Task:
        """Transcribe the recording, store the transcript, and return the task.

        Raises:
            LeaseLost: another owner has the task now, or it was cancelled or deleted.
            MurmurationError: the attempt failed; the error is the reason.
        """
        stored = await self._task.call(lambda: self._context.store.chunks(self.task.id))
        self._results = {result.index: result for result in stored.results}
        decoding = self._decoding()
        self._context.scheduler.open(decoding, self._max_in_flight(decoding))
        try:
            missing = [chunk for chunk in stored.chunks if chunk.index not in self._results]
            self._context.scheduler.add(decoding, missing)
            await _run_all(self._prepare_and_wait(decoding, stored), decoding.done)
        finally:
            self._context.scheduler.close(self.task.id)
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
        for index in sorted(self._results):
            decoding.previous_tokens = self._prompt_after(decoding, self._results[index])
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
            await SplitStage(self._context, self._task, decoding).run(stored)

    async def _transcribe(self, decoding: TaskDecoding) -> None:
        """Wait until all chunks are decoded and stored."""
        decoding.complete_input()
        with self._timed(Stage.TRANSCRIBING):
            await asyncio.shield(decoding.done)

    async def _fetch(self) -> None:
        media_key, media = await self._context.fetcher.fetch(self.task)
        record = media.record
        if record is not None and self.task.link is not None and self.task.link.keep_record:
            await self._task.call(lambda: self._context.store.save_crawl_record(self.lease, record))
        await self._task.update(
            media_key=media_key,
            file_name=media.file_name,
            file_size_bytes=media.size_bytes,
            platform=self.task.platform or media.platform,
            stage=Stage.SPLITTING,
        )

    async def _check_quota(self) -> None:
        """Raise ``QuotaExceeded`` if the client's audio is used up, before the recording is fetched and decoded.

        The audio is charged part by part later.
        """
        client, max_audio_s = self.task.client, self._context.max_audio_s(self.task.client)
        if client is not None and max_audio_s is not None:
            load = await self._task.call(lambda: self._context.store.client_load(client))
            refuse_more_audio(max_audio_s, load, self._context.clock.now())

    async def _store_results(self, decoding: TaskDecoding, results: Sequence[ChunkResult]) -> None:
        """Store results, unless they are the last ones of a task: those are stored with the transcript."""
        self._results.update((result.index, result) for result in results)
        if self.task.split_done and decoding.outstanding == len(results):
            return
        await self._task.store_progress(lambda: self._context.store.save_results(self.lease, results))
        for result in results:
            decoding.previous_tokens = self._prompt_after(decoding, result)
        await self._fix_language(decoding, results)
        self._task.report_change()

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
            await self._task.update(language=first_detection.language, language_probability=first_detection.probability)
        if not self.task.options.multilingual:
            decoding.language = first_detection.language
            self._context.scheduler.limit(self.task.id, self._max_in_flight(decoding))

    async def _finish(self) -> Task:
        with self._timed(Stage.FINISHING):
            task = await self._complete(self._transcript())
            self._context.on_finished(task.id)
            if not self._context.settings.media.keep_source:
                await self.drop_media()
        return task

    async def _complete(self, transcript: Transcript) -> Task:
        try:
            return await self._task.call(lambda: self._context.store.complete(self.lease, transcript))
        except LeaseLost:
            # The connection may have broken after the commit, and the retry then finds the lease gone.
            task = await self._task.call(lambda: self._context.store.get(self.task.id))
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
            await self._context.media.delete_prefix(prefix)
        except OSError:
            logger.exception("media could not be deleted", extra={"task_id": self.task.id})

    def _transcript(self) -> Transcript:
        return stitch(
            [self._results[index] for index in sorted(self._results)],
            options=self.task.options,
            duration_s=self.task.file_duration_s or 0.0,
            vad_options=self._vad_options(),
            tracks=self.task.tracks,
        )

    def _vad_options(self) -> dict[str, Any]:
        """Return the options used, by the names of faster-whisper's ``VadOptions``; empty if VAD was not used."""
        if not self.task.options.uses_vad:
            return {}
        settings = self._context.settings
        vad_options = settings.vad.model_dump() | self.task.options.vad_options
        return vad_options | {"max_speech_duration_s": settings.split.max_chunk_s}

    @contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        started_at = self._context.clock.monotonic()
        try:
            yield
        finally:
            self.stage_s[stage] = self._context.clock.monotonic() - started_at


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
