from __future__ import annotations

import json
from typing import Any

import pytest

from deployments.api.schemas import encode_record, record
from pipeline.domain.transcript import Transcript, TranscriptInfo
from tests.unit.deployments.api.world import World


async def test_a_callback_carries_the_record_that_answers_show(world: World) -> None:
    task = await world.completed(callback_url="https://example.org/done")
    task = await world.store.get(task.id, include_result=True)
    body = json.loads(encode_record(task, "https://asr.example"))
    assert body == json.loads(record(task, "https://asr.example").model_dump_json())
    assert body["output_url"] == "https://asr.example/api/whisper/tasks/result?task_id=1"
    assert body["callback_url"] == "https://example.org/done"
    assert body["result"]["info"]["all_language_probs"] == [["en", 0.98], ["de", 0.01]]
    assert body["finished_at"] == "2025-01-01T12:00:02.623456+00:00"


@pytest.mark.parametrize(("options", "language"), [({}, "en"), ({"languages": ["de", "fr"]}, "de")])
async def test_a_result_has_a_language_where_nothing_was_said(
    world: World, options: dict[str, Any], language: str
) -> None:
    silence = Transcript("", (), TranscriptInfo("", 0.0, 3.0, 0.0, None, options))
    task = await world.store.get((await world.completed(silence)).id, include_result=True)
    body = json.loads(encode_record(task))
    assert (body["language"], body["result"]["info"]["language"]) == (None, language)
    assert (body["result"]["info"]["language_probability"], body["result"]["info"]["all_language_probs"]) == (0.0, None)
