"""The guarded HTTP client: redirects, deadlines and sizes on top of the guarded transport."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import httpx

from pipeline.errors import ConfigurationError, SourceTooLarge, SourceUnreachable, UrlNotAllowed
from pipeline.net.address_guard import Destination, Guard, GuardedTransport, Resolver, SystemResolver
from pipeline.net.response_body import read_body, translate_network_errors
from pipeline.settings import NetworkSettings

MAX_REDIRECTS = 5

CONNECT_TIMEOUT_S = 5.0

READ_TIMEOUT_S = 15.0
"""Longest silence in the middle of an exchange; the deadline of the whole comes on top."""

USER_AGENT = "murmuration"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PRIVATE_HEADERS = frozenset({"authorization", "cookie"})
_TIMEOUT = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S).as_dict()


@dataclass(frozen=True, slots=True)
class StreamedResponse:
    """An answer whose body is still on its way.

    Attributes:
        status: HTTP status code.
        headers: case-insensitive.
        url: where it came from, after redirects.
        public: whether the host is on the public internet (and not merely allowed by the operator).
    """

    status: int
    headers: httpx.Headers
    url: str
    public: bool
    _body: AsyncIterator[bytes] = field(repr=False)

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """The body, decompressed, once. Raises ``SourceTooLarge``, ``SourceTimeout``, ``SourceUnreachable``."""
        return self._body


@dataclass(frozen=True, slots=True)
class WholeResponse:
    """An answer with its body; the other fields are those of ``StreamedResponse``."""

    status: int
    headers: httpx.Headers
    url: str
    public: bool
    body: bytes


class GuardedClient:
    """HTTP to addresses that clients hand in.

    With ``settings.proxy`` a host is still resolved and judged here first. The proxy, which is the operator's own, is
    then given the name, because proxies filter and route by name.

    Args:
        settings: which private hosts are allowed, and the proxy.
        resolver: turns names into addresses.
        ssl_context: whom TLS trusts; the authorities of ``settings.ca_file`` or ``certifi``'s unless given.
        connects: opens the connections; see ``GuardedTransport``.

    Raises:
        ConfigurationError: an entry of ``allow_private_hosts``, or the proxy, makes no sense.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        resolver: Resolver | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        connects: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._guard = Guard(
            settings.allow_private_hosts,
            resolver or SystemResolver(),
            proxy_resolves=settings.proxy is not None and settings.proxy_resolves,
        )
        self._transport = GuardedTransport(
            self._guard,
            connects or _connecting_transport(settings.proxy, ssl_context or tls_context(settings.ca_file)),
            by_name=settings.proxy is not None,
        )

    async def aclose(self) -> None:
        """Closes what is open."""
        await self._transport.aclose()

    async def check(self, url: str, field: str = "", timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """Says early whether a URL could be requested: when a client hands it in.

        Args:
            url: what the client wrote.
            field: the name of the client's field, for the error.
            timeout_s: longest wait for the name service.

        Raises:
            UrlNotAllowed: it may not.
            SourceUnreachable: its host does not resolve now.
            SourceTimeout: the name service takes too long.
        """
        try:
            target = _parse_url(url)
            with translate_network_errors(target.host):
                async with asyncio.timeout(timeout_s):
                    await self._guard.admit(target)
        except UrlNotAllowed as error:
            raise UrlNotAllowed(error.message, field) from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        max_bytes: int,
        deadline_s: float,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        max_redirects: int = 0,
    ) -> AsyncGenerator[StreamedResponse, None]:
        """Sends a request and gives its answer as soon as the headers are there.

        Args:
            method: ``GET``, ``POST`` …
            url: an absolute http or https URL.
            max_bytes: largest body; more than that, also after decompression, raises while it is read.
            deadline_s: time for everything, the body included, in seconds.
            headers: in addition to ours.
            content: the body to send.
            max_redirects: how many are followed; 0 gives a redirect back as it is.

        Raises:
            UrlNotAllowed: the URL, or one it redirects to, may not be requested.
            SourceUnreachable, SourceTimeout: no answer.
        """
        deadline = asyncio.get_running_loop().time() + deadline_s
        ours = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        hop = _Hop(method, _parse_url(url), ours | dict(headers or {}), content)
        response, hop = await self._open(hop, deadline, max_redirects)
        destination: Destination = response.extensions["destination"]
        body = read_body(response, destination.host, max_bytes, deadline)
        async with aclosing(response), aclosing(body):
            yield StreamedResponse(response.status_code, response.headers, str(hop.url), destination.public, body)

    async def request(
        self,
        method: str,
        url: str,
        *,
        max_bytes: int,
        deadline_s: float,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        max_redirects: int = 0,
    ) -> WholeResponse:
        """Sends a request and reads all of the answer; arguments and errors as those of ``stream``."""
        async with self.stream(
            method,
            url,
            max_bytes=max_bytes,
            deadline_s=deadline_s,
            headers=headers,
            content=content,
            max_redirects=max_redirects,
        ) as answer:
            body = b"".join([block async for block in answer.aiter_bytes()])
            return WholeResponse(answer.status, answer.headers, answer.url, answer.public, body)

    @asynccontextmanager
    async def stream_download(
        self, url: str, max_bytes: int, deadline_s: float
    ) -> AsyncGenerator[StreamedResponse, None]:
        """Fetches a file, following redirects; the answer is a 2xx.

        Raises:
            UrlNotAllowed: the URL, or one it redirects to, may not be requested.
            SourceTooLarge: it announces or sends more than ``max_bytes``.
            SourceUnreachable, SourceTimeout: no answer, or one that is not the file.
        """
        async with self.stream(
            "GET", url, max_bytes=max_bytes, deadline_s=deadline_s, max_redirects=MAX_REDIRECTS
        ) as answer:
            host = httpx.URL(answer.url).host
            if not 200 <= answer.status < 300:
                raise SourceUnreachable(f"{host} answered {answer.status}.")
            announced = int(answer.headers.get("content-length", "0"))
            if announced > max_bytes:
                raise SourceTooLarge(f"{host} sends {announced} bytes; at most {max_bytes} are taken.")
            yield answer

    async def _open(self, hop: _Hop, deadline: float, max_redirects: int) -> tuple[httpx.Response, _Hop]:
        for _ in range(max_redirects + 1):
            response = await self._send(hop, deadline)
            location = response.headers.get("location")
            if not max_redirects or response.status_code not in _REDIRECTS or location is None:
                return response, hop
            await response.aclose()
            hop = hop.redirected(response.status_code, location)
        raise SourceUnreachable(f"{hop.url.host} was reached by more than {max_redirects} redirects.")

    async def _send(self, hop: _Hop, deadline: float) -> httpx.Response:
        request = httpx.Request(
            hop.method, hop.url, headers=hop.headers, content=hop.content, extensions={"timeout": _TIMEOUT}
        )
        with translate_network_errors(hop.url.host):
            async with asyncio.timeout_at(deadline):
                return await self._transport.handle_async_request(request)


@dataclass(frozen=True, slots=True)
class _Hop:
    """One request of a chain of redirects."""

    method: str
    url: httpx.URL
    headers: dict[str, str]
    content: bytes

    def redirected(self, status: int, location: str) -> _Hop:
        """The request that follows (RFC 9110, §15.4): to another origin without credentials, as GET without a body."""
        try:
            url = self.url.join(location)
        except httpx.InvalidURL as error:
            raise SourceUnreachable(f"{self.url.host} redirects to what is not an address.") from error
        hop = replace(self, url=url)
        if _origin(url) != _origin(self.url):
            hop = replace(hop, headers=_drop_headers(hop.headers, _PRIVATE_HEADERS))
        if (status == 303 and self.method != "HEAD") or (status in (301, 302) and self.method == "POST"):
            hop = replace(
                hop, method="GET", content=b"", headers=_drop_headers(hop.headers, frozenset({"content-type"}))
            )
        return hop


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _drop_headers(headers: dict[str, str], names: frozenset[str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in names}


def _parse_url(url: str) -> httpx.URL:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UrlNotAllowed("That is not an address.") from error


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Whom TLS trusts: the authorities of a PEM file, or ``certifi``'s; the process's environment has no say.

    Raises:
        ConfigurationError: the file can't be read, or holds no certificates.
    """
    if ca_file is None:
        return _public_authorities()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one too
        raise ConfigurationError("network.ca_file can't be read as a PEM file of certificates.") from error


def _connecting_transport(proxy: str | None, ssl_context: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    if proxy is not None and not proxy.startswith(("http://", "https://")):
        raise ConfigurationError("network.proxy must be an http:// or https:// address.")
    return httpx.AsyncHTTPTransport(
        verify=ssl_context,
        trust_env=False,
        proxy=proxy,
        # No connection outlives its request; see GuardedTransport.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
    )


@cache
def _public_authorities() -> ssl.SSLContext:
    """Trusts ``certifi``'s authorities. One for all clients of a process: reading them takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)
