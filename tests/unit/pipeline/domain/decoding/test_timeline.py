from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.domain.audio.spans import SAMPLE_RATE, Chunk, Span
from pipeline.domain.decoding.timeline import place, shift
from pipeline.domain.decoding.transcript import Word
from tests.support.builders import segment

TWO_SPANS = Chunk(3, 0, 0, (Span(10 * SAMPLE_RATE, 12 * SAMPLE_RATE), Span(20 * SAMPLE_RATE, 23 * SAMPLE_RATE)))


def timed_segment(start, end, *words, text=" said"):
    return segment(start, end, text, words or None)


def test_segments_are_placed_where_their_spans_lie():
    first, second = place(TWO_SPANS, [timed_segment(0.0, 2.0), timed_segment(2.0, 4.5)])
    assert (first.start, first.end, first.seek) == (10.0, 12.0, 1000)
    assert (second.start, second.end) == (20.0, 22.5)


def words_of(placed):
    return [[(word.word, word.start, word.end) for word in one.words] for one in placed]


def test_a_word_across_a_cut_lies_where_most_of_it_was():
    said = timed_segment(
        0.2,
        3.0,
        Word(0.2, 1.0, " so", 0.9),
        Word(1.0, 2.2, " one", 0.9),
        Word(2.2, 3.0, " two", 0.9),
        text=" so one two",
    )
    first, second = place(TWO_SPANS, [said])
    assert words_of([first, second]) == [[(" so", 10.2, 11.0), (" one", 11.0, 12.0)], [(" two", 20.2, 21.0)]]
    assert (first.text, first.start, first.end) == (" so one", 10.2, 12.0)
    assert (second.text, second.start, second.end) == (" two", 20.2, 21.0)


def test_the_first_word_of_a_sentence_comes_after_a_cut():
    words = [Word(1.0, 1.7, " Stop.", 0.9), Word(1.7, 2.15, " The", 0.9), Word(2.15, 2.6, " fox", 0.9)]
    first, second = place(TWO_SPANS, [timed_segment(1.0, 2.6, *words, text=" Stop. The fox")])
    assert words_of([first, second]) == [[(" Stop.", 11.0, 11.7)], [(" The", 20.0, 20.15), (" fox", 20.15, 20.6)]]


def test_the_last_word_of_a_sentence_comes_before_a_cut():
    words = [Word(1.4, 1.9, " lazy", 0.9), Word(1.9, 2.3, " dog.", 0.9), Word(2.3, 2.6, " The", 0.9)]
    first, second = place(TWO_SPANS, [timed_segment(1.4, 2.6, *words, text=" lazy dog. The")])
    assert words_of([first, second]) == [[(" lazy", 11.4, 11.9), (" dog.", 11.9, 12.0)], [(" The", 20.3, 20.6)]]


def test_a_word_stretched_over_the_silence_lies_where_it_reaches_into_speech():
    words = [Word(0.5, 1.2, " hai", 0.9), Word(1.2, 2.7, " unte", 0.9), Word(2.7, 3.0, " ke", 0.9)]
    speech = [Span(0, round(1.3 * SAMPLE_RATE)), Span(round(2.3 * SAMPLE_RATE), 5 * SAMPLE_RATE)]
    first, second = place(TWO_SPANS, [timed_segment(0.5, 3.0, *words, text=" hai unte ke")], speech)
    assert words_of([first, second]) == [[(" hai", 10.5, 11.2)], [(" unte", 20.3, 20.7), (" ke", 20.7, 21.0)]]


def test_speech_that_was_not_found_again_stays_on_its_side():
    words = [Word(0.7, 1.1, " Hello", 0.9), Word(1.1, 1.4, " world", 0.9)]
    [placed] = place(
        TWO_SPANS, [timed_segment(0.7, 1.4, *words)], [Span(0, 1000), Span(3 * SAMPLE_RATE, 4 * SAMPLE_RATE)]
    )
    assert (placed.start, placed.end) == (10.7, 11.4)


@pytest.mark.parametrize("before", [" door", " door,"])
def test_a_word_in_the_silence_comes_after_it(before):
    words = [Word(0.5, 1.32, before, 0.9), Word(1.32, 1.9, " I", 0.9), Word(1.9, 2.8, " never", 0.9)]
    speech = [Span(0, round(1.4 * SAMPLE_RATE)), Span(round(2.3 * SAMPLE_RATE), 5 * SAMPLE_RATE)]
    first, second = place(TWO_SPANS, [timed_segment(0.5, 2.8, *words, text=f"{before} I never")], speech)
    assert ([one[0] for one in words_of([first])[0]], [one[0] for one in words_of([second])[0]]) == (
        [before],
        [" I", " never"],
    )
    assert second.start == 20.3


def test_a_sentence_s_first_word_that_only_touches_a_cut_stays_with_the_next():
    words = [Word(1.0, 1.5, " Stop.", 0.9), Word(1.5, 1.9, " The", 0.9), Word(1.9, 2.0, " fox", 0.9)]
    [placed] = place(TWO_SPANS, [timed_segment(1.0, 2.0, *words, text=" Stop. The fox")])
    assert (placed.start, placed.end) == (11.0, 12.0)


WHOLE = Chunk(0, 0, 0, (Span(0, 12 * SAMPLE_RATE),))


def test_words_are_shortened_to_the_speech_they_reach_into():
    words = [Word(2.0, 6.3, " The", 0.9), Word(6.3, 7.0, " fox", 0.9), Word(7.0, 9.0, " jumps", 0.9)]
    speech = [Span(0, 2 * SAMPLE_RATE), Span(6 * SAMPLE_RATE, 8 * SAMPLE_RATE)]
    [placed] = place(WHOLE, [timed_segment(2.0, 9.0, *words, text=" The fox jumps")], speech)
    assert words_of([placed]) == [[(" The", 6.0, 6.3), (" fox", 6.3, 7.0), (" jumps", 7.0, 8.0)]]


def test_a_word_keeps_the_time_it_takes_to_say():
    speech = [Span(0, 5 * SAMPLE_RATE)]
    [placed] = place(WHOLE, [timed_segment(4.9, 5.2, Word(4.9, 5.2, " dog", 0.9))], speech)
    assert (placed.start, placed.end) == (4.9, pytest.approx(5.09, abs=0.01))


def test_a_word_near_speech_is_moved_to_it_and_one_that_is_far_is_not():
    speech = [Span(2 * SAMPLE_RATE, 5 * SAMPLE_RATE)]
    said = [timed_segment(1.7, 1.8, Word(1.7, 1.8, " a", 0.9)), timed_segment(9.0, 9.5, Word(9.0, 9.5, " you", 0.9))]
    assert words_of(place(WHOLE, said, speech)) == [[(" a", 2.0, 2.02)], [(" you", 9.0, 9.5)]]


def test_a_long_silence_divides_a_segment_whose_words_are_stretched_over_it():
    words = [Word(0.0, 3.0, " one", 0.9), Word(3.0, 7.0, " two", 0.9)]
    speech = [Span(0, 2 * SAMPLE_RATE), Span(6 * SAMPLE_RATE, 8 * SAMPLE_RATE)]
    placed = place(WHOLE, [timed_segment(0.0, 7.0, *words, text=" one two")], speech)
    assert words_of(placed) == [[(" one", 0.0, 2.0)], [(" two", 6.0, 7.0)]]


SHORT_CUT = Chunk(0, 0, 0, (Span(0, 2 * SAMPLE_RATE), Span(round(2.5 * SAMPLE_RATE), 4 * SAMPLE_RATE)))


def test_a_short_pause_does_not_divide_a_segment():
    words = [Word(1.0, 2.0, " and", 0.9), Word(2.0, 3.0, " so", 0.9)]
    [placed] = place(SHORT_CUT, [timed_segment(1.0, 3.0, *words, text=" and so")])
    assert (placed.start, placed.end, placed.text) == (1.0, 3.5, " and so")


def test_a_long_pause_in_the_audio_divides_a_segment():
    whole = Chunk(0, 0, 0, (Span(0, 9 * SAMPLE_RATE),))
    words = [Word(1.0, 2.0, " and", 0.9), Word(5.0, 6.0, " so", 0.9)]
    assert [(one.start, one.end) for one in place(whole, [timed_segment(1.0, 6.0, *words, text=" and so")])] == [
        (1.0, 2.0),
        (5.0, 6.0),
    ]


def test_words_without_length_get_some():
    said = timed_segment(0.0, 1.0, Word(0.0, 0.5, " U", 0.9), Word(0.5, 0.5, ".S", 0.9), Word(0.5, 1.0, " army", 0.9))
    [placed] = place(TWO_SPANS, [said])
    assert [(word.start, word.end) for word in placed.words] == [(10.0, 10.5), (10.5, 10.52), (10.52, 11.0)]


def test_words_at_the_end_make_room_for_each_other():
    said = timed_segment(
        4.0, 5.0, Word(4.0, 5.0, " one", 0.9), Word(5.0, 5.0, " two", 0.9), Word(5.0, 5.0, " three", 0.9)
    )
    [placed] = place(TWO_SPANS, [said])
    assert [(word.start, word.end) for word in placed.words] == [(22.0, 22.96), (22.96, 22.98), (22.98, 23.0)]


def test_symbols_are_kept():
    assert [one.text for one in place(TWO_SPANS, [timed_segment(0.0, 1.0, text=" ♪♪")])] == [" ♪♪"]


def test_a_segment_without_length_gets_some():
    assert [(one.start, one.end) for one in place(TWO_SPANS, [timed_segment(1.0, 1.0)])] == [(11.0, 11.02)]


def test_a_segment_of_punctuation_says_nothing():
    assert place(TWO_SPANS, [timed_segment(0.0, 1.0, text=" ... ... ...")]) == ()


def test_text_in_the_margin_behind_the_audio_is_dropped():
    assert place(TWO_SPANS, [timed_segment(5.0, 6.5), timed_segment(5.2, 6.0, Word(5.2, 6.0, " you", 0.1))]) == ()


def test_text_that_ends_in_the_margin_ends_with_the_audio():
    [placed] = place(TWO_SPANS, [timed_segment(4.0, 6.5)])
    assert placed.end == 23.0


def test_blank_text_is_dropped():
    assert place(TWO_SPANS, [timed_segment(0.0, 1.0, text="  ")]) == ()


def test_shift_moves_segment_and_words():
    moved = shift(timed_segment(1.0, 2.0, Word(1.0, 2.0, " one", 0.9)), 3.0)
    assert (moved.start, moved.end, moved.words[0].start, moved.words[0].end) == (4.0, 5.0, 4.0, 5.0)
    assert shift(timed_segment(1.0, 2.0), 0.5) == replace(timed_segment(1.0, 2.0), start=1.5, end=2.5)


@st.composite
def chunks(draw):
    edges = draw(st.lists(st.integers(0, 60 * SAMPLE_RATE), min_size=2, max_size=10, unique=True).map(sorted))
    spans = [Span(start, end) for start, end in zip(edges[::2], edges[1::2], strict=False)]
    assume(sum(span.duration_s for span in spans) >= 0.05)  # shorter chunks are not decoded
    return Chunk(0, 0, 0, tuple(spans))


times = st.floats(0, 40).map(lambda time: round(time, 2))


@given(chunks(), st.lists(times, min_size=2, max_size=12).map(sorted), st.booleans())
def test_nothing_leaves_the_chunk_and_order_is_kept(chunk, edges, with_words):
    said = [
        timed_segment(
            start,
            end,
            *([Word(start, (start + end) / 2, "a", 0.5), Word((start + end) / 2, end, "b", 0.5)] * with_words),
        )
        for start, end in zip(edges[::2], edges[1::2], strict=False)
    ]
    placed = place(chunk, said)
    for one in placed:
        assert chunk.start_s - 0.001 <= one.start < one.end <= chunk.end_s
        for word in one.words or ():
            assert one.start <= word.start <= word.end <= one.end
        for before, after in pairwise(one.words or ()):
            assert before.end <= after.start
    starts = [one.start for one in placed]
    assert starts == sorted(starts)
