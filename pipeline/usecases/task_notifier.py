"""In-memory notification of task changes, so that watchers need not poll the database."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict

from pipeline.usecases.event_wait import wait_for_event

MAX_REMEMBERED_TASKS = 10_000
"""Number of tasks whose change number, or end, is remembered.

A watcher that arrives just after a change then sees it at once.
"""


class TaskNotifier:
    """A counter of the changes of each task, which wakes the task's watchers."""

    def __init__(self) -> None:
        self._counts: OrderedDict[int, int] = OrderedDict()
        self._ended: OrderedDict[int, None] = OrderedDict()
        self._watchers: dict[int, set[asyncio.Event]] = defaultdict(set)
        self._end_watchers: dict[int, set[asyncio.Event]] = defaultdict(set)

    def begin(self, task_id: int) -> None:
        """Report that an attempt begins; a task that had finished before has not finished any more."""
        self._ended.pop(task_id, None)
        self.notify(task_id)

    def notify(self, task_id: int) -> None:
        """Report a change of the task to its watchers."""
        self._counts[task_id] = self._counts.pop(task_id, 0) + 1
        _trim(self._counts)
        _wake(self._watchers, task_id)

    def notify_end(self, task_id: int) -> None:
        """Report that the task has finished or was deleted."""
        self._ended[task_id] = None
        _trim(self._ended)
        self.notify(task_id)
        _wake(self._end_watchers, task_id)

    async def watch(self, task_id: int, seen: int, timeout_s: float) -> int:
        """Wait until the task's change number differs from ``seen``, for up to ``timeout_s``, and return it.

        A ``seen`` of -1 returns the number at once.
        """
        if self._counts.get(task_id, 0) == seen:
            await _watch(self._watchers, task_id, timeout_s)
        return self._counts.get(task_id, 0)

    async def watch_end(self, task_id: int, timeout_s: float) -> None:
        """Wait until the task has finished, for up to ``timeout_s``."""
        if task_id not in self._ended:
            await _watch(self._end_watchers, task_id, timeout_s)


async def _watch(watchers: dict[int, set[asyncio.Event]], task_id: int, timeout_s: float) -> None:
    changed = asyncio.Event()
    watchers[task_id].add(changed)
    try:
        await wait_for_event(changed, timeout_s)
    finally:
        watchers[task_id].discard(changed)
        if not watchers[task_id]:
            del watchers[task_id]


def _wake(watchers: dict[int, set[asyncio.Event]], task_id: int) -> None:
    for changed in watchers.get(task_id, ()):
        changed.set()


def _trim(remembered: OrderedDict[int, int] | OrderedDict[int, None]) -> None:
    while len(remembered) > MAX_REMEMBERED_TASKS:
        remembered.popitem(last=False)
