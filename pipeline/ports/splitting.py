"""The port of splitting: recordings in, prepared audio and chunks out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.transcription_options import TranscriptionOptions


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """A recording to be prepared.

    Attributes:
        task_id: for logs.
        media_key: key of the recording.
        media_prefix: folder for the prepared audio.
        options: only those of the sound, ``vad_filter`` and ``clip_timestamps`` matter here.
        max_chunk_s: longest chunk, in seconds.
        first_part: number of the first part to write; parts before it, up to ``resume_at``, are already stored.
        first_chunk: index of the first chunk to yield.
        resume_at: sample of the original timeline where ``first_part`` begins.
        priority_rank: of the task; 0 is served first.
        share_key: name under which the task takes turns (``domain.scheduling.fair_queue``).
    """

    task_id: int
    media_key: str
    media_prefix: str
    options: TranscriptionOptions
    max_chunk_s: float
    first_part: int = 0
    first_chunk: int = 0
    resume_at: int = 0
    priority_rank: int = 1
    share_key: str = ""

    def after(self, part: SplitPart) -> SplitRequest:
        """Return what is left to do once a part is stored."""
        return replace(
            self,
            first_part=part.part + 1,
            first_chunk=self.first_chunk + len(part.chunks),
            resume_at=part.end,
        )


@dataclass(frozen=True, slots=True)
class SplitPart:
    """A part of prepared audio that was written to the MediaStore.

    Attributes:
        part: its number, from 0, without gaps.
        start: its first sample on the original timeline.
        end: the sample after its last one, where the next part begins.
        chunks: the chunks in it, possibly none.
    """

    part: int
    start: int
    end: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class SplitDone:
    """The end of a recording that was decoded completely.

    Attributes:
        duration_s: length of the recording, in seconds.
        truncated: the file ends early, or the recording is shorter than its header says.
        tracks: its audio tracks; the transcribed one is marked.
    """

    duration_s: float
    truncated: bool
    tracks: tuple[Track, ...] = ()


class Splitter(Protocol):
    """A splitter of recordings into prepared audio and chunks, as a stream whose memory does not grow with the file."""

    def split(self, request: SplitRequest) -> AsyncGenerator[SplitPart | SplitDone, None]:
        """Yield parts in order, then one ``SplitDone``. Raises ``MediaError``, ``StorageFull``, ``ReplicaLost``."""
        ...
