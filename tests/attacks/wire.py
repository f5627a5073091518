"""Requests written byte by byte, since a proper HTTP client would not send them."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from tests.attacks.service import ATTACKER, Target, key_of

BLOCK = bytes(64 * 1024)
MORE_FILES = 8192

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def allow_many_sockets() -> None:
    """Raise this process's own limit of open files as far as it may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(MORE_FILES, hard), hard))


def head(method: str, path: str, headers: dict[str, str] | None = None, client: str | None = ATTACKER) -> bytes:
    """Return a request's head, with the client's key unless ``client`` is ``None``; the blank line included."""
    lines = {
        "Host": "127.0.0.1",
        **({"Authorization": f"Bearer {key_of(client)}"} if client else {}),
        **(headers or {}),
    }
    return (f"{method} {path} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines.items()) + "\r\n").encode()


async def connect(target: Target, receive_buffer: int | None = None) -> Connection:
    """Open a connection; with a small ``receive_buffer`` nothing is accepted unless it is read."""
    if receive_buffer is None:
        return await asyncio.open_connection("127.0.0.1", target.port)
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", target.port))
    return await asyncio.open_connection(sock=plain, limit=receive_buffer)


async def pour(writer: asyncio.StreamWriter, blocks: Iterable[bytes]) -> int:
    """Send blocks until there are no more or the other side closes; return the number of bytes sent."""
    sent = 0
    try:
        for block in blocks:
            writer.write(block)
            await writer.drain()
            sent += len(block)
    except ConnectionError:
        writer.transport.abort()
    return sent


async def status_of(reader: asyncio.StreamReader, timeout_s: float = 30.0) -> str:
    """Return the status of the response, ``closed`` without one, ``silent`` if none comes in time."""
    try:
        async with asyncio.timeout(timeout_s):
            line = await reader.readline()
    except TimeoutError:
        return "silent"
    except (ConnectionError, asyncio.LimitOverrunError, ValueError):
        return "closed"
    parts = line.split()
    return parts[1].decode() if len(parts) > 1 else "closed"


async def exchange(target: Target, request: Sequence[bytes], timeout_s: float = 30.0) -> str:
    """Send a request and return the status of its response; see ``status_of``."""
    try:
        reader, writer = await connect(target)
    except OSError:
        return "refused"
    try:
        sending = asyncio.create_task(pour(writer, request))
        status = await status_of(reader, timeout_s)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        return status
    finally:
        writer.close()


async def many(count: int, one: Callable[[int], Awaitable[str]], at_once: int) -> Counter[str]:
    """Count the outcomes of ``count`` calls, ``at_once`` of them at a time."""
    slots = asyncio.Semaphore(at_once)

    async def call(number: int) -> str:
        async with slots:
            return await one(number)

    return Counter(await asyncio.gather(*map(call, range(count))))


def json_request(path: str, body: bytes | object, client: str | None = ATTACKER) -> list[bytes]:
    """Return a POST of JSON; bytes are sent as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"}
    return [head("POST", path, headers, client), content]


def form_request(path: str, body: bytes, boundary: str = "e", client: str | None = ATTACKER) -> list[bytes]:
    """Return a POST of a multipart body as it stands, cut into blocks."""
    headers = {
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    return [head("POST", path, headers, client), *cut(body)]


def cut(content: bytes, size: int = 256 * 1024) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


async def keep(connections: Iterable[Connection], drop: bytes, period_s: float) -> AsyncIterator[int]:
    """Send a drop on every connection each period; yield the number of those still open."""
    alive = list(connections)
    while True:
        for connection in list(alive):
            try:
                connection[1].write(drop)
                await connection[1].drain()
            except ConnectionError:
                alive.remove(connection)
            else:
                if connection[0].at_eof():
                    alive.remove(connection)
        yield len(alive)
        await asyncio.sleep(period_s)
