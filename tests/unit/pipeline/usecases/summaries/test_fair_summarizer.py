from __future__ import annotations

import asyncio

import pytest

from pipeline.domain.summaries.summary import Summary, SummaryOptions
from pipeline.ports import SummaryJob
from pipeline.testing.manual_clock import START, ManualClock
from pipeline.usecases.summaries.fair_summarizer import FairSummarizer

SUMMARY = Summary(text="Short.", language="en", model="m", created_at=START, completion_id="1")


class SilentModel:
    """A summarizer that answers all clients but ``ignored``."""

    def __init__(self, ignored: str) -> None:
        self.orders: list[SummaryJob] = []
        self._ignored = ignored

    async def summarize(self, order: SummaryJob) -> Summary:
        self.orders.append(order)
        if order.client == self._ignored:
            await asyncio.Event().wait()
        return SUMMARY


def order(client: str | None) -> SummaryJob:
    return SummaryJob(1, "a", SummaryOptions(), client=client)


@pytest.mark.parametrize("client", ["modest", None])
async def test_one_clients_many_jobs_do_not_keep_others_waiting(client: str | None) -> None:
    model = SilentModel(ignored="greedy")
    sharing = FairSummarizer(model, 8, ManualClock())
    waiting = [asyncio.create_task(sharing.summarize(order("greedy"))) for _ in range(500)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(model.orders) == 4

    async with asyncio.timeout(5):
        assert [await sharing.summarize(order(client)) for _ in range(20)] == [SUMMARY] * 20

    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await sharing.summarize(order("greedy again")) == SUMMARY


async def test_a_cancelled_job_frees_its_slot() -> None:
    model = SilentModel(ignored="a")
    sharing = FairSummarizer(model, 1, ManualClock())
    first = asyncio.create_task(sharing.summarize(order("a")))
    second = asyncio.create_task(sharing.summarize(order("b")))
    await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(5):
        assert await second == SUMMARY
