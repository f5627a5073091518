from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.decoding.quality_gate import (
    PROMPT_TOKENS,
    FallbackStep,
    GateVerdict,
    apply_quality_gate,
    best_of_failed,
    is_genuine_repetition,
    is_silence,
    next_fallback,
    next_prompt,
)
from pipeline.domain.decoding.transcript import ChunkResult, Segment
from pipeline.domain.decoding.transcription_options import DEFAULT_TEMPERATURES, TranscriptionOptions


@dataclass(frozen=True)
class Tried:
    text: str = "hello world"
    temperature: float = 0.0
    avg_logprob: float = -0.3
    compression_ratio: float = 1.2
    no_speech_prob: float = 0.1
    full_window: bool = False
    has_plausible_pace: bool = False


OPTIONS = TranscriptionOptions()
LOOPED = "you know what you know what you know what you know what"


@pytest.mark.parametrize(
    ("attempt", "verdict"),
    [
        (Tried(), GateVerdict.ACCEPT),
        (Tried(compression_ratio=2.4), GateVerdict.ACCEPT),
        (Tried(compression_ratio=2.41), GateVerdict.RETRY),
        (Tried(avg_logprob=-1.0), GateVerdict.ACCEPT),
        (Tried(avg_logprob=-1.01), GateVerdict.RETRY),
        (Tried(text=LOOPED), GateVerdict.RETRY),
        # no speech, and unlikely as text: silence, whatever else is wrong with it
        (Tried(no_speech_prob=0.61, avg_logprob=-1.01), GateVerdict.SILENCE),
        (Tried(no_speech_prob=0.61, avg_logprob=-1.01, compression_ratio=9.0), GateVerdict.SILENCE),
        # a good log-probability outweighs the no-speech probability
        (Tried(no_speech_prob=0.99, avg_logprob=-0.5), GateVerdict.ACCEPT),
        (Tried(no_speech_prob=0.99, avg_logprob=-0.5, compression_ratio=9.0), GateVerdict.RETRY),
    ],
)
def test_judges_as_faster_whisper_does(attempt: Tried, verdict: GateVerdict) -> None:
    assert apply_quality_gate(attempt, OPTIONS) is verdict


def test_without_a_log_prob_threshold_the_no_speech_probability_decides_alone() -> None:
    options = TranscriptionOptions(log_prob_threshold=None)
    assert apply_quality_gate(Tried(avg_logprob=-9.0), options) is GateVerdict.ACCEPT
    assert apply_quality_gate(Tried(no_speech_prob=0.7), options) is GateVerdict.SILENCE


def test_a_threshold_of_none_is_off() -> None:
    options = TranscriptionOptions(compression_ratio_threshold=None, log_prob_threshold=None, no_speech_threshold=None)
    awful = Tried(text=LOOPED, avg_logprob=-9.0, compression_ratio=99.0, no_speech_prob=1.0)
    assert apply_quality_gate(awful, options) is GateVerdict.ACCEPT


def climb(options: TranscriptionOptions, *, first_is_full: bool) -> list[FallbackStep]:
    attempts: list[Tried] = []
    rungs = []
    while (rung := next_fallback(attempts, options)) is not None:
        rungs.append(rung)
        full = rung.full_window or (first_is_full and not attempts)
        attempts.append(Tried(temperature=rung.temperature, full_window=full))
    return rungs


def test_the_first_retry_is_the_full_window_at_the_same_temperature() -> None:
    options = TranscriptionOptions(temperature=(0.0, 0.4, 1.0))
    assert climb(options, first_is_full=False) == [
        FallbackStep(0.0, False),
        FallbackStep(0.0, True),
        FallbackStep(0.4, False),
        FallbackStep(1.0, False),
    ]


def test_a_window_that_was_full_is_not_tried_again() -> None:
    first, *others = climb(OPTIONS, first_is_full=True)
    assert [first.temperature, *(rung.temperature for rung in others)] == list(DEFAULT_TEMPERATURES)
    assert all(rung.full_window for rung in others)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=10), st.booleans())
def test_the_ladder_ends_and_tries_every_temperature_in_order(temperatures: list[float], first_is_full: bool) -> None:
    options = TranscriptionOptions(temperature=tuple(temperatures))
    rungs = climb(options, first_is_full=first_is_full)
    assert len(rungs) == len(temperatures) + (not first_is_full)
    assert [rung.temperature for rung in rungs][not first_is_full :] == temperatures


def test_the_best_attempt_is_the_likeliest_that_is_not_repetitive() -> None:
    repetitive = Tried(avg_logprob=-0.1, compression_ratio=9.0)
    looped = Tried(avg_logprob=-0.1, text=LOOPED)
    unlikely = Tried(avg_logprob=-1.5)
    unlikelier = Tried(avg_logprob=-1.6)
    assert best_of_failed([repetitive, unlikelier, unlikely, looped], OPTIONS) is unlikely


def test_if_all_are_repetitive_the_likeliest_is_kept() -> None:
    attempts = [Tried(avg_logprob=-0.5, compression_ratio=9.0), Tried(avg_logprob=-0.2, compression_ratio=9.0)]
    assert best_of_failed(attempts, OPTIONS) is attempts[1]


@given(st.floats(-3, 0), st.floats(0, 1), st.floats(0.1, 5))
def test_what_is_judged_silence_is_silent(avg_logprob: float, no_speech_prob: float, compression_ratio: float) -> None:
    attempt = Tried(avg_logprob=avg_logprob, no_speech_prob=no_speech_prob, compression_ratio=compression_ratio)
    verdict = apply_quality_gate(attempt, OPTIONS)
    assert (verdict is GateVerdict.SILENCE) <= is_silence(attempt, OPTIONS)
    assert (verdict is GateVerdict.ACCEPT) <= (not is_silence(attempt, OPTIONS))


SEGMENT = Segment(0, 0, 0.0, 1.0, " hi", (7, 8), 0.0, -0.2, 1.0, 0.0)


def result(*segments: Segment, attempts: int = 1) -> ChunkResult:
    return ChunkResult(0, 1.0, segments, "en", attempts=attempts)


def test_the_next_prompt_is_the_text_so_far() -> None:
    assert next_prompt((1, 2), result(SEGMENT, SEGMENT)) == (1, 2, 7, 8, 7, 8)


def test_the_next_prompt_keeps_the_tail_that_fits() -> None:
    tokens = next_prompt(tuple(range(1000)), result(SEGMENT))
    assert len(tokens) == PROMPT_TOKENS
    assert tokens[-3:] == (999, 7, 8)


def test_text_that_was_sampled_wildly_does_not_prompt() -> None:
    assert next_prompt((1, 2), result(SEGMENT, replace(SEGMENT, temperature=0.6))) == ()
    assert next_prompt((1, 2), result(replace(SEGMENT, temperature=0.4))) == (1, 2, 7, 8)


def test_text_that_no_temperature_could_save_does_not_prompt() -> None:
    assert next_prompt((1, 2), result(SEGMENT, attempts=len(DEFAULT_TEMPERATURES))) == ()
    assert next_prompt((1, 2), result(SEGMENT, attempts=2), (0.0, 0.2)) == (1, 2, 7, 8)


def test_silence_leaves_the_prompt_alone() -> None:
    assert next_prompt((1, 2), result(attempts=7)) == (1, 2)


REPEATED = Tried(text=LOOPED, has_plausible_pace=True)


def test_speech_that_repeats_itself_in_both_windows_is_not_sampled_for() -> None:
    assert next_fallback([REPEATED], OPTIONS) == FallbackStep(0.0, full_window=True)
    assert next_fallback([REPEATED, replace(REPEATED, full_window=True)], OPTIONS) is None
    assert next_fallback([replace(REPEATED, full_window=True)], OPTIONS) is None


@pytest.mark.parametrize("full", [Tried(text=LOOPED), Tried(avg_logprob=-2.0, has_plausible_pace=True)])
def test_what_is_a_loop_in_one_window_is_sampled_for(full: Tried) -> None:
    assert next_fallback([REPEATED, replace(full, full_window=True)], OPTIONS) == FallbackStep(0.2, full_window=False)


def test_of_repeated_speech_the_most_complete_and_least_repetitive_is_best() -> None:
    short, full = replace(REPEATED, compression_ratio=4.0), replace(REPEATED, compression_ratio=3.0)
    loop = Tried(text=LOOPED, avg_logprob=-0.01)
    assert best_of_failed([short, full, loop], OPTIONS) is full
    assert best_of_failed([short, full, loop], OPTIONS, missing=lambda attempt: attempt is full) is short


def test_unlikely_text_is_no_repeated_speech() -> None:
    assert not is_genuine_repetition(replace(REPEATED, avg_logprob=-1.5), OPTIONS)
    assert not is_genuine_repetition(Tried(has_plausible_pace=True), OPTIONS)
    assert not is_genuine_repetition(replace(REPEATED, temperature=0.2), OPTIONS)
    assert is_genuine_repetition(REPEATED, OPTIONS)
