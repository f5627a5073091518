"""The port of metrics, and an adapter that records none."""

from __future__ import annotations

from typing import Protocol

from typing_extensions import override


class Metrics(Protocol):
    """Counters, gauges and histograms by name; the names and labels are listed in ``pipeline.metric_catalogue``."""

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        ...

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Record a value in a histogram."""
        ...


class NullMetrics(Metrics):
    """Metrics that are not recorded: the default where recording is optional."""

    @override
    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Ignore the value."""

    @override
    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Ignore the value."""

    @override
    def observe(self, name: str, value: float, **labels: str) -> None:
        """Ignore the value."""
