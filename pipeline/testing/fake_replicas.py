"""A Splitter and a fleet of replicas in this process, obedient to the test."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence

from pipeline.domain.audio.spans import SAMPLE_RATE, Chunk, Span
from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.transcript import ChunkResult, LanguageDetection, Segment, Word
from pipeline.errors import MurmurationError, ReplicaLost
from pipeline.ports import ChunkFailure, EngineInfo, SplitDone, SplitPart, SplitRequest, Unit

TRACKS = (Track(0, "aac", "eng", channels=2, default=True, chosen=True),)
"""The audio tracks of every recording of the ``FakeSplitter``'s."""


def make_chunks(number: int, *, first: int = 0, seconds: float = 10.0, part: int = 0) -> tuple[Chunk, ...]:
    """Chunks of equal length, one after another on the timeline."""
    step = int(seconds * SAMPLE_RATE)
    return tuple(Chunk(i, part, 0, (Span(i * step, (i + 1) * step),)) for i in range(first, first + number))


class FakeSplitter:
    """Gives out the parts it was made with, each a tuple of chunks, and then the end.

    Attributes:
        requests: what was asked of it.
        failure: raised after the parts instead of the end.
    """

    def __init__(self, *parts: tuple[Chunk, ...], failure: MurmurationError | None = None) -> None:
        self._parts = parts
        self.failure = failure
        self.requests: list[SplitRequest] = []

    async def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        """See ``ports.Splitter.split``."""
        self.requests.append(request)
        end = 0
        for number, chunks in enumerate(self._parts):
            start, end = end, max([end, *(chunk.spans[-1].end for chunk in chunks)])
            if number >= request.first_part:
                yield SplitPart(number, start, end, chunks)
        if self.failure is not None:
            raise self.failure
        yield SplitDone(end / SAMPLE_RATE, truncated=False, tracks=TRACKS)


class FakeTranscriber:
    """Answers each chunk with one segment, ``chunk <index>``, in the language it was told to hear.

    Where word times are asked for, its two words share the chunk, with probabilities 0.5 and 1.

    Attributes:
        units: what was sent, in order.
        poison: how many more times a chunk, by (task id, index), takes its replica down.
        bad: chunks, by (task id, index), that the model fails on.
        lost: chunks, by (task id, index), whose prepared audio is missing; each is found missing once.
        unreachable: how many more units find nobody to take them in.
        open_gate: cleared, nothing is answered until it is set again.
        silent: chunks that are answered without a segment.
    """

    def __init__(self, *, replicas: int = 1, max_batch_size: int = 8, language: str = "en") -> None:
        self.replicas = replicas
        self.info = EngineInfo("fake", "fake", "cpu", "int8", ("en", "de", "zh"), max_batch_size)
        self.language = language
        self.units: list[Unit] = []
        self.poison: Counter[tuple[int, int]] = Counter()
        self.bad: set[tuple[int, int]] = set()
        self.lost: set[tuple[int, int]] = set()
        self.silent: set[tuple[int, int]] = set()
        self.unreachable = 0
        self.abandoned: list[Unit] = []
        self.open_gate = asyncio.Event()
        self.open_gate.set()

    async def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        """See ``ports.Transcriber.transcribe``."""
        self.units.append(unit)
        if self.unreachable > 0:
            self.unreachable -= 1
            raise ReplicaLost("No replica took the unit in.")
        try:
            yield ()
            await self.open_gate.wait()
        except (asyncio.CancelledError, GeneratorExit):
            self.abandoned.append(unit)
            raise
        for chunk in unit.chunks:
            await asyncio.sleep(0)
            key = (unit.task_id, chunk.index)
            if self.poison[key] > 0:
                self.poison[key] -= 1
                raise ReplicaLost("The replica died.")
            if key in self.lost:
                self.lost.discard(key)
                yield [ChunkFailure(chunk.index, "prepared_audio_lost", "The prepared audio is missing.")]
            elif key in self.bad:
                yield [ChunkFailure(chunk.index, "decoding_failed", "The model failed on this chunk.")]
            else:
                yield [self._result(unit, chunk)]

    def _result(self, unit: Unit, chunk: Chunk) -> ChunkResult:
        detection = LanguageDetection(self.language, 0.9, ((self.language, 0.9),)) if unit.language is None else None
        segment = _fake_segment(chunk, words=unit.options.word_timestamps)
        segments = () if (unit.task_id, chunk.index) in self.silent else (segment,)
        return ChunkResult(chunk.index, chunk.duration_s, segments, unit.language or self.language, detection)

    async def describe(self) -> EngineInfo:
        """See ``ports.Transcriber.describe``."""
        return self.info

    async def replica_count(self) -> int:
        """See ``ports.Transcriber.replica_count``."""
        return self.replicas


def _fake_segment(chunk: Chunk, *, words: bool) -> Segment:
    middle = (chunk.start_s + chunk.end_s) / 2
    spoken = (Word(chunk.start_s, middle, " chunk", 0.5), Word(middle, chunk.end_s, f" {chunk.index}", 1.0))
    return Segment(
        id=0,
        seek=round(chunk.start_s * 100),
        start=chunk.start_s,
        end=chunk.end_s,
        text=f" chunk {chunk.index}",
        tokens=(chunk.index,),
        temperature=0.0,
        avg_logprob=-0.1,
        compression_ratio=1.0,
        no_speech_prob=0.0,
        words=spoken if words else None,
    )
