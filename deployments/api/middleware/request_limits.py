"""What keeps a service on the open internet upright: headers for browsers, and bounds on every body.

All of it is middleware, so that a route can't forget them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.concurrency.event_loop import LoopBudget
from deployments.api.request.content_encoding import Inflater, inflater_of
from deployments.api.request.multipart import MAX_FORM_BYTES
from deployments.api.response.problems import response_to
from deployments.api.services import Services
from pipeline.errors import (
    AddressTooLong,
    HeadersTooLarge,
    RequestError,
    UnsupportedContentEncoding,
    UploadStalled,
    UploadTooLarge,
)

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""On every answer that does not say otherwise (OWASP REST Security Cheat Sheet). HSTS is for what terminates TLS."""

DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'"
)
"""Swagger UI is started by a script in its page."""

CROSS_ORIGIN_EXPOSED = (
    "Location",
    "Retry-After",
    "Content-Disposition",
    "Tus-Resumable",
    "Tus-Version",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Checksum-Algorithm",
    "Upload-Offset",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Expires",
)
"""What a page may read of an answer, besides the few headers every page may."""

MAX_PATH_BYTES = 4096
MAX_QUERY_BYTES = 40 * 1024
"""A prompt of 4,000 Chinese characters, escaped, has 36,000. With a path, as much as `connections.max_url_bytes`."""
MAX_QUERY_FIELDS = 200
MAX_HEADERS = 100
MAX_HEADERS_BYTES = 64 * 1024
MAX_SHOWN_CHARACTERS = 200
"""Characters of a path that is too long which its answer repeats."""

DRAIN_BYTES = 4 * 1024 * 1024
DRAIN_S = 2.0
MAX_DRAINS = 64
"""Bodies of refused requests that are read on at the same time; the others see a connection that breaks."""

UPLOAD_TYPES = ("multipart/form-data", "application/offset+octet-stream")
"""Bodies that carry recordings."""
METHODS_WITH_BODY = frozenset({"POST", "PATCH", "PUT"})
COMPRESSED_BODY_HEADERS = frozenset({b"content-encoding", b"content-length"})


def cross_origin(origins: Sequence[str]) -> list[Middleware]:
    """CORS for these origins, if there are any. Keys are sent by scripts: there are no cookies to allow."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"],
            allow_headers=["*"],
            expose_headers=CROSS_ORIGIN_EXPOSED,
        )
    ]


class HeadLimitMiddleware:
    """Refuses addresses and headers that are too large to be looked at, and takes cookies away, which nothing reads.

    What is refused is not repeated in the answer. Servers in front of the application have bounds of their own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_address(scope)
            _check_headers(scope["headers"])
        except RequestError as error:
            shown = {
                **scope,
                "path": scope["path"][:MAX_SHOWN_CHARACTERS],
                "raw_path": b"",
                "query_string": b"",
                "headers": [],
            }
            await response_to(Request(shown), error)(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"cookie"]
        await self._app({**scope, "headers": headers}, receive, send)


def _check_address(scope: Scope) -> None:
    path_bytes, query = len(scope.get("raw_path") or scope["path"]), scope["query_string"]
    if path_bytes > MAX_PATH_BYTES or len(query) > MAX_QUERY_BYTES:
        raise AddressTooLong(
            f"The address is too long: a path has at most {MAX_PATH_BYTES:,} bytes, a query string {MAX_QUERY_BYTES:,}."
        )
    if query.count(b"&") >= MAX_QUERY_FIELDS:
        raise RequestError(f"The query string has more than {MAX_QUERY_FIELDS} parameters.")


def _check_headers(headers: Sequence[tuple[bytes, bytes]]) -> None:
    if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADERS_BYTES:
        raise HeadersTooLarge(
            f"The headers are too large: {MAX_HEADERS} of them are read, and {MAX_HEADERS_BYTES:,} bytes in all."
        )


class SecurityHeadersMiddleware:
    """Adds ``SECURITY_HEADERS`` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("Content-Security-Policy", DOCS_POLICY)
                if "etag" in headers:  # a file of the documentation: a browser may keep it, and ask whether it changed
                    headers.setdefault("Cache-Control", "no-cache")
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


@dataclass(frozen=True, slots=True)
class _BodyLimit:
    """The bytes a body may have: as many as an upload and a form if it carries a recording, else as a form."""

    limit_bytes: int
    fields_bytes: int

    @classmethod
    def of(cls, services: Services, headers: Headers) -> _BodyLimit:
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type in UPLOAD_TYPES:
            return cls(services.settings.media.max_upload_bytes, MAX_FORM_BYTES)
        return cls(MAX_FORM_BYTES, 0)

    def check(self, size_bytes: int, unpacked: str = "") -> None:
        """Raise ``UploadTooLarge`` for a size beyond the limit."""
        if size_bytes > self.limit_bytes + self.fields_bytes:
            raise UploadTooLarge(
                f"The body is too large: it has {size_bytes:,} bytes{unpacked}, and the limit is {self.limit_bytes:,}."
            )


class BodyLimitMiddleware:
    """Gives up on bodies that are too large for what they are, or come too slowly.

    A body that carries a recording may have as many bytes as an upload and a form; any other ``MAX_FORM_BYTES``.
    Nothing may pause longer than ``http.upload_idle_timeout_s``, nor come more slowly than
    ``http.upload_min_bytes_per_s`` from then on: a slot of the replica is not to be had for a byte a minute.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._drains = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, its body watched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _LimitedBody(receive, scope["app"].state.services, Headers(scope=scope))

        async def after_the_body(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                await self._drain(body)
            await send(message)

        try:
            body.check_announced()
        except UploadTooLarge as error:
            await response_to(Request(scope), error)(scope, receive, after_the_body)
        else:
            await self._app(scope, body.receive, after_the_body)

    async def _drain(self, body: _LimitedBody) -> None:
        if self._drains < MAX_DRAINS:
            self._drains += 1
            try:
                await body.drain()
            finally:
                self._drains -= 1


class _LimitedBody:
    """The messages of one request; raises ``UploadTooLarge`` or ``UploadStalled`` instead of the one that goes too far.

    Time counts only while a message is waited for: a slow disk of ours is not the client's fault.
    """

    def __init__(self, receive: Receive, services: Services, headers: Headers) -> None:
        self._receive = receive
        self._clock = services.clock
        self._settings = services.settings.http
        self._announced = headers.get("content-length", "")
        self._limit = _BodyLimit.of(services, headers)
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
        self._note(message)
        self._limit.check(self._size_bytes)
        self._check_rate()
        await self._turns.spend(len(message.get("body", b"")))
        return message

    async def drain(self) -> None:
        """Reads on for a moment before an error is answered.

        A server that answers and closes while its client is still sending makes the client see a reset connection
        instead of the answer (RFC 9112, §9.6). What is small is received; what is big is cut off.
        """
        until_bytes = self._size_bytes + DRAIN_BYTES
        with suppress(TimeoutError):  # it is too slow to wait for
            async with asyncio.timeout(DRAIN_S):
                while not self._ended and self._size_bytes <= until_bytes:
                    message = await self._receive()
                    self._note(message)
                    await self._turns.spend(len(message.get("body", b"")))

    async def _next(self) -> Message:
        begun_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._settings.upload_idle_timeout_s):
                message = await self._receive()
        except TimeoutError as error:
            self._ended = True
            raise UploadStalled(
                f"Nothing arrived for {self._settings.upload_idle_timeout_s:g} s: send it again."
            ) from error
        self._waited_s += self._clock.monotonic() - begun_at
        return message

    def _note(self, message: Message) -> None:
        self._size_bytes += len(message.get("body", b""))
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)

    def _check_rate(self) -> None:
        waited_s = self._waited_s - self._settings.upload_idle_timeout_s
        slowest = self._settings.upload_min_bytes_per_s
        if waited_s > 0 and self._size_bytes < waited_s * slowest:
            raise UploadStalled(f"The body comes at less than {slowest:,} bytes a second: send it again.")


class DecompressionMiddleware:
    """The middleware that undoes the ``Content-Encoding`` of bodies, so that routes read what was meant.

    The limits of a body hold for what it unpacks to as well, and count while it does.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its body unpacked."""
        if scope["type"] != "http" or scope["method"] not in METHODS_WITH_BODY:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            inflater = inflater_of(", ".join(headers.getlist("content-encoding")))
        except UnsupportedContentEncoding as error:
            await response_to(Request(scope), error)(scope, receive, send)
            return
        if inflater is None:
            await self._app(scope, receive, send)
            return
        body = _DecompressedBody(receive, inflater, _BodyLimit.of(scope["app"].state.services, headers))
        kept = [(name, value) for name, value in scope["headers"] if name.lower() not in COMPRESSED_BODY_HEADERS]
        await self._app({**scope, "headers": kept}, body.receive, send)


class _DecompressedBody:
    """The messages of one request, their bodies unpacked: a piece of bounded size in each."""

    def __init__(self, receive: Receive, inflater: Inflater, limit: _BodyLimit) -> None:
        self._receive = receive
        self._inflater = inflater
        self._limit = limit
        self._size_bytes = 0
        self._pieces: Iterator[bytes] = iter(())
        self._received = False
        self._ended = False
        self._turns = LoopBudget()

    async def receive(self) -> Message:
        while not self._ended:
            piece = next(self._pieces, None)
            if piece is not None:
                self._size_bytes += len(piece)
                self._limit.check(self._size_bytes, " unpacked")
                await self._turns.spend(len(piece))
                if not piece:
                    continue
                return {"type": "http.request", "body": piece, "more_body": True}
            if self._received:
                return self._end()
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._pieces = self._inflater.feed(message.get("body", b""))
            self._received = not message.get("more_body", False)
        return await self._receive()  # only a disconnect may follow

    def _end(self) -> Message:
        self._ended = True
        self._inflater.finish()
        return {"type": "http.request", "body": b"", "more_body": False}
