"""Fair sharing of the summaries that clients wait for."""

from __future__ import annotations

from itertools import count

from typing_extensions import override

from pipeline.domain.scheduling.fair_queue import SlotLimits, TurnRequest
from pipeline.domain.summaries.summary import Summary
from pipeline.fair_slots import FairSlots
from pipeline.ports import Clock, Summarizer, SummaryJob


class FairSummarizer(Summarizer):
    """A ``Summarizer`` that passes a limited number of jobs at a time to another one.

    The client with the fewest running jobs is served first, so that no client waits behind the many jobs of another.
    A job without a client counts as a client of its own.

    Args:
        summarizer: writes the summaries.
        slots: how many jobs run at the same time.
        clock: measures the ageing of waiting jobs.
    """

    def __init__(self, summarizer: Summarizer, slots: int, clock: Clock) -> None:
        self._summarizer = summarizer
        self._slots = FairSlots(SlotLimits(slots, reserve=True), clock)
        self._anonymous_ids = count()

    @override
    async def summarize(self, order: SummaryJob) -> Summary:
        client = f"request {next(self._anonymous_ids)}" if order.client is None else f"client {order.client}"
        async with self._slots.turn(TurnRequest(client, 0, cost=1.0)):
            return await self._summarizer.summarize(order)
