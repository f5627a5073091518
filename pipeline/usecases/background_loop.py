"""Background loops that outlive whatever one of their rounds raises, and say so while they fail.

A loop that ended with its first unexpected exception would leave a process that looks alive and does nothing.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Awaitable, Callable
from enum import Enum, auto

from pipeline.domain.retry import Backoff
from pipeline.errors import DatabaseUnavailable
from pipeline.ports import Clock, Metrics

logger = logging.getLogger(__name__)

FAILURE_BACKOFF = Backoff(base_s=2.0, cap_s=30.0, max_attempts=sys.maxsize)
"""How long a loop pauses after rounds that failed by a defect."""


class RoundOutcome(Enum):
    """How the last round of a loop ended."""

    DONE = auto()
    DATABASE_AWAY = auto()
    FAILED = auto()


class SupervisedLoop:
    """One background loop, as a row of rounds.

    Args:
        name: label of its errors in the metrics.
        work: what it does, as words that precede "fails" (``claiming tasks``).
        clock: its pauses.
        metrics: counts its errors.
        outage_s: the pause after so many rounds in a row (1: the first) that found no database.
        changed: told how each round ended, before the pause.
        jitter: numbers in ``[0, 1)``.
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
        """A sentence for the operator while the last round failed by a defect."""
        return f"{self._work.capitalize()} fails: see the log." if self.outcome is RoundOutcome.FAILED else None

    async def attempt(self, step: Callable[[], Awaitable[object]]) -> float | None:
        """Run one round. Return the pause that is due after one that failed, in seconds, or ``None``.

        Only a cancellation gets out.
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
        """Run one round, and pause if it failed. Return whether it did not."""
        pause_s = await self.attempt(step)
        if pause_s is not None:
            await self._clock.sleep(pause_s)
        return pause_s is None

    def _end(self, outcome: RoundOutcome) -> None:
        self._in_a_row = self._in_a_row + 1 if outcome is self.outcome else 1
        self.outcome = outcome
        self._changed(outcome)


def failure_messages(*loops: SupervisedLoop) -> tuple[str, ...]:
    """Return the sentences of those of the loops that fail."""
    return tuple(loop.failure_message for loop in loops if loop.failure_message is not None)
