"""Waiting: for the end of a task, and for an event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from pipeline.domain.task import Task
from pipeline.ports import Clock, TaskStore

WATCH_SLICE_S = 5.0
"""Longest single wait for news of a task, so that news that was missed is found in the database."""
WATCH_PAUSE_S = 0.1
"""Shortest time between two looks at the database for one waiting client."""

Watch = Callable[[int, float], Awaitable[None]]
"""Returns when something about a task has changed, or after so many seconds; a hint."""


async def wait_for_end(store: TaskStore, watch: Watch, clock: Clock, task_id: int, wait_s: float) -> Task:
    """The task with its result, once it is finished or ``wait_s`` seconds are over. Raises ``TaskNotFound``."""
    deadline = clock.monotonic() + wait_s
    task = await store.get(task_id, include_result=True)
    while not task.status.finished and (left_s := deadline - clock.monotonic()) > 0:
        looked_at = clock.monotonic()
        await watch(task_id, min(left_s, WATCH_SLICE_S))
        task = await store.get(task_id, include_result=True)
        if not task.status.finished and clock.monotonic() - looked_at < WATCH_PAUSE_S:
            await clock.sleep(WATCH_PAUSE_S)
    return task


async def wait_for_event(event: asyncio.Event, timeout_s: float) -> None:
    """Until the event or the timeout. Not by ``wait_for``, which on Python 3.11 can swallow a cancellation."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
