"""What Serve's HTTP server says of an answer: how much of it the network has taken. The other side is ``api.flow``.

A middleware around the server slips messages between those of the request, which Serve hands on to the application as
it does all others. ``deployments.front.proxies`` puts it there. It is part of Serve's own processes, and so imports
little.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

EXTENSION = "murmuration.sent"
"""Name of the ASGI extension, and type of its messages: ``bytes`` of the answer's body were taken by the network."""
REPORT_BYTES = 32 * 1024
"""How often the server says how far it has come, besides at the end. What is untold and one more piece must fit into
``max_unread_bytes_per_answer``, or both sides would wait for each other."""
SERVER_STALL_S = 120.0
"""A client that takes nothing for so long is cut off by the server, should the application not have done so."""


class ResponseUnread(ConnectionError):
    """A client does not read its answer: the connection is given up."""


def acknowledgement_middleware() -> list[Middleware]:
    """Return what Serve puts around its HTTP server."""
    return [Middleware(AcknowledgementMiddleware)]


def with_acknowledgements(app: ASGIApp) -> ASGIApp:
    """Return an application of Serve's inside ``AcknowledgementMiddleware``, once: for a server that runs already.

    A server of uvicorn's takes it as its ``config.loaded_app``, for connections that come from then on.
    """
    return app if isinstance(app, AcknowledgementMiddleware) else AcknowledgementMiddleware(app)


class AcknowledgementMiddleware:
    """The middleware that tells the application how much of its answer has gone."""

    def __init__(self, app: ASGIApp, stall_s: float = SERVER_STALL_S) -> None:
        self._app = app
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; as it is, where it has passed through this middleware before."""
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
    """The two directions of one request, beside the server."""

    def __init__(self, receive: Receive, send: Send, stall_s: float) -> None:
        self._receive = receive
        self._send = send
        self._stall_s = stall_s
        self._body_ended = False
        self._sent_bytes = 0
        self._told_bytes = 0
        self._due = asyncio.Event()
        self._next: asyncio.Future[Message] | None = None

    async def receive(self) -> Message:
        """Return the next message of the request, or how much of its answer has gone."""
        if not self._body_ended:
            message = await self._receive()
            self._body_ended = not message.get("more_body", False)
            return message
        if not self._due.is_set():
            await self._wait()
        if self._due.is_set():
            self._due.clear()
            self._told_bytes = self._sent_bytes
            return {"type": EXTENSION, "bytes": self._sent_bytes}
        assert self._next is not None  # noqa: S101 (see _wait)
        following, self._next = self._next, None
        return following.result()

    async def _wait(self) -> None:
        """Return when the next message is there, or there is something to tell."""
        self._next = self._next or asyncio.ensure_future(self._receive())
        due = asyncio.ensure_future(self._due.wait())
        either: set[asyncio.Future[Any]] = {self._next, due}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            due.cancel()

    async def send(self, message: Message) -> None:
        """Send a part of the answer; returns when the network has taken what came before it."""
        try:
            async with asyncio.timeout(self._stall_s):
                await self._send(message)
        except TimeoutError as error:
            raise ResponseUnread("The client does not read its answer.") from error
        if message["type"] == "http.response.body":
            self._sent_bytes += len(message.get("body", b""))
            ended = not message.get("more_body", False)
            if ended or self._sent_bytes - self._told_bytes >= REPORT_BYTES:
                self._due.set()

    def close(self) -> None:
        """The request is over."""
        if self._next is not None:
            self._next.cancel()
