"""Responses through a stand-in for Serve that buffers everything, to clients that read slowly or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import Response, StreamingResponse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from deployments.api.application import build_api, connect
from deployments.api.middleware.acknowledgements import (
    REPORT_BYTES,
    AcknowledgementMiddleware,
    acknowledgement_middleware,
    with_acknowledgements,
)
from deployments.api.middleware.backpressure import PIECE_BYTES, FlowControlMiddleware, UnreadBudget
from tests.support.recordings import encode, silence
from tests.unit.deployments.api.serving import KeepsAll, Reader, settle_with_threads
from tests.unit.deployments.api.world import TRANSCRIPT, World, middleware_argument, slots_of

WINDOW = 256 * 1024
SMALLEST_WINDOW = 128 * 1024
SIZE = 40 * PIECE_BYTES + 7


def large(world: World, **http: Any) -> FastAPI:
    app = _application()
    connect(app, world.services(http={"max_unread_bytes_per_answer": WINDOW} | http))
    return app


def unread_of(app: FastAPI) -> UnreadBudget:
    unread = middleware_argument(app, FlowControlMiddleware, "unread")
    assert isinstance(unread, UnreadBudget)
    return unread


@cache
def _application() -> FastAPI:
    """Build the application of these tests, with large responses, once: FastAPI takes long to build its routes."""
    app = build_api(World().services())
    app.get("/api/streamed")(streamed)
    app.get("/api/endless")(of_unknown_length)
    app.get("/api/at_once")(at_once)
    app.get("/api/small")(small)
    return app


async def streamed() -> Response:
    return StreamingResponse(blocks_of_all(), headers={"Content-Length": str(SIZE)})


async def of_unknown_length() -> Response:
    return StreamingResponse(blocks_of_all())


async def at_once() -> Response:
    return Response(b"x" * SIZE)


async def small(count: int, size_bytes: int) -> Response:
    async def events() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * size_bytes

    return StreamingResponse(events())


async def blocks_of_all() -> AsyncIterator[bytes]:
    for start in range(0, SIZE, 100_000):
        yield b"x" * min(100_000, SIZE - start)


@pytest.mark.parametrize("path", ["/api/streamed", "/api/at_once", "/api/endless"])
async def test_no_more_is_sent_ahead_than_the_bound(world: World, path: str) -> None:
    serve = KeepsAll(large(world))
    reader = Reader(path)
    reader.may_read.clear()
    request = asyncio.create_task(AcknowledgementMiddleware(serve)(reader.scope(None), reader.receive, reader.send))
    await settle_with_threads()
    assert 0 < serve.most_bytes <= WINDOW
    assert not request.done()
    reader.may_read.set()
    await request
    assert len(reader.content) == SIZE
    assert serve.most_bytes <= WINDOW


async def test_without_a_server_that_says_so_all_of_it_is_sent(world: World) -> None:
    """Without the middleware, the stand-in buffers the whole response, as Serve does."""
    serve = KeepsAll(large(world))
    reader = Reader("/api/streamed")
    reader.may_read.clear()
    request = asyncio.create_task(serve(reader.scope(None), reader.receive, reader.send))
    await settle_with_threads()
    assert serve.most_bytes >= SIZE
    reader.may_read.set()
    await request


@pytest.mark.parametrize("path", ["/api/streamed", "/api/at_once", "/api/endless"])
async def test_a_client_that_reads_nothing_is_given_up(world: World, path: str) -> None:
    app = large(world, answer_idle_timeout_s=0.05)
    reader = Reader(path)
    reader.may_read.clear()
    server = AcknowledgementMiddleware(KeepsAll(app), stall_s=0.2)
    with pytest.raises(ConnectionError):
        await server(reader.scope(None), reader.receive, reader.send)
    assert slots_of(app).taken == 0
    assert world.counted == {"answers_given_up": 1.0}


async def test_a_client_that_drips_is_given_up(world: World) -> None:
    app = large(world, answer_idle_timeout_s=30, answer_min_bytes_per_s=20_000)
    reader = Reader("/api/streamed", on_read=lambda _: world.clock.advance(10.0))
    with pytest.raises(ConnectionError):
        await AcknowledgementMiddleware(KeepsAll(app))(reader.scope(None), reader.receive, reader.send)
    assert len(reader.content) < SIZE


async def test_a_request_lasts_until_its_answer_is_read(world: World) -> None:
    for around in (AcknowledgementMiddleware, lambda app: app):
        app = large(world)
        reader = Reader("/api/at_once")
        reader.may_read.clear()
        request = asyncio.create_task(around(KeepsAll(app))(reader.scope(None), reader.receive, reader.send))
        await settle_with_threads()
        assert not request.done()
        assert unread_of(app).total_bytes == (
            0 if around is AcknowledgementMiddleware else unread_of(app).counted_bytes(SIZE)
        )
        reader.may_read.set()
        await request
        assert unread_of(app).total_bytes == 0


async def test_a_small_answer_waits_for_nobody(world: World) -> None:
    reader = Reader("/api/health/check")
    serve = KeepsAll(large(world))
    request = asyncio.create_task(serve(reader.scope(None), reader.receive, reader.send))
    await request
    assert reader.status == 200


async def test_a_client_that_leaves_ends_its_request(world: World) -> None:
    app = large(world)
    reader = Reader("/api/streamed")
    reader.may_read.clear()
    request = asyncio.create_task(
        AcknowledgementMiddleware(KeepsAll(app))(reader.scope(None), reader.receive, reader.send)
    )
    await settle_with_threads()
    reader.leave()
    reader.may_read.set()  # the server discards messages that it can't send
    await request
    assert slots_of(app).taken == 0


# --- without acknowledgements -----------------------------------------------------------------------------------------


async def test_what_is_on_the_way_is_shared(world: World) -> None:
    app = large(world, max_unread_bytes=12 * 1024 * 1024)  # 6 MiB for one client: two responses of this size
    readers = [Reader("/api/at_once", address="192.0.2.1") for _ in range(3)]
    other = Reader("/api/at_once", address="192.0.2.2")
    for reader in (*readers, other):
        reader.may_read.clear()
    requests = [
        asyncio.create_task(KeepsAll(app)(reader.scope(None), reader.receive, reader.send))
        for reader in (*readers, other)
    ]
    await settle_with_threads()
    assert [reader.status for reader in readers] == [200, 200, None]
    assert other.status == 200
    readers[0].may_read.set()
    await settle_with_threads()
    assert readers[2].status == 200
    for reader in (*readers, other):
        reader.may_read.set()
    await asyncio.gather(*requests)
    assert all(len(reader.content) == SIZE for reader in (*readers, other))
    assert unread_of(app).total_bytes == 0


async def test_an_answer_that_finds_no_room_is_refused(world: World) -> None:
    app = large(world, max_unread_bytes=1024 * 1024, answer_idle_timeout_s=0.05)  # each exceeds a client's half
    readers = [Reader("/api/at_once") for _ in range(2)]
    readers[0].may_read.clear()
    requests = [
        asyncio.create_task(KeepsAll(app)(reader.scope(None), reader.receive, reader.send)) for reader in readers
    ]
    await requests[1]
    assert readers[1].status == 503
    assert readers[1].answer_headers["retry-after"] == "5"
    assert b'"busy"' in readers[1].content
    for reader in readers:
        reader.may_read.set()
    await asyncio.gather(*requests)


async def test_bytes_are_given_back() -> None:
    unread = UnreadBudget(100)
    await unread.reserve("a", 25)
    await unread.reserve("a", 25)
    third = asyncio.create_task(unread.reserve("a", 25))
    await unread.reserve("b", 25)
    await settle_with_threads(20)
    assert not third.done()
    await unread.release("a", 25)
    await third
    for client in "aab":
        await unread.release(client, 25)
    assert unread.total_bytes == 0
    assert unread.counted_bytes(1000) == 50


async def test_a_wait_that_is_cancelled_takes_nothing() -> None:
    unread = UnreadBudget(100)
    await unread.reserve("a", 50)
    waiting = asyncio.create_task(unread.reserve("a", 10))
    await settle_with_threads(20)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await unread.release("a", 50)
    assert unread.total_bytes == 0


@pytest.mark.parametrize("around", [AcknowledgementMiddleware, lambda app: app], ids=["with_acknowledgements", "not"])
async def test_an_extraction_keeps_its_place_until_it_is_read(world: World, around: Any) -> None:
    app = world.api(http={"max_unread_bytes_per_answer": 128 * 1024})
    recording = encode(silence(20.0), "wav")  # 0.9 MB at 22,050 Hz
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + recording + b"\r\n--x--\r\n"
    reader = Reader(
        "/api/whisper/extract_audio",
        method="POST",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
        sent=[{"type": "http.request", "body": form, "more_body": False}],
    )
    reader.may_read.clear()
    request = asyncio.create_task(around(KeepsAll(app))(reader.scope(None), reader.receive, reader.send))
    await settle_with_threads(2000)
    assert (reader.status, world.extractor.places) == (200, 0)
    reader.may_read.set()
    await request
    assert world.extractor.places == 1
    assert all(file.closed for file in world.extractor.files)


async def test_events_that_nobody_reads_are_given_up_and_let_go_of_their_transcript(world: World) -> None:
    segments = tuple(replace(TRANSCRIPT.segments[0], id=number, text="x" * 2000) for number in range(1, 400))
    task = await world.completed(replace(TRANSCRIPT, segments=segments))
    app = world.api(
        http={"max_unread_bytes_per_answer": 128 * 1024, "answer_idle_timeout_s": 0.05, "max_replays_in_hand": 1}
    )
    for _ in range(2):  # the second gets the slot that the first released
        reader = Reader("/api/whisper/tasks/events", f"task_id={task.id}")
        reader.may_read.clear()
        with pytest.raises(ConnectionError):
            await AcknowledgementMiddleware(KeepsAll(app), stall_s=0.2)(reader.scope(None), reader.receive, reader.send)
    assert world.counted == {"answers_given_up": 2.0}
    assert slots_of(app).taken == 0


@pytest.mark.parametrize("size_bytes", [1, 1000, REPORT_BYTES - 1, REPORT_BYTES + 1, PIECE_BYTES, PIECE_BYTES + 1])
async def test_a_client_that_reads_is_never_waited_for_in_vain(world: World, size_bytes: int) -> None:
    app = large(world, max_unread_bytes_per_answer=SMALLEST_WINDOW)
    count = max(3, min(20_000, 300_000 // size_bytes))
    reader = Reader("/api/small", f"count={count}&size_bytes={size_bytes}")
    serve = KeepsAll(app)
    await AcknowledgementMiddleware(serve)(reader.scope(None), reader.receive, reader.send)
    assert len(reader.content) == count * size_bytes
    assert serve.most_bytes <= SMALLEST_WINDOW


async def test_a_server_that_runs_is_told_once(world: World) -> None:
    serve = KeepsAll(large(world))
    around = with_acknowledgements(
        ProxyHeadersMiddleware(with_acknowledgements(serve))
    )  # uvicorn wraps the application likewise
    reader = Reader("/api/streamed")
    await around(reader.scope(None), reader.receive, reader.send)
    assert len(reader.content) == SIZE
    assert with_acknowledgements(around) is around
    assert [layer.cls for layer in acknowledgement_middleware()] == [AcknowledgementMiddleware]
