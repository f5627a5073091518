import httpx
import pytest

from pipeline.errors import ConfigurationError, SourceUnreachable, UrlNotAllowed
from pipeline.net import Guard, GuardedTransport
from pipeline.net.address_guard import MAX_ADDRESSES, SystemResolver
from pipeline.testing.scripted_network import ScriptedResolver, ScriptedTransport

PUBLIC = "93.184.216.34"
PUBLIC_V6 = "2606:2800:220:1:248:1893:25c8:1946"

NAMES: dict[str, list[list[str]]] = {
    "media.example": [[PUBLIC]],
    "two.example": [[PUBLIC_V6, PUBLIC]],
    "localhost": [["127.0.0.1"]],
    "intranet.example": [["10.1.2.3"]],
    "mixed.example": [[PUBLIC, "10.1.2.3"]],
    "mapped.example": [["::ffff:127.0.0.1"]],
    "metadata.google.internal": [["169.254.169.254"]],
    "void.example": [[]],
}


def guard(*allowed: str) -> Guard:
    return Guard(allowed, ScriptedResolver(NAMES))


async def admit(url: str, *allowed: str) -> list[str]:
    destination = await guard(*allowed).admit(httpx.URL(url))
    return [str(address) for address in destination.addresses]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.1/",
        "http://017700000001/",
        "http://127.0.0.1./",
        "http://127。0。0。1/",
        "http://0.0.0.0/",
        "http://0/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[fe80::1]/",
        "http://[fc00::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://localhost:8265/",
        "https://intranet.example/",
        "http://mixed.example/",
        "http://mapped.example/",
        "http://metadata.google.internal/computeMetadata/v1/",
    ],
)
async def test_private_addresses_are_refused_in_whatever_notation(url: str) -> None:
    with pytest.raises(UrlNotAllowed, match="is not a public address"):
        await admit(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "Only http"),
        ("gopher://media.example/", "Only http"),
        ("ftp://media.example/", "Only http"),
        ("data:text/plain,hello", "Only http"),
        ("//media.example/", "Only http"),
        ("media.example", "Only http"),
        ("http://user:password@media.example/", "user name or password"),
        ("http://user@media.example/", "user name or password"),
        ("http://media.example\\@127.0.0.1/", "user name or password"),
        ("http:///path", "names no host"),
        ("http://", "names no host"),
        ("http://./", "names no host"),
        ("http://media.example:0/", "invalid host or port"),
        ("http://media.example:65536/", "invalid host or port"),
        ("http://[fe80::1%25eth0]/", "invalid host or port"),
        ("http://media%00.example/", "invalid host or port"),
        ("http://" + "a" * 254 + "/", "invalid host or port"),
    ],
)
async def test_malformed_urls_are_refused_before_any_name_is_looked_up(url: str, reason: str) -> None:
    resolver = ScriptedResolver(NAMES)

    with pytest.raises(UrlNotAllowed, match=reason):
        await Guard((), resolver).admit(httpx.URL(url))
    assert resolver.lookups == []


async def test_a_refusal_names_the_host_and_nothing_that_was_found_out() -> None:
    with pytest.raises(UrlNotAllowed) as caught:
        await admit("http://intranet.example:8080/secret/path?token=abc")

    assert "intranet.example" in caught.value.message
    for secret in ("10.1.2.3", "secret", "token", "8080"):
        assert secret not in caught.value.message


async def test_public_hosts_are_admitted_at_any_port() -> None:
    assert await admit("https://media.example:12345/a.mp3") == [PUBLIC]
    assert await admit("http://93.184.216.34/") == [PUBLIC]
    assert await admit(f"http://[{PUBLIC_V6}]/") == [PUBLIC_V6]
    assert await admit("http://two.example/") == [PUBLIC_V6, PUBLIC]


@pytest.mark.parametrize("name", ["nowhere.example", "void.example"])
async def test_a_name_without_addresses_is_unreachable(name: str) -> None:
    with pytest.raises(SourceUnreachable, match=f"{name} can't be found"):
        await admit(f"http://{name}/")


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("localhost", "http://localhost:9000/"),
        ("LocalHost.", "http://localhost/"),
        ("127.0.0.1", "http://localhost/"),
        ("127.0.0.1", "http://2130706433/"),
        ("10.0.0.0/8", "http://intranet.example/"),
        ("10.1.2.99/8", "http://10.9.9.9/"),
        ("10.0.0.0/8", "http://mixed.example/"),
        ("127.0.0.0/8", "http://mapped.example/"),
        ("::1", "http://[::1]/"),
        ("fd00::/8", "http://[fd00::17]/"),
    ],
)
async def test_allowed_private_hosts_are_admitted_but_not_public(entry: str, url: str) -> None:
    destination = await guard(entry).admit(httpx.URL(url))

    assert not destination.public


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("example", "http://intranet.example/"),
        ("10.1.2.4", "http://intranet.example/"),
        ("intranet.example", "http://10.1.2.3/"),
        ("127.0.0.0/8", "http://[::1]/"),
    ],
)
async def test_allowing_one_host_allows_no_other(entry: str, url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        await admit(url, entry)


@pytest.mark.parametrize("entry", ["", "10.0.0.0/33", "http://localhost", "local host", "*"])
def test_entries_that_make_no_sense_are_refused_in_words(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="allow_private_hosts"):
        guard(entry)


async def test_the_connection_goes_to_the_address_and_the_name_stays_in_the_request() -> None:
    connects = ScriptedTransport(lambda request: httpx.Response(204))
    transport = GuardedTransport(guard(), connects)

    response = await transport.handle_async_request(httpx.Request("GET", "https://media.example:8443/a?b=c"))

    (sent,) = connects.requests
    assert str(sent.url) == f"https://{PUBLIC}:8443/a?b=c"
    assert sent.headers["host"] == "media.example:8443"
    assert sent.extensions["sni_hostname"] == "media.example"
    assert response.extensions["destination"].public


async def test_a_name_that_changes_its_address_is_looked_up_once_a_request() -> None:
    resolver = ScriptedResolver({"rebind.example": [[PUBLIC], ["127.0.0.1"]]})
    connects = ScriptedTransport(lambda request: httpx.Response(204))
    transport = GuardedTransport(Guard((), resolver), connects)
    request = httpx.Request("GET", "http://rebind.example/")

    await transport.handle_async_request(request)
    assert resolver.lookups == ["rebind.example"]
    assert connects.requests[0].url.host == PUBLIC

    with pytest.raises(UrlNotAllowed):
        await transport.handle_async_request(request)
    assert len(connects.requests) == 1


async def test_the_next_address_is_tried_where_one_takes_no_connection() -> None:
    def only_v4(request: httpx.Request) -> httpx.Response:
        if ":" in request.url.host:
            raise httpx.ConnectError("unreachable")
        return httpx.Response(200)

    connects = ScriptedTransport(only_v4)

    await GuardedTransport(guard(), connects).handle_async_request(httpx.Request("POST", "http://two.example/"))

    assert [request.url.host for request in connects.requests] == [PUBLIC_V6, PUBLIC]


async def test_no_more_than_a_few_addresses_are_tried_and_the_last_failure_counts() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    connects = ScriptedTransport(refuse)
    many = ScriptedResolver({"many.example": [[f"93.184.216.{i}" for i in range(1, 30)]]})

    with pytest.raises(httpx.ConnectError):
        await GuardedTransport(Guard((), many), connects).handle_async_request(
            httpx.Request("GET", "http://many.example/")
        )
    assert len(connects.requests) == MAX_ADDRESSES


async def test_an_answer_that_breaks_off_is_not_asked_for_at_another_address() -> None:
    def break_off(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset")

    connects = ScriptedTransport(break_off)

    with pytest.raises(httpx.ReadError):
        await GuardedTransport(guard(), connects).handle_async_request(httpx.Request("POST", "http://two.example/"))
    assert len(connects.requests) == 1


async def test_the_system_resolver_knows_this_machine() -> None:
    assert "127.0.0.1" in await SystemResolver()("127.0.0.1", 80)
