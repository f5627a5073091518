"""The transcriber of this process: read a unit's audio, decode it in shared batches, put the text on the timeline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from pipeline.asr.batcher import MicroBatcher
from pipeline.asr.engine import DecodeItem, Engine
from pipeline.asr.pending_chunk import DecodedChunk, PendingChunk
from pipeline.asr.silero_vad import find_speech
from pipeline.domain.audio.spans import FULL_SCALE, SAMPLE_RATE, Chunk, Span, part_key
from pipeline.domain.audio.speech import SpeechRules, audible_spans
from pipeline.domain.decoding.hallucination import drop_hallucinations, drop_text_without_speech
from pipeline.domain.decoding.quality_gate import next_prompt
from pipeline.domain.decoding.timeline import SPEECH_PAD_S, place
from pipeline.domain.decoding.transcript import ChunkResult, Segment
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.errors import DecodingFailed, MurmurationError, PreparedAudioLost, ReplicaLost, StorageUnavailable
from pipeline.ports import ChunkFailure, EngineInfo, MediaStore, Transcriber, Unit
from pipeline.settings import VadSettings

logger = logging.getLogger(__name__)

PREPARE_THREADS = 2
"""Spectrograms are cheap (thousands of times real time on one core); more threads would only slow down inference."""

SHORTEST_CHUNK_S = 0.05
"""Shorter audio can't contain a word."""

HEARTBEAT_S = 10.0
"""Interval of heartbeats for a unit whose chunks wait while others are decoded. Without progress, none is sent, and the
Dispatcher decides when it has waited long enough."""

ChunkOutcome = ChunkResult | ChunkFailure
FindSpeech = Callable[[npt.NDArray[np.int16], SpeechRules], tuple[Span, ...]]


@dataclass(frozen=True, slots=True)
class _PreparedChunk:
    """A chunk that is ready to be decoded.

    Attributes:
        item: the first decoding.
        speech: speech spans, with ``SPEECH_PAD_S`` around them, in samples of the chunk.
        audible: spans with any sound; ``None`` where voice activity detection chose the chunk.
    """

    chunk: Chunk
    item: DecodeItem
    speech: tuple[Span, ...]
    audible: tuple[Span, ...] | None


class LocalTranscriber(Transcriber):
    """A ``Transcriber`` with the engine of this process.

    Args:
        store: holds the prepared audio.
        engine: computes features, and describes itself.
        batcher: decodes; already started, and shared by all units.
        prepare_threads: number of threads that compute features.
        vad: rules by which a frame counts as speech, unless a task has its own.
        find_speech: finds speech in a chunk, for the times of words and for gap recovery; called in those threads.
        heartbeat_s: interval of the heartbeats for a unit that waits.
    """

    def __init__(
        self,
        store: MediaStore,
        engine: Engine,
        batcher: MicroBatcher,
        prepare_threads: int = PREPARE_THREADS,
        vad: VadSettings | None = None,
        find_speech: FindSpeech = find_speech,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._store = store
        self._engine = engine
        self._batcher = batcher
        self._vad = vad or VadSettings()
        self._find_speech = find_speech
        self._heartbeat_s = heartbeat_s
        self._pool = ThreadPoolExecutor(prepare_threads, thread_name_prefix="features")

    @override
    async def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkOutcome]]:
        yield ()  # accepted: if this process dies from here on, the unit may be the cause
        # With ``multilingual``, every chunk's language is detected even if one is given, as in faster-whisper.
        tokens, language = unit.previous_tokens, None if unit.options.multilingual else unit.language
        waiting = list(unit.chunks)
        while waiting:
            chunks = waiting[: self._group_size(unit, language)]
            del waiting[: len(chunks)]
            prepared = await asyncio.gather(*(self._prepare_chunk(unit, chunk, language, tokens) for chunk in chunks))
            async with aclosing(self._decode_group(unit, prepared)) as stream:
                async for outcomes in stream:
                    for result in (outcome for outcome in outcomes if isinstance(outcome, ChunkResult)):
                        tokens = next_prompt(tokens, result, unit.options.temperature)
                        if result.segments and not unit.options.multilingual:
                            language = language or result.language or None
                    yield outcomes

    @override
    async def describe(self) -> EngineInfo:
        """Return what runs here. Raise ``ReplicaLost`` if the replica can no longer decode."""
        if not self._batcher.healthy:
            raise ReplicaLost("The replica can't decode any more.")
        return replace(self._engine.info, max_batch_size=self._batcher.settings.max_batch_size)

    @override
    async def replica_count(self) -> int:
        """Return 1 as long as the batcher decodes, else 0."""
        return int(self._batcher.healthy)

    def warm_up(self) -> None:
        """Decode a second of faint noise through the batcher, which shows that the replica is ready.

        Raises:
            DecodingFailed, ReplicaLost: the model can't decode on this machine.
        """
        noise = np.random.default_rng(0).normal(0.0, 1e-3, SAMPLE_RATE).astype(np.float32)
        language = "en" if "en" in self._engine.info.languages else self._engine.info.languages[0]
        options = TranscriptionOptions(temperature=(0.0,), language=language)
        item = DecodeItem(features=self._engine.prepare(noise), options=options, language=language)
        [pending] = self._batcher.submit([item], rank=0, start_tag=0.0)
        pending.future.result()

    def close(self) -> None:
        """Stop the threads that compute features. The batcher is closed by its owner."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- one unit

    @staticmethod
    def _group_size(unit: Unit, language: str | None) -> int:
        """Return how many chunks can be decoded at once: one if the next needs its text as prompt, or its language."""
        follows = language is None and not unit.options.multilingual
        return 1 if follows or unit.options.condition_on_previous_text else len(unit.chunks)

    async def _decode_group(
        self, unit: Unit, prepared: Sequence[_PreparedChunk | ChunkOutcome]
    ) -> AsyncGenerator[Sequence[ChunkOutcome]]:
        """Submit chunks together, and yield their results as they are finished."""
        results = [one for one in prepared if not isinstance(one, _PreparedChunk)]
        if results:
            yield results
        chunks = [one for one in prepared if isinstance(one, _PreparedChunk)]
        pending = self._batcher.submit((one.item for one in chunks), rank=unit.priority_rank, start_tag=unit.start_tag)
        decoding = {_wrap_future(one): chunk for one, chunk in zip(pending, chunks, strict=True)}
        batches = self._batcher.stats().batches
        try:
            while decoding:
                done, _ = await asyncio.wait(decoding, timeout=self._heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
                before, batches = batches, self._batcher.stats().batches
                if done or batches > before:  # a heartbeat only if the batcher makes progress
                    yield [_to_result(decoding.pop(future), future) for future in done]
        finally:
            self._batcher.withdraw(pending)

    async def _prepare_chunk(
        self, unit: Unit, chunk: Chunk, language: str | None, tokens: tuple[int, ...]
    ) -> _PreparedChunk | ChunkOutcome:
        if chunk.duration_s < SHORTEST_CHUNK_S:
            return ChunkResult(chunk.index, chunk.duration_s, (), language or "")
        try:
            pcm = await self._store.read(part_key(unit.media_prefix, chunk.part), *chunk.byte_range)
            prepared = await asyncio.get_running_loop().run_in_executor(self._pool, self._prepare, pcm, chunk, unit)
        except FileNotFoundError:
            return _to_failure(chunk, PreparedAudioLost("The prepared audio of this chunk is missing."))
        except OSError:
            logger.exception("the prepared audio of task %d, chunk %d can't be read", unit.task_id, chunk.index)
            return _to_failure(chunk, StorageUnavailable("The prepared audio of this chunk could not be read."))
        except (DecodingFailed, PreparedAudioLost, StorageUnavailable) as error:
            return _to_failure(chunk, error)
        conditioned = unit.options.condition_on_previous_text
        item = replace(prepared.item, language=language, previous_tokens=tokens if conditioned else ())
        return replace(prepared, item=item)

    def _prepare(self, pcm: bytes, chunk: Chunk, unit: Unit) -> _PreparedChunk:
        samples, options = chunk_samples(pcm, chunk), unit.options
        given = options.vad_options | {"speech_pad_ms": round(1000 * SPEECH_PAD_S)}
        speech = self._find_speech(samples, SpeechRules.from_ms(**self._vad.model_dump() | given))
        if options.uses_vad and not speech:
            speech = (Span(0, len(samples)),)  # it counted as speech together with the audio around it
        item = DecodeItem(
            features=self._engine.prepare(samples.astype(np.float32) / np.float32(FULL_SCALE)),
            options=options,
            temperature=options.temperature[0],
            speech=speech,
        )
        return _PreparedChunk(chunk, item, speech, None if options.uses_vad else audible_spans(samples))


def chunk_samples(pcm: bytes, chunk: Chunk) -> npt.NDArray[np.int16]:
    """Join the spans of a chunk to one array, shape ``(samples,)``.

    Args:
        pcm: the bytes of the chunk's ``byte_range``: 16 kHz mono, signed 16-bit little-endian.
        chunk: the chunk.

    Raises:
        PreparedAudioLost: there are fewer bytes than in the range.
    """
    if len(pcm) < chunk.byte_range[1]:
        raise PreparedAudioLost("The prepared audio of this chunk is incomplete.")
    whole = np.frombuffer(pcm, dtype="<i2")
    origin = chunk.spans[0].start
    return np.concatenate([whole[span.start - origin : span.end - origin] for span in chunk.spans])


def _wrap_future(pending: PendingChunk) -> asyncio.Future[DecodedChunk]:
    """Return the chunk's future for this event loop; an error is not logged if nobody awaits it any more."""
    future = asyncio.wrap_future(pending.future)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


def _to_result(prepared: _PreparedChunk, future: asyncio.Future[DecodedChunk]) -> ChunkOutcome:
    """Return the chunk's result, or its failure if it could not be decoded; raise all other errors."""
    chunk, item = prepared.chunk, prepared.item
    try:
        decoded = future.result()
    except DecodingFailed as error:
        return _to_failure(chunk, error)
    segments = _to_timeline(prepared, decoded.segments)
    # The language of silence is a guess, which would be used for the whole recording.
    is_guess = item.language is None and not (segments or prepared.speech)
    return ChunkResult(
        index=chunk.index,
        audio_s=chunk.duration_s,
        segments=segments,
        language="" if is_guess else decoded.language,
        detection=None if is_guess else decoded.detection,
        attempts=decoded.attempts,
    )


def _to_timeline(prepared: _PreparedChunk, segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Return segments on the original timeline, without hallucinations, and with words if they are requested."""
    chunk, options = prepared.chunk, prepared.item.options
    if prepared.audible is not None:
        segments = drop_text_without_speech(segments, prepared.speech, prepared.audible)
    placed = place(chunk, segments, prepared.speech)
    if options.word_timestamps and options.hallucination_silence_threshold:
        placed = drop_hallucinations(placed, options.hallucination_silence_threshold, chunk.start_s, chunk.end_s)
    return placed if options.word_timestamps else tuple(replace(one, words=None) for one in placed)


def _to_failure(chunk: Chunk, error: MurmurationError) -> ChunkFailure:
    return ChunkFailure(index=chunk.index, code=error.code, message=error.message)
