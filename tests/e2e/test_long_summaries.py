"""A transcript longer than the model's context, by the real client and over real sockets."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from pipeline.domain.decoding.transcript import Segment, Transcript, TranscriptInfo
from pipeline.domain.summaries.summary import SummaryFormat, SummaryOptions
from pipeline.domain.tasks.task import NewTask
from pipeline.outbound.openai_model import OpenAiModels
from pipeline.ports import Lease, NullMetrics, SummaryJob
from pipeline.settings import LlmSettings
from pipeline.system_clock import SystemClock
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.usecases.summaries.transcript_summarizer import TranscriptSummarizer
from tests.standins.llm import SMALL_CONTEXT_CHARACTERS, llm_server

MINUTES = 120
SAID = "We talked for a while about budget number {} and agreed that somebody must look into it again."


def two_hours() -> Transcript:
    segments = tuple(
        Segment(number + 1, 0, number * 60.0, number * 60.0 + 6.0, SAID.format(number), (), 0.0, -0.2, 1.0, 0.0)
        for number in range(MINUTES)
    )
    return Transcript("…", segments, TranscriptInfo("en", 0.9, MINUTES * 60.0, MINUTES * 6.0))


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("proper", {"context_tokens": 2048, "max_output_tokens": 500}),
        ("small", {"context_tokens": 8192}),  # it takes in far less than the settings say
    ],
)
async def test_it_is_read_in_parts_and_every_chapter_begins_where_something_is_said(
    model: str, settings: dict[str, int]
) -> None:
    store = MemoryTaskStore(ManualClock())
    await store.create(NewTask(media_prefix="a"))
    [task] = await store.claim("me", timedelta(seconds=30), 1, (0, 1, 2))
    await store.complete(Lease(task.id, task.fence), two_hours())
    async with llm_server() as server:
        llm = LlmSettings(base_url=server.base_url, model=model, max_retries=0, **settings)
        models = OpenAiModels(llm, SystemClock(), NullMetrics())
        summarizer = TranscriptSummarizer(store, models, llm, SystemClock())
        options = SummaryOptions(summary_format=SummaryFormat.STRUCTURED)
        summary = await summarizer.summarize(SummaryJob(task.id, task.media_prefix, options))
        await models.close()

    assert summary.parts is not None
    starts = [chapter.start for chapter in summary.parts.chapters]
    assert starts == sorted(starts)
    assert {start % 60 for start in starts} == {0.0}
    assert starts[-1] > MINUTES * 60 / 2, "the end of the recording is in the summary too"
    read = [body["messages"][1]["content"] for body in server.seen]
    minutes = {int(number) for material in read for number in re.findall(r"budget number (\d+)", material)}
    assert minutes == set(range(MINUTES))
    assert summary.usage.calls > 2
    if model == "small":
        assert any(len(material) > SMALL_CONTEXT_CHARACTERS for material in read), "it was believed to take in more"
