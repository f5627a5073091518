"""Links: the site of a link, its canonical address there, and the record of what it leads to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import SplitResult, parse_qs, urlsplit

from pipeline.errors import UnsupportedLink


class LinkKind(StrEnum):
    """The kind of a task's ``file_url``."""

    FILE = "file"
    """The recording itself."""
    TIKTOK = "tiktok"
    """A post on TikTok."""
    DOUYIN = "douyin"
    """A post on Douyin."""
    ANY = "any"
    """A page of any site that the extractor library knows."""

    @property
    def platform(self) -> Platform | None:
        """The one platform of such links, or ``None``."""
        return PLATFORMS.get(self)


@dataclass(frozen=True, slots=True)
class Platform:
    """A site with a route of its own.

    Attributes:
        name: name for people.
        domains: its hosts are these and their subdomains; links to others are not followed.
        extractors: names of the extractors (as regular expressions) that may read its pages.
        post: pattern of the path of a post's page, with the post's id as ``id``.
        address: address at which the extractor finds a post, with a place for its id.
        example: a link for error messages.
    """

    name: str
    domains: tuple[str, ...]
    extractors: tuple[str, ...]
    post: re.Pattern[str]
    address: str
    example: str

    def owns(self, host: str) -> bool:
        """Return whether a host belongs to the site."""
        return any(host == domain or host.endswith(f".{domain}") for domain in self.domains)

    def check(self, url: str, field: str = "") -> SplitResult:
        """Return the parts of a link if it is one of the site's.

        Raises:
            UnsupportedLink: the link belongs to another site.
        """
        try:
            parts = urlsplit(url)
            host, _ = (parts.hostname or "").rstrip("."), parts.port
        except ValueError as error:
            raise UnsupportedLink("That is not an address.", field) from error
        if parts.scheme not in ("http", "https") or not self.owns(host):
            raise UnsupportedLink(
                f"That is not a link of {self.name}, such as {self.example}; "
                "links of other sites go to /api/crawl/video_task.",
                field,
            )
        return parts

    def canonical(self, url: str, field: str = "") -> str | None:
        """Return the address of the post that a link names, or ``None`` for a short link, which must be followed.

        Raises:
            UnsupportedLink: the link belongs to another site.
        """
        parts = self.check(url, field)
        found = self.post.search(parts.path)
        post_id = found["id"] if found else next(iter(parse_qs(parts.query).get("modal_id", [])), "")
        return self.address.format(post_id) if post_id.isdecimal() and post_id.isascii() else None


PLATFORMS: Mapping[LinkKind, Platform] = {
    LinkKind.TIKTOK: Platform(
        name="TikTok",
        domains=("tiktok.com", "tiktokv.com"),
        extractors=("tiktok", r"vm\.tiktok"),
        post=re.compile(r"/(?:video|photo|v|embed(?:/v2)?)/(?P<id>\d+)(?:\.html)?/?$"),
        address="https://www.tiktok.com/@_/video/{}",
        example="https://www.tiktok.com/@USER/video/ID",
    ),
    LinkKind.DOUYIN: Platform(
        name="Douyin",
        domains=("douyin.com", "iesdouyin.com"),
        extractors=("douyin",),
        post=re.compile(r"/(?:video|note)/(?P<id>\d+)/?$"),
        address="https://www.douyin.com/video/{}",
        example="https://www.douyin.com/video/ID",
    ),
}


@dataclass(frozen=True, slots=True)
class Link:
    """The kind of a task's ``file_url``, and how to read it.

    Attributes:
        extractor: name of the only extractor that may read the page; ``None`` for any that fits.
        keep_record: whether the crawl record is stored.
    """

    kind: LinkKind = LinkKind.FILE
    extractor: str | None = None
    keep_record: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlRecord:
    """A site's data about a recording. Times are aware UTC, durations seconds; ``None`` stands for missing data.

    Attributes:
        platform: the extractor's name, in lower case (``tiktok``, ``vimeo`` …).
        media_id: the site's id of the recording.
        url: address of the page.
        author: name of the account; ``author_id`` is its id.
        crawled_at: time at which the page was read.
        library: version of the extractor library that read the page.
    """

    platform: str
    media_id: str
    url: str
    title: str | None = None
    description: str | None = None
    author: str | None = None
    author_id: str | None = None
    author_name: str | None = None
    author_url: str | None = None
    duration_s: float | None = None
    published_at: datetime | None = None
    view_count: int | None = None
    like_count: int | None = None
    comment_count: int | None = None
    repost_count: int | None = None
    thumbnail_url: str | None = None
    crawled_at: datetime
    library: str
