from __future__ import annotations

from unittest.mock import patch

import faster_whisper.vad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.audio.spans import Span
from pipeline.domain.audio.speech import (
    FRAME_SAMPLES,
    UNBOUNDED,
    Framer,
    SpeechDetector,
    SpeechRules,
    audible_spans,
    frame_energy,
    merge_touching,
    requested_spans,
    within,
)
from tests.support.thoroughness import examples

# Runs of equal probability, so that speech and silence are long enough to count.
probability_runs = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 0.34, 0.36, 0.45, 0.5, 0.9, 1.0]), st.integers(1, 40)), max_size=30
).map(lambda runs: [probability for probability, count in runs for _ in range(count)])
block_sizes = st.lists(st.integers(1, 60), min_size=1)


def one_shot(probabilities: list[float], total: int, **options: float) -> list[Span]:
    """Return faster-whisper's spans for these probabilities."""
    audio = np.zeros(total, np.float32)
    with patch.object(faster_whisper.vad, "get_vad_model", lambda: lambda _: probabilities):
        found = faster_whisper.vad.get_speech_timestamps(audio, **options)
    return [Span(item["start"], item["end"]) for item in found]


def in_blocks(items: list[float], sizes: list[int]) -> list[list[float]]:
    blocks, position, turn = [], 0, 0
    while position < len(items):
        size = sizes[turn % len(sizes)]
        blocks.append(items[position : position + size])
        position, turn = position + size, turn + 1
    return blocks


@settings(max_examples=examples(100))
@given(
    probabilities=probability_runs,
    rest=st.integers(0, FRAME_SAMPLES - 1),
    sizes=block_sizes,
    min_speech_ms=st.sampled_from([0, 100, 250, 1000]),
    min_silence_ms=st.sampled_from([0, 100, 500, 2000]),
    pad_ms=st.sampled_from([0, 30, 200, 400]),
)
def test_finds_what_faster_whisper_finds_in_blocks_of_any_size(
    probabilities: list[float], rest: int, sizes: list[int], min_speech_ms: int, min_silence_ms: int, pad_ms: int
) -> None:
    total = len(probabilities) * FRAME_SAMPLES + rest
    probabilities = [*probabilities, 0.7 if rest % 2 else 0.1]  # of the last, padded frame
    expected = one_shot(
        probabilities,
        total,
        threshold=0.5,
        min_speech_duration_ms=min_speech_ms,
        min_silence_duration_ms=min_silence_ms,
        speech_pad_ms=pad_ms,
    )
    detector = SpeechDetector(SpeechRules.from_ms(0.5, min_speech_ms, min_silence_ms, pad_ms))
    found: list[Span] = []
    for block in in_blocks(probabilities[:-1], sizes):
        settled = detector.settled
        pieces = detector.feed(block)
        assert all(piece.start >= settled for piece in pieces)
        found += pieces
    settled = detector.settled
    last = detector.finish(probabilities[-1:], total)
    assert all(piece.start >= settled for piece in last)
    found += last
    assert merge_touching(found) == merge_touching(expected)


def test_a_speaker_who_never_pauses_is_given_out_as_he_speaks() -> None:
    detector = SpeechDetector(SpeechRules.from_ms(0.5, 0, 500, 200))
    given_out = detector.feed([1.0] * 100) + detector.feed([1.0] * 100)
    assert given_out[0] == Span(0, 100 * FRAME_SAMPLES)
    assert given_out[-1].end == 200 * FRAME_SAMPLES


def test_the_negative_threshold_lies_below_the_threshold_and_above_zero() -> None:
    assert SpeechRules.from_ms(0.5, 0, 0, 0).neg_threshold == pytest.approx(0.35)
    assert SpeechRules.from_ms(0.1, 0, 0, 0).neg_threshold == 0.01


@given(st.lists(st.integers(0, 2000), max_size=8))
def test_the_framer_loses_nothing(lengths: list[int]) -> None:
    audio = np.arange(sum(lengths), dtype=np.int16)
    framer, frames, position = Framer(), [], 0
    for length in lengths:
        frames.append(framer.feed(audio[position : position + length]))
        position += length
    frames.append(framer.finish())
    joined = np.concatenate(frames).reshape(-1)
    np.testing.assert_array_equal(joined[: len(audio)], audio)
    assert not joined[len(audio) :].any()
    assert 1 <= len(joined) - len(audio) <= FRAME_SAMPLES


def test_energy_is_the_root_mean_square_of_each_frame() -> None:
    frames = np.stack([np.zeros(FRAME_SAMPLES), np.full(FRAME_SAMPLES, 16384)]).astype(np.int16)
    np.testing.assert_allclose(frame_energy(frames), [0.0, 0.5])


@pytest.mark.parametrize(
    ("clips", "spans"),
    [
        ((), ()),
        ((1.0, 2.0), (Span(16000, 32000),)),
        ((1.0,), (Span(16000, UNBOUNDED),)),
        ((5.0, 6.0, 1.0, 2.0), (Span(16000, 32000), Span(80000, 96000))),
        ((1.0, 3.0, 2.0, 4.0), (Span(16000, 64000),)),
        ((0.0, 2.5, 2.5, 4.0), (Span(0, 64000),)),
        ((3.0, 3.0, 4.0, 2.0), ()),
        ((0.0, 1.0, 9.0), (Span(0, 16000), Span(144000, UNBOUNDED))),
    ],
)
def test_clip_timestamps_become_spans(clips: tuple[float, ...], spans: tuple[Span, ...]) -> None:
    assert requested_spans(clips) == spans


def test_spans_are_clipped_to_a_window() -> None:
    assert within([Span(0, 10), Span(20, UNBOUNDED)], Span(5, 25)) == [Span(5, 10), Span(20, 25)]
    assert within([Span(0, 5)], Span(5, 25)) == []


def test_audible_is_what_is_louder_than_60_db_below_full_scale() -> None:
    quiet, loud = np.full(FRAME_SAMPLES, 30, np.int16), np.full(FRAME_SAMPLES, -32768, np.int16)
    samples = np.concatenate([quiet, loud, loud, quiet, loud[:100]])
    assert audible_spans(samples) == (Span(512, 1536), Span(2048, 2148))
    assert audible_spans(quiet) == ()
