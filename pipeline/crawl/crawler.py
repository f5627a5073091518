"""Adapts ``ports.Crawler``: fetches recordings in this process and writes them to the MediaStore."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

from typing_extensions import override

from pipeline.crawl.download import Download
from pipeline.crawl.extractor_messages import ExtractedPage, ExtractRequest, MediaLocation
from pipeline.crawl.extractor_processes import ExtractorProcesses
from pipeline.crawl.media_names import file_name, name_in_url
from pipeline.crawl.page_session import PageSession, library_version
from pipeline.crawl.running_crawl import RunningCrawl
from pipeline.crawl.short_links import resolve_short_link
from pipeline.crawl.site_access import SiteAccess, host_name_of, site_access
from pipeline.domain.links.platforms import CrawlRecord, LinkKind
from pipeline.domain.links.transfer_rate import RateMonitor
from pipeline.domain.scheduling.fair_queue import TurnRequest, share_key
from pipeline.errors import (
    LeaseLost,
    MediaTooLong,
    SourceTimeout,
    SourceTooSlow,
)
from pipeline.net import Dialer, GuardedClient, Resolver, SystemResolver, guarding_proxy
from pipeline.net.tls import tls_context
from pipeline.ports import Clock, CrawledMedia, Crawler, CrawlProgress, CrawlRequest, MediaStore
from pipeline.settings import Settings

PROGRESS_S = 2.0
"""Interval of heartbeats, and of the check that the task still runs."""

SLACK_BYTES = 64 * 1024 * 1024
"""Bytes allowed beyond the recording's: manifests, and the overhead of encrypted or wrapped fragments."""

_PROTOCOLS = "[protocol~='^(https?|m3u8|m3u8_native|http_dash_segments)$']"
AUDIO_FIRST = "/".join(
    f"{choice}{_PROTOCOLS}" for choice in ("ba[abr<=?192]", "ba", "b[height<=?720]", "b", "ba*", "b*[acodec!=none]")
)
"""Audio without video if the site has it, at a bit rate that suffices for speech; else video of at most 720 lines if
the site has it."""

FILM_FIRST = "/".join(f"{choice}{_PROTOCOLS}" for choice in ("b[height<=?720]", "b", "ba"))
"""For TikTok and Douyin, whose formats without video hold the post's background music instead of its sound."""


class LocalCrawler(Crawler):
    """A crawler that fetches recordings in this process.

    Args:
        media: the store that recordings are written to.
        processes: the processes that read pages.
        settings: limits, and cookies, proxies and user agents of sites.
        held: returns whether the task of a request still runs under its fence.
        clock: for the time of crawl records, and for pauses.
        resolver: resolves names to addresses.
    """

    def __init__(
        self,
        media: MediaStore,
        processes: ExtractorProcesses,
        settings: Settings,
        held: Callable[[CrawlRequest], Awaitable[bool]],
        clock: Clock,
        resolver: Resolver | None = None,
    ) -> None:
        self._media = media
        self._processes = processes
        self._settings = settings
        self._held = held
        self._clock = clock
        self._resolver = resolver or SystemResolver()
        self._ssl_context = tls_context(settings.network.ca_file)  # loading it takes longer than many crawls

    @override
    async def crawl(self, request: CrawlRequest) -> AsyncGenerator[CrawlProgress | CrawledMedia, None]:
        crawl = RunningCrawl(request, self._clock.monotonic)
        fetching = asyncio.create_task(self._fetch(crawl))
        rate = RateMonitor(self._settings.crawl.min_bytes_per_s, self._settings.crawl.min_rate_window_s)
        try:
            while not (await asyncio.wait({fetching}, timeout=PROGRESS_S))[0]:
                await self._check_lease(request)
                self._check_rate(crawl, rate)
                yield CrawlProgress(crawl.stored, crawl.total)
            yield fetching.result()
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)

    async def _check_lease(self, request: CrawlRequest) -> None:
        if not await self._held(request):
            raise LeaseLost(f"Task {request.task_id} passed to another owner, or ended, after fence {request.fence}.")

    def _check_rate(self, crawl: RunningCrawl, rate: RateMonitor) -> None:
        """Refuse a source that sends too slowly. The time that writing to the MediaStore takes does not count."""
        if rate.is_too_slow(crawl.received, crawl.source_s):
            limits = self._settings.crawl
            raise SourceTooSlow(
                f"{host_name_of(crawl.request.url)} sends less than {limits.min_bytes_per_s:,} bytes a second over "
                f"{limits.min_rate_window_s:g} s: the download was stopped."
            )

    async def _fetch(self, crawl: RunningCrawl) -> CrawledMedia:
        crawl.deadline = asyncio.get_running_loop().time() + self._settings.crawl.deadline_s
        site = site_access(crawl.request, self._settings)
        client = GuardedClient(site.network, self._resolver, ssl_context=self._ssl_context)
        try:
            async with asyncio.timeout_at(crawl.deadline):
                if crawl.request.link.kind is LinkKind.FILE:
                    return await self._fetch_file(crawl, client)
                return await self._fetch_link(crawl, site, client)
        except TimeoutError as error:
            raise SourceTimeout(f"{host_name_of(crawl.request.url)} takes too long to send the recording.") from error
        finally:
            await client.aclose()

    async def _fetch_file(self, crawl: RunningCrawl, client: GuardedClient) -> CrawledMedia:
        stem, extension = name_in_url(crawl.request.url)
        location = MediaLocation(crawl.request.url, {}, extension, direct=True)
        download = self._download(crawl, client, location)
        crawl.start_source_timer()
        await self._store(crawl, download.blocks(), download)
        if download.name:
            stem, extension = name_in_url(f"/{download.name}")
        return CrawledMedia(crawl.stored, file_name(stem, crawl.head, extension))

    async def _fetch_link(self, crawl: RunningCrawl, site: SiteAccess, client: GuardedClient) -> CrawledMedia:
        async with self._open_session(crawl, site, client) as session:
            async with asyncio.timeout(self._settings.crawl.extract_timeout_s):
                page = await session.read_page()
            self._check_length(page)
            if not page.media.direct:
                crawl.start_source_timer()
                session.allow_bytes(self._settings.media.max_upload_bytes + SLACK_BYTES)
                await self._store(crawl, session.read_recording(self._remaining_s(crawl)))
        if page.media.direct:  # after the session, so that another link can use its slot
            crawl.start_source_timer()
            download = self._download(crawl, client, page.media)
            await self._store(crawl, download.blocks(), download)
        record = self._record(crawl.request, page)
        name = file_name(record.title or record.media_id, crawl.head, page.media.extension)
        return CrawledMedia(crawl.stored, name, record.platform, record)

    @asynccontextmanager
    async def _open_session(
        self, crawl: RunningCrawl, site: SiteAccess, client: GuardedClient
    ) -> AsyncIterator[PageSession]:
        limits, request = self._settings.crawl, crawl.request
        platform = request.link.kind.platform
        url = request.url
        if platform is not None:
            url = await resolve_short_link(platform, url, client, limits.extract_timeout_s)
        dialer = Dialer(site.network, self._resolver, self._ssl_context)
        async with guarding_proxy(dialer, limits.max_page_bytes) as proxy:
            crawl.proxy = proxy
            extract_request = ExtractRequest(
                url=url,
                extractors=platform.extractors if platform else _extractor_pattern(request.link.extractor),
                formats=FILM_FIRST if platform else AUDIO_FIRST,
                proxy=proxy.url,
                timeout_s=limits.extract_timeout_s,
                max_process_bytes=limits.max_process_bytes,
                scratch="",
                cookies=site.cookies,
                user_agent=site.user_agent,
                js_runtime=str(limits.js_runtime) if limits.js_runtime else None,
            )
            async with self._processes.open_session(
                extract_request, host_name_of(request.url), proxy, _turn_request(request)
            ) as session:
                yield session

    def _download(self, crawl: RunningCrawl, client: GuardedClient, location: MediaLocation) -> Download:
        return Download(
            client,
            location,
            max_bytes=self._settings.media.max_upload_bytes,
            deadline=crawl.deadline,
            max_breaks=self._settings.crawl.max_breaks,
            sleep=self._clock.sleep,
        )

    async def _store(
        self, crawl: RunningCrawl, blocks: AsyncGenerator[bytes, None], download: Download | None = None
    ) -> None:
        """Write the recording. Refuse it if it is too large or its first bytes are those of a web page."""

        async def checked() -> AsyncIterator[bytes]:
            async with aclosing(blocks):
                async for block in blocks:
                    crawl.record_block(block, self._settings.media.max_upload_bytes)
                    crawl.total = download.total if download else None
                    crawl.stop_source_timer()
                    yield block
                    crawl.start_source_timer()
            crawl.stop_source_timer()
            crawl.refuse_web_page()
            await self._check_lease(crawl.request)  # only the task's owner may write its recording

        await self._media.write(crawl.request.media_key, checked())

    def _check_length(self, page: ExtractedPage) -> None:
        duration_s = page.seconds("duration")
        longest_s = self._settings.media.max_duration_s
        if duration_s is not None and duration_s > longest_s:
            raise MediaTooLong(f"The recording is {duration_s:,.0f} s long; at most {longest_s:,.0f} s are accepted.")

    def _remaining_s(self, crawl: RunningCrawl) -> float:
        return max(1.0, crawl.deadline - asyncio.get_running_loop().time())

    def _record(self, request: CrawlRequest, page: ExtractedPage) -> CrawlRecord:
        return CrawlRecord(
            platform=(page.text("extractor", 100) or "generic").lower(),
            media_id=page.text("id", 255) or "",
            url=page.text("webpage_url") or request.url,
            title=page.text("title"),
            description=page.text("description", 20_000),
            author=page.text("uploader") or page.text("channel"),
            author_id=page.text("uploader_id") or page.text("channel_id"),
            author_name=page.text("channel") or page.text("uploader"),
            author_url=page.text("uploader_url") or page.text("channel_url"),
            duration_s=page.seconds("duration"),
            published_at=page.time("timestamp"),
            view_count=page.count("view_count"),
            like_count=page.count("like_count"),
            comment_count=page.count("comment_count"),
            repost_count=page.count("repost_count"),
            thumbnail_url=page.text("thumbnail"),
            crawled_at=self._clock.now(),
            library=f"yt-dlp {library_version()}",
        )


def _extractor_pattern(extractor: str | None) -> tuple[str, ...]:
    """Return a pattern for an extractor and its sub-extractors (``vimeo``, ``vimeo:album``); empty without a name."""
    return () if extractor is None else (rf"{re.escape(extractor.lower())}(:.*)?",)


def _turn_request(request: CrawlRequest) -> TurnRequest:
    """Return the request for a turn with a process, under the same share key as in the Dispatcher."""
    kind = request.link.kind
    host = kind.value if kind.platform else host_name_of(request.url)
    return TurnRequest(
        request.share_key or share_key(request.task_id, None), request.priority_rank, host=host, cost=1.0
    )
