from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.audio.downmix import Downmixer, covariance, joint_power, signs_of
from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.domain.audio.speech import Signal
from tests.support.thoroughness import examples, thorough

SECONDS = 6


def voice(seed: int, seconds: float = SECONDS, level: float = 0.1) -> Signal:
    """Make noise that varies four times a second: as unlike that of another seed as the speech of two people."""
    source = np.random.default_rng(seed)
    samples = int(seconds * SAMPLE_RATE)
    swell = np.abs(np.sin(np.arange(samples) * 2 * np.pi * 2 / SAMPLE_RATE + seed))
    return (source.normal(0, level, samples) * swell).astype(np.float32)


@cache
def noise(level: float, seed: int = 99) -> Signal:
    return np.random.default_rng(seed).normal(0, level, SECONDS * SAMPLE_RATE).astype(np.float32)


def mix(*channels: Signal, step: int = 10_000) -> Signal:
    audio = np.stack(channels, axis=1).astype(np.float32)
    downmixer = Downmixer(len(channels))
    pieces = [downmixer.feed(audio[start : start + step]) for start in range(0, len(audio), step)]
    mixed = np.concatenate([*pieces, downmixer.finish()])
    assert mixed.dtype == np.float32
    assert len(mixed) == len(audio)
    return mixed


def level_db(mixed: Signal, voice: Signal) -> float:
    """Return the level of a voice in a mix, relative to the voice itself."""
    return float(20 * np.log10(abs(mixed @ voice) / (voice @ voice)))


SILENT = np.zeros(SECONDS * SAMPLE_RATE, np.float32)
A, B = voice(1), voice(2)


@pytest.mark.parametrize("channels", [2, 3, 6, 8, 16])
def test_channels_that_are_alike_stay_as_they_are(channels):
    np.testing.assert_allclose(mix(*[A] * channels), A, rtol=1e-6)


def test_two_channels_that_are_alike_stay_exactly_as_they_are():
    np.testing.assert_array_equal(mix(A, A), A)


def test_usual_stereo_is_averaged_exactly():
    left, right = A + noise(0.02, 3), A + noise(0.02, 4)
    np.testing.assert_array_equal(mix(left, right), (left + right) / 2)


@pytest.mark.parametrize("channels", [2, 3, 4, 6, 8, 16, 24])
@pytest.mark.parametrize("beside", [0.0, 0.0003])
def test_speech_in_one_channel_keeps_its_level(channels, beside):
    for place in {0, channels - 1, channels // 2} if thorough() else {channels // 2}:
        others = [noise(beside, seed) if beside else SILENT for seed in range(channels)]
        others[place] = A
        assert level_db(mix(*others), A) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("strength", [-1.0, -0.7, -0.5, -0.2])
def test_channels_in_opposite_phase_don_t_cancel_out(strength):
    mixed = mix(A + noise(0.0001, 5), np.float32(strength) * A + noise(0.0001, 6))
    assert level_db(mixed, A) == pytest.approx(0, abs=2.5)


def test_an_opposed_channel_among_others_is_turned_over():
    assert level_db(mix(A, A, -A, A), A) == pytest.approx(0, abs=0.1)


def test_two_people_in_two_channels_are_both_kept():
    mixed = mix(A, B)
    assert level_db(mixed, A) == pytest.approx(0, abs=1)
    assert level_db(mixed, B) == pytest.approx(0, abs=1)


def test_two_people_who_take_turns_are_both_kept():
    turns = (np.arange(len(A)) // (2 * SAMPLE_RATE)) % 2 == 0
    mixed = mix(np.where(turns, A, 0), np.where(turns, 0, B))
    assert level_db(mixed[turns], A[turns]) == pytest.approx(0, abs=1)
    assert level_db(mixed[~turns], B[~turns]) == pytest.approx(0, abs=1)


def test_phase_that_changes_in_mid_recording_loses_nothing():
    mixed = mix(np.concatenate([A, A, A]), np.concatenate([A, -A, A]))
    for third in range(3):
        assert level_db(mixed[third * len(A) :][: len(A)], A) == pytest.approx(0, abs=0.5)


def test_a_channel_that_falls_silent_is_made_up_for():
    mixed = mix(np.concatenate([A, A]), np.concatenate([A, SILENT]))
    assert level_db(mixed[len(A) :], A) == pytest.approx(0, abs=1.5)


def test_the_mix_passes_from_one_setting_to_the_next_without_a_click():
    tone = (0.3 * np.sin(np.arange(SECONDS * SAMPLE_RATE) * 2 * np.pi * 200 / SAMPLE_RATE)).astype(np.float32)
    mixed = mix(np.concatenate([tone, tone, tone]), np.concatenate([tone, -tone, SILENT]))
    assert np.abs(np.diff(mixed)).max() < 1.1 * np.abs(np.diff(tone)).max()


def test_the_mix_does_not_clip_where_the_channels_don_t():
    loud = [np.sign(voice(seed)) * np.float32(0.99) for seed in range(4)]
    assert np.abs(mix(*loud)).max() <= 1.0


def test_a_constant_offset_is_no_sound():
    offset = np.full_like(A, 0.2)
    assert level_db(mix(A, offset) - mix(SILENT, offset), A) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("samples", [0, 100, 1600, 1601, 5000])
def test_short_recordings_are_mixed(samples):
    np.testing.assert_array_equal(mix(A[:samples], A[:samples]), A[:samples])
    np.testing.assert_allclose(mix(A[:samples], SILENT[:samples]), A[:samples], rtol=1e-6)


@settings(max_examples=examples(20))
@given(st.integers(1, 40_000), st.integers(1, 9))
def test_how_the_audio_comes_does_not_matter(step, channels):
    voices = [voice(seed, 1.5) for seed in range(channels)]
    np.testing.assert_array_equal(mix(*voices, step=step), mix(*voices))


@settings(max_examples=examples(50))
@given(st.integers(1, 8), st.integers(0, 1000))
def test_the_joint_power_lies_between_one_channel_s_and_all_of_them(channels, seed):
    source = np.random.default_rng(seed)
    block = source.normal(0, 1, (200, channels)) @ source.normal(0, 1, (channels, channels))
    matrix = covariance(block.astype(np.float32))
    powers = np.diag(matrix)
    assert powers.mean() / channels * (1 - 1e-9) <= joint_power(matrix) <= powers.sum() * (1 + 1e-9)
    assert np.abs(signs_of(matrix)).max() <= 1
