"""The outside world on one machine: a name service by script, connections by script, receivers on 127.0.0.1."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx

from pipeline.outbound.webhook_sender import EXCERPT_CHARACTERS, classify_status
from pipeline.ports import CallbackResponse, DeliveryVerdict, OutboxMessage


class ScriptedResolver:
    """A name service that answers as it is told.

    Args:
        answers: for each name, its successive answers; the last one stays.

    Attributes:
        asked: the names that were looked up, in order.
    """

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {name: list(script) for name, script in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The next answer for a name; ``OSError`` for one that is not in the script."""
        self.asked.append(host)
        if host not in self._answers:
            raise OSError(f"no such name: {host}")
        answers = self._answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


class ScriptedTransport(httpx.AsyncBaseTransport):
    """Connections that are answered by a function; what was sent is kept in ``requests``."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self._answer = answer
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Keeps the request and answers it."""
        self.requests.append(request)
        return self._answer(request)


class LoopbackTransport(httpx.AsyncBaseTransport):
    """Real connections that all end at 127.0.0.1, whatever address was asked for: a small public internet."""

    def __init__(self) -> None:
        self._sockets = httpx.AsyncHTTPTransport(
            trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends the request to the same port of this machine."""
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
        """Closes the connections."""
        await self._sockets.aclose()


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as it arrived; names of headers in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Behaviour = Callable[[ReceivedRequest, asyncio.StreamWriter], Awaitable[None]]
"""What a receiver does with a request. The connection is closed when it returns."""


def answers(status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Behaviour:
    """A receiver that answers properly."""

    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        lines = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
        writer.write(head(status, lines) + body)
        await writer.drain()

    return behave


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """Status line and headers of an HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass(slots=True)
class LocalReceiver:
    """A server on 127.0.0.1; ``behaviours`` maps a path to what happens there, and can be changed at any time.

    Attributes:
        requests: what arrived, in order.
        port: the port, once it runs.
    """

    behaviours: dict[str, Behaviour]
    requests: list[ReceivedRequest] = field(default_factory=list)
    port: int = 0

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        """The address of a path, under any host name."""
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads one request and does what is to be done with it; the other side may go away at any time."""
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
    """Runs a ``LocalReceiver`` on a port; 0 is any that is free."""
    receiver = LocalReceiver(dict(behaviours))
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not server.is_serving():  # it came in the moment of the end
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
        under_way = dict(connections)
        for connection, writer in under_way.items():
            connection.cancel()
            writer.transport.abort()  # here, because one that has not begun to be served never will be
        await asyncio.gather(*under_way, return_exceptions=True)
        await server.wait_closed()


async def _read_request(reader: asyncio.StreamReader) -> ReceivedRequest:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return ReceivedRequest(method, target, headers, body)


@dataclass(slots=True)
class FakeCallbackSender:
    """Receivers without a network: satisfies ``ports.CallbackSender``.

    Attributes:
        receivers: for each URL, the status and body it answers with, or ``None`` for a dead one.
        held: URLs that do not answer until their event is set.
        sent: what was posted, in order, as (message, body).
    """

    receivers: dict[str, tuple[int, str] | None] = field(default_factory=dict)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    sent: list[tuple[OutboxMessage, bytes]] = field(default_factory=list)

    async def send(self, message: OutboxMessage, body: bytes) -> CallbackResponse:
        """Answers as the receiver of that URL does."""
        self.sent.append((message, body))
        if message.url in self.held:
            await self.held[message.url].wait()
        answer = self.receivers.get(message.url)
        if answer is None:
            return CallbackResponse(DeliveryVerdict.RETRY, None, "No connection to the receiver.")
        status, text = answer
        return CallbackResponse(classify_status(status), status, text[:EXCERPT_CHARACTERS])
