from dataclasses import replace
from typing import Any, get_type_hints

import pytest
from annotated_types import Le, MaxLen
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.decoding.decoding_cost import (
    charged_audio_s,
    chunk_cost_s,
    decoded_cost,
    fallback_costs,
    relative_cost,
    search_width,
    step_cost,
)
from pipeline.domain.decoding.transcription_options import TranscriptionOptions

DEFAULTS = TranscriptionOptions()
CLIMBING = replace(DEFAULTS, log_prob_threshold=0.0)
LONGEST = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
DEAREST = replace(CLIMBING, beam_size=20, best_of=20, temperature=LONGEST)

MEASURED = {
    "beam_size=1": (replace(DEFAULTS, beam_size=1), 0.6, 0.8),
    "beam_size=20": (replace(DEFAULTS, beam_size=20), 1.7, 3.4),
    "the ladder, climbed": (CLIMBING, 10.0, 16.2),
    "best_of=20, climbed": (replace(CLIMBING, best_of=20), 16.2, 19.5),
    "beam_size=20 best_of=20, climbed": (replace(CLIMBING, beam_size=20, best_of=20), 28.4, 33.9),
    "and ten temperatures": (DEAREST, 45.0, 49.4),
}


def test_the_defaults_cost_one() -> None:
    assert relative_cost(DEFAULTS) == 1.0
    assert step_cost(DEFAULTS, 0.0, encoded=False) == pytest.approx(1.0)
    assert decoded_cost(DEFAULTS, 1) <= 1.0 < decoded_cost(DEFAULTS, 2)


@pytest.mark.parametrize("name", MEASURED)
def test_predictions_are_near_what_was_measured(name: str) -> None:
    options, low, high = MEASURED[name]
    assert low / 1.5 <= relative_cost(options) <= high * 1.5


@pytest.mark.parametrize("option", ["word_timestamps", "multilingual", "vad_filter", "normalize_level"])
def test_what_costs_nothing_is_not_charged(option: str) -> None:
    changes: dict[str, Any] = {option: not getattr(DEFAULTS, option)}
    assert relative_cost(replace(DEFAULTS, **changes)) == 1.0


def test_what_a_ladder_costs_is_known_once_it_was_climbed() -> None:
    assert decoded_cost(CLIMBING, 7) == pytest.approx(relative_cost(CLIMBING))
    assert decoded_cost(CLIMBING, 99) == decoded_cost(CLIMBING, 7)
    assert len(fallback_costs(CLIMBING)) == 7


def test_text_before_each_chunk_counts_by_its_length() -> None:
    short, long = (replace(DEFAULTS, initial_prompt="word " * number) for number in (10, 800))
    assert 1.0 < relative_cost(short) < 1.2 < 2.0 < relative_cost(long) < 3.0
    assert relative_cost(replace(DEFAULTS, condition_on_previous_text=True)) > 2.0


def test_a_chunk_counts_for_its_window_however_short_it_is() -> None:
    assert chunk_cost_s(0.1, DEFAULTS) > 5.0
    assert chunk_cost_s(15.0, DEAREST) == pytest.approx(20.0 * relative_cost(DEAREST))


def test_a_quota_is_charged_by_cost_and_never_less_than_the_audio() -> None:
    assert charged_audio_s(60.0, DEFAULTS) == 60.0
    assert charged_audio_s(60.0, replace(DEFAULTS, beam_size=1)) == 60.0
    assert charged_audio_s(60.0, DEAREST) > 30 * 60.0


def test_no_options_that_are_accepted_cost_more_than_fifty_times_the_defaults() -> None:
    """A chunk of 30 s then costs as much as some 25 minutes of audio at most, without prompts."""
    limits = {
        name: hint.__metadata__
        for name, hint in get_type_hints(TranscriptionOptions, include_extras=True).items()
        if name in ("beam_size", "best_of", "temperature")
    }
    assert [limits["beam_size"][-1], limits["best_of"][-1], limits["temperature"][-1]] == [Le(20), Le(20), MaxLen(10)]
    assert relative_cost(DEAREST) < 50


def test_a_search_is_as_wide_as_what_it_decodes_side_by_side() -> None:
    options = replace(DEFAULTS, beam_size=3, best_of=7)
    assert (search_width(options, 0.0), search_width(options, 0.2)) == (3, 7)


@given(
    beam_size=st.integers(1, 19),
    best_of=st.integers(1, 19),
    threshold=st.none() | st.floats(-5, 0),
    ladder=st.lists(st.floats(0, 2), min_size=1, max_size=9),
)
def test_more_of_anything_never_costs_less(
    beam_size: int, best_of: int, threshold: float | None, ladder: list[float]
) -> None:
    options = TranscriptionOptions(
        beam_size=beam_size, best_of=best_of, log_prob_threshold=threshold, temperature=tuple(ladder)
    )
    cost = relative_cost(options)
    assert cost > 0
    for more in (
        replace(options, beam_size=20),
        replace(options, best_of=20),
        replace(options, temperature=(*options.temperature, 1.0)),
        replace(options, log_prob_threshold=0.0),
        replace(options, compression_ratio_threshold=0.0),
        replace(options, condition_on_previous_text=True),
    ):
        assert relative_cost(more) >= cost
