"""The figures that benchmarks publish: medians, ratios and runs."""

from __future__ import annotations

from tests.benchmarks.reports import median_s, times
from tests.benchmarks.timing import Runs


def test_medians_and_ratios_are_shown() -> None:
    assert median_s([3.0, 1.0, 2.0]) == "2.00 s (1.00–3.00)"
    assert median_s([1.234], digits=1) == "1.2 s"
    assert times(ours=[1.0, 2.0, 3.0], theirs=[5.0]) == "2.50×"


def test_runs_keep_times_and_results() -> None:
    runs = Runs[str]()

    assert runs.measure(lambda: "first") == "first"
    runs.measure(lambda: "second")

    assert runs.last == "second"
    assert len(runs.seconds) == 2
    assert 0.0 <= runs.median_s < 1.0
