"""The real clock."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

SYNC_INTERVAL_S = 60.0
"""How long the time that was followed is believed; good clocks drift by a few milliseconds in it."""


class SystemClock:
    """This machine's time, satisfying ``ports.Clock``."""

    def now(self) -> datetime:
        """The time of day, aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)


class SynchronizedClock(SystemClock):
    """A clock that shows another's time of day, as it was told it last: what clocks of many machines can agree on.

    Between two tellings it goes on by this machine's monotonic clock, whatever is done to its time of day.
    """

    def __init__(self) -> None:
        self._told: tuple[datetime, float] | None = None

    def follow(self, moment: datetime, at: float) -> None:
        """Sets it: the other clock showed ``moment`` (aware UTC) when ``monotonic`` here was ``at``."""
        self._told = moment, at

    @property
    def needs_sync(self) -> bool:
        """Whether it should be told again."""
        return self._told is None or self.monotonic() - self._told[1] > SYNC_INTERVAL_S

    def now(self) -> datetime:
        """The time of day, aware UTC."""
        if self._told is None:
            return super().now()
        moment, at = self._told
        return moment + timedelta(seconds=self.monotonic() - at)
