"""Security headers for browsers, and cross-origin access."""

from __future__ import annotations

import httpx
import pytest

from deployments.api.application import build_api
from deployments.api.middleware.security_headers import SECURITY_HEADERS
from tests.unit.deployments.api.world import World, client_of

TASKS = "/api/whisper/tasks"
CREATE = f"{TASKS}/create"
PAGE = "https://app.example"


@pytest.mark.parametrize("path", ["/api/health/check", "/docs", "/api/nothing", "/docs/assets/swagger-ui.css"])
async def test_every_answer_carries_the_security_headers(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    for name in SECURITY_HEADERS:
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
