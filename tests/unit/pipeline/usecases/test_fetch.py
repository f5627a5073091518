import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from pipeline.domain.crawl import Link
from pipeline.domain.options import TranscriptionOptions
from pipeline.domain.task import EngineName, Priority, Status, Task
from pipeline.errors import MurmurationError, ReplicaLost
from pipeline.ports import CrawledMedia
from pipeline.settings import Settings
from pipeline.testing.crawl import FakeCrawler
from pipeline.testing.media import MemoryMediaStore
from pipeline.usecases import fetch
from pipeline.usecases.fetch import Fetcher

URL = "https://site.example/film.mp4"


def task(url: str | None = URL) -> Task:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    return Task(
        id=1, status=Status.PROCESSING, priority=Priority.NORMAL, engine_name=EngineName.FASTER_WHISPER, fence=3,
        options=TranscriptionOptions(), media_prefix="t1", created_at=now, updated_at=now, file_url=url, link=Link(),
    )  # fmt: skip


async def test_the_recording_lies_where_the_task_looks_for_it() -> None:
    media = MemoryMediaStore()
    crawler = FakeCrawler(media, {URL: [b"sound"]})

    key, fetched = await Fetcher(crawler, media, Settings()).fetch(task())

    assert (key, fetched) == ("t1/source", CrawledMedia(5, "film.mp4"))
    assert await media.read(key) == b"sound"
    assert crawler.requests[0].fence == 3


async def test_a_crawler_that_falls_silent_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SILENCE_S", 0.01)
    media = MemoryMediaStore()
    crawler = FakeCrawler(media, {URL: [b"sound"]})
    crawler.open_gate.clear()

    with pytest.raises(ReplicaLost):
        await Fetcher(crawler, media, Settings()).fetch(task())
    assert crawler.abandoned == crawler.requests


async def test_a_task_without_a_source_is_our_defect() -> None:
    media = MemoryMediaStore()
    with pytest.raises(MurmurationError):
        await Fetcher(FakeCrawler(media), media, Settings()).fetch(task(url=None))


async def test_what_a_dead_crawler_began_is_removed() -> None:
    media = MemoryMediaStore()
    crawler = FakeCrawler(media, {URL: [ReplicaLost("It died.")]})
    crawler.open_gate.clear()
    fetcher = Fetcher(crawler, media, Settings())
    fetching = asyncio.create_task(fetcher.fetch(task()))
    while not crawler.requests:
        await asyncio.sleep(0)
    assert fetcher.at_work == {1}
    await media.write("t1/source.partial", once(b"half"))
    crawler.open_gate.set()

    with pytest.raises(ReplicaLost):
        await fetching
    assert media.keys == set()
    assert fetcher.at_work == set()


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data
