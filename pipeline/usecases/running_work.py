"""Work in progress in this process: coroutines that are started, counted and cancelled by a key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class _Running(Generic[Item]):
    """An item, and the asyncio task that works on it."""

    item: Item
    task: asyncio.Task[None]


class RunningWork(Generic[Key, Item]):
    """Coroutines in progress, each with the item that it works on.

    Args:
        label: begins the names of the asyncio tasks.
        defect_message: logged with the exception of work that raised one.
        on_end: called whenever work has ended.
    """

    def __init__(self, label: str, defect_message: str, on_end: Callable[[], None]) -> None:
        self._label = label
        self._defect_message = defect_message
        self._on_end = on_end
        self._running: dict[Key, _Running[Item]] = {}

    def __len__(self) -> int:
        """Return the number of items in progress."""
        return len(self._running)

    @property
    def items(self) -> list[Item]:
        """The items in progress."""
        return [running.item for running in self._running.values()]

    def get(self, key: Key) -> Item | None:
        """Return the item of a key, or ``None`` if it is not in progress."""
        running = self._running.get(key)
        return None if running is None else running.item

    def start(
        self, key: Key, item: Item, work: Callable[[], Awaitable[None]], log_fields: Mapping[str, object]
    ) -> asyncio.Task[None]:
        """Start work on an item. Work of the same key that has not ended is cancelled first.

        Args:
            key: identifies the work.
            item: the item.
            work: does the work.
            log_fields: logged with an exception.
        """
        stale = self._running.get(key)
        if stale is not None:
            stale.task.cancel()
        task = asyncio.create_task(_run(work, stale.task if stale else None), name=f"{self._label}-{key}")
        self._running[key] = _Running(item, task)
        task.add_done_callback(lambda done: self._end(key, done, log_fields))
        return task

    async def wait(self) -> None:
        """Wait until the work that is in progress now has ended."""
        if self._running:
            await asyncio.wait([running.task for running in self._running.values()])

    async def cancel(self, key: Key) -> None:
        """Cancel the work of a key, if it is in progress, and wait until it has ended."""
        if running := self._running.get(key):
            await _cancelled(running.task)

    async def cancel_all(self) -> list[Item]:
        """Cancel all work, wait until it has ended, and return the items that were in progress."""
        running = list(self._running.values())
        await _cancelled(*(each.task for each in running))
        return [each.item for each in running]

    def _end(self, key: Key, task: asyncio.Task[None], log_fields: Mapping[str, object]) -> None:
        if key in self._running and self._running[key].task is task:
            del self._running[key]
        self._on_end()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s", self._defect_message, exc_info=error, extra=dict(log_fields))


async def _run(work: Callable[[], Awaitable[None]], stale: asyncio.Task[None] | None) -> None:
    if stale is not None:
        await asyncio.gather(stale, return_exceptions=True)
    await work()


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
