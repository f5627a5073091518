from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from pipeline.domain.summaries.summary import SummaryFormat, SummaryOptions
from pipeline.domain.tasks.task import Status, TaskError
from pipeline.errors import (
    LlmAnswerUnusable,
    LlmKeyRefused,
    LlmRateLimited,
    LlmTimeout,
    LlmUnreachable,
    NothingSaid,
    ReplicaLost,
)
from tests.unit.deployments.api.world import LEASE, TRANSCRIPT, World, client_of, detail, fields

SUMMARY = "/api/chatgpt/summary"
CREATE = "/api/whisper/tasks/create"
RESULT = "/api/whisper/tasks/result"
AUDIO = {"file_upload": ("talk.mp3", b"ID3 audio")}
LLM = {"base_url": "http://llm.internal/v1", "model": "writer"}
SECRET = "sk-swordfish-0123456789"


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world.api(llm=LLM)) as client:
        yield client


# --- chatgpt/summary --------------------------------------------------------------------------------------------------


async def test_a_completed_task_is_summarised(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()

    answer = await client.post(SUMMARY, json={"task_id": 1})

    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert data["task_text"] == TRANSCRIPT.text
    completion = data["chat_completion"]
    assert completion["object"] == "chat.completion"
    assert completion["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "They greet each other. [00:00:00]"},
            "finish_reason": "stop",
        }
    ]
    assert completion["usage"] == {"prompt_tokens": 120, "completion_tokens": 9, "total_tokens": 129}
    assert data["summary"]["text"] == "They greet each other. [00:00:00]"
    [order] = world.summarizer.orders
    assert (order.task_id, order.options, order.api_key) == (1, SummaryOptions(summary_language="en"), None)


async def test_it_is_kept_with_the_task_unless_told_otherwise(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()

    await client.post(SUMMARY, json={"task_id": 1, "save_to_database": False})
    assert (await client.get(f"{RESULT}?task_id=1")).json()["data"]["summary_status"] is None

    await client.post(SUMMARY, json={"task_id": 1})
    record = (await client.get(f"{RESULT}?task_id=1")).json()["data"]
    assert record["summary_status"] == "completed"
    assert record["summary"]["text"].startswith("They greet")
    assert record["summary"]["format"] == "text"
    assert (record["summary"]["calls"], record["summary"]["input_tokens"]) == (1, 120)


async def test_every_wish_reaches_the_summarizer_and_empty_ones_are_none(
    client: httpx.AsyncClient, world: World
) -> None:
    await world.completed()
    wishes = {
        "task_id": 1,
        "chatgpt_api_key": SECRET,
        "chatgpt_prompt": " For the board. ",
        "chatgpt_model": "dear",
        "output_language": "German",
        "output_format": "structured",
    }
    nothing = {"task_id": 1, "chatgpt_api_key": "", "chatgpt_prompt": None, "chatgpt_model": "", "output_language": ""}

    for body in (wishes, nothing):
        assert (await client.post(SUMMARY, json=body)).status_code == 200

    asked, empty = world.summarizer.orders
    assert asked.options == SummaryOptions(
        summary_prompt="For the board.",
        summary_model="dear",
        summary_language="de",
        summary_format=SummaryFormat.STRUCTURED,
    )
    assert asked.api_key == SECRET
    assert (empty.options, empty.api_key) == (SummaryOptions(), None)


async def test_a_key_is_never_shown(client: httpx.AsyncClient, world: World, caplog: pytest.LogCaptureFixture) -> None:
    task = await world.completed()
    world.summarizer.failures = [LlmKeyRefused("The key is not accepted.")]
    bodies = [
        {"task_id": 1, "chatgpt_api_key": SECRET},
        {"task_id": 1, "chatgpt_api_key": SECRET},
        {"task_id": 1, "chatgpt_api_key": SECRET, "output_format": "haiku"},
        {"task_id": 1, "chatgpt_api_key": SECRET * 50},
        {"task_id": 1, "chatgpt_api_key": SECRET, "chatgpt_api_kee": SECRET},
    ]

    answers = [await client.post(SUMMARY, json=body) for body in bodies]

    assert [answer.status_code for answer in answers] == [422, 200, 422, 422, 422]
    kept = await world.store.get(task.id)
    assert "swordfish" not in "".join(answer.text for answer in answers) + caplog.text + repr(kept)
    assert "swordfish" not in repr(world.summarizer.orders)
    assert answers[0].json()["detail"]["params"]["chatgpt_api_key"] == "***"


async def test_a_key_of_the_client_is_the_client_s_to_mend(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    world.summarizer.failures = [LlmKeyRefused("It is not accepted."), LlmKeyRefused("It is not accepted.")]

    own = await client.post(SUMMARY, json={"task_id": 1, "chatgpt_api_key": SECRET})
    ours = await client.post(SUMMARY, json={"task_id": 1})

    assert fields(detail(own, 422, "invalid_value")) == ["chatgpt_api_key"]
    detail(ours, 502, "llm_key_refused")


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        (LlmUnreachable("It can't be reached."), 502, "llm_unreachable"),
        (LlmAnswerUnusable("It is empty."), 502, "llm_answer_unusable"),
        (LlmTimeout("It was silent."), 504, "llm_timeout"),
        (LlmRateLimited("Later.", 17), 503, "llm_rate_limited"),
        (NothingSaid("No speech."), 422, "no_speech"),
        (ReplicaLost("A replica died."), 503, "replica_lost"),
    ],
)
async def test_a_trouble_has_its_status(
    client: httpx.AsyncClient, world: World, trouble: Exception, status: int, code: str
) -> None:
    await world.completed()
    world.summarizer.failures = [trouble]

    answer = await client.post(SUMMARY, json={"task_id": 1})

    detail(answer, status, code)
    if isinstance(trouble, LlmRateLimited):
        assert answer.headers["retry-after"] == "17"


async def test_without_a_language_model_the_setting_is_named(world: World) -> None:
    await world.completed()
    async with client_of(world.api()) as client:
        nothing = await client.post(SUMMARY, json={"task_id": 1})
        own_key = await client.post(SUMMARY, json={"task_id": 1, "chatgpt_api_key": SECRET})

    assert "MURMURATION_LLM__API_KEY" in detail(nothing, 503, "llm_not_configured")["message"]
    assert nothing.headers["retry-after"]
    assert own_key.status_code == 200


async def test_a_model_that_is_not_offered_is_the_client_s_to_mend(world: World) -> None:
    await world.completed()
    async with client_of(world.api(llm=LLM | {"allowed_models": ["writer"]})) as client:
        answer = await client.post(SUMMARY, json={"task_id": 1, "chatgpt_model": "dear"})

    assert fields(detail(answer, 422, "invalid_value")) == ["chatgpt_model"]


async def test_only_a_completed_task_is_summarised(client: httpx.AsyncClient, world: World) -> None:
    await world.queued()

    detail(await client.post(SUMMARY, json={"task_id": 1}), 400, "task_not_finished")
    detail(await client.post(SUMMARY, json={"task_id": 2}), 404, "task_not_found")
    detail(await client.post(SUMMARY, json={"task_id": 10**30}), 404, "task_not_found")
    assert world.summarizer.orders == []


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ["task_id"]),
        ({"task_id": "one"}, ["task_id"]),
        ({"task_id": 1, "output_language": "klingon"}, ["output_language"]),
        ({"task_id": 1, "chatgpt_prompt": "x" * 4001}, ["chatgpt_prompt"]),
        ({"task_id": 1, "output_format": "haiku"}, ["output_format"]),
    ],
)
async def test_a_value_that_can_not_be_is_named(
    client: httpx.AsyncClient, body: dict[str, object], named: list[str]
) -> None:
    assert fields(detail(await client.post(SUMMARY, json=body), 422, "invalid_value")) == named


async def test_a_name_that_is_nearly_right_is_suggested(client: httpx.AsyncClient) -> None:
    answer = await client.post(SUMMARY, json={"task_id": 1, "output_langauge": "de"})

    assert "did you mean output_language?" in detail(answer, 422, "unknown_option")["message"]


async def test_a_body_that_is_not_json_is_refused(client: httpx.AsyncClient) -> None:
    detail(await client.post(SUMMARY, content=b"{"), 422, "invalid_value")


# --- summarize=true ---------------------------------------------------------------------------------------------------


async def test_a_task_can_be_asked_to_end_with_a_summary(client: httpx.AsyncClient, world: World) -> None:
    form = {
        "summarize": "true",
        "summary_prompt": "For the board.",
        "summary_model": "dear",
        "summary_language": "de",
        "summary_format": "structured",
    }
    record = (await client.post(CREATE, files=AUDIO, data=form)).json()["data"]

    assert (record["summary_status"], record["summary"], record["summary_error"]) == ("queued", None, None)
    task = await world.store.get(record["id"])
    assert task.summary_options == SummaryOptions(
        summary_prompt="For the board.",
        summary_model="dear",
        summary_language="de",
        summary_format=SummaryFormat.STRUCTURED,
    )


async def test_no_summary_is_written_unasked(client: httpx.AsyncClient, world: World) -> None:
    for form in ({}, {"summarize": "false", "summary_language": "de"}, {"summarize": "", "summary_prompt": ""}):
        record = (await client.post(CREATE, files=AUDIO, data=form)).json()["data"]
        assert record["summary_status"] is None
        assert (await world.store.get(record["id"])).summary_options is None


async def test_a_wish_for_a_summary_that_is_not_asked_for_is_no_accident(client: httpx.AsyncClient) -> None:
    answer = await client.post(CREATE, files=AUDIO, data={"summary_language": "de"})

    assert "summarize=true" in detail(answer, 422, "invalid_value")["message"]


async def test_a_summary_without_a_language_model_is_refused_before_there_is_a_task(world: World) -> None:
    async with client_of(world.api()) as client:
        answer = await client.post(CREATE, files=AUDIO, data={"summarize": "true"})

    detail(answer, 503, "llm_not_configured")
    assert await world.task_count() == 0
    assert await world.media.prefixes() == {}


async def test_while_the_summary_is_written_the_transcript_can_be_read(client: httpx.AsyncClient, world: World) -> None:
    await world.completed(summary_options=SummaryOptions())

    answer = await client.get(f"{RESULT}?task_id=1")

    assert answer.status_code == 202
    record = answer.json()["data"]
    assert (record["status"], record["stage"], record["progress"]) == ("processing", "summarizing", 1.0)
    assert record["result"]["text"] == TRANSCRIPT.text


async def test_a_failed_summary_leaves_the_task_completed(client: httpx.AsyncClient, world: World) -> None:
    task = await world.completed(summary_options=SummaryOptions())
    [turn] = await world.store.claim_summaries("me", LEASE, 1)
    await world.store.finish_summary(turn, TaskError("llm_timeout", "It was silent."))

    answer = await client.get(f"{RESULT}?task_id={task.id}")

    assert answer.status_code == 200
    record = answer.json()["data"]
    assert (record["status"], record["error"], record["summary_status"]) == (Status.COMPLETED, None, "failed")
    assert record["summary_error"] == {"code": "llm_timeout", "message": "It was silent."}
