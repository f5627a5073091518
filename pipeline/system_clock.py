"""The clocks of production: the system's, and one that follows a server's time of day."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from typing_extensions import override

from pipeline.ports.clock import Clock

SYNC_INTERVAL_S = 60.0
"""Seconds after which the clock should be synchronized again; good clocks drift by a few milliseconds in that time."""


class SystemClock(Clock):
    """The clock of this machine."""

    @override
    def now(self) -> datetime:
        return datetime.now(UTC)

    @override
    def monotonic(self) -> float:
        return time.monotonic()

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SynchronizedClock(SystemClock):
    """A clock that shows another clock's time of day, so that many machines can agree on it.

    Between synchronizations it advances with this machine's monotonic clock, so changes of its time of day have no
    effect.
    """

    def __init__(self) -> None:
        self._synchronized: tuple[datetime, float] | None = None

    def follow(self, moment: datetime, at: float) -> None:
        """Set the clock: the other clock showed ``moment`` (aware UTC) when ``monotonic`` here was ``at``."""
        self._synchronized = moment, at

    @property
    def needs_sync(self) -> bool:
        """True if the clock should be synchronized again."""
        return self._synchronized is None or self.monotonic() - self._synchronized[1] > SYNC_INTERVAL_S

    @override
    def now(self) -> datetime:
        if self._synchronized is None:
            return super().now()
        moment, at = self._synchronized
        return moment + timedelta(seconds=self.monotonic() - at)
