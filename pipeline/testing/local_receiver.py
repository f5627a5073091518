"""HTTP receivers on 127.0.0.1, with a behaviour for each path."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


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
