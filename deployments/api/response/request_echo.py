"""The request's URL and parameters as responses repeat them: shortened and without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request

from deployments.api.request.routing import SENT_PATH

MAX_URL = 2048
MAX_VALUE = 500
_SECRET = re.compile(r"key|secret|token|passw|authorization", re.IGNORECASE)


def request_url(request: Request) -> str:
    """Return the URL as the client wrote it. It is for display only; no link is built from it."""
    url = request.url.replace(path=request.scope[SENT_PATH]) if SENT_PATH in request.scope else request.url
    secrets = {name: "***" for name in request.query_params if _SECRET.search(name)}
    return _shortened(str(url.include_query_params(**secrets) if secrets else url), MAX_URL)


def request_params(request: Request) -> dict[str, Any]:
    """Return the parameters of the query, and those of the body if a route has recorded them with ``note_params``."""
    noted: Mapping[str, Any] = getattr(request.state, "body_params", {})
    return {_shortened(name, 100): _shown(name, value) for name, value in {**request.query_params, **noted}.items()}


def note_params(request: Request, params: Mapping[str, Any]) -> None:
    """Record the parameters of the body, so that the response can repeat them."""
    request.state.body_params = params


def _shown(name: str, value: object) -> object:
    if _SECRET.search(name):
        return "***"
    return _shortened(value, MAX_VALUE) if isinstance(value, str) else value


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
