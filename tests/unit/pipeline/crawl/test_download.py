"""Tests downloads over real sockets of this machine."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import pytest

from pipeline.crawl.download import Download
from pipeline.crawl.extractor_messages import MediaLocation
from pipeline.errors import (
    GeoBlocked,
    MurmurationError,
    PrivateOrRemoved,
    RateLimited,
    SourceTimeout,
    SourceTooLarge,
    SourceUnreachable,
    UrlNotAllowed,
)
from pipeline.net import GuardedClient
from pipeline.settings import NetworkSettings
from pipeline.testing.local_receiver import Behaviour, LocalReceiver, ReceivedRequest, answers, head, local_receiver
from pipeline.testing.scripted_network import ScriptedResolver

FILM = bytes(range(256)) * 400
TAGGED = {"ETag": '"one"'}


@dataclass
class Server:
    """A server of ``FILM``: each request gets the next behaviour of the script, and the last one repeats."""

    script: list[Callable[[int, int], Behaviour]]
    ranges: list[str] = field(default_factory=list)

    async def __call__(self, request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        asked = request.headers.get("range", "")
        self.ranges.append(asked)
        start, _, last = asked.removeprefix("bytes=").partition("-")
        make = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await make(int(start or 0), min(int(last or len(FILM)), len(FILM) - 1))(request, writer)


def whole(start: int, last: int, headers: Mapping[str, str] = TAGGED) -> Behaviour:
    return answers(200, FILM, headers)


def part(start: int, last: int, total: str = str(len(FILM)), tag: str = '"one"') -> Behaviour:
    span = {"Content-Range": f"bytes {start}-{last}/{total}", "ETag": tag}
    return answers(206, FILM[start : last + 1], span)


def cut(at: int, headers: Mapping[str, str] = TAGGED, status: int = 200) -> Callable[[int, int], Behaviour]:
    """Make behaviours that send a response's head and only the first ``at`` bytes of its body."""

    def make(start: int, last: int) -> Behaviour:
        async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
            length = len(FILM) - start
            span = {"Content-Range": f"bytes {start}-{last}/{len(FILM)}"} if status == 206 else {}
            writer.write(head(status, {"Content-Length": str(length), **span, **headers}) + FILM[start : start + at])
            await writer.drain()

        return behave

    return make


def saying(status: int, headers: Mapping[str, str] | None = None) -> Callable[[int, int], Behaviour]:
    return lambda start, last: answers(status, b"", headers)


@pytest.fixture
async def receiver() -> AsyncIterator[LocalReceiver]:
    async with local_receiver({}) as running:
        yield running


class Fetcher:
    def __init__(self, receiver: LocalReceiver) -> None:
        self.receiver = receiver
        self.pauses: list[float] = []
        settings = NetworkSettings(allow_private_hosts=("127.0.0.1",))
        names = ScriptedResolver({"inside.example": [["10.0.0.1"]]})
        self.client = GuardedClient(settings, names, ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def download(self, *script: Callable[[int, int], Behaviour], **changes: object) -> tuple[Download, Server]:
        server = Server(list(script))
        self.receiver.behaviours["/film"] = server
        location = MediaLocation(self.receiver.url("/film"), {}, "mp4", direct=True)
        values = {"max_bytes": 10**6, "deadline": asyncio.get_running_loop().time() + 10, "max_breaks": 2}
        values |= changes
        source = values.pop("source", location)
        return Download(self.client, source, sleep=self.sleep, **values), server  # type: ignore[arg-type]

    async def fetch(self, *script: Callable[[int, int], Behaviour], **changes: object) -> tuple[bytes, list[str]]:
        download, server = self.download(*script, **changes)
        return b"".join([block async for block in download.blocks()]), server.ranges


async def note_sizes(download: Download, sizes: list[int]) -> None:
    async for block in download.blocks():
        sizes += [len(block)]


@pytest.fixture
def fetcher(receiver: LocalReceiver) -> Fetcher:
    return Fetcher(receiver)


async def test_a_file_is_fetched_in_one_go(fetcher: Fetcher) -> None:
    assert await fetcher.fetch(whole) == (FILM, [""])


async def test_a_download_that_broke_goes_on_where_it_was(fetcher: Fetcher) -> None:
    data, ranges = await fetcher.fetch(cut(1000), cut(500, status=206), part)
    assert data == FILM
    assert ranges == ["", "bytes=1000-", "bytes=1500-"]
    assert fetcher.receiver.requests[1].headers["if-range"] == '"one"'


async def test_a_host_without_ranges_sends_it_all_again(fetcher: Fetcher) -> None:
    data, ranges = await fetcher.fetch(cut(70_000), whole)
    assert data == FILM
    assert len(ranges) == 2


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(lambda start, last: whole(start, last, {"ETag": '"two"'}), id="another tag"),
        pytest.param(lambda start, last: answers(200, b"short", TAGGED), id="another size"),
        pytest.param(lambda start, last: part(start, last, total="77"), id="another total"),
        pytest.param(lambda start, last: part(start + 1, last), id="another place"),
    ],
)
async def test_a_file_that_changed_meanwhile_is_not_pieced_together(
    fetcher: Fetcher, second: Callable[[int, int], Behaviour]
) -> None:
    with pytest.raises(SourceUnreachable, match="another"):
        await fetcher.fetch(cut(1000), second)


async def test_a_host_that_keeps_breaking_off_is_given_up(fetcher: Fetcher) -> None:
    with pytest.raises(SourceUnreachable):
        await fetcher.fetch(cut(1000), cut(0, status=206))
    assert len(fetcher.pauses) == 3  # after the break with bytes, and two without
    assert fetcher.pauses == sorted(fetcher.pauses)


async def test_every_byte_is_a_new_chance(fetcher: Fetcher) -> None:
    data, ranges = await fetcher.fetch(cut(1), *[cut(1, status=206)] * 6, part, max_breaks=0)
    assert data == FILM
    assert len(ranges) == 8


async def test_a_host_that_was_away_for_a_moment_is_asked_again(fetcher: Fetcher) -> None:
    data, _ = await fetcher.fetch(saying(503), whole)
    assert data == FILM


async def test_a_site_that_throttles_is_asked_for_pieces(fetcher: Fetcher) -> None:
    location = MediaLocation(fetcher.receiver.url("/film"), {}, "mp4", direct=True, chunk_bytes=40_000)
    data, ranges = await fetcher.fetch(part, source=location)
    assert data == FILM
    assert ranges == ["bytes=0-39999", "bytes=40000-79999", "bytes=80000-119999"]


async def test_pieces_without_a_total_end_where_the_host_says_so(fetcher: Fetcher) -> None:
    location = MediaLocation(fetcher.receiver.url("/film"), {}, "mp4", direct=True, chunk_bytes=60_000)

    def piece(start: int, last: int) -> Behaviour:
        return part(start, last, total="*") if start < len(FILM) else answers(416)

    data, _ = await fetcher.fetch(piece, source=location)
    assert data == FILM


REFUSALS: dict[int, type[MurmurationError]] = {
    401: PrivateOrRemoved,
    403: PrivateOrRemoved,
    404: PrivateOrRemoved,
    410: PrivateOrRemoved,
    418: SourceUnreachable,
    429: RateLimited,
    451: GeoBlocked,
    503: SourceUnreachable,
}


@pytest.mark.parametrize("status", REFUSALS)
async def test_what_a_host_says_instead(fetcher: Fetcher, status: int) -> None:
    with pytest.raises(REFUSALS[status]):
        await fetcher.fetch(saying(status, {"Retry-After": "7"}))


async def test_a_file_announced_as_too_large_is_not_begun(fetcher: Fetcher) -> None:
    download, _ = fetcher.download(cut(1000), max_bytes=5000)
    with pytest.raises(SourceTooLarge, match="102,400 bytes or more; at most 5,000"):
        await anext(download.blocks())
    assert download.received == 0


async def test_a_stream_without_an_end_is_left_at_the_limit(fetcher: Fetcher) -> None:
    def endless(start: int, last: int) -> Behaviour:
        async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
            writer.write(head(200, {"Connection": "close"}))
            while True:
                writer.write(bytes(10_000))
                await writer.drain()

        return behave

    download, _ = fetcher.download(endless, max_bytes=500_000)
    sizes: list[int] = []
    with pytest.raises(SourceTooLarge):
        await note_sizes(download, sizes)
    assert 0 < sum(sizes) <= 500_000


async def test_a_trickle_ends_at_the_deadline(fetcher: Fetcher) -> None:
    def silent(start: int, last: int) -> Behaviour:
        async def behave(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
            writer.write(head(200, {"Content-Length": "10"}))
            await writer.drain()
            await asyncio.sleep(30)

        return behave

    with pytest.raises(SourceTimeout):
        await fetcher.fetch(silent, deadline=asyncio.get_running_loop().time() + 0.1)


async def test_a_redirect_to_the_inside_is_not_followed(fetcher: Fetcher) -> None:
    with pytest.raises(UrlNotAllowed):
        await fetcher.fetch(saying(302, {"Location": "http://inside.example/film"}))


async def test_headers_of_the_site_go_along_but_not_those_that_are_ours(fetcher: Fetcher) -> None:
    headers = {"Cookie": "a=b", "User-Agent": "Mine/1", "Range": "bytes=5-", "Host": "evil.example"}
    await fetcher.fetch(whole, source=MediaLocation(fetcher.receiver.url("/film"), headers, "mp4", direct=True))
    sent = fetcher.receiver.requests[0].headers
    assert (sent["cookie"], sent["user-agent"]) == ("a=b", "Mine/1")
    assert "range" not in sent
    assert sent["host"] == f"127.0.0.1:{fetcher.receiver.port}"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="a talk.mp3"', "a talk.mp3"),
        ("attachment; filename*=UTF-8''caf%C3%A9.mov", "café.mov"),
        ("inline", ""),
        ("", ""),
    ],
)
async def test_a_host_may_name_the_file(fetcher: Fetcher, disposition: str, name: str) -> None:
    download, _ = fetcher.download(lambda start, last: whole(start, last, {"Content-Disposition": disposition}))
    assert b"".join([block async for block in download.blocks()]) == FILM
    assert download.name == name
