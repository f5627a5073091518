import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.asr.batch_cost import CostModel


def test_the_first_measurement_sets_the_scale() -> None:
    cost = CostModel()
    cost.observe(4, 1000, 0.01)
    assert cost.predict(4, 1000) == pytest.approx(0.01)


def test_overhead_and_rate_are_told_apart() -> None:
    cost = CostModel()
    for _ in range(300):
        for rows in (1, 2, 4, 8):
            cost.observe(rows, 1000, 0.3 + 0.0001 * rows * 1000)
    assert cost.predict(1, 1000) == pytest.approx(0.4, rel=0.05)
    assert cost.predict(16, 1000) == pytest.approx(1.9, rel=0.05)


def test_it_follows_a_machine_that_slows_down() -> None:
    cost = CostModel()
    for seconds in (1.0,) * 10 + (3.0,) * 20:
        cost.observe(4, 1200, seconds)
    assert cost.predict(4, 1200) == pytest.approx(3.0, rel=0.05)


def test_dear_batches_teach_what_plain_ones_take() -> None:
    cost = CostModel()
    cost.observe(4, 1000, 8.0, cost_factor=4.0)
    assert cost.predict(4, 1000) == pytest.approx(2.0)
    assert cost.predict(4, 1000, cost_factor=10.0) == pytest.approx(20.0)


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1000, 3000), st.floats(0.001, 60)), max_size=30))
def test_more_never_costs_less(batches: list[tuple[int, int, float]]) -> None:
    cost = CostModel()
    for rows, frames, seconds in batches:
        cost.observe(rows, frames, seconds)
    assert 0 <= cost.predict(1, 1000) <= cost.predict(2, 1000) <= cost.predict(2, 3000)
