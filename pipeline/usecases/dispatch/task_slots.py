"""Slots for tasks, with the ids of the tasks that hold or await one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from pipeline.domain.scheduling.fair_queue import TurnRequest
from pipeline.fair_slots import FairSlots, Turn


class TaskSlots:
    """Fair slots that record which tasks hold or await one. A task requests one slot at a time.

    Args:
        slots: the slots, which decide who is next.
    """

    def __init__(self, slots: FairSlots) -> None:
        self._slots = slots
        self._active: set[int] = set()
        self._waiting: dict[int, None] = {}

    @property
    def active_ids(self) -> Collection[int]:
        """Ids of the tasks that hold a slot."""
        return self._active

    @property
    def waiting_ids(self) -> Collection[int]:
        """Ids of the tasks that wait for a slot, in order of their requests."""
        return self._waiting.keys()

    @asynccontextmanager
    async def turn(self, task_id: int, request: TurnRequest) -> AsyncIterator[Turn]:
        """Wait for a slot, and hold it until the block ends."""
        self._waiting[task_id] = None
        try:
            async with self._slots.turn(request) as turn:
                del self._waiting[task_id]
                self._active.add(task_id)
                yield turn
        finally:
            self._waiting.pop(task_id, None)
            self._active.discard(task_id)
