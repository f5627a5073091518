"""How large a request's head may be, how long it may take, and how many connections there may be: rules alone."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

FRAMING_BYTES_PER_BYTE = 8
"""Bytes of chunk sizes that each byte of a body may cost: a body in chunks of one byte takes five."""


HINTS_TO_SERVE = frozenset(
    {
        b"serve_multiplexed_model_id",
        b"x_session_id",
        b"x_request_timeout_seconds",
        b"x_request_disconnect_disabled",
    }
)
"""Headers by which whoever sends a request would tell Serve how to run it: where, for how long, and whether to go on
when the client has gone (Ray 2.60, ``ray/serve/_private/constants.py``). They are for proxies of Serve's own."""
HINT_PREFIX = b"x_serve_router_"
REQUEST_ID = b"x_request_id"
MAX_REQUEST_ID_BYTES = 128


def is_passed_on(name: bytes, value: bytes) -> bool:
    """Return whether a client's header may reach Serve, which takes some for its own."""
    plain = name.lower().replace(b"-", b"_")
    if plain == REQUEST_ID:
        return len(value) <= MAX_REQUEST_ID_BYTES and value.isascii()
    return plain not in HINTS_TO_SERVE and not plain.startswith(HINT_PREFIX)


@dataclass(frozen=True)
class ConnectionBounds:
    """Bounds on the connections of one HTTP server.

    Attributes:
        max_head_bytes: request line and headers together; also what the framing of a body may take beyond its due.
        max_url_bytes: the request's target.
        max_headers: headers of one request, its trailers included.
        head_timeout_s: from the first byte of a request, or from the connection's start, to the end of its headers.
        max_connections: open connections; when they are reached, those that wait for a request go first.
        max_pipelined: requests that one connection may send ahead of their answers.
    """

    max_head_bytes: int = 64 * 1024
    max_url_bytes: int = 44 * 1024
    max_headers: int = 100
    head_timeout_s: float = 10.0
    max_connections: int = 4096
    max_pipelined: int = 16


@dataclass(frozen=True)
class Refusal:
    """An answer that ends a connection before its request is looked at; the shape of the service's other errors."""

    status: int
    code: str
    message: str


URL_TOO_LONG = Refusal(
    414, "url_too_long", "The URL is too long: send long options, such as initial_prompt, as form fields instead."
)
HEAD_TOO_LARGE = Refusal(431, "headers_too_large", "The request has too many or too large headers.")
HEAD_TOO_SLOW = Refusal(408, "headers_too_slow", "The request's headers did not arrive in time.")
BAD_FRAMING = Refusal(400, "bad_request", "The request's body is framed with too much around too little.")
TOO_MANY_PIPELINED = Refusal(429, "too_many_requests", "Too many requests were sent ahead of their answers.")
TOO_MANY_CONNECTIONS = Refusal(503, "too_many_connections", "All connections are in use; try again in a moment.")


@dataclass
class RequestMeter:
    """Counts what a connection sends around the bodies of its requests, and says when it is too much.

    Each method that counts returns a refusal, or ``None`` while all is within bounds.
    """

    bounds: ConnectionBounds
    _head_bytes: int = 0
    _url_bytes: int = 0
    _headers: int = 0
    _unclaimed: int = 0
    _body_bytes: int = 0
    in_body: bool = False

    def received(self, size: int) -> None:
        """Counts bytes before they are parsed."""
        self._unclaimed += size

    def request_began(self) -> None:
        """Starts counting anew."""
        self._head_bytes = self._url_bytes = self._headers = self._body_bytes = 0
        self.in_body = False

    def url(self, size: int) -> Refusal | None:
        """Counts a piece of the request's target."""
        self._url_bytes += size
        self._head_bytes += size
        if self._url_bytes > self.bounds.max_url_bytes:
            return URL_TOO_LONG
        return self._head_refusal()

    def header(self, size: int) -> Refusal | None:
        """Counts a header or a trailer: its name and value."""
        self._headers += 1
        self._head_bytes += size + len(": \r\n")
        return self._head_refusal()

    def head_ended(self) -> None:
        """The headers are complete, and a body may follow."""
        self._unclaimed = 0
        self.in_body = True

    def body(self, size: int) -> None:
        """Counts a piece of the body, which its own bounds take care of."""
        self._unclaimed -= size
        self._body_bytes += size

    def request_ended(self) -> None:
        """The request is complete, and another may follow."""
        self._unclaimed = 0
        self.in_body = False

    def parsed(self) -> Refusal | None:
        """Looks at what was received and belongs to no body: an unfinished head, or the framing of a body."""
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
    """A connection as the table knows it."""

    def evict(self) -> None:
        """Close at once: another connection needs the place."""


C = TypeVar("C", bound=EvictableConnection)


@dataclass
class ConnectionTable(Generic[C]):
    """Open connections of one server. At its bound, the one that has waited longest for a request makes room.

    So connections that are only held open can't keep anybody out, as in nginx (``worker_connections``).
    """

    max_connections: int
    _waiting: dict[C, None] = field(default_factory=dict)
    _busy: set[C] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._busy)

    def admit(self, connection: C) -> bool:
        """Takes a new connection in; ``False`` if every place is taken by a request in progress."""
        if len(self) >= self.max_connections and not self._make_room():
            return False
        self._waiting[connection] = None
        return True

    def request_began(self, connection: C) -> None:
        """A request is in progress: the connection keeps its place."""
        if connection in self._waiting:
            del self._waiting[connection]
            self._busy.add(connection)

    def request_ended(self, connection: C) -> None:
        """The connection waits for its next request."""
        if connection in self._busy:
            self._busy.discard(connection)
            self._waiting[connection] = None

    def leave(self, connection: C) -> None:
        """The connection is closed."""
        self._waiting.pop(connection, None)
        self._busy.discard(connection)

    def _make_room(self) -> bool:
        if not self._waiting:
            return False
        oldest = next(iter(self._waiting))
        del self._waiting[oldest]
        oldest.evict()
        return True
