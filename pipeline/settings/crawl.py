"""Settings of the section ``crawl``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from pipeline.settings.section import MEBIBYTE, Section


class PlatformSettings(Section):
    """Access to one site."""

    cookies: SecretStr | None = None
    """Content of a cookie file in Netscape's format, of a session that is logged in: a secret."""
    cookies_file: Path | None = None
    """Path of such a cookie file, on every node that runs a Crawler."""
    proxy: SecretStr | None = None
    """Outbound HTTP proxy for this site, such as one in its country. Empty: `network.proxy`."""
    user_agent: str | None = None
    """`User-Agent` for this site. Empty: the extractor library's own."""


class CrawlSettings(Section):
    """Fetching of recordings from links and URLs."""

    enabled: bool = True
    """Include the Crawler in the application; without it only uploads are accepted."""
    deadline_s: float = Field(default=3600.0, gt=0)
    """Longest time for fetching one recording."""
    min_bytes_per_s: int = Field(default=1024, ge=0)
    """Lowest rate of a download over `min_rate_window_s`; a slower one is ended and tried again later.
    0: any rate is accepted."""
    min_rate_window_s: float = Field(default=30.0, gt=0)
    """Time over which the rate of a download is measured; no download is too slow before that."""
    max_per_host: int = Field(default=16, ge=1)
    """Recordings that are fetched from one host at the same time by one Dispatcher; those of other hosts go first."""
    extract_timeout_s: float = Field(default=120.0, gt=0)
    """Longest time for finding the recording of a link."""
    max_page_bytes: int = Field(default=64 * MEBIBYTE, gt=0)
    """Most bytes read of a site's pages, as they are sent, before the download of a recording begins."""
    max_process_bytes: int = Field(default=256 * MEBIBYTE, ge=64 * MEBIBYTE)
    """Most memory of the process that reads one site's pages, beyond that of its libraries. It bounds the decompressed
    size of a page. The largest file of the process, a fragment of a recording, has the same limit. With a `js_runtime`
    memory has no limit."""
    max_processes: int = Field(default=16, ge=1)
    """Such processes at the same time in one Crawler; further links wait. Urgent ones go first, one host has at most
    half of the slots, and a client leaves half to others. Together the processes use at most `max_processes` times
    `max_process_bytes` of memory, and twice as much disk."""
    max_breaks: int = Field(default=5, ge=0)
    """Times in a row that a broken download is continued without receiving a byte in between."""
    rate_limit_delays_s: tuple[float, ...] = (60.0, 300.0, 1800.0)
    """Pauses before the next request to a site that limits our requests; after the last one the task fails."""
    js_runtime: Path | None = None
    """Absolute path of a JavaScript runtime, which YouTube's extractor needs for most formats. Of those that yt-dlp
    supports, `deno` and `qjs` give a page's script no network; `node` and `bun` may let it bypass the guard."""
    platforms: dict[str, PlatformSettings] = Field(default={})
    """Settings by site: `tiktok`, `douyin`, or the host of a link without `www.`, such as `vimeo.com`."""
