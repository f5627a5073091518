from __future__ import annotations

import pytest

from pipeline.domain.links.transfer_rate import RateMonitor


def missed_at(rate: RateMonitor, received: list[int], step_s: float = 1.0) -> list[float]:
    """Return the times at which a transfer is too slow, given its bytes received at each step."""
    return [step * step_s for step, size in enumerate(received) if rate.is_too_slow(size, step * step_s)]


def test_nothing_is_held_against_a_transfer_before_the_window_is_over() -> None:
    assert missed_at(RateMonitor(100, 10.0), [0] * 12) == [10.0, 11.0]


def test_a_byte_now_and_then_is_too_slow() -> None:
    assert missed_at(RateMonitor(100, 10.0), list(range(12)))[0] == 10.0


def test_a_transfer_that_keeps_the_rate_goes_on() -> None:
    assert missed_at(RateMonitor(100, 10.0), list(range(0, 10_000, 100))) == []


def test_what_came_fast_at_first_is_no_credit() -> None:
    assert missed_at(RateMonitor(100, 10.0), [0, *[1_000_000] * 30])[0] == 11.0


def test_a_burst_counts_for_the_window_it_came_in() -> None:
    bursts = [1000 * (second // 8) for second in range(40)]
    assert missed_at(RateMonitor(90, 10.0), bursts) == []


@pytest.mark.parametrize("bytes_per_s", [0, 0.0])
def test_any_rate_will_do_where_none_is_wanted(bytes_per_s: float) -> None:
    assert missed_at(RateMonitor(bytes_per_s, 10.0), [0] * 100) == []
