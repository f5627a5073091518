from __future__ import annotations

import json

from deployments.api.response.task_record import encode_record, task_record
from tests.unit.deployments.api.world import World


async def test_a_callback_carries_the_record_that_answers_show(world: World) -> None:
    task = await world.completed(callback_url="https://example.org/done")
    task = await world.store.get(task.id, include_result=True)
    body = json.loads(encode_record(task, "https://asr.example"))
    assert body == json.loads(task_record(task, "https://asr.example").model_dump_json())
    assert body["output_url"] == "https://asr.example/api/whisper/tasks/result?task_id=1"
    assert body["callback_url"] == "https://example.org/done"
    assert body["result"]["info"]["all_language_probs"] == [["en", 0.98], ["de", 0.01]]
    assert body["finished_at"] == "2025-01-01T12:00:02.623456+00:00"
