"""Fair turns of requests at an HTTP server: one client's burst does not stand before everybody else's requests.

To route a request costs Serve's proxy some milliseconds, in the order of arrival: a thousand requests of one client
kept another's health check waiting for seconds. So few requests are handed on at a time, clients in turns.
"""

from __future__ import annotations

import asyncio
import hashlib

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.concurrency.event_loop import FairSemaphore

STARTING_REQUESTS = 16
"""Requests that an HTTP server is handing on at the same time; those of one client have half of these places."""
START_S = 0.1
"""Longest time for which a request holds its place. Routing takes less; the rest is the application's time."""
LEAVING_CLIENTS = 4
LEAVE_S = 0.01
"""Serve learns of so many clients that go away at a time, each after ``LEAVE_S``: to cancel a request costs as much as
to route one."""
MARK = "murmuration.turn"
"""Name of the ASGI extension of a request that has had its turn."""


class FairStartMiddleware:
    """Hands requests on in turns between clients: a key is a client, and without a key an address.

    A request holds its place until its response starts or ``start_s`` has passed, so that what lasts holds up nobody.
    """

    def __init__(self, app: ASGIApp, places: int = STARTING_REQUESTS, start_s: float = START_S) -> None:
        self._app = app
        self._places = FairSemaphore(places)
        self._leaving = FairSemaphore(LEAVING_CLIENTS)
        self._start_s = start_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on when it is its client's turn."""
        extensions = scope.get("extensions") or {}
        if scope["type"] != "http" or MARK in extensions:
            await self._app(scope, receive, send)
            return
        client = client_key(scope)
        await self._places.acquire(client)
        place = _Place(self._places, client)
        timer = asyncio.get_running_loop().call_later(self._start_s, place.leave)

        async def receive_in_turn() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                async with self._leaving.hold(client):
                    await asyncio.sleep(LEAVE_S)
            return message

        async def send_on(message: Message) -> None:
            place.leave()
            await send(message)

        try:
            await self._app({**scope, "extensions": {**extensions, MARK: {}}}, receive_in_turn, send_on)
        finally:
            timer.cancel()
            place.leave()


class _Place:
    """A place among the requests that are handed on, given back once."""

    def __init__(self, places: FairSemaphore, client: str) -> None:
        self._places = places
        self._client = client
        self._is_held = True

    def leave(self) -> None:
        """Give the place back, unless that is done."""
        if self._is_held:
            self._is_held = False
            self._places.release(self._client)


def client_key(scope: Scope) -> str:
    """Return what tells clients apart before authentication: a digest of the key as sent, or the peer's address."""
    headers = Headers(scope=scope)
    if key := headers.get("authorization"):
        return hashlib.sha256(key.encode()).hexdigest()
    peer = scope.get("client")
    return peer[0] if peer else "?"


def fair_start_middleware() -> list[Middleware]:
    """Return what Serve puts around its HTTP server."""
    return [Middleware(FairStartMiddleware)]
