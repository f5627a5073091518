"""The lowest acceptable rate of a transfer."""

from __future__ import annotations

from collections import deque


class RateMonitor:
    """A monitor of a transfer that must keep a rate in every window of time.

    Args:
        bytes_per_s: lowest rate; 0 for any.
        window_s: length of the window; a transfer is never too slow before its first window has passed.
    """

    def __init__(self, bytes_per_s: float, window_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque()

    def is_too_slow(self, received: int, now: float) -> bool:
        """Record the bytes received by now; return whether they are too few since the window began.

        Args:
            received: bytes since the transfer began.
            now: seconds on a clock that stops while the source can't send.
        """
        self._samples.append((now, received))
        while len(self._samples) > 1 and now - self._samples[1][0] >= self._window_s:
            self._samples.popleft()
        since, before = self._samples[0]
        passed_s = now - since
        return passed_s >= self._window_s and received - before < self._bytes_per_s * passed_s
