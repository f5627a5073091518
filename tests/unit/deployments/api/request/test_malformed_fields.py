"""Invalid values in every field of every route: each is reported as the client's error, never as an internal one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from deployments.api.openai.audio_form import AUDIO_FORM
from deployments.api.request.link_options import LINK_FORM
from deployments.api.request.task_options import TASK_FORM
from deployments.api.response.task_filter import TaskFilter
from deployments.api.routes.audio import EXTRACTION_FORM
from deployments.api.routes.subtitles import SUBTITLE_FORM
from deployments.api.routes.summaries import SummaryRequest
from tests.support.thoroughness import some
from tests.unit.deployments.api.world import World, client_of

TASKS = "/api/whisper/tasks"
RUBBISH = [
    "1e308",
    "-1e308",
    "1e-400",
    "1e999",
    "nan",
    "NaN",
    "Infinity",
    "-inf",
    "-0",
    "0x10",
    "1_000",
    "٣",
    "9" * 30,
    "9" * 5000,
    "-" + "9" * 400,
    "1,2,3;4",
    "0,0.001",
    "5,3",
    "-1,1",
    "1e308,1.1e308",
    "0,1," * 5000,
    "[1e308]",
    "[NaN,1]",
    "[" * 2000,
    '["\\ud800"]',
    '{"type":"server_vad","threshold":NaN}',
    "\x00",
    "a\x00b",
    "\u202e\ufeff\ufffe",
    "😀" * 30,
    "x" * 5000,
    "%s%n%00",
    "' OR 1=1 --",
    "../../etc/passwd",
    "true false",
    "http://[::1",
    "http://\x00",
    "http://a:99999999/",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
]
SHORT_RUBBISH = [value for value in RUBBISH if len(value) < 4000]
"""What fits into a URL."""
JSON_RUBBISH = [
    *map(json.dumps, RUBBISH),
    '"\\ud800"',
    '"\\udfff\\ud800"',
    "1e308",
    "-1e308",
    "1e999",
    "NaN",
    "Infinity",
    "-0",
    "-0.0",
    "9" * 30,
    "9" * 5000,
    "true",
    "[]",
    "{}",
    "[[[[]]]]",
    "[" * 3000,
    '{"a":' * 300 + "1" + "}" * 300,
    "'a'",
    "",
]
BODIES = [
    b"",
    b"\xff\xfe{\x00}\x00",
    '{"limit": 1}'.encode("utf-16"),
    '{"limit": 1}'.encode("utf-32-be"),
    b"\xef\xbb\xbf{}",
    b'{"platform": "\xff"}',
    b'{"platform": "\xed\xa0\x80"}',
    b"[]",
    b"null",
    b"1",
    b'"a"',
    b"{",
    b"[" * 60_000,
    b'{"a":' * 10_000,
    b"{" + b",".join(b'"k%d":1' % number for number in range(7000)) + b"}",
    b'{"limit":1,"limit":2}',
    b'{"\\ud800": 1}',
    b'{"": 1}',
    b'{"\x00": 1}',
]


def fine(answer: httpx.Response) -> None:
    """Check for a success or a client error in JSON, or for a 503, since language model and engine may be missing."""
    assert answer.status_code < 500 or answer.status_code == 503, answer.text[:300]
    if answer.status_code >= 400:
        assert answer.json()


def forms() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    recording = {"file": ("a.wav", b"RIFF")}
    for name in TASK_FORM.names:
        yield f"{TASKS}/create", name, recording
    for name in LINK_FORM.names:
        yield "/api/crawl/video_task", name, {}
    for name in EXTRACTION_FORM.names:
        yield "/api/whisper/extract_audio", name, recording


@pytest.mark.parametrize(("route", "name", "files"), [*forms()])
async def test_a_field_of_a_form_and_of_the_query(
    world: World, route: str, name: str, files: Mapping[str, Any]
) -> None:
    async with client_of(world.api(fetch_available=True)) as client:
        for value in some(RUBBISH, route + name):
            fine(await client.post(route, data={name: value}, files=dict(files)))
            if value in SHORT_RUBBISH:
                fine(await client.post(f"{route}?{name}={quote(value)}", files=dict(files)))


@pytest.mark.parametrize("name", sorted(AUDIO_FORM.names))
async def test_a_field_of_openai(world: World, name: str) -> None:
    async with client_of(world.api()) as client:
        for value in some(RUBBISH, name):  # with an invalid format, so that no request waits for a transcript
            answer = await client.post(
                "/v1/audio/transcriptions",
                data={"response_format": "nothing", name: value},
                files={"file": ("a.wav", b"RIFF")},
            )
            fine(answer)


@pytest.mark.parametrize("name", ["task_id", *sorted(SUBTITLE_FORM.names)])
async def test_a_parameter_of_subtitles(world: World, name: str) -> None:
    await world.completed()
    async with client_of(world.api()) as client:
        for value in some(SHORT_RUBBISH, name):
            fine(await client.get(f"/api/whisper/generate_subtitles?task_id=1&{name}={quote(value)}"))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{TASKS}/result"),
        ("GET", f"{TASKS}/events"),
        ("POST", f"{TASKS}/cancel"),
        ("POST", f"{TASKS}/retry"),
        ("DELETE", f"{TASKS}/delete"),
        ("GET", "/api/crawl/records"),
    ],
)
async def test_an_id(world: World, method: str, path: str) -> None:
    await world.completed()
    async with client_of(world.api()) as client:
        for value in some(SHORT_RUBBISH, path):
            fine(await client.request(method, f"{path}?task_id={quote(value)}"))
        for value in some(SHORT_RUBBISH, method):
            fine(await client.get(f"{TASKS}/result?task_id=1&wait_s={quote(value)}"))


@pytest.mark.parametrize("name", sorted(TaskFilter.model_fields))
async def test_a_condition(world: World, name: str) -> None:
    await world.completed()
    async with client_of(world.api()) as client:
        for value in some(JSON_RUBBISH, name):
            fine(await client.post(f"{TASKS}/query", content=f'{{"{name}": {value}}}'))
        for value in some(SHORT_RUBBISH, name):
            fine(await client.post(f"{TASKS}/query?{name}={quote(value)}"))


@pytest.mark.parametrize("name", sorted(SummaryRequest.model_fields))
async def test_a_field_of_a_summary(world: World, name: str) -> None:
    await world.completed()
    async with client_of(world.api(llm={"api_key": "k", "model": "m"})) as client:
        for value in some(JSON_RUBBISH, name):
            fine(await client.post("/api/chatgpt/summary", content=f'{{"task_id": 1, "{name}": {value}}}'))


@pytest.mark.parametrize("path", [f"{TASKS}/query", "/api/chatgpt/summary", "/api/whisper/callback/test"])
async def test_a_body_of_json(world: World, path: str) -> None:
    async with client_of(world.api()) as client:
        for body in BODIES:
            fine(await client.post(path, content=body))
        for value in some(JSON_RUBBISH, path):
            fine(await client.post(path, content=f'{{"a": {value}, {value}: 1}}'))
            fine(await client.post(path, content=f'{{"a": {value}}}'))


HEADERS = [b"\xff", b"\x00", b"a" * 300, b"\xed\xa0\x80", b"9" * 400, b",,,;;;===", b'"', b"-1", b"1e308", b"a " * 2000]


@pytest.mark.parametrize(
    "name",
    [
        "Idempotency-Key",
        "Last-Event-ID",
        "Authorization",
        "Content-Type",
        "Content-Encoding",
        "Content-Length",
        "Upload-Length",
        "Upload-Offset",
        "Upload-Metadata",
        "Upload-Checksum",
        "X-HTTP-Method-Override",
        "Host",
        "Origin",
        "Accept",
        "Cookie",
        "Range",
        "X-Forwarded-For",
    ],
)
async def test_a_header(world: World, name: str) -> None:
    await world.completed()
    tus = {"Tus-Resumable": "1.0.0"}
    async with client_of(world.api()) as client:
        begun = await client.post("/api/whisper/uploads", headers=tus | {"Upload-Length": "5"})
        for value in some(HEADERS, name):
            sent: dict[str, Any] = {**tus, name: value}
            for method, path in (
                ("GET", f"{TASKS}/events?task_id=1"),
                ("POST", f"{TASKS}/create"),
                ("POST", f"{TASKS}/query"),
                ("POST", "/api/whisper/uploads"),
                ("PATCH", begun.headers["location"]),
                ("HEAD", begun.headers["location"]),
                ("POST", begun.headers["location"]),
                ("POST", "/v1/audio/transcriptions"),
            ):
                answer = await client.request(method, path, headers=sent)
                assert answer.status_code < 500, (method, path, value, answer.text[:300])


async def test_a_task_that_was_made_of_rubbish_has_options_that_can_be_kept(world: World) -> None:
    """Accepted values are finite numbers, in JSON too."""
    async with client_of(world.api()) as client:
        for name in TASK_FORM.names:
            for value in some(RUBBISH, name):
                await client.post(f"{TASKS}/create", data={name: value}, files={"file": ("a.wav", b"RIFF")})
        answer = await client.post(f"{TASKS}/query", json={"status": None, "priority": None, "limit": 500})
    for task in answer.json()["data"]["tasks"]:
        json.dumps(task, allow_nan=False)
        for value in task["decode_options"]["clip_timestamps"]:
            assert value <= 1_000_000
