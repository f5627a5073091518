import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.retry import Backoff, RetrySchedule, UnlimitedBackoff

jitters = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("attempts", "bound"),
    [(1, 2.0), (2, 4.0), (3, 8.0), (8, 256.0), (9, 300.0), (98, 300.0)],
)
def test_the_bound_of_a_backoff_doubles_up_to_its_cap(attempts: int, bound: float) -> None:
    backoff = Backoff(base_s=2.0, cap_s=300.0, max_attempts=99)

    assert backoff.delay_s(attempts, lambda: 1.0) == bound
    assert backoff.delay_s(attempts, lambda: 0.5) == bound / 2
    assert backoff.delay_s(attempts, lambda: 0.0) == 0.0


def test_a_backoff_gives_up_after_its_last_attempt() -> None:
    backoff = Backoff(max_attempts=3)

    assert backoff.delay_s(2, lambda: 0.0) is not None
    assert backoff.delay_s(3, lambda: 0.0) is None
    assert backoff.delay_s(4, lambda: 0.0) is None
    assert Backoff(max_attempts=1).delay_s(1, lambda: 0.0) is None


@given(st.integers(1, 10**9), jitters, st.floats(0.001, 1e6), st.floats(0.001, 1e6))
def test_no_number_of_attempts_is_too_many_for_a_backoff(
    attempts: int, jitter: float, base_s: float, cap_s: float
) -> None:
    delay_s = Backoff(base_s, cap_s, max_attempts=10**9 + 1).delay_s(attempts, lambda: jitter)

    assert delay_s is not None
    assert 0 <= delay_s <= cap_s


@pytest.mark.parametrize(("attempts", "bound"), [(1, 30.0), (2, 120.0), (3, 600.0), (4, 3600.0)])
def test_a_schedule_takes_at_most_half_of_each_delay_away(attempts: int, bound: float) -> None:
    schedule = RetrySchedule()

    assert schedule.delay_s(attempts, lambda: 1.0) == bound
    assert schedule.delay_s(attempts, lambda: 0.0) == bound / 2


def test_a_schedule_ends_with_its_table() -> None:
    assert RetrySchedule().delay_s(5, lambda: 0.0) is None
    assert RetrySchedule(()).delay_s(1, lambda: 0.0) is None


@given(st.lists(st.floats(0, 1e6)).map(tuple), st.integers(1, 20), jitters)
def test_a_schedule_has_a_delay_for_each_entry_and_no_more(
    delays_s: tuple[float, ...], attempts: int, jitter: float
) -> None:
    delay_s = RetrySchedule(delays_s).delay_s(attempts, lambda: jitter)

    if attempts > len(delays_s):
        assert delay_s is None
    else:
        assert delay_s is not None
        assert delays_s[attempts - 1] / 2 <= delay_s <= delays_s[attempts - 1]


@pytest.mark.parametrize(("waits", "bound"), [(0, 2.0), (1, 2.0), (2, 4.0), (8, 256.0), (9, 300.0), (10**6, 300.0)])
def test_patience_has_no_end_and_never_spins(waits: int, bound: float) -> None:
    patience = UnlimitedBackoff(base_s=2.0, cap_s=300.0)

    assert patience.delay_s(waits, lambda: 0.0) == bound / 2
    assert patience.delay_s(waits, lambda: 1.0) == bound
