"""Correctness of the OpenAPI document: texts in two languages, and examples that match their schemas."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Any

import jsonschema
import pytest
from fastapi import FastAPI

from deployments.api.documentation.examples import examples
from deployments.api.documentation.openapi import add_headers, chinese, operations, texts
from deployments.api.response.problems import status_of_code
from tests.unit.deployments.api.world import World, client_of


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return World().api().openapi()


@pytest.fixture(scope="module")
def english() -> set[str]:
    """The English texts as written in the code."""
    api = copy(World().api())
    api.openapi_schema = None
    untranslated = FastAPI.openapi(api)
    add_headers(untranslated)
    return {node[key].replace("``", "`") for node, key in texts(untranslated)}


def test_every_text_has_its_chinese(english: set[str]) -> None:
    assert english - chinese().keys() == set()


def test_no_chinese_is_of_a_text_that_is_gone(english: set[str]) -> None:
    assert chinese().keys() - english == set()


def test_both_languages_are_shown(document: dict[str, Any]) -> None:
    create = document["paths"]["/api/whisper/tasks/create"]["post"]
    assert create["summary"] == "Create Task / 创建转录任务"
    assert create["description"].startswith("Queue a recording")
    assert "将一段录音加入转录队列" in create["description"]


def test_examples_are_what_they_are_examples_of(document: dict[str, Any]) -> None:
    shown = list(_examples(document))
    assert len(shown) > 50
    for schema, example in shown:
        jsonschema.Draft202012Validator(
            {**schema, "components": document["components"]}, format_checker=jsonschema.FormatChecker()
        ).validate(example)


def test_every_error_of_the_task_api_has_an_example(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for status, answer in operation["responses"].items():
            media = answer.get("content", {}).get("application/json", {"schema": {}})
            if media["schema"].get("$ref", "").endswith("/ErrorBody"):
                detail = media["example"]["detail"]
                assert detail["code"] == int(status), (method, path)
                assert status_of_code(detail["error"]) == int(status), (method, path)


def test_every_tag_is_described_once(document: dict[str, Any]) -> None:
    names = [tag["name"] for tag in document["tags"]]
    assert len(names) == len(set(names))


def test_every_example_is_shown(document: dict[str, Any]) -> None:
    for (method, path, status), example in examples().items():
        answer = document["paths"][path][method]["responses"][str(status)]
        assert answer["content"]["application/json"]["example"] == example


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/api/whisper/tasks/result", 200),
        ("get", "/api/whisper/generate_subtitles", 200),
        ("post", "/api/whisper/tasks/query", 200),
        ("post", "/api/whisper/tasks/cancel", 409),
        ("post", "/api/whisper/tasks/retry", 409),
        ("post", "/api/whisper/tasks/create", 400),
        ("delete", "/api/whisper/tasks/delete", 200),
        ("get", "/api/health/check", 200),
        ("get", "/api/health/ready", 200),
    ],
)
async def test_answers_have_the_shape_that_is_written(
    document: dict[str, Any], method: str, path: str, status: int
) -> None:
    world = World()
    async with client_of(world.api()) as client:
        await world.completed()
        asked = {"task_id": "1"} | ({"output_format": "json"} if "subtitles" in path else {})
        answer = await client.request(method, path, params=asked if not path.endswith(("create", "query")) else {})
    assert answer.status_code == status
    media = document["paths"][path][method]["responses"][str(status)]["content"]["application/json"]
    jsonschema.Draft202012Validator({**media["schema"], "components": document["components"]}).validate(answer.json())


def test_what_may_be_away_says_when_to_ask_again(document: dict[str, Any]) -> None:
    for _, _, operation in operations(document):
        if "503" in operation["responses"]:
            assert "Retry-After" in operation["responses"]["503"]["headers"]


def _examples(node: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield every schema that has an example or a default, or stands beside one, with that example."""
    if isinstance(node, list):
        for item in node:
            yield from _examples(item)
    elif isinstance(node, dict):
        if "schema" in node and "example" in node:
            yield node["schema"], node["example"]
        if "type" in node or "anyOf" in node:
            shown = node["examples"] if isinstance(node.get("examples"), list) else []
            yield from ((node, example) for example in [*shown, *([node["default"]] if "default" in node else [])])
        for key, value in node.items():
            if key not in ("example", "examples", "default"):
                yield from _examples(value)
