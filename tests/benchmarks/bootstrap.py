"""Bounds of a difference between two contenders on the same recordings: the paired bootstrap (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Counts = Sequence[float] | npt.NDArray[np.integer | np.floating]

RESAMPLES = 2000
SEED = 1

FEWEST = 10
"""Of fewer recordings than this no difference counts as significant: resampled, they are all too much alike."""


class Interval(NamedTuple):
    """A difference, and the bounds within which it lies with 95 % confidence."""

    difference: float
    low: float
    high: float
    recordings: int

    @property
    def is_above_zero(self) -> bool:
        """True if the difference is significant, upwards."""
        return self.low > 0 and self.recordings >= FEWEST

    def __str__(self) -> str:
        return f"{self.difference:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def difference_per_100(ours: Counts, theirs: Counts, lengths: Counts) -> Interval:
    """Return how many more of something we have in 100 units of length than they, over resampled recordings.

    Args:
        ours: how many we have in each recording.
        theirs: how many they have in the same recordings.
        lengths: of the recordings, in words or whatever the 100 count.
    """
    extra, units = np.subtract(ours, theirs, dtype=float), np.asarray(lengths, dtype=float)
    chosen = np.random.default_rng(SEED).integers(len(units), size=(RESAMPLES, len(units)))
    low, high = np.percentile(100 * extra[chosen].sum(axis=1) / units[chosen].sum(axis=1), [2.5, 97.5])
    return Interval(float(100 * extra.sum() / units.sum()), float(low), float(high), len(units))
