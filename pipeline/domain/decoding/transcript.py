"""Words, segments and transcripts, in the field's own terms (faster-whisper's)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.domain.audio.tracks import Track


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its times in seconds and the mean probability of its tokens."""

    start: float
    end: float
    word: str
    probability: float


@dataclass(frozen=True, slots=True)
class AlignedWord(Word):
    """A word with its text tokens, kept as long as its segment may still be divided."""

    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of transcript with a start and an end, in seconds of the original timeline.

    ``seek`` is the start of its chunk in hundredths of a second, ``tokens`` the model's own (timestamps included),
    ``temperature`` that of the decoding that was kept. ``words`` is ``None`` unless word times were requested.
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True, slots=True)
class LanguageDetection:
    """The detected language, its probability (0..1), and every candidate, likeliest first."""

    language: str
    probability: float
    all_probabilities: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """The result of one chunk.

    Attributes:
        index: the chunk's index within its task.
        audio_s: seconds of audio it held.
        segments: on the original timeline, in order; empty for silence. Stitching sets their ids.
        language: the detected or requested language.
        detection: set if the language was detected in this chunk.
        attempts: decodings of the whole chunk (1 unless the quality gate rejected it).
    """

    index: int
    audio_s: float
    segments: tuple[Segment, ...]
    language: str
    detection: LanguageDetection | None = None
    attempts: int = 1

    @property
    def tokens(self) -> tuple[int, ...]:
        """All tokens in order: the prompt of the next chunk with ``condition_on_previous_text``."""
        return tuple(token for segment in self.segments for token in segment.tokens)


@dataclass(frozen=True, slots=True)
class TranscriptInfo:
    """Facts about the whole transcript; durations in seconds."""

    language: str
    language_probability: float
    duration: float
    duration_after_vad: float
    all_language_probs: tuple[tuple[str, float], ...] | None = None
    transcription_options: dict[str, Any] = field(default_factory=dict)
    vad_options: dict[str, Any] = field(default_factory=dict)
    tracks: tuple[Track, ...] = ()
    """The recording's audio tracks; one of them was transcribed."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """The result of a task."""

    text: str
    segments: tuple[Segment, ...]
    info: TranscriptInfo
