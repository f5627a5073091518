"""A task store in memory, with the behaviour of the SQL one except durability."""

from __future__ import annotations

from typing_extensions import override

from pipeline.testing.memory_attempts import MemoryAttempts
from pipeline.testing.memory_housekeeping import MemoryHousekeeping
from pipeline.testing.memory_queues import MemoryQueues
from pipeline.testing.memory_records import MemoryRecords


class MemoryTaskStore(MemoryRecords, MemoryAttempts, MemoryQueues, MemoryHousekeeping):
    """A ``TaskStore`` in memory, for one event loop. Every method takes effect in one step.

    Args:
        clock: source of all times.
        idempotency_ttl_s: how long an idempotency key is valid.
        ageing_s: waiting time after which a task rises by one priority.
        max_losses: number of expired leases in a row without progress after which a task is left to
            ``fail_exhausted``.

    Attributes:
        available: while ``False``, every method raises ``DatabaseUnavailable``.
    """

    @override
    async def migrate(self) -> None:
        self._now()

    @override
    async def ping(self) -> None:
        self._now()

    @override
    async def close(self) -> None:
        """Do nothing: stored tasks stay, as in a database."""
