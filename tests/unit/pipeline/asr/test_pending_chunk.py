from dataclasses import replace

import pytest

from pipeline.asr.pending_chunk import PendingChunk
from pipeline.domain.audio.spans import Span, to_samples
from pipeline.domain.decoding.transcript import AlignedWord
from pipeline.domain.decoding.transcription_options import TaskType
from pipeline.testing.fake_engine import FakeEngine


@pytest.fixture
def decode():
    """Decode the item of a pending chunk, with some figures changed."""
    engine = FakeEngine()

    def run(pending, **changes):
        [decoded] = engine.decode([pending.item])
        changes.setdefault("full_window", pending.item.full_window)
        return replace(decoded, **changes)

    return run


@pytest.fixture
def pending(item):
    return PendingChunk(rank=1, age=(5.0, 1), item=item(7, seconds=10.0, language=None), key="", frames=0)


def test_a_good_decoding_is_the_outcome(pending, decode):
    result = pending.record(decode(pending), gate=True)
    assert (result.attempts, result.language, result.detection.language) == (1, "en", "en")
    assert [segment.end for segment in result.segments] == [10.0]


def test_a_rejected_decoding_falls_back_with_the_detected_language(pending, decode):
    steps = []
    while pending.record(decode(pending, avg_logprob=-2.0), gate=True) is None:
        steps.append((pending.item.temperature, pending.item.full_window, pending.item.language, pending.reason))
    assert steps[:2] == [(0.0, True, "en", "unlikely"), (0.2, False, "en", "unlikely")]
    assert [step[0] for step in steps] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_what_was_encoded_is_used_again_in_the_same_window(pending, decode):
    encodings = []
    while (
        pending.record(decode(pending, avg_logprob=-2.0, encoding=f"window {pending.item.full_window}"), gate=True)
        is None
    ):
        encodings.append(pending.item.encoding)
    assert encodings == [None, *["window False"] * 5]


def test_the_best_attempt_is_kept_with_its_own_figures(pending, decode):
    result = None
    for avg_logprob in (-2.0, -1.9, -1.1, -1.8, -1.7, -3.0, -2.5):
        result = pending.record(decode(pending, avg_logprob=avg_logprob), gate=True)
    assert result.attempts == 7
    assert result.segments[0].temperature == 0.2
    assert result.detection is not None  # only the first attempt had to detect


def test_without_the_gate_the_first_decoding_is_kept(pending, decode):
    assert pending.record(decode(pending, compression_ratio=9.0), gate=False).attempts == 1


@pytest.mark.parametrize("gate", [True, False])
def test_silence_has_no_segments(pending, decode, gate):
    result = pending.record(decode(pending, avg_logprob=-1.5, no_speech_prob=0.9), gate=gate)
    assert (result.segments, result.attempts) == ((), 1)


def with_words(*times, text=" antidisestablishmentarianismandmuchmore"):
    """Replace the segments of a decoding by one-word segments at these times; the default word fills them."""

    def change(decoded):
        segments = (
            replace(decoded.segments[0], start=start, end=end, text=word.word, words=(word,))
            for start, end, word in ((*time, AlignedWord(*time, text, 0.9)) for time in times)
        )
        return replace(decoded, segments=tuple(segments))

    return change


@pytest.fixture
def spoken(item):
    """A pending chunk of ten seconds of speech."""
    speech = (Span(0, to_samples(10.0)),)
    return PendingChunk(
        rank=1,
        age=(5.0, 1),
        item=replace(item(7, seconds=10.0, language=None), speech=speech),
        key="",
        frames=0,
    )


def test_speech_behind_the_last_word_is_decoded_on_its_own(spoken, decode):
    assert spoken.record(with_words((0.0, 4.0))(decode(spoken)), gate=True) is None
    assert (spoken.item.duration_s, spoken.item.language, spoken.reason) == (6.0, "en", "uncovered")
    assert (spoken.item.temperature, spoken.item.full_window) == (0.0, False)
    result = spoken.record(with_words((0.5, 6.0))(decode(spoken)), gate=True)
    assert [(segment.start, segment.end) for segment in result.segments] == [(0.0, 4.0), (4.5, 10.0)]
    assert result.detection is not None
    assert result.attempts == 1  # at the whole chunk


def test_speech_between_words_goes_between_them(spoken, decode):
    assert spoken.record(with_words((0.0, 3.0), (7.0, 10.0))(decode(spoken)), gate=True) is None
    assert spoken.item.duration_s == 4.0
    result = spoken.record(with_words((0.2, 3.9))(decode(spoken)), gate=True)
    assert [segment.start for segment in result.segments] == [0.0, 3.2, 7.0]


def test_speech_in_the_middle_of_a_segment_divides_it(spoken, decode):
    words = [AlignedWord(0.0, 1.0, " one", 0.9, (1,)), AlignedWord(8.8, 10.0, " two", 0.9, (2,))]
    decoded = decode(spoken)
    whole = replace(decoded.segments[0], text=" one two", words=tuple(words))
    assert spoken.record(replace(decoded, segments=(whole,)), gate=True) is None
    result = spoken.record(with_words((0.2, 4.0), (4.0, 7.5))(decode(spoken)), gate=True)
    assert [(segment.start, segment.end) for segment in result.segments] == [
        (0.0, 1.0),
        (1.2, 5.0),
        (5.0, 8.5),
        (8.8, 10.0),
    ]


def test_the_same_text_over_and_over_is_made_up(spoken, decode):
    result = spoken.record(with_words((0.0, 1.0))(decode(spoken)), gate=True)
    while result is None:
        result = spoken.record(with_words((0.0, 0.6), text=" Thank you.")(decode(spoken, text="Thank you.")), gate=True)
    assert [segment.text for segment in result.segments].count(" Thank you.") == 2


def test_a_word_stretched_into_the_speech_from_before_is_replaced(spoken, decode):
    spoken.item = replace(spoken.item, speech=(Span(to_samples(2.5), to_samples(10.0)),))
    assert spoken.record(with_words((0.0, 3.6), text=" Hello")(decode(spoken)), gate=True) is None
    spoken.record(
        with_words((0.2, 1.1), (1.1, 1.9), (1.9, 7.4), text=" antidisestablishmentarianism")(decode(spoken)), gate=True
    )
    result = spoken.finish_with_best()
    assert " Hello" not in [segment.text for segment in result.segments]


def test_silence_does_not_take_the_place_of_a_stretched_word(spoken, decode):
    options = replace(spoken.item.options, log_prob_threshold=None)
    spoken.item = replace(spoken.item, options=options)
    spoken.record(with_words((0.0, 10.0), text=" hello")(decode(spoken)), gate=True)
    loop = with_words(*((at * 0.5, at * 0.5 + 0.5) for at in range(8)), text=" no")
    result = None
    while result is None:
        result = spoken.record(loop(decode(spoken, text="no " * 8, no_speech_prob=0.9)), gate=True)
    assert [segment.text for segment in result.segments] == [" hello"]


def test_a_short_clip_without_text_gets_the_full_window_too(item, decode):
    short = replace(item(7, seconds=0.9), speech=(Span(0, to_samples(0.9)),))
    pending = PendingChunk(rank=1, age=(5.0, 1), item=short, key="", frames=0)
    assert pending.record(decode(pending, segments=()), gate=True) is None
    assert pending.item.full_window


def test_uncovered_speech_is_decoded_until_none_is_left(spoken, decode):
    assert spoken.record(with_words((0.0, 3.0))(decode(spoken)), gate=True) is None
    assert spoken.record(with_words((0.0, 3.0))(decode(spoken)), gate=True) is None
    assert spoken.item.duration_s == 4.0
    result = spoken.record(with_words((0.0, 3.5))(decode(spoken)), gate=True)
    assert [segment.start for segment in result.segments] == [0.0, 3.0, 6.0]


def test_uncovered_speech_without_a_likely_text_is_not_sampled(spoken, decode):
    spoken.record(with_words((0.0, 4.0))(decode(spoken)), gate=True)
    assert spoken.record(decode(spoken, avg_logprob=-2.0), gate=True) is None
    assert (spoken.item.temperature, spoken.item.full_window) == (0.0, True)
    result = spoken.record(decode(spoken, avg_logprob=-2.0), gate=True)
    assert [segment.end for segment in result.segments] == [4.0]


def test_a_stretched_word_is_replaced_where_more_was_said(spoken, decode):
    assert spoken.record(with_words((0.0, 5.0), (5.0, 10.0), text=" dog")(decode(spoken)), gate=True) is None
    assert spoken.item.duration_s == 10.0
    result = spoken.record(with_words((0.0, 4.0), (4.2, 6.0), (6.0, 9.5))(decode(spoken)), gate=True)
    assert [segment.start for segment in result.segments] == [0.0, 4.2, 6.0]


def test_a_stretched_word_stays_where_no_more_was_said(spoken, decode):
    spoken.record(with_words((0.0, 10.0), text=" dog")(decode(spoken)), gate=True)
    result = spoken.record(with_words((6.0, 9.0), text=" fog")(decode(spoken)), gate=True)
    assert [segment.text for segment in result.segments] == [" dog"]


def test_speech_without_any_text_gets_the_full_window_once(spoken, decode):
    assert spoken.record(decode(spoken, segments=()), gate=True) is None
    assert (spoken.item.duration_s, spoken.item.full_window) == (10.0, True)
    assert spoken.record(decode(spoken, segments=()), gate=True).segments == ()


def test_silence_in_a_short_window_is_looked_at_in_the_full_one(spoken, decode):
    assert spoken.record(decode(spoken, avg_logprob=-1.5, no_speech_prob=0.9), gate=True) is None
    assert spoken.item.full_window
    assert len(spoken.record(with_words((0.0, 5.0), (5.5, 9.5))(decode(spoken)), gate=True).segments) == 2


def test_a_translation_may_leave_more_between_its_words(item, decode):
    wanted = replace(item(7, seconds=10.0, task_type=TaskType.TRANSLATE), speech=(Span(0, to_samples(10.0)),))
    pending = PendingChunk(rank=1, age=(5.0, 1), item=wanted, key="", frames=0)
    assert pending.record(with_words((0.0, 4.0), (4.0, 7.5))(decode(pending)), gate=True) is not None


def test_where_speech_is_unknown_nothing_is_uncovered(pending, decode):
    assert pending.record(with_words((0.0, 4.0))(decode(pending)), gate=True) is not None


def test_a_failure_on_the_first_attempt_leaves_nothing(pending):
    assert pending.finish_with_best() is None


def test_a_failure_on_a_later_attempt_leaves_what_was_transcribed(pending, decode):
    pending.record(decode(pending, avg_logprob=-2.0), gate=True)
    result = pending.finish_with_best()
    assert (len(result.segments), result.attempts) == (1, 1)


def test_a_failure_on_uncovered_speech_leaves_the_text_before(spoken, decode):
    spoken.record(with_words((0.0, 4.0))(decode(spoken)), gate=True)
    result = spoken.finish_with_best()
    assert (len(result.segments), result.language) == (1, "en")


def test_pending_chunks_are_ordered_by_rank_then_age_then_arrival(item):
    def made(rank, age):
        return PendingChunk(rank=rank, age=age, item=item(), key="", frames=0).order

    assert made(0, (9.0, 9)) < made(1, (1.0, 5)) < made(1, (2.0, 1)) < made(1, (2.0, 2))
