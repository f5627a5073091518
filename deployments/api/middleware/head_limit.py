"""Limits on the URL and the headers of requests."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.api.response.problems import response_to
from pipeline.errors import (
    AddressTooLong,
    HeadersTooLarge,
    RequestError,
)

MAX_PATH_BYTES = 4096
MAX_QUERY_BYTES = 40 * 1024
"""A prompt of 4,000 Chinese characters takes 36,000 bytes when escaped. Path and query together stay within
`connections.max_url_bytes`."""
MAX_QUERY_FIELDS = 200
MAX_HEADERS = 100
MAX_HEADERS_BYTES = 64 * 1024
MAX_SHOWN_CHARACTERS = 200
"""Characters of an overlong path that the response repeats."""


class HeadLimitMiddleware:
    """The middleware that refuses overlong URLs and headers, and removes cookies, which no route reads.

    The error does not repeat the refused values. Servers in front of the application have limits of their own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process a request, or refuse it if its head is too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_address(scope)
            _check_headers(scope["headers"])
        except RequestError as error:
            shown = {
                **scope,
                "path": scope["path"][:MAX_SHOWN_CHARACTERS],
                "raw_path": b"",
                "query_string": b"",
                "headers": [],
            }
            await response_to(Request(shown), error)(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"cookie"]
        await self._app({**scope, "headers": headers}, receive, send)


def _check_address(scope: Scope) -> None:
    path_bytes, query = len(scope.get("raw_path") or scope["path"]), scope["query_string"]
    if path_bytes > MAX_PATH_BYTES or len(query) > MAX_QUERY_BYTES:
        raise AddressTooLong(
            f"The URL is too long: its path may have {MAX_PATH_BYTES:,} bytes, its query string {MAX_QUERY_BYTES:,}."
        )
    if query.count(b"&") >= MAX_QUERY_FIELDS:
        raise RequestError(f"The query string has more than {MAX_QUERY_FIELDS} parameters.")


def _check_headers(headers: Sequence[tuple[bytes, bytes]]) -> None:
    if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADERS_BYTES:
        raise HeadersTooLarge(
            f"The headers are too large: the limit is {MAX_HEADERS} headers and {MAX_HEADERS_BYTES:,} bytes in all."
        )
