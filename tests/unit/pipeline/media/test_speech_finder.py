"""Tests of pipeline.media.speech_finder."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pipeline.domain.audio.spans import SAMPLE_RATE, Span
from pipeline.domain.audio.speech import FRAME_SAMPLES, Samples, Scores, SpeechRules
from pipeline.media.speech_finder import DetectedSpeech

RULES = SpeechRules.from_ms(0.5, min_speech_duration_ms=0, min_silence_duration_ms=500, speech_pad_ms=200)


class Loudness:
    """A detector that takes any sound for speech."""

    def probabilities(self, frames: Samples) -> Scores:
        return (np.abs(frames).max(axis=1) > 0).astype(np.float32)


def frames_of(*stretches: tuple[float, bool]) -> tuple[Samples, int]:
    """Return stretches of sound or silence, of some seconds each, as whole frames, and their number of samples."""
    samples = np.concatenate(
        [np.full(round(seconds * SAMPLE_RATE), 9 * sound, np.int16) for seconds, sound in stretches]
    )
    total = len(samples)
    padded = np.pad(samples, (0, -total % FRAME_SAMPLES))
    return padded.reshape(-1, FRAME_SAMPLES), total


def find_spans(frames: Samples, total: int, step: int) -> tuple[list[Span], list[int]]:
    """Feed ``step`` frames at a time; return all spans, and the value of ``settled`` before each step."""
    speech, spans, settled = DetectedSpeech(Loudness(), RULES), [], []
    for at in range(0, len(frames), step):
        settled.append(speech.settled)
        more, _ = speech.feed(frames[at : at + step])
        assert all(span.start >= settled[-1] for span in more)
        spans += more
    settled.append(speech.settled)
    more, _ = speech.finish(frames[:0], total)
    assert all(span.start >= settled[-1] for span in more)
    return [*spans, *more], settled


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("silence_s", [0.7, 1.5])
def test_silence_at_an_edge_is_left_out(step: int, silence_s: float) -> None:
    frames, total = frames_of((silence_s, False), (3.0, True), (silence_s, False))
    spans, _ = find_spans(frames, total, step)
    assert spans[0].start_s == pytest.approx(silence_s - 0.2, abs=0.05)
    assert spans[-1].end_s == pytest.approx(silence_s + 3.2, abs=0.05)
    assert all(before.end == after.start for before, after in pairwise(spans))


def test_a_pause_inside_stays_a_pause() -> None:
    frames, total = frames_of((1.0, True), (0.9, False), (1.0, True))
    spans, _ = find_spans(frames, total, 5)
    assert sum(span.samples for span in spans) < total


def test_silence_holds_no_speech() -> None:
    frames, total = frames_of((0.5, False))
    assert find_spans(frames, total, 3)[0] == []
