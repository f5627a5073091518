"""Cooperative use of the event loop: no work that grows with a request or a response runs on it in one piece.

Work in Python moves to a few threads, between which the interpreter switches. It must consist of small steps, because a
call into C (a parser, a serialiser) holds the interpreter lock until it returns. Work that stays on the loop yields
control at intervals.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import Context
from typing import ParamSpec, TypeVar

from pipeline.worker_threads import in_worker

P = ParamSpec("P")
T = TypeVar("T")

SLICE_BYTES = 16 * 1024
"""Bytes that are parsed in one piece: a few milliseconds of the densest form."""
STEPS_PER_TURN = 32
"""Messages of any size that are handled before the loop runs other tasks."""
PIECE_BYTES = 64 * 1024
"""Bytes that are sent in one piece, and produced in one call of a worker thread."""
WORKERS = 2
"""Threads for work in Python. More threads would only compete with the event loop for the interpreter lock."""
SWITCH_INTERVAL_S = 0.001
SMALL_BYTES = 16 * 1024
"""Smaller input is processed directly: handing it to a thread would cost more."""


def tune_interpreter() -> None:
    """Shorten the interpreter's switch interval, and exclude all present objects from garbage collection.

    Called once, after the process has loaded its modules. A busy thread then yields to the loop after one millisecond
    instead of five, which matters several times a request. A collection over all loaded objects would stop every thread
    for 70 ms.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()


class LoopBudget:
    """A count of bytes and steps that yields control to the event loop whenever a turn is used up."""

    def __init__(self, bytes_per_turn: int = PIECE_BYTES, steps_per_turn: int = STEPS_PER_TURN) -> None:
        self._bytes_per_turn = bytes_per_turn
        self._steps_per_turn = steps_per_turn
        self._bytes = 0
        self._steps = 0

    async def spend(self, size_bytes: int) -> None:
        """Count one step of ``size_bytes``, and yield to the event loop if that uses up the turn."""
        self._bytes += size_bytes
        self._steps += 1
        if self._bytes >= self._bytes_per_turn or self._steps >= self._steps_per_turn:
            self._bytes = self._steps = 0
            await asyncio.sleep(0)


class WorkerThreads:
    """A few threads for work that would block the event loop.

    Calls are served in order of arrival. Work in pieces queues again for each piece.
    """

    def __init__(self, threads: int = WORKERS) -> None:
        self._threads = ThreadPoolExecutor(threads, "api-work")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in one of the threads and return its result. A cancelled caller still waits for the call."""
        return await in_worker(self._threads, function, *args, **kwargs)

    async def pieces(self, made: Iterator[bytes], piece_bytes: int = PIECE_BYTES) -> AsyncGenerator[bytes, None]:
        """Yield the output of an iterator in pieces of at least ``piece_bytes``, except for the last."""
        while piece := await self.run(_next_piece, made, piece_bytes):
            yield piece


def _next_piece(made: Iterator[bytes], piece_bytes: int) -> bytes:
    piece = bytearray()
    for part in made:
        piece += part
        if len(piece) >= piece_bytes:
            break
    return bytes(piece)


def slices(data: bytes, size_bytes: int = SLICE_BYTES) -> Iterator[bytes]:
    """Yield the data in slices of at most ``size_bytes``."""
    for start in range(0, len(data), size_bytes):
        yield data[start : start + size_bytes]


def single_flight(work: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
    """Return a version of ``work`` that runs once at a time: callers that arrive while it runs get its result.

    Cancelling a caller does not cancel the work.
    """
    running: asyncio.Task[T] | None = None

    async def run() -> T:
        return await work()

    async def joined() -> T:
        nonlocal running
        if running is None or running.done():
            running = asyncio.create_task(run(), context=Context())
        return await asyncio.shield(running)

    return joined


class FairSemaphore:
    """A semaphore that serves waiting clients in rotation, so that none can occupy every slot.

    Args:
        slots: the number of holders at the same time. One client holds at most half of them, and at least one.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._share = max(1, slots // 2)
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def hold(self, client: str | None) -> AsyncIterator[None]:
        """Wait for a slot and hold it. Unnamed clients (``None``) have no limit of their own."""
        name = client or ""
        await self.acquire(name)
        try:
            yield
        finally:
            self.release(name)

    async def acquire(self, client: str) -> None:
        """Wait for a slot, which the caller gives back with ``release``."""
        if client not in self._waiting and self._may_hold(client):
            self._count(client)
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():  # the slot was granted just before the cancellation
                self.release(client)
            raise

    def _may_hold(self, client: str) -> bool:
        return self._free > 0 and (not client or self._held[client] < self._share)

    def _count(self, client: str) -> None:
        self._free -= 1
        self._held[client] += 1

    def release(self, client: str) -> None:
        """Release a slot, and grant it to the next waiting client."""
        self._free += 1
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
        self._grant_next()

    def _grant_next(self) -> None:
        """Grant the free slot to the first waiting client that may hold it, and move that client to the end."""
        for client in [*self._waiting]:
            while self._may_hold(client) and (queue := self._waiting.get(client)):
                granted = queue.popleft()
                del self._waiting[client]
                if queue:
                    self._waiting[client] = queue
                if not granted.done():  # otherwise the caller was cancelled
                    self._count(client)
                    granted.set_result(None)
                    return
