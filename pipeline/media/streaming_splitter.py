"""The splitter: a recording from the MediaStore → prepared audio in the MediaStore, and chunks, in one pass."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from pipeline.domain.audio.chunking import ChunkPlanner, PackedSpans
from pipeline.domain.audio.sound_options import SoundOptions
from pipeline.domain.audio.spans import BYTES_PER_SAMPLE, Chunk, Span, part_key, to_samples, to_seconds
from pipeline.domain.audio.speech import UNBOUNDED, Framer, Samples, Scores, SpeechRules, requested_spans
from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest, share_key
from pipeline.errors import MediaUndecodable
from pipeline.fair_slots import FairSlots, SlicedWork
from pipeline.media.speech_finder import DetectedSpeech, RequestedSpeech, SpeechFinder, VoiceActivity
from pipeline.ports import Clock, MediaStore, SplitDone, SplitPart, SplitRequest
from pipeline.settings import SplitSettings, VadSettings
from pipeline.system_clock import SystemClock
from pipeline.worker_threads import in_worker

FIRST_PART_S = 30.0
"""Length of the first part; each one after is twice as long, up to the setting, so that decoding starts early."""

WRITE_BLOCK_BYTES = 1024 * 1024


class Decoder(Protocol):
    """Decodes one recording; see ``decode.AudioDecoder``."""

    truncated: bool
    tracks: tuple[Track, ...]

    def blocks(self) -> Generator[Samples]:
        """16 kHz mono, block by block."""
        ...


class StreamingSplitter:
    """A ``Splitter`` that decodes, listens and cuts block by block, in worker threads.

    Any number of recordings are open at a time, and take turns for each block: an urgent one is next, clients share the
    time evenly, and of one client's recordings the one that has taken least goes first. A recording that waits for its
    turn holds some 25 MB, its decoder's process included.

    A split that is resumed decodes the recording from its start again, since what the detector hears depends on all it
    heard before; only then are the parts after ``resume_at`` those of an uninterrupted run.

    Args:
        store: where recordings are read and prepared audio is written.
        new_activity: makes a voice activity detector for one recording; called in a worker thread.
        vad: when a frame counts as speech, unless a task says otherwise.
        split: how long parts are.
        new_decoder: makes a decoder for an open recording, as its sound is to be taken; called in a worker thread.
        clock: the time that blocks take.
    """

    def __init__(
        self,
        store: MediaStore,
        new_activity: Callable[[], VoiceActivity],
        vad: VadSettings,
        split: SplitSettings,
        new_decoder: Callable[[BinaryIO, SoundOptions], Decoder],
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._new_activity = new_activity
        self._vad = vad
        self._split = split
        self._new_decoder = new_decoder
        self._clock = clock or SystemClock()
        self._turns = FairSlots(SlotLimits(split.concurrency or _default_concurrency()), self._clock)

    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        """Parts in order, each stored before it is yielded, then one ``SplitDone``.

        Raises:
            MediaError: nothing in it can be transcribed; parts yielded before are to be discarded.
            DecoderCrashed: the process that decoded it died.
            StorageFull: no room for the prepared audio.
        """
        preparation = _Preparation(_Parts(request, self._split.part_s))
        slices = SlicedWork(self._turns, _turn_request(request), self._clock)
        # One thread for the whole recording: each thread's heap would keep blocks of its own (50 MB over an hour).
        with ThreadPoolExecutor(1, "split") as worker:
            try:
                await slices.run(lambda: in_worker(worker, self._begin, preparation, request))
                while not preparation.done:
                    prepared = await slices.run(lambda: in_worker(worker, preparation.advance))
                    if prepared is not None:
                        key = part_key(request.media_prefix, prepared.part.part)
                        await self._store.write(key, _in_blocks(prepared.pcm))
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
        preparation.begin(file, self._new_decoder(file, request.options.sound), speech)

    def _speech(self, options: TranscriptionOptions) -> SpeechFinder:
        if options.has_clips:
            return RequestedSpeech(requested_spans(options.clip_timestamps))
        if not options.vad_filter:
            return RequestedSpeech([Span(0, UNBOUNDED)])
        return DetectedSpeech(self._new_activity(), SpeechRules.from_ms(**self._vad.model_dump() | options.vad_options))


@dataclass(frozen=True, slots=True)
class _PreparedPart:
    part: SplitPart
    pcm: bytes


class _Preparation:
    """One recording on its way through decoder and finder; every method blocks, for one block of audio at most."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._framer = Framer()
        self._opened = ExitStack()
        self.total = 0
        self.truncated = False
        self.tracks: tuple[Track, ...] = ()
        self.done = False

    def begin(self, file: BinaryIO, decoder: Decoder, speech: SpeechFinder) -> None:
        """Take over the open file."""
        self._opened.callback(file.close)
        self._decoder = decoder
        self._speech = speech
        self._blocks = self._opened.enter_context(closing(decoder.blocks()))

    def advance(self) -> _PreparedPart | None:
        """Take one more block, or the end; return a part if one has become complete."""
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
        """Lets go of decoder and file, if they were opened."""
        self._opened.close()


class _Parts:
    """Collects audio and chunks into parts that tile the timeline; a part ends where no speech waits for its chunk."""

    def __init__(self, request: SplitRequest, part_s: float) -> None:
        self._planner = ChunkPlanner(to_samples(request.max_chunk_s), start=request.resume_at)
        self._longest = to_samples(part_s)
        self._part = request.first_part
        self._next_chunk = request.first_chunk
        self._start = request.resume_at
        self._skip = request.resume_at  # samples that earlier parts hold
        self._pcm = bytearray()
        self._chunks: list[PackedSpans] = []

    def add_audio(self, block: Samples) -> None:
        """The next samples of the timeline."""
        skipped = min(self._skip, len(block))
        self._skip -= skipped
        self._pcm += block[skipped:].astype("<i2").tobytes()

    def add_speech(self, spans: list[Span], scores: Scores, settled: int) -> None:
        """What was heard since; no more speech begins before ``settled``."""
        self._chunks += self._planner.add(spans, scores, settled)

    def complete(self, settled: int) -> _PreparedPart | None:
        """The current part, if it is long enough up to where no more speech can begin."""
        waiting = self._planner.pending_start
        end = settled if waiting is None else waiting
        length = min(self._longest, to_samples(FIRST_PART_S) * 2 ** min(self._part, 16))
        return self._close(end) if end - self._start >= length else None

    def finish(self, total: int) -> _PreparedPart | None:
        """The last part, up to the end of the recording."""
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
    """Return how many blocks are worked on at a time: each keeps its decoder's process and a thread of ours busy."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


def _turn_request(request: SplitRequest) -> TurnRequest:
    return TurnRequest(request.share_key or share_key(request.task_id, None), request.priority_rank)


async def _in_blocks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), WRITE_BLOCK_BYTES):
        yield content[start : start + WRITE_BLOCK_BYTES]
