"""Finding speech spans from the probabilities of a voice activity detector, as the audio arrives.

Positions are samples of the original timeline; frames are ``FRAME_SAMPLES`` long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from pipeline.domain.audio.spans import SAMPLE_RATE, Span, to_samples

FRAME_SAMPLES = 512
"""Samples of one frame at 16 kHz, 32 ms: the input of Silero VAD (github.com/snakers4/silero-vad)."""

UNBOUNDED = 1 << 62
"""End of a span that extends to the end of a recording of unknown length."""

Samples = npt.NDArray[np.int16]
"""16 kHz mono audio, shape ``(samples,)``; as frames, shape ``(frames, FRAME_SAMPLES)``."""

Signal = npt.NDArray[np.float32]
"""16 kHz mono audio before rounding to 16 bits, shape ``(samples,)``; 1 is full scale."""

Scores = npt.NDArray[np.float32]
"""One number per frame, shape ``(frames,)``: the lower it is, the better the frame is for a cut."""


class Framer:
    """A cutter of blocks of any length into whole frames; it keeps the remainder for the next block."""

    def __init__(self) -> None:
        self._rest: Samples = np.empty(0, np.int16)

    def feed(self, block: Samples) -> Samples:
        """Add a block; return the frames that are complete, shape ``(frames, FRAME_SAMPLES)``."""
        audio = np.concatenate([self._rest, block])
        whole = len(audio) - len(audio) % FRAME_SAMPLES
        self._rest = audio[whole:]
        return audio[:whole].reshape(-1, FRAME_SAMPLES)

    def finish(self) -> Samples:
        """Return the last frame, padded with zeros; without a remainder it is all zeros, as in faster-whisper."""
        last = np.zeros((1, FRAME_SAMPLES), np.int16)
        last[0, : len(self._rest)] = self._rest
        return last


def frame_energy(frames: Samples) -> Scores:
    """Return the root mean square of each frame, 0..1: the score of audio for which VAD is not used."""
    squares = np.square(frames.astype(np.float32) / 32768.0)
    energy: Scores = np.sqrt(squares.mean(axis=1, dtype=np.float32))
    return energy


MIN_AUDIBLE_AMPLITUDE = 32
"""Largest amplitude of 16-bit samples that count as silence: 60 dB below full scale."""


def audible_spans(samples: Samples) -> tuple[Span, ...]:
    """Return the spans that hold any sound, in whole frames of ``FRAME_SAMPLES``.

    Args:
        samples: shape ``(samples,)``.
    """
    loudness = np.abs(samples.astype(np.int32))
    frames = (Span(at, min(at + FRAME_SAMPLES, len(samples))) for at in range(0, len(samples), FRAME_SAMPLES))
    return merge_touching(frame for frame in frames if loudness[frame.start : frame.end].max() > MIN_AUDIBLE_AMPLITUDE)


@dataclass(frozen=True, slots=True)
class SpeechRules:
    """The thresholds that decide which frames are speech, in samples; the terms are faster-whisper's.

    Attributes:
        threshold: probability from which speech begins.
        neg_threshold: probability below which speech may end.
        min_speech: length up to which speech is dropped.
        min_silence: length from which silence ends a span.
        speech_pad: padding on both sides of a span; two spans that are closer share the gap between them.
    """

    threshold: float
    neg_threshold: float
    min_speech: int
    min_silence: int
    speech_pad: int

    @classmethod
    def from_ms(
        cls, threshold: float, min_speech_duration_ms: int, min_silence_duration_ms: int, speech_pad_ms: int
    ) -> SpeechRules:
        """Make rules from milliseconds; the silence threshold is 0.15 below the speech threshold (Silero's default)."""
        per_ms = SAMPLE_RATE // 1000
        return cls(
            threshold=threshold,
            neg_threshold=max(threshold - 0.15, 0.01),
            min_speech=min_speech_duration_ms * per_ms,
            min_silence=min_silence_duration_ms * per_ms,
            speech_pad=speech_pad_ms * per_ms,
        )


class SpeechDetector:
    """A streaming version of ``faster_whisper.vad.get_speech_timestamps`` with the same results.

    A span is returned in pieces, each as soon as it is certain, so a speaker who never pauses needs no more memory.
    Pieces come in order. They touch if they belong to one span; spans that share the gap between them touch as well.
    """

    def __init__(self, rules: SpeechRules) -> None:
        self._rules = rules
        self._position = 0  # end of the last frame
        self._start: int | None = None  # start of the current speech, without padding
        self._quiet_from: int | None = None  # start of a silence that may end it
        self._certain = False  # the current speech is longer than min_speech
        self._last_end: int | None = None  # end of the span before, while its padding is undecided
        self._given = 0  # everything before this was emitted or is certainly silence
        self._pieces: list[Span] = []

    @property
    def settled(self) -> int:
        """Sample before which no later piece begins."""
        if self._certain or self._last_end is not None:
            return self._given
        earliest = self._position if self._start is None else self._start
        return max(self._given, earliest - self._rules.speech_pad)

    def feed(self, probabilities: Iterable[float]) -> list[Span]:
        """Add the speech probabilities of the next frames; return the speech that is certain now."""
        for probability in probabilities:
            self._step(probability)
        self._emit_certain()
        return self._take()

    def finish(self, probabilities: Iterable[float], total: int) -> list[Span]:
        """Add the last frames of a recording of ``total`` samples; return the speech that was still open."""
        for probability in probabilities:
            self._step(probability)
        if self._start is not None:
            self._close(total)
        if self._last_end is not None:
            self._emit(min(total, self._last_end + self._rules.speech_pad))
        return self._take()

    def _step(self, probability: float) -> None:
        at = self._position
        self._position += FRAME_SAMPLES
        if probability >= self._rules.threshold:
            self._quiet_from = None
            if self._start is None:
                self._start = at
        elif probability < self._rules.neg_threshold and self._start is not None:
            if self._quiet_from is None:
                self._quiet_from = at
            if at - self._quiet_from >= self._rules.min_silence:
                self._close(self._quiet_from)

    def _close(self, end: int) -> None:
        """End the current speech, and keep it if it is long enough."""
        if self._start is not None and end - self._start > self._rules.min_speech:
            self._open()
            self._emit(end)
            self._last_end = end
        self._start = self._quiet_from = None
        self._certain = False

    def _open(self) -> None:
        """Accept the current speech, and divide the gap between it and the span before for their padding."""
        if self._certain or self._start is None:
            return
        self._certain = True
        pad = self._rules.speech_pad
        begin = max(0, self._start - pad)
        if self._last_end is not None:
            gap = self._start - self._last_end
            self._emit(self._last_end + min(pad, gap // 2))
            begin = self._start - min(pad, gap // 2)
        self._last_end = None
        self._given = begin

    def _emit_certain(self) -> None:
        """Emit the speech that no later frame can change."""
        if self._start is not None:
            speech_end = self._position if self._quiet_from is None else self._quiet_from
            if speech_end - self._start > self._rules.min_speech:
                self._open()
                self._emit(speech_end)
        elif self._last_end is not None and self._position >= self._last_end + 2 * self._rules.speech_pad:
            self._emit(self._last_end + self._rules.speech_pad)
            self._last_end = None

    def _emit(self, end: int) -> None:
        if end > self._given:
            self._pieces.append(Span(self._given, end))
            self._given = end

    def _take(self) -> list[Span]:
        pieces, self._pieces = self._pieces, []
        return pieces


def requested_spans(clip_timestamps: Sequence[float]) -> tuple[Span, ...]:
    """Return the spans that ``clip_timestamps`` selects: in order, overlaps merged, empty ones dropped.

    Args:
        clip_timestamps: start, end, start, end … in seconds. Without the last end, the clip extends to the end of the
            recording (``UNBOUNDED``).
    """
    pairs = zip_longest(clip_timestamps[::2], clip_timestamps[1::2])
    clips = sorted(Span(to_samples(start), UNBOUNDED if end is None else to_samples(end)) for start, end in pairs)
    return merge_touching(clip for clip in clips if clip.samples > 0)


def within(spans: Iterable[Span], window: Span) -> list[Span]:
    """Return the parts of the spans that lie in the window."""
    clipped = (Span(max(span.start, window.start), min(span.end, window.end)) for span in spans)
    return [span for span in clipped if span.samples > 0]


def merge_touching(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Join spans that touch or overlap, given in order of their starts."""
    merged: list[Span] = []
    for span in spans:
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return tuple(merged)
