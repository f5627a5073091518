"""Wall clock seconds of things done several times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Runs(Generic[T]):
    """The times that one way of doing a thing took, and its results."""

    seconds: list[float] = field(default_factory=list)
    results: list[T] = field(default_factory=list)

    def measure(self, action: Callable[[], T]) -> T:
        """Do it once more."""
        started = time.perf_counter()
        result = action()
        self.seconds.append(time.perf_counter() - started)
        self.results.append(result)
        return result

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def last(self) -> T:
        return self.results[-1]
