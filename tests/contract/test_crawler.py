"""The contract of every Crawler, the fake as well as the one that makes connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from pipeline.crawl import crawler as real
from pipeline.crawl.crawler import LocalCrawler
from pipeline.crawl.extractor_processes import ExtractorProcesses
from pipeline.domain.links.platforms import Link
from pipeline.errors import (
    LeaseLost,
    MurmurationError,
    PrivateOrRemoved,
    RateLimited,
    SourceTooLarge,
    SourceTooSlow,
    UrlNotAllowed,
)
from pipeline.ports import CrawledMedia, Crawler, CrawlProgress, CrawlRequest
from pipeline.settings import Settings
from pipeline.system_clock import SystemClock
from pipeline.testing.fake_crawler import FakeCrawler
from pipeline.testing.local_receiver import LocalReceiver, ReceivedRequest, answers, head, local_receiver
from pipeline.testing.memory_media import MemoryMediaStore

FILM = b"\0\0\0\x20ftypisom" + bytes(100_000)
LIMIT = 200_000
KEY = "t1/source"


@dataclass
class CrawlWorld:
    """A crawler, and the few addresses there are."""

    crawler: Crawler
    url: Callable[[str], str]
    media: MemoryMediaStore
    lost: asyncio.Event
    stalled: asyncio.Event = field(default_factory=asyncio.Event)

    def request(self, path: str) -> CrawlRequest:
        return CrawlRequest(1, 1, self.url(path), Link(), KEY)

    async def events(self, path: str) -> list[CrawlProgress | CrawledMedia]:
        return [event async for event in self.crawler.crawl(self.request(path))]


async def drip(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    writer.write(head(200, {"Content-Length": str(len(FILM))}))
    for byte in FILM:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def drip_head(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    for letter in "HTTP/1.1 200 OK\r\nX-Slow: " + "a" * 1000:
        writer.write(letter.encode())
        await writer.drain()
        await asyncio.sleep(0.02)


async def stall(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
    writer.write(head(200, {"Content-Length": str(len(FILM))}) + FILM[:1000])
    await writer.drain()
    await asyncio.sleep(60)


@pytest.fixture
async def receiver() -> AsyncIterator[LocalReceiver]:
    behaviours = {
        "/film.mp4": answers(200, FILM),
        "/gone.mp4": answers(404),
        "/often.mp4": answers(429, b"", {"Retry-After": "9"}),
        "/large.mp4": answers(200, FILM * 3),
        "/stalled.mp4": stall,
        "/dripping.mp4": drip,
        "/dripping-head.mp4": drip_head,
    }
    async with local_receiver(behaviours) as running:
        yield running


def fake(receiver: LocalReceiver) -> CrawlWorld:
    media, lost = MemoryMediaStore(), asyncio.Event()

    async def held(request: CrawlRequest) -> bool:
        return not lost.is_set()

    crawler = FakeCrawler(media, held=held)
    crawler.sources = {
        receiver.url("/film.mp4"): [FILM],
        receiver.url("/often.mp4"): [RateLimited("Too often.", 9.0)],
        receiver.url("/large.mp4"): [SourceTooLarge("Too large.")],
        receiver.url("/stalled.mp4"): [FILM],
        "http://10.0.0.1/film.mp4": [UrlNotAllowed("Not there.")],
    }
    return CrawlWorld(crawler, lambda path: path if "://" in path else receiver.url(path), media, lost)


def local(receiver: LocalReceiver, media: MemoryMediaStore | None = None, **crawl: float) -> CrawlWorld:
    media, lost = media or MemoryMediaStore(), asyncio.Event()

    async def held(request: CrawlRequest) -> bool:
        return not lost.is_set()

    settings = Settings(network={"allow_private_hosts": ["127.0.0.1"]}, media={"max_upload_bytes": LIMIT}, crawl=crawl)
    crawler = LocalCrawler(media, ExtractorProcesses(), settings, held, SystemClock())
    return CrawlWorld(crawler, lambda path: path if "://" in path else receiver.url(path), media, lost)


@pytest.fixture(params=[fake, local])
def world(request: pytest.FixtureRequest, receiver: LocalReceiver, monkeypatch: pytest.MonkeyPatch) -> CrawlWorld:
    monkeypatch.setattr(real, "PROGRESS_S", 0.01)
    made: CrawlWorld = request.param(receiver)
    return made


async def test_signs_of_life_then_the_recording(world: CrawlWorld) -> None:
    *signs, last = await world.events("/film.mp4")
    assert all(isinstance(sign, CrawlProgress) for sign in signs)
    assert last == CrawledMedia(len(FILM), "film.mp4")
    assert await world.media.read(KEY) == FILM


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/gone.mp4", PrivateOrRemoved),
        ("/often.mp4", RateLimited),
        ("/large.mp4", SourceTooLarge),
        ("http://10.0.0.1/film.mp4", UrlNotAllowed),
    ],
)
async def test_what_goes_wrong_is_one_of_ours_and_leaves_nothing(
    world: CrawlWorld, path: str, error: type[MurmurationError]
) -> None:
    with pytest.raises(error):
        await world.events(path)
    assert world.media.keys == set()


async def test_the_recording_of_a_task_that_is_gone_is_not_stored(world: CrawlWorld) -> None:
    world.lost.set()
    with pytest.raises(LeaseLost):
        await world.events("/film.mp4")
    assert world.media.keys == set()


async def test_a_stream_that_is_closed_leaves_nothing(world: CrawlWorld) -> None:
    if isinstance(world.crawler, FakeCrawler):
        world.crawler.open_gate.clear()
    stream = world.crawler.crawl(world.request("/stalled.mp4"))
    assert isinstance(await anext(stream), CrawlProgress)
    await stream.aclose()
    assert world.media.keys == set()


@pytest.mark.parametrize("path", ["/dripping.mp4", "/dripping-head.mp4", "/stalled.mp4"])
async def test_a_source_that_sends_a_byte_now_and_then_is_not_waited_for(
    path: str, receiver: LocalReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real, "PROGRESS_S", 0.01)
    world = local(receiver, min_bytes_per_s=10_000, min_rate_window_s=0.2)
    with pytest.raises(SourceTooSlow, match=r"127\.0\.0\.1 sends less than 10,000 bytes a second over 0\.2 s"):
        await world.events(path)
    assert world.media.keys == set()


class SlowMediaStore(MemoryMediaStore):
    """A media store that waits before every block."""

    async def write(self, key: str, data: AsyncIterator[bytes]) -> int:
        async def slowed() -> AsyncIterator[bytes]:
            async for block in data:
                await asyncio.sleep(0.1)
                yield block
            await asyncio.sleep(0.1)

        return await super().write(key, slowed())


async def test_the_time_our_own_storage_takes_is_not_the_sources_fault(
    receiver: LocalReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real, "PROGRESS_S", 0.01)
    world = local(receiver, SlowMediaStore(), min_bytes_per_s=10_000_000, min_rate_window_s=0.05)
    assert (await world.events("/film.mp4"))[-1] == CrawledMedia(len(FILM), "film.mp4")
