"""Opens raw connections to hosts that the guard admits, for code that does not use the guarded HTTP client."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from dataclasses import dataclass
from typing import Self

import httpx

from pipeline.errors import ConfigurationError, SourceUnreachable
from pipeline.net.address_guard import MAX_ADDRESSES, Guard, Resolver, SystemResolver
from pipeline.net.guarded_client import CONNECT_TIMEOUT_S
from pipeline.net.response_body import translate_network_errors
from pipeline.net.tls import tls_context
from pipeline.settings import NetworkSettings

MAX_HEAD_BYTES = 64 * 1024

_OK = re.compile(rb"HTTP/1\.[01] 2\d\d\b")


@dataclass(frozen=True, slots=True)
class DialedConnection:
    """An open connection.

    Attributes:
        through_proxy: whether the other end is the operator's HTTP proxy instead of the host.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    through_proxy: bool = False

    def abort(self) -> None:
        """Close the connection at once, without sending what is still buffered."""
        self.writer.transport.abort()


class Dialer:
    """A dialer that connects to hosts that the guard admits, directly or through the operator's proxy.

    Args:
        settings: the allowed private hosts, and the operator's proxy.
        resolver: resolves names to addresses.
        ssl_context: authorities that the connection to an ``https://`` proxy trusts.

    Raises:
        ConfigurationError: the proxy is not an http or https address.
    """

    def __init__(
        self, settings: NetworkSettings, resolver: Resolver | None = None, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._proxy = _OperatorProxy.parse(settings.proxy) if settings.proxy else None
        self._guard = Guard(
            settings.allow_private_hosts,
            resolver or SystemResolver(),
            proxy_resolves=settings.proxy is not None and settings.proxy_resolves,
        )
        self._ssl_context = ssl_context
        self._ca_file = settings.ca_file

    @property
    def proxy_authorization(self) -> bytes:
        """The ``Proxy-Authorization`` header line for the operator's proxy, or empty."""
        return self._proxy.authorization if self._proxy else b""

    async def tunnel(self, url: httpx.URL) -> DialedConnection:
        """Connect to the URL's host, through a tunnel if there is an operator's proxy.

        Raises:
            UrlNotAllowed: the guard refuses the host.
            SourceUnreachable, SourceTimeout: the host or the proxy does not answer.
        """
        connection = await self.connect(url)
        if not connection.through_proxy:
            return connection
        try:
            await self._open_tunnel(connection, url)
        except BaseException:
            connection.abort()
            raise
        return DialedConnection(connection.reader, connection.writer)

    async def connect(self, url: httpx.URL) -> DialedConnection:
        """Connect to the URL's host or, without opening a tunnel, to the operator's proxy.

        Raises: as ``tunnel``.
        """
        with translate_network_errors(url.host):
            async with asyncio.timeout(CONNECT_TIMEOUT_S * (1 + MAX_ADDRESSES)):
                destination = await self._guard.admit(url)
                if self._proxy:
                    return await self._to_proxy(self._proxy)
                addresses = [str(address) for address in destination.addresses[:MAX_ADDRESSES]]
                return await _connect_first(addresses, url.port or (443 if url.scheme == "https" else 80))

    async def _to_proxy(self, proxy: _OperatorProxy) -> DialedConnection:
        context = (self._ssl_context or tls_context(self._ca_file)) if proxy.tls else None
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port, ssl=context)
        return DialedConnection(reader, writer, through_proxy=True)

    async def _open_tunnel(self, connection: DialedConnection, url: httpx.URL) -> None:
        host = f"[{url.host}]" if ":" in url.host else url.host
        target = f"{host}:{url.port or 443}".encode("idna" if not host.isascii() else "ascii")
        with translate_network_errors(url.host):
            async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
                connection.writer.write(
                    b"CONNECT "
                    + target
                    + b" HTTP/1.1\r\nHost: "
                    + target
                    + b"\r\n"
                    + self.proxy_authorization
                    + b"\r\n"
                )
                head = await read_head(connection.reader)
        if not _OK.match(head):
            raise SourceUnreachable(f"The outbound proxy refuses to connect to {url.host}.")


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """Read the head of an HTTP/1 message, including its empty line.

    Raises:
        ValueError: the head is longer than ``MAX_HEAD_BYTES``.
        ConnectionError: the connection ended within the head.
    """
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("the connection ended within the head of a message") from error
    except asyncio.LimitOverrunError as error:
        raise ValueError("the head of a message is too long") from error


async def _connect_first(addresses: list[str], port: int) -> DialedConnection:
    *first, last = addresses
    for address in first:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return DialedConnection(*await asyncio.open_connection(address, port, limit=MAX_HEAD_BYTES))
        except (OSError, TimeoutError):
            continue  # the host has further addresses
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        return DialedConnection(*await asyncio.open_connection(last, port, limit=MAX_HEAD_BYTES))


@dataclass(frozen=True, slots=True)
class _OperatorProxy:
    """The address of the operator's proxy, and the header line with its credentials."""

    host: str
    port: int
    tls: bool
    authorization: bytes

    @classmethod
    def parse(cls, address: str) -> Self:
        """Parse ``http://user:password@host:port``. Raises ``ConfigurationError``."""
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL as error:
            raise ConfigurationError("network.proxy must be an http:// or https:// address.") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigurationError("network.proxy must be an http:// or https:// address.")
        authorization = b""
        if url.userinfo:
            credentials = f"{url.username}:{url.password}".encode()
            authorization = b"Proxy-Authorization: Basic " + base64.b64encode(credentials) + b"\r\n"
        tls = url.scheme == "https"
        return cls(url.host, url.port or (443 if tls else 80), tls, authorization)
