"""How many requests are under way: for each client, for those that last, and in all.

Serve hands an Ingress replica ``max_ongoing_requests`` of the Serve config, and lets the others wait in its proxy,
health checks among them. So the bounds here are lower, and what is above them is answered at once. Each Ingress replica
counts for itself: n replicas let a client have n times as many, if Serve spreads them.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.api.middleware.auth import client_of, is_open, route_path
from deployments.api.response.problems import response_to
from pipeline.errors import MurmurationError, ServiceBusy, TooManyRequests
from pipeline.settings import HttpSettings

RETRY_AFTER_S = 2

LASTING_POSTS = (
    "/api/whisper/tasks/create",
    "/api/whisper/extract_audio",
    "/api/whisper/uploads",
    "/api/chatgpt/summary",
    "/v1/audio/",
)
"""What waits for an upload, or for the end of the work; by the beginning of the path."""
EVENTS_PATH = "/api/whisper/tasks/events"
RESULT_PATH_PREFIX = "/api/whisper/tasks/result"
IPV6_PREFIX_BITS = 64
"""Bits of an IPv6 address that stand for one client: the rest is the client's own to choose."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Requests that may be under way at the same time."""

    total: int
    lasting: int
    per_client: int

    @classmethod
    def of(cls, settings: HttpSettings, capacity: int) -> RequestLimits:
        """Return the limits that the settings name, each below what Serve hands over at the same time."""
        total = min(settings.max_concurrent_requests or capacity, _tenths(9, capacity))
        lasting = settings.max_lasting_requests or _tenths(7, capacity)
        per_client = settings.max_concurrent_requests_per_client or _tenths(2, capacity)
        return cls(total, min(lasting, total), per_client)


def _tenths(count: int, capacity: int) -> int:
    return max(1, capacity * count // 10)


class RequestSlots:
    """The requests of one Ingress replica that are under way.

    Args:
        limits: how many there may be.
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._by_client: Counter[str] = Counter()
        self._total = 0
        self._lasting = 0

    @property
    def taken(self) -> int:
        """Requests that are under way."""
        return self._total

    @contextmanager
    def one(self, client: str | None, *, is_lasting: bool) -> Iterator[None]:
        """Hold a slot.

        Args:
            client: whose share it is taken from; ``None``: nobody's.
            is_lasting: whether the request may wait for its client, or for work.

        Raises:
            TooManyRequests: the client has its share.
            ServiceBusy: there is none left.
        """
        self._check(client, is_lasting=is_lasting)
        self._add(client, is_lasting, 1)
        try:
            yield
        finally:
            self._add(client, is_lasting, -1)

    def _check(self, client: str | None, *, is_lasting: bool) -> None:
        limits = self._limits
        own = 0 if client is None else self._by_client.get(client, 0)
        if own >= limits.per_client:
            raise TooManyRequests(
                f"{own} of your requests are under way, and the limit is {limits.per_client}: wait for one to end.",
                RETRY_AFTER_S,
            )
        if self._total >= limits.total or (is_lasting and self._lasting >= limits.lasting):
            raise ServiceBusy("As many requests are under way as this server takes: ask again soon.", RETRY_AFTER_S)

    def _add(self, client: str | None, is_lasting: bool, by: int) -> None:
        self._total += by
        self._lasting += by if is_lasting else 0
        if client is not None:
            self._by_client[client] += by
            if not self._by_client[client]:
                del self._by_client[client]


class AdmissionMiddleware:
    """The middleware that gives each request a slot, but for those that everybody may make at any time.

    It stands behind ``AuthMiddleware``, which knows the client, and holds the slot until the answer is read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        path = route_path(scope) if scope["type"] == "http" else ""
        if scope["type"] != "http" or is_open(scope["method"], path):
            await self._app(scope, receive, send)
            return
        slots: RequestSlots = scope["app"].state.slots
        slot = slots.one(
            client_name(Request(scope)), is_lasting=is_lasting(scope["method"], path, scope["query_string"])
        )
        try:
            slot.__enter__()
        except MurmurationError as error:
            scope["app"].state.services.count("requests_refused", reason=error.code)
            await response_to(Request(scope), error)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            slot.__exit__(None, None, None)


def client_name(request: Request) -> str | None:
    """Return whose share a request is taken from: that of its key, else of its address.

    The loopback address is nobody's: on one machine there is one user, and in front of many a proxy on the same host,
    which should tell addresses apart (``X-Forwarded-For``). Nor are addresses anybody's behind Serve's HAProxy.
    """
    if client := client_of(request):
        return client.name
    if not request.app.state.services.knows_addresses:
        return None
    try:
        address = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return None
    if address.is_loopback:
        return None
    return f"{_network(address)}"


def _network(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> object:
    return address if address.version == 4 else ipaddress.ip_network((address, IPV6_PREFIX_BITS), strict=False)


def is_lasting(method: str, path: str, query: bytes) -> bool:
    """Return whether a request may last: it brings a recording, or waits for work, or follows it."""
    if method in ("POST", "PATCH", "PUT"):
        return path.startswith(LASTING_POSTS)
    return path == EVENTS_PATH or (path == RESULT_PATH_PREFIX and b"wait_s" in query)
