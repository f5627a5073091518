"""A benchmark that compares contenders is only as good as its recordings, its counting and its bounds."""

from __future__ import annotations

import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.domain.audio.spans import SAMPLE_RATE
from tests.benchmarks.bootstrap import FEWEST, difference_per_100
from tests.benchmarks.result_cache import Key, Result, ResultCache, TimedText, TimedWord
from tests.benchmarks.robustness import Measured, Pair, slices_of
from tests.benchmarks.robustness_set import (
    Base,
    Recording,
    Variant,
    bases,
    gains_set,
    pink_noise,
    record,
    robustness_set,
    selected,
    speech_rms,
)
from tests.support import speech
from tests.support.accuracy import Alignment, align


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return robustness_set()


@pytest.fixture(scope="module")
def fox() -> Base:
    return Base(tuple(sample for sample in speech.of_language("en") if sample.name == "quick_brown_fox"))


# --- which recordings


def test_the_set_is_balanced(recordings: list[Recording]) -> None:
    assert len({recording.name for recording in recordings}) == 648
    conditions = Counter(recording.variant.condition for recording in recordings)
    assert conditions.pop("clean") == pytest.approx(0.4 * 648, abs=3)
    assert all(96 <= count <= 99 for count in conditions.values())
    assert set(Counter(recording.variant.edge_s for recording in recordings).values()) == {216}


@pytest.mark.parametrize(
    ("kind", "clean", "others", "edges"), [("gain", (21, 23), (6, 10), 18), ("base", (4, 5), (1, 2), 4)]
)
def test_conditions_and_edges_are_balanced_at_each_gain_and_for_each_base(
    recordings: list[Recording], kind: str, clean: tuple[int, int], others: tuple[int, int], edges: int
) -> None:
    groups: dict[str, list[Variant]] = {}
    for one in recordings:
        groups.setdefault(one.base.name if kind == "base" else one.variant.label, []).append(one.variant)
    for variants in groups.values():
        conditions = Counter(variant.condition for variant in variants)
        assert clean[0] <= conditions.pop("clean") <= clean[1]
        assert len(conditions) == 4
        assert all(others[0] <= count <= others[1] for count in conditions.values())
        assert set(Counter(variant.edge_s for variant in variants).values()) == {edges}


def test_edges_are_balanced_in_each_condition(recordings: list[Recording]) -> None:
    counts = Counter((recording.variant.condition, recording.variant.edge_s) for recording in recordings)
    assert len(counts) == 15
    assert all(abs(count - (87 if condition == "clean" else 32)) <= 2 for (condition, _), count in counts.items())


def test_the_set_is_the_same_every_time(recordings: list[Recording]) -> None:
    assert recordings == robustness_set()


def test_half_of_the_bases_are_joins_of_one_language_some_of_one_sample() -> None:
    joins = [base for base in bases() if base.pauses_s]
    assert len(bases()) == 2 * len(joins) == 54
    assert all(len({sample.lang for sample in base.samples}) == 1 for base in joins)
    assert Counter(base.lang for base in joins) == dict.fromkeys({base.lang for base in joins}, 3)
    assert sum(len(set(base.samples)) == 1 for base in joins) >= 9


def test_recordings_are_selected_by_base_slice_and_number(recordings: list[Recording]) -> None:
    left = selected(recordings, base_names=["fox", "hola"], slices=["condition=left", "condition=narrow", "kind=join"])
    assert left
    assert all({"fox", "hola"} & set(one.base.name.replace("_", "-").split("-")) for one in left)
    assert {one.slices["condition"] for one in left} == {"left", "narrow"}
    assert {one.slices["kind"] for one in left} == {"join"}
    assert selected(recordings, every=100) == recordings[::100]
    with pytest.raises(ValueError, match="no kind of slice 'noise'"):
        selected(recordings, slices=["noise=pink"])


def test_the_reported_gains_are_there() -> None:
    fox_alone = [one for one in gains_set() if one.base.name == "en-quick_brown_fox"]
    assert [round(one.variant.gain, 2) for one in fox_alone][::11] == [0.30, 0.63]
    assert {one.variant.condition for one in fox_alone[:-1]} == {"left"}


# --- their sound


@pytest.mark.parametrize(
    ("condition", "channels", "rate"), [("clean", 1, 16_000), ("left", 2, 16_000), ("narrow", 1, 8_000)]
)
def test_a_recording_has_its_gain_rate_channels_and_edges(
    fox: Base, tmp_path: Path, condition: str, channels: int, rate: int
) -> None:
    written = Recording(fox, Variant(0.5, condition, 0.5, "half"), 7).written(tmp_path)
    with wave.open(str(written.path)) as file:
        assert (file.getnchannels(), file.getframerate()) == (channels, rate)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, channels) / 32_767
    assert len(samples) / rate == pytest.approx(fox.joined().duration_s + 1.0, abs=0.01)
    assert np.abs(samples[: round(0.49 * rate), 0]).max() < 0.001
    assert np.abs(samples).max() == pytest.approx(np.abs(fox.joined().audio).max() / 2, rel=0.1)
    assert not samples[:, 1:].any()


def test_what_exceeds_full_scale_is_clipped(fox: Base, tmp_path: Path) -> None:
    written = Recording(fox, Variant(20.0, "clean", 0.0, "loud"), 7).written(tmp_path)
    loud = speech.load(written.path)
    assert np.abs(loud).max() == pytest.approx(1.0, abs=0.001)
    assert (np.abs(loud) > 0.999).mean() > 0.05


def test_noise_has_its_distance_to_the_speech(fox: Base) -> None:
    joined = fox.joined()
    noisy = record(joined, Variant(1.0, "pink 20 dB", 0.0, "as is"), 3)
    noise_rms = np.sqrt(np.mean((noisy - joined.audio) ** 2))
    assert 20 * np.log10(speech_rms(joined) / noise_rms) == pytest.approx(20.0, abs=0.1)


def test_noise_is_pink_and_the_same_every_time() -> None:
    noise = pink_noise(16 * SAMPLE_RATE, 1)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [power[16 * hertz : 32 * hertz].sum() for hertz in (100, 400, 1600)]
    assert max(octaves) / min(octaves) < 1.3
    assert np.array_equal(noise, pink_noise(16 * SAMPLE_RATE, 1))
    assert not np.array_equal(noise, pink_noise(16 * SAMPLE_RATE, 2))


# --- counting


@pytest.mark.parametrize(
    ("lang", "reference", "hypothesis", "alignment"),
    [
        ("en", "One two three four.", "1, 2", Alignment(hits=2, deletions=2, trailing_deletions=2)),
        ("en", "One two three four.", "three four", Alignment(hits=2, deletions=2)),
        ("en", "a b c d", "a b x", Alignment(hits=2, substitutions=1, deletions=1, trailing_deletions=1)),
        ("en", "a b", "a b c", Alignment(hits=2, insertions=1)),
        ("en", "Hello world.", "", Alignment(deletions=2, trailing_deletions=2)),
        ("en", "a b c a b c", "a b c", Alignment(hits=3, deletions=3, trailing_deletions=3)),
        ("zh", "你好世界。", "你", Alignment(hits=1, deletions=3, trailing_deletions=3)),
    ],
)
def test_an_alignment_says_how_many_words_are_missing_at_the_end(
    lang: str, reference: str, hypothesis: str, alignment: Alignment
) -> None:
    assert align(lang, reference, hypothesis) == alignment


@pytest.mark.parametrize(
    ("lang", "missing", "truncated"), [("en", 1, False), ("en", 2, True), ("zh", 2, False), ("zh", 3, True)]
)
def test_two_words_or_three_characters_make_a_truncation(lang: str, missing: int, truncated: bool) -> None:
    base = Base((speech.of_language(lang)[-1],))
    units = list(base.text.rstrip(".。")) if lang == "zh" else base.text.split()
    kept = ("" if lang == "zh" else " ").join(units[:-missing])
    assert measured(base, kept).is_truncated is truncated


def measured(base: Base, text: str) -> Measured:
    recording = Recording(base, Variant(1.0, "clean", 0.5, "+0.0 dB"), 0)
    return Measured(recording, Result((TimedText(0.0, 1.0, text),), 1.0))


def test_slices_hold_the_pairs_of_each_value(fox: Base) -> None:
    pair = Pair(measured(fox, "the quick"), measured(fox, fox.text))
    assert pair.extra_deletions == 7
    names = ["all", "gain=+0.0 dB", "condition=clean", "edge=0.5 s", "kind=sample", "language=en"]
    names.append("base=en-quick_brown_fox")
    assert slices_of([pair, pair]) == {name: [pair, pair] for name in names}


# --- bounds


def test_bounds_enclose_the_difference_and_are_the_same_every_time() -> None:
    source = np.random.default_rng(0)
    theirs, lengths = source.integers(0, 3, 200), source.integers(5, 15, 200)
    worse, even = theirs + source.integers(0, 2, 200), theirs + source.integers(-1, 2, 200)

    found = difference_per_100(worse, theirs, lengths)

    assert found == difference_per_100(worse, theirs, lengths)
    assert found.difference == pytest.approx(100 * (worse - theirs).sum() / lengths.sum())
    assert found.low < found.difference < found.high
    assert found.is_above_zero
    assert not difference_per_100(even, theirs, lengths).is_above_zero
    assert not difference_per_100(theirs, worse, lengths).is_above_zero


def test_the_bounds_of_a_mean_are_those_of_the_normal_distribution() -> None:
    ours = np.random.default_rng(0).normal(0.0, 1.0, 400)
    found = difference_per_100(ours, np.zeros(400), np.ones(400))
    assert found.high - found.low == pytest.approx(2 * 1.96 * 100 * ours.std() / 20, rel=0.1)


def test_a_few_recordings_prove_nothing() -> None:
    few, enough = FEWEST - 1, FEWEST
    assert not difference_per_100([1] * few, [0] * few, [1] * few).is_above_zero
    assert difference_per_100([1] * enough, [0] * enough, [1] * enough).is_above_zero


# --- kept results

KEY = Key("plain", "fox", "00", "base int8", "en")
RESULT = Result((TimedText(0.0, 1.5, " The fox", (TimedWord(0.0, 0.5, " The"), TimedWord(0.5, 1.5, " fox"))),), 2.0)


def test_results_are_kept_in_the_file_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    ResultCache(path).put(KEY, RESULT)
    again = ResultCache(path)
    assert again.get(KEY) == RESULT
    assert again.get(KEY._replace(sha256="01")) is None
    assert RESULT.text == "The fox"


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    cache, other = ResultCache(path), KEY._replace(recording="other")
    cache.put(KEY, RESULT)
    cache.put(other, RESULT)
    path.write_text(path.read_text()[:-20])
    again = ResultCache(path)
    assert (again.get(KEY), again.get(other)) == (RESULT, None)
    again.put(other, RESULT)
    assert ResultCache(path).get(other) == RESULT


def test_results_that_are_forgotten_are_gone_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    cache, other = ResultCache(path), KEY._replace(contender="batched")
    cache.put(KEY, RESULT)
    cache.put(other, RESULT)
    cache.forget({KEY})
    assert (ResultCache(path).get(KEY), ResultCache(path).get(other)) == (None, RESULT)


def test_without_a_file_results_are_kept_in_memory() -> None:
    cache = ResultCache(None)
    cache.put(KEY, RESULT)
    assert cache.get(KEY) == RESULT
