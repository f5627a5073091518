"""The calls that clients of the Whisper task API make, as they make them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.serve.service import Service
from tests.support.recordings import encode, tone

CREATE = "/api/whisper/tasks/create"
OPTIONS = {
    "task_type": "transcribe",
    "priority": "high",
    "callback_url": "",
    "platform": "",
    "language": "",
    "temperature": "0.8,1.0",
    "compression_ratio_threshold": "1.8",
    "no_speech_threshold": "0.6",
    "condition_on_previous_text": "true",
    "initial_prompt": "",
    "word_timestamps": "false",
    "prepend_punctuations": "\"'“¿([{-",
    "append_punctuations": "\"'.。,，!！?？:：”)]}、",
    "clip_timestamps": "0",
    "hallucination_silence_threshold": "0",
}
RECORD = {
    "id", "status", "callback_url", "callback_status_code", "callback_message", "callback_time", "priority",
    "engine_name", "task_type", "created_at", "updated_at", "task_processing_time", "file_path", "file_url",
    "file_name", "file_size_bytes", "file_duration", "language", "platform", "decode_options", "error_message",
    "output_url", "result",
}  # fmt: skip


@pytest.fixture(scope="module")
def talk() -> bytes:
    return encode(tone(1.0), "mp3")


@pytest.mark.parametrize("part", ["file_upload", "file"])
def test_a_file_with_every_option_in_the_query_is_queued_and_polled(service: Service, talk: bytes, part: str) -> None:
    answer = service.client.post(CREATE, params=OPTIONS, files={part: ("talk.mp3", talk, "audio/mpeg")})
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"code", "router", "params", "data"}
    assert body["code"] == 200
    assert set(body["data"]) >= RECORD
    assert body["data"]["status"] == "queued"
    assert body["data"]["priority"] == "high"
    assert body["data"]["decode_options"]["temperature"] == [0.8, 1.0]

    url = f"/api/whisper/tasks/result?task_id={body['data']['id']}"
    polled = service.client.get(url, headers={"accept": "application/json"})
    assert polled.status_code in (200, 202)
    done = service.end_of(body["data"]["id"]).json()["data"]
    assert done["status"] == "completed"
    assert set(done["result"]) == {"text", "segments", "info"}
    assert set(done["result"]["info"]) == {
        "language", "language_probability", "duration", "duration_after_vad", "all_language_probs",
        "transcription_options", "vad_options", "tracks",
    }  # fmt: skip


def test_curl_as_it_is_published(service: Service, talk: bytes, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    file = tmp_path / "talk.mp3"
    file.write_bytes(talk)
    address = f"{service.client.base_url}{CREATE}?task_type=transcribe&priority=normal&word_timestamps=false"
    command = [curl, "-s", "-X", "POST", address, "-H", "accept: application/json"]
    command += ["-H", "Content-Type: multipart/form-data", "-F", f"file_upload=@{file};type=audio/mpeg"]
    answered = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert '"status":"queued"' in answered


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {
            "status": None,
            "priority": None,
            "language": None,
            "engine_name": None,
            "has_result": None,
            "has_error": None,
        },
        {
            "status": "completed",
            "priority": "high",
            "created_after": "",
            "created_before": "",
            "language": "",
            "engine_name": "faster_whisper",
            "has_result": True,
            "has_error": False,
            "limit": 20,
            "offset": 0,
        },
    ],
)
def test_queries(service: Service, condition: dict[str, object]) -> None:
    answer = service.client.post("/api/whisper/tasks/query", json=condition)
    assert answer.status_code == 200
    assert set(answer.json()["data"]) == {"tasks", "total_count", "has_more", "next_offset"}


def test_a_task_is_deleted(service: Service, talk: bytes) -> None:
    task_id = service.create(talk, "talk.mp3")["id"]
    answer = service.client.delete("/api/whisper/tasks/delete", params={"task_id": task_id})
    assert answer.json()["data"].keys() == {"task_id", "message"}
    assert service.client.get("/api/whisper/tasks/result", params={"task_id": task_id}).status_code == 404


def test_a_callback_is_tried_out(service: Service) -> None:
    answer: httpx.Response = service.client.post("/api/whisper/callback/test", json={"id": 1, "status": "completed"})
    assert answer.json()["data"].keys() == {"message", "callback_data"}
