"""What browsers are told, what bodies may be, and what nobody can smuggle in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.types import Message

from deployments.api.app import build_api
from deployments.api.middleware import request_limits
from deployments.api.request.multipart import MAX_FORM_BYTES
from tests.support.builders import blocks
from tests.unit.deployments.api.serving import Reader, settle_with_threads
from tests.unit.deployments.api.world import World, client_of, detail

TASKS = "/api/whisper/tasks"
CREATE = f"{TASKS}/create"
PAGE = "https://app.example"


class Anything(BaseModel):
    text: str


def with_a_route_of_json(app: FastAPI) -> FastAPI:
    """A route as FastAPI reads it, which knows nothing of bounds."""

    @app.post("/api/anything")
    async def anything(body: Anything) -> dict[str, int]:
        return {"length": len(body.text)}

    return app


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/health/check", "/docs", "/api/nothing", "/docs/assets/swagger-ui.css"])
async def test_every_answer_carries_the_security_headers(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    for name in request_limits.SECURITY_HEADERS:
        assert name in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


async def test_only_the_documentation_may_run_scripts(client: httpx.AsyncClient) -> None:
    assert "script-src" in (await client.get("/docs")).headers["content-security-policy"]
    assert "script-src" not in (await client.get("/openapi.json")).headers["content-security-policy"]


async def test_no_other_page_may_read_answers(client: httpx.AsyncClient) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    for answer in (
        await client.get("/api/health/check", headers={"Origin": PAGE}),
        await client.options(CREATE, headers=asked),
    ):
        assert not any(name.startswith("access-control") for name in answer.headers)


async def test_pages_the_operator_names_may(world: World) -> None:
    app = build_api(world.services(http={"cors_origins": [PAGE]}, auth={"keys": [{"name": "a", "sha256": "0" * 64}]}))
    asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization,upload-offset"}
    async with client_of(app) as client:
        preflight = await client.options("/api/whisper/uploads/x", headers=asked | {"Origin": PAGE})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert "PATCH" in preflight.headers["access-control-allow-methods"]
        refused = await client.get(f"{TASKS}/result?task_id=1", headers={"Origin": PAGE})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, PAGE)
        assert "Upload-Offset" in refused.headers["access-control-expose-headers"]
        stranger = await client.options("/api/whisper/uploads/x", headers=asked | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80@127.0.0.1", "127.0.0.1/../..", ""])
async def test_links_do_not_come_from_the_host_header(client: httpx.AsyncClient, host: str) -> None:
    answer = await client.post(CREATE, files={"file": ("a.mp3", b"a")}, headers={"Host": host})
    assert answer.headers["location"] == answer.json()["data"]["output_url"] == f"{TASKS}/result?task_id=1"
    tus = {"Host": host, "X-Forwarded-Host": host, "Tus-Resumable": "1.0.0", "Upload-Length": "1"}
    begun = await client.post("/api/whisper/uploads", headers=tus)
    assert begun.headers["location"].startswith("/api/whisper/uploads/")


@pytest.mark.parametrize(
    "name", ["a\r\nSet-Cookie: x=1", "a%0d%0aSet-Cookie: x=1", '"; filename=evil', "../../../etc/passwd", "\x00\x1b[2J"]
)
async def test_a_file_name_reaches_no_header_and_no_path(world: World, name: str) -> None:
    async with client_of(world.api()) as client:
        answer = await client.post(CREATE, files={"file": (name, b"a")})
        task = answer.json()["data"]
        assert not set(task["file_name"]) & set("\r\n\x00\x1b/")
        completed = await world.completed(file_name=name)
        files = await client.get("/api/whisper/generate_subtitles", params={"task_id": completed.id})
    assert files.headers["content-disposition"] == f'attachment; filename="Task_{completed.id}_Subtitle.srt"'
    assert not {"set-cookie"} & {*answer.headers, *files.headers}
    assert task["file_path"].endswith("/source")


# --- bodies -----------------------------------------------------------------------------------------------------------


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
        assert sum(read) < MAX_FORM_BYTES + request_limits.DRAIN_BYTES + 500_000
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
    """The answer to an upload whose blocks of ten bytes come after pauses; the last one never ends."""
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
    monkeypatch.setattr(request_limits, "DRAIN_S", 0.01)


@pytest.mark.parametrize(("path", "headers"), [JSON, TUS])
async def test_a_body_that_stops_is_given_up(world: World, path: str, headers: dict[str, str]) -> None:
    status, error = await slow_upload(world, path, headers, [0, 0], upload_idle_timeout_s=0.02)
    assert (status, error["error"]) == (408, "upload_stalled")
    assert "Nothing arrived for 0.02 s" in error["message"]


@pytest.mark.parametrize(("path", "headers"), [JSON, TUS])
async def test_a_byte_now_and_then_is_not_enough(world: World, path: str, headers: dict[str, str]) -> None:
    status, error = await slow_upload(world, path, headers, [9.0] * 50, upload_min_bytes_per_s=100)
    assert (status, error["error"]) == (408, "upload_stalled")
    assert "less than 100 bytes a second" in error["message"]


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


# --- addresses and headers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "status", "error"),
    [
        ("/api/whisper/tasks/result?" + "a=b&" * 200, {}, 400, "bad_request"),
        ("/v1/" + "a/" * 3000, {}, 414, "address_too_long"),
        ("/api/health/check?" + "&" * 300, {}, 400, "bad_request"),
        ("/api/health/check", {f"X-{number}": "a" for number in range(101)}, 431, "headers_too_large"),
        ("/api/health/check", {"X-Long": "a" * 65_537}, 431, "headers_too_large"),
        ("/api/health/check", {"Cookie": "a" * 65_537}, 431, "headers_too_large"),
    ],
)
async def test_what_is_too_large_to_be_looked_at(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], status: int, error: str
) -> None:
    answer = await client.get(path, headers=headers)
    assert answer.status_code == status
    assert len(answer.content) < 1000
    body = answer.json().get("detail") or answer.json()["error"]
    assert (body.get("error") or body["code"]) == error
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_query_string_too_large_to_be_looked_at(world: World) -> None:
    app = world.api()
    reader = Reader("/v1/models", "a" * 65_537)
    await app(reader.scope(app), reader.receive, reader.send)
    assert (reader.status, b"address_too_long" in reader.content) == (414, True)


async def test_as_many_parameters_and_headers_as_clients_send_are_taken(client: httpx.AsyncClient) -> None:
    path = "/api/health/check?" + "&".join(f"a{number}=b" for number in range(200))
    headers = {f"X-{number}": "a" * 600 for number in range(80)} | {"Cookie": "; ".join(["a=b"] * 3000)}
    assert (await client.get(path, headers=headers)).status_code == 200


async def test_cookies_are_read_by_nobody(world: World) -> None:
    app = build_api(world.services())

    @app.get("/api/cookies")
    async def cookies(request: Request) -> dict[str, str]:
        return dict(request.cookies)

    async with client_of(app) as client:
        assert (await client.get("/api/cookies", headers={"Cookie": "a=b"})).json() == {}


async def test_refused_bodies_are_read_on_few_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limits, "MAX_DRAINS", 2)
    monkeypatch.setattr(request_limits, "DRAIN_S", 60.0)
    app = build_api(world.services())
    refused = [Reader("/api/nothing", method="POST", sent=[]) for _ in range(3)]
    requests = [asyncio.create_task(app(each.scope(app), each.receive, each.send)) for each in refused]
    await settle_with_threads()
    assert [each.status for each in refused] == [None, None, 404]
    for each in refused:
        each.leave()
    await asyncio.gather(*requests)
