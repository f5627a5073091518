"""Chunks become text."""

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
        task_id: whose they are.
        media_prefix: folder of the task's prepared audio.
        chunks: at most a batch.
        options: how to decode them.
        language: of the speech, or ``None`` to detect it on the unit's first chunk (and use it for the others).
        priority_rank: 0 is served first.
        start_tag: the smaller goes first within a rank: see ``domain.chunk_queue``.
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
"""Errors that one chunk can have, by their code."""


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
    """What a replica runs.

    Attributes:
        engine: ``faster_whisper`` …
        model: the name it was asked for (``base``, ``large-v3-turbo`` …).
        device: ``cpu`` or ``cuda``.
        compute_type: ``int8``, ``float16`` …
        languages: ISO codes it knows; ``("en",)`` for an English-only model.
        max_batch_size: chunks it decodes together.
    """

    engine: str
    model: str
    device: str
    compute_type: str
    languages: tuple[str, ...]
    max_batch_size: int


class Transcriber(Protocol):
    """Decodes units of chunks; in production a fleet of replicas behind one handle."""

    def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        """Yields nothing (an empty sequence) once a replica has taken the unit in, then results as they are finished.

        Those come in any order, each chunk once, and nothing again now and then while others are decoded first: silence
        means that nobody's work goes on. Raises ``ReplicaLost``: before that first word no replica is to blame
        the unit for its end.

        Closing the stream early drops the chunks that still wait; what is being decoded is dropped with its batch.
        """
        ...

    async def describe(self) -> EngineInfo:
        """What runs, once a replica has loaded its model and decoded with it."""
        ...

    async def replica_count(self) -> int:
        """Replicas that can take work now; 0 where the fleet is scaled to zero."""
        ...
