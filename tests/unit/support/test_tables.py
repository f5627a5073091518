"""The figures that benchmarks publish are only as good as their tables."""

from __future__ import annotations

import pytest

from tests.support.tables import percentile, table


@pytest.mark.parametrize(("percent", "value"), [(50, 5), (95, 10), (90, 9), (0, 1), (100, 10)])
def test_percentile_is_the_nearest_rank(percent: float, value: int) -> None:
    assert percentile(list(range(10, 0, -1)), percent) == value


def test_a_table_is_markdown() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
