"""Metrics that remember, and refuse what ``pipeline.observability`` does not list."""

from __future__ import annotations

from collections import defaultdict

from pipeline.observability import METRICS, MetricKind

Series = tuple[str, frozenset[tuple[str, str]]]


class RecordingMetrics:
    """Satisfies ``ports.Metrics``; raises ``AssertionError`` for a name, kind or label that is not in the table."""

    def __init__(self) -> None:
        self._values: defaultdict[Series, list[float]] = defaultdict(list)

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Adds to a counter."""
        self._note(MetricKind.COUNTER, name, value, labels)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Sets a gauge."""
        self._note(MetricKind.GAUGE, name, value, labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Adds to a histogram."""
        self._note(MetricKind.HISTOGRAM, name, value, labels)

    def values(self, name: str, **labels: str) -> list[float]:
        """All that was noted under a name and labels, in order."""
        return list(self._values[name, frozenset(labels.items())])

    def total(self, name: str, **labels: str) -> float:
        """The sum of a counter."""
        return sum(self.values(name, **labels))

    def _note(self, kind: MetricKind, name: str, value: float, labels: dict[str, str]) -> None:
        metric = METRICS.get(name)
        if metric is None or metric.kind is not kind or set(metric.labels) != set(labels):
            raise AssertionError(f"{kind} {name} with labels {sorted(labels)} is not in the table of metrics")
        self._values[name, frozenset(labels.items())].append(value)
