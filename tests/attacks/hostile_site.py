"""The web of an attacker: hosts that drip, pages without an end, fragments that unfold, receivers that never answer.

All of it listens on one port of 127.0.0.0/8: ``127.0.0.2`` and ``127.0.0.3`` are hosts of their own to the service.
"""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

GIBIBYTE = 1024 * 1024 * 1024
FRAGMENTS = 4
DRIP_S = 1.0
PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:0\n"


@cache
def unfolding(size_bytes: int) -> bytes:
    """Make a gzip file of so many zeros, a thousandth of their size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    return b"".join([packer.compress(block) for _ in range(size_bytes >> 20)] + [packer.flush()])


@dataclass
class HostileSite:
    """The attacker's web server while it runs.

    Attributes:
        port: on every address of 127.0.0.0/8.
        clip: what ``/clip.wav`` sends.
        requests: paths that were asked for.
    """

    clip: bytes
    port: int = 0
    requests: list[str] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode("latin-1").partition("?")[0]
            self.requests.append(path)
            await self._answer(path, head.startswith(b"HEAD "), writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _answer(self, path: str, head_only: bool, writer: asyncio.StreamWriter) -> None:
        if path.startswith("/drip"):
            await _drip(writer, b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n\r\nID3")
        elif path.startswith("/mute"):  # takes a request and drips the head of an answer
            await _drip(writer, b"HTTP/1.1 200 OK\r\n", b"X")
        elif path.startswith("/clip"):
            await _send(writer, self.clip, "audio/wav", head_only=head_only)
        elif path.startswith("/endless"):
            await _send_endlessly(writer)
        elif path.startswith("/page"):
            video = f'<video src="{self.url("/bomb.m3u8")}"></video>'
            page = f"<!DOCTYPE html><html><title>A page</title><body>{video}</body></html>"
            await _send(writer, page.encode(), "text/html", head_only=head_only)
        elif path == "/bomb.m3u8":
            lines = "".join(f"#EXTINF:10.0,\n/fragment{number}.ts\n" for number in range(FRAGMENTS))
            content = f"{PLAYLIST}{lines}#EXT-X-ENDLIST\n".encode()
            await _send(writer, content, "application/vnd.apple.mpegurl", head_only=head_only)
        elif path.startswith("/fragment"):
            await _send(writer, unfolding(GIBIBYTE), "video/mp2t", "gzip", head_only=head_only)
        else:
            await _send(writer, b"", "text/plain", head_only=head_only)


async def _drip(writer: asyncio.StreamWriter, beginning: bytes, drop: bytes = b"\0") -> None:
    writer.write(beginning)
    while True:
        writer.write(drop)
        await writer.drain()
        await asyncio.sleep(DRIP_S)


async def _send(
    writer: asyncio.StreamWriter, content: bytes, media_type: str, encoding: str = "", *, head_only: bool = False
) -> None:
    packed = f"Content-Encoding: {encoding}\r\n" if encoding else ""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {len(content)}\r\n{packed}"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + (b"" if head_only else content))
    await writer.drain()


async def _send_endlessly(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<!DOCTYPE html><html><body>")
    block = b"<p class=x>more <a href='/x'>and more</a></p>" * 1500
    while True:
        writer.write(block)
        await writer.drain()


@contextmanager
def hostile_site(clip: bytes) -> Iterator[HostileSite]:
    """Run the server in a thread of its own."""
    site = HostileSite(clip)
    started: Future[Callable[[], object]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        server = await asyncio.start_server(site.serve, "0.0.0.0", 0)
        site.port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        started.set_result(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    stop = started.result()
    try:
        yield site
    finally:
        stop()
        thread.join()
