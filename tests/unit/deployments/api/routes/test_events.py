from __future__ import annotations

import asyncio
import json
from typing import NamedTuple

import httpx
import pytest
from starlette.types import Message

from deployments.api.response import event_stream
from pipeline.domain.audio.spans import Chunk, Span
from pipeline.domain.decoding.transcript import ChunkResult, Segment
from tests.unit.deployments.api.world import TRANSCRIPT, World, client_of, detail, fields

EVENTS = "/api/whisper/tasks/events"


class Event(NamedTuple):
    name: str | None
    id: str | None
    data: dict[str, object]


def parse(text: str) -> list[Event]:
    events = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if lines:
            events.append(Event(lines.get("event"), lines.get("id"), json.loads(lines["data"])))
    return events


async def told(client: httpx.AsyncClient, last_event_id: str | None = None) -> list[Event]:
    headers = {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
    answer = await client.get(EVENTS, params={"task_id": 1}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    return parse(answer.text)


async def test_a_completed_task_tells_its_segments_and_its_end(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    first, second, end = await told(client)
    assert (first.name, first.id, second.id) == ("segment", None, "0")
    assert first.data["text"] == " Hello there."
    assert first.data["words"] == [{"start": 0.0, "end": 0.6, "word": " Hello", "probability": 0.9}]
    assert second.data["id"] == 2
    assert (end.name, end.id) == ("completed", "end")
    assert (end.data["id"], end.data["status"], end.data["result"]) == (1, "completed", None)
    assert end.data["output_url"] == "/api/whisper/tasks/result?task_id=1"


async def test_it_goes_on_after_the_last_event_received(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    assert [event.name for event in await told(client, "0")] == ["completed"]
    assert [event.name for event in await told(client, "")] == ["segment", "segment", "completed"]


async def test_who_has_received_the_end_is_told_not_to_ask_again(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    answer = await client.get(EVENTS, params={"task_id": 1}, headers={"Last-Event-ID": "end"})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_failed_task_says_why(client: httpx.AsyncClient, world: World) -> None:
    await world.failed("media_undecodable", "No decoder makes sense of it.")
    [end] = await told(client)
    assert end.name == "failed"
    assert end.data["error"] == {"code": "media_undecodable", "message": "No decoder makes sense of it."}


async def test_a_task_is_followed_while_it_runs(client: httpx.AsyncClient, world: World) -> None:
    lease = await world.processing()
    chunks = [Chunk(i, 0, 0, (Span(i * 160_000, (i + 1) * 160_000),)) for i in range(2)]
    await world.store.add_part(lease, 0, 0, 320_000, chunks)
    await world.store.update(lease, split_done=True, file_duration_s=20.0)
    first = Segment(0, 0, 0.0, 9.0, " one", (), 0.0, -0.1, 1.0, 0.0)
    second = Segment(0, 1000, 10.0, 19.0, " two", (), 0.0, -0.1, 1.0, 0.0)
    steps = iter(
        [
            world.store.save_results(lease, [ChunkResult(1, 10.0, (second,), "en")]),
            world.store.save_results(lease, [ChunkResult(0, 10.0, (first,), "en")]),
            world.store.cancel(1),
        ]
    )

    async def news(_: float) -> None:
        world.clock.advance(1)
        await next(steps)

    world.dispatcher.on_wait = news
    events = await told(client)
    assert [event.name for event in events] == ["progress", "progress", "progress", "segment", "segment", "cancelled"]
    assert events[0].data == {
        "task_id": 1,
        "status": "processing",
        "stage": "splitting",
        "audio_done_s": 0.0,
        "audio_total_s": 20.0,
        "progress": 0.0,
    }
    assert (events[2].data["audio_done_s"], events[2].data["progress"]) == (20.0, 1.0)
    assert [(event.id, event.data["text"]) for event in events[3:5]] == [("0", " one"), ("1", " two")]


async def test_a_task_that_waits_says_so(client: httpx.AsyncClient, world: World) -> None:
    await world.queued()

    async def news(_: float) -> None:
        world.clock.advance(1)
        await world.store.cancel(1)

    world.dispatcher.on_wait = news
    assert [(event.name, event.data["status"]) for event in await told(client)] == [
        ("queued", "queued"),
        ("cancelled", "cancelled"),
    ]


@pytest.mark.parametrize("last_event_id", ["-1", "one", "1.5", "9" * 30])
async def test_ids_that_are_not_of_this_stream(client: httpx.AsyncClient, world: World, last_event_id: str) -> None:
    await world.completed()
    answer = await client.get(EVENTS, params={"task_id": 1}, headers={"Last-Event-ID": last_event_id})
    assert fields(detail(answer, 422, "invalid_value")) == ["Last-Event-ID"]


async def test_a_task_that_does_not_exist(client: httpx.AsyncClient) -> None:
    detail(await client.get(EVENTS, params={"task_id": 1}), 404, "task_not_found")


async def test_links_lead_to_the_public_address(world: World) -> None:
    await world.completed(TRANSCRIPT)
    async with client_of(world.api(http={"public_url": "https://asr.example.org/"})) as client:
        end = (await told(client))[-1]
    assert end.data["output_url"] == "https://asr.example.org/api/whisper/tasks/result?task_id=1"


async def test_silence_is_filled_with_heartbeats_and_a_client_that_leaves_is_let_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.001)
    await world.queued()
    left, never = asyncio.Event(), asyncio.Event()

    async def silence(_: float) -> None:
        await never.wait()

    world.dispatcher.on_wait = silence
    sent: list[bytes] = []

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        if b": still here\n\n" in sent:
            left.set()

    scope = {
        "type": "http",
        "method": "GET",
        "path": EVENTS,
        "query_string": b"task_id=1",
        "headers": [],
        "scheme": "http",
        "server": ("service", 80),
    }
    async with asyncio.timeout(5):
        await world.api()(scope, receive, send)
    assert [event.name for event in parse(b"".join(sent).decode())] == ["queued"]
