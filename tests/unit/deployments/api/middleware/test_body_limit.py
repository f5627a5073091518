"""Limits on the size and the pace of request bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import Message

from deployments.api.application import build_api
from deployments.api.middleware import body_limit
from deployments.api.request.body import MAX_FORM_BYTES
from tests.support.builders import blocks
from tests.unit.deployments.api.serving import Reader, settle_with_threads
from tests.unit.deployments.api.world import World, client_of, detail

TASKS = "/api/whisper/tasks"
CREATE = f"{TASKS}/create"


class Anything(BaseModel):
    text: str


def with_a_route_of_json(app: FastAPI) -> FastAPI:
    """Add a route whose body FastAPI reads itself, without limits of its own."""

    @app.post("/api/anything")
    async def anything(body: Anything) -> dict[str, int]:
        return {"length": len(body.text)}

    return app


def endless(read: list[int]) -> AsyncIterator[bytes]:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"text": "'
        while True:
            read.append(100_000)
            yield b"x" * 100_000

    return body()


async def test_a_route_of_json_takes_no_more_than_a_form(world: World) -> None:
    app = with_a_route_of_json(build_api(world.services()))
    read: list[int] = []
    async with client_of(app) as client:
        assert (await client.post("/api/anything", json={"text": "short"})).json() == {"length": 5}
        answer = await client.post("/api/anything", content=endless(read), headers={"content-type": "application/json"})
        assert f"{MAX_FORM_BYTES:,}" in detail(answer, 413, "upload_too_large")["message"]
        assert sum(read) < MAX_FORM_BYTES + body_limit.DRAIN_BYTES + 500_000
        announced = await client.post("/api/anything", content=b"x" * (MAX_FORM_BYTES + 1))
        detail(announced, 413, "upload_too_large")


async def test_a_body_sent_along_with_a_refusal_is_received_before_it(world: World) -> None:
    app = world.api(auth={"keys": [{"name": "a", "sha256": "0" * 64}]})
    left = 10

    async def body() -> AsyncIterator[bytes]:
        nonlocal left
        while left:
            left -= 1
            yield b"x" * 1000

    async with client_of(app) as client:
        detail(await client.post(CREATE, content=body()), 401, "not_authenticated")
    assert left == 0


async def slow_upload(world: World, path: str, headers: dict[str, str], pauses: list[float], **http: Any) -> Any:
    """Send an upload in blocks of ten bytes, each after a pause and the last pause endless; return the response."""
    sent: list[Message] = []
    waiting = iter(pauses)

    async def receive() -> Message:
        pause = next(waiting, None)
        if pause is None:
            await asyncio.Event().wait()
        world.clock.advance(pause or 0)
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": ("service", 80),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()], "client": ("127.0.0.1", 1),
    }  # fmt: skip
    await world.api(http=http)(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])["detail"]


JSON = (f"{TASKS}/query", {"content-type": "application/json"})
TUS = (
    "/api/whisper/uploads",
    {"content-type": "application/offset+octet-stream", "tus-resumable": "1.0.0", "upload-length": "900"},
)
FORM = (CREATE, {"content-type": "multipart/form-data; boundary=xxxxxxxxxx"})


@pytest.fixture(autouse=True)
def _nobody_waits_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "DRAIN_S", 0.01)


@pytest.mark.parametrize(("path", "headers"), [JSON, TUS])
async def test_a_body_that_stops_is_given_up(world: World, path: str, headers: dict[str, str]) -> None:
    status, error = await slow_upload(world, path, headers, [0, 0], upload_idle_timeout_s=0.02)
    assert (status, error["error"]) == (408, "upload_stalled")
    assert "Nothing arrived for 0.02 s" in error["message"]


@pytest.mark.parametrize(("path", "headers"), [JSON, TUS])
async def test_a_byte_now_and_then_is_not_enough(world: World, path: str, headers: dict[str, str]) -> None:
    status, error = await slow_upload(world, path, headers, [9.0] * 50, upload_min_bytes_per_s=100)
    assert (status, error["error"]) == (408, "upload_stalled")
    assert "less than 100 bytes per second" in error["message"]


async def test_what_arrived_of_a_resumable_upload_before_it_stalled_stays(world: World) -> None:
    await slow_upload(world, *TUS, [0, 0, 0], upload_idle_timeout_s=0.02)
    [upload] = world.uploads._uploads.values()
    assert upload.received_bytes == 30


async def test_slow_is_fine_where_the_operator_says_so(world: World) -> None:
    status, error = await slow_upload(world, *JSON, [9.0] * 50, upload_min_bytes_per_s=0, upload_idle_timeout_s=0.02)
    assert "Nothing arrived" in error["message"]
    assert status == 408


async def test_many_uploads_at_once_are_all_taken_and_the_next_request_too(world: World) -> None:
    async def one(number: int) -> httpx.Response:
        content = b"%d" % number * 1000
        form = b'--e\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + content + b"\r\n--e--\r\n"
        pieces = blocks(*(form[at : at + 700] for at in range(0, len(form), 700)))
        headers = {"content-type": "multipart/form-data; boundary=e"}
        return await client.post(CREATE, content=pieces, headers=headers)

    async with client_of(world.api()) as client:
        answers = await asyncio.gather(*map(one, range(40)))
        assert {answer.status_code for answer in answers} == {200}
        for number, answer in enumerate(answers):
            assert await world.media.read(answer.json()["data"]["file_path"]) == b"%d" % number * 1000
        assert (await client.get("/api/health/check")).status_code == 200


async def test_refused_bodies_are_read_on_few_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "MAX_DRAINS", 2)
    monkeypatch.setattr(body_limit, "DRAIN_S", 60.0)
    app = build_api(world.services())
    refused = [Reader("/api/nothing", method="POST", sent=[]) for _ in range(3)]
    requests = [asyncio.create_task(app(each.scope(app), each.receive, each.send)) for each in refused]
    await settle_with_threads()
    assert [each.status for each in refused] == [None, None, 404]
    for each in refused:
        each.leave()
    await asyncio.gather(*requests)
