"""Signals to a Dispatcher that does nothing; a test decides what happens during a wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from typing_extensions import override

from pipeline.ports import TaskSignals
from pipeline.testing.manual_clock import ManualClock


class FakeDispatcher(TaskSignals):
    """``TaskSignals`` that are recorded.

    Attributes:
        wakes: number of wake-ups.
        cancelled: ids of cancelled tasks, in order.
        waits: waits for a change or an end, as (task id, timeout in seconds), in order.
        on_wait: called with the timeout of each wait; by default it advances the clock.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.wakes = 0
        self.cancelled: list[int] = []
        self.waits: list[tuple[int, float]] = []
        self.on_wait: Callable[[float], Awaitable[None]] = self._time_passes
        self._clock = clock

    async def _time_passes(self, timeout_s: float) -> None:
        self._clock.advance(timeout_s)

    @override
    async def wake(self) -> None:
        self.wakes += 1

    @override
    async def watch(self, task_id: int, seen: int, timeout_s: float) -> int:
        if seen >= 0:
            await self.watch_end(task_id, timeout_s)
        return seen + 1

    @override
    async def watch_end(self, task_id: int, timeout_s: float) -> None:
        self.waits.append((task_id, timeout_s))
        await self.on_wait(timeout_s)

    @override
    async def cancel(self, task_id: int) -> None:
        self.cancelled.append(task_id)
