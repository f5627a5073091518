from typing import Any

import pytest

from pipeline.metric_catalogue import METRICS, MetricKind
from pipeline.ports import Metrics, NullMetrics


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_every_metric_is_well_formed(metric: Any) -> None:
    assert metric.name.isidentifier()
    assert metric.name.islower()
    assert metric.help.endswith(".")
    assert bool(metric.bounds) is (metric.kind is MetricKind.HISTOGRAM)
    assert list(metric.bounds) == sorted(set(metric.bounds))
    assert "second" in metric.help.lower() or "seconds" not in metric.name


def test_metrics_that_are_not_recorded_are_accepted() -> None:
    metrics: Metrics = NullMetrics()

    metrics.count("tasks_finished", status="completed")
    metrics.gauge("replicas", 2)
    metrics.observe("batch_seconds", 0.1)
