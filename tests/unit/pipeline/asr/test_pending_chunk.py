from dataclasses import replace

import pytest

from pipeline.asr.pending_chunk import PendingChunk
from pipeline.domain.audio.spans import Span, to_samples
from pipeline.domain.decoding.transcript import AlignedWord
from pipeline.domain.decoding.transcription_options import TaskType
from pipeline.testing.fake_engine import FakeEngine


@pytest.fixture
def decode():
    """Decodes what a ticket asks for, with some figures changed."""
    engine = FakeEngine()

    def run(ticket, **changes):
        [decoded] = engine.decode([ticket.item])
        changes.setdefault("full_window", ticket.item.full_window)
        return replace(decoded, **changes)

    return run


@pytest.fixture
def ticket(item):
    return PendingChunk(task_id=1, rank=1, age=(5.0, 1), item=item(7, seconds=10.0, language=None), key="", frames=0)


def test_a_good_decoding_is_the_outcome(ticket, decode):
    outcome = ticket.take(decode(ticket), gate=True)
    assert (outcome.attempts, outcome.language, outcome.detection.language) == (1, "en", "en")
    assert [segment.end for segment in outcome.segments] == [10.0]


def test_a_bad_decoding_climbs_the_ladder_with_the_language_it_heard(ticket, decode):
    rungs = []
    while ticket.take(decode(ticket, avg_logprob=-2.0), gate=True) is None:
        rungs.append((ticket.item.temperature, ticket.item.full_window, ticket.item.language, ticket.reason))
    assert rungs[:2] == [(0.0, True, "en", "unlikely"), (0.2, False, "en", "unlikely")]
    assert [rung[0] for rung in rungs] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_what_was_encoded_is_used_again_in_the_same_window(ticket, decode):
    encodings = []
    while (
        ticket.take(decode(ticket, avg_logprob=-2.0, encoding=f"window {ticket.item.full_window}"), gate=True) is None
    ):
        encodings.append(ticket.item.encoding)
    assert encodings == [None, *["window False"] * 5]


def test_the_best_attempt_is_kept_with_its_own_figures(ticket, decode):
    outcome = None
    for avg_logprob in (-2.0, -1.9, -1.1, -1.8, -1.7, -3.0, -2.5):
        outcome = ticket.take(decode(ticket, avg_logprob=avg_logprob), gate=True)
    assert outcome.attempts == 7
    assert outcome.segments[0].temperature == 0.2
    assert outcome.detection is not None  # only the first attempt had to detect


def test_without_the_gate_the_first_decoding_is_kept(ticket, decode):
    assert ticket.take(decode(ticket, compression_ratio=9.0), gate=False).attempts == 1


@pytest.mark.parametrize("gate", [True, False])
def test_silence_has_no_segments(ticket, decode, gate):
    outcome = ticket.take(decode(ticket, avg_logprob=-1.5, no_speech_prob=0.9), gate=gate)
    assert (outcome.segments, outcome.attempts) == ((), 1)


def said(*times, text=" antidisestablishmentarianismandmuchmore"):
    """A decoding in which words take these times, a segment each; by default so long that they fill them."""

    def change(decoded):
        segments = (
            replace(decoded.segments[0], start=start, end=end, text=word.word, words=(word,))
            for start, end, word in ((*time, AlignedWord(*time, text, 0.9)) for time in times)
        )
        return replace(decoded, segments=tuple(segments))

    return change


@pytest.fixture
def spoken(item):
    """A ticket for ten seconds of speech."""
    speech = (Span(0, to_samples(10.0)),)
    return PendingChunk(
        task_id=1,
        rank=1,
        age=(5.0, 1),
        item=replace(item(7, seconds=10.0, language=None), speech=speech),
        key="",
        frames=0,
    )


def test_speech_behind_the_last_word_is_decoded_on_its_own(spoken, decode):
    assert spoken.take(said((0.0, 4.0))(decode(spoken)), gate=True) is None
    assert (spoken.item.duration_s, spoken.item.language, spoken.reason) == (6.0, "en", "uncovered")
    assert (spoken.item.temperature, spoken.item.full_window) == (0.0, False)
    outcome = spoken.take(said((0.5, 6.0))(decode(spoken)), gate=True)
    assert [(segment.start, segment.end) for segment in outcome.segments] == [(0.0, 4.0), (4.5, 10.0)]
    assert outcome.detection is not None
    assert outcome.attempts == 1  # at the whole chunk


def test_speech_between_words_goes_between_them(spoken, decode):
    assert spoken.take(said((0.0, 3.0), (7.0, 10.0))(decode(spoken)), gate=True) is None
    assert spoken.item.duration_s == 4.0
    outcome = spoken.take(said((0.2, 3.9))(decode(spoken)), gate=True)
    assert [segment.start for segment in outcome.segments] == [0.0, 3.2, 7.0]


def test_speech_in_the_middle_of_a_segment_divides_it(spoken, decode):
    words = [AlignedWord(0.0, 1.0, " one", 0.9, (1,)), AlignedWord(8.8, 10.0, " two", 0.9, (2,))]
    decoded = decode(spoken)
    whole = replace(decoded.segments[0], text=" one two", words=tuple(words))
    assert spoken.take(replace(decoded, segments=(whole,)), gate=True) is None
    outcome = spoken.take(said((0.2, 4.0), (4.0, 7.5))(decode(spoken)), gate=True)
    assert [(segment.start, segment.end) for segment in outcome.segments] == [
        (0.0, 1.0),
        (1.2, 5.0),
        (5.0, 8.5),
        (8.8, 10.0),
    ]


def test_the_same_text_over_and_over_is_made_up(spoken, decode):
    outcome = spoken.take(said((0.0, 1.0))(decode(spoken)), gate=True)
    while outcome is None:
        outcome = spoken.take(said((0.0, 0.6), text=" Thank you.")(decode(spoken, text="Thank you.")), gate=True)
    assert [segment.text for segment in outcome.segments].count(" Thank you.") == 2


def test_a_word_stretched_into_the_speech_from_before_is_replaced(spoken, decode):
    spoken.item = replace(spoken.item, speech=(Span(to_samples(2.5), to_samples(10.0)),))
    assert spoken.take(said((0.0, 3.6), text=" Hello")(decode(spoken)), gate=True) is None
    spoken.take(
        said((0.2, 1.1), (1.1, 1.9), (1.9, 7.4), text=" antidisestablishmentarianism")(decode(spoken)), gate=True
    )
    outcome = spoken.finish_with_best()
    assert " Hello" not in [segment.text for segment in outcome.segments]


def test_silence_does_not_take_the_place_of_a_stretched_word(spoken, decode):
    options = replace(spoken.item.options, log_prob_threshold=None)
    spoken.item = replace(spoken.item, options=options)
    spoken.take(said((0.0, 10.0), text=" hello")(decode(spoken)), gate=True)
    loop = said(*((at * 0.5, at * 0.5 + 0.5) for at in range(8)), text=" no")
    outcome = None
    while outcome is None:
        outcome = spoken.take(loop(decode(spoken, text="no " * 8, no_speech_prob=0.9)), gate=True)
    assert [segment.text for segment in outcome.segments] == [" hello"]


def test_a_short_clip_without_text_gets_the_full_window_too(item, decode):
    short = replace(item(7, seconds=0.9), speech=(Span(0, to_samples(0.9)),))
    ticket = PendingChunk(task_id=1, rank=1, age=(5.0, 1), item=short, key="", frames=0)
    assert ticket.take(decode(ticket, segments=()), gate=True) is None
    assert ticket.item.full_window


def test_what_is_missing_is_looked_for_until_nothing_is(spoken, decode):
    assert spoken.take(said((0.0, 3.0))(decode(spoken)), gate=True) is None
    assert spoken.take(said((0.0, 3.0))(decode(spoken)), gate=True) is None
    assert spoken.item.duration_s == 4.0
    outcome = spoken.take(said((0.0, 3.5))(decode(spoken)), gate=True)
    assert [segment.start for segment in outcome.segments] == [0.0, 3.0, 6.0]


def test_missing_speech_of_which_nothing_likely_comes_is_not_sampled_for(spoken, decode):
    spoken.take(said((0.0, 4.0))(decode(spoken)), gate=True)
    assert spoken.take(decode(spoken, avg_logprob=-2.0), gate=True) is None
    assert (spoken.item.temperature, spoken.item.full_window) == (0.0, True)
    outcome = spoken.take(decode(spoken, avg_logprob=-2.0), gate=True)
    assert [segment.end for segment in outcome.segments] == [4.0]


def test_a_stretched_word_is_replaced_where_more_was_said(spoken, decode):
    assert spoken.take(said((0.0, 5.0), (5.0, 10.0), text=" dog")(decode(spoken)), gate=True) is None
    assert spoken.item.duration_s == 10.0
    outcome = spoken.take(said((0.0, 4.0), (4.2, 6.0), (6.0, 9.5))(decode(spoken)), gate=True)
    assert [segment.start for segment in outcome.segments] == [0.0, 4.2, 6.0]


def test_a_stretched_word_stays_where_no_more_was_said(spoken, decode):
    spoken.take(said((0.0, 10.0), text=" dog")(decode(spoken)), gate=True)
    outcome = spoken.take(said((6.0, 9.0), text=" fog")(decode(spoken)), gate=True)
    assert [segment.text for segment in outcome.segments] == [" dog"]


def test_speech_without_any_text_gets_the_full_window_once(spoken, decode):
    assert spoken.take(decode(spoken, segments=()), gate=True) is None
    assert (spoken.item.duration_s, spoken.item.full_window) == (10.0, True)
    assert spoken.take(decode(spoken, segments=()), gate=True).segments == ()


def test_silence_in_a_short_window_is_looked_at_in_the_full_one(spoken, decode):
    assert spoken.take(decode(spoken, avg_logprob=-1.5, no_speech_prob=0.9), gate=True) is None
    assert spoken.item.full_window
    assert len(spoken.take(said((0.0, 5.0), (5.5, 9.5))(decode(spoken)), gate=True).segments) == 2


def test_a_translation_may_leave_more_between_its_words(item, decode):
    wanted = replace(item(7, seconds=10.0, task_type=TaskType.TRANSLATE), speech=(Span(0, to_samples(10.0)),))
    ticket = PendingChunk(task_id=1, rank=1, age=(5.0, 1), item=wanted, key="", frames=0)
    assert ticket.take(said((0.0, 4.0), (4.0, 7.5))(decode(ticket)), gate=True) is not None


def test_where_speech_is_unknown_nothing_is_missing(ticket, decode):
    assert ticket.take(said((0.0, 4.0))(decode(ticket)), gate=True) is not None


def test_a_failure_on_the_first_attempt_leaves_nothing(ticket):
    assert ticket.finish_with_best() is None


def test_a_failure_on_a_later_attempt_leaves_what_was_transcribed(ticket, decode):
    ticket.take(decode(ticket, avg_logprob=-2.0), gate=True)
    outcome = ticket.finish_with_best()
    assert (len(outcome.segments), outcome.attempts) == (1, 1)


def test_a_failure_on_missing_speech_leaves_what_came_before(spoken, decode):
    spoken.take(said((0.0, 4.0))(decode(spoken)), gate=True)
    outcome = spoken.finish_with_best()
    assert (len(outcome.segments), outcome.language) == (1, "en")


def test_tickets_are_ordered_by_rank_then_age_then_arrival(item):
    def made(rank, age):
        return PendingChunk(task_id=1, rank=rank, age=age, item=item(), key="", frames=0).order

    assert made(0, (9.0, 9)) < made(1, (1.0, 5)) < made(1, (2.0, 1)) < made(1, (2.0, 2))
