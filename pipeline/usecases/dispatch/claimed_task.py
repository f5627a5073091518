"""A claimed task's record, and the writes to it under the lease of the claim."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from pipeline.domain.tasks.task import Task
from pipeline.ports import Clock, Lease, TaskStore
from pipeline.usecases.outage_retry import retry_until_available

Result = TypeVar("Result")


class ClaimedTask:
    """A claimed task, as the attempt at it reads and writes it.

    Each call is repeated until the database is available. A write raises ``LeaseLost`` once the lease is lost.

    Args:
        record: the task's record at the claim.
        store: holds the task.
        clock: times the pauses of an outage.
        on_changed: called with the task's id whenever its record changes.
    """

    def __init__(self, record: Task, store: TaskStore, clock: Clock, on_changed: Callable[[int], None]) -> None:
        self._record = record
        self._store = store
        self._clock = clock
        self._on_changed = on_changed
        self._progressed = False

    @property
    def record(self) -> Task:
        """The task's record, as last stored."""
        return self._record

    @property
    def lease(self) -> Lease:
        """The lease of the claim, for writes to the task."""
        return Lease(self._record.id, self._record.fence)

    @property
    def failures(self) -> int:
        """Number of failed attempts in a row without progress, not counting this one; 0 once it has made progress."""
        return 0 if self._progressed else self._record.failures

    async def call(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        """Call the store, and return the result."""
        return await retry_until_available(operation, self._clock)

    async def store_progress(self, write: Callable[[], Awaitable[None]]) -> None:
        """Store a part or results, with which the attempt has made progress."""
        await self.call(write)
        self._progressed = True

    async def update(self, **changes: Any) -> None:
        """Change fields of the task's record."""
        await self.call(lambda: self._store.update(self.lease, **changes))
        self._record = replace(self._record, **changes)
        self.report_change()

    def report_change(self) -> None:
        """Report to the task's watchers that its record or its chunks have changed."""
        self._on_changed(self._record.id)
