"""The routes at a request's path: the methods that they accept, and the path as the client wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
SENT_PATH = "murmuration.sent_path"
"""Key of a scope that holds the path as the client wrote it, if it was changed."""


def methods_at(scope: Mapping[str, Any]) -> frozenset[str]:
    """Return the methods that routes accept at the request's path; none if there is no route."""
    app: FastAPI = scope["app"]
    return frozenset(
        method for method in METHODS for route in app.router.routes if _accepts(route, {**scope, "method": method})
    )


def allowed(methods: frozenset[str]) -> str:
    """Return the value of an ``Allow`` header: the methods that routes accept, and HEAD beside GET."""
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else frozenset())))


def _accepts(route: BaseRoute, scope: Scope) -> bool:
    if isinstance(route, Mount) and scope["method"] not in ("GET", "HEAD"):
        return False  # it serves files, but matches every method
    return route.matches(scope)[0] is Match.FULL
