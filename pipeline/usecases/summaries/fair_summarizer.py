"""Summaries that clients wait for, so many at a time, shared between clients."""

from __future__ import annotations

from itertools import count

from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest
from pipeline.domain.summaries.summary import Summary
from pipeline.fair_slots import FairSlots
from pipeline.ports import Clock, Summarizer, SummaryJob


class FairSummarizer:
    """``ports.Summarizer`` over another, which is given few orders at a time.

    The client with the fewest goes first, so that nobody waits behind another's hundreds.

    Args:
        summarizer: writes.
        slots: orders that it has at the same time.
        clock: for the ageing of those that wait.
    """

    def __init__(self, summarizer: Summarizer, slots: int, clock: Clock) -> None:
        self._summarizer = summarizer
        self._slots = FairSlots(SlotLimits(slots, reserve=True), clock)
        self._strangers = count()

    async def summarize(self, order: SummaryJob) -> Summary:
        """See ``ports.Summarizer.summarize``."""
        client = f"request {next(self._strangers)}" if order.client is None else f"client {order.client}"
        async with self._slots.turn(TurnRequest(client, 0, cost=1.0)):
            return await self._summarizer.summarize(order)
