"""Waiting for what happens in other processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 120.0
"""How long anything may take: a bound for a busy machine, not what is expected."""
POLL_S = 0.2


def eventually(holds: Callable[[], Any], what: str, within_s: float = PATIENCE_S, poll_s: float = POLL_S) -> Any:
    """Return the first value that is true; fail if there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"never within {within_s:.0f} s: {what}")
        time.sleep(poll_s)
    return value
