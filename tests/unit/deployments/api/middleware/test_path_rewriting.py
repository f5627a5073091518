"""Tolerant routing: superfluous slashes, HEAD and OPTIONS."""

from __future__ import annotations

import asyncio
import hashlib

import httpx
import pytest

from deployments.api.middleware.path_rewriting import plain_path
from tests.unit.deployments.api.world import World, client_of, detail

RESULT = "/api/whisper/tasks/result"
CREATE = "/api/whisper/tasks/create"
KEYS = {"keys": [{"name": "ann", "sha256": hashlib.sha256(b"key").hexdigest()}]}
GETS = [
    "/",
    "/docs",
    "/openapi.json",
    "/docs/assets/swagger-ui.css",
    "/metrics",
    "/api/health/check",
    "/api/health/ready",
    "/v1/models",
    "/v1/models/whisper-1",
    "/v1/models/none",
    f"{RESULT}?task_id=1",
    f"{RESULT}?task_id=9",
    "/api/whisper/generate_subtitles?task_id=1",
    "/api/whisper/tasks/events?task_id=1",
    "/api/nothing",
]


# --- HEAD and OPTIONS -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GETS)
async def test_head_answers_as_get_does_without_the_body(client: httpx.AsyncClient, world: World, path: str) -> None:
    await world.completed()
    head, get = await client.head(path), await client.get(path)
    assert (head.status_code, dict(head.headers), head.content) == (get.status_code, dict(get.headers), b"")


async def test_head_of_a_stream_ends_while_the_stream_would_go_on(client: httpx.AsyncClient, world: World) -> None:
    async def nothing_happens(_: float) -> None:
        await asyncio.Event().wait()

    world.dispatcher.on_wait = nothing_happens
    await world.queued()
    head = await client.head("/api/whisper/tasks/events?task_id=1")
    assert (head.status_code, head.headers["content-type"], head.content) == (
        200,
        "text/event-stream; charset=utf-8",
        b"",
    )


async def test_head_where_there_is_no_get(client: httpx.AsyncClient) -> None:
    head = await client.head(CREATE)
    assert (head.status_code, head.headers["allow"], head.content) == (405, "POST", b"")


async def test_head_of_an_upload_is_a_route_of_its_own(client: httpx.AsyncClient) -> None:
    head = await client.head(f"/api/whisper/uploads/{'a' * 32}", headers={"Tus-Resumable": "1.0.0"})
    assert (head.status_code, head.content) == (404, b"")


async def test_head_needs_a_key_where_get_does(world: World) -> None:
    async with client_of(world.api(auth=KEYS)) as client:
        assert (await client.head("/v1/models")).status_code == 401
        assert (await client.head("/v1/models", headers={"Authorization": "Bearer key"})).status_code == 200


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/", "GET, HEAD, OPTIONS"),
        ("/v1/models/", "GET, HEAD, OPTIONS"),
        ("/api/health/check", "GET, HEAD, OPTIONS"),
        ("/docs/assets/swagger-ui.css", "GET, HEAD, OPTIONS"),
        (CREATE, "POST, OPTIONS"),
        ("/api/whisper/tasks/delete", "DELETE, OPTIONS"),
        ("/v1/audio/transcriptions", "POST, OPTIONS"),
        (f"/api/whisper/uploads/{'a' * 32}", "DELETE, HEAD, PATCH, POST, OPTIONS"),
    ],
)
async def test_options_says_what_a_path_takes(world: World, path: str, methods: str) -> None:
    async with client_of(world.api(auth=KEYS)) as client:
        answer = await client.options(path)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, methods, b"")


async def test_options_of_nothing_and_of_uploads(client: httpx.AsyncClient) -> None:
    detail(await client.options("/api/nothing"), 404, "not_found")
    assert (await client.options("/api/whisper/uploads")).headers["tus-version"] == "1.0.0"


async def test_a_refused_method_is_told_all_that_the_path_takes(client: httpx.AsyncClient) -> None:
    answer = await client.put(f"/api/whisper/uploads/{'a' * 32}")
    detail(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, HEAD, PATCH, POST"
    assert (await client.post("/v1/models")).headers["allow"] == "GET, HEAD"


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "plain"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/v1/models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("//v1//models//", "/v1/models"),
        ("/asr/", "/asr/"),
        ("/asr//", "/asr/"),
        ("/asr/v1/", "/asr/v1"),
    ],
)
def test_a_path_without_empty_parts(sent: str, plain: str) -> None:
    prefix = "/asr" if sent.startswith("/asr") else ""
    assert plain_path(sent, prefix) == plain


@pytest.mark.parametrize("path", GETS[1:])
async def test_slashes_too_many_lead_to_the_same_route(client: httpx.AsyncClient, world: World, path: str) -> None:
    await world.completed()
    bare, _, query = path.partition("?")
    expected = await client.get(path)
    for other in (f"{bare}/", f"/{bare}", bare.replace("/", "//")):
        answer = await client.get(f"http://service{other}", params=httpx.QueryParams(query))
        assert (answer.status_code, answer.headers["content-type"]) == (
            expected.status_code,
            expected.headers["content-type"],
        )


async def test_a_body_is_taken_at_a_path_with_a_slash(client: httpx.AsyncClient, world: World) -> None:
    for path in (f"{CREATE}/", f"http://service/{CREATE}"):
        answer = await client.post(path, files={"file": ("a.mp3", b"audio")}, params={"language": "de"})
        assert (answer.status_code, answer.json()["data"]["language"]) == (200, "de")
        assert answer.json()["router"] == str(answer.request.url)
    assert await world.task_count() == 2


async def test_errors_keep_the_shape_of_the_surface(client: httpx.AsyncClient) -> None:
    for path in ("//v1/nothing", "/v1/", "/v1/models/x/"):
        assert (await client.get(f"http://service{path}")).json().keys() == {"error"}
    answer = await client.get("/api/nothing/")
    assert "/api/nothing:" in detail(answer, 404, "not_found")["message"]


async def test_no_spelling_of_a_path_goes_round_the_keys(world: World) -> None:
    async with client_of(world.api(auth=KEYS)) as client:
        for path in ("//v1/models", "/v1/models/", "//docs//assets//..//v1/models", "/api/health//../whisper/x"):
            assert (await client.get(f"http://service{path}")).status_code in (401, 404), path
        assert (await client.get("http://service//v1/models/")).status_code == 401
        assert (await client.get("/api/health/check/")).status_code == 200


async def test_below_a_prefix(world: World) -> None:
    transport = httpx.ASGITransport(world.api(), root_path="/asr")
    async with httpx.AsyncClient(transport=transport, base_url="http://service/asr") as client:
        assert (await client.get("/v1/models/")).status_code == 200
        assert (await client.head("http://service/asr//v1//models")).status_code == 200
        assert (await client.get("/")).headers["location"] == "/asr/docs"
