"""A link becomes a recording."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from pipeline.domain.links.platforms import CrawlRecord, Link


@dataclass(frozen=True, slots=True)
class CrawlRequest:
    """A recording to be fetched into the MediaStore.

    Attributes:
        task_id: whose it is.
        fence: of the claim under which it is fetched; once the task runs under another, or not at all, the crawl ends.
        url: where to look.
        link: what the URL is.
        media_key: where the recording is to lie.
        priority_rank: of the task; 0 goes first.
        share_key: name under which the task takes turns, see ``fair_line.share_key``; empty: one of its own.
    """

    task_id: int
    fence: int
    url: str
    link: Link
    media_key: str
    priority_rank: int = 1
    share_key: str = ""


@dataclass(frozen=True, slots=True)
class CrawlProgress:
    """A sign of life, every few seconds: bytes stored so far, and in all where the source says."""

    size_bytes: int
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CrawledMedia:
    """The recording is in the MediaStore.

    Attributes:
        size_bytes: of it.
        file_name: what to call it, with the extension that its bytes deserve.
        platform: the extractor that read the link, in lower case; ``None`` for a plain URL.
        record: what the site says about it; ``None`` for a plain URL.
    """

    size_bytes: int
    file_name: str
    platform: str | None = None
    record: CrawlRecord | None = None


class Crawler(Protocol):
    """Fetches recordings from URLs and links into the MediaStore, guarded and bounded in time and size."""

    def crawl(self, request: CrawlRequest) -> AsyncGenerator[CrawlProgress | CrawledMedia, None]:
        """Signs of life, then one ``CrawledMedia``. Closing the stream ends the download and leaves nothing behind.

        Raises:
            UrlNotAllowed, UnsupportedLink: an address, or a link, that is not taken.
            SourceError: what the site does instead of giving the recording; ``LinkError`` is for good.
            LeaseLost: the task passed to another owner, or ended.
            StorageFull, ReplicaLost: as they say.
        """
        ...
