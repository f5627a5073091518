"""Sends HTTP requests through the guarded transport, with limits on redirects, time and size."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx

from pipeline.errors import ConfigurationError, SourceTooLarge, SourceUnreachable, UrlNotAllowed
from pipeline.net.address_guard import Destination, Guard, GuardedTransport, Resolver, SystemResolver
from pipeline.net.response_body import read_body, translate_network_errors
from pipeline.net.tls import tls_context
from pipeline.settings import NetworkSettings

MAX_REDIRECTS = 5

CONNECT_TIMEOUT_S = 5.0

READ_TIMEOUT_S = 15.0
"""Longest pause within an exchange; the deadline of the whole request applies in addition."""

USER_AGENT = "murmuration"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PRIVATE_HEADERS = frozenset({"authorization", "cookie"})
_TIMEOUT = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S).as_dict()


@dataclass(frozen=True, slots=True)
class StreamedResponse:
    """A response whose body is not read yet.

    Attributes:
        status: HTTP status code.
        headers: case-insensitive.
        url: the address that sent it, after redirects.
        public: whether the host is on the public internet (and not merely allowed by the operator).
    """

    status: int
    headers: httpx.Headers
    url: str
    public: bool
    _body: AsyncIterator[bytes] = field(repr=False)

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Return an iterator over the decompressed body, which can be read once.

        Reading raises ``SourceTooLarge``, ``SourceTimeout`` or ``SourceUnreachable``.
        """
        return self._body


@dataclass(frozen=True, slots=True)
class WholeResponse:
    """A response with its body; the other fields are those of ``StreamedResponse``."""

    status: int
    headers: httpx.Headers
    url: str
    public: bool
    body: bytes


class GuardedClient:
    """An HTTP client for addresses that clients of the service name.

    With ``settings.proxy`` a host is still resolved and checked here first, unless ``settings.proxy_resolves`` is set.
    The operator's proxy then gets the name, because proxies filter and route by name.

    Args:
        settings: the allowed private hosts, and the operator's proxy.
        resolver: resolves names to addresses.
        ssl_context: authorities that TLS trusts; by default those of ``settings.ca_file`` or ``certifi``'s.
        connects: opens the connections (``GuardedTransport``).

    Raises:
        ConfigurationError: an entry of ``allow_private_hosts``, or the proxy's address, is invalid.
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
        """Close the transport."""
        await self._transport.aclose()

    async def check(self, url: str, field: str = "", timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """Check whether a URL may be requested, as soon as a client names it.

        Args:
            url: the URL as the client wrote it.
            field: the name of the client's field, for the error.
            timeout_s: longest wait for the name service.

        Raises:
            UrlNotAllowed: the URL may not be requested.
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
        """Send a request and return its response as soon as its headers have arrived.

        Args:
            method: ``GET``, ``POST`` …
            url: an absolute http or https URL.
            max_bytes: largest body, both as sent and decompressed; reading more raises ``SourceTooLarge``.
            deadline_s: seconds for the whole exchange, including the body.
            headers: headers in addition to the default ones, or instead of them.
            content: the body to send.
            max_redirects: most redirects to follow; 0 returns a redirect as it is.

        Raises:
            UrlNotAllowed: the URL, or one it redirects to, may not be requested.
            SourceUnreachable, SourceTimeout: the host did not answer.
        """
        deadline = asyncio.get_running_loop().time() + deadline_s
        ours = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        hop = _RedirectHop(method, _parse_url(url), ours | dict(headers or {}), content)
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
        """Send a request and read the whole response. Arguments and errors are those of ``stream``."""
        async with self.stream(
            method,
            url,
            max_bytes=max_bytes,
            deadline_s=deadline_s,
            headers=headers,
            content=content,
            max_redirects=max_redirects,
        ) as response:
            body = b"".join([block async for block in response.aiter_bytes()])
            return WholeResponse(response.status, response.headers, response.url, response.public, body)

    @asynccontextmanager
    async def stream_download(
        self, url: str, max_bytes: int, deadline_s: float
    ) -> AsyncGenerator[StreamedResponse, None]:
        """Request a file, following redirects, and return its response, whose status is 2xx.

        Raises:
            UrlNotAllowed: the URL, or one it redirects to, may not be requested.
            SourceTooLarge: the host announces or sends more than ``max_bytes``.
            SourceUnreachable, SourceTimeout: the host did not answer, or with another status.
        """
        async with self.stream(
            "GET", url, max_bytes=max_bytes, deadline_s=deadline_s, max_redirects=MAX_REDIRECTS
        ) as response:
            host = httpx.URL(response.url).host
            if not 200 <= response.status < 300:
                raise SourceUnreachable(f"{host} answered {response.status}.")
            announced = int(response.headers.get("content-length", "0"))
            if announced > max_bytes:
                raise SourceTooLarge(f"{host} sends {announced} bytes; at most {max_bytes} are allowed.")
            yield response

    async def _open(
        self, hop: _RedirectHop, deadline: float, max_redirects: int
    ) -> tuple[httpx.Response, _RedirectHop]:
        for _ in range(max_redirects + 1):
            response = await self._send(hop, deadline)
            location = response.headers.get("location")
            if not max_redirects or response.status_code not in _REDIRECTS or location is None:
                return response, hop
            await response.aclose()
            hop = hop.redirected(response.status_code, location)
        raise SourceUnreachable(f"The address redirects more than {max_redirects} times, last to {hop.url.host}.")

    async def _send(self, hop: _RedirectHop, deadline: float) -> httpx.Response:
        request = httpx.Request(
            hop.method, hop.url, headers=hop.headers, content=hop.content, extensions={"timeout": _TIMEOUT}
        )
        with translate_network_errors(hop.url.host):
            async with asyncio.timeout_at(deadline):
                return await self._transport.handle_async_request(request)


@dataclass(frozen=True, slots=True)
class _RedirectHop:
    """One request in a chain of redirects."""

    method: str
    url: httpx.URL
    headers: dict[str, str]
    content: bytes

    def redirected(self, status: int, location: str) -> _RedirectHop:
        """Return the next request after a redirect (RFC 9110, §15.4).

        It has no credentials if it goes to another origin. After a 303, or a 301 or 302 for a POST, it is a GET
        without a body.
        """
        try:
            url = self.url.join(location)
        except httpx.InvalidURL as error:
            raise SourceUnreachable(f"{self.url.host} redirects to something that is not an address.") from error
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
        raise UrlNotAllowed("This is not a valid address.") from error


def _connecting_transport(proxy: str | None, ssl_context: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    if proxy is not None and not proxy.startswith(("http://", "https://")):
        raise ConfigurationError("network.proxy must be an http:// or https:// address.")
    return httpx.AsyncHTTPTransport(
        verify=ssl_context,
        trust_env=False,
        proxy=proxy,
        # GuardedTransport requires that no connection outlives its request.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
    )
