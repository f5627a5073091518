"""The port of metrics."""

from __future__ import annotations

from typing import Protocol


class Metrics(Protocol):
    """Counters, gauges and histograms by name; the names and labels are listed in ``pipeline.observability``."""

    def count(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        ...

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Record a value in a histogram."""
        ...
