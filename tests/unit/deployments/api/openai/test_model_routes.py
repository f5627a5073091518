from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from deployments.api.services import Readiness
from tests.unit.deployments.api.openai.service import Service
from tests.unit.deployments.api.world import ENGINE


async def test_the_loaded_model_and_its_alias(client: openai.AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert [model.id for model in models] == ["base", "whisper-1"]
    assert {(model.object, model.owned_by, model.created) for model in models} == {("model", "openai", 1663718400)}
    assert (await client.models.retrieve("base")).id == "base"


async def test_names_with_a_slash_and_models_in_folders(client: openai.AsyncOpenAI, service: Service) -> None:
    service.readiness = Readiness(ready=True, engine=replace(ENGINE, model="Systran/faster-whisper-small"))
    assert (await client.models.retrieve("Systran/faster-whisper-small")).id == "Systran/faster-whisper-small"
    service.readiness = Readiness(ready=True, engine=replace(ENGINE, model="/srv/models/mine"))
    assert [model.id async for model in client.models.list()] == ["mine", "whisper-1"]


async def test_a_model_that_is_not_there(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("whisper-2")
    assert caught.value.code == "model_not_found"


async def test_before_a_model_is_loaded_only_what_is_certain(client: openai.AsyncOpenAI, service: Service) -> None:
    service.readiness = Readiness(ready=False)
    assert [model.id async for model in client.models.list()] == ["whisper-1"]


# --- the one shape of errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1", 404, "not_found"),
        ("POST", "/v1/chat/completions", 404, "not_found"),
        ("GET", "/v1/audio/transcriptions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/base", 405, "method_not_allowed"),
    ],
)
async def test_unknown_routes_and_methods(
    http: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    error: dict[str, Any] = answer.json()["error"]
    assert answer.json().keys() == {"error"}
    assert error == {"message": error["message"], "type": "invalid_request_error", "param": None, "code": code}


async def test_bodies_of_another_kind(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/audio/transcriptions", json={"model": "whisper-1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    answer = await http.post("/v1/audio/transcriptions", headers={"content-type": "multipart/form-data"}, content=b"x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


async def test_a_defect_is_not_explained(http: httpx.AsyncClient, service: Service) -> None:
    async def broken() -> Readiness:
        raise RuntimeError("secret path /srv/x")

    service.ask_readiness = broken  # type: ignore[method-assign]
    service.api()
    answer = await http.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text


async def test_the_other_surface_keeps_its_shape(http: httpx.AsyncClient) -> None:
    assert "detail" in (await http.get("/v1x")).json()
    assert "detail" in (await http.get("/api/whisper/tasks/result")).json()
