from __future__ import annotations

import re

import httpx
from starlette.types import Message

from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.summaries.summary import SummaryOptions
from tests.unit.deployments.api.world import World

ROUTES = {
    ("options", "/api/whisper/uploads"),
    ("post", "/api/whisper/uploads"),
    ("head", "/api/whisper/uploads/{upload_id}"),
    ("patch", "/api/whisper/uploads/{upload_id}"),
    ("delete", "/api/whisper/uploads/{upload_id}"),
    ("post", "/api/whisper/tasks/create"),
    ("get", "/api/whisper/tasks/result"),
    ("post", "/api/whisper/tasks/query"),
    ("delete", "/api/whisper/tasks/delete"),
    ("post", "/api/whisper/tasks/cancel"),
    ("post", "/api/whisper/tasks/retry"),
    ("get", "/api/whisper/tasks/events"),
    ("post", "/api/tiktok/video_task"),
    ("post", "/api/douyin/video_task"),
    ("post", "/api/crawl/video_task"),
    ("get", "/api/crawl/records"),
    ("get", "/api/whisper/generate_subtitles"),
    ("post", "/v1/audio/transcriptions"),
    ("post", "/v1/audio/translations"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{model}"),
    ("post", "/api/chatgpt/summary"),
    ("post", "/api/whisper/extract_audio"),
    ("post", "/api/whisper/callback/test"),
    ("get", "/api/health/check"),
    ("get", "/api/health/ready"),
    ("get", "/metrics"),
}


async def test_the_root_leads_to_the_documentation(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


async def test_the_documentation_loads_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert "http:" not in page
    assert "https:" not in page
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) == 3
    for address in loaded:
        assert (await client.get(address)).status_code == 200


async def test_links_carry_the_prefix_the_application_is_mounted_at(world: World) -> None:
    transport = httpx.ASGITransport(world.api(), root_path="/asr")
    async with httpx.AsyncClient(transport=transport, base_url="http://service/asr") as client:
        assert "/asr/openapi.json" in (await client.get("/docs")).text
        assert (await client.get("/")).headers["location"] == "/asr/docs"
        created = await client.post("/api/whisper/tasks/create", files={"file": ("a", b"a")})
    assert created.headers["location"] == "/asr/api/whisper/tasks/result?task_id=1"


async def test_every_route_and_option_is_documented(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert {(method, path) for path, methods in document["paths"].items() for method in methods} == ROUTES
    create = document["paths"]["/api/whisper/tasks/create"]["post"]
    described = {parameter["name"]: parameter for parameter in create["parameters"]}
    form = create["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    for name in (*TranscriptionOptions.__dataclass_fields__, "summarize", *SummaryOptions.__dataclass_fields__):
        assert described[name]["description"] == form[name]["description"] != ""
    assert described["beam_size"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 20, "default": 5}
    assert described["temperature"]["schema"]["default"] == "0.0,0.2,0.4,0.6,0.8,1.0"
    assert described["task_type"]["schema"]["enum"] == ["transcribe", "translate"]
    assert form["file_upload"]["format"] == "binary"


async def test_every_error_is_documented_in_its_shape(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    schema = answer["content"]["application/json"]["schema"]
                    shape = "OpenAIErrorBody" if path.startswith("/v1/") else "ErrorBody"
                    assert schema == {"$ref": f"#/components/schemas/{shape}"}, (path, status)


async def test_references_lead_somewhere(client: httpx.AsyncClient) -> None:
    answer = await client.get("/openapi.json")
    known = {f"#/components/schemas/{name}" for name in answer.json()["components"]["schemas"]}
    assert set(re.findall(r'"\$ref":"([^"]+)"', answer.text)) <= known


async def test_it_starts_and_stops(world: World) -> None:
    events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> Message:
        return next(events)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await world.api()({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
