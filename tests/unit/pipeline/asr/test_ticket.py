from dataclasses import replace

import pytest

from pipeline.asr.ticket import Ticket
from pipeline.testing.engine import FakeEngine


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
    return Ticket(task_id=1, rank=1, age=(5.0, 1), item=item(7, seconds=10.0, language=None), key="", frames=0)


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


def test_where_the_model_broke_off_it_goes_on(ticket, decode):
    first = decode(ticket, resume_s=4.0)
    first = replace(first, segments=(replace(first.segments[0], end=4.0),))
    assert ticket.take(first, gate=True) is None
    assert (ticket.item.duration_s, ticket.item.language, ticket.reason) == (6.0, "en", "broken_off")
    outcome = ticket.take(decode(ticket), gate=True)
    assert [(segment.start, segment.end) for segment in outcome.segments] == [(0.0, 4.0), (4.0, 10.0)]
    assert outcome.detection is not None
    assert outcome.attempts == 2


def test_the_rest_has_a_ladder_of_its_own(ticket, decode):
    ticket.take(decode(ticket, avg_logprob=-2.0), gate=True)
    ticket.take(decode(ticket, resume_s=4.0), gate=True)
    assert (ticket.item.temperature, ticket.item.full_window) == (0.0, False)


def test_a_failure_on_the_first_attempt_leaves_nothing(ticket):
    assert ticket.give_up() is None


def test_a_failure_on_a_later_attempt_leaves_what_was_heard(ticket, decode):
    ticket.take(decode(ticket, avg_logprob=-2.0, resume_s=4.0), gate=True)
    outcome = ticket.give_up()
    assert (len(outcome.segments), outcome.attempts) == (1, 1)


def test_a_failure_on_the_rest_leaves_what_came_before(ticket, decode):
    ticket.take(decode(ticket, resume_s=4.0), gate=True)
    outcome = ticket.give_up()
    assert (len(outcome.segments), outcome.language) == (1, "en")


def test_tickets_are_ordered_by_rank_then_age_then_arrival(item):
    def made(rank, age):
        return Ticket(task_id=1, rank=rank, age=age, item=item(), key="", frames=0).order

    assert made(0, (9.0, 9)) < made(1, (1.0, 5)) < made(1, (2.0, 1)) < made(1, (2.0, 2))
