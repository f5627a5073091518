"""Keep-alive and deletion of tasks that exist only as long as their client waits for them.

The process that serves such a client extends the task's ``awaited_until`` at intervals. If that process dies, the time
passes and housekeeping deletes the task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from pipeline.errors import DatabaseUnavailable, TaskNotFound
from pipeline.ports import Clock, MediaStore, NullMetrics, TaskRecords
from pipeline.usecases.background_loop import SupervisedLoop

logger = logging.getLogger(__name__)

KEEPALIVE_TTL = timedelta(minutes=2)
"""Time for which a task is kept after the last sign that its client waits."""
KEEPALIVE_INTERVAL_S = 30.0
"""Interval at which ``awaited_until`` is extended; a short task ends before the first time."""


@asynccontextmanager
async def keep_alive(store: TaskRecords, clock: Clock, task_id: int) -> AsyncIterator[None]:
    """Extend the task's ``awaited_until`` at intervals while the block runs."""
    renewal = asyncio.create_task(_renew(store, clock, task_id))
    try:
        yield
    finally:
        renewal.cancel()


async def _renew(store: TaskRecords, clock: Clock, task_id: int) -> None:
    loop = SupervisedLoop("keepalive", "keeping a task for its client", clock, NullMetrics())
    while True:
        await clock.sleep(KEEPALIVE_INTERVAL_S)
        await loop.attempt(lambda: store.extend_wait(task_id, clock.now() + KEEPALIVE_TTL))


async def delete_task_and_media(
    store: TaskRecords, media: MediaStore, cancel: Callable[[int], Awaitable[None]] | None, task_id: int
) -> None:
    """Delete a task with its result and its media, and stop the attempt at it.

    Args:
        store: holds the task.
        media: holds its recording.
        cancel: stops the attempt at a task; ``None`` if the task is known to have finished.
        task_id: id of the task.

    Raises:
        TaskNotFound: there is no such task.
    """
    prefix = await store.delete(task_id)
    if cancel is not None:
        await cancel(task_id)
    if prefix:  # empty if the row's prefix was damaged; housekeeping deletes the media as an orphan then
        await media.delete_prefix(prefix)


async def discard_task(
    store: TaskRecords, media: MediaStore, cancel: Callable[[int], Awaitable[None]] | None, task_id: int
) -> None:
    """Delete a task whose client has its response or is gone.

    A failure is logged. Housekeeping deletes the task once its ``awaited_until`` has passed.
    """
    try:
        await delete_task_and_media(store, media, cancel, task_id)
    except TaskNotFound:
        return  # it was deleted meanwhile
    except (DatabaseUnavailable, OSError) as error:
        logger.warning("the task is left to housekeeping: %s", error, extra={"task_id": task_id})
