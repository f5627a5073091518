"""Retry strategies: each turns the number of past attempts into a delay, without sleeping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).

    Attributes:
        base_s: upper bound of the first delay, in seconds; it doubles with each attempt.
        cap_s: upper bound of every delay.
        max_attempts: number of attempts, including the first.
    """

    base_s: float = 2.0
    cap_s: float = 300.0
    max_attempts: int = 3

    def delay_s(self, attempts: int, random: Callable[[], float]) -> float | None:
        """Return the seconds to wait after ``attempts`` (≥ 1) failed attempts, or ``None`` to give up.

        Args:
            attempts: number of attempts made so far.
            random: returns a number in ``[0, 1)``.
        """
        if attempts >= self.max_attempts:
            return None
        return random() * min(self.cap_s, self.base_s * 2.0 ** min(attempts - 1, 63))


@dataclass(frozen=True, slots=True)
class UnlimitedBackoff:
    """A backoff without a last attempt, for causes that end by themselves: a full disk, a server that is down, a quota.

    Attributes:
        base_s: upper bound of the first delay, in seconds; it doubles with each wait.
        cap_s: upper bound of every delay.
    """

    base_s: float = 2.0
    cap_s: float = 300.0

    def delay_s(self, waits: int, random: Callable[[], float]) -> float:
        """Return the seconds of the ``waits``-th wait (≥ 1): at least half of the bound, so that no caller spins.

        Args:
            waits: number of waits, including this one.
            random: returns a number in ``[0, 1)``.
        """
        bound_s = min(self.cap_s, self.base_s * 2.0 ** min(max(waits, 1) - 1, 63))
        return bound_s * (0.5 + 0.5 * random())


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Fixed delays between attempts, each jittered: for callbacks, whose receivers expect a known table."""

    delays_s: tuple[float, ...] = (30.0, 120.0, 600.0, 3600.0)

    def delay_s(self, attempts: int, random: Callable[[], float]) -> float | None:
        """Return the seconds to wait after ``attempts`` (≥ 1) failed attempts, or ``None`` to give up.

        The jitter shortens each delay by up to half. So receivers that failed together are not all called again at the
        same moment, and still have time to recover.
        """
        if attempts > len(self.delays_s):
            return None
        bound = self.delays_s[attempts - 1]
        return bound * (0.5 + 0.5 * random())
