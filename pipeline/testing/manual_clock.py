"""A clock that stands still until it is told to go on."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

START = datetime(2025, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


class ManualClock:
    """``ports.Clock`` whose time is moved by hand: ``advance`` wakes who slept long enough.

    Args:
        now: the time of day it begins at, aware UTC.
    """

    def __init__(self, now: datetime = START) -> None:
        self._start = now
        self._elapsed = timedelta()
        self._sleepers: list[tuple[timedelta, int, asyncio.Future[None]]] = []
        self._order = count()

    def now(self) -> datetime:
        """See ``ports.Clock``."""
        return self._start + self._elapsed

    def jump(self, seconds: float) -> None:
        """Make the time of day jump, forth or back; ``monotonic`` goes on as if nothing had happened."""
        self._start += timedelta(seconds=seconds)

    def monotonic(self) -> float:
        """See ``ports.Clock``; begins at 0."""
        return self._elapsed.total_seconds()

    async def sleep(self, seconds: float) -> None:
        """See ``ports.Clock``; returns when the clock has been advanced by so much, at once for 0."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        awake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + timedelta(seconds=seconds), next(self._order), awake))
        await awake

    @property
    def sleepers(self) -> int:
        """How many wait: a test that advances too early would wait for ever."""
        return sum(not awake.done() for _due, _order, awake in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Moves time on. Sleepers whose time has come run when the event loop gets to them, the earliest first."""
        if seconds < 0:
            raise ValueError("Time does not run backwards.")
        self._elapsed += timedelta(seconds=seconds)
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            awake = heapq.heappop(self._sleepers)[2]
            if not awake.done():  # cancelled in its sleep
                awake.set_result(None)
