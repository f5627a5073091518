"""Fair turns of requests at an HTTP server, so that one client's burst does not delay everybody else's requests.

Serve's proxy takes some milliseconds to route a request, in the order of arrival: a thousand requests of one client
kept another's health check waiting for seconds. So few requests are passed on at a time, clients in turns.
"""

from __future__ import annotations

import asyncio
import hashlib

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.concurrency.event_loop import FairSemaphore

STARTING_REQUESTS = 16
"""Requests that an HTTP server passes on at the same time; one client may use half of these places."""
START_S = 0.1
"""Longest time for which a request holds its place. Routing takes less; the rest is the application's time."""
LEAVING_CLIENTS = 4
LEAVE_S = 0.01
"""Departures of clients that Serve learns of at the same time, each after ``LEAVE_S``: cancelling a request costs as
much as routing one."""
HEALTH_PATHS = frozenset({"/api/health/check", "/api/health/ready"})
"""Requests that never wait: a probe without a key may share its address with an attacker."""
MARK = "murmuration.turn"
"""Name of the ASGI extension of a request that has had its turn."""


class FairStartMiddleware:
    """Middleware that passes requests on in turns between clients: a key is a client, and without a key an address.

    A request holds its place until its response starts or ``start_s`` has passed, so that long requests delay nobody.
    """

    def __init__(self, app: ASGIApp, places: int = STARTING_REQUESTS, start_s: float = START_S) -> None:
        self._app = app
        self._places = FairSemaphore(places)
        self._leaving = FairSemaphore(LEAVING_CLIENTS)
        self._start_s = start_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on when it is its client's turn."""
        extensions = scope.get("extensions") or {}
        if scope["type"] != "http" or MARK in extensions or scope["path"] in HEALTH_PATHS:
            await self._app(scope, receive, send)
            return
        client = client_key(scope)
        await self._places.acquire(client)
        place = _Place(self._places, client)
        if has_left(receive):
            place.leave()
            return
        timer = asyncio.get_running_loop().call_later(self._start_s, place.leave)

        async def receive_in_turn() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and not place.is_answered:
                async with self._leaving.hold(client):
                    await asyncio.sleep(LEAVE_S)
            return message

        async def send_on(message: Message) -> None:
            place.leave()
            await send(message)
            place.is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self._app({**scope, "extensions": {**extensions, MARK: {}}}, receive_in_turn, send_on)
        finally:
            timer.cancel()
            place.leave()


class _Place:
    """A request's place among those that are passed on, released once; ``is_answered`` once its response was sent."""

    def __init__(self, places: FairSemaphore, client: str) -> None:
        self.is_answered = False
        self._places = places
        self._client = client
        self._is_held = True

    def leave(self) -> None:
        """Release the place, unless that was done."""
        if self._is_held:
            self._is_held = False
            self._places.release(self._client)


def has_left(receive: Receive) -> bool:
    """Return whether the request's connection is lost. uvicorn knows that without reading the body."""
    return getattr(getattr(receive, "__self__", None), "disconnected", False) is True


def client_key(scope: Scope) -> str:
    """Return the client's name before authentication: a digest of the key as sent, or the peer's address."""
    headers = Headers(scope=scope)
    if key := headers.get("authorization"):
        return hashlib.sha256(key.encode()).hexdigest()
    peer = scope.get("client")
    return peer[0] if peer else "?"


def fair_start_middleware() -> list[Middleware]:
    """Return the middleware that Serve wraps its HTTP server in."""
    return [Middleware(FairStartMiddleware)]
