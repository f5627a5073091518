"""uvicorn's HTTP protocol with bounds on what comes before a request's body.

uvicorn's httptools protocol bounds neither the size, the number nor the time of headers, nor how many connections wait
for a request, and keeps an unfinished header in memory (uvicorn 0.54, ``httptools_impl.py``); its options don't reach
it through Serve. So Serve's proxies get this subclass (see ``deployments.front.proxies``).
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
"""File descriptors of the process that are not for connections."""


class _Refused(Exception):
    """Stops the parser in the middle of what it was given."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection, within bounds. ``bounded_protocol`` makes the class that knows them."""

    bounds: ClassVar[ConnectionBounds]
    table: ClassVar[ConnectionTable[BoundedProtocol]]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ws_protocol_class = None  # the service has no WebSockets, and theirs would have other bounds
        self._meter = RequestMeter(self.bounds)
        self._refusal: Refusal | None = None
        self._url_start = b""
        self._deadline: asyncio.TimerHandle | None = None

    # the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection, and waits for its first request."""
        super().connection_made(transport)
        if self.table.admit(self):
            self._start_deadline()
        else:
            self._refuse(TOO_MANY_CONNECTIONS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Frees the connection's place."""
        self._stop_deadline()
        self.table.leave(self)
        self._unset_keepalive_if_required()  # uvicorn leaves it after a reset, and with it the connection, in memory
        super().connection_lost(exc)

    def evict(self) -> None:
        """Closes at once: another connection needs the place."""
        self._stop_deadline()
        self.transport.abort()

    # what arrives

    def data_received(self, data: bytes) -> None:
        """Parses what arrived, unless it is too much."""
        if self._refusal is not None:
            return
        if self._deadline is None and not self._meter.in_body:
            self._start_deadline()
        self._meter.received(len(data))
        super().data_received(data)
        if self._refusal is None and (refusal := self._meter.parsed()):
            self._refuse(refusal)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._meter.request_began()
        self._url_start = b""
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url_start = (self._url_start + url)[: len(OPENAI_PATH_PREFIX)]
        self._raise_if_refused(self._meter.url(len(url)))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are counted and left out, since the request has long been handed on."""
        self._raise_if_refused(self._meter.header(len(name) + len(value)))
        if not self._meter.in_body and is_passed_on(name, value):
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request can be looked at."""
        self._raise_if_refused(TOO_MANY_PIPELINED if len(self.pipeline) >= self.bounds.max_pipelined else None)
        self._stop_deadline()
        self._meter.head_ended()
        self.table.request_began(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the request's body."""
        self._meter.body(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._meter.request_ended()
        super().on_message_complete()
        if self.cycle.response_complete:
            self._stop_deadline()

    def on_response_complete(self) -> None:
        """The answer is sent; what is left of a request that was answered early has to come soon."""
        if not self.pipeline:
            self.table.request_ended(self)
        super().on_response_complete()
        if self._meter.in_body and not self.pipeline:
            self._start_deadline()

    # refusing

    def send_400_response(self, msg: str) -> None:
        """Answers what can't be parsed, or what the parser was stopped in."""
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
        if not self._answering():  # else the answer that is being sent would be taken for this one's
            self.transport.write(answer(refusal, openai=self._url_start == OPENAI_PATH_PREFIX))
        self.transport.close()

    def _answering(self) -> bool:
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
            self._start_deadline()  # a head that was sent ahead; it is read once the answer is sent
        elif self.cycle is None or not self._meter.in_body:
            self._refuse(HEAD_TOO_SLOW)
        else:
            self.transport.abort()


def answer(refusal: Refusal, *, openai: bool) -> bytes:
    """The refusal as an HTTP answer that ends the connection, in the shape of the surface that it was sent to."""
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
    """The protocol with these bounds, and a table of its connections; no more than the process may have files."""
    places = min(bounds.max_connections, file_limit() - RESERVED_FILES)
    table: ConnectionTable[BoundedProtocol] = ConnectionTable(max(1, places))
    return type("Bounded", (BoundedProtocol,), {"bounds": replace(bounds), "table": table})


def file_limit() -> int:
    """Ask for all the files that this process may have open, and return how many those are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20
