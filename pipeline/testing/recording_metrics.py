"""Metrics that keep all values, and accept only those listed in ``pipeline.metric_catalogue``."""

from __future__ import annotations

from collections import defaultdict

from typing_extensions import override

from pipeline.metric_catalogue import METRICS, MetricKind
from pipeline.ports import Metrics

Series = tuple[str, frozenset[tuple[str, str]]]


class RecordingMetrics(Metrics):
    """``Metrics`` for tests. A name, kind or label that is not in the table raises ``AssertionError``."""

    def __init__(self) -> None:
        self._values: defaultdict[Series, list[float]] = defaultdict(list)

    @override
    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        self._record(MetricKind.COUNTER, name, value, labels)

    @override
    def gauge(self, name: str, value: float, **labels: str) -> None:
        self._record(MetricKind.GAUGE, name, value, labels)

    @override
    def observe(self, name: str, value: float, **labels: str) -> None:
        self._record(MetricKind.HISTOGRAM, name, value, labels)

    def values(self, name: str, **labels: str) -> list[float]:
        """Return all values recorded with a name and labels, in order."""
        return list(self._values[name, frozenset(labels.items())])

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a counter."""
        return sum(self.values(name, **labels))

    def _record(self, kind: MetricKind, name: str, value: float, labels: dict[str, str]) -> None:
        metric = METRICS.get(name)
        if metric is None or metric.kind is not kind or set(metric.labels) != set(labels):
            raise AssertionError(f"{kind} {name} with labels {sorted(labels)} is not in the table of metrics")
        self._values[name, frozenset(labels.items())].append(value)
