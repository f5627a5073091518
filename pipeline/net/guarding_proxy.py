"""Runs a forward proxy on this machine for one program that must not make connections itself.

The proxy resolves, checks and connects with the same guard as the HTTP client. A redirect, an address in a page or a
name whose addresses change can therefore lead the program only to hosts that the guard admits. The proxy accepts
``CONNECT`` and plain HTTP from programs that know its password, and counts the bytes that come back.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import secrets
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from pipeline.errors import MurmurationError, SourceError, UrlNotAllowed
from pipeline.net.dialer import MAX_HEAD_BYTES, DialedConnection, Dialer, read_head

IDLE_TIMEOUT_S = 60.0
BLOCK_BYTES = 64 * 1024
MAX_CONNECTIONS = 32
"""Most connections at the same time; further ones are closed at once."""

_HOP_BY_HOP = ("connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade")
"""Headers that apply to one connection only (RFC 9110, §7.6.1)."""

_TARGET = re.compile(r"\[?[A-Za-z0-9._:-]{1,255}\]?:[0-9]{1,5}")


@dataclass(slots=True)
class GuardingProxy:
    """A running proxy; made by ``guarding_proxy``.

    Attributes:
        max_bytes: most bytes that may come back in all; it may be raised while the proxy runs.
        port: TCP port on 127.0.0.1.
        received: bytes that came back.
        exhausted: whether more than ``max_bytes`` came back; connections are reset then.
        refusals: the errors of connections that were refused or failed, in order.
    """

    max_bytes: int
    _dialer: Dialer
    _password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    port: int = 0
    received: int = 0
    exhausted: bool = False
    refusals: list[MurmurationError] = field(default_factory=list)
    _servers: list[asyncio.Server] = field(default_factory=list)
    _connections: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)
    _closed: bool = False

    async def accept_from(self, listener: socket.socket) -> int:
        """Serve the connections of a listening socket, which the proxy owns from now on; return its TCP port."""
        server = await asyncio.start_server(self._accept, sock=listener, limit=MAX_HEAD_BYTES)
        self._servers.append(server)
        return int(listener.getsockname()[1])

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed or len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        connection = asyncio.create_task(self.serve(reader, writer))
        self._connections[connection] = writer
        connection.add_done_callback(self._connections.pop)

    async def aclose(self) -> None:
        """End the proxy and every connection."""
        self._closed = True
        for server in self._servers:
            server.close()
        open_connections = dict(self._connections)
        for connection, writer in open_connections.items():
            connection.cancel()
            writer.transport.abort()  # a task that has not started is cancelled before it could close its connection
        await asyncio.gather(*open_connections, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()

    @property
    def url(self) -> str:
        """The proxy's address for the program, with the password."""
        return f"http://crawl:{self._password}@127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request of the program, and the rest of its connection if it is a tunnel."""
        try:
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                request = _ProxyRequest.parse(await read_head(reader))
            if not self._is_authorized(request):
                _refuse(writer, 407, 'Proxy-Authenticate: Basic realm="crawl"\r\n')
            elif request.method == "CONNECT":
                await self._tunnel(request, reader, writer)
            else:
                await self._forward(request, reader, writer)
            await writer.drain()
        except (OSError, ValueError, TimeoutError):
            return  # one side closed the connection or does not speak HTTP: the program sees its connection end
        except httpx.InvalidURL:
            _refuse(writer, 400)
        finally:
            writer.close()

    def _is_authorized(self, request: _ProxyRequest) -> bool:
        expected = "Basic " + base64.b64encode(f"crawl:{self._password}".encode()).decode()
        return hmac.compare_digest(request.headers.get("proxy-authorization", "").encode(), expected.encode())

    async def _tunnel(self, request: _ProxyRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not _TARGET.fullmatch(request.target):
            _refuse(writer, 400)
            return
        try:
            connection = await self._dialer.tunnel(httpx.URL(f"https://{request.target}"))
        except (UrlNotAllowed, SourceError) as error:
            self._refuse_for(error, writer)
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self._splice(connection, reader, writer)

    async def _forward(
        self, request: _ProxyRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if not request.target.startswith("http://") or "transfer-encoding" in request.headers:
            _refuse(writer, 400)
            return
        url = httpx.URL(request.target)
        try:
            connection = await self._dialer.connect(url)
        except (UrlNotAllowed, SourceError) as error:
            self._refuse_for(error, writer)
            return
        try:
            head = request.for_proxy(self._dialer) if connection.through_proxy else request.for_host(url)
            connection.writer.write(head)
            if length := int(request.headers.get("content-length", "0")):
                await _copy_exactly(reader, connection.writer, length)
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                writer.write(_for_one_request(await read_head(connection.reader)))
            await self._copy_response(connection.reader, writer)
        finally:
            connection.abort()

    async def _splice(
        self, connection: DialedConnection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        there = asyncio.create_task(_copy(reader, connection.writer))
        back = asyncio.create_task(self._copy_response(connection.reader, writer))
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.abort()  # before the first await, which may be cancelled
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _copy_response(self, source: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await _read_block(source):
            self.received += len(block)
            if self.received > self.max_bytes:
                self.exhausted = True
                _reset(writer)
                return
            writer.write(block)
            await writer.drain()

    def _refuse_for(self, error: MurmurationError, writer: asyncio.StreamWriter) -> None:
        self.refusals.append(error)
        _refuse(writer, 403 if isinstance(error, UrlNotAllowed) else 502)


@asynccontextmanager
async def guarding_proxy(dialer: Dialer, max_bytes: int) -> AsyncIterator[GuardingProxy]:
    """Run a proxy on a free TCP port of 127.0.0.1. When the block ends, the proxy and all connections are closed.

    Args:
        dialer: makes the guarded connections.
        max_bytes: most bytes that may come back through the proxy.
    """
    proxy = GuardingProxy(max_bytes, dialer)
    proxy.port = await proxy.accept_from(socket.create_server(("127.0.0.1", 0)))
    try:
        yield proxy
    finally:
        await proxy.aclose()


@dataclass(frozen=True, slots=True)
class _ProxyRequest:
    """The head of a request, with names of headers in lower case."""

    method: str
    target: str
    headers: dict[str, str]

    @classmethod
    def parse(cls, head: bytes) -> _ProxyRequest:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return cls(method, target, {name: value for name, value in headers.items() if name})

    def for_host(self, url: httpx.URL) -> bytes:
        """Return the head in the form for the host (RFC 9112, §3.2.1)."""
        return self._head(url.raw_path.decode("ascii"), b"")

    def for_proxy(self, dialer: Dialer) -> bytes:
        """Return the head in the form for a proxy (RFC 9112, §3.2.2)."""
        return self._head(self.target, dialer.proxy_authorization)

    def _head(self, target: str, authorization: bytes) -> bytes:
        lines = [f"{name}: {value}" for name, value in self.headers.items() if name not in _HOP_BY_HOP]
        text = "\r\n".join([f"{self.method} {target} HTTP/1.1", *lines, "connection: close\r\n"])
        return text.encode("latin-1") + authorization + b"\r\n"


def _for_one_request(head: bytes) -> bytes:
    """Return a response's head that ends the connection, because the next request may be for another host."""
    first, *lines = head.rstrip(b"\r\n").split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].strip().lower().decode("latin-1") not in _HOP_BY_HOP]
    return b"\r\n".join([first, *kept, b"Connection: close", b"", b""])


def _refuse(writer: asyncio.StreamWriter, status: int, header: str = "") -> None:
    writer.write(f"HTTP/1.1 {status} Refused\r\n{header}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())


def _reset(writer: asyncio.StreamWriter) -> None:
    """Reset a connection, so that the other end does not mistake a truncated response for a complete one."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _read_block(source: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(IDLE_TIMEOUT_S):
        return await source.read(BLOCK_BYTES)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while block := await source.read(BLOCK_BYTES):
        target.write(block)
        await target.drain()


async def _copy_exactly(source: asyncio.StreamReader, target: asyncio.StreamWriter, length: int) -> None:
    while length > 0 and (block := await source.read(min(length, BLOCK_BYTES))):
        target.write(block)
        await target.drain()
        length -= len(block)
