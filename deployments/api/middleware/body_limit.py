"""Limits on the size and the pace of request bodies."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.concurrency.event_loop import LoopBudget
from deployments.api.request.body import MAX_FORM_BYTES
from deployments.api.response.problems import response_to
from pipeline.errors import UploadStalled, UploadTooLarge
from pipeline.ports import Clock
from pipeline.settings import HttpSettings, Settings

DRAIN_BYTES = 4 * 1024 * 1024
DRAIN_S = 2.0
MAX_DRAINS = 64
"""Bodies of refused requests that are drained at the same time. For any further ones the connection is reset."""
UPLOAD_TYPES = ("multipart/form-data", "application/offset+octet-stream")
"""Content types of bodies that carry recordings."""


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """The size limit of a body: that of an upload and a form if it carries a recording, else that of a form."""

    limit_bytes: int
    fields_bytes: int

    @classmethod
    def from_headers(cls, max_upload_bytes: int, headers: Headers) -> BodyLimit:
        """Return the limit for a request by its ``Content-Type``, if a recording may have ``max_upload_bytes``."""
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type in UPLOAD_TYPES:
            return cls(max_upload_bytes, MAX_FORM_BYTES)
        return cls(MAX_FORM_BYTES, 0)

    def check(self, size_bytes: int, unpacked: str = "") -> None:
        """Raise ``UploadTooLarge`` if the size exceeds the limit."""
        if size_bytes > self.limit_bytes + self.fields_bytes:
            raise UploadTooLarge(
                f"The body is too large: it has {size_bytes:,} bytes{unpacked}, and the limit is {self.limit_bytes:,}."
            )


class BodyLimitMiddleware:
    """The middleware that refuses bodies that are too large or arrive too slowly.

    A body that carries a recording may have the size of an upload and a form, any other ``MAX_FORM_BYTES``. No body may
    pause for longer than ``http.upload_idle_timeout_s``. Once it has kept the server waiting for that long in all, it
    must have arrived at ``http.upload_min_bytes_per_s`` for the time beyond, so that nobody occupies a slot of the
    replica with a byte per minute.
    """

    def __init__(self, app: ASGIApp, settings: Settings, clock: Clock) -> None:
        self._app = app
        self._settings = settings
        self._clock = clock
        self._drains = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request under the limits on its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = BodyLimit.from_headers(self._settings.media.max_upload_bytes, headers)
        announced = headers.get("content-length", "")
        body = _LimitedBody(receive, announced, limit, self._settings.http, self._clock)

        async def drain_and_send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                await self._drain(body)
            await send(message)

        try:
            body.check_announced()
        except UploadTooLarge as error:
            await response_to(Request(scope), error)(scope, receive, drain_and_send)
        else:
            await self._app(scope, body.receive, drain_and_send)

    async def _drain(self, body: _LimitedBody) -> None:
        if self._drains < MAX_DRAINS:
            self._drains += 1
            try:
                await body.drain()
            finally:
                self._drains -= 1


class _LimitedBody:
    """The messages of one request, which raise ``UploadTooLarge`` or ``UploadStalled`` at a limit.

    Only the time spent waiting for messages counts: a slow disk on the server is not the client's fault.
    """

    def __init__(
        self, receive: Receive, announced: str, limit: BodyLimit, settings: HttpSettings, clock: Clock
    ) -> None:
        self._receive = receive
        self._announced = announced
        self._limit = limit
        self._settings = settings
        self._clock = clock
        self._size_bytes = 0
        self._waited_s = 0.0
        self._ended = False
        self._turns = LoopBudget()

    def check_announced(self) -> None:
        if re.fullmatch(r"[0-9]{1,18}", self._announced):
            self._limit.check(int(self._announced))

    async def receive(self) -> Message:
        if self._ended:
            return await self._receive()  # only a disconnect may follow
        message = await self._next()
        self._count(message)
        self._limit.check(self._size_bytes)
        self._check_rate()
        await self._turns.spend(len(message.get("body", b"")))
        return message

    async def drain(self) -> None:
        """Receive the rest of the body, within limits, before an error response is sent.

        If a server responds and closes the connection while its client is still sending, the client sees a connection
        reset instead of the response (RFC 9112, §9.6). A small rest is received, a large one is cut off.
        """
        until_bytes = self._size_bytes + DRAIN_BYTES
        with suppress(TimeoutError):  # the rest arrives too slowly
            async with asyncio.timeout(DRAIN_S):
                while not self._ended and self._size_bytes <= until_bytes:
                    message = await self._receive()
                    self._count(message)
                    await self._turns.spend(len(message.get("body", b"")))

    async def _next(self) -> Message:
        begun_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._settings.upload_idle_timeout_s):
                message = await self._receive()
        except TimeoutError as error:
            self._ended = True
            raise UploadStalled(
                f"Nothing arrived for {self._settings.upload_idle_timeout_s:g} s: send the body again."
            ) from error
        self._waited_s += self._clock.monotonic() - begun_at
        return message

    def _count(self, message: Message) -> None:
        self._size_bytes += len(message.get("body", b""))
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)

    def _check_rate(self) -> None:
        waited_s = self._waited_s - self._settings.upload_idle_timeout_s
        slowest = self._settings.upload_min_bytes_per_s
        if waited_s > 0 and self._size_bytes < waited_s * slowest:
            raise UploadStalled(f"The body arrives at less than {slowest:,} bytes per second: send it again.")
