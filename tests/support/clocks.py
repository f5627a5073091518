"""Clocks whose pauses cost next to nothing, for tests that run in real time; ``pipeline.testing`` has those without."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from math import inf

from typing_extensions import override

from pipeline.system_clock import SystemClock


class QuickClock(SystemClock):
    """A clock whose pauses last a millisecond.

    Args:
        endless_s: pauses of at least so long are kept as they are.

    Attributes:
        ahead_s: time that passed unnoticed.
    """

    def __init__(self, endless_s: float = inf) -> None:
        super().__init__()
        self._endless_s = endless_s
        self.ahead_s = 0.0

    @override
    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead_s)

    @override
    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds if seconds >= self._endless_s else 0.001)


async def settle(turns: int = 100) -> None:
    """Let everything run that can run without the clock: so many turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
