"""Choice of the spans of a recording to transcribe, as audio arrives: by voice activity, or as the client requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from typing_extensions import override

from pipeline.domain.audio.spans import Span
from pipeline.domain.audio.speech import (
    FRAME_SAMPLES,
    Samples,
    Scores,
    SpeechDetector,
    SpeechRules,
    frame_energy,
    within,
)


class VoiceActivity(Protocol):
    """A voice activity detector for one recording."""

    def probabilities(self, frames: Samples) -> Scores:
        """Return the speech probability, 0..1, of each of the next frames; shape ``(frames, FRAME_SAMPLES)``."""
        ...


class SpeechFinder(Protocol):
    """A choice of the spans that are given to the model, made as the audio arrives."""

    @property
    def settled(self) -> int:
        """The sample before which no further span begins."""
        ...

    def feed(self, frames: Samples) -> tuple[list[Span], Scores]:
        """Take the next frames; return the spans that became certain, in order, and a score for each frame.

        A chunk is best cut where the scores are low.
        """
        ...

    def finish(self, frames: Samples, total: int) -> tuple[list[Span], Scores]:
        """Take the last frames, which may reach beyond the end; return the rest of the spans, and a score per frame.

        Args:
            frames: the last frames.
            total: length of the recording in samples.
        """
        ...


class DetectedSpeech(SpeechFinder):
    """The spans in which the voice activity detector finds speech. The scores are its probabilities."""

    def __init__(self, activity: VoiceActivity, rules: SpeechRules) -> None:
        self._activity = activity
        self._detector = SpeechDetector(rules)

    @property
    @override
    def settled(self) -> int:
        return self._detector.settled

    @override
    def feed(self, frames: Samples) -> tuple[list[Span], Scores]:
        probabilities = self._activity.probabilities(frames)
        return self._detector.feed(probabilities.tolist()), probabilities

    @override
    def finish(self, frames: Samples, total: int) -> tuple[list[Span], Scores]:
        probabilities = self._activity.probabilities(frames)
        return self._detector.finish(probabilities.tolist(), total), probabilities


class RequestedSpeech(SpeechFinder):
    """The spans that the client requested. The scores are the frames' energies, so chunks are cut where it is quiet.

    Args:
        spans: in order, without overlap; the last one may be unbounded.
    """

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        self._position = 0

    @property
    @override
    def settled(self) -> int:
        return self._position

    @override
    def feed(self, frames: Samples) -> tuple[list[Span], Scores]:
        return self._advance_to(self._position + len(frames) * FRAME_SAMPLES), frame_energy(frames)

    @override
    def finish(self, frames: Samples, total: int) -> tuple[list[Span], Scores]:
        return self._advance_to(total), frame_energy(frames)

    def _advance_to(self, end: int) -> list[Span]:
        passed = Span(self._position, end)
        self._position = end
        return within(self._spans, passed)
