"""The port of crawling: links in, recordings in the MediaStore out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from pipeline.domain.links.platforms import CrawlRecord, Link


@dataclass(frozen=True, slots=True)
class CrawlRequest:
    """A recording to be fetched into the MediaStore.

    Attributes:
        task_id: the task that the recording belongs to.
        fence: of the claim under which it is fetched. The crawl ends when the task has another one or stops running.
        url: address of the recording or of the page that leads to it.
        link: kind of the URL.
        media_key: key under which the recording is stored.
        priority_rank: of the task; 0 goes first.
        share_key: name under which the task takes turns (``domain.scheduling.fair_queue.share_key``); empty: its own.
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
    """A heartbeat, every few seconds: the bytes stored so far, and in all if the source says so."""

    size_bytes: int
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class CrawledMedia:
    """A recording that was fetched into the MediaStore.

    Attributes:
        size_bytes: its size.
        file_name: its name, with the extension that fits its content.
        platform: the extractor that read the link, in lower case; ``None`` for a plain URL.
        record: what the site says about it; ``None`` for a plain URL.
    """

    size_bytes: int
    file_name: str
    platform: str | None = None
    record: CrawlRecord | None = None


class Crawler(Protocol):
    """A fetcher of recordings from URLs and links into the MediaStore, guarded and bounded in time and size."""

    def crawl(self, request: CrawlRequest) -> AsyncGenerator[CrawlProgress | CrawledMedia, None]:
        """Yield heartbeats, then one ``CrawledMedia``. Closing the stream ends the download and leaves nothing behind.

        Raises:
            UrlNotAllowed, UnsupportedLink: the address or link is not accepted.
            SourceError: the site did not give the recording; a ``LinkError`` is final.
            LeaseLost: the task passed to another owner, or ended.
            StorageFull: the MediaStore has no space left.
            ReplicaLost: the Crawler's process ended.
        """
        ...
