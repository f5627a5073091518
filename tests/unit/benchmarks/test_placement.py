"""The placement benchmark's own measures: times of text are right only if speech and pauses are where it says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.domain.audio.spans import SAMPLE_RATE
from tests.benchmarks.placement_measures import (
    MatchedWords,
    Observation,
    SampleRecall,
    covers_pause,
    cues,
    edge_observations,
    end_error,
    matched_words,
    sample_observations,
    sample_recall,
    start_error,
)
from tests.benchmarks.placement_set import Join, Pause, music, placement_set
from tests.benchmarks.result_cache import Result, TimedText, TimedWord
from tests.support import speech
from tests.support.speech import Placement

PLACEMENTS = (Placement(2.0, 4.0, "one two three four", "en"), Placement(7.0, 9.0, "the quick brown fox", "en"))


@pytest.fixture(scope="module")
def joins() -> list[Join]:
    return placement_set()


# --- the recordings


def test_the_set_is_spread_over_languages_lengths_and_pauses(joins: list[Join]) -> None:
    assert len({join.name for join in joins}) == 200
    assert set(Counter(join.lang for join in joins).values()) == {22, 23}
    assert {len(join.samples) for join in joins} == set(range(2, 13))
    assert all(len({sample.lang for sample in join.samples}) == 1 for join in joins)
    pauses = [pause for join in joins for pause in join.pauses]
    assert all(0.3 <= pause.duration_s <= 20.0 for pause in pauses)
    assert np.median([pause.duration_s for pause in pauses]) == pytest.approx(np.sqrt(0.3 * 20.0), rel=0.1)
    long_ones = [pause for pause in pauses if pause.duration_s >= 1.0]
    assert np.mean([pause.music_seed is not None for pause in long_ones]) == pytest.approx(0.3, abs=0.05)
    assert all(pause.music_seed is None for pause in pauses if pause.duration_s < 1.0)


def test_the_set_is_the_same_every_time(joins: list[Join]) -> None:
    assert joins == placement_set()


def test_music_lies_in_its_pause_and_speech_where_it_is_said_to_be(tmp_path: Path) -> None:
    samples = speech.of_language("en")[1:3]
    join = Join(0, samples, (Pause(1.0), Pause(2.0, music_seed=5), Pause(0.5)))
    joined, plain = join.joined(), speech.join(samples, [1.0, 2.0])
    first = len(speech.load(samples[0].path))
    assert joined.duration_s == pytest.approx(3.5 + sum(sample.duration_s for sample in samples))
    assert joined.placements == plain.placements
    start, end = SAMPLE_RATE + first, 3 * SAMPLE_RATE + first
    rest = np.concatenate([joined.audio[:start], joined.audio[end : len(plain.audio)]])
    np.testing.assert_array_equal(rest, np.concatenate([plain.audio[:start], plain.audio[end:]]))
    assert np.sqrt(np.mean(joined.audio[start:end] ** 2)) == pytest.approx(0.1, rel=0.01)
    assert len(speech.load(join.written(tmp_path).path)) == len(joined.audio)


@pytest.mark.parametrize("seconds", [1.0, 2.345, 20.0])
def test_music_is_20_db_below_full_scale_and_the_same_every_time(seconds: float) -> None:
    played = music(round(seconds * SAMPLE_RATE), 7)
    assert len(played) == round(seconds * SAMPLE_RATE)
    assert 20 * np.log10(np.sqrt(np.mean(played**2))) == pytest.approx(-20.0, abs=0.01)
    assert np.abs(played).max() < 1.0
    assert abs(played[0]) == abs(played[-1]) == 0.0
    assert np.array_equal(played, music(len(played), 7))


# --- the measures


@pytest.mark.parametrize(
    ("time_s", "start", "end"),
    [
        (0.0, 2.0, 2.0),
        (1.8, 0.2, 0.2),
        (2.0, 0.0, 0.0),
        (3.9, 0.0, 0.0),
        (4.5, 2.5, 0.5),
        (6.8, 0.2, 2.8),
        (9.0, 0.0, 0.0),
        (11.0, 2.0, 2.0),
    ],
)
def test_starts_belong_to_the_speech_that_follows_and_ends_to_the_one_before(
    time_s: float, start: float, end: float
) -> None:
    assert start_error(time_s, PLACEMENTS) == pytest.approx(start)
    assert end_error(time_s, PLACEMENTS) == pytest.approx(end)


@pytest.mark.parametrize(
    ("start_s", "end_s", "covers"),
    [(2.0, 4.0, False), (2.0, 9.0, True), (2.0, 4.9, False), (2.0, 5.1, True), (5.9, 9.0, True), (0.0, 1.9, False)],
)
def test_a_text_covers_a_pause_if_it_goes_on_for_more_than_a_second(start_s: float, end_s: float, covers: bool) -> None:
    assert covers_pause(TimedText(start_s, end_s, ""), PLACEMENTS) is covers


def test_observations_know_whether_they_are_good() -> None:
    starts_early, ends_late = edge_observations("segment", [TimedText(1.6, 4.4, "one")], PLACEMENTS)
    assert starts_early == Observation("segment", "start", starts_early.error_s, 1.6, "one")
    assert ends_late == Observation("segment", "end", ends_late.error_s, 4.4, "one")
    assert [starts_early.error_s, ends_late.error_s] == pytest.approx([0.4, 0.4])
    assert (starts_early.is_good, ends_late.is_good) == (False, True)


@pytest.mark.parametrize(
    ("segments", "recall", "found"),
    [
        ([(1.9, 4.1, "One, two, three, four")], (4, 4), True),
        ([(1.9, 3.0, "One, two"), (3.0, 4.1, "and five")], (2, 4), True),
        ([(1.9, 4.1, "One")], (1, 4), False),
        ([(4.1, 6.9, "One, two, three, four")], (0, 4), False),
        ([(1.0, 10.0, "One, two, three, four. The quick brown fox")], (4, 4), True),
    ],
)
def test_a_sample_is_found_in_the_segments_that_overlap_it(
    segments: list[tuple[float, float, str]], recall: tuple[int, int], found: bool
) -> None:
    seen = sample_recall(PLACEMENTS[0], [TimedText(*segment) for segment in segments])
    assert seen == SampleRecall(*recall)
    assert seen.is_found is found


@pytest.mark.parametrize(
    ("segments", "hits", "misplaced"),
    [
        ([(2.0, 4.0, "One, two, three, four."), (7.0, 9.0, "The quick brown fox.")], 8, 0),
        ([(2.0, 9.0, "One, two, three, four. The quick brown fox.")], 8, 0),
        ([(2.0, 4.0, "One, two, three, four. The quick"), (7.0, 9.0, "brown fox.")], 8, 2),
        ([(0.0, 1.0, "One, two"), (7.0, 9.0, "the slow brown")], 4, 2),
        ([], 0, 0),
    ],
)
def test_words_are_misplaced_if_their_segment_does_not_overlap_their_sample(
    segments: list[tuple[float, float, str]], hits: int, misplaced: int
) -> None:
    assert matched_words([TimedText(*segment) for segment in segments], PLACEMENTS) == MatchedWords(hits, misplaced)


@pytest.mark.parametrize("span", [(2.0, 4.0), (7.0, 9.0)])
def test_words_that_are_said_twice_are_matched_where_they_are_heard(span: tuple[float, float]) -> None:
    again = (PLACEMENTS[0], PLACEMENTS[1]._replace(text=PLACEMENTS[0].text))
    assert matched_words([TimedText(*span, "One, two, three, four.")], again) == MatchedWords(4, 0)


def test_characters_are_matched_where_there_are_no_spaces() -> None:
    said = (Placement(2.0, 4.0, "你好世界。", "zh"),)
    assert matched_words([TimedText(2.0, 4.0, "你好")], said) == MatchedWords(2, 0)


def test_samples_are_compared_with_the_nearest_segment_if_their_text_is_found() -> None:
    segments = (TimedText(1.9, 4.3, "one two three four"), TimedText(7.0, 9.0, "nothing of it"))
    seen = sample_observations(Result(segments, 1.0), PLACEMENTS)
    kinds = [(one.what, one.edge) for one in seen]
    assert kinds == [(what, edge) for edge in ("start", "end") for what in ("sample", "sample beside a pause")]
    assert [one.error_s for one in seen] == pytest.approx([0.1, 0.1, 0.3, 0.3])


def test_samples_without_a_pause_between_are_beside_none() -> None:
    near = (PLACEMENTS[0], PLACEMENTS[1]._replace(start_s=4.5))
    segments = (TimedText(2.0, 9.0, "one two three four the quick brown fox"),)
    seen = sample_observations(Result(segments, 1.0), near)
    assert [one.error_s for one in seen if one.what == "sample"] == pytest.approx([0.0, 5.0, 2.5, 0.0])
    assert [(one.edge, one.error_s) for one in seen if one.what != "sample"] == [("start", 0.0), ("end", 0.0)]


def test_with_words_samples_are_compared_with_words() -> None:
    words = (TimedWord(2.1, 3.9, "one two three four"), TimedWord(7.2, 9.1, "the quick brown fox"))
    segments = (TimedText(2.1, 9.1, "one two three four the quick brown fox", words),)
    seen = [one for one in sample_observations(Result(segments, 1.0), PLACEMENTS) if one.what == "sample"]
    assert [one.error_s for one in seen] == pytest.approx([0.1, 0.1, 0.2, 0.1])


def test_cues_are_those_of_subtitles() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 3
    shown = cues(Result((TimedText(1.0, 7.0, f" {text}"),), 1.0), 10.0)
    assert len(shown) == 3
    assert (shown[0].start_s, shown[-1].end_s) == (1.0, 7.0)
    assert " ".join(one.text for one in shown) == text.strip()
