"""Splitting of recordings: one pass turns a recording in the media store into prepared audio there, and chunks."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import BinaryIO

from typing_extensions import override

from pipeline.domain.audio.chunking import ChunkPlanner, PackedSpans
from pipeline.domain.audio.sound_options import SoundOptions
from pipeline.domain.audio.spans import BYTES_PER_SAMPLE, Chunk, Span, part_key, to_samples, to_seconds
from pipeline.domain.audio.speech import UNBOUNDED, Framer, Samples, Scores, SpeechRules, requested_spans
from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest, share_key
from pipeline.errors import MediaUndecodable
from pipeline.fair_slots import FairSlots, SlicedWork
from pipeline.media.recording_decoder import RecordingDecoder
from pipeline.media.speech_finder import DetectedSpeech, RequestedSpeech, SpeechFinder, VoiceActivity
from pipeline.ports import Clock, MediaStore, SplitDone, SplitPart, SplitRequest, Splitter
from pipeline.settings import SplitSettings, VadSettings
from pipeline.system_clock import SystemClock
from pipeline.worker_threads import in_worker

FIRST_PART_S = 30.0
"""Length of the first part. Each further part is twice as long, up to the setting: transcribing starts early."""

WRITE_BLOCK_BYTES = 1024 * 1024


class StreamingSplitter(Splitter):
    """A splitter that decodes, finds speech and cuts block by block, in worker threads.

    Any number of recordings can be open at a time; they take turns, one block each. The highest priority goes first,
    clients share the time evenly, and among one client's recordings the one that has used the least time goes first.
    A waiting recording holds about 25 MB, including its decoder's process.

    A resumed split decodes the recording from its start again, since the detector's probabilities depend on all the
    audio before. Only so do the parts after ``resume_at`` equal those of an uninterrupted run.

    Args:
        store: the media store, for reading recordings and writing prepared audio.
        make_vad: makes a voice activity detector for one recording; called in a worker thread.
        vad: thresholds of speech, unless a task has its own.
        split: length of parts, and number of recordings worked on at a time.
        make_decoder: makes a decoder for an open recording with its sound options; called in a worker thread.
        clock: measures the time that blocks take.
    """

    def __init__(
        self,
        store: MediaStore,
        make_vad: Callable[[], VoiceActivity],
        vad: VadSettings,
        split: SplitSettings,
        make_decoder: Callable[[BinaryIO, SoundOptions], RecordingDecoder],
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._make_vad = make_vad
        self._vad = vad
        self._split = split
        self._make_decoder = make_decoder
        self._clock = clock or SystemClock()
        self._turns = FairSlots(SlotLimits(split.concurrency or _default_concurrency()), self._clock)

    @override
    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        """Yield parts in order, each stored before it is yielded, then one ``SplitDone``.

        Raises:
            MediaError: the recording can't be transcribed; the caller discards the parts yielded before.
            DecoderCrashed: the process that decoded it died.
            StorageFull: there is no room for the prepared audio.
        """
        preparation = _Preparation(_PartCollector(request, self._split.part_s))
        slices = SlicedWork(self._turns, _turn_request(request), self._clock)
        # One thread for the whole recording, since every thread's heap keeps blocks of its own (50 MB over an hour).
        with ThreadPoolExecutor(1, "split") as worker:
            try:
                await slices.run(lambda: in_worker(worker, self._begin, preparation, request))
                while not preparation.done:
                    prepared = await slices.run(lambda: in_worker(worker, preparation.advance))
                    if prepared is not None:
                        key = part_key(request.media_prefix, prepared.part.part)
                        await self._store.write(key, _cut_into_blocks(prepared.pcm))
                        yield prepared.part
            finally:
                await in_worker(worker, preparation.close)
        yield SplitDone(
            duration_s=to_seconds(preparation.total),
            truncated=preparation.truncated,
            tracks=preparation.tracks,
        )

    def _begin(self, preparation: _Preparation, request: SplitRequest) -> None:
        speech = self._speech(request.options)
        try:
            file = self._store.open(request.media_key)
        except FileNotFoundError as error:
            raise MediaUndecodable("The recording is no longer in the media store.") from error
        preparation.begin(file, self._make_decoder(file, request.options.sound), speech)

    def _speech(self, options: TranscriptionOptions) -> SpeechFinder:
        if options.has_clips:
            return RequestedSpeech(requested_spans(options.clip_timestamps))
        if not options.vad_filter:
            return RequestedSpeech([Span(0, UNBOUNDED)])
        return DetectedSpeech(self._make_vad(), SpeechRules.from_ms(**self._vad.model_dump() | options.vad_options))


@dataclass(frozen=True, slots=True)
class _PreparedPart:
    part: SplitPart
    pcm: bytes


class _Preparation:
    """A recording that is being split. Every method blocks, for one block of audio at most."""

    def __init__(self, parts: _PartCollector) -> None:
        self._parts = parts
        self._framer = Framer()
        self._opened = ExitStack()
        self.total = 0
        self.truncated = False
        self.tracks: tuple[Track, ...] = ()
        self.done = False

    def begin(self, file: BinaryIO, decoder: RecordingDecoder, speech: SpeechFinder) -> None:
        """Start decoding; from now on ``close`` closes the file."""
        self._opened.callback(file.close)
        self._decoder = decoder
        self._speech = speech
        self._blocks = self._opened.enter_context(closing(decoder.blocks()))

    def advance(self) -> _PreparedPart | None:
        """Process the next block, or the end; return a part if one has become complete."""
        block = next(self._blocks, None)
        if block is None:
            self.done, self.truncated, self.tracks = True, self._decoder.truncated, self._decoder.tracks
            self._parts.add_speech(*self._speech.finish(self._framer.finish(), self.total), settled=self.total)
            return self._parts.finish(self.total)
        self.total += len(block)
        self._parts.add_audio(block)
        self._parts.add_speech(*self._speech.feed(self._framer.feed(block)), settled=self._speech.settled)
        return self._parts.complete(self._speech.settled)

    def close(self) -> None:
        """Close the decoder and the file, if they were opened."""
        self._opened.close()


class _PartCollector:
    """The parts of one recording, as they are collected; they tile the timeline.

    A part ends where no speech waits for its chunk, so that no chunk crosses the end of its part.
    """

    def __init__(self, request: SplitRequest, part_s: float) -> None:
        self._planner = ChunkPlanner(to_samples(request.max_chunk_s), start=request.resume_at)
        self._longest = to_samples(part_s)
        self._part = request.first_part
        self._next_chunk = request.first_chunk
        self._start = request.resume_at
        self._skip = request.resume_at  # samples that are in parts of an earlier run
        self._pcm = bytearray()
        self._chunks: list[PackedSpans] = []

    def add_audio(self, block: Samples) -> None:
        """Add the next samples of the timeline."""
        skipped = min(self._skip, len(block))
        self._skip -= skipped
        self._pcm += block[skipped:].astype("<i2").tobytes()

    def add_speech(self, spans: list[Span], scores: Scores, settled: int) -> None:
        """Add the speech spans and scores found since the last call; no further span begins before ``settled``."""
        self._chunks += self._planner.add(spans, scores, settled)

    def complete(self, settled: int) -> _PreparedPart | None:
        """Return the current part if it is long enough up to the sample before which no further speech can begin."""
        waiting = self._planner.pending_start
        end = settled if waiting is None else waiting
        length = min(self._longest, to_samples(FIRST_PART_S) * 2 ** min(self._part, 16))
        return self._close(end) if end - self._start >= length else None

    def finish(self, total: int) -> _PreparedPart | None:
        """Return the last part, which ends with the recording; ``None`` if nothing is left."""
        self._chunks += self._planner.finish()
        return self._close(total) if total > self._start else None

    def _close(self, end: int) -> _PreparedPart:
        chunks = tuple(
            Chunk(index, self._part, self._start, spans) for index, spans in enumerate(self._chunks, self._next_chunk)
        )
        size = (end - self._start) * BYTES_PER_SAMPLE
        prepared = _PreparedPart(SplitPart(self._part, self._start, end, chunks), bytes(self._pcm[:size]))
        del self._pcm[:size]
        self._part += 1
        self._next_chunk += len(chunks)
        self._start = end
        self._chunks = []
        return prepared


def _default_concurrency() -> int:
    """Return half of the cores, since each block in progress uses two: a decoder's process and a thread of ours."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


def _turn_request(request: SplitRequest) -> TurnRequest:
    return TurnRequest(request.share_key or share_key(request.task_id, None), request.priority_rank)


async def _cut_into_blocks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), WRITE_BLOCK_BYTES):
        yield content[start : start + WRITE_BLOCK_BYTES]
