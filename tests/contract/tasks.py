"""Tasks in every state, and what they hold, for the tests of what a task store promises."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.domain.audio.spans import Chunk, Span
from pipeline.domain.decoding.transcript import (
    ChunkResult,
    LanguageDetection,
    Segment,
    Transcript,
    TranscriptInfo,
    Word,
)
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.tasks.task import (
    NewTask,
    Task,
    TaskError,
)
from pipeline.ports import DeliveryAttempt, Lease, TaskStore

LEASE = timedelta(seconds=30)
ALL_RANKS = (0, 1, 2)
ERROR = TaskError("source_timeout", "The source took longer than 10 s.")
URL = "https://example.com/hook"
DELIVERED = DeliveryAttempt(True, 200, "ok", None)

WORDS = (Word(0.0, 0.5, " 你好", 0.987654321), Word(0.5, 1.1, " naïve 😀", 0.5))
SEGMENTS = (
    Segment(1, 0, 0.0, 1.1, " 你好 naïve 😀", (50364, 2425), 0.2, -0.123456789, 1.25, 1e-9, WORDS),
    Segment(2, 110, 1.1, 2.0, ' "quoted" \\ %s :x', (), 0.0, -0.5, 1.0, 0.0, None),
)
TRANSCRIPT = Transcript(
    '你好 naïve 😀 "quoted" \\ %s :x',
    SEGMENTS,
    TranscriptInfo("zh", 0.75, 12.5, 9.25, (("zh", 0.75), ("en", 0.2)), {"beam_size": 5}, {"threshold": 0.5}),
)

CRAWLED = CrawlRecord(
    platform="tiktok",
    media_id="7332187682480590112",
    url="https://www.tiktok.com/@_/video/7332187682480590112",
    title="会议 😀",
    duration_s=4.5,
    published_at=datetime(2024, 2, 5, 16, 20, tzinfo=UTC),
    view_count=2**40,
    crawled_at=datetime(2026, 11, 24, 6, 0, 0, 123456, tzinfo=UTC),
    library="yt-dlp 2026.10.26",
)


def new_task(prefix: str = "a", **fields: Any) -> NewTask:
    return NewTask(media_prefix=prefix, **({"media_key": f"{prefix}/source"} | fields))


def chunk(index: int, part: int = 0, seconds: int = 10) -> Chunk:
    start = index * 20 * 16_000
    spans = (Span(start, start + 16_000), Span(start + 32_000, start + 32_000 + (seconds - 1) * 16_000))
    return Chunk(index, part, part_start=0, spans=spans)


def result(index: int, text: str = " hello") -> ChunkResult:
    segment = replace(SEGMENTS[0], id=0, text=text)
    return ChunkResult(index, 10.0, (segment,), "en", LanguageDetection("en", 0.9, (("en", 0.9), ("de", 0.1))), 2)


async def claim_all(store: TaskStore, limit: int = 10, ranks: tuple[int, ...] = ALL_RANKS) -> list[Task]:
    return await store.claim("owner", LEASE, limit, ranks)


async def claimed(store: TaskStore, **fields: Any) -> tuple[Task, Lease]:
    """Create and claim a task; return it and its lease."""
    task, _new = await store.create(new_task(**fields))
    tasks = await claim_all(store)
    return next((each, Lease(each.id, each.fence)) for each in tasks if each.id == task.id)


async def completed(store: TaskStore, **fields: Any) -> Task:
    _task, lease = await claimed(store, **fields)
    return await store.complete(lease, TRANSCRIPT)


async def failed(store: TaskStore, **fields: Any) -> Task:
    _task, lease = await claimed(store, **fields)
    return await store.fail(lease, ERROR)
