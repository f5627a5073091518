from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.audio.level import HELD_SECONDS, HOP_SAMPLES, MAX_GAIN_DB, MAX_PEAK, TARGET_DB, LevelControl
from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.domain.audio.speech import Signal
from tests.support.thoroughness import examples


def speech(seconds: float, level_db: float, seed: int = 1, pause_s: float = 0.0) -> Signal:
    """Make noise in syllables, four a second, at about ``level_db``, followed by a pause."""
    source = np.random.default_rng(seed)
    samples = int(seconds * SAMPLE_RATE)
    swell = np.abs(np.sin(np.arange(samples) * 2 * np.pi * 2 / SAMPLE_RATE)) ** 2
    audio = source.normal(0, 1, samples) * swell
    audio *= 10 ** (level_db / 20) / np.sqrt(np.square(audio).mean())
    return np.concatenate([audio, np.zeros(int(pause_s * SAMPLE_RATE))]).astype(np.float32)


def noise_at(seconds: float, level_db: float, seed: int = 2) -> Signal:
    return np.random.default_rng(seed).normal(0, 10 ** (level_db / 20), int(seconds * SAMPLE_RATE)).astype(np.float32)


def raised(audio: Signal, step: int = 30_000) -> Signal:
    control = LevelControl()
    pieces = [control.feed(audio[start : start + step]) for start in range(0, len(audio), step)]
    whole = np.concatenate([*pieces, control.finish()])
    assert whole.dtype == np.float32
    assert len(whole) == len(audio)
    return whole


def db(audio: Signal) -> float:
    return float(10 * np.log10(np.square(audio.astype(np.float64)).mean() + 1e-20))


def gain_db(before: Signal, after: Signal) -> float:
    return db(after) - db(before)


@pytest.mark.parametrize("level_db", [-60, -50, -40, -30, -25])
def test_quiet_speech_is_raised_to_the_working_level(level_db: int) -> None:
    assert TARGET_DB - 4 < db(raised(speech(20, level_db))) < TARGET_DB + 1


@pytest.mark.parametrize("level_db", [-19, -12, -6])
def test_speech_at_the_working_level_stays_as_it_is(level_db: int) -> None:
    audio = np.clip(speech(20, level_db), -1, 1)
    np.testing.assert_array_equal(raised(audio), audio)


@settings(max_examples=examples(25))
@given(st.floats(-40, 0), st.integers(1, 5), st.sampled_from([0.3, 1.0, 2.5, 8.0, 30.0]))
def test_a_recording_gives_the_same_whatever_it_was_scaled_by(scale_db: float, seed: int, seconds: float) -> None:
    audio = speech(seconds, -25, seed, pause_s=1.5) + noise_at(seconds + 1.5, -65)
    scaled = (audio * 10 ** (scale_db / 20)).astype(np.float32)
    np.testing.assert_allclose(raised(scaled), raised(audio), atol=1e-4)


@settings(max_examples=examples(25))
@given(st.floats(-70, 0), st.floats(0.001, 1), st.integers(0, 20 * SAMPLE_RATE - 1))
def test_nothing_is_raised_beyond_full_scale(level_db: float, peak: float, at: int) -> None:
    audio = np.clip(speech(20, level_db), -1, 1)
    audio[at] = peak
    after = raised(audio)
    changed = after != audio
    assert np.abs(after[changed]).max(initial=0) <= MAX_PEAK + 1e-6


@settings(max_examples=examples(15))
@given(st.integers(1, 200_000))
def test_how_the_audio_comes_does_not_matter(step: int) -> None:
    audio = np.concatenate([speech(7, -40), noise_at(3, -70), speech(7.3, -25)])
    np.testing.assert_array_equal(raised(audio, step), raised(audio))


@pytest.mark.parametrize("level_db", [-80, -60, -50, -30])
def test_noise_alone_is_not_raised(level_db: int) -> None:
    np.testing.assert_array_equal(raised(noise_at(60, level_db)), noise_at(60, level_db))


def test_hum_a_held_tone_and_silence_are_not_raised() -> None:
    times = np.arange(30 * SAMPLE_RATE) / SAMPLE_RATE
    for audio in (np.sin(times * 2 * np.pi * 50), np.sin(times * 2 * np.pi * 440), times * 0):
        quiet = (audio * 0.003).astype(np.float32)
        np.testing.assert_array_equal(raised(quiet), quiet)


def test_clicks_are_not_raised() -> None:
    audio = noise_at(30, -80)
    audio[:: 5 * SAMPLE_RATE] = 0.05
    np.testing.assert_array_equal(raised(audio), audio)


def test_hum_and_a_constant_offset_don_t_hide_that_speech_is_quiet() -> None:
    audio = speech(20, -50)
    times = np.arange(len(audio)) / SAMPLE_RATE
    hum = (0.02 * np.sin(times * 2 * np.pi * 50)).astype(np.float32)
    for beside in (hum, np.full_like(audio, 0.2)):
        heard = raised(audio + beside)
        gain_db = 20 * np.log10(abs(heard @ audio) / (audio @ audio))
        assert gain_db > 25


def test_a_constant_offset_is_not_raised() -> None:
    audio = speech(20, -50) + np.float32(0.05)
    assert raised(audio).mean() == pytest.approx(0.05, abs=0.03)


def test_noise_in_a_long_pause_is_not_raised_further() -> None:
    audio = np.concatenate([speech(10, -45), np.zeros(60 * SAMPLE_RATE), speech(10, -45)]).astype(np.float32)
    audio += noise_at(80, -75)
    after = raised(audio)
    begin, end = (slice(second * SAMPLE_RATE, (second + 10) * SAMPLE_RATE) for second in (20, 55))
    assert gain_db(audio[begin], after[begin]) == pytest.approx(gain_db(audio[end], after[end]), abs=0.5)
    assert db(after[end]) < -45


def test_a_quiet_speaker_after_a_loud_one_is_raised_little_by_little() -> None:
    audio = np.concatenate([speech(15, -20), speech(40, -45, pause_s=0)])
    after = raised(audio)
    windows = [slice(second * SAMPLE_RATE, (second + 2) * SAMPLE_RATE) for second in (16, 25, 50)]
    gains = [gain_db(audio[window], after[window]) for window in windows]
    assert gains[0] < 8 < gains[1] < 22 < gains[2]


def test_a_loud_speaker_after_a_quiet_one_is_not_distorted() -> None:
    audio = np.concatenate([speech(20, -50), speech(10, -15)])
    after = raised(np.clip(audio, -1, 1))
    assert db(after[: 10 * SAMPLE_RATE]) > -25
    loud = slice(21 * SAMPLE_RATE, None)
    np.testing.assert_array_equal(after[loud], np.clip(audio, -1, 1)[loud])


def test_the_gain_is_bounded() -> None:
    audio = speech(20, -90)
    assert gain_db(audio, raised(audio)) <= MAX_GAIN_DB + 0.01


def test_the_gain_changes_without_a_jump() -> None:
    audio = np.concatenate([speech(8, -50), speech(8, -15), speech(30, -50)])
    audio[3 * SAMPLE_RATE] = 0.9
    after = raised(audio)
    heard = np.abs(audio) > 0.001
    gains = after[heard] / audio[heard]
    ratio = gains[1:] / gains[:-1]
    assert ratio.max() < 1.3
    assert ratio.min() > 0.7


def test_little_is_held() -> None:
    control, audio = LevelControl(), speech(60, -40)
    given = sum(len(control.feed(block)) for block in audio.reshape(-1, SAMPLE_RATE))
    assert len(audio) - given <= HELD_SECONDS * SAMPLE_RATE + HOP_SAMPLES


@pytest.mark.parametrize("samples", [0, 1, 127, 128, 5000, HOP_SAMPLES, HOP_SAMPLES + 1])
def test_short_recordings_come_through(samples: int) -> None:
    audio = speech(2, -15)[:samples]
    np.testing.assert_array_equal(raised(audio), audio)
