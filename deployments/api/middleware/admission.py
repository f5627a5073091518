"""Limits on concurrent requests: per client, of long-running requests, and in total.

Serve hands an Ingress replica up to ``max_ongoing_requests`` of the Serve config. It queues all others in its proxy,
health checks included. The limits here are therefore lower, and a request above them is refused at once. Each Ingress
replica counts on its own: with n replicas a client may have n times as many requests, if Serve spreads them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.api.middleware.authentication import is_open
from deployments.api.request.caller import client_name, route_path
from deployments.api.response.problems import response_to
from deployments.api.services import CountMetric
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
"""Prefixes of the paths whose POST requests wait for an upload or for the end of the work."""
EVENTS_PATH = "/api/whisper/tasks/events"
RESULT_PATH_PREFIX = "/api/whisper/tasks/result"


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The numbers of requests that may run at the same time."""

    total: int
    lasting: int
    per_client: int

    @classmethod
    def from_settings(cls, settings: HttpSettings, capacity: int) -> RequestLimits:
        """Return the limits in the settings, or shares of ``capacity`` where they have none.

        Each limit is below ``capacity``, the number of requests that Serve hands over at the same time.
        """
        total = min(settings.max_concurrent_requests or capacity, _tenths(9, capacity))
        lasting = settings.max_lasting_requests or _tenths(7, capacity)
        per_client = settings.max_concurrent_requests_per_client or _tenths(2, capacity)
        return cls(total, min(lasting, total), per_client)


def _tenths(count: int, capacity: int) -> int:
    return max(1, capacity * count // 10)


class RequestSlots:
    """The running requests of one Ingress replica.

    Args:
        limits: the numbers that are allowed.
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._by_client: Counter[str] = Counter()
        self._total = 0
        self._lasting = 0

    @property
    def taken(self) -> int:
        """Number of running requests."""
        return self._total

    @contextmanager
    def hold(self, client: str | None, *, is_lasting: bool) -> Iterator[None]:
        """Hold a slot while the context is open.

        Args:
            client: the client that the slot counts against; ``None`` counts against no client.
            is_lasting: whether the request may wait for its client or for work.

        Raises:
            TooManyRequests: the client has as many requests as it may have.
            ServiceBusy: no slot is free.
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
                f"{own} of your requests are running, and the limit is {limits.per_client}: wait for one to end.",
                RETRY_AFTER_S,
            )
        if self._total >= limits.total or (is_lasting and self._lasting >= limits.lasting):
            raise ServiceBusy("The server is at its limit of concurrent requests: try again soon.", RETRY_AFTER_S)

    def _add(self, client: str | None, is_lasting: bool, by: int) -> None:
        self._total += by
        self._lasting += by if is_lasting else 0
        if client is not None:
            self._by_client[client] += by
            if not self._by_client[client]:
                del self._by_client[client]


class AdmissionMiddleware:
    """The middleware that holds a slot for each request, except for open routes.

    It runs after ``AuthMiddleware``, which identifies the client, and holds the slot until the response has been read.
    """

    def __init__(self, app: ASGIApp, slots: RequestSlots, count: CountMetric) -> None:
        self._app = app
        self._slots = slots
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request, or refuse it if no slot is free."""
        path = route_path(scope) if scope["type"] == "http" else ""
        if scope["type"] != "http" or is_open(scope["method"], path):
            await self._app(scope, receive, send)
            return
        slot = self._slots.hold(
            client_name(Request(scope)), is_lasting=is_lasting(scope["method"], path, scope["query_string"])
        )
        try:
            slot.__enter__()
        except MurmurationError as error:
            self._count("requests_refused", reason=error.code)
            await response_to(Request(scope), error)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            slot.__exit__(None, None, None)


def is_lasting(method: str, path: str, query: bytes) -> bool:
    """Return whether a request may run for long: it uploads a recording, or waits for a task or follows one."""
    if method in ("POST", "PATCH", "PUT"):
        return path.startswith(LASTING_POSTS)
    return path == EVENTS_PATH or (path == RESULT_PATH_PREFIX and b"wait_s" in query)
