"""How fast bytes must come for somebody to wait for them."""

from __future__ import annotations

from collections import deque


class RateMonitor:
    """Watches over a transfer that must keep a rate over every stretch of time.

    Args:
        bytes_per_s: the rate; 0 for any.
        window_s: length of the stretch, and so how long nothing is held against the transfer at first.
    """

    def __init__(self, bytes_per_s: float, window_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque()

    def is_too_slow(self, received: int, now: float) -> bool:
        """Note how much has come by now, and return whether that is too little since the window began.

        Args:
            received: bytes since the transfer began.
            now: seconds on a clock that stands still while the source can't send.
        """
        self._samples.append((now, received))
        while len(self._samples) > 1 and now - self._samples[1][0] >= self._window_s:
            self._samples.popleft()
        since, before = self._samples[0]
        passed_s = now - since
        return passed_s >= self._window_s and received - before < self._bytes_per_s * passed_s
