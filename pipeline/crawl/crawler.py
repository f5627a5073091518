"""``ports.Crawler`` in this process: URLs and links in, recordings in the MediaStore out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from pipeline.crawl.download import Download
from pipeline.crawl.extractor_messages import ExtractedPage, ExtractRequest, MediaLocation
from pipeline.crawl.extractor_processes import ExtractorProcesses, PageSession, host_name_of, library_version
from pipeline.crawl.media_names import HEAD_BYTES, file_name, is_page, name_in_url
from pipeline.crawl.short_links import resolve_short_link
from pipeline.domain.links.platforms import CrawlRecord, LinkKind
from pipeline.domain.links.transfer_rate import RateMonitor
from pipeline.domain.scheduling.fair_queue import TurnRequest, share_key
from pipeline.errors import (
    ConfigurationError,
    LeaseLost,
    MediaTooLong,
    SourceTimeout,
    SourceTooLarge,
    SourceTooSlow,
    UnsupportedLink,
)
from pipeline.net import Dialer, GuardedClient, GuardingProxy, Resolver, SystemResolver, guarding_proxy
from pipeline.net.guarded_client import tls_context
from pipeline.ports import Clock, CrawledMedia, CrawlProgress, CrawlRequest, MediaStore
from pipeline.settings import NetworkSettings, PlatformSettings, Settings

PROGRESS_S = 2.0
"""How often there is a sign of life, and a look at whether the task still runs."""

SLACK_BYTES = 64 * 1024 * 1024
"""Manifests, and what encrypted or wrapped fragments have more of than the recording they hold."""

_PROTOCOLS = "[protocol~='^(https?|m3u8|m3u8_native|http_dash_segments)$']"
AUDIO_FIRST = "/".join(
    f"{choice}{_PROTOCOLS}" for choice in ("ba[abr<=?192]", "ba", "b[height<=?720]", "b", "ba*", "b*[acodec!=none]")
)
"""Sound alone where the site has it, in a bit rate that is plenty for speech; else the smaller films."""

FILM_FIRST = "/".join(f"{choice}{_PROTOCOLS}" for choice in ("b[height<=?720]", "b", "ba"))
"""For TikTok and Douyin, whose formats without a picture are the music that was laid under the post, not its sound."""


class LocalCrawler:
    """Fetches recordings here.

    Args:
        media: where they go.
        processes: read pages.
        settings: limits, and how sites are asked.
        held: whether the task of a request still runs under its fence.
        clock: for the time of records, and pauses.
        resolver: turns names into addresses.
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
        self._ssl_context = tls_context(settings.network.ca_file)  # which takes longer than many a crawl

    async def crawl(self, request: CrawlRequest) -> AsyncGenerator[CrawlProgress | CrawledMedia, None]:
        """See ``ports.Crawler.crawl``."""
        crawl = _Crawl(request, self._clock.monotonic)
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

    def _check_rate(self, crawl: _Crawl, rate: RateMonitor) -> None:
        """Refuse a source that sends too slowly; the time that our own storage takes is not held against it."""
        if rate.is_too_slow(crawl.received, crawl.source_s):
            limits = self._settings.crawl
            raise SourceTooSlow(
                f"{host_name_of(crawl.request.url)} sends less than {limits.min_bytes_per_s:,} bytes a second over "
                f"{limits.min_rate_window_s:g} s: the recording is not waited for."
            )

    async def _fetch(self, crawl: _Crawl) -> CrawledMedia:
        crawl.deadline = asyncio.get_running_loop().time() + self._settings.crawl.deadline_s
        site = self._site(crawl.request)
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

    async def _fetch_file(self, crawl: _Crawl, client: GuardedClient) -> CrawledMedia:
        stem, extension = name_in_url(crawl.request.url)
        location = MediaLocation(crawl.request.url, {}, extension, direct=True)
        download = self._download(crawl, client, location)
        crawl.start_source_timer()
        await self._store(crawl, download.blocks(), download)
        if download.name:
            stem, extension = name_in_url(f"/{download.name}")
        return CrawledMedia(crawl.stored, file_name(stem, crawl.head, extension))

    async def _fetch_link(self, crawl: _Crawl, site: _SiteAccess, client: GuardedClient) -> CrawledMedia:
        async with self._extraction(crawl, site, client) as extraction:
            async with asyncio.timeout(self._settings.crawl.extract_timeout_s):
                found = await extraction.found()
            self._check_length(found)
            if not found.media.direct:
                crawl.start_source_timer()
                extraction.allow_bytes(self._settings.media.max_upload_bytes + SLACK_BYTES)
                await self._store(crawl, extraction.media(self._remaining_s(crawl)))
        if found.media.direct:  # without the process, whose place is another link's now
            crawl.start_source_timer()
            download = self._download(crawl, client, found.media)
            await self._store(crawl, download.blocks(), download)
        record = self._record(crawl.request, found)
        name = file_name(record.title or record.media_id, crawl.head, found.media.extension)
        return CrawledMedia(crawl.stored, name, record.platform, record)

    @asynccontextmanager
    async def _extraction(self, crawl: _Crawl, site: _SiteAccess, client: GuardedClient) -> AsyncIterator[PageSession]:
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
            async with self._processes.conversation(
                extract_request, host_name_of(request.url), proxy, _turn_request(request)
            ) as extraction:
                yield extraction

    def _download(self, crawl: _Crawl, client: GuardedClient, location: MediaLocation) -> Download:
        return Download(
            client,
            location,
            max_bytes=self._settings.media.max_upload_bytes,
            deadline=crawl.deadline,
            max_breaks=self._settings.crawl.max_breaks,
            sleep=self._clock.sleep,
        )

    async def _store(
        self, crawl: _Crawl, blocks: AsyncGenerator[bytes, None], download: Download | None = None
    ) -> None:
        """Writes the recording, unless its first bytes or its size speak against it."""

        async def checked() -> AsyncIterator[bytes]:
            async with aclosing(blocks):
                async for block in blocks:
                    crawl.take(block, self._settings.media.max_upload_bytes)
                    crawl.total = download.total if download else None
                    crawl.stop_source_timer()
                    yield block
                    crawl.start_source_timer()
            crawl.stop_source_timer()
            crawl.check_head()
            await self._check_lease(crawl.request)  # nobody but the task's owner may put a recording there

        await self._media.write(crawl.request.media_key, checked())

    def _check_length(self, found: ExtractedPage) -> None:
        duration_s = found.seconds("duration")
        longest_s = self._settings.media.max_duration_s
        if duration_s is not None and duration_s > longest_s:
            raise MediaTooLong(f"The recording is {duration_s:,.0f} s long; at most {longest_s:,.0f} s are taken.")

    def _remaining_s(self, crawl: _Crawl) -> float:
        return max(1.0, crawl.deadline - asyncio.get_running_loop().time())

    def _record(self, request: CrawlRequest, found: ExtractedPage) -> CrawlRecord:
        return CrawlRecord(
            platform=(found.text("extractor", 100) or "generic").lower(),
            media_id=found.text("id", 255) or "",
            url=found.text("webpage_url") or request.url,
            title=found.text("title"),
            description=found.text("description", 20_000),
            author=found.text("uploader") or found.text("channel"),
            author_id=found.text("uploader_id") or found.text("channel_id"),
            author_name=found.text("channel") or found.text("uploader"),
            author_url=found.text("uploader_url") or found.text("channel_url"),
            duration_s=found.seconds("duration"),
            published_at=found.time("timestamp"),
            view_count=found.count("view_count"),
            like_count=found.count("like_count"),
            comment_count=found.count("comment_count"),
            repost_count=found.count("repost_count"),
            thumbnail_url=found.text("thumbnail"),
            crawled_at=self._clock.now(),
            library=f"yt-dlp {library_version()}",
        )

    def _site(self, request: CrawlRequest) -> _SiteAccess:
        """How the request's site is asked, by the settings."""
        platforms = self._settings.crawl.platforms
        name = request.link.kind.value if request.link.kind.platform else host_name_of(request.url)
        labels = name.split(".")
        names = [".".join(labels[start:]) for start in range(len(labels))]
        chosen = next((platforms[each] for each in names if each in platforms), PlatformSettings())
        network = self._settings.network
        if chosen.proxy is not None:
            network = network.model_copy(update={"proxy": chosen.proxy.get_secret_value()})
        return _SiteAccess(network, _cookies(chosen), chosen.user_agent)


@dataclass(slots=True)
class _Crawl:
    """One crawl, while it runs.

    Attributes:
        clock: seconds that do not run backwards.
        proxy: where a page's extractor connects through.
    """

    request: CrawlRequest
    clock: Callable[[], float]
    deadline: float = 0.0
    stored: int = 0
    total: int | None = None
    head: bytes = b""
    proxy: GuardingProxy | None = None
    _source_s: float = 0.0
    _source_timer_started: float | None = None

    def start_source_timer(self) -> None:
        """Note that what comes next of the recording is the source's to send."""
        self._source_timer_started = self.clock()

    def stop_source_timer(self) -> None:
        """Note that the source can't send for now: its last bytes are being stored."""
        self._source_s, self._source_timer_started = self.source_s, None

    @property
    def source_s(self) -> float:
        """Seconds that the source has had to send the recording."""
        waiting_s = 0.0 if self._source_timer_started is None else self.clock() - self._source_timer_started
        return self._source_s + waiting_s

    @property
    def received(self) -> int:
        """Bytes that came from the source; an extractor may put many of them together before it passes them on."""
        return self.stored + (self.proxy.received if self.proxy else 0)

    def take(self, block: bytes, max_bytes: int) -> None:
        """Counts a block of the recording and looks at the first ones."""
        self.stored += len(block)
        if self.stored > max_bytes:
            raise SourceTooLarge(
                f"{host_name_of(self.request.url)} sends more than the {max_bytes:,} bytes that are taken."
            )
        if len(self.head) < HEAD_BYTES:
            self.head += block[: HEAD_BYTES - len(self.head)]
            if len(self.head) == HEAD_BYTES:
                self.check_head()

    def check_head(self) -> None:
        """Refuses a web page, whatever its headers say."""
        if is_page(self.head):
            raise UnsupportedLink(
                f"{host_name_of(self.request.url)} sends a web page there, not a recording: "
                "links to pages go to /api/crawl/video_task.",
                "file_url",
            )


@dataclass(frozen=True, slots=True)
class _SiteAccess:
    """How one site is asked."""

    network: NetworkSettings
    cookies: str | None
    user_agent: str | None


def _extractor_pattern(extractor: str | None) -> tuple[str, ...]:
    """A pattern for the extractor of a name, and for those of its parts (``vimeo``, ``vimeo:album``)."""
    return () if extractor is None else (rf"{re.escape(extractor.lower())}(:.*)?",)


def _turn_request(request: CrawlRequest) -> TurnRequest:
    """Who shares the processes, by the same names as in the Dispatcher."""
    kind = request.link.kind
    host = kind.value if kind.platform else host_name_of(request.url)
    return TurnRequest(
        request.share_key or share_key(request.task_id, None), request.priority_rank, host=host, cost=1.0
    )


def _cookies(platform: PlatformSettings) -> str | None:
    if platform.cookies is not None:
        return platform.cookies.get_secret_value()
    if platform.cookies_file is None:
        return None
    try:
        return platform.cookies_file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("A cookies_file under crawl.platforms can't be read.") from error
