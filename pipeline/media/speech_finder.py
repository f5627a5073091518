"""What of a recording is to be transcribed, found as the audio arrives: by voice activity, or as the client asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
    """A voice activity detector that listens to one recording."""

    def probabilities(self, frames: Samples) -> Scores:
        """Speech probability of each of the next frames, 0..1; frames of shape ``(frames, FRAME_SAMPLES)``."""
        ...


class SpeechFinder(Protocol):
    """Decides span by span what is given to the model."""

    @property
    def settled(self) -> int:
        """No span that is still to come begins before this sample."""
        ...

    def feed(self, frames: Samples) -> tuple[list[Span], Scores]:
        """The spans that are certain after these frames, in order, and a score per frame: low is good to cut at."""
        ...

    def finish(self, frames: Samples, total: int) -> tuple[list[Span], Scores]:
        """The rest, of a recording of ``total`` samples; the last frames reach beyond its end."""
        ...


class DetectedSpeech:
    """Whatever the detector takes for speech."""

    def __init__(self, activity: VoiceActivity, rules: SpeechRules) -> None:
        self._activity = activity
        self._detector = SpeechDetector(rules)

    @property
    def settled(self) -> int:
        """No span that is still to come begins before this sample."""
        return self._detector.settled

    def feed(self, frames: Samples) -> tuple[list[Span], Scores]:
        """See ``SpeechFinder``."""
        probabilities = self._activity.probabilities(frames)
        return self._detector.feed(probabilities.tolist()), probabilities

    def finish(self, frames: Samples, total: int) -> tuple[list[Span], Scores]:
        """See ``SpeechFinder``."""
        probabilities = self._activity.probabilities(frames)
        return self._detector.finish(probabilities.tolist(), total), probabilities


class RequestedSpeech:
    """The spans somebody asked for; cut where the sound is lowest.

    Args:
        spans: in order, not overlapping; the last one may be unbounded.
    """

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        self._heard = 0

    @property
    def settled(self) -> int:
        """No span that is still to come begins before this sample."""
        return self._heard

    def feed(self, frames: Samples) -> tuple[list[Span], Scores]:
        """See ``SpeechFinder``."""
        return self._until(self._heard + len(frames) * FRAME_SAMPLES), frame_energy(frames)

    def finish(self, frames: Samples, total: int) -> tuple[list[Span], Scores]:
        """See ``SpeechFinder``."""
        return self._until(total), frame_energy(frames)

    def _until(self, end: int) -> list[Span]:
        window = Span(self._heard, end)
        self._heard = end
        return within(self._spans, window)
