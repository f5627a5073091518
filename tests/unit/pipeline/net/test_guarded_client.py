import asyncio
import gzip
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import trustme

from pipeline.errors import (
    ConfigurationError,
    SourceError,
    SourceTimeout,
    SourceTooLarge,
    SourceUnreachable,
    UrlNotAllowed,
)
from pipeline.net import GuardedClient, StreamedResponse
from pipeline.net.response_body import BLOCK_BYTES
from pipeline.settings import NetworkSettings
from pipeline.testing.local_receiver import Behaviour, LocalReceiver, ReceivedRequest, answers, head, local_receiver
from pipeline.testing.scripted_network import ScriptedResolver, ScriptedTransport

MEBIBYTE = 1024 * 1024
HOME = ["127.0.0.1"]


@pytest.fixture
async def receiver() -> AsyncIterator[LocalReceiver]:
    async with local_receiver({"/": answers(200, b"hello")}) as running:
        yield running


@pytest.fixture(scope="module")
def nobody_trusted() -> ssl.SSLContext:
    """A context without authorities, because loading the usual ones takes longer than a test."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
async def client(nobody_trusted: ssl.SSLContext) -> AsyncIterator[GuardedClient]:
    names = ScriptedResolver({"a.example": [HOME], "b.example": [HOME], "private.example": [["10.1.2.3"]]})
    settings = NetworkSettings(allow_private_hosts=("127.0.0.1",))
    guarded = GuardedClient(settings, names, ssl_context=nobody_trusted)
    yield guarded
    await guarded.aclose()


async def fetch(client: GuardedClient, url: str, max_bytes: int = MEBIBYTE, deadline_s: float = 5.0) -> bytes:
    async with client.stream_download(url, max_bytes, deadline_s) as answer:
        return b"".join([block async for block in answer.aiter_bytes()])


async def note_sizes(answer: StreamedResponse, sizes: list[int]) -> None:
    async for block in answer.aiter_bytes():
        sizes += [len(block)]


def writes(*blocks: bytes, forever: bytes = b"", pause_s: float = 0.0) -> Behaviour:
    """Write blocks as they are, and then one block without end."""

    async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        for block in blocks:
            writer.write(block)
        await writer.drain()
        while forever:
            await asyncio.sleep(pause_s)
            writer.write(forever)
            await writer.drain()

    return behave


# --- the plain way ----------------------------------------------------------------------------------------------------


async def test_a_request_carries_what_it_was_given_and_the_name_of_its_host(
    client: GuardedClient, receiver: LocalReceiver
) -> None:
    answer = await client.request(
        "POST", receiver.url("/", "a.example"), headers={"X-A": "1"}, content=b"body", max_bytes=100, deadline_s=5
    )

    assert (answer.status, answer.body, answer.public) == (200, b"hello", False)
    (received,) = receiver.requests
    assert (received.method, received.body) == ("POST", b"body")
    assert received.headers["host"] == f"a.example:{receiver.port}"
    assert received.headers["x-a"] == "1"
    assert received.headers["accept-encoding"] == "identity"


async def test_nothing_is_kept_between_requests(client: GuardedClient, receiver: LocalReceiver) -> None:
    receiver.behaviours["/"] = answers(200, b"x", {"Set-Cookie": "a=b; Path=/", "Connection": "keep-alive"})

    await fetch(client, receiver.url("/", "a.example"))
    await fetch(client, receiver.url("/", "a.example"))

    assert "cookie" not in receiver.requests[1].headers


async def test_no_name_is_given_the_connection_of_another(client: GuardedClient, receiver: LocalReceiver) -> None:
    async def stay(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await answers(200, b"hello", {"Connection": "keep-alive"})(request, writer)
        await asyncio.sleep(30)  # a second request on this connection would wait as long

    receiver.behaviours["/"] = stay

    for host in ("a.example", "b.example", "a.example"):
        assert await fetch(client, receiver.url("/", host), deadline_s=1) == b"hello"


async def test_the_environment_has_no_say(
    client: GuardedClient, receiver: LocalReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    fresh = GuardedClient(NetworkSettings(allow_private_hosts=("127.0.0.1",)))

    assert await fetch(fresh, receiver.url()) == b"hello"


async def test_a_download_is_a_success_or_an_error(client: GuardedClient, receiver: LocalReceiver) -> None:
    receiver.behaviours["/"] = answers(404, b"no such file")

    with pytest.raises(SourceUnreachable, match=r"a\.example answered 404"):
        await fetch(client, receiver.url("/", "a.example"))


async def test_a_download_gives_status_and_headers_before_the_body(
    client: GuardedClient, receiver: LocalReceiver
) -> None:
    receiver.behaviours["/"] = answers(206, b"part", {"Content-Type": "audio/mpeg"})

    async with client.stream_download(receiver.url(), 100, 5) as answer:
        assert (answer.status, answer.headers["content-type"]) == (206, "audio/mpeg")


# --- where it may go --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://a.example/",
        "http://",
        "http://u:p@a.example/",
        "http://[::1",
        "http://0177.0.0.1/",
        "http://256.1.1.1/",
        "http://①②⑦.⓪.⓪.①/",
        "http://a.example/\x00",
        "x" * 70_000,
        "",
    ],
)
async def test_what_is_not_a_web_address_is_refused(client: GuardedClient, url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        await fetch(client, url)


async def test_check_names_the_clients_field(client: GuardedClient) -> None:
    with pytest.raises(UrlNotAllowed, match=r"private\.example") as caught:
        await client.check("http://private.example/", "callback_url")
    assert caught.value.field == "callback_url"

    with pytest.raises(UrlNotAllowed) as caught:
        await client.check("http://[", "file_url")
    assert caught.value.field == "file_url"

    await client.check("http://a.example/")


async def test_check_does_not_wait_for_ever_for_a_name() -> None:
    async def silent(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return HOME

    with pytest.raises(SourceTimeout, match=r"slow\.example"):
        await GuardedClient(NetworkSettings(), silent).check("http://slow.example/", timeout_s=0.02)


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/secret",
        "http://[::1]:{port}/secret",
        "http://private.example/secret",
        "file:///etc/passwd",
        "gopher://a.example/",
        "http://user:password@a.example:{port}/secret",
    ],
)
async def test_a_redirect_is_judged_like_any_request(
    nobody_trusted: ssl.SSLContext, receiver: LocalReceiver, location: str
) -> None:
    names = ScriptedResolver({"a.example": [HOME], "private.example": [["10.1.2.3"]]})
    strict = GuardedClient(NetworkSettings(allow_private_hosts=("a.example",)), names, ssl_context=nobody_trusted)
    receiver.behaviours["/"] = answers(302, headers={"Location": location.format(port=receiver.port)})
    receiver.behaviours["/secret"] = answers(200, b"secret")

    with pytest.raises(UrlNotAllowed):
        await fetch(strict, receiver.url("/", "a.example"))
    assert [request.target for request in receiver.requests] == ["/"]


async def test_a_name_that_changes_its_address_gets_no_second_chance(receiver: LocalReceiver) -> None:
    names = ScriptedResolver({"rebind.example": [["93.184.216.34"], HOME]})
    connects = ScriptedTransport(
        lambda request: httpx.Response(302, headers={"Location": receiver.url("/", "rebind.example")})
    )
    client = GuardedClient(NetworkSettings(), names, connects=connects)

    with pytest.raises(UrlNotAllowed):
        await fetch(client, "http://rebind.example/")
    assert [request.url.host for request in connects.requests] == ["93.184.216.34"]


# --- redirects --------------------------------------------------------------------------------------------------------


async def test_redirects_are_followed_to_the_end(client: GuardedClient, receiver: LocalReceiver) -> None:
    receiver.behaviours["/start"] = answers(301, headers={"Location": "/middle"})
    receiver.behaviours["/middle"] = answers(308, headers={"Location": receiver.url("/", "b.example")})

    async with client.stream_download(receiver.url("/start", "a.example"), 100, 5) as answer:
        assert answer.url == receiver.url("/", "b.example")
        assert [block async for block in answer.aiter_bytes()] == [b"hello"]
    assert receiver.requests[2].headers["host"].startswith("b.example")


async def test_redirects_come_to_an_end(client: GuardedClient, receiver: LocalReceiver) -> None:
    receiver.behaviours["/"] = answers(302, headers={"Location": "/"})

    with pytest.raises(SourceUnreachable, match="redirects more than 5 times"):
        await fetch(client, receiver.url())
    assert len(receiver.requests) == 6


async def test_a_redirect_to_nonsense_is_an_error(client: GuardedClient, receiver: LocalReceiver) -> None:
    receiver.behaviours["/"] = answers(302, headers={"Location": "http://[::1"})

    with pytest.raises(SourceUnreachable, match="not an address"):
        await fetch(client, receiver.url())


async def test_a_redirect_is_an_answer_where_none_is_to_be_followed(
    client: GuardedClient, receiver: LocalReceiver
) -> None:
    receiver.behaviours["/"] = answers(302, headers={"Location": "/other"})

    answer = await client.request("POST", receiver.url(), max_bytes=100, deadline_s=5)

    assert answer.status == 302
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("status", "method", "expected"),
    [
        (301, "POST", ("GET", b"")),
        (302, "POST", ("GET", b"")),
        (303, "POST", ("GET", b"")),
        (303, "PUT", ("GET", b"")),
        (302, "PUT", ("PUT", b"body")),
        (307, "POST", ("POST", b"body")),
        (308, "POST", ("POST", b"body")),
    ],
)
async def test_the_method_after_a_redirect(
    client: GuardedClient, receiver: LocalReceiver, status: int, method: str, expected: tuple[str, bytes]
) -> None:
    receiver.behaviours["/start"] = answers(status, headers={"Location": "/"})

    await client.request(
        method,
        receiver.url("/start"),
        headers={"Content-Type": "text/plain"},
        content=b"body",
        max_bytes=100,
        deadline_s=5,
        max_redirects=1,
    )

    last = receiver.requests[-1]
    assert (last.method, last.body) == expected
    assert ("content-type" in last.headers) is (expected[0] != "GET")


@pytest.mark.parametrize(("host", "kept"), [("a.example", True), ("b.example", False)])
async def test_credentials_do_not_follow_to_another_origin(
    client: GuardedClient, receiver: LocalReceiver, host: str, kept: bool
) -> None:
    receiver.behaviours["/start"] = answers(307, headers={"Location": receiver.url("/", host)})

    await client.request(
        "GET",
        receiver.url("/start", "a.example"),
        headers={"Authorization": "Bearer x", "COOKIE": "a=b", "X-Other": "1"},
        max_bytes=100,
        deadline_s=5,
        max_redirects=1,
    )

    assert ("authorization" in receiver.requests[-1].headers) is kept
    assert ("cookie" in receiver.requests[-1].headers) is kept
    assert receiver.requests[-1].headers["x-other"] == "1"


# --- sizes ------------------------------------------------------------------------------------------------------------


async def test_a_body_of_exactly_the_limit_is_taken(client: GuardedClient, receiver: LocalReceiver) -> None:
    receiver.behaviours["/"] = answers(200, bytes(1000))

    assert len(await fetch(client, receiver.url(), max_bytes=1000)) == 1000
    with pytest.raises(SourceTooLarge, match="1000 bytes; at most 999"):
        await fetch(client, receiver.url(), max_bytes=999)


async def test_an_endless_body_is_cut_off_at_the_limit(client: GuardedClient, receiver: LocalReceiver) -> None:
    receiver.behaviours["/"] = writes(head(200, {}), forever=bytes(64 * 1024))

    with pytest.raises(SourceTooLarge, match="more than the 200000 bytes"):
        await fetch(client, receiver.url(), max_bytes=200_000)


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("GZIP", lambda data: gzip.compress(data[:100_000]) + gzip.compress(data[100_000:])),
        ("identity", bytes),
    ],
)
async def test_compressed_bodies_arrive_whole(
    client: GuardedClient, receiver: LocalReceiver, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    plain = bytes(200_000) + b"end" + bytes(range(256)) * 40
    receiver.behaviours["/"] = answers(200, compress(plain), {"Content-Encoding": encoding})

    assert await fetch(client, receiver.url()) == plain


async def test_an_empty_body_in_any_encoding_is_empty(client: GuardedClient, receiver: LocalReceiver) -> None:
    receiver.behaviours["/"] = answers(200, b"", {"Content-Encoding": "gzip"})

    assert await fetch(client, receiver.url()) == b""


async def test_a_compression_bomb_is_stopped_in_small_steps(client: GuardedClient, receiver: LocalReceiver) -> None:
    bomb = gzip.compress(bytes(32 * MEBIBYTE), compresslevel=1)
    receiver.behaviours["/"] = answers(200, bomb, {"Content-Encoding": "gzip"})
    blocks: list[int] = []

    async with client.stream_download(receiver.url(), MEBIBYTE, 5) as answer:
        with pytest.raises(SourceTooLarge):
            await note_sizes(answer, blocks)

    assert len(bomb) < MEBIBYTE
    assert max(blocks) <= BLOCK_BYTES
    assert sum(blocks) <= MEBIBYTE


async def test_compression_that_yields_nothing_is_counted_as_it_is_sent(
    client: GuardedClient, receiver: LocalReceiver
) -> None:
    receiver.behaviours["/"] = writes(head(200, {"Content-Encoding": "gzip"}), forever=gzip.compress(b"") * 1000)

    with pytest.raises(SourceTooLarge):
        await fetch(client, receiver.url(), max_bytes=100_000)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"this is not gzip"),
        ("gzip", gzip.compress(b"hello" * 1000, mtime=0)[:-20]),
        ("br", b"brotli"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"hello", mtime=0), mtime=0)),
    ],
)
async def test_bodies_that_cannot_be_decompressed(
    client: GuardedClient, receiver: LocalReceiver, encoding: str, body: bytes
) -> None:
    receiver.behaviours["/"] = answers(200, body, {"Content-Encoding": encoding})

    with pytest.raises(SourceUnreachable):
        await fetch(client, receiver.url())


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "blocks",
    [
        (),
        (b"HTTP/1.1 200 OK\r\n",),
        (head(200, {"Content-Length": "1000000"}),),
    ],
    ids=["silence", "half the headers", "no body"],
)
async def test_a_slow_answer_meets_the_deadline(
    client: GuardedClient, receiver: LocalReceiver, blocks: tuple[bytes, ...]
) -> None:
    receiver.behaviours["/"] = writes(*blocks, forever=b"x", pause_s=0.02)
    started = time.monotonic()

    with pytest.raises(SourceTimeout, match=r"a\.example did not answer in time"):
        await fetch(client, receiver.url("/", "a.example"), deadline_s=0.15)
    assert time.monotonic() - started < 1.0


async def test_redirects_share_one_deadline(client: GuardedClient, receiver: LocalReceiver) -> None:
    async def wait(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.08)
        await answers(302, headers={"Location": "/"})(request, writer)

    receiver.behaviours["/"] = wait

    with pytest.raises(SourceTimeout):
        await fetch(client, receiver.url(), deadline_s=0.2)
    assert len(receiver.requests) <= 3


async def test_the_readers_own_errors_pass_through(client: GuardedClient, receiver: LocalReceiver) -> None:
    with pytest.raises(OSError, match="disk full"):
        async with client.stream_download(receiver.url(), 100, 5):
            raise OSError("disk full")


# --- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "blocks",
    [
        (),
        (b"this is not HTTP\r\n\r\n",),
        (head(200, {"Content-Length": "100"}), b"short"),
        (head(200, {"Transfer-Encoding": "chunked"}), b"zz\r\nnot a chunk"),
        (head(200, {"Content-Length": "9" * 5000}),),
        (head(200, {"X": "x" * 200_000}),),
    ],
    ids=["closed", "not HTTP", "cut short", "broken chunks", "endless length", "huge header"],
)
async def test_broken_answers_are_errors_of_ours(
    client: GuardedClient, receiver: LocalReceiver, blocks: tuple[bytes, ...]
) -> None:
    receiver.behaviours["/"] = writes(*blocks)

    with pytest.raises(SourceError, match=r"a\.example"):
        await fetch(client, receiver.url("/?token=secret", "a.example"))


async def test_a_closed_port_is_unreachable_and_only_the_host_is_named(client: GuardedClient, free_port: int) -> None:
    with pytest.raises(SourceUnreachable) as caught:
        await fetch(client, f"http://a.example:{free_port}/path?token=secret")
    assert caught.value.message == "No connection to a.example."


# --- TLS and proxies --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.mark.parametrize("name", ["a.example", "127.0.0.1"])
async def test_tls_is_checked_against_the_name(authority: trustme.CA, name: str) -> None:
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    seen: list[str | None] = []
    context = server_context(authority, name)
    context.sni_callback = lambda connection, sni, _: seen.append(sni)
    names = ScriptedResolver({"a.example": [HOME], "b.example": [HOME]})
    client = GuardedClient(NetworkSettings(allow_private_hosts=("127.0.0.1",)), names, ssl_context=trust)

    async with local_receiver({"/": answers(200, b"secure")}, context) as receiver:
        assert await fetch(client, receiver.url("/", name, "https")) == b"secure"
        with pytest.raises(SourceUnreachable, match=r"b\.example"):
            await fetch(client, receiver.url("/", "b.example", "https"))

    assert seen == [None if name == "127.0.0.1" else name, "b.example"]
    await client.aclose()


async def test_certificates_of_unknown_authorities_are_refused(authority: trustme.CA) -> None:
    client = GuardedClient(NetworkSettings(allow_private_hosts=("127.0.0.1",)))

    async with local_receiver({"/": answers(200)}, server_context(authority, "127.0.0.1")) as receiver:
        with pytest.raises(SourceUnreachable):
            await fetch(client, receiver.url(scheme="https"))
    assert receiver.requests == []
    await client.aclose()


async def test_a_proxy_is_given_the_name_after_the_host_was_judged(receiver: LocalReceiver) -> None:
    names = ScriptedResolver({"media.example": [["93.184.216.34"]], "private.example": [["10.1.2.3"]]})
    client = GuardedClient(NetworkSettings(proxy=receiver.url()), names)
    receiver.behaviours["http://media.example/a"] = answers(200, b"by proxy")

    assert await fetch(client, "http://media.example/a") == b"by proxy"
    with pytest.raises(UrlNotAllowed):
        await fetch(client, "http://private.example/a")
    assert len(receiver.requests) == 1
    await client.aclose()


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "proxy.example:3128"])
def test_a_proxy_of_another_kind_is_refused_in_words(proxy: str) -> None:
    with pytest.raises(ConfigurationError, match=r"network\.proxy"):
        GuardedClient(NetworkSettings(proxy=proxy))
