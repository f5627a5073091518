"""The number of cases that a run tries: some of them by default, all of them where ``HYPOTHESIS_PROFILE`` asks for it.

The profiles are Hypothesis's own, and other tests of many cases follow them: ``quick`` is the default, ``.ci/run``
takes ``thorough``.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import settings

T = TypeVar("T")

VARIABLE = "HYPOTHESIS_PROFILE"
FULL_EXAMPLES = 100
QUICK_EXAMPLES = 10
QUICK_SHARE = 4
"""Of so many cases a quick run tries one."""

settings.register_profile("thorough", deadline=None, max_examples=FULL_EXAMPLES)  # a busy machine is no failure
settings.register_profile("quick", deadline=None, max_examples=QUICK_EXAMPLES)


def load_profile() -> None:
    """Load the profile that the environment names."""
    settings.load_profile(os.environ.get(VARIABLE, "quick"))


def thorough() -> bool:
    """Return whether everything is tried."""
    return settings().max_examples >= FULL_EXAMPLES


def examples(full: int) -> int:
    """Return a test's share of the profile's examples: ``full`` in a thorough run."""
    return max(1, full * settings().max_examples // FULL_EXAMPLES)


def some(cases: Sequence[T], name: str = "") -> Sequence[T]:
    """Return all cases in a thorough run, else every fourth, one at least; tests of different names get others."""
    if thorough() or not cases:
        return cases
    return cases[zlib.crc32(name.encode()) % min(QUICK_SHARE, len(cases)) :: QUICK_SHARE]
