"""Turns at something shared, for coroutines: a semaphore whose slots go by priority and fairly between clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from pipeline.domain.scheduling.fair_queue import AGEING_S, FairLine, LinePosition, SlotLimits, TurnRequest
from pipeline.ports import Clock

T = TypeVar("T")

SLOW_STEP_S = 0.5
"""A step that takes longer goes on without its slot, so that nobody waits for a slow disk or a slow codec."""


class FairSlots:
    """Slots that coroutines take turns at; in the place of ``asyncio.Semaphore``, and like it for one event loop.

    Args:
        limits: how many, and how they are shared; see ``domain.fair_line``.
        clock: for ageing, and for the length of turns.
        ageing_s: a request that waits this long is lifted by one priority.
    """

    def __init__(self, limits: SlotLimits, clock: Clock, ageing_s: float = AGEING_S) -> None:
        self._line = FairLine(limits, ageing_s)
        self._clock = clock
        self._granted: dict[LinePosition, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def turn(self, request: TurnRequest) -> AsyncIterator[Turn]:
        """Wait for a slot and hold it until the block ends, or until ``Turn.release``.

        The length of the turn, in seconds, is charged to the client if the request has no cost of its own.
        """
        place = self._line.join(request, self._clock.monotonic())
        granted = self._granted[place] = asyncio.get_running_loop().create_future()
        self._grant()
        try:
            await granted
        except BaseException:
            self._withdraw(place, granted)
            raise
        turn = Turn(self, place, self._clock)
        try:
            yield turn
        finally:
            turn.release()
            turn.charge()

    @property
    def waiting(self) -> int:
        """Coroutines that wait for a slot."""
        return self._line.waiting

    @property
    def taken(self) -> int:
        """Slots that are taken."""
        return self._line.taken

    def _grant(self) -> None:
        while place := self._line.next(self._clock.monotonic()):
            granted = self._granted.pop(place)
            if granted.cancelled():  # the waiter has not been told yet
                self._line.finish(place)
            else:
                granted.set_result(None)

    def _withdraw(self, place: LinePosition, granted: asyncio.Future[None]) -> None:
        """Take back the request of a waiter that was cancelled, perhaps just after it had got its slot."""
        if self._granted.pop(place, None) is not None:
            self._line.leave(place)
        elif not granted.cancelled():
            self.end(place)

    def charge(self, place: LinePosition, seconds: float) -> None:
        """Charge a turn by its length, unless it was paid for when it began."""
        if not place.request.cost:
            self._line.charge(place, seconds)

    def should_yield(self, place: LinePosition, size: float) -> bool:
        """Return whether somebody waits who would have the turn in its holder's stead; see ``Turn.should_yield``."""
        return self._line.should_yield(place, size, self._clock.monotonic())

    def end(self, place: LinePosition) -> None:
        """Give a slot to the next, once whoever held it has had the chance to ask for another turn."""
        self._line.finish(place)
        asyncio.get_running_loop().call_soon(self._grant)


class Turn:
    """A slot that is held; made by ``FairSlots.turn``."""

    def __init__(self, slots: FairSlots, place: LinePosition, clock: Clock) -> None:
        self._slots = slots
        self._place = place
        self._clock = clock
        self._charged_until = clock.monotonic()
        self._held = True

    def should_yield(self, size: float) -> bool:
        """Return whether somebody who waits should have the slot now rather than its holder.

        Args:
            size: of the holder's work, as it is known now.
        """
        self.charge()
        return self._slots.should_yield(self._place, size)

    def release(self) -> None:
        """Give the slot back before the work has ended. Once is enough, more often is fine."""
        if self._held:
            self._held = False
            self.charge()
            self._slots.end(self._place)

    def charge(self) -> None:
        """Charge the time since the turn began, or since this was called last."""
        now = self._clock.monotonic()
        self._slots.charge(self._place, now - self._charged_until)
        self._charged_until = now


class SlicedWork:
    """One piece of work that is done in short steps, each in a turn of its own.

    Work that has taken less time goes before other work of its client, so that what is short is soon done.

    Args:
        slots: the turns.
        request: who works, and how urgently.
        clock: the time that steps take.
        slow_s: a step that takes longer than this goes on without its slot.
    """

    def __init__(self, slots: FairSlots, request: TurnRequest, clock: Clock, slow_s: float = SLOW_STEP_S) -> None:
        self._slots = slots
        self._request = request
        self._clock = clock
        self._slow_s = slow_s
        self._spent_s = 0.0

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a step when its turn has come. It is seen through before a cancelled caller goes on."""
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
        """Cancel a step that still runs, and wait for its end; a slow one gives its slot back meanwhile."""
        if step.done():
            return
        step.cancel()
        if not (await asyncio.wait({step}, timeout=self._slow_s))[0]:
            turn.release()
            await asyncio.wait({step})
        if not step.cancelled():
            step.exception()  # fetched, or asyncio would log it as one nobody looked at
