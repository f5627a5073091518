"""The state of a crawl that runs: bytes received and stored, and the time that the source had to send them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.crawl.media_names import HEAD_BYTES, is_page
from pipeline.crawl.site_access import host_name_of
from pipeline.errors import SourceTooLarge, UnsupportedLink
from pipeline.net import GuardingProxy
from pipeline.ports import CrawlRequest


@dataclass(slots=True)
class RunningCrawl:
    """A running crawl.

    Attributes:
        request: the recording to fetch.
        clock: returns monotonic seconds.
        deadline: time of the event loop at which the crawl fails.
        stored: bytes of the recording so far.
        total: size of the recording in bytes, if the source has stated it.
        head: the recording's first bytes, at most ``HEAD_BYTES``.
        proxy: the proxy that a page's extractor connects through.
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
        """Start to count the time in which the source can send."""
        self._source_timer_started = self.clock()

    def stop_source_timer(self) -> None:
        """Stop counting while the bytes received last are written to the MediaStore."""
        self._source_s, self._source_timer_started = self.source_s, None

    @property
    def source_s(self) -> float:
        """Seconds that the source has had to send the recording."""
        waiting_s = 0.0 if self._source_timer_started is None else self.clock() - self._source_timer_started
        return self._source_s + waiting_s

    @property
    def received(self) -> int:
        """Bytes received from the source, including those that an extractor has not passed on yet."""
        return self.stored + (self.proxy.received if self.proxy else 0)

    def record_block(self, block: bytes, max_bytes: int) -> None:
        """Count a block of the recording, and refuse a web page as soon as its first bytes are complete.

        Raises:
            SourceTooLarge: the recording has more than ``max_bytes``.
            UnsupportedLink: it is a web page.
        """
        self.stored += len(block)
        if self.stored > max_bytes:
            raise SourceTooLarge(
                f"{host_name_of(self.request.url)} sends more than the {max_bytes:,} bytes that are accepted."
            )
        if len(self.head) < HEAD_BYTES:
            self.head += block[: HEAD_BYTES - len(self.head)]
            if len(self.head) == HEAD_BYTES:
                self.refuse_web_page()

    def refuse_web_page(self) -> None:
        """Raise ``UnsupportedLink`` if the recording is a web page, regardless of its headers."""
        if is_page(self.head):
            raise UnsupportedLink(
                f"{host_name_of(self.request.url)} sends a web page instead of a recording: "
                "send links to pages to /api/crawl/video_task.",
                "file_url",
            )
