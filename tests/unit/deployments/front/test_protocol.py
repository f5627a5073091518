from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from deployments.front.bounds import ConnectionBounds
from deployments.front.protocol import BoundedProtocol, bounded_protocol

BOUNDS = ConnectionBounds(
    max_head_bytes=4096, max_url_bytes=1024, max_headers=20, head_timeout_s=10, max_connections=2, max_pipelined=3
)
GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    """A transport that keeps the bytes written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("10.0.0.1", 1), "sockname": ("10.0.0.2", 80)})
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        """Do nothing, since tests pass the bytes in themselves."""

    def resume_reading(self) -> None:
        """Do nothing, since tests pass the bytes in themselves."""

    @property
    def status(self) -> int | None:
        """The status of the first response."""
        return int(self.written.split()[1]) if self.written else None


@dataclass
class Timer:
    """A scheduled call."""

    at_s: float
    call: Callable[..., None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Loop:
    """An event loop whose time a test advances, and which runs its tasks in the test's own loop."""

    now_s: float = 0.0
    timers: list[Timer] = field(default_factory=list)

    def call_later(self, delay_s: float, call: Callable[..., None], *arguments: Any) -> Timer:
        self.timers.append(Timer(self.now_s + delay_s, call))
        return self.timers[-1]

    def create_task(self, coroutine: Any) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(coroutine)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        due = [timer for timer in self.timers if not timer.cancelled and timer.at_s <= self.now_s]
        for timer in due:
            timer.cancel()
            timer.call()


@dataclass
class RecordingApplication:
    """An application that records requests, and responds to each once ``may_answer`` is set."""

    scopes: list[dict[str, Any]] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@dataclass
class BoundedServer:
    """A bounded server with its application, loop and connections."""

    application: RecordingApplication = field(default_factory=RecordingApplication)
    loop: Loop = field(default_factory=Loop)
    bounds: ConnectionBounds = BOUNDS

    def __post_init__(self) -> None:
        self.protocol = bounded_protocol(self.bounds)
        self.config = Config(self.application, http=self.protocol, log_config=None, timeout_keep_alive=90)
        self.state = ServerState()

    def connect(self) -> tuple[BoundedProtocol, Transport]:
        transport = Transport()
        connection = self.protocol(self.config, self.state, {}, _loop=self.loop)
        connection.connection_made(transport)
        return connection, transport

    async def answer_all(self) -> None:
        self.application.may_answer.set()
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
def server() -> BoundedServer:
    return BoundedServer()


async def test_a_request_reaches_the_application(server: BoundedServer) -> None:
    connection, transport = server.connect()
    connection.data_received(GET)
    await server.answer_all()
    assert (server.application.scopes[0]["path"], transport.status, transport.closed) == ("/path", 200, False)


TOO_MUCH = {
    "a request line without end": (b"GET /" + b"a" * 5000, 414),
    "a long URL": (b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\n\r\n", 414),
    "a header without end": (b"GET / HTTP/1.1\r\nx: " + b"a" * 5000, 431),
    "a header's name without end": (b"GET / HTTP/1.1\r\n" + b"x" * 5000, 431),
    "a large header": (b"GET / HTTP/1.1\r\nx: " + b"a" * 5000 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"x: a\r\n" * 21 + b"\r\n", 431),
    "empty lines": (b"\r\n" * 3000, 431),
    "a chunk's extension without end": (POST + b"1;" + b"a" * 150_000, 400),
    "many trailers": (POST + b"1\r\na\r\n0\r\n" + b"x: a\r\n" * 30, 431),
    "a trailer without end": (POST + b"1\r\na\r\n0\r\nx: " + b"a" * 150_000, 400),
    "TLS": (b"\x16\x03\x01\x02\x00", 400),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
@pytest.mark.parametrize("piece", [20, 1000, 100_000])
async def test_what_is_too_much_is_refused(server: BoundedServer, kind: str, piece: int) -> None:
    sent, status = TOO_MUCH[kind]
    connection, transport = server.connect()
    for first in range(0, len(sent), piece):
        connection.data_received(sent[first : first + piece])
        if transport.closed:
            break
    assert (transport.status, transport.closed) == (status, True)
    assert transport.written.count(b"HTTP/1.1") == 1


def refused(server: BoundedServer, url: bytes, headers: bytes = b"") -> dict[str, Any]:
    """Return the refusal of a request, which ends its connection."""
    connection, transport = server.connect()
    connection.data_received(b"GET " + url + b" HTTP/1.1\r\n" + headers + b"\r\n")
    head, body = transport.written.split(b"\r\n\r\n")
    assert b"connection: close" in head
    return dict(json.loads(body))


TOO_MANY_HEADERS = b"x: a\r\n" * 21


async def test_a_refusal_has_the_shape_of_the_services_errors(server: BoundedServer) -> None:
    detail = refused(server, b"/", TOO_MANY_HEADERS)["detail"]
    assert datetime.fromisoformat(detail.pop("time")).tzinfo is not None
    assert detail == {
        "code": 431,
        "error": "headers_too_large",
        "message": "The request has too many or too large headers.",
        "router": "",
        "params": {},
    }


@pytest.mark.parametrize(
    ("url", "headers", "code"),
    [
        (b"/v1/models", TOO_MANY_HEADERS, "headers_too_large"),
        (b"/v1/models?a=" + b"a" * 5000, b"", "url_too_long"),
    ],
)
async def test_under_v1_a_refusal_has_openais_shape(
    server: BoundedServer, url: bytes, headers: bytes, code: str
) -> None:
    error = refused(server, url, headers)["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, code)
    assert error["message"].endswith(".")


async def test_nothing_is_taken_after_a_refusal(server: BoundedServer) -> None:
    connection, transport = server.connect()
    connection.data_received(b"GET / HTTP/1.1\r\nx: " + b"a" * 5000)
    connection.data_received(GET)
    await server.answer_all()
    assert server.application.scopes == []
    assert transport.written.count(b"HTTP/1.1") == 1


async def test_trailers_do_not_become_headers(server: BoundedServer) -> None:
    connection, _ = server.connect()
    connection.data_received(POST + b"1\r\na\r\n0\r\nauthorization: Bearer a\r\n\r\n")
    await server.answer_all()
    assert [name for name, _ in server.application.scopes[0]["headers"]] == [b"host", b"transfer-encoding"]


@pytest.mark.parametrize("sent", [b"", b"GE", b"GET / HTTP/1.1\r\nx: a"])
async def test_a_slow_head_is_given_up(server: BoundedServer, sent: bytes) -> None:
    connection, transport = server.connect()
    for byte in sent:
        server.loop.pass_time(0.01)
        connection.data_received(bytes([byte]))
    server.loop.pass_time(10)
    assert (transport.status, transport.closed) == (408, True)


async def test_a_body_may_take_its_time(server: BoundedServer) -> None:
    connection, transport = server.connect()
    connection.data_received(POST)
    server.loop.pass_time(1000)
    assert not transport.closed


async def test_the_next_head_of_a_connection_has_its_own_time(server: BoundedServer) -> None:
    connection, transport = server.connect()
    connection.data_received(GET)
    await server.answer_all()
    server.loop.pass_time(4)
    connection.data_received(b"GET /")
    server.loop.pass_time(9)
    assert not transport.closed
    server.loop.pass_time(1)
    assert transport.closed


async def test_a_body_goes_on_for_a_while_after_the_answer(server: BoundedServer) -> None:
    connection, transport = server.connect()
    connection.data_received(POST + b"1\r\na\r\n")
    await server.answer_all()
    server.loop.pass_time(9)
    connection.data_received(b"1\r\na\r\n")
    assert not transport.closed
    server.loop.pass_time(1)
    assert transport.closed


async def test_a_body_that_ends_after_the_answer_keeps_the_connection(server: BoundedServer) -> None:
    connection, transport = server.connect()
    connection.data_received(POST + b"1\r\na\r\n")
    await server.answer_all()
    connection.data_received(b"0\r\n\r\n")
    server.loop.pass_time(4)
    connection.data_received(GET)
    await server.answer_all()
    assert (len(server.application.scopes), transport.closed) == (2, False)


async def test_requests_sent_ahead_are_few(server: BoundedServer) -> None:
    connection, transport = server.connect()
    connection.data_received(GET * 4)
    assert (len(connection.pipeline), transport.closed) == (3, False)
    connection.data_received(GET)
    assert (transport.status, transport.closed) == (429, True)


async def test_requests_sent_ahead_are_answered_in_turn(server: BoundedServer) -> None:
    connection, transport = server.connect()
    connection.data_received(GET * 3)
    await server.answer_all()
    assert (transport.written.count(b"200 OK"), transport.closed) == (3, False)


async def test_a_head_sent_ahead_waits_for_the_answer(server: BoundedServer) -> None:
    connection, transport = server.connect()
    connection.data_received(GET + b"GET /")
    server.loop.pass_time(30)
    assert not transport.closed


async def test_a_new_connection_takes_the_place_of_one_that_waits(server: BoundedServer) -> None:
    (_, first), (second, _), (third, newest) = server.connect(), server.connect(), server.connect()
    assert (first.closed, newest.closed) == (True, False)
    third.data_received(GET)
    second.data_received(GET)
    _, late = server.connect()
    assert late.status == 503
    await server.answer_all()
    _, later = server.connect()
    assert not later.closed


async def test_a_closed_connection_frees_its_place(server: BoundedServer) -> None:
    for _ in range(5):
        connection, transport = server.connect()
        connection.data_received(GET)
        connection.connection_lost(None)
        assert transport.status is None
    assert len(server.protocol.table) == 0


async def test_a_connection_that_was_reset_leaves_no_timer(server: BoundedServer) -> None:
    connection, _ = server.connect()
    connection.data_received(POST)
    await server.answer_all()
    connection.connection_lost(ConnectionResetError())
    assert all(timer.cancelled for timer in server.loop.timers)


async def test_there_are_no_websockets(server: BoundedServer) -> None:
    connection, _ = server.connect()
    connection.data_received(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await server.answer_all()
    assert [scope["type"] for scope in server.application.scopes] == ["http"]


def test_no_more_connections_than_files() -> None:
    protocol = bounded_protocol(ConnectionBounds(max_connections=1 << 40))
    assert 0 < protocol.table.max_connections < 1 << 40
