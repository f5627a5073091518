"""Limits on the URL and the headers of requests."""

from __future__ import annotations

import httpx
import pytest
from fastapi import Request

from deployments.api.application import build_api
from tests.unit.deployments.api.serving import Reader
from tests.unit.deployments.api.world import World, client_of


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
