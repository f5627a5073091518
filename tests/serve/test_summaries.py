"""Summaries by the running service, with a language model's server on this machine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.testing.local_receiver import answers, local_receiver
from tests.serve.service import Service
from tests.standins.llm import LlmServer
from tests.support import speech

KEY = "sk-swordfish-0123456789"


@pytest.fixture(scope="module")
def counting() -> bytes:
    return next(sample for sample in speech.of_language("en") if sample.name == "counting").path.read_bytes()


@pytest.fixture(scope="module")
def task_id(service: Service, counting: bytes) -> int:
    """A transcribed task."""
    number: int = service.transcribe(counting, language="en")["id"]
    return number


async def test_a_task_ends_with_its_summary_and_so_does_its_callback(service: Service, counting: bytes) -> None:
    async with local_receiver({"/hook": answers(200, b"thanks")}) as receiver:
        record = await asyncio.to_thread(
            service.transcribe,
            counting,
            language="en",
            summarize="true",
            summary_format="structured",
            summary_language="de",
            callback_url=receiver.url("/hook"),
        )
        async with asyncio.timeout(20):
            while not receiver.requests:
                await asyncio.sleep(0.05)
    [delivered] = receiver.requests

    assert record["summary_status"] == "completed"
    summary = record["summary"]
    assert (summary["format"], summary["language"], summary["model"]) == ("structured", "de", "stand-in")
    starts = [segment["start"] for segment in record["result"]["segments"]]
    assert {chapter["start"] for chapter in summary["chapters"]} <= set(starts)
    assert json.loads(delivered.body)["summary"] == summary


def test_a_failed_summary_leaves_the_transcript(service: Service, counting: bytes) -> None:
    record = service.transcribe(counting, language="en", summarize="true", summary_model="unknown-model")

    assert (record["status"], record["error"]) == ("completed", None)
    assert record["result"]["text"]
    assert (record["summary_status"], record["summary"]) == ("failed", None)
    assert record["summary_error"]["code"] == "llm_refused"


def test_a_key_goes_to_the_language_model_and_nowhere_else(service: Service, llm: LlmServer, task_id: int) -> None:
    answer = summarize(service, task_id=task_id, chatgpt_api_key=KEY)

    assert answer.status_code == 200, answer.text
    assert llm.receiver.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    kept = [path.read_bytes() for path in Path(service.data_dir).rglob("*") if path.is_file()]
    assert kept
    assert not any(KEY.encode() in content for content in [*kept, answer.content])
    summary = answer.json()["data"]["summary"]
    record = service.end_of(task_id).json()["data"]
    assert record["summary"] == summary


@pytest.mark.parametrize(
    ("model", "status", "error"),
    [
        ("refuses-key", 502, "llm_key_refused"),
        ("fails", 502, "llm_unreachable"),
        ("rate-limited-long", 503, "llm_rate_limited"),
        ("garbage", 502, "llm_answer_unusable"),
    ],
)
def test_a_trouble_of_the_server_has_its_name(
    service: Service, task_id: int, model: str, status: int, error: str
) -> None:
    answer = summarize(service, task_id=task_id, chatgpt_model=model)

    assert (answer.status_code, answer.json()["detail"]["error"]) == (status, error)


def summarize(service: Service, **body: Any) -> Any:
    return service.client.post("/api/chatgpt/summary", json=body)
