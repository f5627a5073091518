"""Tolerant routing: superfluous slashes in paths, HEAD for every GET route, and OPTIONS for every path.

It is middleware in front of the routes, so that it also applies to routes added later.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.request.routing import SENT_PATH, allowed, methods_at


class PlainPathMiddleware:
    """The middleware that serves ``/v1/models/`` and ``//v1/models`` as ``/v1/models``.

    Clients join a base URL and a path, and either may have the slash. The route is served directly: a redirect would
    lose the body of a POST, and would be built from the caller's Host header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request under its normalised path."""
        if scope["type"] == "http":
            path = plain_path(scope["path"], scope.get("root_path", ""))
            if path != scope["path"]:
                scope = {**scope, "path": path, "raw_path": quote(path).encode(), SENT_PATH: scope["path"]}
        await self._app(scope, receive, send)


def plain_path(path: str, prefix: str = "") -> str:
    """Return a path without empty segments, except in the prefix that the application is mounted at."""
    path = re.sub("/{2,}", "/", path)
    shortest = len(prefix.rstrip("/")) + 1
    return path[:shortest] + path[shortest:].rstrip("/")


class ImpliedMethodsMiddleware:
    """The middleware that handles HEAD for every GET route, and OPTIONS for every path with a route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request, or respond to OPTIONS directly."""
        if scope["type"] != "http" or scope["method"] not in ("HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
        elif scope["method"] == "HEAD":
            await self._head(scope, receive, send)
        else:
            await self._options(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken = methods_at(scope)
        if "HEAD" not in taken and "GET" in taken:
            scope = {**scope, "method": "GET"}
        headers = _HeadersOnly(send)
        answering = asyncio.ensure_future(self._app(scope, receive, headers.send))
        headers.stop = answering.cancel
        try:
            await asyncio.wait({answering})
        finally:
            answering.cancel()
        if not answering.cancelled():
            answering.result()

    async def _options(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken = methods_at(scope)
        if "OPTIONS" in taken or not taken:
            await self._app(scope, receive, send)
        else:
            await Response(status_code=204, headers={"Allow": f"{allowed(taken)}, OPTIONS"})(scope, receive, send)


class _HeadersOnly:
    """A response without its body. A body in several pieces is stopped at the first, since it may never end.

    Attributes:
        stop: stops the application.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.stop: Callable[[], object] = lambda: None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        elif message.get("more_body", False):
            self.stop()
