from dataclasses import replace

import pytest

from pipeline.asr.engine import Decoded
from pipeline.asr.speech_recovery import insert_recovered, is_made_up, recovered_segments, uncovered_speech
from pipeline.domain.audio.spans import Span, to_samples
from pipeline.domain.decoding.transcript import AlignedWord
from tests.support.builders import segment_of


def word(start, end, text=" word", token=1):
    return AlignedWord(start, end, text, 0.9, (token,))


def decoded(*words, **figures):
    figures = {"avg_logprob": -0.2, "compression_ratio": 1.0, "no_speech_prob": 0.1} | figures
    segments = (segment_of(*words),) if words else ()
    text = "".join(one.word for one in words).strip()
    return Decoded(text=text, segments=segments, temperature=0.0, language="en", **figures)


@pytest.fixture
def speech(item):
    """An item of ten seconds of speech."""
    return replace(item(7, seconds=10.0), speech=(Span(0, to_samples(10.0)),))


def test_a_gap_is_a_part_of_the_item_at_its_place(speech):
    words = [word(2.0, 2.6), word(2.6, 3.2), word(9.4, 10.2)]
    first, second = uncovered_speech(speech, words, offset_s=2.0)
    assert (first.offset_s, first.item.duration_s) == (pytest.approx(3.2), pytest.approx(6.2))
    assert (second.offset_s, second.item.duration_s) == (pytest.approx(10.2), pytest.approx(1.8))
    assert [one.item.speech[0].start for one in (first, second)] == [0, 0]


def test_text_of_audio_in_which_nobody_is_found_needs_the_model_s_word(item):
    nobody, somebody = replace(item(), speech=()), item()
    said = decoded(word(0, 1), no_speech_prob=0.8)
    assert is_made_up(nobody, said)
    assert not is_made_up(somebody, said)  # a good log-probability outweighs it elsewhere
    assert not is_made_up(nobody, decoded(word(0, 1)))
    assert is_made_up(nobody, decoded(word(0, 1), avg_logprob=-1.5))


def test_what_is_found_must_be_good_and_more(speech):
    [gap] = uncovered_speech(speech, [word(0.0, 10.0, " dog")])
    assert len(gap.stretched) == 1
    assert not recovered_segments(gap, decoded(word(1.0, 1.4)))
    assert recovered_segments(gap, decoded(word(1.0, 1.4), word(2.0, 2.4)))
    assert not recovered_segments(gap, decoded(word(1.0, 1.4), word(2.0, 2.4), avg_logprob=-1.5))
    assert not recovered_segments(gap, decoded(word(1.0, 1.4), word(2.0, 2.4, "..."), compression_ratio=5.0))


def test_what_is_found_a_third_time_in_a_gap_is_made_up(speech):
    [gap] = uncovered_speech(speech, [])
    again = replace(gap, recovered_texts=("word", "word"))
    assert recovered_segments(replace(gap, recovered_texts=("word",)), decoded(word(0, 1)))
    assert not recovered_segments(again, decoded(word(0, 1)))
    assert recovered_segments(again, decoded(word(0, 1, " other")))


def test_what_is_found_goes_where_it_is_said(speech):
    whole = segment_of(word(0.0, 1.0, " one"), word(1.0, 8.0, " dog"), word(8.8, 10.0, " two"))
    [gap] = uncovered_speech(speech, whole.words)
    recovered = [segment_of(word(2.0, 3.0, " in")), segment_of(word(3.0, 4.0, " between"))]
    assert [one.text for one in insert_recovered([whole], gap, recovered)] == [" one", " in", " between", " two"]


def test_words_without_time_repeat_what_was_said_before(speech):
    [gap] = uncovered_speech(speech, [])
    crammed, said = (
        segment_of(word(0.0, 0.02, " Hello"), word(0.02, 0.2, " world")),
        segment_of(word(1.0, 1.4, " Hello")),
    )
    both = replace(decoded(word(0, 1)), segments=(crammed, said))
    assert [(one.text, one.start) for one in recovered_segments(gap, both)] == [(" Hello", 1.0)]
