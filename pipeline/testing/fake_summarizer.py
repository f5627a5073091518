"""A Summarizer with a fixed summary, controlled by the test."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from typing_extensions import override

from pipeline.domain.summaries.summary import Summary, TokenUsage
from pipeline.ports import Summarizer, SummaryJob
from pipeline.testing.manual_clock import START


@dataclass(slots=True)
class FakeSummarizer(Summarizer):
    """A ``Summarizer`` that returns a fixed summary.

    Attributes:
        failures: errors for the next calls, one each.
        orders: all jobs, in order.
        abandoned: jobs that were cancelled before they were finished.
        open_gate: no job finishes while this event is cleared.
    """

    failures: list[Exception] = field(default_factory=list)
    orders: list[SummaryJob] = field(default_factory=list)
    abandoned: list[SummaryJob] = field(default_factory=list)
    open_gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open_gate.set()

    @override
    async def summarize(self, order: SummaryJob) -> Summary:
        self.orders.append(order)
        try:
            await self.open_gate.wait()
        except asyncio.CancelledError:
            self.abandoned.append(order)
            raise
        if self.failures:
            raise self.failures.pop(0)
        return Summary(
            text="They greet each other. [00:00:00]",
            language=order.options.summary_language or "en",
            model=order.options.summary_model or "fake",
            created_at=START,
            completion_id="fake-1",
            usage=TokenUsage(1, 120, 9),
        )
