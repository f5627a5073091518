"""The port behind which a speech model decodes batches, and the values that cross it.

An engine knows nothing of queues, priorities or retries: it says which items may share a batch and decodes one.
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
"""Feature frames a second of audio: one every 10 ms."""

FEATURE_SAMPLES = SAMPLE_RATE // FRAMES_PER_SECOND
"""Samples from one feature frame to the next."""

FULL_WINDOW_FRAMES = 3000
"""The 30 s that Whisper was trained on."""

Samples = npt.NDArray[np.float32]
"""Audio: shape ``(samples,)``, 16 kHz mono, -1..1."""

Features = npt.NDArray[np.float32]
"""What the encoder takes: shape ``(channels, frames)``."""


class Encoding(Protocol):
    """What an engine has encoded of an item, for itself to use again."""

    @property
    def frames(self) -> int:
        """Window it was encoded in."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodeItem:
    """One chunk to be decoded once.

    Attributes:
        features: as ``Engine.prepare`` made them, without padding.
        options: the task's.
        language: of the speech, or ``None`` to detect it.
        previous_tokens: text before the chunk, for ``condition_on_previous_text``.
        temperature: 0 for beam search, above it for sampling.
        full_window: whether the encoder must get its full 30 s.
        encoding: of the same features in a window that will do; ``None`` to have them encoded.
        speech: where somebody speaks, in samples from the start of the item; ``None`` where that is not known.
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

    def part(self, stretch: Span) -> DecodeItem:
        """Return the part of the item in a stretch, which is given in samples from its start."""
        first, last = stretch.start // FEATURE_SAMPLES, -(-stretch.end // FEATURE_SAMPLES)
        start = first * FEATURE_SAMPLES
        speech = () if self.speech is None else within(self.speech, stretch)
        return replace(
            self,
            features=self.features[..., first:last],
            speech=None if self.speech is None else tuple(Span(one.start - start, one.end - start) for one in speech),
            encoding=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One decoding of one chunk; an ``Attempt`` in the eyes of ``pipeline.domain.decoding.quality_gate``.

    Attributes:
        text: all that was heard.
        segments: in seconds from the chunk's start; ``id`` and ``seek`` are 0.
            Their words are ``AlignedWord``s, or ``None`` where the engine can't tell when a word is said.
        temperature: at which it was decoded.
        avg_logprob: mean log-probability of the tokens.
        compression_ratio: size of the text over its size compressed.
        no_speech_prob: how likely there is no speech, 0..1.
        language: asked for or detected.
        detection: set where the language was detected.
        full_window: whether the encoder had its full 30 s.
        encoding: what the item's next decoding in the same window may start from; ``None`` if the engine keeps none.
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
        """All words in order; none where the engine can't tell when a word is said."""
        return [word for segment in self.segments for word in segment.words or ()]

    @property
    def has_plausible_pace(self) -> bool:
        """Whether its words take as long as people take to say them; ``False`` where that is not known."""
        return has_plausible_pace(self.words)


class Engine(Protocol):
    """A model that decodes batches. ``decode`` is only ever called from one thread, the rest from any."""

    @property
    def info(self) -> EngineInfo:
        """What it is."""
        ...

    def prepare(self, samples: Samples) -> Features:
        """Turns audio of at most 30 s into features. Raises ``DecodingFailed`` for audio no model could hear."""
        ...

    def batch_key(self, item: DecodeItem) -> Hashable:
        """Items with equal keys may be decoded together."""
        ...

    def window_frames(self, items: Sequence[DecodeItem]) -> int:
        """Frames that would be encoded for each item of the batch; never less than for any of its items alone."""
        ...

    def decode(self, items: Sequence[DecodeItem]) -> list[Decoded | DecodingFailed]:
        """Decodes a batch; one answer for each item, in order.

        Raises:
            MemoryError: the batch is too large for the device.
            ReplicaLost: the device has failed; nothing more can be decoded in this process.
        """
        ...
