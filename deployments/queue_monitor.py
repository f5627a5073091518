"""Monitoring of the queue's totals in a thread, for readers that must not wait for the database."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable

from pipeline.ports import QueueStats, TaskStore

logger = logging.getLogger(__name__)

STALE_AFTER_S = 30.0
"""Age at which totals no longer describe the queue."""
RETRY_S = 1.0
"""Shortest pause after a failure."""


class QueueMonitor:
    """A thread that queries the task store for its totals periodically; ``latest`` returns at once.

    The thread ends soon after the monitor is garbage collected, for instance when Serve replaces a scaling policy.

    Args:
        open_store: called in the thread. If it or the store raises, the error is logged and the query repeated.
        period_s: pause between two queries.
        retry_s: shortest pause after a failure.
    """

    def __init__(self, open_store: Callable[[], TaskStore], period_s: float, retry_s: float = RETRY_S) -> None:
        self._snapshot = _SharedSnapshot()
        thread = threading.Thread(
            target=_follow, args=(self._snapshot, open_store, period_s, retry_s), name="queue-monitor", daemon=True
        )
        weakref.finalize(self, self._snapshot.stop.set)
        thread.start()

    def latest(self) -> QueueStats | None:
        """Return the latest totals, or ``None`` if the store has not answered for ``STALE_AFTER_S``."""
        latest = self._snapshot.latest
        return latest[1] if latest and time.monotonic() - latest[0] < STALE_AFTER_S else None


class _SharedSnapshot:
    """State that the thread and the monitor share. A thread with the monitor itself would keep it alive."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.latest: tuple[float, QueueStats] | None = None


def _follow(snapshot: _SharedSnapshot, open_store: Callable[[], TaskStore], period_s: float, retry_s: float) -> None:
    while not snapshot.stop.is_set():
        try:
            _poll_until_failure(snapshot, open_store, period_s)
        except Exception as error:
            logger.warning("the queue's totals can't be read; trying again", exc_info=error)
            snapshot.stop.wait(max(period_s, retry_s))


def _poll_until_failure(snapshot: _SharedSnapshot, open_store: Callable[[], TaskStore], period_s: float) -> None:
    with asyncio.Runner() as runner:  # one loop: the store's connections belong to it
        store = open_store()
        try:
            while not snapshot.stop.is_set():
                snapshot.latest = time.monotonic(), runner.run(store.stats())
                snapshot.stop.wait(period_s)
        finally:
            runner.run(store.close())
