"""uvicorn's HTTP protocol with bounds on request heads and connections.

uvicorn's httptools protocol does not bound the size, the number or the time of headers, nor the number of idle
connections, and it keeps an unfinished header in memory (uvicorn 0.54, ``httptools_impl.py``). Serve does not pass on
uvicorn's options. Therefore Serve's proxies use this subclass (see ``deployments.front.proxies``).
"""

from __future__ import annotations

import asyncio
import json
import resource
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deployments.front.bounds import (
    HEAD_TOO_SLOW,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_PIPELINED,
    ConnectionBounds,
    ConnectionTable,
    Refusal,
    RequestMeter,
    is_passed_on,
)

OPENAI_PATH_PREFIX = b"/v1/"
RESERVED_FILES = 256
"""File descriptors of the process that are kept free of connections."""


class _Refused(Exception):
    """A signal that stops the parser in the middle of its input."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection with bounds. ``bounded_protocol`` creates the subclass with their values."""

    bounds: ClassVar[ConnectionBounds]
    table: ClassVar[ConnectionTable[BoundedProtocol]]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ws_protocol_class = None  # the service has no WebSockets, and their protocol would have other bounds
        self._meter = RequestMeter(self.bounds)
        self._refusal: Refusal | None = None
        self._url_start = b""
        self._deadline: asyncio.TimerHandle | None = None

    # the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection and start the deadline of its first request."""
        super().connection_made(transport)
        if self.table.admit(self):
            self._start_deadline()
        else:
            self._refuse(TOO_MANY_CONNECTIONS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the connection's place."""
        self._stop_deadline()
        self.table.leave(self)
        self._unset_keepalive_if_required()  # after a reset, uvicorn keeps the timer and so the connection in memory
        super().connection_lost(exc)

    def evict(self) -> None:
        """Close at once, because another connection needs the place."""
        self._stop_deadline()
        self.transport.abort()

    # input

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, and refuse the request if they exceed a bound."""
        if self._refusal is not None:
            return
        if self._deadline is None and not self._meter.in_body:
            self._start_deadline()
        self._meter.received(len(data))
        super().data_received(data)
        if self._refusal is None and (refusal := self._meter.parsed()):
            self._refuse(refusal)

    def on_message_begin(self) -> None:
        """Start counting a new request."""
        self._meter.request_began()
        self._url_start = b""
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count a piece of the request's target and pass it on."""
        self._url_start = (self._url_start + url)[: len(OPENAI_PATH_PREFIX)]
        self._raise_if_refused(self._meter.url(len(url)))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, and pass it on if Serve may see it.

        Trailers are counted and dropped, since the application has received the headers already.
        """
        self._raise_if_refused(self._meter.header(len(name) + len(value)))
        if not self._meter.in_body and is_passed_on(name, value):
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Pass the request to the application, now that its headers are complete."""
        self._raise_if_refused(TOO_MANY_PIPELINED if len(self.pipeline) >= self.bounds.max_pipelined else None)
        self._stop_deadline()
        self._meter.head_ended()
        self.table.request_began(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count a piece of the request's body and pass it on."""
        self._meter.body(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request, and its deadline if it was answered early."""
        self._meter.request_ended()
        super().on_message_complete()
        if self.cycle.response_complete:
            self._stop_deadline()

    def on_response_complete(self) -> None:
        """Free the connection for its next request; the rest of a request that was answered early has a deadline."""
        if not self.pipeline:
            self.table.request_ended(self)
        super().on_response_complete()
        if self._meter.in_body and not self.pipeline:
            self._start_deadline()

    # refusals

    def send_400_response(self, msg: str) -> None:
        """Respond to a request that can't be parsed, or whose refusal stopped the parser."""
        if self._refusal is None:
            super().send_400_response(msg)
        else:
            self._refuse(self._refusal)

    def _raise_if_refused(self, refusal: Refusal | None) -> None:
        if refusal is not None:
            self._refusal = refusal
            raise _Refused

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self._stop_deadline()
        if not self._is_responding():  # the client would read the refusal as part of the response in progress
            self.transport.write(refusal_response(refusal, openai=self._url_start == OPENAI_PATH_PREFIX))
        self.transport.close()

    def _is_responding(self) -> bool:
        return self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete

    # time

    def _start_deadline(self) -> None:
        self._stop_deadline()
        self._deadline = self.loop.call_later(self.bounds.head_timeout_s, self._deadline_passed)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _deadline_passed(self) -> None:
        self._deadline = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._start_deadline()  # a pipelined head, which is read once the response is sent
        elif self.cycle is None or not self._meter.in_body:
            self._refuse(HEAD_TOO_SLOW)
        else:
            self.transport.abort()


def refusal_response(refusal: Refusal, *, openai: bool) -> bytes:
    """Return the bytes of an HTTP response that ends the connection, with the error body of the task or OpenAI API."""
    body = json.dumps(_openai_body(refusal) if openai else _task_body(refusal)).encode()
    head = (
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def _task_body(refusal: Refusal) -> dict[str, Any]:
    detail = {"code": refusal.status, "error": refusal.code, "message": refusal.message}
    return {"detail": detail | {"time": datetime.now(UTC).isoformat(), "router": "", "params": {}}}


def _openai_body(refusal: Refusal) -> dict[str, Any]:
    kind = "server_error" if refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    kind = "rate_limit_error" if refusal.status == HTTPStatus.TOO_MANY_REQUESTS else kind
    return {"error": {"message": refusal.message, "type": kind, "param": None, "code": refusal.code}}


def bounded_protocol(bounds: ConnectionBounds) -> type[BoundedProtocol]:
    """Return a protocol class with these bounds and a table of connections, within the process's file limit."""
    places = min(bounds.max_connections, file_limit() - RESERVED_FILES)
    table: ConnectionTable[BoundedProtocol] = ConnectionTable(max(1, places))
    return type("Bounded", (BoundedProtocol,), {"bounds": replace(bounds), "table": table})


def file_limit() -> int:
    """Raise this process's limit on open files to its maximum, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20
