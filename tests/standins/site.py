"""TikTok, Douyin and a few other sites on this machine: an HTTP proxy that answers in their place.

It ends TLS itself, with certificates of an authority of its own, so that a service that uses it as its proxy and trusts
that authority sees ``https://www.tiktok.com/…`` as it would see the real one. The pages have the shape that yt-dlp's
extractors read. What a page does is in its id or path; see ``POSTS`` and ``PATHS``. As a plain web server, on the same
port, it has what ``files.example`` has.

    python -m tests.standins.site --port 8700 --folder /tmp/standins

writes the authority to ``/tmp/standins/authority.pem`` and serves until it is interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import trustme
from Cryptodome.Cipher import AES
from Cryptodome.Util.Padding import pad

POST = "7332187682480590112"
CHAIN_COOKIE = "tt_chain_token=stand-in"
"""TikTok sets it with the page, and its media servers want it back."""

POSTS: Mapping[str, int] = {
    POST: 0,
    "7000000000000000216": 10216,  # private
    "7000000000000000222": 10222,  # of a private account
    "7000000000000000204": 10204,  # not for this address
    "7000000000000000000": 100004,  # not available
}
"""TikTok's posts by their id, with the status code that their pages hold."""

RATE_LIMITED_POST = "7000000000000000429"
CHANGED_POST = "7000000000000000999"
"""Its page is not what the extractor knows."""


KEY = b"sixteen bytes..."
MANIFEST = b"""<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT9S">
<Period><AdaptationSet contentType="audio" mimeType="audio/mp4">
<Representation id="sound" bandwidth="64000" codecs="mp4a.40.2"><SegmentList duration="3">
<SegmentURL media="segment0.mp4"/><SegmentURL media="segment1.mp4"/><SegmentURL media="segment2.mp4"/>
</SegmentList></Representation></AdaptationSet></Period></MPD>
"""


@cache
def _bomb() -> bytes:
    """Make a quarter of a megabyte that unpacks to a quarter of a gigabyte."""
    return gzip.compress(b"<html>" + bytes(1 << 28))


BOMB_BYTES = 96 * 1024 * 1024
"""What a fragment of ``/swelling`` unfolds to."""


@cache
def _fragment_bomb() -> bytes:
    """Make a hundred kilobytes that unpack to a hundred megabytes."""
    return gzip.compress(bytes(BOMB_BYTES), compresslevel=9)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived; ``target`` is path and query."""

    method: str
    host: str
    target: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def query(self, name: str) -> str:
        return parse_qs(urlsplit(self.target).query).get(name, [""])[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. After the body comes ``forever``, again and again, up to ``length`` or without an end."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    forever: bytes = b""


Handler = Callable[[Request], Answer]


@dataclass
class Site:
    """The stand-in while it runs.

    Attributes:
        film: an mp4 file with speech.
        latency_s: before every answer.
        requests: what was asked, in order.
        broken: paths under ``/broken/`` that were cut off once already.
    """

    film: bytes
    folder: Path
    latency_s: float = 0.0
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    authority: trustme.CA = field(default_factory=trustme.CA)
    _contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Its address, as a proxy and as ``files.example`` without TLS."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        """PEM file of the authority."""
        return self.folder / "authority.pem"

    def paths_of(self, host: str) -> list[str]:
        """Return the paths that were requested of a host."""
        return [request.path for request in self.requests if request.host == host]

    # the proxy

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, TimeoutError):
                method, target, headers = await _read_head(reader)
                if method == "CONNECT":
                    host = target.rpartition(":")[0]
                    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                    await writer.start_tls(self._context(host))
                    method, target, headers = await _read_head(reader)
                else:
                    host = urlsplit(target).hostname or "files.example"
                    target = urlsplit(target)._replace(scheme="", netloc="").geturl()
                await self._answer(Request(method, host, target, headers), writer)
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.requests.append(request)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        answer = self._route(request)
        length = len(answer.body) if answer.length is None else answer.length
        headers = {"Content-Length": str(length), **answer.headers, "Connection": "close"}
        if answer.forever and not answer.length:
            del headers["Content-Length"]
        lines = [f"HTTP/1.1 {answer.status} Status", *(f"{name}: {value}" for name, value in headers.items())]
        body = b"" if request.method == "HEAD" else answer.body
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await writer.drain()
        left = length - len(body) if answer.forever and answer.length else None
        while answer.forever and left != 0:
            block = answer.forever[:left]
            left = None if left is None else left - len(block)
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(0)  # a TLS connection that closes drops what is written, and no drain waits

    def _context(self, host: str) -> ssl.SSLContext:
        if host not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.authority.issue_cert(host).configure_cert(context)
            self._contexts[host] = context
        return self._contexts[host]

    # the sites

    def _route(self, request: Request) -> Answer:
        hosts: dict[str, Handler] = {
            "www.tiktok.com": self._tiktok,
            "vm.tiktok.com": self._tiktok_short,
            "v16-webapp-prime.tiktok.com": self._tiktok_media,
            "www.douyin.com": self._douyin,
            "v.douyin.com": self._douyin_short,
            "v26-web.douyinvod.com": self._film,
            "films.example": self._films,
            "files.example": self._files,
        }
        return hosts.get(request.host, _not_found)(request)

    def _tiktok(self, request: Request) -> Answer:
        post = request.path.rpartition("/")[2]
        if post == RATE_LIMITED_POST:
            return Answer(429, headers={"Retry-After": "120"})
        if post == CHANGED_POST:
            return _page("<title>TikTok</title><div id=root></div>")
        if post not in POSTS:
            return _not_found(request)
        data = json.dumps({"__DEFAULT_SCOPE__": {"webapp.video-detail": _tiktok_detail(post, POSTS[post])}})
        return _page(
            f'<script id="__UNIVERSAL_DATA_FOR_REHYDRATION__" type="application/json">{data}</script>',
            {"Set-Cookie": f"{CHAIN_COOKIE}; Domain=.tiktok.com; Path=/; Secure"},
        )

    def _tiktok_short(self, request: Request) -> Answer:
        targets = {
            "/ZMstandin/": f"https://www.tiktok.com/@standin/video/{POST}?_r=1",
            "/ZMaway/": "https://films.example/film",
            "/ZMinside/": "http://169.254.169.254/latest/meta-data/",
        }
        return _redirect(targets[request.path]) if request.path in targets else _not_found(request)

    def _tiktok_media(self, request: Request) -> Answer:
        if CHAIN_COOKIE not in request.headers.get("cookie", ""):
            return Answer(403)
        return self._film(request)

    def _douyin(self, request: Request) -> Answer:
        if request.path == "/aweme/v1/web/aweme/detail/" and request.query("aweme_id") == POST:
            return Answer(200, json.dumps(_douyin_detail()).encode(), {"Content-Type": "application/json"})
        return Answer(200, b"", {"Content-Type": "application/json"})  # what Douyin says without its cookies

    def _douyin_short(self, request: Request) -> Answer:
        return _redirect(f"https://www.iesdouyin.com/share/video/{POST}/?region=CN")

    def _films(self, request: Request) -> Answer:
        """Respond as a site that no extractor knows by name."""
        pages = {
            "/film": _page('<title>A film</title><video src="https://files.example/film.mp4"></video>'),
            "/stream": _page('<title>A stream</title><video src="https://films.example/master.m3u8"></video>'),
            "/master.m3u8": Answer(200, self._playlist(), {"Content-Type": "application/vnd.apple.mpegurl"}),
            "/sealed": _page('<title>A sealed stream</title><video src="https://films.example/sealed.m3u8"></video>'),
            "/sealed.m3u8": Answer(200, self._playlist(sealed=True), {"Content-Type": "application/vnd.apple.mpegurl"}),
            "/key": Answer(200, KEY),
            "/dash": _page('<title>A manifest</title><video src="https://films.example/film.mpd"></video>'),
            "/film.mpd": Answer(200, MANIFEST, {"Content-Type": "application/dash+xml"}),
            "/swelling": _page('<title>A bomb</title><video src="https://films.example/swelling.m3u8"></video>'),
            "/swelling.m3u8": Answer(
                200, self._playlist(name="swelling"), {"Content-Type": "application/vnd.apple.mpegurl"}
            ),
            "/inside": _page('<title>A trap</title><video src="http://169.254.169.254/a.mp4"></video>'),
            "/many": _page("".join(f'<video src="https://files.example/{name}.mp4"></video>' for name in "abc")),
            "/text": _page("<title>A letter</title><p>Nothing to hear.</p>"),
            "/endless": Answer(200, b"<html>", {"Content-Type": "text/html"}, forever=b"<p>more</p>" * 1000),
            "/login": Answer(403),
            "/often": Answer(429, headers={"Retry-After": "60"}),
            "/elsewhere": Answer(451),
            "/down": Answer(503),
        }
        if request.path == "/bomb":
            return Answer(200, _bomb(), {"Content-Type": "text/html", "Content-Encoding": "gzip"})
        if request.path.startswith("/swelling") and request.path.endswith(".mp4"):
            return Answer(200, _fragment_bomb(), {"Content-Type": "video/mp4", "Content-Encoding": "gzip"})
        if request.path.startswith(("/segment", "/sealed-segment")):
            return self._segment(request)
        return pages.get(request.path, _not_found(request))

    def _segment(self, request: Request) -> Answer:
        kind, _, number = request.path.removesuffix(".mp4").rpartition("segment")
        third = len(self.film) // 3 + 1
        part = self.film[int(number) * third : (int(number) + 1) * third]
        if "sealed" in kind:
            part = AES.new(KEY, AES.MODE_CBC, iv=bytes(16)).encrypt(pad(part, 16))
        return Answer(200, part, {"Content-Type": "video/mp4"})

    def _playlist(self, *, sealed: bool = False, name: str = "segment") -> bytes:
        key = f'#EXT-X-KEY:METHOD=AES-128,URI="key",IV=0x{"0" * 32}\n' if sealed else ""
        name = f"sealed-{name}" if sealed else name
        segments = "".join(f"#EXTINF:3.0,\n{name}{number}.mp4\n" for number in range(3))
        return f"#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:3\n{key}{segments}#EXT-X-ENDLIST\n".encode()

    def _files(self, request: Request) -> Answer:
        """Respond as a server of plain files."""
        media = {"Content-Type": "application/octet-stream"}
        if request.path.startswith("/clip"):  # any number of addresses
            return self._film(request)
        if request.path.startswith("/broken/"):
            return self._broken(request)
        if request.path.startswith("/sized/"):
            size = int(request.path.removeprefix("/sized/").partition(".")[0])
            return Answer(200, b"ID3", media, length=size, forever=bytes(256 * 1024))
        named = {"Content-Disposition": "attachment; filename*=UTF-8''caf%C3%A9.mov"}
        login = b"<!DOCTYPE html><title>Log in</title>" + b" " * 5000
        files = {
            "/film.mp4": self._film(request),
            "/named": Answer(200, self.film, media | named),
            "/moved": _redirect("https://files.example/film.mp4"),
            "/inside": _redirect("http://10.0.0.1/film.mp4"),
            "/page.mp3": Answer(200, login, {"Content-Type": "audio/mpeg"}),
            "/endless.mp3": Answer(200, b"ID3", {"Content-Type": "audio/mpeg"}, forever=bytes(64 * 1024)),
            "/huge.mp3": Answer(200, b"ID3", {"Content-Type": "audio/mpeg"}, length=10**12),
            "/often.mp3": Answer(429, headers={"Retry-After": "30"}),
            "/private.mp3": Answer(403),
            "/down.mp3": Answer(503),
            "/elsewhere.mp3": Answer(451),
        }
        return files.get(request.path, _not_found(request))

    def _broken(self, request: Request) -> Answer:
        """Cut off in the middle, the first time."""
        if request.path not in self.broken:
            self.broken.add(request.path)
            return Answer(200, self.film[: len(self.film) // 2], {"ETag": '"film"'}, length=len(self.film))
        return self._film(request)

    def _film(self, request: Request) -> Answer:
        headers = {"Content-Type": "video/mp4", "Accept-Ranges": "bytes", "ETag": '"film"'}
        span = request.headers.get("range", "").removeprefix("bytes=").partition("-")
        if not span[0]:
            return Answer(200, self.film, headers)
        start, last = int(span[0]), int(span[2] or len(self.film) - 1)
        part = self.film[start : last + 1]
        return Answer(206, part, headers | {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(self.film)}"})


def _not_found(request: Request) -> Answer:
    return Answer(404)


def _redirect(target: str) -> Answer:
    return Answer(302, headers={"Location": target})


def _page(body: str, headers: Mapping[str, str] | None = None) -> Answer:
    text = f"<!DOCTYPE html><html><head><meta charset=utf-8></head><body>{body}</body></html>"
    return Answer(200, text.encode(), {"Content-Type": "text/html; charset=utf-8", **(headers or {})})


def _tiktok_detail(post: str, status: int) -> dict[str, Any]:
    """``webapp.video-detail`` of a post's page, as of yt-dlp 2026.10."""
    if status:
        return {"statusCode": status, "statusMsg": "status"}
    media = "https://v16-webapp-prime.tiktok.com"
    return {
        "statusCode": 0,
        "itemInfo": {
            "itemStruct": {
                "id": post,
                "desc": "A fox jumps #standin",
                "createTime": "1707150000",
                "author": {
                    "id": "6900000000000000001",
                    "uniqueId": "standin",
                    "nickname": "Stand In",
                    "secUid": "MS4w",
                },
                "music": {
                    "title": "A song that is not the post's sound",
                    "authorName": "Somebody",
                    "playUrl": f"{media}/music.mp3?mime_type=audio_mpeg",
                    "duration": 60,
                },
                "stats": {"playCount": 1200, "diggCount": 34, "shareCount": 5, "commentCount": 6},
                "video": {
                    "duration": 4,
                    "width": 576,
                    "height": 1024,
                    "playAddr": f"{media}/video/play.mp4",
                    "cover": f"{media}/cover.jpeg",
                },
            }
        },
    }


def _douyin_detail() -> dict[str, Any]:
    """``aweme_detail`` of Douyin's web interface, as of yt-dlp 2026.10."""
    address = {"uri": "film", "url_list": ["https://v26-web.douyinvod.com/film.mp4"], "width": 576, "height": 1024}
    return {
        "aweme_detail": {
            "aweme_id": POST,
            "desc": "狐狸跳 #standin",
            "create_time": 1707150000,
            "author": {"uid": "100", "nickname": "替身", "sec_uid": "MS4w", "unique_id": "standin"},
            "statistics": {"digg_count": 7, "comment_count": 1, "share_count": 2, "play_count": 90},
            "video": {"duration": 4000, "width": 576, "height": 1024, "play_addr": address},
        }
    }


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, str, Mapping[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    fields = (line.partition(":") for line in lines[1:] if line)
    return method, target, {name.strip().lower(): value.strip() for name, _, value in fields}


@asynccontextmanager
async def stand_in(
    film: bytes, folder: Path, port: int = 0, latency_s: float = 0.0, authority: trustme.CA | None = None
) -> AsyncIterator[Site]:
    """Run the sites on a port of 127.0.0.1; the authority is written into the folder."""
    site = Site(film, folder, latency_s, authority=authority or trustme.CA())
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not server.is_serving():  # it came in the moment of the end
            writer.transport.abort()
            return
        connection = asyncio.create_task(site.serve(reader, writer))
        connections[connection] = writer
        connection.add_done_callback(connections.pop)

    site.authority.cert_pem.write_to_path(str(site.ca_file))
    server = await asyncio.start_server(accept, "127.0.0.1", port, backlog=256)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        under_way = dict(connections)
        for connection, writer in under_way.items():
            connection.cancel()
            writer.transport.abort()  # also of one that has not begun to be served
        await asyncio.gather(*under_way, return_exceptions=True)
        await server.wait_closed()


async def _run(wait: Callable[[Site], Awaitable[None]], arguments: argparse.Namespace) -> None:
    from tests.support import recordings, speech

    arguments.folder.mkdir(parents=True, exist_ok=True)
    sample = next(item for item in speech.of_language("en") if item.name == "quick_brown_fox")
    samples = (speech.join([sample], [0.0]).audio * 32767).astype(np.int16)
    film = recordings.encode(samples, "mp4", picture=True)
    async with stand_in(film, arguments.folder, arguments.port, arguments.latency_ms / 1000) as site:
        await wait(site)


async def _until_interrupted(site: Site) -> None:
    print(f"The sites are at {site.url}, their authority in {site.ca_file}", flush=True)  # noqa: T201 - it says where it is
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Sites on this machine", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8700)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/standins"), help="for the authority")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="before every answer")
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(_until_interrupted, parser.parse_args()))


if __name__ == "__main__":
    main()
