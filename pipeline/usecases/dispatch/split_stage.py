"""The splitting of a claimed task's recording, part by part, with pauses while other tasks use the slot."""

from __future__ import annotations

import logging
from contextlib import aclosing

from pipeline.domain.audio.spans import to_seconds
from pipeline.domain.decoding.decoding_cost import charged_audio_s
from pipeline.domain.scheduling.fair_queue import TurnRequest, share_key
from pipeline.domain.scheduling.split_pause import may_pause
from pipeline.domain.tasks.client import AudioCharge
from pipeline.domain.tasks.task import Stage
from pipeline.errors import MurmurationError, ReplicaLost
from pipeline.ports import SplitDone, SplitPart, SplitRequest, StoredChunks
from pipeline.usecases.dispatch.attempt_context import AttemptContext
from pipeline.usecases.dispatch.claimed_task import ClaimedTask
from pipeline.usecases.dispatch.task_decoding import TaskDecoding

logger = logging.getLogger(__name__)


class SplitStage:
    """The stage in which a recording becomes prepared audio and chunks; each part is stored before the next.

    Args:
        context: the adapters and settings.
        task: the claimed task.
        decoding: receives the chunks of each part as soon as it is stored.
    """

    def __init__(self, context: AttemptContext, task: ClaimedTask, decoding: TaskDecoding) -> None:
        self._context = context
        self._task = task
        self._decoding = decoding

    async def run(self, stored: StoredChunks) -> None:
        """Split the recording from the end of the stored parts, with pauses while other tasks use the slot."""
        remaining: SplitRequest | None = self._request(stored)
        while remaining is not None:
            remaining = await self._split_until_preempted(remaining)

    def _request(self, stored: StoredChunks) -> SplitRequest:
        record = self._task.record
        if record.media_key is None:
            raise MurmurationError("The task has no recording.")
        return SplitRequest(
            task_id=record.id,
            media_key=record.media_key,
            media_prefix=record.media_prefix,
            options=record.options,
            max_chunk_s=self._context.settings.split.max_chunk_s,
            first_part=len(stored.parts),
            first_chunk=len(stored.chunks),
            resume_at=stored.parts[-1][2] if stored.parts else 0,
            priority_rank=record.priority.rank,
            share_key=share_key(record.id, record.client),
        )

    async def _split_until_preempted(self, request: SplitRequest) -> SplitRequest | None:
        """Split until the end, or until another task should have the slot.

        Return the request for the rest, or ``None`` at the end.
        """
        began_at, remaining, task_id = request.resume_at, request, self._task.record.id
        turn = TurnRequest(request.share_key, request.priority_rank, size=self._size(request))
        async with (
            self._context.split_slots.turn(task_id, turn) as slot,
            aclosing(self._context.splitter.split(request)) as events,
        ):
            async for event in events:
                if isinstance(event, SplitDone):
                    await self._store_end(event)
                    return None
                await self._store_part(event)
                remaining = remaining.after(event)
                if may_pause(began_at, remaining.resume_at) and slot.should_yield(remaining.resume_at):
                    logger.info("a split pauses so that another can run", extra={"task_id": task_id})
                    return remaining
        raise ReplicaLost("The Splitter's stream ended before the recording did.")

    def _size(self, request: SplitRequest) -> int:
        """Estimate the samples to be decoded, at one sample a byte, which is 128 kbit/s."""
        return max(request.resume_at, self._task.record.file_size_bytes or 0)

    async def _store_part(self, part: SplitPart) -> None:
        record = self._task.record
        audio_s = charged_audio_s(to_seconds(part.end - part.start), record.options)
        charge = AudioCharge(audio_s, self._context.max_audio_s(record.client))
        position = (part.part, part.start, part.end)
        await self._task.store_progress(
            lambda: self._context.store.add_part(self._task.lease, *position, part.chunks, charge)
        )
        self._context.scheduler.add(self._decoding, part.chunks)
        self._task.report_change()

    async def _store_end(self, done: SplitDone) -> None:
        await self._task.update(
            split_done=True,
            file_duration_s=done.duration_s,
            truncated=done.truncated,
            tracks=done.tracks,
            stage=Stage.TRANSCRIBING,
        )
