"""A clock that stands still until a test advances it."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

from typing_extensions import override

from pipeline.ports import Clock

START = datetime(2025, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


class ManualClock(Clock):
    """A ``Clock`` whose time is set by hand.

    Args:
        now: time of day at the start, aware UTC.
    """

    def __init__(self, now: datetime = START) -> None:
        self._start = now
        self._elapsed = timedelta()
        self._sleepers: list[tuple[timedelta, int, asyncio.Future[None]]] = []
        self._order = count()

    @override
    def now(self) -> datetime:
        return self._start + self._elapsed

    def jump(self, seconds: float) -> None:
        """Change the time of day, forward or backward; ``monotonic`` does not change."""
        self._start += timedelta(seconds=seconds)

    @override
    def monotonic(self) -> float:
        """Return the seconds since the clock was made: it begins at 0."""
        return self._elapsed.total_seconds()

    @override
    async def sleep(self, seconds: float) -> None:
        """Return when the clock has been advanced by ``seconds``; at once for 0."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        awake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + timedelta(seconds=seconds), next(self._order), awake))
        await awake

    @property
    def sleepers(self) -> int:
        """Number of sleepers. A test checks it before ``advance``: whoever sleeps later is not woken."""
        return sum(not awake.done() for _due, _order, awake in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Advance the time and wake the sleepers that are due; the event loop then runs them, the earliest first."""
        if seconds < 0:
            raise ValueError("Time does not run backwards.")
        self._elapsed += timedelta(seconds=seconds)
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            awake = heapq.heappop(self._sleepers)[2]
            if not awake.done():  # cancelled while it slept
                awake.set_result(None)
