"""One file over HTTP: counted, bounded in time, and taken up again where it broke off."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from email.message import Message

import httpx

from pipeline.crawl.diagnosis import geo_blocked, rate_limited
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
"""Before a broken download is taken up again; it doubles with every break that brought nothing."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_FIXED_HEADERS = frozenset({"range", "if-range", "accept-encoding", "host", "content-length", "connection"})
"""Headers that are not the site's to choose."""


@dataclass(slots=True)
class Download:
    """A file on its way.

    Args:
        client: the guarded client.
        source: where it is.
        max_bytes: largest file.
        deadline: when to stop, in the event loop's time.
        max_breaks: breaks in a row without a byte in between, before it is given up.
        sleep: waits.

    Attributes:
        received: bytes so far.
        total: bytes in all, once the source has said.
        name: what the source calls the file, if it does (RFC 6266).
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
    _breaks: int = 0
    _complete: bool = False
    _changed: bool = False
    _host: str = field(init=False)

    def __post_init__(self) -> None:
        self._host = httpx.URL(self.source.url).host

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """The file's bytes, in order, each once.

        Raises:
            UrlNotAllowed: the address, or one it redirects to, may not be requested.
            SourceTooLarge: it has more than ``max_bytes``.
            SourceTimeout: the deadline passed.
            SourceUnreachable: it broke off too often, or changed meanwhile.
            PrivateOrRemoved, GeoBlocked, RateLimited: what the host says.
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
        """Counts the break, and waits; raises where there is no point in going on."""
        loop = asyncio.get_running_loop()
        self._breaks = 0 if self.received > before else self._breaks + 1
        if loop.time() >= self.deadline:
            raise SourceTimeout(f"{self._host} takes too long to send the recording.") from error
        if self._breaks > self.max_breaks or self._changed:
            raise error
        await self.sleep(min(RETRY_PAUSE_S * 2.0**self._breaks, max(0.0, self.deadline - loop.time())))

    async def _request(self) -> AsyncGenerator[bytes, None]:
        async with self.client.stream(
            "GET",
            self.source.url,
            headers=self._headers(),
            max_bytes=self.max_bytes + 1,
            deadline_s=max(0.0, self.deadline - asyncio.get_running_loop().time()),
            max_redirects=MAX_REDIRECTS,
        ) as answer:
            if answer.status == 416 and self.received and self.total in (None, self.received):
                self._complete = True
                return
            before = self.received
            skip = self._read_response_head(answer)
            async for block in answer.aiter_bytes():
                fresh, skip = block[skip:], max(0, skip - len(block))
                self.received += len(fresh)
                self._check_size(self.received)
                if fresh:
                    yield fresh
            self._note_end(answer, before)

    def _headers(self) -> dict[str, str]:
        headers = {name: value for name, value in self.source.headers.items() if name.lower() not in _FIXED_HEADERS}
        chunk = self.source.chunk_bytes
        if self.received or chunk:
            last = str(self.received + chunk - 1) if chunk else ""
            headers["Range"] = f"bytes={self.received}-{last}"
        if self.received and self._validator:
            headers["If-Range"] = self._validator
        return headers

    def _read_response_head(self, answer: StreamedResponse) -> int:
        """Takes in the answer's head; returns how many of its bytes are known already."""
        self.name = self.name or _name_in_disposition(answer.headers.get("content-disposition", ""))
        if answer.status == 206:
            return self._read_partial_response(answer)
        if answer.status != 200:
            raise self._status_error(answer)
        length = answer.headers.get("content-length", "")
        size = int(length) if length.isascii() and length.isdecimal() and len(length) < 19 else None
        if self.received and (size is None or size != self.total or self._validator_of(answer) != self._validator):
            raise self._changed_file_error(
                f"{self._host} sends another file than before the connection broke: try again."
            )
        self._set_total(size)
        self._validator = self._validator_of(answer)
        return self.received  # a host that doesn't do ranges sends it all again

    def _read_partial_response(self, answer: StreamedResponse) -> int:
        place = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        total = None if place is None or place[2] == "*" else int(place[2])
        changed = self.total is not None and total not in (None, self.total)
        if place is None or int(place[1]) != self.received or changed:
            raise self._changed_file_error(f"{self._host} sends another part of the file than was asked for.")
        self._set_total(total or self.total)
        self._validator = self._validator or self._validator_of(answer)
        return 0

    def _changed_file_error(self, message: str) -> SourceUnreachable:
        """Going on would give a file that is pieced together from two."""
        self._changed = True
        return SourceUnreachable(message)

    def _set_total(self, size: int | None) -> None:
        self.total = size
        if size is not None:
            self._check_size(size)

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise SourceTooLarge(f"{self._host} sends {size:,} bytes or more; at most {self.max_bytes:,} are taken.")

    def _note_end(self, answer: StreamedResponse, before: int) -> None:
        chunk = self.source.chunk_bytes
        if self.total is None:
            self._complete = answer.status == 200 or chunk is None
        else:
            self._complete = self.received >= self.total
        if not self._complete and (chunk is None or self.received == before):
            raise SourceUnreachable(f"{self._host} broke off before the end of the recording.")

    @staticmethod
    def _validator_of(answer: StreamedResponse) -> str | None:
        """What says that a file is still the same (RFC 9110, §13.1.5): a strong ETag, else the date."""
        tag = answer.headers.get("etag", "")
        strong = tag if not tag.startswith("W/") else ""
        return str(strong or answer.headers.get("last-modified", "")) or None

    def _status_error(self, answer: StreamedResponse) -> MurmurationError:
        match answer.status:
            case 401 | 403 | 404 | 410:
                return PrivateOrRemoved(
                    f"{self._host} answered {answer.status}: the file is not there, or not for everybody."
                )
            case 429:
                return rate_limited(self._host, answer.headers.get("retry-after", ""))
            case 451:
                return geo_blocked(self._host)
        return SourceUnreachable(f"{self._host} answered {answer.status}.")


def _name_in_disposition(disposition: str) -> str:
    """The file name in a ``Content-Disposition`` (RFC 6266, RFC 2231)."""
    message = Message()
    message["Content-Disposition"] = disposition
    return str(message.get_filename(""))
