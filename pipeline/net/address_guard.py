"""Where requests may go: resolving, judging, and connecting to what was judged."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from pipeline.domain.links.public_addresses import Address, Network, is_public, within
from pipeline.errors import ConfigurationError, SourceUnreachable, UrlNotAllowed

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Turns a host name and a port into addresses. Raises ``OSError`` or ``UnicodeError`` for a name that has none."""

RESOLVER_THREADS = 128
"""Twice as many as recordings are fetched at once: names that a slow server answers for must leave some to others, and
a thread stays busy until the system gives the name up, however soon its caller did. An idle one costs nothing."""

MAX_ADDRESSES = 4
"""Addresses of one host that are tried before it counts as unreachable."""

_HOST = re.compile(r"[a-z0-9._:-]{1,253}")
_HOST_NAME = re.compile(r"[a-z0-9._-]{1,253}")


class SystemResolver:
    """Asks the operating system, on threads of its own: slow names must not use up those of the event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses of a host, in the system's order of preference."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


@dataclass(frozen=True, slots=True)
class Destination:
    """A host that may be connected to: the addresses that were judged, and whether all of them are public."""

    host: str
    addresses: tuple[Address, ...]
    public: bool


class Guard:
    """Decides where requests may go.

    Args:
        allow_private_hosts: names, addresses and networks that are admitted although they are not public.
        resolver: turns names into addresses.
        proxy_resolves: names are looked up, and so judged, by the operator's proxy. Addresses, and names that can only
            mean this machine or network, are judged here all the same.

    Raises:
        ConfigurationError: an entry is none of these.
    """

    def __init__(self, allow_private_hosts: Sequence[str], resolver: Resolver, *, proxy_resolves: bool = False) -> None:
        entries = [_allowed_entry(entry) for entry in allow_private_hosts]
        self._names = frozenset(entry for entry in entries if isinstance(entry, str))
        self._networks = tuple(entry for entry in entries if not isinstance(entry, str))
        self._resolver = resolver
        self._proxy_resolves = proxy_resolves

    async def admit(self, url: httpx.URL) -> Destination:
        """Resolves a URL's host and judges every address.

        Raises:
            UrlNotAllowed: the URL or one of its host's addresses is refused. The sentence names the host and nothing
                that was found out about it.
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
            found = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise SourceUnreachable(f"The host {host} can't be found.") from error
        if not found:
            raise SourceUnreachable(f"The host {host} can't be found.")
        return tuple(ipaddress.ip_address(text) for text in found)


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends a request to an admitted address of its host; the response's extensions hold the ``destination``.

    Args:
        guard: decides.
        connects: the transport that opens connections. It must not keep them: a pool knows them by address, and would
            give one name's connection to another name at the same address.
        by_name: leave the name in the request, for a proxy that looks it up itself.
    """

    def __init__(self, guard: Guard, connects: httpx.AsyncBaseTransport, *, by_name: bool = False) -> None:
        self._guard = guard
        self._connects = connects
        self._by_name = by_name

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Judges, connects, sends. Raises as ``Guard.admit`` does, and ``httpx.TransportError``."""
        destination = await self._guard.admit(request.url)
        response = await self._send(request, destination)
        response.extensions["destination"] = destination
        return response

    async def aclose(self) -> None:
        """Closes the transport beneath."""
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
    """The same request to an address; ``Host`` came with the headers, SNI and the certificate check go by the name."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions=request.extensions | {"sni_hostname": host},
    )


def _checked_host(url: httpx.URL) -> str:
    if url.scheme not in ("http", "https"):
        raise UrlNotAllowed("Only http:// and https:// addresses are taken.")
    if url.userinfo:
        raise UrlNotAllowed("An address with a user name or password in it is not taken.")
    host = url.raw_host.decode("ascii").lower().rstrip(".")
    if not host:
        raise UrlNotAllowed("The address names no host.")
    if not _HOST.fullmatch(host) or (url.port is not None and not 0 < url.port < 65_536):
        raise UrlNotAllowed("The address has a host or port that can't be.")
    return host


def _is_local_name(host: str) -> bool:
    """Names of this machine and of networks without a domain (RFC 6761, §6.3; RFC 6762; ICANN's ``.internal``)."""
    return "." not in host or host.endswith((".localhost", ".local", ".internal", ".home.arpa"))


def _not_public_error(host: str) -> UrlNotAllowed:
    return UrlNotAllowed(
        f"{host} is not a public address. The operator can allow it under network.allow_private_hosts."
    )


def _default_port(url: httpx.URL) -> int:
    return 443 if url.scheme == "https" else 80


def _parse_literal(host: str) -> Address | None:
    """The address a host is written as, in the short, decimal, octal and hex forms too that the system takes."""
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
