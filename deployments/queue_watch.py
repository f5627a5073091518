"""The queue's totals, kept fresh by a thread of its own for readers that must never wait for a database."""

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
"""Totals older than this say nothing about the queue any more."""
RETRY_S = 1.0
"""Pause after a failure."""


class QueueMonitor:
    """Asks the task store for its totals over and over; ``latest`` returns at once.

    The thread ends soon after the watch is garbage collected, for instance when Serve replaces a scaling policy.

    Args:
        open_store: called on the thread; whatever it or the store raises is logged and tried again.
        period_s: pause between two questions.
        retry_s: shortest pause after a failure.
    """

    def __init__(self, open_store: Callable[[], TaskStore], period_s: float, retry_s: float = RETRY_S) -> None:
        self._cell = _SharedSnapshot()
        thread = threading.Thread(
            target=_follow, args=(self._cell, open_store, period_s, retry_s), name="queue-watch", daemon=True
        )
        weakref.finalize(self, self._cell.stop.set)
        thread.start()

    def latest(self) -> QueueStats | None:
        """The totals as last seen, or ``None`` while the store does not answer."""
        seen = self._cell.seen
        return seen[1] if seen and time.monotonic() - seen[0] < STALE_AFTER_S else None


class _SharedSnapshot:
    """What the thread and its watch share; not the watch itself, which could then never be collected."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.seen: tuple[float, QueueStats] | None = None


def _follow(cell: _SharedSnapshot, open_store: Callable[[], TaskStore], period_s: float, retry_s: float) -> None:
    while not cell.stop.is_set():
        try:
            _poll_until_failure(cell, open_store, period_s)
        except Exception as error:
            logger.warning("the queue can't be watched", exc_info=error)
            cell.stop.wait(max(period_s, retry_s))


def _poll_until_failure(cell: _SharedSnapshot, open_store: Callable[[], TaskStore], period_s: float) -> None:
    with asyncio.Runner() as runner:  # one loop: the store's connections belong to it
        store = open_store()
        try:
            while not cell.stop.is_set():
                cell.seen = time.monotonic(), runner.run(store.stats())
                cell.stop.wait(period_s)
        finally:
            runner.run(store.close())
