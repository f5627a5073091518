import asyncio
from datetime import UTC, datetime

import pytest

from pipeline.domain.decoding.engine_name import EngineName
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.links.platforms import Link, LinkKind
from pipeline.domain.tasks.task import Priority, Status, Task
from pipeline.errors import MurmurationError, ReplicaLost
from pipeline.ports import CrawledMedia
from pipeline.settings import Settings
from pipeline.testing.fake_crawler import FakeCrawler
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_media import MemoryMediaStore
from pipeline.usecases.dispatch import fetcher
from pipeline.usecases.dispatch.fetcher import Fetcher
from tests.support.builders import blocks

URL = "https://site.example/film.mp4"


def task(url: str | None = URL, *, number: int = 1, client: str | None = None, link: Link | None = None) -> Task:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    return Task(
        id=number, client=client, status=Status.PROCESSING, priority=Priority.NORMAL, fence=3,
        engine_name=EngineName.FASTER_WHISPER, options=TranscriptionOptions(), media_prefix=f"t{number}",
        created_at=now, updated_at=now, file_url=url, link=link or Link(),
    )  # fmt: skip


async def test_the_recording_lies_where_the_task_looks_for_it() -> None:
    media = MemoryMediaStore()
    crawler = FakeCrawler(media, {URL: [b"sound"]})

    key, fetched = await Fetcher(crawler, media, Settings(), ManualClock()).fetch(task())

    assert (key, fetched) == ("t1/source", CrawledMedia(5, "film.mp4"))
    assert await media.read(key) == b"sound"
    assert crawler.requests[0].fence == 3


async def test_a_crawler_without_heartbeats_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "CRAWLER_TIMEOUT_S", 0.01)
    media = MemoryMediaStore()
    crawler = FakeCrawler(media, {URL: [b"sound"]})
    crawler.open_gate.clear()

    with pytest.raises(ReplicaLost):
        await Fetcher(crawler, media, Settings(), ManualClock()).fetch(task())
    assert crawler.abandoned == crawler.requests


async def test_a_task_without_a_source_is_a_defect() -> None:
    media = MemoryMediaStore()
    with pytest.raises(MurmurationError):
        await Fetcher(FakeCrawler(media), media, Settings(), ManualClock()).fetch(task(url=None))


async def test_remains_of_a_dead_crawler_are_deleted() -> None:
    media = MemoryMediaStore()
    crawler = FakeCrawler(media, {URL: [ReplicaLost("It died.")]})
    crawler.open_gate.clear()
    fetcher = Fetcher(crawler, media, Settings(), ManualClock())
    fetching = asyncio.create_task(fetcher.fetch(task()))
    while not crawler.requests:
        await asyncio.sleep(0)
    assert fetcher.active_task_ids == {1}
    await media.write("t1/source.partial", blocks(b"half"))
    crawler.open_gate.set()

    with pytest.raises(ReplicaLost):
        await fetching
    assert media.keys == set()
    assert fetcher.active_task_ids == set()


class Site:
    """A fetcher with few slots, whose fetches never end."""

    def __init__(self, places: int, max_per_host: int = 99) -> None:
        media = MemoryMediaStore()
        self.crawler = FakeCrawler(media)
        self.crawler.open_gate.clear()
        settings = Settings(dispatch={"max_concurrent_crawls": places}, crawl={"max_per_host": max_per_host})
        self.fetcher = Fetcher(self.crawler, media, settings, ManualClock())
        self._number = 0
        self._fetching: list[asyncio.Task[object]] = []

    async def ask(self, url: str, client: str | None = None, link: Link | None = None, count: int = 1) -> list[str]:
        """Request a URL ``times`` times, and return all URLs that are being fetched then."""
        for _ in range(count):
            self._number += 1
            wanted = task(url, number=self._number, client=client, link=link)
            self._fetching.append(asyncio.create_task(self.fetcher.fetch(wanted)))
        for _ in range(20):
            await asyncio.sleep(0)
        return [request.url for request in self.crawler.requests]

    async def aclose(self) -> None:
        for fetching in self._fetching:
            fetching.cancel()
        await asyncio.gather(*self._fetching, return_exceptions=True)


DRIPS = "https://drips.example/a.mp3"


async def test_one_clients_links_leave_slots_to_others() -> None:
    site = Site(places=8)
    assert await site.ask(DRIPS, "greedy", count=64) == [DRIPS] * 4
    assert await site.ask(URL, "modest") == [DRIPS] * 4 + [URL]
    assert len(site.fetcher.active_task_ids) == 5 + 8  # the running fetches, and as many waiting ones
    await site.aclose()
    assert site.fetcher.active_task_ids == set()


@pytest.mark.parametrize("client", ["greedy", None])
@pytest.mark.parametrize(
    "spelling", [DRIPS, "http://DRIPS.example:8080/b", "https://www.drips.example/", "https://u:p@drips.example./"]
)
async def test_one_host_leaves_slots_to_others(client: str | None, spelling: str) -> None:
    site = Site(places=16, max_per_host=2)
    assert len(await site.ask(DRIPS, client, count=64)) == 2
    assert len(await site.ask(spelling, client)) == 2
    assert (await site.ask(URL, client))[2:] == [URL]
    await site.aclose()


async def test_a_platform_is_one_host_whatever_its_links_name() -> None:
    site = Site(places=16, max_per_host=2)
    link = Link(LinkKind.TIKTOK)
    await site.ask("https://www.tiktok.com/@a/video/1", link=link, count=2)
    assert len(await site.ask("https://vm.tiktok.com/abc/", link=link)) == 2
    await site.aclose()
