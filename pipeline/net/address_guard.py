"""Resolves hosts, checks that their addresses are public, and connects to checked addresses."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
from typing_extensions import override

from pipeline.domain.links.public_addresses import Address, Network, is_public, within
from pipeline.errors import ConfigurationError, SourceUnreachable, UrlNotAllowed

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Resolves a host name and TCP port to addresses. Raises ``OSError`` or ``UnicodeError`` for a name without any."""

RESOLVER_THREADS = 128
"""Twice the number of recordings that are fetched at once, so that slow name servers leave threads to other names. A
thread stays busy until the operating system gives up, even if its caller gave up before. An idle thread is free."""

MAX_ADDRESSES = 4
"""Most addresses of one host that are tried before it counts as unreachable."""

_HOST = re.compile(r"[a-z0-9._:-]{1,253}")
_HOST_NAME = re.compile(r"[a-z0-9._-]{1,253}")


class SystemResolver:
    """The operating system's resolver, on its own threads, so that slow names do not occupy those of the event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")

    async def __call__(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host, in the system's order of preference."""
        addresses = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in addresses))


@dataclass(frozen=True, slots=True)
class Destination:
    """A host that may be connected to: its checked addresses, and whether all of them are public.

    Attributes:
        host: the name, or an address as text.
        addresses: empty if the operator's proxy resolves the name.
        public: whether all addresses are public; ``False`` if the operator's proxy resolves the name.
    """

    host: str
    addresses: tuple[Address, ...]
    public: bool


class Guard:
    """The guard: the check that a request goes to a public address.

    Args:
        allow_private_hosts: names, addresses and networks that are admitted although they are not public.
        resolver: resolves names to addresses.
        proxy_resolves: whether the operator's proxy resolves names, and so must check them. Addresses, and names that
            can only mean this machine or network, are checked here in any case.

    Raises:
        ConfigurationError: an entry is neither a name nor an address nor a network.
    """

    def __init__(self, allow_private_hosts: Sequence[str], resolver: Resolver, *, proxy_resolves: bool = False) -> None:
        entries = [_allowed_entry(entry) for entry in allow_private_hosts]
        self._names = frozenset(entry for entry in entries if isinstance(entry, str))
        self._networks = tuple(entry for entry in entries if not isinstance(entry, str))
        self._resolver = resolver
        self._proxy_resolves = proxy_resolves

    async def admit(self, url: httpx.URL) -> Destination:
        """Resolve a URL's host and check all its addresses.

        Raises:
            UrlNotAllowed: the URL or one of its host's addresses is refused. The sentence names the host only, not
                its addresses.
            SourceUnreachable: the name does not resolve.
        """
        host = _checked_host(url)
        literal = _parse_literal(host)
        if literal is None and self._proxy_resolves:
            return self._is_resolved_by_proxy(host)
        addresses = (literal,) if literal else await self._resolve(host, url.port or _default_port(url))
        public = all(is_public(address) for address in addresses)
        if not (public or host in self._names or all(self._admits(address) for address in addresses)):
            raise _not_public_error(host)
        return Destination(host, addresses, public)

    def _is_resolved_by_proxy(self, host: str) -> Destination:
        if _is_local_name(host) and host not in self._names:
            raise _not_public_error(host)
        return Destination(host, (), public=False)

    def _admits(self, address: Address) -> bool:
        return is_public(address) or within(address, self._networks)

    async def _resolve(self, host: str, port: int) -> tuple[Address, ...]:
        try:
            addresses = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise _not_found_error(host) from error
        if not addresses:
            raise _not_found_error(host)
        return tuple(ipaddress.ip_address(text) for text in addresses)


class GuardedTransport(httpx.AsyncBaseTransport):
    """A transport that sends a request to an admitted address; the response's extensions hold the ``destination``.

    Args:
        guard: checks the request's host.
        connects: the transport that opens connections. It must not keep them: a pool knows them by address, and would
            use the connection of one name for another name at the same address.
        by_name: whether to leave the name in the request, for a proxy that resolves it.
    """

    def __init__(self, guard: Guard, connects: httpx.AsyncBaseTransport, *, by_name: bool = False) -> None:
        self._guard = guard
        self._connects = connects
        self._by_name = by_name

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Check the host, connect and send. Raises as ``Guard.admit`` does, and ``httpx.TransportError``."""
        destination = await self._guard.admit(request.url)
        response = await self._send(request, destination)
        response.extensions["destination"] = destination
        return response

    @override
    async def aclose(self) -> None:
        """Close the transport that opens connections."""
        await self._connects.aclose()

    async def _send(self, request: httpx.Request, destination: Destination) -> httpx.Response:
        if self._by_name:
            return await self._connects.handle_async_request(request)
        *first, last = destination.addresses[:MAX_ADDRESSES]
        for address in first:
            try:
                return await self._connects.handle_async_request(_with_address(request, destination.host, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # nothing was sent yet, and the host has further addresses
        return await self._connects.handle_async_request(_with_address(request, destination.host, last))


def _with_address(request: httpx.Request, host: str, address: Address) -> httpx.Request:
    """Return the request with an address in its URL.

    The headers hold ``Host`` already; SNI and the certificate check use the name.
    """
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions=request.extensions | {"sni_hostname": host},
    )


def _checked_host(url: httpx.URL) -> str:
    if url.scheme not in ("http", "https"):
        raise UrlNotAllowed("Only http:// and https:// addresses are accepted.")
    if url.userinfo:
        raise UrlNotAllowed("An address with a user name or password is not accepted.")
    host = url.raw_host.decode("ascii").lower().rstrip(".")
    if not host:
        raise UrlNotAllowed("The address names no host.")
    if not _HOST.fullmatch(host) or (url.port is not None and not 0 < url.port < 65_536):
        raise UrlNotAllowed("The address has an invalid host or port.")
    return host


def _is_local_name(host: str) -> bool:
    """Return whether a name is of this machine or a network without a domain.

    Sources: RFC 6761, §6.3; RFC 6762; RFC 8375; ICANN's ``.internal``.
    """
    return "." not in host or host.endswith((".localhost", ".local", ".internal", ".home.arpa"))


def _not_public_error(host: str) -> UrlNotAllowed:
    return UrlNotAllowed(
        f"{host} is not a public address. The operator can allow it under network.allow_private_hosts."
    )


def _not_found_error(host: str) -> SourceUnreachable:
    return SourceUnreachable(f"The host {host} can't be found.")


def _default_port(url: httpx.URL) -> int:
    return 443 if url.scheme == "https" else 80


def _parse_literal(host: str) -> Address | None:
    """Return the address that a host is written as, or ``None`` for a name.

    The short, decimal, octal and hexadecimal forms count too, because the operating system accepts them.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass  # a name, or an IPv4 address in another notation
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _allowed_entry(entry: str) -> str | Network:
    name = entry.strip().lower().rstrip(".")
    try:
        return ipaddress.ip_network(name, strict=False)
    except ValueError as error:
        if not _HOST_NAME.fullmatch(name):
            raise ConfigurationError(
                f"network.allow_private_hosts: {entry!r} is neither a host name nor an address nor a network."
            ) from error
        return name
