"""Tests the guarding proxy from the program's side, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from pipeline.errors import ConfigurationError, SourceUnreachable, UrlNotAllowed
from pipeline.net import Dialer, GuardingProxy, guarding_proxy
from pipeline.net.guarding_proxy import MAX_CONNECTIONS
from pipeline.settings import NetworkSettings
from pipeline.testing.local_receiver import LocalReceiver, ReceivedRequest, answers, head, local_receiver
from pipeline.testing.scripted_network import ScriptedResolver

HOME = ["127.0.0.1"]
NAMES = {
    "a.example": [HOME],
    "b.example": [HOME],
    "inside.example": [["10.1.2.3"]],
    "turns.example": [HOME, ["10.1.2.3"]],
}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


@pytest.fixture
async def plain() -> AsyncIterator[LocalReceiver]:
    async with local_receiver({"/": answers(200, b"hello")}) as running:
        yield running


@pytest.fixture
async def secure(authority: trustme.CA) -> AsyncIterator[LocalReceiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("a.example").configure_cert(context)
    async with local_receiver({"/": answers(200, b"sealed")}, context) as running:
        yield running


def dialer(proxy: str | None = None, **settings: object) -> Dialer:
    values = {"allow_private_hosts": ("127.0.0.1",), "proxy": proxy} | settings
    return Dialer(NetworkSettings(**values), ScriptedResolver(NAMES))  # type: ignore[arg-type]


@asynccontextmanager
async def client_of(proxy: GuardingProxy, trust: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    """Return the HTTP client of a program that connects through the proxy only."""
    async with httpx.AsyncClient(proxy=proxy.url, verify=trust, trust_env=False) as client:
        yield client


async def test_plain_http_is_forwarded_as_its_host_expects_it(plain: LocalReceiver, trust: ssl.SSLContext) -> None:
    async with guarding_proxy(dialer(), 10_000) as proxy, client_of(proxy, trust) as client:
        answer = await client.post(plain.url("/", "a.example"), content=b"body", headers={"X-A": "1"})
    assert (answer.status_code, answer.content) == (200, b"hello")
    (request,) = plain.requests
    assert (request.method, request.target, request.body) == ("POST", "/", b"body")
    assert request.headers["host"] == f"a.example:{plain.port}"
    assert request.headers["x-a"] == "1"
    assert "proxy-authorization" not in request.headers


async def test_tls_goes_through_untouched(secure: LocalReceiver, trust: ssl.SSLContext) -> None:
    async with guarding_proxy(dialer(), 100_000) as proxy, client_of(proxy, trust) as client:
        answer = await client.get(secure.url("/", "a.example", "https"))
    assert answer.content == b"sealed"


@pytest.mark.parametrize("url", ["http://inside.example/", "http://10.0.0.1/", "http://169.254.169.254/"])
async def test_what_the_guard_refuses_is_not_connected_to(url: str, trust: ssl.SSLContext) -> None:
    async with guarding_proxy(dialer(), 10_000) as proxy, client_of(proxy, trust) as client:
        assert (await client.get(url)).status_code == 403
        with pytest.raises(httpx.ProxyError, match="403"):
            await client.get(url.replace("http:", "https:"))
    assert [type(refusal) for refusal in proxy.refusals] == [UrlNotAllowed, UrlNotAllowed]


async def test_a_name_that_changes_its_mind_is_judged_each_time(plain: LocalReceiver, trust: ssl.SSLContext) -> None:
    async with guarding_proxy(dialer(), 10_000) as proxy, client_of(proxy, trust) as client:
        assert (await client.get(plain.url("/", "turns.example"))).status_code == 200
        assert (await client.get(plain.url("/", "turns.example"))).status_code == 403
    assert len(plain.requests) == 1


async def test_each_host_is_asked_on_its_own_connection(plain: LocalReceiver, trust: ssl.SSLContext) -> None:
    plain.behaviours["/"] = answers(200, b"hello", {"Connection": "keep-alive"})
    async with guarding_proxy(dialer(), 10_000) as proxy, client_of(proxy, trust) as client:
        for host in ("a.example", "b.example"):
            assert (await client.get(plain.url("/", host))).headers["connection"] == "close"
    assert [request.headers["host"].partition(":")[0] for request in plain.requests] == ["a.example", "b.example"]


async def test_a_host_that_does_not_answer_is_named(trust: ssl.SSLContext, free_port: int) -> None:
    async with guarding_proxy(dialer(), 10_000) as proxy, client_of(proxy, trust) as client:
        assert (await client.get(f"http://a.example:{free_port}/")).status_code == 502
        assert (await client.get("http://nowhere.example/")).status_code == 502
    assert [type(refusal) for refusal in proxy.refusals] == [SourceUnreachable, SourceUnreachable]


async def test_strangers_get_nothing(plain: LocalReceiver) -> None:
    async with guarding_proxy(dialer(), 10_000) as proxy:
        for address in (f"http://127.0.0.1:{proxy.port}", f"http://crawl:guess@127.0.0.1:{proxy.port}"):
            async with httpx.AsyncClient(proxy=address, trust_env=False) as client:
                assert (await client.get(plain.url("/", "a.example"))).status_code == 407
    assert not plain.requests


async def test_more_than_the_limit_is_cut_off(plain: LocalReceiver, trust: ssl.SSLContext) -> None:
    async def endless(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {}))
        while True:
            writer.write(bytes(10_000))
            await writer.drain()

    plain.behaviours["/"] = endless
    async with guarding_proxy(dialer(), 100_000) as proxy, client_of(proxy, trust) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(plain.url("/", "a.example"))
    assert proxy.exhausted


async def test_another_listener_is_served_as_well(plain: LocalReceiver, trust: ssl.SSLContext) -> None:
    async with guarding_proxy(dialer(), 10_000) as proxy:
        proxy.port = await proxy.accept_from(socket.create_server(("127.0.0.1", 0)))
        async with client_of(proxy, trust) as client:
            assert (await client.get(plain.url("/", "a.example"))).content == b"hello"
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection("127.0.0.1", proxy.port)


async def test_too_many_connections_at_a_time_are_cut_off() -> None:
    async with guarding_proxy(dialer(), 10_000) as proxy:
        open_ones = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(MAX_CONNECTIONS)]
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        for _, each in [*open_ones, (reader, writer)]:
            each.close()


@pytest.mark.parametrize(
    "request_head",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\n{auth}\r\n",
        b"GET ftp://a.example/ HTTP/1.1\r\n{auth}\r\n",
        b"CONNECT a.example HTTP/1.1\r\n{auth}\r\n",
        b"CONNECT user@a.example:443 HTTP/1.1\r\n{auth}\r\n",
        b"POST http://a.example/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{auth}\r\n0\r\n\r\n",
    ],
)
async def test_what_is_not_a_proxys_request_is_refused(request_head: bytes) -> None:
    async with guarding_proxy(dialer(), 10_000) as proxy:
        authorization = httpx.BasicAuth("crawl", proxy._password)._auth_header.encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_head.replace(b"{auth}", b"Proxy-Authorization: " + authorization + b"\r\n"))
        answer = await reader.read()
        writer.close()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


# Not after 2: there asyncio itself (3.11) loses the connection, whose server is gone between two of its own steps.
@pytest.mark.parametrize("turns", [0, 1, 3, 4, 5])
async def test_no_connection_outlives_the_proxy_however_young_it_is(turns: int) -> None:
    async with guarding_proxy(dialer(), 10_000) as proxy:
        client = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
        for _ in range(turns):
            await asyncio.sleep(0)
    with client, contextlib.suppress(ConnectionResetError):
        assert await asyncio.to_thread(client.recv, 1) == b""


# --- by way of the operator's proxy -----------------------------------------------------------------------------------


@pytest.fixture
async def operators() -> AsyncIterator[LocalReceiver]:
    """A stand-in for the operator's proxy that records the requests it receives."""
    async with local_receiver(
        {"http://a.example/": answers(200, b"by proxy"), "a.example:443": answers(200)}
    ) as running:
        yield running


async def test_the_operators_proxy_is_told_the_name(operators: LocalReceiver, trust: ssl.SSLContext) -> None:
    upstream = f"http://user:pass@127.0.0.1:{operators.port}"
    async with guarding_proxy(dialer(upstream), 10_000) as proxy, client_of(proxy, trust) as client:
        assert (await client.get("http://a.example/")).content == b"by proxy"
        with pytest.raises(httpx.TransportError):
            await client.get("https://a.example/")  # the receiver opens the tunnel, and no more
    assert [(request.method, request.target) for request in operators.requests] == [
        ("GET", "http://a.example/"),
        ("CONNECT", "a.example:443"),
    ]
    assert {request.headers["proxy-authorization"] for request in operators.requests} == {"Basic dXNlcjpwYXNz"}


async def test_names_are_judged_here_unless_the_proxy_resolves_them(trust: ssl.SSLContext, free_port: int) -> None:
    upstream = f"http://127.0.0.1:{free_port}"
    for resolves, refused in ((False, UrlNotAllowed), (True, SourceUnreachable)):
        async with (
            guarding_proxy(dialer(upstream, proxy_resolves=resolves), 10_000) as proxy,
            client_of(proxy, trust) as client,
        ):
            await client.get("http://inside.example/")
        assert [type(refusal) for refusal in proxy.refusals] == [refused]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "127.0.0.1:1", "http://", "http://[::1"])
def test_a_proxy_that_is_none_is_refused_at_once(proxy: str) -> None:
    with pytest.raises(ConfigurationError, match=r"network\.proxy"):
        dialer(proxy)


async def test_an_authority_file_that_is_none_is_refused(tmp_path: Path) -> None:
    from pipeline.net import GuardedClient

    (tmp_path / "ca.pem").write_text("nothing")
    for file in (tmp_path / "ca.pem", tmp_path / "absent.pem"):
        with pytest.raises(ConfigurationError, match=r"network\.ca_file"):
            GuardedClient(NetworkSettings(ca_file=file))
