"""Keys: who calls, whether they may, and whether they have called too often.

Everything but the documentation and the health routes needs a key once there are any, routes that do not exist
included: a route that is added later is shut until somebody opens it. Reading needs the scope ``read``, all else
``write``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hmac import compare_digest
from math import ceil
from typing import Any

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

from deployments.api.response.problems import response_to
from deployments.api.services import Services
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
from pipeline.usecases.tasks.client_scope import ClientScopedTasks

OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json"})
OPEN_FOLDERS = ("/docs/assets/", "/api/health/")
READING_POSTS = frozenset({"/api/whisper/tasks/query"})
"""What is asked by POST for its body's sake, and changes nothing."""


@dataclass(frozen=True, slots=True)
class _ApiKey:
    digest: bytes
    client: Client
    rates: tuple[RateLimitItem, ...]


class KeyRing:
    """The keys there are."""

    def __init__(self, settings: AuthSettings) -> None:
        self._keys = tuple(
            _ApiKey(bytes.fromhex(sha256), key.client, _parse_rates(key.rate or settings.rate))
            for key in settings.keys
            for sha256 in key.sha256
        )

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, presented: str) -> _ApiKey | None:
        """The key that was presented, if it is one of ours.

        Hashes are compared, in constant time and all of them, so that the time it takes says nothing of any key.
        """
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        matching_key = None
        for key in self._keys:
            if compare_digest(digest, key.digest):
                matching_key = key
        return matching_key


class Authenticator:
    """Lets requests through, or says why not.

    Args:
        settings: the keys and their rates.

    Raises:
        ConfigurationError: ``auth.rate_storage`` can't be used.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self._keys = KeyRing(settings)
        self._limiter = SlidingWindowCounterRateLimiter(_rate_storage(settings.rate_storage.get_secret_value()))

    async def admit(self, method: str, path: str, authorization: str | None) -> Client | None:
        """Who calls; ``None`` where no key is asked for.

        Raises:
            NotAuthenticated: there is no key, or it is none of ours.
            ScopeMissing: it does not open this.
            TooManyRequests: it was used too often.
        """
        if not self._keys or is_open(method, path):
            return None
        key = self._keys.find(_presented_key(authorization))
        if key is None:
            raise NotAuthenticated("This key is not known here.")
        scope = scope_needed(method, path)
        if not key.client.may(scope):
            raise ScopeMissing(f"The key {key.client.name} does not have the scope {scope}, which this takes.")
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
            raise Unavailable("Requests can't be counted now: auth.rate_storage does not answer.") from error


def is_open(method: str, path: str) -> bool:
    """Whether a request needs no key."""
    return method == "OPTIONS" or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def scope_needed(method: str, path: str) -> Scope:
    """What a key must open for a request."""
    reads = method in ("GET", "HEAD") or (method == "POST" and path in READING_POSTS)
    return Scope.READ if reads else Scope.WRITE


def client_of(request: Request) -> Client | None:
    """Whose request it is; ``None`` where no key is asked for."""
    client = getattr(request.state, "client", None)
    assert client is None or isinstance(client, Client)  # noqa: S101 (set by AuthMiddleware)
    return client


def services_for(services: Services, client: Client | None) -> Services:
    """The services as a client may use them: the store shows its own tasks only."""
    if client is None or client.sees_all_tasks:
        return services
    return replace(services, store=ClientScopedTasks(services.store, client))


class AuthMiddleware:
    """The middleware that asks the application's ``Authenticator`` first, and notes whose request it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        gate: Authenticator = scope["app"].state.gate
        authorization = Headers(scope=scope).get("authorization")
        try:
            client = await gate.admit(scope["method"], route_path(scope), authorization)
        except MurmurationError as error:
            await response_to(Request(scope), error)(scope, receive, send)
            return
        state = {**scope.get("state", {}), "client": client}  # never in a dictionary that requests may share
        await self._app({**scope, "state": state}, receive, send)


def route_path(scope: Mapping[str, Any]) -> str:
    """Return the path below the prefix we are mounted at."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    inside = prefix and (path == prefix or path.startswith(f"{prefix}/"))
    return (path[len(prefix) :] or "/") if inside else path


def _presented_key(authorization: str | None) -> str:
    scheme, _, key = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise NotAuthenticated("This takes a key: send it as Authorization: Bearer <key>.")
    return key.strip()


def _rate_storage(url: str) -> Storage:
    try:
        storage = storage_from_string(url, wrap_exceptions=True)
    except StorageUnknown as error:
        raise ConfigurationError(
            "auth.rate_storage is no storage of the library limits, or its package is missing."
        ) from error
    if not isinstance(storage, Storage):
        raise ConfigurationError("auth.rate_storage must begin with async+, such as async+memory://.")
    return storage


def _parse_rates(text: str | None) -> tuple[RateLimitItem, ...]:
    return tuple(parse_many(text)) if text else ()
