"""Tasks that exist only as long as their client waits: kept while it does, removed when it does not.

Whoever serves such a client says at intervals that it is still there. Where that process dies, nobody does, and the
reaper removes the task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from pipeline.errors import DatabaseUnavailable, TaskNotFound
from pipeline.observability import NoMetrics
from pipeline.ports import Clock, MediaStore, TaskRecords
from pipeline.usecases.background_loop import SupervisedLoop

logger = logging.getLogger(__name__)

KEEPALIVE_TTL = timedelta(minutes=2)
"""How long a task is kept after its client was last known to wait."""
KEEPALIVE_INTERVAL_S = 30.0
"""How often it is said that the client still waits; a short task ends before the first time."""


@asynccontextmanager
async def keep_alive(store: TaskRecords, clock: Clock, task_id: int) -> AsyncIterator[None]:
    """Within this block the task's client is known to wait for it."""
    renewal = asyncio.create_task(_renew(store, clock, task_id))
    try:
        yield
    finally:
        renewal.cancel()


async def _renew(store: TaskRecords, clock: Clock, task_id: int) -> None:
    loop = SupervisedLoop("keepalive", "keeping a task for its client", clock, NoMetrics())
    while True:
        await clock.sleep(KEEPALIVE_INTERVAL_S)
        await loop.attempt(lambda: store.extend_wait(task_id, clock.now() + KEEPALIVE_TTL))


async def delete_task_and_media(
    store: TaskRecords, media: MediaStore, cancel: Callable[[int], Awaitable[None]] | None, task_id: int
) -> None:
    """Deletes a task with its result and its media, and stops what is being done for it.

    Args:
        store: where the task is.
        media: where its recording is.
        cancel: stops the attempt at it; ``None`` where it is known to have finished.
        task_id: the task.

    Raises:
        TaskNotFound: there is no such task.
    """
    prefix = await store.delete(task_id)
    if cancel is not None:
        await cancel(task_id)
    if prefix:  # the name of the folder may be what was damaged; it is swept as an orphan's then
        await media.delete_prefix(prefix)


async def discard_task(
    store: TaskRecords, media: MediaStore, cancel: Callable[[int], Awaitable[None]] | None, task_id: int
) -> None:
    """Delete a task whose client has its answer or is gone; what fails now is left to housekeeping."""
    try:
        await delete_task_and_media(store, media, cancel, task_id)
    except TaskNotFound:
        return  # somebody else deleted it
    except (DatabaseUnavailable, OSError) as error:
        logger.warning("the task is left to the reaper: %s", error, extra={"task_id": task_id})
