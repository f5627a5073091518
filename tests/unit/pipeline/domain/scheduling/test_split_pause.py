from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.audio.spans import to_samples
from pipeline.domain.scheduling.split_pause import may_pause

MINUTE = to_samples(60.0)


@pytest.mark.parametrize(
    ("began_at", "reached", "expected"),
    [
        (0, 10 * MINUTE - 1, False),
        (0, 10 * MINUTE, True),
        (MINUTE, 10 * MINUTE, True),
        (10 * MINUTE, 30 * MINUTE - 1, False),
        (10 * MINUTE, 30 * MINUTE, True),
    ],
)
def test_a_pause_comes_three_times_as_far_as_the_last(began_at: int, reached: int, expected: bool) -> None:
    assert may_pause(began_at, reached) is expected


@given(st.integers(1, 5000), st.integers(1, 60))
def test_all_pauses_repeat_at_most_one_and_a_half_times_the_length_up_to_the_last(
    minutes: int, part_minutes: int
) -> None:
    began_at, repeated = 0, 0
    for reached in range(part_minutes * MINUTE, minutes * MINUTE, part_minutes * MINUTE):
        if may_pause(began_at, reached):
            began_at, repeated = reached, repeated + reached
    assert repeated <= 1.5 * began_at
