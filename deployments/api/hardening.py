"""What keeps a service on the open internet upright: headers for browsers, and bounds on every body.

Both are middleware, so that a route can't forget them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.problems import answer_to
from deployments.api.services import Services
from deployments.api.uploads import MAX_FORM_BYTES
from pipeline.errors import UploadStalled, UploadTooLarge

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

DRAIN_BYTES = 4 * 1024 * 1024
DRAIN_S = 2.0

UPLOAD_TYPES = ("multipart/form-data", "application/offset+octet-stream")
"""Bodies that carry recordings."""


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


class SecurityHeaders:
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


class BodyBounds:
    """Gives up on bodies that are too large for what they are, or come too slowly.

    A body that carries a recording may have as many bytes as an upload and a form; any other ``MAX_FORM_BYTES``.
    Nothing may pause longer than ``http.upload_idle_timeout_s``, nor come more slowly than
    ``http.upload_min_bytes_per_s`` from then on: a slot of the replica is not to be had for a byte a minute.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, its body watched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _WatchedBody(receive, scope["app"].state.services, Headers(scope=scope))

        async def after_the_body(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                await body.drain()
            await send(message)

        try:
            body.check_announced()
        except UploadTooLarge as error:
            await answer_to(Request(scope), error)(scope, receive, after_the_body)
        else:
            await self._app(scope, body.receive, after_the_body)


class _WatchedBody:
    """The messages of one request; raises ``UploadTooLarge`` or ``UploadStalled`` instead of the one that goes too far.

    Time counts only while a message is waited for: a slow disk of ours is not the client's fault.
    """

    def __init__(self, receive: Receive, services: Services, headers: Headers) -> None:
        self._receive = receive
        self._clock = services.clock
        self._settings = services.settings.http
        self._announced = headers.get("content-length", "")
        self._carries_recording = headers.get("content-type", "").partition(";")[0].strip().lower() in UPLOAD_TYPES
        self._limit_bytes = services.settings.media.max_upload_bytes if self._carries_recording else MAX_FORM_BYTES
        self._size_bytes = 0
        self._waited_s = 0.0
        self._ended = False

    def check_announced(self) -> None:
        if re.fullmatch(r"[0-9]{1,18}", self._announced):
            self._check_size(int(self._announced))

    async def receive(self) -> Message:
        if self._ended:
            return await self._receive()  # what may come now is the news that the client has left
        message = await self._next()
        self._note(message)
        self._check_size(self._size_bytes)
        self._check_rate()
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
                    self._note(await self._receive())

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

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._limit_bytes + (MAX_FORM_BYTES if self._carries_recording else 0):
            raise UploadTooLarge(
                f"The body is too large: it has {size_bytes:,} bytes, and the limit is {self._limit_bytes:,}."
            )

    def _check_rate(self) -> None:
        waited_s = self._waited_s - self._settings.upload_idle_timeout_s
        slowest = self._settings.upload_min_bytes_per_s
        if waited_s > 0 and self._size_bytes < waited_s * slowest:
            raise UploadStalled(f"The body comes at less than {slowest:,} bytes a second: send it again.")
