"""API keys in requests of OpenAI's client."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import openai
import pytest

from pipeline.ports import TaskQuery
from tests.unit.deployments.api.openai.service import AUDIO, OpenAiWorld

RATED = "mur_rated"


def entry(key: str, **more: Any) -> dict[str, Any]:
    return {"name": key.removeprefix("mur_"), "sha256": hashlib.sha256(key.encode()).hexdigest(), **more}


KEYS = [entry("mur_ann"), entry("mur_reader", scopes=["read"]), entry(RATED, rate="1/hour")]


def client_with(service: OpenAiWorld, key: str) -> openai.AsyncOpenAI:
    transport = httpx.ASGITransport(service.api(auth={"keys": KEYS}), raise_app_exceptions=False)
    http: Any = httpx.AsyncClient(transport=transport)
    return openai.AsyncOpenAI(api_key=key, base_url="http://service/v1", http_client=http, max_retries=0)


async def test_a_call_is_its_clients_task_and_is_answered(
    service: OpenAiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str | None] = []
    create = service.store.create

    async def noted(new: Any, *arguments: Any) -> Any:
        made.append(new.client)
        return await create(new, *arguments)

    monkeypatch.setattr(service.store, "create", noted)
    client = client_with(service, "mur_ann")
    answer = await client.audio.transcriptions.create(model="whisper-1", file=AUDIO)
    assert answer.text.startswith("chunk 0")
    stream = await client.audio.transcriptions.create(model="whisper-1", file=AUDIO, stream=True)
    assert [event.type async for event in stream][-1] == "transcript.text.done"
    assert made == ["ann", "ann"]


async def test_what_is_refused_is_of_the_class_that_openai_has_for_it(service: OpenAiWorld) -> None:
    with pytest.raises(openai.AuthenticationError, match="The key is unknown"):
        await client_with(service, "mur_nobody").models.list()
    reader = client_with(service, "mur_reader")
    assert (await reader.models.list()).data
    with pytest.raises(openai.PermissionDeniedError, match="the scope write"):
        await reader.audio.transcriptions.create(model="whisper-1", file=AUDIO)
    rated = client_with(service, RATED)
    assert (await rated.models.list()).data
    with pytest.raises(openai.RateLimitError) as caught:
        await rated.models.list()
    assert int(caught.value.response.headers["retry-after"]) > 0
    assert (await service.store.query(TaskQuery())).total_count == 0
