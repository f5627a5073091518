"""A network on one machine: scripted name lookups, scripted connections, and receivers on 127.0.0.1."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
from typing_extensions import override

from pipeline.outbound.webhook_sender import EXCERPT_CHARACTERS, classify_status
from pipeline.ports import CallbackResponse, CallbackSender, DeliveryVerdict, OutboxMessage


class ScriptedResolver:
    """A resolver with prescribed answers.

    Args:
        answers: successive answers for each name; the last one stays.

    Attributes:
        lookups: names that were looked up, in order.
    """

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {name: list(script) for name, script in answers.items()}
        self.lookups: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the next addresses of a name; raise ``OSError`` for a name without answers."""
        self.lookups.append(host)
        if host not in self._answers:
            raise OSError(f"no such name: {host}")
        answers = self._answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


class ScriptedTransport(httpx.AsyncBaseTransport):
    """A transport whose responses come from a function. Requests are kept in ``requests``."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self._answer = answer
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Record the request and return its response."""
        self.requests.append(request)
        return self._answer(request)


class LoopbackTransport(httpx.AsyncBaseTransport):
    """A transport that connects to 127.0.0.1 in place of every other address, so that any host name can be used."""

    def __init__(self) -> None:
        self._sockets = httpx.AsyncHTTPTransport(
            trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to the same TCP port of this machine."""
        return await self._sockets.handle_async_request(
            httpx.Request(
                request.method,
                request.url.copy_with(host="127.0.0.1"),
                headers=request.headers,
                stream=request.stream,
                extensions=request.extensions,
            )
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sockets.aclose()


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request that a receiver got; names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Behaviour = Callable[[ReceivedRequest, asyncio.StreamWriter], Awaitable[None]]
"""Reaction of a receiver to a request. The connection is closed when it returns."""


def answers(status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Behaviour:
    """Return a behaviour that sends a complete response."""

    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        lines = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
        writer.write(head(status, lines) + body)
        await writer.drain()

    return behave


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return the status line and headers of an HTTP/1.1 response."""
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass(slots=True)
class LocalReceiver:
    """A server on 127.0.0.1 with a behaviour for each path.

    Attributes:
        behaviours: behaviours by path; they can be changed at any time.
        requests: all requests, in order.
        port: TCP port of the running server.
    """

    behaviours: dict[str, Behaviour]
    requests: list[ReceivedRequest] = field(default_factory=list)
    port: int = 0

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        """Return the URL of a path, under any host name."""
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and run the behaviour of its path. The client may disconnect at any time."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                request = await _read_request(reader)
                self.requests.append(request)
                await self.behaviours[request.target.partition("?")[0]](request, writer)
        finally:
            writer.close()


@asynccontextmanager
async def local_receiver(
    behaviours: Mapping[str, Behaviour], ssl_context: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[LocalReceiver]:
    """Run a ``LocalReceiver`` on a TCP port; 0 selects a free one."""
    receiver = LocalReceiver(dict(behaviours))
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not server.is_serving():  # accepted while the server was closing
            writer.transport.abort()
            return
        connection = asyncio.create_task(receiver.serve(reader, writer))
        connections[connection] = writer
        connection.add_done_callback(connections.pop)

    server = await asyncio.start_server(accept, "127.0.0.1", port, ssl=ssl_context)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        open_connections = dict(connections)
        for connection, writer in open_connections.items():
            connection.cancel()
            writer.transport.abort()  # here, since a task cancelled before its start never runs its ``finally``
        await asyncio.gather(*open_connections, return_exceptions=True)
        await server.wait_closed()


async def _read_request(reader: asyncio.StreamReader) -> ReceivedRequest:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return ReceivedRequest(method, target, headers, body)


@dataclass(slots=True)
class FakeCallbackSender(CallbackSender):
    """A ``CallbackSender`` without a network.

    Attributes:
        receivers: status and body of each URL's response, or ``None`` for a receiver that can't be reached.
        held: events by URL; a receiver responds once its event is set.
        sent: all callbacks, in order, as (message, body).
    """

    receivers: dict[str, tuple[int, str] | None] = field(default_factory=dict)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    sent: list[tuple[OutboxMessage, bytes]] = field(default_factory=list)

    @override
    async def send(self, message: OutboxMessage, body: bytes) -> CallbackResponse:
        """Respond as the receiver of that URL does."""
        self.sent.append((message, body))
        if message.url in self.held:
            await self.held[message.url].wait()
        response = self.receivers.get(message.url)
        if response is None:
            return CallbackResponse(DeliveryVerdict.RETRY, None, "No connection to the receiver.")
        status, text = response
        return CallbackResponse(classify_status(status), status, text[:EXCERPT_CHARACTERS])
