"""Metrics through ``ray.serve.metrics``, which every node exports as ``ray_murmuration_<name>``."""

from __future__ import annotations

from functools import cache
from typing import Any

from ray.serve import metrics
from typing_extensions import override

from pipeline.metric_catalogue import METRICS, Metric, MetricKind
from pipeline.ports import Metrics


class ServeMetrics(Metrics):
    """The metrics of ``pipeline.metric_catalogue``, tagged with deployment and replica by Serve."""

    @override
    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        if value > 0:
            _instrument(name).inc(value, tags=labels)

    @override
    def gauge(self, name: str, value: float, **labels: str) -> None:
        _instrument(name).set(value, tags=labels)

    @override
    def observe(self, name: str, value: float, **labels: str) -> None:
        _instrument(name).observe(value, tags=labels)


@cache
def _instrument(name: str) -> Any:
    """Return the process's one instrument of a name, since Ray registers each name once."""
    return _make(METRICS[name])


def _make(metric: Metric) -> Any:
    name = f"murmuration_{metric.name}"
    match metric.kind:
        case MetricKind.COUNTER:
            return metrics.Counter(name, description=metric.help, tag_keys=metric.labels)
        case MetricKind.GAUGE:
            return metrics.Gauge(name, description=metric.help, tag_keys=metric.labels)
        case MetricKind.HISTOGRAM:
            return metrics.Histogram(
                name, description=metric.help, boundaries=list(metric.bounds), tag_keys=metric.labels
            )
