from __future__ import annotations

import gc
import threading
from collections.abc import Callable

from deployments.queue_monitor import QueueMonitor
from pipeline.domain.tasks.task import NewTask
from pipeline.errors import DatabaseUnavailable
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore

PERIOD_S = 0.001


class WatchedStore(MemoryTaskStore):
    """A store that signals when it was queried and closed, and can be made to fail once."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(ManualClock())
        self.fails = fails
        self.queried, self.closed = threading.Semaphore(0), threading.Event()

    async def stats(self):  # type: ignore[no-untyped-def]
        self.queried.release()
        if self.fails:
            self.fails = False
            raise DatabaseUnavailable("The database does not answer.")
        return await super().stats()

    async def close(self) -> None:
        self.closed.set()


def until_queried_twice(store: WatchedStore) -> None:
    """Wait for the second query: by then the result of the first is there."""
    for _ in range(2):
        assert store.queried.acquire(timeout=10)


def opening(store: WatchedStore) -> Callable[[], WatchedStore]:
    return lambda: store


async def test_the_latest_totals_are_there_without_waiting() -> None:
    store = WatchedStore()
    await store.create(NewTask(media_prefix="a"))
    watch = QueueMonitor(opening(store), PERIOD_S)
    until_queried_twice(store)
    stats = watch.latest()
    assert stats is not None
    assert sum(stats.queued_tasks.values()) == 1


def test_before_the_first_answer_nothing_is_known() -> None:
    held = threading.Event()

    def open_store() -> WatchedStore:
        held.wait(10)
        return WatchedStore()

    watch = QueueMonitor(open_store, PERIOD_S)
    assert watch.latest() is None
    held.set()


def test_a_database_that_comes_back_is_queried_again() -> None:
    broken, mended = WatchedStore(fails=True), WatchedStore()
    stores = iter([broken, mended])
    watch = QueueMonitor(lambda: next(stores), PERIOD_S, retry_s=PERIOD_S)
    until_queried_twice(mended)
    assert watch.latest() is not None
    assert broken.closed.is_set()


def test_the_thread_ends_with_its_watch() -> None:
    gc.freeze()  # only what is made from here on is collected below
    store = WatchedStore()
    watch = QueueMonitor(opening(store), PERIOD_S)
    until_queried_twice(store)
    del watch
    gc.collect()
    assert store.closed.wait(10)
