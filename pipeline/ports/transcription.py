"""The port of transcription: units of chunks in, results of chunks out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.errors import DecodingFailed, MurmurationError, PreparedAudioLost, StorageUnavailable


@dataclass(frozen=True, slots=True)
class Unit:
    """Chunks of one task sent to a replica in one call.

    Attributes:
        task_id: the task that the chunks belong to.
        media_prefix: folder of the task's prepared audio.
        chunks: at most a batch.
        options: decoding options.
        language: of the speech, or ``None`` to detect it on the unit's first chunk (and use it for the others).
        priority_rank: 0 is served first.
        start_tag: the smallest goes first within a rank (``domain.scheduling.chunk_queue``).
        previous_tokens: text before the first chunk, for ``condition_on_previous_text``.
    """

    task_id: int
    media_prefix: str
    chunks: tuple[Chunk, ...]
    options: TranscriptionOptions
    language: str | None
    priority_rank: int
    start_tag: float
    previous_tokens: tuple[int, ...] = ()


CHUNK_ERRORS: Mapping[str, type[MurmurationError]] = {
    error.code: error for error in (DecodingFailed, PreparedAudioLost, StorageUnavailable)
}
"""Errors of single chunks, by their code."""


@dataclass(frozen=True, slots=True)
class ChunkFailure:
    """A chunk that was not decoded, with the code and sentence of ``CHUNK_ERRORS``' error."""

    index: int
    code: str
    message: str

    @property
    def error(self) -> MurmurationError:
        """The error as it is raised."""
        return CHUNK_ERRORS.get(self.code, DecodingFailed)(self.message)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The engine and model of a replica.

    Attributes:
        engine: a value of ``InstalledEngine``; fakes have other names.
        model: the name in the settings (``base``, ``large-v3-turbo`` …).
        device: ``cpu`` or ``cuda``.
        compute_type: ``int8``, ``float16`` …
        languages: ISO codes of its languages; ``("en",)`` for an English-only model.
        max_batch_size: chunks that it decodes together at most.
    """

    engine: str
    model: str
    device: str
    compute_type: str
    languages: tuple[str, ...]
    max_batch_size: int


class Transcriber(Protocol):
    """A decoder of units of chunks; in production, all replicas behind one handle."""

    def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        """Yield an empty sequence once a replica has accepted the unit, then results as they are finished.

        Results come in any order, each chunk once. Empty sequences are heartbeats while other units are decoded first:
        silence means that the replica is stuck. Raises ``ReplicaLost``; before the first yield, no replica accepted the
        unit, so the unit is not to blame for the loss.

        Closing the stream early drops the chunks that still wait; chunks being decoded are dropped with their batch.
        """
        ...

    async def describe(self) -> EngineInfo:
        """Return the engine and model, once a replica has loaded the model and decoded with it."""
        ...

    async def replica_count(self) -> int:
        """Return the number of replicas that can take work now; 0 if scaled to zero."""
        ...
