"""Background loops that continue after an exception and report that they fail.

A loop that ended with its first unexpected exception would leave a process that looks alive and does nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import NoReturn

from pipeline.domain.retry import Backoff
from pipeline.errors import DatabaseUnavailable
from pipeline.ports import Clock, Metrics
from pipeline.usecases.event_wait import wait_for_event

logger = logging.getLogger(__name__)

FAILURE_BACKOFF = Backoff(base_s=2.0, cap_s=30.0, max_attempts=sys.maxsize)
"""Pause of a loop after rounds that failed because of a defect in our code."""


class RoundOutcome(Enum):
    """The outcome of one round of a loop."""

    DONE = auto()
    """The round did its work."""
    DATABASE_AWAY = auto()
    """The database did not answer."""
    FAILED = auto()
    """The round raised another exception, which is a defect."""


class SupervisedLoop:
    """A background loop, run one round at a time.

    Args:
        name: label of the loop's errors in the metrics.
        work: the loop's work, in words that precede "fails" (``claiming tasks``).
        clock: times the pauses.
        metrics: counts the loop's errors.
        outage_s: returns the pause in seconds after the given number of rounds in a row (from 1) without a database.
        changed: called with the outcome of each round, before the pause.
        jitter: returns random numbers in ``[0, 1)``.
    """

    def __init__(
        self,
        name: str,
        work: str,
        clock: Clock,
        metrics: Metrics,
        *,
        outage_s: Callable[[int], float] = lambda _: 3.0,
        changed: Callable[[RoundOutcome], None] = lambda _: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._work = work
        self._clock = clock
        self._metrics = metrics
        self._outage_s = outage_s
        self._changed = changed
        self._jitter = jitter
        self._in_a_row = 0
        self.outcome = RoundOutcome.DONE

    @property
    def failure_message(self) -> str | None:
        """A sentence for the operator if the last round failed because of a defect, else ``None``."""
        return f"{self._work.capitalize()} fails: see the log." if self.outcome is RoundOutcome.FAILED else None

    async def attempt(self, step: Callable[[], Awaitable[object]]) -> float | None:
        """Run one round. Return the pause due after a failure, in seconds, or ``None`` after a success.

        Only a cancellation is raised.
        """
        try:
            await step()
        except DatabaseUnavailable as error:
            self._end(RoundOutcome.DATABASE_AWAY)
            logger.warning("%s waits for the database: %s", self._work, error, extra={"loop": self._name})
            return self._outage_s(self._in_a_row)
        except Exception:
            self._end(RoundOutcome.FAILED)
            logger.exception("%s failed", self._work, extra={"loop": self._name, "failures": self._in_a_row})
            self._metrics.count("loop_errors", loop=self._name)
            return FAILURE_BACKOFF.delay_s(self._in_a_row, self._jitter) or 0.0
        self._end(RoundOutcome.DONE)
        return None

    async def round(self, step: Callable[[], Awaitable[object]]) -> bool:
        """Run one round, and pause if it failed. Return ``True`` if it succeeded."""
        pause_s = await self.attempt(step)
        if pause_s is not None:
            await self._clock.sleep(pause_s)
        return pause_s is None

    async def run(self, step: Callable[[], Awaitable[object]], wake: asyncio.Event, poll_s: float) -> NoReturn:
        """Run rounds until cancelled: at once, whenever ``wake`` is set, and ``poll_s`` seconds after the last one."""
        while True:
            wake.clear()
            await self.round(step)
            await wait_for_event(wake, poll_s)

    async def run_every(self, interval_s: float, step: Callable[[], Awaitable[object]]) -> NoReturn:
        """Run rounds until cancelled, each after a pause of ``interval_s``."""
        while True:
            await self._clock.sleep(interval_s)
            await self.round(step)

    def _end(self, outcome: RoundOutcome) -> None:
        self._in_a_row = self._in_a_row + 1 if outcome is self.outcome else 1
        self.outcome = outcome
        self._changed(outcome)


def failure_messages(*loops: SupervisedLoop) -> tuple[str, ...]:
    """Return the failure messages of the loops that fail."""
    return tuple(loop.failure_message for loop in loops if loop.failure_message is not None)
