"""A Crawler whose recordings come from a dictionary."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from typing_extensions import override

from pipeline.domain.links.platforms import CrawlRecord
from pipeline.errors import LeaseLost, MurmurationError, PrivateOrRemoved
from pipeline.ports import CrawledMedia, Crawler, CrawlProgress, CrawlRequest, MediaStore


async def _always(request: CrawlRequest) -> bool:
    return True


@dataclass(slots=True)
class FakeCrawler(Crawler):
    """A ``Crawler`` without a network.

    Attributes:
        media: media store for the recordings.
        sources: recordings or errors by URL. Each crawl takes the next entry of the list; the last entry stays.
        records: crawl records by URL.
        held: tells whether the task of a request still runs under its fence.
        open_gate: no recording arrives while this event is cleared.
        requests: all requests, in order.
        abandoned: requests whose stream was closed before its end.
    """

    media: MediaStore
    sources: dict[str, list[bytes | MurmurationError]] = field(default_factory=dict)
    records: dict[str, CrawlRecord] = field(default_factory=dict)
    held: Callable[[CrawlRequest], Awaitable[bool]] = _always
    open_gate: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[CrawlRequest] = field(default_factory=list)
    abandoned: list[CrawlRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open_gate.set()

    @override
    async def crawl(self, request: CrawlRequest) -> AsyncGenerator[CrawlProgress | CrawledMedia, None]:
        self.requests.append(request)
        try:
            yield CrawlProgress(0)
            await self.open_gate.wait()
        except (asyncio.CancelledError, GeneratorExit):
            self.abandoned.append(request)
            raise
        data = self._source(request.url)
        if not await self.held(request):
            raise LeaseLost("The task passed to another owner.")
        size_bytes = await self.media.write(request.media_key, _once(data))
        record = self.records.get(request.url)
        yield CrawledMedia(size_bytes, request.url.rpartition("/")[2], record.platform if record else None, record)

    def _source(self, url: str) -> bytes:
        script = self.sources.get(url, [PrivateOrRemoved("There is no recording at this address.")])
        result = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(result, MurmurationError):
            raise result
        return result


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
