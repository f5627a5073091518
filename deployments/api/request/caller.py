"""The caller of a request: its client, the name it counts as, and the path it called."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from fastapi import Request

from deployments.api.services import services_of
from pipeline.domain.tasks.client import Client

IPV6_PREFIX_BITS = 64
"""Bits of an IPv6 address that identify a client. A client chooses the remaining bits itself."""


def client_of(request: Request) -> Client | None:
    """Return the client of an authenticated request; ``None`` if the request needs no key."""
    client = getattr(request.state, "client", None)
    assert client is None or isinstance(client, Client)  # noqa: S101 (set by AuthMiddleware)
    return client


def client_name(request: Request) -> str | None:
    """Return the name that a request counts against: the client of its key, else its address.

    Returns ``None`` for the loopback address: either the machine has a single user, or a proxy on the same host stands
    in front of many and should pass on their addresses (``X-Forwarded-For``). Addresses behind Serve's HAProxy do not
    identify clients either.
    """
    if client := client_of(request):
        return client.name
    if not services_of(request).knows_addresses:
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


def route_path(scope: Mapping[str, Any]) -> str:
    """Return the path below the prefix that the application is mounted at."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    inside = prefix and (path == prefix or path.startswith(f"{prefix}/"))
    return (path[len(prefix) :] or "/") if inside else path
