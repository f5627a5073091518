"""A Transcriber in this process, controlled by the test."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence

from typing_extensions import override

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.decoding.transcript import ChunkResult, LanguageDetection, Segment, Word
from pipeline.errors import ReplicaLost
from pipeline.ports import ChunkFailure, EngineInfo, Transcriber, Unit


class FakeTranscriber(Transcriber):
    """A ``Transcriber`` that returns one segment for each chunk, ``chunk <index>``, in ``language``.

    If word times are requested, the two words share the chunk, with probabilities 0.5 and 1.

    Attributes:
        replicas: value of ``replica_count``.
        info: value of ``describe``.
        language: detected language of every chunk.
        units: all units, in order.
        poison: number of further times that a chunk, by (task id, index), ends its replica.
        bad: chunks, by (task id, index), that can't be decoded.
        lost: chunks, by (task id, index), whose prepared audio is missing; each fails once.
        silent: chunks, by (task id, index), that have no segment.
        unreachable: number of further units that no replica accepts.
        abandoned: units whose stream was closed before a replica began to decode them.
        open_gate: no chunk is decoded while this event is cleared.
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

    @override
    async def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        self.units.append(unit)
        if self.unreachable > 0:
            self.unreachable -= 1
            raise ReplicaLost("No replica accepted the unit.")
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

    @override
    async def describe(self) -> EngineInfo:
        return self.info

    @override
    async def replica_count(self) -> int:
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
