"""Attacks on what comes before a request is trusted, without a key, while a probe asks for the service's health.

::

    python -m tests.attacks.headers --url http://127.0.0.1:8000 [--only endless_header,slow_headers]

For each attack it prints how the service's health answered meanwhile, how much its processes grew, and what became of
the attackers' connections.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from urllib.parse import urlsplit

import psutil

from tests.support.processes import descendants

MIB = 1024 * 1024
GROWING = ("ProxyActor", "HAProxyManager", "haproxy", "ServeController", "Ingress")
"""What of a process's name or title makes it one of those that are watched."""
HEALTH = b"GET /api/health/check HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"
PROBE_PATIENCE_S = 10.0


@dataclass(frozen=True)
class ListeningAddress:
    """The address on which the service listens."""

    host: str
    port: int

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection(self.host, self.port)


@dataclass
class Attackers:
    """The outcomes of the attackers' connections: responses by status, ends without one, bytes that they could send."""

    ends: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    open: int = 0
    most_open: int = 0

    @contextlib.asynccontextmanager
    async def connection(
        self, target: ListeningAddress
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Open a connection that is counted, and note its end."""
        try:
            reader, writer = await target.open()
        except OSError as error:
            self.ends[type(error).__name__] += 1
            return
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            yield reader, writer
            self.ends[await _answer(reader)] += 1
        except (OSError, asyncio.IncompleteReadError) as error:
            self.ends[await _answer(reader) or type(error).__name__] += 1
        except asyncio.CancelledError:
            self.ends["still open"] += 1
            raise
        finally:
            self.open -= 1
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def send(self, writer: asyncio.StreamWriter, content: bytes) -> None:
        """Send as fast as the other side reads."""
        writer.write(content)
        await writer.drain()
        self.sent_bytes += len(content)


Attack = Callable[[ListeningAddress, Attackers], Awaitable[None]]


async def endless_header(target: ListeningAddress, attackers: Attackers) -> None:
    """Send one header whose value never ends."""
    async with attackers.connection(target) as (_, writer):
        await attackers.send(writer, b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ")
        while True:
            await attackers.send(writer, b"a" * 65_536)


async def many_headers(target: ListeningAddress, attackers: Attackers) -> None:
    """Send a hundred thousand headers, again and again."""
    while True:
        async with attackers.connection(target) as (_, writer):
            await attackers.send(writer, b"GET /api/health/check HTTP/1.1\r\nHost: a\r\n")
            for first in range(0, 100_000, 1000):
                lines = b"".join(b"x-%d: a\r\n" % number for number in range(first, first + 1000))
                await attackers.send(writer, lines)
            await attackers.send(writer, b"\r\n")


async def slow_headers(target: ListeningAddress, attackers: Attackers) -> None:
    """Five hundred connections that send one byte of a header a second."""

    async def one() -> None:
        while True:
            async with attackers.connection(target) as (reader, writer):
                await attackers.send(writer, b"GET /api/health/check HTTP/1.1\r\nHost: a\r\nX-Slow: ")
                while not reader.at_eof():
                    await attackers.send(writer, b"a")
                    await asyncio.sleep(1)

    await _all(one, 500)


async def half_heads(target: ListeningAddress, attackers: Attackers) -> None:
    """Four thousand connections that send almost as much of a head as is taken, and wait to be closed."""
    half = b"GET /api/health/check HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 63_000

    async def one() -> None:
        while True:
            async with attackers.connection(target) as (reader, writer):
                await attackers.send(writer, half)
                await reader.read(1)
            await asyncio.sleep(0.1)

    await _all(one, 4000)


async def endless_request_line(target: ListeningAddress, attackers: Attackers) -> None:
    """Send a URL that never ends."""
    async with attackers.connection(target) as (_, writer):
        await attackers.send(writer, b"GET /")
        while True:
            await attackers.send(writer, b"a" * 65_536)


async def idle_connections(target: ListeningAddress, attackers: Attackers) -> None:
    """Five thousand connections that send nothing, opened again when they are closed."""

    async def one() -> None:
        while True:
            async with attackers.connection(target) as (reader, _):
                await reader.read(1)
            await asyncio.sleep(0.1)

    await _all(one, 5000)


async def endless_trailers(target: ListeningAddress, attackers: Attackers) -> None:
    """Send a chunked body whose trailers never end."""
    while True:
        async with attackers.connection(target) as (_, writer):
            await attackers.send(writer, _chunked_head() + b"1\r\na\r\n0\r\n")
            while True:
                await attackers.send(writer, b"x-trailer: a\r\n" * 5000)


async def endless_chunk_extension(target: ListeningAddress, attackers: Attackers) -> None:
    """Send a chunk whose extension never ends."""
    while True:
        async with attackers.connection(target) as (_, writer):
            await attackers.send(writer, _chunked_head() + b"1;name=")
            while True:
                await attackers.send(writer, b"a" * 65_536)


async def pipelining(target: ListeningAddress, attackers: Attackers) -> None:
    """Send requests without end on one connection, and do not read the responses."""
    while True:
        async with attackers.connection(target) as (_, writer):
            while True:
                await attackers.send(writer, b"GET /api/health/check HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)


async def unread_answers(target: ListeningAddress, attackers: Attackers) -> None:
    """Send a body without end for a request that has long had its response."""
    async with attackers.connection(target) as (_, writer):
        await attackers.send(writer, _chunked_head(b"/api/no/such/route"))
        while True:
            await attackers.send(writer, b"10000\r\n" + b"a" * 65_536 + b"\r\n")


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        endless_header,
        many_headers,
        slow_headers,
        half_heads,
        endless_request_line,
        idle_connections,
        endless_trailers,
        endless_chunk_extension,
        pipelining,
        unread_answers,
    )
}


@dataclass(frozen=True)
class Figures:
    """The figures of an attack."""

    attack: str
    health_p50_s: float
    health_p99_s: float
    probes: int
    probes_failed: int
    grown_mib: dict[str, float]
    sent_mib: float
    most_open: int
    ends: dict[str, int]


async def run(attack: Attack, target: ListeningAddress, seconds: float) -> Figures:
    """Run one attack for so long, watched by another process, whose probe does not wait for the attackers' own work."""
    attackers, loop = Attackers(), asyncio.get_running_loop()
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        observed = loop.run_in_executor(pool, observe, target, seconds)
        task = asyncio.ensure_future(attack(target, attackers))
        seen = await observed
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await task
    grown = {name: round(mib - seen.before_mib.get(name, 0.0), 1) for name, mib in seen.peak_mib.items()}
    ordered = sorted(seen.latencies_s)
    return Figures(
        attack=attack.__name__,
        health_p50_s=round(_quantile(ordered, 0.5), 3),
        health_p99_s=round(_quantile(ordered, 0.99), 3),
        probes=len(ordered),
        probes_failed=seen.failed,
        grown_mib={name: mib for name, mib in grown.items() if mib >= 1},
        sent_mib=round(attackers.sent_bytes / MIB, 1),
        most_open=attackers.most_open,
        ends=dict(attackers.ends),
    )


@dataclass
class HealthObservation:
    """The times of the service's health checks, and the memory of its HTTP processes."""

    before_mib: dict[str, float]
    peak_mib: dict[str, float] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    failed: int = 0


def observe(target: ListeningAddress, seconds: float) -> HealthObservation:
    """Request the health ten times a second at most, and read the processes' memory."""
    root = _root(target.port)
    seen, end = HealthObservation(memory(root)), time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        seen.failed += not _is_healthy(target)
        seen.latencies_s.append(time.monotonic() - began)
        for name, mib in memory(root).items():
            seen.peak_mib[name] = max(seen.peak_mib.get(name, 0.0), mib)
        time.sleep(0.1)
    return seen


def memory(root: psutil.Process) -> dict[str, float]:
    """Resident MiB of the service's HTTP processes, the sum of those of one name."""
    total = Counter[str]()
    for process in (root, *descendants(root.pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline())
            name = next((name for name in GROWING if name in title), None)
            if name:
                total[name] += process.memory_info().rss
    return {name: resident / MIB for name, resident in total.items()}


def _root(port: int) -> psutil.Process:
    """Return the process below which all of the service runs."""
    listener = next(
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr.port == port
        and connection.pid
    )
    lineage = [psutil.Process(listener), *psutil.Process(listener).parents()]
    return next((process for process in reversed(lineage) if "raylet" in " ".join(process.cmdline())), lineage[0])


def _is_healthy(target: ListeningAddress) -> bool:
    try:
        with socket.create_connection((target.host, target.port), timeout=PROBE_PATIENCE_S) as connection:
            connection.sendall(HEALTH)
            return connection.recv(1024).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


async def _answer(reader: asyncio.StreamReader) -> str:
    """Return the status of a response, ``closed`` where there was none."""
    try:
        line = await reader.readline()
    except (OSError, ValueError):
        return "reset"
    words = line.split()
    return words[1].decode() if len(words) > 1 else "closed"


async def _all(one: Callable[[], Awaitable[None]], number: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(one())  # type: ignore[arg-type]


def _chunked_head(path: bytes = b"/api/whisper/tasks/query") -> bytes:
    return (
        b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def main() -> None:
    """Run the attacks that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=12.0, help="how long each attack goes on")
    parser.add_argument("--only", default=",".join(ATTACKS), help="names of attacks, by commas")
    chosen = parser.parse_args()
    address = urlsplit(chosen.url)
    target = ListeningAddress(address.hostname or "127.0.0.1", address.port or 80)
    for name in chosen.only.split(","):
        figures = asyncio.run(run(ATTACKS[name], target, chosen.seconds))
        sys.stdout.write(json.dumps(asdict(figures)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
