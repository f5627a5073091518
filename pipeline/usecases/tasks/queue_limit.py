"""The limit of the queue: new tasks are refused while too much waits already."""

from __future__ import annotations

from pipeline.domain.tasks.client import Client, refuse_over_quota
from pipeline.domain.tasks.queue_share import refuse_over_share, share_of
from pipeline.errors import QueueFull
from pipeline.ports import Clock, TaskRecords

STATS_TTL_S = 1.0
"""Time for which a count of the queue is used before the database is queried again."""

FULL_RETRY_S = 30
"""``Retry-After`` of a task that is refused because the queue is full."""


class QueueLimit:
    """A limit on the tasks and the audio that wait, with a count of them that is a second old at most.

    Args:
        store: counts the queue and the tasks of a client.
        clock: measures the age of the count.
        max_tasks: new tasks are refused while this many wait.
        max_audio_s: new tasks are refused while this many seconds of audio are not decoded; ``None``: no limit.
    """

    def __init__(self, store: TaskRecords, clock: Clock, max_tasks: int, max_audio_s: float | None) -> None:
        self._store = store
        self._clock = clock
        self._max_tasks = max_tasks
        self._max_audio_s = max_audio_s
        self._tasks = 0
        self._audio_s = 0.0
        self._counted_at = float("-inf")

    def count_new_task(self) -> None:
        """Count a task that was created since the last query of the database."""
        self._tasks += 1

    async def check(self, client: Client | None) -> None:
        """Raise ``QueueFull`` or ``QuotaExceeded`` if the client may not submit another task now."""
        await self._refresh()
        self._refuse_if_full()
        crowded = self._tasks >= share_of(self._tasks, self._max_tasks)
        if client and (client.limited or crowded):
            load = await self._store.client_load(client.name)
            refuse_over_quota(client, load, self._clock.now())
            refuse_over_share(load, self._tasks, self._max_tasks)

    async def _refresh(self) -> None:
        if self._clock.monotonic() - self._counted_at >= STATS_TTL_S:
            stats = await self._store.stats()
            self._tasks, self._counted_at = sum(stats.queued_tasks.values()), self._clock.monotonic()
            self._audio_s = stats.pending_audio_s

    def _refuse_if_full(self) -> None:
        if self._tasks >= self._max_tasks:
            raise QueueFull(
                f"{self._tasks:,} tasks wait already, and the limit is {self._max_tasks:,}: try later.",
                retry_after_s=FULL_RETRY_S,
            )
        if self._max_audio_s is not None and self._audio_s >= self._max_audio_s:
            raise QueueFull(
                f"{self._audio_s:,.0f} seconds of audio wait already, and the limit is "
                f"{self._max_audio_s:,.0f}: try later.",
                retry_after_s=FULL_RETRY_S,
            )
