"""Places that tasks take turns at, and which tasks have one or wait for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from pipeline.domain.scheduling.fair_queue import TurnRequest
from pipeline.fair_slots import FairSlots, Turn


class TaskSlots:
    """``FairSlots`` that know the tasks in them; a task takes one turn at a time.

    Args:
        slots: the turns.
    """

    def __init__(self, slots: FairSlots) -> None:
        self._slots = slots
        self._begun: set[int] = set()
        self._waiting: dict[int, None] = {}

    @property
    def begun(self) -> Collection[int]:
        """Ids of the tasks that have a place."""
        return self._begun

    @property
    def waiting(self) -> Collection[int]:
        """Ids of the tasks that wait for one, in the order in which they came."""
        return self._waiting.keys()

    @asynccontextmanager
    async def turn(self, task_id: int, request: TurnRequest) -> AsyncIterator[Turn]:
        """Wait for a place, and hold it until the block ends."""
        self._waiting[task_id] = None
        try:
            async with self._slots.turn(request) as turn:
                del self._waiting[task_id]
                self._begun.add(task_id)
                yield turn
        finally:
            self._waiting.pop(task_id, None)
            self._begun.discard(task_id)
