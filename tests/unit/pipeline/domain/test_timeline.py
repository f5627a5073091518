from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.audio import SAMPLE_RATE, Chunk, Span
from pipeline.domain.timeline import place, shift
from pipeline.domain.transcript import Segment, Word

TWO_SPANS = Chunk(3, 0, 0, (Span(10 * SAMPLE_RATE, 12 * SAMPLE_RATE), Span(20 * SAMPLE_RATE, 23 * SAMPLE_RATE)))


def segment(start, end, *words, text=" said"):
    return Segment(0, 0, start, end, text, (1,), 0.0, -0.2, 1.0, 0.0, words or None)


def test_segments_are_placed_where_their_spans_lie():
    first, second = place(TWO_SPANS, [segment(0.0, 2.0), segment(2.0, 4.5)])
    assert (first.start, first.end, first.seek) == (10.0, 12.0, 1000)
    assert (second.start, second.end) == (20.0, 22.5)


def test_a_word_across_a_cut_lies_where_most_of_it_was():
    [placed] = place(TWO_SPANS, [segment(1.0, 3.0, Word(1.0, 2.2, " one", 0.9), Word(2.2, 3.0, " two", 0.9))])
    assert [(word.start, word.end) for word in placed.words] == [(11.0, 12.0), (20.2, 21.0)]
    assert (placed.start, placed.end) == (11.0, 21.0)


def test_text_in_the_margin_behind_the_audio_is_dropped():
    assert place(TWO_SPANS, [segment(5.0, 6.5), segment(5.2, 6.0, Word(5.2, 6.0, " you", 0.1))]) == ()


def test_text_that_ends_in_the_margin_ends_with_the_audio():
    [placed] = place(TWO_SPANS, [segment(4.0, 6.5)])
    assert placed.end == 23.0


def test_blank_text_is_dropped():
    assert place(TWO_SPANS, [segment(0.0, 1.0, text="  ")]) == ()


def test_shift_moves_segment_and_words():
    moved = shift(segment(1.0, 2.0, Word(1.0, 2.0, " one", 0.9)), 3.0)
    assert (moved.start, moved.end, moved.words[0].start, moved.words[0].end) == (4.0, 5.0, 4.0, 5.0)
    assert shift(segment(1.0, 2.0), 0.5) == replace(segment(1.0, 2.0), start=1.5, end=2.5)


@st.composite
def chunks(draw):
    edges = draw(st.lists(st.integers(0, 60 * SAMPLE_RATE), min_size=2, max_size=10, unique=True).map(sorted))
    spans = tuple(Span(start, end) for start, end in zip(edges[::2], edges[1::2], strict=False))
    return Chunk(0, 0, 0, spans)


times = st.floats(0, 40).map(lambda time: round(time, 2))


@given(chunks(), st.lists(times, min_size=2, max_size=12).map(sorted), st.booleans())
def test_nothing_leaves_the_chunk_and_order_is_kept(chunk, edges, with_words):
    said = [
        segment(
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
    starts = [one.start for one in placed]
    assert starts == sorted(starts)
