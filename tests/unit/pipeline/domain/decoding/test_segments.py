import pytest

from pipeline.domain.decoding.segments import divide, ends_sentence, without_words
from pipeline.domain.decoding.transcript import AlignedWord, Segment
from tests.support.builders import segment_of


def word(start, end, *tokens):
    return AlignedWord(start, end, f" {tokens[0]}", 0.9, tokens)


def decoded(*words):
    """Make a segment of words, with their tokens between those of its times."""
    return segment_of(*words, tokens=(900, *(token for one in words for token in one.tokens), 901))


def pause(before, after):
    return after.start - before.end > 1.0


def test_a_segment_without_pauses_stays_as_it_is():
    whole = decoded(word(0.5, 1, 1), word(1.9, 2.5, 2, 3))
    assert list(divide(whole, pause)) == [whole]


def test_pauses_divide_a_segment_with_its_words_and_tokens():
    whole = decoded(word(0, 1, 1, 2), word(1, 2, 3), word(3.5, 4, 4), word(9, 10, 5, 6))
    assert [(one.start, one.end, one.text, one.tokens) for one in divide(whole, pause)] == [
        (0, 2, " 1 3", (1, 2, 3)),
        (3.5, 4, " 4", (4,)),
        (9, 10, " 5", (5, 6)),
    ]


def test_without_words_there_is_nothing_to_divide():
    empty = Segment(0, 0, 0.0, 5.0, "", (900,), 0.0, -0.2, 1.0, 0.0, ())
    assert list(divide(empty, pause)) == [empty]


def test_words_are_left_out_with_their_tokens():
    first, last = word(0, 1, 1), word(1, 2, 2, 3)
    whole, other = decoded(first, last), decoded(word(3, 4, 4))
    [shortened, untouched] = without_words([whole, other], [last])
    assert (shortened.text, shortened.tokens, shortened.end, shortened.words) == (" 1", (1,), 1, (first,))
    assert untouched is other
    assert list(without_words([whole], [first, last])) == []


@pytest.mark.parametrize("text", [" dog.", "了。", " he said?\u201d", " है।", " wait… ", "ហើយ។", "တယ်။", "ہے۔", " է։"])
def test_sentences_end(text):
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["", " dog", " dog,", " .5"])
def test_sentences_go_on(text):
    assert not ends_sentence(text)
