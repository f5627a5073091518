"""The port of a speech model that decodes batches, and the values that cross it.

It is the inner seam of ``pipeline.asr``; the outer one is ``ports.Transcriber``. An engine has no queue, no priorities
and no retries: it states which items may share a batch, and decodes one batch at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.domain.audio.spans import SAMPLE_RATE, Span
from pipeline.domain.audio.speech import within
from pipeline.domain.decoding.speaking_rate import has_plausible_pace
from pipeline.domain.decoding.transcript import LanguageDetection, Segment, Word
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.errors import DecodingFailed
from pipeline.ports import EngineInfo

FRAMES_PER_SECOND = 100
"""Feature frames per second of audio: one every 10 ms."""

FEATURE_SAMPLES = SAMPLE_RATE // FRAMES_PER_SECOND
"""Samples from one feature frame to the next."""

FULL_WINDOW_FRAMES = 3000
"""The 30 s that Whisper was trained on."""

Samples = npt.NDArray[np.float32]
"""Audio: shape ``(samples,)``, 16 kHz mono, -1..1."""

Features = npt.NDArray[np.float32]
"""Input of the encoder: shape ``(channels, frames)``."""


class Encoding(Protocol):
    """The encoder's output for an item, which the engine can use again."""

    @property
    def frames(self) -> int:
        """Window in which the item was encoded, in feature frames."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodeItem:
    """The input of one decoding of one chunk.

    Attributes:
        features: features without padding, from ``Engine.prepare``.
        options: options of the task.
        language: language of the speech, or ``None`` to detect it.
        previous_tokens: text before the chunk, for ``condition_on_previous_text``.
        temperature: 0 for beam search, above 0 for sampling.
        full_window: whether the encoder must get its full 30 s.
        encoding: encoding of the same features in a suitable window; ``None`` if they are still to be encoded.
        speech: speech spans, in samples from the start of the item; ``None`` where they are not known.
    """

    features: Features
    options: TranscriptionOptions
    language: str | None = None
    previous_tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    full_window: bool = False
    encoding: Encoding | None = None
    speech: tuple[Span, ...] | None = None

    @property
    def frames(self) -> int:
        """Length in feature frames."""
        return int(self.features.shape[-1])

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / FRAMES_PER_SECOND

    def slice(self, span: Span) -> DecodeItem:
        """Return the item's audio in a span, which is given in samples from the start of the item."""
        first, last = span.start // FEATURE_SAMPLES, -(-span.end // FEATURE_SAMPLES)
        start = first * FEATURE_SAMPLES
        speech = () if self.speech is None else within(self.speech, span)
        return replace(
            self,
            features=self.features[..., first:last],
            speech=None if self.speech is None else tuple(Span(one.start - start, one.end - start) for one in speech),
            encoding=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """The output of one decoding of one chunk. It satisfies ``quality_gate.ScoredDecoding``.

    Attributes:
        text: the whole text.
        segments: in seconds from the chunk's start; ``id`` and ``seek`` are 0.
            Their words are ``AlignedWord``s, or ``None`` if the engine has no times for words.
        temperature: temperature of the decoding.
        avg_logprob: mean log-probability of the tokens.
        compression_ratio: size of the text divided by its compressed size.
        no_speech_prob: probability that there is no speech, 0..1.
        language: as requested or detected.
        detection: set where the language was detected.
        full_window: whether the encoder had its full 30 s.
        encoding: encoding for the item's next decoding in the same window; ``None`` if the engine keeps none.
    """

    text: str
    segments: tuple[Segment, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    language: str
    detection: LanguageDetection | None = None
    full_window: bool = False
    encoding: Encoding | None = None

    @property
    def words(self) -> list[Word]:
        """All words in order; none if the engine has no times for words."""
        return [word for segment in self.segments for word in segment.words or ()]

    @property
    def has_plausible_pace(self) -> bool:
        """``True`` if the words take as long as people take to say them; ``False`` if their times are not known."""
        return has_plausible_pace(self.words)


class Engine(Protocol):
    """A speech model that decodes batches. ``decode`` is called from one thread only, all other members from any."""

    @property
    def info(self) -> EngineInfo:
        """Name of the engine and its model, device, languages and batch size."""
        ...

    def prepare(self, samples: Samples) -> Features:
        """Turn audio of at most 30 s into features. Raise ``DecodingFailed`` for audio that no model can decode."""
        ...

    def batch_key(self, item: DecodeItem) -> Hashable:
        """Return the key of an item. Items with equal keys may be decoded in one batch."""
        ...

    def window_frames(self, items: Sequence[DecodeItem]) -> int:
        """Return the frames to encode for each item of a batch; never fewer than for any of its items alone."""
        ...

    def decode(self, items: Sequence[DecodeItem]) -> list[Decoded | DecodingFailed]:
        """Decode a batch of items with equal keys; return one result for each item, in order.

        Raises:
            MemoryError: the batch is too large for the device's memory.
            ReplicaLost: the device has failed, and this process can decode nothing more.
        """
        ...
