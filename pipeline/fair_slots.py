"""Fair slots for coroutines: a semaphore that grants its slots by priority and fairly between clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from pipeline.domain.scheduling.fair_queue import AGEING_S, FairQueue, QueuePosition, SlotLimits, TurnRequest
from pipeline.ports import Clock

T = TypeVar("T")

SLOW_STEP_S = 0.5
"""Seconds after which a step continues without its slot, so that nobody waits for a slow disk or a slow codec."""


class FairSlots:
    """Slots of a shared resource; a replacement for ``asyncio.Semaphore`` and, like it, for one event loop.

    Args:
        limits: number of slots, and the rules for sharing them; see ``domain.scheduling.fair_queue``.
        clock: measures the waits of requests and the length of turns.
        ageing_s: seconds of waiting that raise a request by one priority.
    """

    def __init__(self, limits: SlotLimits, clock: Clock, ageing_s: float = AGEING_S) -> None:
        self._queue = FairQueue(limits, ageing_s)
        self._clock = clock
        self._granted: dict[QueuePosition, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def turn(self, request: TurnRequest) -> AsyncIterator[Turn]:
        """Wait for a slot and hold it until the block ends, or until ``Turn.release``.

        The length of the turn, in seconds, is charged to the client if the request has no cost of its own.
        """
        position = self._queue.join(request, self._clock.monotonic())
        granted = self._granted[position] = asyncio.get_running_loop().create_future()
        self._grant()
        try:
            await granted
        except BaseException:
            self._withdraw(position, granted)
            raise
        turn = Turn(self, position, self._clock)
        try:
            yield turn
        finally:
            turn.release()
            turn.charge()

    @property
    def waiting(self) -> int:
        """Number of coroutines that wait for a slot."""
        return self._queue.waiting

    @property
    def taken(self) -> int:
        """Number of taken slots."""
        return self._queue.taken

    def _grant(self) -> None:
        while position := self._queue.next(self._clock.monotonic()):
            granted = self._granted.pop(position)
            if granted.cancelled():  # the waiter was cancelled and has not run since
                self._queue.finish(position)
            else:
                granted.set_result(None)

    def _withdraw(self, position: QueuePosition, granted: asyncio.Future[None]) -> None:
        """Withdraw the request of a waiter that was cancelled, perhaps just after it got its slot."""
        if self._granted.pop(position, None) is not None:
            self._queue.leave(position)
        elif not granted.cancelled():
            self.end(position)

    def charge(self, position: QueuePosition, seconds: float) -> None:
        """Charge a turn by its length, unless it was charged when it began."""
        if not position.request.cost:
            self._queue.charge(position, seconds)

    def should_yield(self, position: QueuePosition, size: float) -> bool:
        """Return whether a waiting request would get the turn instead of its holder; see ``Turn.should_yield``."""
        return self._queue.should_yield(position, size, self._clock.monotonic())

    def end(self, position: QueuePosition) -> None:
        """Free a slot, and grant it to the next request after its holder has had the chance to join the queue again."""
        self._queue.finish(position)
        asyncio.get_running_loop().call_soon(self._grant)


class Turn:
    """A held slot; made by ``FairSlots.turn``."""

    def __init__(self, slots: FairSlots, position: QueuePosition, clock: Clock) -> None:
        self._slots = slots
        self._position = position
        self._clock = clock
        self._charged_until = clock.monotonic()
        self._held = True

    def should_yield(self, size: float) -> bool:
        """Return whether a waiting request should have the slot now rather than its holder.

        Args:
            size: size of the holder's work, as known now.
        """
        self.charge()
        return self._slots.should_yield(self._position, size)

    def release(self) -> None:
        """Release the slot before the work has ended. Further calls have no effect."""
        if self._held:
            self._held = False
            self.charge()
            self._slots.end(self._position)

    def charge(self) -> None:
        """Charge the time since the turn began, or since the last call."""
        now = self._clock.monotonic()
        self._slots.charge(self._position, now - self._charged_until)
        self._charged_until = now


class SlicedWork:
    """A piece of work in short steps, each in a turn of its own.

    Work that has taken less time goes before other work of its client, so that short work is soon done.

    Args:
        slots: slots of the shared resource.
        request: request for each turn.
        clock: measures the time of the steps.
        slow_s: seconds after which a step continues without its slot.
    """

    def __init__(self, slots: FairSlots, request: TurnRequest, clock: Clock, slow_s: float = SLOW_STEP_S) -> None:
        self._slots = slots
        self._request = request
        self._clock = clock
        self._slow_s = slow_s
        self._spent_s = 0.0

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a step in a turn. A cancelled caller waits until the step has ended."""
        async with self._slots.turn(replace(self._request, size=self._spent_s)) as turn:
            began = self._clock.monotonic()
            step = asyncio.ensure_future(work())
            try:
                if not (await asyncio.wait({step}, timeout=self._slow_s))[0]:
                    turn.release()
                return await step
            finally:
                await self._finish_step(step, turn)
                self._spent_s += self._clock.monotonic() - began

    async def _finish_step(self, step: asyncio.Future[Any], turn: Turn) -> None:
        """Cancel a step that still runs, and wait for its end; a slow one releases its slot meanwhile."""
        if step.done():
            return
        step.cancel()
        if not (await asyncio.wait({step}, timeout=self._slow_s))[0]:
            turn.release()
            await asyncio.wait({step})
        if not step.cancelled():
            step.exception()  # retrieved here, since asyncio logs exceptions that nobody retrieves
