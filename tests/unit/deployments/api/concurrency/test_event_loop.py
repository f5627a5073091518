"""Cooperation on the event loop: other tasks run while a body is read, and waiting clients are served in rotation."""

from __future__ import annotations

import asyncio
import gc
import gzip
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.types import Message

from deployments.api.concurrency.event_loop import (
    FairSemaphore,
    LoopBudget,
    WorkerThreads,
    single_flight,
    slices,
    tune_interpreter,
)
from deployments.api.request.multipart import MAX_PARTS
from tests.support.builders import blocks
from tests.unit.deployments.api.world import World, client_of

CREATE = "/api/whisper/tasks/create"
UPLOADS = "/api/whisper/uploads"
FORM = {"content-type": "multipart/form-data; boundary=edge"}
PART = b'--edge\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n'
FIELD = b'--edge\r\nContent-Disposition: form-data; name="platform"\r\n\r\n'
FILE = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
END = b"\r\n--edge--\r\n"
KIB = 1024


class Ticker:
    """Another task on the loop, which counts how often it runs."""

    def __init__(self) -> None:
        self.ticks = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def run() -> None:
            while True:
                self.ticks += 1
                await asyncio.sleep(0)

        running = asyncio.create_task(run())
        try:
            yield
        finally:
            running.cancel()


class Fed:
    """A body that is available at once, so that reading never waits. Records the most bytes read between two ticks."""

    def __init__(self, ticker: Ticker, body: bytes, block_bytes: int = 64 * KIB) -> None:
        self._ticker = ticker
        self._blocks: Iterator[bytes] = slices(body, block_bytes)
        self._tick = 0
        self._since = 0
        self.read_bytes = 0
        self.most_bytes = 0

    def next(self) -> bytes | None:
        block = next(self._blocks, None)
        if self._ticker.ticks != self._tick:
            self._tick, self._since = self._ticker.ticks, 0
        size_bytes = len(block or b"")
        self._since += size_bytes
        self.read_bytes += size_bytes
        self.most_bytes = max(self.most_bytes, self._since)
        return block

    async def receive(self) -> Message:
        block = self.next()
        return {"type": "http.request", "body": block or b"", "more_body": block is not None}


async def post(world: World, path: str, body: bytes, headers: dict[str, str], block_bytes: int = 64 * KIB) -> Fed:
    """Send a body that is available at once, as Serve's proxy hands it over."""
    app = world.api()
    ticker = Ticker()
    fed = Fed(ticker, body, block_bytes)
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "app": app,
    }

    async def send(_: Message) -> None:
        """Discard a message."""

    async with ticker.running():
        await app(scope, fed.receive, send)
    return fed


BODIES = {
    "empty file parts": (PART * 100_000 + END, FORM),
    "parts within parts": (FIELD + (PART * 60_000) + END, FORM),
    "one large field": (FIELD + b"x" * 4_000_000 + END, FORM),
    "a file of line breaks": (FILE + b"\r\n" * 2_000_000 + END, FORM),
    "a file of almost boundaries": (FILE + b"\r\n--edg" * 500_000 + END, FORM),
    "a long preamble": (b"\r\n" * 2_000_000 + FILE, FORM),
    "a long epilogue": (FILE + END + b"\r\n--edge" * 500_000, FORM),
    "a header without end": (b"--edge\r\nA: " + b"b" * 4_000_000, FORM),
    "headers without end": (b"--edge\r\n" + b"A: b\r\n" * 500_000, FORM),
    "no form at all": (b"\x00" * 4_000_000, FORM),
    "urlencoded fields": (b"a=&" * 300_000, {"content-type": "application/x-www-form-urlencoded"}),
    "urlencoded escapes": (b"a=" + b"%41" * 300_000, {"content-type": "application/x-www-form-urlencoded"}),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("block_bytes", [64 * KIB, 1024 * KIB])
async def test_others_run_while_a_body_is_read(world: World, name: str, block_bytes: int) -> None:
    body, headers = BODIES[name]
    fed = await post(world, CREATE, body, headers, block_bytes)
    assert fed.most_bytes <= 2 * block_bytes


async def test_the_parts_of_a_form_are_counted_as_they_come(world: World) -> None:
    async with client_of(world.api()) as client:
        enough = PART * (MAX_PARTS - 1) + FILE + b"abc" + END
        assert (await client.post(CREATE, content=enough, headers=FORM)).status_code == 200
        answer = await client.post(CREATE, content=PART * 600 + FILE + b"abc" + END, headers=FORM)
        assert answer.status_code == 400
        assert f"more than {MAX_PARTS} parts" in answer.json()["detail"]["message"]
    assert await world.task_count() == 1


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'--edge\r\nContent-Disposition: form-data; name="%s"\r\n\r\nx' % (b"n" * 201) + END, 400, "name"),
        (b"--edge\r\n" + b"A: b\r\n" * 20 + b"\r\nx" + END, 400, "multipart"),
        (b"--edge\r\nA: " + b"b" * 5000 + b"\r\n\r\nx" + END, 400, "multipart"),
        (b"".join(FIELD + b"x" * 60_000 + b"\r\n" for _ in range(20)) + END[2:], 413, "together"),
        (b"\r\n" * 60_000 + FILE + b"abc" + END, 400, "before the first"),
        (FILE + b"abc" + END + b"x" * 200_000, 400, "after the last"),
    ],
)
async def test_a_form_that_goes_too_far(world: World, body: bytes, status: int, said: str) -> None:
    async with client_of(world.api()) as client:
        answer = await client.post(CREATE, content=body, headers=FORM)
    assert (answer.status_code, said in answer.json()["detail"]["message"]) == (status, True), answer.text
    assert (await world.task_count(), world.media.keys) == (0, frozenset())


TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "100000000", "Content-Type": "application/offset+octet-stream"}


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (gzip.compress(bytes(30_000_000)), "gzip"),
        (zlib.compress(bytes(30_000_000)), "deflate"),
        (gzip.compress(b"") * 30_000, "gzip"),
        (gzip.compress(b"") + bytes(2_000_000), "gzip"),
        (gzip.compress(b"x") * 30_000, "gzip"),
    ],
    ids=["gzip", "deflate", "empty members", "padding", "members of a byte"],
)
async def test_others_run_while_a_body_is_unpacked(world: World, packed: bytes, encoding: str) -> None:
    ticker = Ticker()
    app = world.api()
    unpacked_between: list[int] = [0]
    write = world.media.write

    async def watched_write(key: str, data: AsyncIterator[bytes]) -> int:
        async def watched() -> AsyncIterator[bytes]:
            tick = ticker.ticks
            async for block in data:
                unpacked_between[-1] += len(block)
                if ticker.ticks != tick:
                    tick = ticker.ticks
                    unpacked_between.append(0)
                yield block

        return await write(key, watched())

    world.media.write = watched_write  # type: ignore[method-assign]
    async with ticker.running(), client_of(app) as client:
        before = ticker.ticks
        await client.post(
            UPLOADS, content=blocks(*slices(packed, 64 * KIB)), headers={**TUS, "Content-Encoding": encoding}
        )
    assert max(unpacked_between) <= 3 * 64 * KIB
    assert ticker.ticks - before >= len(packed) // (64 * KIB)


async def test_members_with_nothing_in_them_are_counted(world: World) -> None:
    async with client_of(world.api()) as client:
        packed = {**TUS, "Content-Encoding": "gzip"}
        answer = await client.post(UPLOADS, content=gzip.compress(b"") * 5000, headers=packed)
        assert answer.status_code == 400
        answer = await client.post(UPLOADS, content=gzip.compress(b"x") * 5000, headers=packed)
        assert (answer.status_code, answer.headers["upload-offset"]) == (201, "5000")


async def test_a_long_replay_lets_others_run(world: World, client: httpx.AsyncClient) -> None:
    from tests.unit.deployments.api.response.test_task_page import long

    task = await world.completed(long(500))
    ticker = Ticker()
    async with (
        ticker.running(),
        client.stream("GET", f"/api/whisper/tasks/events?task_id={task.id}") as answer,
    ):
        lines = [line async for line in answer.aiter_lines()]
    assert lines.count("event: segment") == 999
    assert ticker.ticks >= 999 // 32


def test_the_interpreter_is_shared_sooner_and_what_is_loaded_is_no_garbage() -> None:
    before = sys.getswitchinterval()
    try:
        tune_interpreter()
        assert sys.getswitchinterval() < before
        assert gc.get_freeze_count() > 10_000
    finally:
        sys.setswitchinterval(before)
        gc.unfreeze()


# --- turns, workers, semaphore ----------------------------------------------------------------------------------------


async def test_a_turn_ends_after_bytes_or_steps() -> None:
    ticker = Ticker()
    turns = LoopBudget(bytes_per_turn=100, steps_per_turn=4)
    async with ticker.running():
        await asyncio.sleep(0)
        for sizes, pauses in (([10, 10, 10], 0), ([1], 1), ([99], 0), ([1], 1), ([500], 1), ([0, 0, 0, 0], 1)):
            before = ticker.ticks
            for size in sizes:
                await turns.spend(size)
            assert ticker.ticks - before == pauses, sizes


async def test_work_is_done_in_a_thread_and_what_it_raises_comes_back() -> None:
    workers = WorkerThreads()
    assert await workers.run(sum, [1, 2]) == 3
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 // 0)
    made = [piece async for piece in workers.pieces((b"abc" for _ in range(5)), 6)]
    assert made == [b"abcabc", b"abcabc", b"abc"]


async def test_work_that_is_under_way_is_shared() -> None:
    begun, go = 0, asyncio.Event()

    async def work() -> int:
        nonlocal begun
        begun += 1
        await go.wait()
        if begun == 2:
            raise ValueError
        return begun

    joined = single_flight(work)
    waiting = [asyncio.create_task(joined()) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # the others still get the result
    go.set()
    assert await asyncio.gather(*waiting[1:]) == [1] * 4
    with pytest.raises(ValueError):  # noqa: PT011
        await joined()
    assert await joined() == 3


async def enter(semaphore: FairSemaphore, client: str, order: list[str], leave: asyncio.Event) -> None:
    async with semaphore.hold(client):
        order.append(client)
        await leave.wait()


async def test_clients_take_turns() -> None:
    semaphore, order, leave = FairSemaphore(1), list[str](), asyncio.Event()
    tasks = []
    for client in "aaaabbc":
        tasks.append(asyncio.create_task(enter(semaphore, client, order, leave)))
        await asyncio.sleep(0)
    assert order == ["a"]
    leave.set()
    await asyncio.gather(*tasks)
    assert order == ["a", "a", "b", "c", "a", "b", "a"]


async def test_a_client_has_half_of_the_places() -> None:
    semaphore, order, leave = FairSemaphore(4), list[str](), asyncio.Event()
    tasks = []
    for client in ["a", "a", "a", "a", "b", "b", "b", "c"]:
        tasks.append(asyncio.create_task(enter(semaphore, client, order, leave)))
        await asyncio.sleep(0)
    assert order == ["a", "a", "b", "b"]
    leave.set()
    await asyncio.gather(*tasks)
    assert sorted(order) == ["a"] * 4 + ["b"] * 3 + ["c"]
    nobody = [asyncio.create_task(enter(semaphore, "", order, asyncio.Event())) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order[8:] == [""] * 4
    for task in nobody:
        task.cancel()
    await asyncio.gather(*nobody, return_exceptions=True)
    async with semaphore.hold("a"), semaphore.hold("a"), semaphore.hold("b"), semaphore.hold(None):
        pass


async def test_who_goes_away_while_waiting_takes_no_place() -> None:
    semaphore, order, leave = FairSemaphore(1), list[str](), asyncio.Event()
    tasks = []
    for client in "abc":
        tasks.append(asyncio.create_task(enter(semaphore, client, order, leave)))
        await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    tasks[0].cancel()  # the slot goes to the third
    await asyncio.gather(*tasks[:2], return_exceptions=True)
    await asyncio.sleep(0)
    assert order == ["a", "c"]
    leave.set()
    await tasks[2]
    async with semaphore.hold("d"):
        pass


async def test_a_place_given_in_the_moment_of_a_cancel_is_passed_on() -> None:
    semaphore, order, leave = FairSemaphore(1), list[str](), asyncio.Event()
    tasks = []
    for client in "abc":
        tasks.append(asyncio.create_task(enter(semaphore, client, order, leave)))
        await asyncio.sleep(0)
    leave.set()
    await asyncio.sleep(0)  # the first releases its slot, which is granted to the second before that one runs
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order in (["a", "c"], ["a", "b", "c"])
    async with semaphore.hold("d"):
        pass
