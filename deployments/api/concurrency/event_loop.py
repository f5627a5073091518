"""The event loop, shared: nothing that grows with a request or an answer runs on it in one piece.

Work in Python goes to a few threads, which the interpreter takes turns with; it must come in small steps, because a
call into C (a parser, a serialiser) holds the interpreter until it returns. What stays on the loop pauses now and then.
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
"""What is parsed in one piece: a few milliseconds of the densest form."""
STEPS_PER_TURN = 32
"""Messages, however small, that are taken in one turn of the loop."""
PIECE_BYTES = 64 * 1024
"""What is sent in one piece, and made in one turn of a worker thread."""
WORKERS = 2
"""Threads for work in Python: more would only wait for the interpreter, and the loop for them."""
SWITCH_INTERVAL_S = 0.001
SMALL_BYTES = 16 * 1024
"""Work on less than this is done at once: a thread would cost more."""


def tune_interpreter() -> None:
    """Have the interpreter hand itself on sooner, and look for garbage only among what is made from now on.

    Called once, when the process has loaded what it needs. A thread that works lets the loop in after a millisecond
    instead of five, several times a request; and to look through all that is loaded takes 70 ms, in which nobody runs.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()


class LoopBudget:
    """Counts bytes and steps, and gives the loop to others when it has had enough of them."""

    def __init__(self, bytes_per_turn: int = PIECE_BYTES, steps_per_turn: int = STEPS_PER_TURN) -> None:
        self._bytes_per_turn = bytes_per_turn
        self._steps_per_turn = steps_per_turn
        self._bytes = 0
        self._steps = 0

    async def spend(self, size_bytes: int) -> None:
        """Count a step of so many bytes; pause if it was the last of this turn."""
        self._bytes += size_bytes
        self._steps += 1
        if self._bytes >= self._bytes_per_turn or self._steps >= self._steps_per_turn:
            self._bytes = self._steps = 0
            await asyncio.sleep(0)


class WorkerThreads:
    """A few threads for work that would hold up the event loop.

    Who comes first is served first; what one caller has made in pieces waits for its turn with each of them.
    """

    def __init__(self, threads: int = WORKERS) -> None:
        self._threads = ThreadPoolExecutor(threads, "api-work")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the function does, called in one of the threads. A caller that is cancelled waits for it."""
        return await in_worker(self._threads, function, *args, **kwargs)

    async def pieces(self, made: Iterator[bytes], piece_bytes: int = PIECE_BYTES) -> AsyncGenerator[bytes, None]:
        """Yield what an iterator makes, in pieces of at least so many bytes but for the last."""
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
    """Yield the data in slices of at most so many bytes."""
    for start in range(0, len(data), size_bytes):
        yield data[start : start + size_bytes]


def shared(work: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
    """Return the work so that those who ask for it while it is under way get its result: it runs once at a time.

    Who stops waiting does not stop the work.
    """
    under_way: asyncio.Task[T] | None = None

    async def run() -> T:
        return await work()

    async def joined() -> T:
        nonlocal under_way
        if under_way is None or under_way.done():
            under_way = asyncio.create_task(run(), context=Context())
        return await asyncio.shield(under_way)

    return joined


class FairSemaphore:
    """Room for a few at a time; who waits is let in client by client, each in turn.

    Args:
        places: how many are in at the same time; a client has at most half of them.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._share = max(1, places // 2)
        self._inside: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def one(self, client: str | None) -> AsyncIterator[None]:
        """Wait for a place, and hold it; for ``None``, who is nobody in particular, without a share."""
        name = client or ""
        await self.acquire(name)
        try:
            yield
        finally:
            self.release(name)

    async def acquire(self, client: str) -> None:
        """Wait for a place, which the caller gives back with ``release``."""
        if client not in self._waiting and self._has_room(client):
            self._take(client)
            return
        called = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(called)
        try:
            await called
        except asyncio.CancelledError:
            if called.done() and not called.cancelled():  # it was given a place in this very moment
                self.release(client)
            raise

    def _has_room(self, client: str) -> bool:
        return self._free > 0 and (not client or self._inside[client] < self._share)

    def _take(self, client: str) -> None:
        self._free -= 1
        self._inside[client] += 1

    def release(self, client: str) -> None:
        """Give a place back, to the next client in the line."""
        self._free += 1
        self._inside[client] -= 1
        if not self._inside[client]:
            del self._inside[client]
        self._call_next()

    def _call_next(self) -> None:
        """Give the free place to the first client in the line that may have it, which then stands behind the others."""
        for client in [*self._waiting]:
            while self._has_room(client) and (queue := self._waiting.get(client)):
                called = queue.popleft()
                del self._waiting[client]
                if queue:
                    self._waiting[client] = queue
                if not called.done():  # else it has gone away
                    self._take(client)
                    called.set_result(None)
                    return
