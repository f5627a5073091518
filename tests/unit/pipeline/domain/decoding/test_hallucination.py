import pytest

from pipeline.domain.audio.spans import Span
from pipeline.domain.decoding.hallucination import drop_hallucinations, drop_text_without_speech, is_anomalous
from pipeline.domain.decoding.transcript import Segment, Word
from tests.support.builders import segment


def three_words(start, end, *, sure=True, word_s=None):
    """Make a segment of three words that fill it, or last ``word_s`` each; probable or not."""
    step = (end - start) / 3
    words = tuple(
        Word(start + i * step, start + i * step + (word_s or step), f" word{i}", 0.9 if sure else 0.05)
        for i in range(3)
    )
    return segment(start, end, " words", words)


def test_improbable_words_make_a_segment_anomalous():
    assert is_anomalous(three_words(0, 3, sure=False))
    assert not is_anomalous(three_words(0, 3))


@pytest.mark.parametrize("word_s", [0.01, 3.5])
def test_words_too_short_or_too_long_make_a_segment_anomalous(word_s):
    assert is_anomalous(three_words(0, 12, word_s=word_s))


def test_a_segment_without_words_is_not_anomalous():
    assert not is_anomalous(Segment(0, 0, 0.0, 1.0, "...", (), 0.0, -0.2, 1.0, 0.0, ()))


def test_an_anomaly_between_silences_is_dropped():
    good, made_up, rest = three_words(10, 13), three_words(17, 18, sure=False), three_words(22, 29)
    assert drop_hallucinations((good, made_up, rest), 2.0, 10, 30) == (good, rest)


@pytest.mark.parametrize("neighbours", [(13.5, 22), (17, 18.5)])
def test_an_anomaly_beside_speech_is_kept(neighbours):
    start, next_start = neighbours
    said = (three_words(10, 13), three_words(start, start + 1, sure=False), three_words(next_start, next_start + 3))
    assert drop_hallucinations(said, 2.0, 10, 30) == said


def test_a_probable_segment_between_silences_is_kept():
    said = (three_words(10, 13), three_words(17, 18), three_words(22, 29))
    assert drop_hallucinations(said, 2.0, 10, 30) == said


def test_the_edges_of_the_chunk_count_as_silence():
    assert drop_hallucinations((three_words(10, 12, sure=False),), 2.0, 10, 13) == ()


def test_an_anomaly_counts_as_silence_for_the_one_before_it():
    made_up = (three_words(17, 18, sure=False), three_words(18.5, 19.5, sure=False))
    good, rest = three_words(10, 13), three_words(23, 29)
    assert drop_hallucinations((good, *made_up, rest), 2.0, 10, 30) == (good, made_up[1], rest)


def test_text_where_nobody_speaks_is_dropped_if_there_is_no_sound():
    said, silent, beside = three_words(0, 1), three_words(5, 6), three_words(8, 9)
    speech, audible = [Span(0, 16_000)], [Span(0, 16_000), Span(128_000, 144_000)]
    assert drop_text_without_speech([said, silent, beside], speech, audible) == (said, beside)


@pytest.mark.parametrize("made_up", [three_words(8, 8.1), three_words(8, 9, sure=False)])
def test_text_beside_speech_is_dropped_if_its_words_are_improbable_or_have_no_time(made_up):
    assert drop_text_without_speech([made_up], [Span(0, 16_000)], [Span(0, 160_000)]) == ()
