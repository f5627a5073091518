"""Decompression of request bodies, within the limits on their size."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.concurrency.event_loop import LoopBudget
from deployments.api.middleware.body_limit import BodyLimit
from deployments.api.request.content_encoding import Inflater, inflater_of
from deployments.api.response.problems import response_to
from pipeline.errors import UnsupportedContentEncoding

METHODS_WITH_BODY = frozenset({"POST", "PATCH", "PUT"})
COMPRESSED_BODY_HEADERS = frozenset({b"content-encoding", b"content-length"})


class DecompressionMiddleware:
    """The middleware that decodes the ``Content-Encoding`` of bodies, so that routes read the plain content.

    The size limits of a body also apply to the decompressed content, and are checked while it is decompressed.
    """

    def __init__(self, app: ASGIApp, max_upload_bytes: int) -> None:
        self._app = app
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request with its body decompressed."""
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
        body = _DecompressedBody(receive, inflater, BodyLimit.from_headers(self._max_upload_bytes, headers))
        kept = [(name, value) for name, value in scope["headers"] if name.lower() not in COMPRESSED_BODY_HEADERS]
        await self._app({**scope, "headers": kept}, body.receive, send)


class _DecompressedBody:
    """The messages of one request with decompressed bodies, each of limited size."""

    def __init__(self, receive: Receive, inflater: Inflater, limit: BodyLimit) -> None:
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
