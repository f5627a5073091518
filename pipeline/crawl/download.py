"""Downloads one file over HTTP, bounded in size and time, and resumes after a broken connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from email.message import Message

import httpx

from pipeline.crawl.diagnosis import geo_blocked_error, rate_limited_error
from pipeline.crawl.extractor_messages import MediaLocation
from pipeline.errors import (
    MurmurationError,
    PrivateOrRemoved,
    SourceTimeout,
    SourceTooLarge,
    SourceUnreachable,
)
from pipeline.net import GuardedClient, StreamedResponse
from pipeline.net.guarded_client import MAX_REDIRECTS

RETRY_PAUSE_S = 0.5
"""Pause before a broken download is resumed; it doubles with each break in a row without a new byte."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_FIXED_HEADERS = frozenset({"range", "if-range", "accept-encoding", "host", "content-length", "connection"})
"""Request headers that a site must not set for the download."""


@dataclass(slots=True)
class Download:
    """The download of one file.

    Args:
        client: the guarded client.
        source: location of the file.
        max_bytes: largest file.
        deadline: time of the event loop at which the download fails.
        max_breaks: breaks in a row without a new byte that are tolerated.
        sleep: waits for a number of seconds.

    Attributes:
        received: bytes so far.
        total: size of the file in bytes, once the source has stated it.
        name: the file's name in the response (RFC 6266), or empty.
    """

    client: GuardedClient
    source: MediaLocation
    max_bytes: int
    deadline: float
    max_breaks: int
    sleep: Callable[[float], Awaitable[None]]
    received: int = 0
    total: int | None = None
    name: str = ""
    _validator: str | None = None
    _break_count: int = 0
    _complete: bool = False
    _changed: bool = False
    _host: str = field(init=False)

    def __post_init__(self) -> None:
        self._host = httpx.URL(self.source.url).host

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Yield the file's bytes in order, each once.

        Raises:
            UrlNotAllowed: the address, or one it redirects to, may not be requested.
            SourceTooLarge: the file has more than ``max_bytes``.
            SourceTimeout: the deadline passed.
            SourceUnreachable: the connection broke too often, or the file changed during the download.
            PrivateOrRemoved, GeoBlocked, RateLimited: the host answered with such a status.
        """
        while not self._complete:
            before = self.received
            try:
                async with aclosing(self._request()) as blocks:
                    async for block in blocks:
                        yield block
            except (SourceUnreachable, SourceTimeout) as error:
                await self._after_break(error, before)

    async def _after_break(self, error: MurmurationError, before: int) -> None:
        """Count a break and pause before the next request. Raise the error if another request is useless."""
        loop = asyncio.get_running_loop()
        self._break_count = 0 if self.received > before else self._break_count + 1
        if loop.time() >= self.deadline:
            raise SourceTimeout(f"{self._host} takes too long to send the recording.") from error
        if self._break_count > self.max_breaks or self._changed:
            raise error
        await self.sleep(min(RETRY_PAUSE_S * 2.0**self._break_count, max(0.0, self.deadline - loop.time())))

    async def _request(self) -> AsyncGenerator[bytes, None]:
        async with self.client.stream(
            "GET",
            self.source.url,
            headers=self._headers(),
            max_bytes=self.max_bytes + 1,
            deadline_s=max(0.0, self.deadline - asyncio.get_running_loop().time()),
            max_redirects=MAX_REDIRECTS,
        ) as response:
            if response.status == 416 and self.received and self.total in (None, self.received):
                self._complete = True
                return
            before = self.received
            skip = self._read_response_head(response)
            async for block in response.aiter_bytes():
                fresh, skip = block[skip:], max(0, skip - len(block))
                self.received += len(fresh)
                self._check_size(self.received)
                if fresh:
                    yield fresh
            self._check_complete(response, before)

    def _headers(self) -> dict[str, str]:
        headers = {name: value for name, value in self.source.headers.items() if name.lower() not in _FIXED_HEADERS}
        chunk = self.source.chunk_bytes
        if self.received or chunk:
            last = str(self.received + chunk - 1) if chunk else ""
            headers["Range"] = f"bytes={self.received}-{last}"
        if self.received and self._validator:
            headers["If-Range"] = self._validator
        return headers

    def _read_response_head(self, response: StreamedResponse) -> int:
        """Read the response's head; return how many bytes of its body were received before."""
        self.name = self.name or _name_in_disposition(response.headers.get("content-disposition", ""))
        if response.status == 206:
            return self._read_partial_response(response)
        if response.status != 200:
            raise self._status_error(response)
        length = response.headers.get("content-length", "")
        size = int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else None
        if self.received and (size is None or size != self.total or self._validator_of(response) != self._validator):
            raise self._changed_file_error(
                f"{self._host} sends another file than before the connection broke: try again."
            )
        self._set_total(size)
        self._validator = self._validator_of(response)
        return self.received  # a host without support for ranges sends the whole file again

    def _read_partial_response(self, response: StreamedResponse) -> int:
        place = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        total = None if place is None or place[2] == "*" else int(place[2])
        changed = self.total is not None and total not in (None, self.total)
        if place is None or int(place[1]) != self.received or changed:
            raise self._changed_file_error(f"{self._host} sends another part of the file than requested.")
        self._set_total(total or self.total)
        self._validator = self._validator or self._validator_of(response)
        return 0

    def _changed_file_error(self, message: str) -> SourceUnreachable:
        """Return the error for a changed file. To continue would join the bytes of two different files."""
        self._changed = True
        return SourceUnreachable(message)

    def _set_total(self, size: int | None) -> None:
        self.total = size
        if size is not None:
            self._check_size(size)

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise SourceTooLarge(f"{self._host} sends {size:,} bytes or more; at most {self.max_bytes:,} are accepted.")

    def _check_complete(self, response: StreamedResponse, before: int) -> None:
        chunk = self.source.chunk_bytes
        if self.total is None:
            self._complete = response.status == 200 or chunk is None
        else:
            self._complete = self.received >= self.total
        if not self._complete and (chunk is None or self.received == before):
            raise SourceUnreachable(f"{self._host} broke off before the end of the recording.")

    @staticmethod
    def _validator_of(response: StreamedResponse) -> str | None:
        """Return the validator of a file (RFC 9110, §13.1.5): a strong ETag, else the date of its last change."""
        tag = response.headers.get("etag", "")
        strong = tag if not tag.startswith("W/") else ""
        return str(strong or response.headers.get("last-modified", "")) or None

    def _status_error(self, response: StreamedResponse) -> MurmurationError:
        match response.status:
            case 401 | 403 | 404 | 410:
                return PrivateOrRemoved(
                    f"{self._host} answered {response.status}: the file does not exist, or is not public."
                )
            case 429:
                return rate_limited_error(self._host, response.headers.get("retry-after", ""))
            case 451:
                return geo_blocked_error(self._host)
        return SourceUnreachable(f"{self._host} answered {response.status}.")


def _name_in_disposition(disposition: str) -> str:
    """Return the file name in a ``Content-Disposition`` (RFC 6266, RFC 2231), or an empty text."""
    message = Message()
    message["Content-Disposition"] = disposition
    return str(message.get_filename(""))
