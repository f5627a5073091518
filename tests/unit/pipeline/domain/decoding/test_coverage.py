from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.audio.spans import to_samples
from pipeline.domain.audio.speech import merge_touching
from pipeline.domain.decoding.coverage import LETTER_S, MIN_UTTERANCE_S, is_stretched, uncovered
from pipeline.domain.decoding.transcript import Word
from tests.support.builders import span


def word(start: float, end: float, text: str | None = None) -> Word:
    """Make a word that fills its time, unless its text is given."""
    return Word(start, end, text or " " + "a" * max(1, round((end - start) / LETTER_S)), 0.9)


def test_speech_before_between_and_after_words_is_found() -> None:
    speech = [span(0, 10)]
    assert uncovered(speech, [word(2, 4), word(6, 8)]) == [span(0, 2), span(4, 6), span(8, 10)]


def test_pauses_between_words_are_none() -> None:
    assert uncovered([span(0, 10)], [word(0.5, 3), word(3.9, 6), word(6, 9.1)]) == []


def test_what_is_not_speech_need_not_be_covered() -> None:
    speech = [span(0, 3), span(8, 11)]
    assert uncovered(speech, [word(0, 3), word(8, 11)]) == []
    assert uncovered(speech, [word(0, 2.5)]) == [span(2.5, 11)]


def test_a_short_utterance_without_a_word_counts() -> None:
    speech = [span(0, 1.2), span(4, 4.7), span(6, 6.3)]
    assert uncovered(speech, [word(0, 1)]) == [span(1, 6.3)]
    assert uncovered(speech, [word(0, 1), word(4.3, 4.6)]) == []
    assert uncovered(speech, [word(0, 1)], shortest_s=3.0) == []


def test_short_pieces_of_speech_count_together() -> None:
    assert uncovered([span(0, 0.6), span(5, 5.6)], []) == [span(0, 5.6)]


def test_punctuation_covers_nothing() -> None:
    assert uncovered([span(0, 3)], [word(0, 3, "...")]) == [span(0, 3)]


def test_a_stretched_word_hides_what_else_is_said() -> None:
    assert is_stretched(word(0, 2.4, " world"))
    assert is_stretched(word(0, 4.2, "长"))
    assert not is_stretched(word(0, 1.5, " world"))
    assert not is_stretched(word(0, 2.8, " 1984"))
    words = [word(0, 1), word(1, 5, " dog"), word(5, 6)]
    assert uncovered([span(0, 6)], words) == [span(1, 5)]


def test_any_speech_counts_where_none_is_too_short() -> None:
    assert uncovered([span(0, 0.4)], [], shortest_s=0.0) == [span(0, 0.4)]


def test_without_speech_nothing_is_missing() -> None:
    assert uncovered([], [word(0, 1)]) == []


times = st.floats(0, 30).map(lambda time: round(time, 2))


pairs = st.lists(st.tuples(times, times).map(sorted), max_size=8)


@given(pairs, pairs)
def test_what_is_found_is_long_enough_and_holds_no_word(speech: list[list[float]], said: list[list[float]]) -> None:
    spans = merge_touching(sorted(span(*pair) for pair in speech))
    words = [word(start, end) for start, end in sorted(said)]
    for stretch in uncovered(spans, words):
        assert stretch.duration_s >= MIN_UTTERANCE_S
        middles = (to_samples((one.start + one.end) / 2) for one in words if one.end > one.start)
        assert not any(stretch.start < middle < stretch.end for middle in middles)
