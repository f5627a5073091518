"""Rules for the size and duration of request heads and for the number of connections, without input or output."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

FRAMING_BYTES_PER_BYTE = 8
"""Bytes of framing allowed for each byte of a body; a body in HTTP chunks of one byte takes five."""


HINTS_TO_SERVE = frozenset(
    {
        b"serve_multiplexed_model_id",
        b"x_session_id",
        b"x_request_timeout_seconds",
        b"x_request_disconnect_disabled",
    }
)
"""Headers by which a client could control how Serve runs its request: on which replica, for how long, and whether to go
on after a disconnect (Ray 2.60, ``ray/serve/_private/constants.py``). Serve means them for proxies of its own."""
HINT_PREFIX = b"x_serve_router_"
REQUEST_ID = b"x_request_id"
MAX_REQUEST_ID_BYTES = 128


def is_passed_on(name: bytes, value: bytes) -> bool:
    """Return whether a client's header may reach Serve, which obeys some headers."""
    plain = name.lower().replace(b"-", b"_")
    if plain == REQUEST_ID:
        return len(value) <= MAX_REQUEST_ID_BYTES and value.isascii()
    return plain not in HINTS_TO_SERVE and not plain.startswith(HINT_PREFIX)


@dataclass(frozen=True)
class ConnectionBounds:
    """Bounds on the connections of one HTTP server.

    Attributes:
        max_head_bytes: request line and headers together; also the framing of a body beyond its allowance.
        max_url_bytes: the request's target.
        max_headers: headers of one request, its trailers included.
        head_timeout_s: from the first byte of a request, or from the connection's start, to the end of its headers.
        max_connections: open connections; at this number, one that waits for a request is closed to admit another.
        max_pipelined: requests that one connection may send before their responses.
    """

    max_head_bytes: int = 64 * 1024
    max_url_bytes: int = 44 * 1024
    max_headers: int = 100
    head_timeout_s: float = 10.0
    max_connections: int = 4096
    max_pipelined: int = 16


@dataclass(frozen=True)
class Refusal:
    """An error response that ends a connection before the application sees its request."""

    status: int
    code: str
    message: str


URL_TOO_LONG = Refusal(
    414, "url_too_long", "The URL is too long: send long options, such as initial_prompt, as form fields instead."
)
HEAD_TOO_LARGE = Refusal(431, "headers_too_large", "The request has too many or too large headers.")
HEAD_TOO_SLOW = Refusal(408, "headers_too_slow", "The request's headers did not arrive in time.")
BAD_FRAMING = Refusal(400, "bad_request", "The request's body has too much framing for its size: send larger chunks.")
TOO_MANY_PIPELINED = Refusal(
    429, "too_many_requests", "Too many requests were sent before their responses: wait for some of them."
)
TOO_MANY_CONNECTIONS = Refusal(503, "too_many_connections", "All connections are in use; try again in a moment.")


@dataclass
class RequestMeter:
    """A count of the bytes that a connection sends besides the bodies of its requests.

    ``url``, ``header`` and ``parsed`` return a refusal, or ``None`` within the bounds.
    """

    bounds: ConnectionBounds
    _head_bytes: int = 0
    _url_bytes: int = 0
    _headers: int = 0
    _unclaimed: int = 0
    _body_bytes: int = 0
    in_body: bool = False

    def received(self, size: int) -> None:
        """Count bytes before they are parsed."""
        self._unclaimed += size

    def request_began(self) -> None:
        """Start counting from zero."""
        self._head_bytes = self._url_bytes = self._headers = self._body_bytes = 0
        self.in_body = False

    def url(self, size: int) -> Refusal | None:
        """Count a piece of the request's target."""
        self._url_bytes += size
        self._head_bytes += size
        if self._url_bytes > self.bounds.max_url_bytes:
            return URL_TOO_LONG
        return self._head_refusal()

    def header(self, size: int) -> Refusal | None:
        """Count a header or a trailer by the size of its name and value."""
        self._headers += 1
        self._head_bytes += size + len(": \r\n")
        return self._head_refusal()

    def head_ended(self) -> None:
        """Note that the headers are complete and a body may follow."""
        self._unclaimed = 0
        self.in_body = True

    def body(self, size: int) -> None:
        """Count a piece of the body; the application bounds its size."""
        self._unclaimed -= size
        self._body_bytes += size

    def request_ended(self) -> None:
        """Note that the request is complete and another may follow."""
        self._unclaimed = 0
        self.in_body = False

    def parsed(self) -> Refusal | None:
        """Check the bytes received that belong to no body: those of an unfinished head, or the framing of a body."""
        self._unclaimed = max(0, self._unclaimed)
        if self.in_body:
            allowed = self.bounds.max_head_bytes + FRAMING_BYTES_PER_BYTE * self._body_bytes
            return BAD_FRAMING if self._unclaimed > allowed else None
        if self._unclaimed <= self.bounds.max_head_bytes:
            return None
        return URL_TOO_LONG if self._url_bytes * 2 > self._unclaimed else HEAD_TOO_LARGE

    def _head_refusal(self) -> Refusal | None:
        within = self._head_bytes <= self.bounds.max_head_bytes and self._headers <= self.bounds.max_headers
        return None if within else HEAD_TOO_LARGE


class EvictableConnection(Hashable, Protocol):
    """A connection that the table can close."""

    def evict(self) -> None:
        """Close at once, because another connection needs the place."""


C = TypeVar("C", bound=EvictableConnection)


@dataclass
class ConnectionTable(Generic[C]):
    """The open connections of one server. When it is full, a new one replaces the one that has been idle longest.

    So idle connections can't keep clients out, as in nginx (``worker_connections``).
    """

    max_connections: int
    _waiting: dict[C, None] = field(default_factory=dict)
    _busy: set[C] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._busy)

    def admit(self, connection: C) -> bool:
        """Add a new connection. Return ``False`` if every connection has a request in progress."""
        if len(self) >= self.max_connections and not self._make_room():
            return False
        self._waiting[connection] = None
        return True

    def request_began(self, connection: C) -> None:
        """Note a request in progress, so that the connection keeps its place."""
        if connection in self._waiting:
            del self._waiting[connection]
            self._busy.add(connection)

    def request_ended(self, connection: C) -> None:
        """Note that the connection is idle again."""
        if connection in self._busy:
            self._busy.discard(connection)
            self._waiting[connection] = None

    def leave(self, connection: C) -> None:
        """Remove a connection that is closed."""
        self._waiting.pop(connection, None)
        self._busy.discard(connection)

    def _make_room(self) -> bool:
        if not self._waiting:
            return False
        oldest = next(iter(self._waiting))
        del self._waiting[oldest]
        oldest.evict()
        return True
