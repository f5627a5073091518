"""Acknowledgements from Serve's HTTP server: how much of a response the network has accepted.

A middleware around the server inserts messages between those of the request, and Serve forwards them to the application
like any other. ``deployments.front.proxies`` installs it. Its counterpart in the application is
``middleware.backpressure``. It runs in Serve's own processes and therefore imports little.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

EXTENSION = "murmuration.sent"
"""Name of the ASGI extension and type of its messages. Their ``bytes`` is how much of the response body the network has
accepted."""
REPORT_BYTES = 32 * 1024
"""Bytes between two acknowledgements; one more follows at the end. The unacknowledged bytes and one more piece must fit
into ``max_unread_bytes_per_answer``, or both sides would wait for each other."""
SERVER_STALL_S = 120.0
"""The server disconnects a client that accepts nothing for this long, if the application has not done so before."""


class ResponseUnread(ConnectionError):
    """A client that does not read its response, so that the connection is closed."""


def acknowledgement_middleware() -> list[Middleware]:
    """Return the middleware for Serve's HTTP server."""
    return [Middleware(AcknowledgementMiddleware)]


def with_acknowledgements(app: ASGIApp) -> ASGIApp:
    """Wrap one of Serve's applications in ``AcknowledgementMiddleware``, unless it is wrapped already.

    This is for a server that is already running: assigned to uvicorn's ``config.loaded_app``, it serves all later
    connections.
    """
    return app if isinstance(app, AcknowledgementMiddleware) else AcknowledgementMiddleware(app)


class AcknowledgementMiddleware:
    """The middleware that tells the application how much of its response the network has accepted."""

    def __init__(self, app: ASGIApp, stall_s: float = SERVER_STALL_S) -> None:
        self._app = app
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request; leave it unchanged if it has passed this middleware before."""
        known = scope.get("extensions") or {}
        if scope["type"] != "http" or EXTENSION in known:
            await self._app(scope, receive, send)
            return
        server = _ServerChannel(receive, send, self._stall_s)
        extensions = {**known, EXTENSION: {}}
        try:
            await self._app({**scope, "extensions": extensions}, server.receive, server.send)
        finally:
            server.close()


class _ServerChannel:
    """The messages of one request in both directions, on the server's side."""

    def __init__(self, receive: Receive, send: Send, stall_s: float) -> None:
        self._receive = receive
        self._send = send
        self._stall_s = stall_s
        self._body_ended = False
        self._sent_bytes = 0
        self._acknowledged_bytes = 0
        self._due = asyncio.Event()
        self._next: asyncio.Future[Message] | None = None

    async def receive(self) -> Message:
        """Return the next message of the request, or an acknowledgement."""
        if not self._body_ended:
            message = await self._receive()
            self._body_ended = not message.get("more_body", False)
            return message
        if not self._due.is_set():
            await self._wait()
        if self._due.is_set():
            self._due.clear()
            self._acknowledged_bytes = self._sent_bytes
            return {"type": EXTENSION, "bytes": self._sent_bytes}
        assert self._next is not None  # noqa: S101 (set by _wait)
        following, self._next = self._next, None
        return following.result()

    async def _wait(self) -> None:
        """Wait for the next message, or for an acknowledgement that is due."""
        self._next = self._next or asyncio.ensure_future(self._receive())
        due = asyncio.ensure_future(self._due.wait())
        either: set[asyncio.Future[Any]] = {self._next, due}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            due.cancel()

    async def send(self, message: Message) -> None:
        """Send a part of the response. Returns once the network has accepted the parts before it."""
        try:
            async with asyncio.timeout(self._stall_s):
                await self._send(message)
        except TimeoutError as error:
            raise ResponseUnread("The client does not read its response.") from error
        if message["type"] == "http.response.body":
            self._sent_bytes += len(message.get("body", b""))
            ended = not message.get("more_body", False)
            if ended or self._sent_bytes - self._acknowledged_bytes >= REPORT_BYTES:
                self._due.set()

    def close(self) -> None:
        """Stop waiting for messages of the request."""
        if self._next is not None:
            self._next.cancel()
