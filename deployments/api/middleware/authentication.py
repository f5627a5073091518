"""Authentication by API key, with scopes and rate limits.

Once any keys are configured, every path except the documentation and the health routes needs one, even a path without a
route: a route that is added later is closed by default. Reading needs the scope ``read``, everything else ``write``.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from hmac import compare_digest
from math import ceil

from fastapi import Request
from limits import RateLimitItem, parse_many
from limits.aio.storage import Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError as StorageUnknown
from limits.errors import StorageError
from limits.storage import storage_from_string
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from deployments.api.request.caller import route_path
from deployments.api.response.problems import response_to
from pipeline.domain.tasks.client import Client, Scope
from pipeline.errors import (
    ConfigurationError,
    MurmurationError,
    NotAuthenticated,
    ScopeMissing,
    TooManyRequests,
    Unavailable,
)
from pipeline.settings import AuthSettings

OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json"})
OPEN_FOLDERS = ("/docs/assets/", "/api/health/")
READING_POSTS = frozenset({"/api/whisper/tasks/query"})
"""Routes that use POST only because they need a body. They change nothing."""


@dataclass(frozen=True, slots=True)
class _ApiKey:
    digest: bytes
    client: Client
    rates: tuple[RateLimitItem, ...]


class KeyRing:
    """The configured API keys."""

    def __init__(self, settings: AuthSettings) -> None:
        self._keys = tuple(
            _ApiKey(bytes.fromhex(sha256), key.client, _parse_rates(key.rate or settings.rate))
            for key in settings.keys
            for sha256 in key.sha256
        )

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, presented: str) -> _ApiKey | None:
        """Return the key that matches the presented one, if there is one.

        Every hash is compared, in constant time, so that the duration reveals nothing about any key.
        """
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        matching_key = None
        for key in self._keys:
            if compare_digest(digest, key.digest):
                matching_key = key
        return matching_key


class Authenticator:
    """A check of requests against the configured keys, their scopes and their rate limits.

    Args:
        settings: the keys and their rates.

    Raises:
        ConfigurationError: ``auth.rate_storage`` can't be used.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self._keys = KeyRing(settings)
        self._limiter = SlidingWindowCounterRateLimiter(_rate_storage(settings.rate_storage.get_secret_value()))

    async def authenticate(self, method: str, path: str, authorization: str | None) -> Client | None:
        """Return the client of a request; ``None`` if the request needs no key.

        Raises:
            NotAuthenticated: the request has no key, or an unknown one.
            ScopeMissing: the key lacks the scope that the request needs.
            TooManyRequests: the key has reached its rate limit.
            Unavailable: the storage for the rate limits does not respond.
        """
        if not self._keys or is_open(method, path):
            return None
        key = self._keys.find(_presented_key(authorization))
        if key is None:
            raise NotAuthenticated("The key is unknown: check it, or ask the operator for a new one.")
        scope = scope_needed(method, path)
        if not key.client.may(scope):
            raise ScopeMissing(f"The key {key.client.name} does not have the scope {scope}, which this needs.")
        await self._count(key)
        return key.client

    async def _count(self, key: _ApiKey) -> None:
        try:
            for rate in key.rates:
                if not await self._limiter.hit(rate, key.client.name):
                    stats = await self._limiter.get_window_stats(rate, key.client.name)
                    wait_s = max(1, ceil(stats.reset_time - time.time()))
                    raise TooManyRequests(f"The key {key.client.name} may call {rate}: wait {wait_s} s.", wait_s)
        except StorageError as error:
            raise Unavailable("Requests can't be counted now: auth.rate_storage does not respond.") from error


def is_open(method: str, path: str) -> bool:
    """Return whether a request needs no key."""
    return method == "OPTIONS" or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def scope_needed(method: str, path: str) -> Scope:
    """Return the scope that a request needs."""
    reads = method in ("GET", "HEAD") or (method == "POST" and path in READING_POSTS)
    return Scope.READ if reads else Scope.WRITE


class AuthMiddleware:
    """The middleware that authenticates each request and records its client."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Process a request, or refuse it if it is not authenticated."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        authorization = Headers(scope=scope).get("authorization")
        try:
            client = await self._authenticator.authenticate(scope["method"], route_path(scope), authorization)
        except MurmurationError as error:
            await response_to(Request(scope), error)(scope, receive, send)
            return
        state = {**scope.get("state", {}), "client": client}  # a copy, since requests may share the dictionary
        await self._app({**scope, "state": state}, receive, send)


def _presented_key(authorization: str | None) -> str:
    scheme, _, key = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise NotAuthenticated("This needs a key: send it as Authorization: Bearer <key>.")
    return key.strip()


def _rate_storage(url: str) -> Storage:
    try:
        storage = storage_from_string(url, wrap_exceptions=True)
    except StorageUnknown as error:
        raise ConfigurationError(
            "auth.rate_storage is not a storage of the library limits, or its package is missing."
        ) from error
    if not isinstance(storage, Storage):
        raise ConfigurationError("auth.rate_storage must begin with async+, such as async+memory://.")
    return storage


def _parse_rates(text: str | None) -> tuple[RateLimitItem, ...]:
    return tuple(parse_many(text)) if text else ()
