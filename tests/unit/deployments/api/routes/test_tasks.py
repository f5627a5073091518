from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from deployments.api.services import Readiness
from pipeline import errors
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.tasks.task import Priority, Status, TaskError
from pipeline.testing.memory_media import MemoryMediaStore
from tests.unit.deployments.api.world import LEASE, TRANSCRIPT, World, client_of, detail, fields

CREATE = "/api/whisper/tasks/create"
RESULT = "/api/whisper/tasks/result"
QUERY = "/api/whisper/tasks/query"
FORM_TYPE = "application/x-www-form-urlencoded"
BY_ID = (
    ("GET", RESULT),
    ("DELETE", "/api/whisper/tasks/delete"),
    ("POST", "/api/whisper/tasks/cancel"),
    ("POST", "/api/whisper/tasks/retry"),
    ("GET", "/api/whisper/generate_subtitles"),
)
AUDIO = {"file_upload": ("talk.mp3", b"ID3 audio", "audio/mpeg")}

# fmt: off
RECORD_FIELDS = {
    "id", "status", "callback_url", "callback_status_code", "callback_message", "callback_time", "priority",
    "engine_name", "task_type", "created_at", "updated_at", "task_processing_time", "file_path", "file_url",
    "file_name", "file_size_bytes", "file_duration", "language", "platform", "decode_options", "error_message",
    "output_url", "result",
    "progress", "stage", "attempts", "started_at", "finished_at", "error", "truncated",
    "summary", "summary_status", "summary_error",
}
# fmt: on


# --- create -----------------------------------------------------------------------------------------------------------


async def test_an_upload_becomes_a_queued_task(client: httpx.AsyncClient, world: World) -> None:
    answer = await client.post(f"{CREATE}?task_type=translate&priority=high", files=AUDIO)
    assert answer.status_code == 200
    body = answer.json()
    assert body["code"] == 200
    assert body["router"] == f"http://service{CREATE}?task_type=translate&priority=high"
    assert body["params"] == {"task_type": "translate", "priority": "high"}
    record = body["data"]
    assert record.keys() == RECORD_FIELDS
    assert (record["id"], record["status"], record["task_type"]) == (1, "queued", "translate")
    assert (record["priority"], record["engine_name"]) == ("high", "faster_whisper")
    assert (record["file_name"], record["file_size_bytes"]) == ("talk.mp3", 9)
    assert record["created_at"] == "2025-01-01T12:00:00.123456+00:00"
    assert await world.media.read(record["file_path"]) == b"ID3 audio"
    assert answer.headers["location"] == record["output_url"] == f"{RESULT}?task_id=1"
    assert world.dispatcher.wakes == 1


async def test_the_part_may_be_called_file_and_fields_come_before_or_after(client: httpx.AsyncClient) -> None:
    parts: Any = [("priority", (None, "low")), ("file", ("a.wav", b"RIFF")), ("temperature", (None, "0.8,1.0"))]
    record = (await client.post(CREATE, files=parts)).json()["data"]
    assert (record["priority"], record["file_name"]) == ("low", "a.wav")
    assert record["decode_options"]["temperature"] == [0.8, 1.0]


async def test_a_form_field_wins_over_the_query_unless_it_is_empty(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        f"{CREATE}?priority=low&beam_size=3", files=AUDIO, data={"priority": "high", "beam_size": ""}
    )
    record = answer.json()["data"]
    assert (record["priority"], record["decode_options"]["beam_size"]) == ("high", 3)


async def test_the_form_that_existing_clients_send(world: World) -> None:
    form = {
        "priority": "normal",
        "prepend_punctuations": "\"'“¿([{-",
        "no_speech_threshold": "0.6",
        "clip_timestamps": "0",
        "file_url": "https://example.org/talk.mp4",
        "word_timestamps": "false",
        "platform": "tiktok",
        "temperature": "0.8,1.0",
        "task_type": "transcribe",
        "callback_url": "",
        "hallucination_silence_threshold": "0",
        "language": "",
        "condition_on_previous_text": "true",
        "compression_ratio_threshold": "1.8",
        "append_punctuations": "\"'.。,，!！?？:：”)]}、",
        "initial_prompt": "",
    }
    async with client_of(world.api(fetch_available=True)) as client:
        answer = await client.post(CREATE, data=form)
    record = answer.json()["data"]
    assert (record["file_url"], record["platform"]) == ("https://example.org/talk.mp4", "tiktok")
    options = record["decode_options"]
    assert (options["clip_timestamps"], options["hallucination_silence_threshold"]) == ([], None)
    assert options["condition_on_previous_text"] is True
    assert options["prepend_punctuations"] == form["prepend_punctuations"]
    assert options["initial_prompt"] is None


async def test_a_url_is_refused_without_something_that_fetches(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{CREATE}?file_url=https://example.org/a.mp3")
    assert fields(detail(answer, 422, "invalid_value")) == ["file_url"]


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
async def test_no_source(client: httpx.AsyncClient, content_type: str | None) -> None:
    answer = await client.post(CREATE, headers={"content-type": content_type} if content_type else {})
    assert "file_upload" in detail(answer, 400, "source_missing")["message"]


async def test_a_file_field_that_was_left_empty_is_no_file(client: httpx.AsyncClient) -> None:
    detail(await client.post(CREATE, files={"file_upload": (None, b"")}), 400, "source_missing")


async def test_an_empty_file(client: httpx.AsyncClient, world: World) -> None:
    answer = await client.post(CREATE, files={"file_upload": ("a.mp3", b"")})
    assert detail(answer, 400, "source_missing")["message"] == "The uploaded file is empty."
    assert (await world.task_count(), world.media.keys) == (0, frozenset())


@pytest.mark.parametrize(
    "request_parts",
    [
        {"url": f"{CREATE}?file_url=https://example.org/a.mp3", "files": AUDIO},
        {"url": CREATE, "files": AUDIO, "data": {"file_url": "https://example.org/a.mp3"}},
        {"url": CREATE, "files": [("file_upload", ("a", b"a")), ("file", ("b", b"b"))]},
        {"url": CREATE, "files": [("file", ("a", b"a")), ("file", ("b", b"b"))]},
    ],
)
async def test_two_sources_leave_nothing(
    client: httpx.AsyncClient, world: World, request_parts: dict[str, Any]
) -> None:
    detail(await client.post(**request_parts), 400, "source_conflict")
    assert (await world.task_count(), world.media.keys) == (0, frozenset())


@pytest.mark.parametrize(
    ("query", "error", "field", "words"),
    [
        ("beem_size=3", "unknown_option", "beem_size", "beam_size"),
        ("zzz=3", "unknown_option", "zzz", "/docs"),
        ("beam_size=0", "invalid_value", "beam_size", "greater than or equal to 1"),
        ("beam_size=many", "invalid_value", "beam_size", "integer"),
        ("temperature=nan", "invalid_value", "temperature", "finite"),
        ("temperature=0.2,,1", "invalid_value", "temperature", "number"),
        ("temperature=3", "invalid_value", "temperature", "less than or equal to 2"),
        ("clip_timestamps=5,1", "invalid_value", "clip_timestamps", "end after it starts"),
        ("clip_timestamps=1,5,5,5", "invalid_value", "clip_timestamps", "end after it starts"),
        ("clip_timestamps=-1", "invalid_value", "clip_timestamps", "0"),
        ("language=engish", "invalid_value", "language", "did you mean en (English)?"),
        ("languages=en,xx", "invalid_value", "languages", "'xx'"),
        ("word_timestamps=perhaps", "invalid_value", "word_timestamps", "boolean"),
        ("task_type=summarize", "invalid_value", "task_type", "'transcribe' or 'translate'"),
        ("priority=urgent", "invalid_value", "priority", "'high', 'normal' or 'low'"),
        ("callback_url=ftp://example.org", "invalid_value", "callback_url", "http://"),
        ("callback_url=nonsense", "invalid_value", "callback_url", "http://"),
        ("engine_name=openai_whisper", "engine_unavailable", "engine_name", "faster_whisper"),
        ("engine_name=other", "invalid_value", "engine_name", "faster_whisper"),
        ("model=large-v3", "engine_unavailable", "model", "base"),
        ("language=fr", "invalid_value", "language", "base does not know French; it knows en, de, zh"),
        ("languages=en,fr", "invalid_value", "languages", "French"),
        (f"initial_prompt={'a' * 4001}", "invalid_value", "initial_prompt", "4000"),
    ],
)
async def test_what_can_not_be_is_refused_by_name(
    client: httpx.AsyncClient, world: World, query: str, error: str, field: str, words: str
) -> None:
    name, _, value = query.partition("=")
    in_query = await client.post(CREATE, files=AUDIO, params={name: value})
    in_form = await client.post(CREATE, files=AUDIO, data={name: value})
    for answer in (in_query, in_form):
        body = detail(answer, 422, error)
        assert fields(body) == [field]
        assert words in body["message"]
        assert len(answer.content) < 6000
    assert (await world.task_count(), world.media.keys) == (0, frozenset())


async def test_every_wrong_field_is_named_at_once(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{CREATE}?beam_size=99&priority=urgent", files=AUDIO)
    assert set(fields(detail(answer, 422, "invalid_value"))) == {"beam_size", "priority"}


@pytest.mark.parametrize(
    "query", ["model=base", "model=", "language=DE", "languages=en,de", "callback_url=http://a.b/c?d=e"]
)
async def test_what_can_be_is_taken(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.post(f"{CREATE}?{query}", files=AUDIO)).status_code == 200


async def test_a_model_is_not_promised_before_it_is_loaded(client: httpx.AsyncClient, world: World) -> None:
    world.readiness = Readiness(ready=False)
    assert (await client.post(f"{CREATE}?language=fr", files=AUDIO)).status_code == 200
    answer = await client.post(f"{CREATE}?model=base", files=AUDIO)
    detail(answer, 503, "service_starting")
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize("content_type", ["application/json", "audio/mpeg", "text/plain"])
async def test_other_bodies_are_not_taken(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await client.post(CREATE, content=b'{"a": 1}', headers={"content-type": content_type})
    message = detail(answer, 415, "unsupported_media_type")["message"]
    assert "multipart/form-data" in message
    assert "file_url as a form or query field" in message


async def test_the_same_key_is_the_same_task(client: httpx.AsyncClient, world: World) -> None:
    key = {"Idempotency-Key": "once"}
    first = await client.post(CREATE, files=AUDIO, headers=key)
    again = await client.post(CREATE, files=AUDIO, headers=key)
    assert again.json() == first.json()
    assert (await world.task_count(), len(world.media.keys)) == (1, 1)
    other = await client.post(CREATE, files={"file": ("talk.mp3", b"other")}, headers=key)
    detail(other, 409, "idempotency_conflict")


@pytest.mark.parametrize("key", ["", "a b", "k" * 256])
async def test_a_key_that_can_not_be(client: httpx.AsyncClient, key: str) -> None:
    answer = await client.post(CREATE, files=AUDIO, headers={"Idempotency-Key": key})
    assert fields(detail(answer, 422, "invalid_value")) == ["Idempotency-Key"]


async def test_a_full_queue(world: World) -> None:
    async with client_of(world.api(dispatch={"max_queued_tasks": 1})) as client:
        await client.post(CREATE, files=AUDIO)
        answer = await client.post(CREATE, files=AUDIO)
    detail(answer, 503, "queue_full")
    assert int(answer.headers["retry-after"]) > 0


async def test_a_full_disk() -> None:
    async with client_of(World(media=MemoryMediaStore(capacity_bytes=3)).api()) as client:
        detail(await client.post(CREATE, files=AUDIO), 503, "storage_full")


async def test_a_database_that_is_away(client: httpx.AsyncClient, world: World) -> None:
    world.store.available = False
    answer = await client.post(CREATE, files=AUDIO)
    detail(answer, 503, "database_unavailable")
    assert answer.headers["retry-after"]
    detail(await client.get(RESULT, params={"task_id": 1}), 503, "database_unavailable")
    detail(await client.post(QUERY), 503, "database_unavailable")


async def test_links_use_the_configured_address_never_the_host_header(world: World) -> None:
    async with client_of(world.api(http={"public_url": "https://asr.example/"})) as client:
        answer = await client.post(CREATE, files=AUDIO, headers={"host": "evil.example"})
    assert answer.headers["location"] == f"https://asr.example{RESULT}?task_id=1"
    assert answer.json()["data"]["output_url"] == f"https://asr.example{RESULT}?task_id=1"


# --- result -----------------------------------------------------------------------------------------------------------


async def test_a_task_that_is_not_finished_shows_how_far_it_is(client: httpx.AsyncClient, world: World) -> None:
    await world.queued()
    body = (await client.get(RESULT, params={"task_id": 1})).json()
    assert (body["code"], body["data"]["status"], body["data"]["progress"]) == (202, "queued", None)
    await world.store.claim("test", LEASE, 1, {0, 1, 2})
    answer = await client.get(RESULT, params={"task_id": 1})
    assert (answer.status_code, answer.json()["data"]["status"]) == (202, "processing")
    assert answer.json()["data"]["attempts"] == 1


async def test_a_completed_task_has_its_transcript(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    answer = await client.get(f"{RESULT}?task_id=1", headers={"accept": "application/json"})
    assert answer.status_code == 200
    record = answer.json()["data"]
    assert record.keys() == RECORD_FIELDS
    assert (record["status"], record["progress"], record["task_processing_time"]) == ("completed", 1.0, 2.5)
    assert (record["language"], record["error"], record["error_message"]) == ("en", None, None)
    result = record["result"]
    assert result.keys() == {"text", "segments", "info"}
    assert result["segments"][0] == {
        "id": 1,
        "seek": 0,
        "start": 0.0,
        "end": 1.2,
        "text": " Hello there.",
        "tokens": [50364, 2425],
        "temperature": 0.0,
        "avg_logprob": -0.2,
        "compression_ratio": 1.1,
        "no_speech_prob": 0.01,
        "words": [{"start": 0.0, "end": 0.6, "word": " Hello", "probability": 0.9}],
    }
    assert result["segments"][1]["words"] is None
    assert result["info"] == {
        "language": "en",
        "language_probability": 0.98,
        "duration": 3.0,
        "duration_after_vad": 2.7,
        "all_language_probs": [["en", 0.98], ["de", 0.01]],
        "transcription_options": {"beam_size": 5},
        "vad_options": {"threshold": 0.5},
        "tracks": [
            {
                "index": 0,
                "codec": "aac",
                "language": "eng",
                "title": None,
                "channels": 2,
                "default": True,
                "auxiliary": False,
                "decodable": True,
                "silent": None,
                "chosen": True,
            }
        ],
    }


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("media_undecodable", 422),
        ("no_audio_stream", 422),
        ("no_such_track", 422),
        ("media_too_long", 422),
        ("source_unreachable", 502),
        ("source_timeout", 504),
        ("attempts_exhausted", 500),
        ("a_code_of_another_version", 500),
    ],
)
async def test_a_failed_task_answers_with_its_cause(
    client: httpx.AsyncClient, world: World, code: str, status: int
) -> None:
    await world.failed(code)
    body = detail(await client.get(RESULT, params={"task_id": 1}), status, code)
    assert body["message"] == "It failed for a reason."


async def test_a_cancelled_task_is_a_conflict(client: httpx.AsyncClient, world: World) -> None:
    await world.queued()
    await world.store.cancel(1)
    detail(await client.get(RESULT, params={"task_id": 1}), 409, "cancelled")


@pytest.mark.parametrize(
    ("query", "status", "error"),
    [
        ("", 422, "invalid_value"),
        ("task_id=", 422, "invalid_value"),
        ("task_id=one", 422, "invalid_value"),
        ("task_id=1.5", 422, "invalid_value"),
        ("task_id=١", 422, "invalid_value"),
        ("task_id=1%00", 422, "invalid_value"),
        (f"task_id={'9' * 30}", 404, "task_not_found"),
        (f"task_id={2**63}", 404, "task_not_found"),
        (f"task_id={2**63 - 1}", 404, "task_not_found"),
        ("task_id=-1", 404, "task_not_found"),
        ("task_id=0", 404, "task_not_found"),
        ("task_id=7", 404, "task_not_found"),
    ],
)
async def test_ids_that_name_no_task(client: httpx.AsyncClient, query: str, status: int, error: str) -> None:
    for method, path in BY_ID:
        detail(await client.request(method, f"{path}?{query}"), status, error)


@pytest.mark.parametrize("wait_s", ["-1", "61", "inf", "nan", "soon"])
async def test_waits_that_can_not_be(client: httpx.AsyncClient, wait_s: str) -> None:
    body = detail(await client.get(RESULT, params={"task_id": 1, "wait_s": wait_s}), 422, "invalid_value")
    assert fields(body) == ["wait_s"]


async def test_a_wait_ends_with_the_task(client: httpx.AsyncClient, world: World) -> None:
    lease = await world.processing()

    async def news(_: float) -> None:
        world.clock.advance(1)
        if len(world.dispatcher.waits) == 2:
            await world.store.complete(lease, TRANSCRIPT)

    world.dispatcher.on_wait = news
    answer = await client.get(RESULT, params={"task_id": 1, "wait_s": 60})
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "completed")
    assert world.dispatcher.waits == [(1, 5.0), (1, 5.0)]


async def test_a_wait_ends_with_its_time(client: httpx.AsyncClient, world: World) -> None:
    await world.queued()
    answer = await client.get(RESULT, params={"task_id": 1, "wait_s": 12})
    assert answer.status_code == 202
    assert world.dispatcher.waits == [(1, 5.0), (1, 5.0), (1, 2.0)]


async def test_news_without_end_does_not_keep_the_database_busy(client: httpx.AsyncClient, world: World) -> None:
    await world.queued()
    world.dispatcher.on_wait = lambda _: asyncio.sleep(0)
    waiting = asyncio.create_task(client.get(RESULT, params={"task_id": 1, "wait_s": 0.25}))
    for _ in range(3):
        async with asyncio.timeout(5):
            while not world.clock.sleepers:
                await asyncio.sleep(0)
        world.clock.advance(0.1)
    assert (await waiting).status_code == 202
    assert len(world.dispatcher.waits) == 3


# --- query ------------------------------------------------------------------------------------------------------------


async def test_a_query_lists_completed_tasks_by_default(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    await world.queued()
    for body in (b"", b"{}"):
        data = (await client.post(QUERY, content=body)).json()["data"]
        assert [record["id"] for record in data["tasks"]] == [1]
        assert (data["total_count"], data["has_more"], data["next_offset"]) == (1, False, None)
        assert data["tasks"][0]["result"]["text"] == "Hello there. General Kenobi!"


async def test_null_and_empty_switch_conditions_off(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    await world.failed("media_undecodable", priority=Priority.LOW)
    off = dict.fromkeys(("status", "priority", "has_result", "has_error", "engine_name", "language", "limit"))
    empty = {"created_after": "", "created_before": ""}
    data = (await client.post(QUERY, json=off | empty)).json()["data"]
    assert [record["id"] for record in data["tasks"]] == [1, 2]


async def test_pages(client: httpx.AsyncClient, world: World) -> None:
    for _ in range(3):
        await world.queued()
    every = {"status": "queued", "has_result": None, "limit": 2}
    first = (await client.post(QUERY, json=every)).json()["data"]
    assert ([record["id"] for record in first["tasks"]], first["total_count"]) == ([1, 2], 3)
    assert (first["has_more"], first["next_offset"]) == (True, 2)
    rest = (await client.post(QUERY, json=every | {"offset": 2})).json()["data"]
    assert ([record["id"] for record in rest["tasks"]], rest["has_more"]) == ([3], False)
    newest = (await client.post(QUERY, json=every | {"order": "desc"})).json()["data"]
    assert [record["id"] for record in newest["tasks"]] == [3, 2]
    beyond = (await client.post(QUERY, json=every | {"offset": 9})).json()["data"]
    assert (beyond["tasks"], beyond["total_count"], beyond["has_more"]) == ([], 3, False)


async def test_conditions(client: httpx.AsyncClient, world: World) -> None:
    await world.queued(platform="tiktok")
    world.clock.advance(60)
    await world.queued(priority=Priority.HIGH)
    every = {"status": "queued", "has_result": None, "priority": None}

    async def ids(**condition: Any) -> list[int]:
        data = (await client.post(QUERY, json=every | condition)).json()["data"]
        return [record["id"] for record in data["tasks"]]

    assert await ids(platform="tiktok") == [1]
    assert await ids(priority="high") == [2]
    assert await ids(task_type="translate") == []
    assert await ids(created_after="2025-01-01T12:00:30Z") == [2]
    assert await ids(created_before="2025-01-01T12:00:30") == [1]
    assert await ids(created_after="2025-01-01T14:01:00.123456+02:00") == [2]
    assert await ids(created_before="2025-01-01T12:00:00.123456Z") == [1]
    await world.queued(options=TranscriptionOptions(language="no"))
    for text in ("no", "nb", "Norwegian", "nb-NO"):
        assert await ids(language=text) == [3]
    assert await ids(language="auto") == [1, 2, 3]


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ({}, ["completed"]),
        ({"status": "completed"}, ["completed"]),
        ({"status": "failed"}, ["failed"]),
        ({"status": "queued"}, ["queued"]),
        ({"status": "processing"}, ["processing"]),
        ({"status": "cancelled"}, ["cancelled"]),
        ({"status": None}, ["completed", "failed", "cancelled", "processing", "queued"]),
        ({"status": ""}, ["completed", "failed", "cancelled", "processing", "queued"]),
        ({"has_error": True}, ["failed"]),
        ({"has_result": False}, ["failed", "cancelled", "processing", "queued"]),
        ({"has_result": True}, ["completed"]),
        ({"has_error": False}, ["completed"]),
        ({"has_error": None}, ["completed"]),
        ({"has_result": None}, ["completed"]),
        ({"status": "failed", "has_error": False}, []),
        ({"status": "failed", "has_result": True}, []),
        ({"status": "completed", "has_error": True}, []),
        ({"has_result": False, "has_error": False}, ["cancelled", "processing", "queued"]),
        ({"status": "failed", "priority": "high"}, []),
    ],
)
async def test_what_is_asked_for_rules_out_the_defaults_that_contradict_it(
    client: httpx.AsyncClient, world: World, condition: dict[str, Any], found: list[str]
) -> None:
    await world.completed()
    await world.failed("media_undecodable")
    await world.store.cancel((await world.queued()).id)
    await world.processing()
    await world.queued()
    answer = (await client.post(QUERY, json=condition)).json()
    assert [record["status"] for record in answer["data"]["tasks"]] == found
    assert answer["params"].items() >= condition.items() or condition == {"status": ""}


@pytest.mark.parametrize(
    ("query", "body", "found"),
    [
        ("status=failed", {}, ["failed"]),
        ("status=FAILED&limit=5&include_result=false", {}, ["failed"]),
        ("status=", {}, ["completed", "failed", "queued"]),
        ("has_error=true", {}, ["failed"]),
        ("has_result=false", {}, ["failed", "queued"]),
        ("status=failed", {"content": b'{"status": "queued"}'}, ["queued"]),
        ("status=failed", {"content": b'{"status": null}'}, ["completed", "failed", "queued"]),
        ("status=failed", {"content": b'{"has_result": true}'}, []),
        ("status=nonsense", {"content": b'{"status": "queued"}'}, ["queued"]),
        ("created_after=2099-01-01T00:00:00Z", {}, []),
        ("", {"data": {"status": "failed"}}, ["failed"]),
        ("status=queued", {"data": {"status": "failed", "limit": "3"}}, ["failed"]),
        ("", {"content": b'{"status": "failed"}', "headers": {"content-type": FORM_TYPE}}, ["failed"]),
        ("status=failed", {"content": b"", "headers": {"content-type": FORM_TYPE}}, ["failed"]),
    ],
)
async def test_conditions_of_the_query_string_and_of_a_form_count(
    client: httpx.AsyncClient, world: World, query: str, body: dict[str, Any], found: list[str]
) -> None:
    await world.completed()
    await world.failed("media_undecodable")
    await world.queued()
    answer = await client.post(f"{QUERY}?{query}", **body)
    assert [record["status"] for record in answer.json()["data"]["tasks"]] == found


@pytest.mark.parametrize(
    ("query", "body", "status", "error", "field"),
    [
        ("statu=failed", {}, 422, "unknown_option", "statu"),
        ("page=2", {"json": {"status": "failed"}}, 422, "unknown_option", "page"),
        ("limit=many", {}, 422, "invalid_value", "limit"),
        ("status=done", {"json": {"limit": 5}}, 422, "invalid_value", "status"),
        ("status=failed", {"content": b"{"}, 422, "invalid_value", None),
        ("status=failed", {"content": b"[]"}, 422, "invalid_value", None),
        ("", {"data": {"statu": "failed"}}, 422, "unknown_option", "statu"),
        ("", {"files": {"status": (None, "failed")}}, 415, "unsupported_media_type", None),
    ],
)
async def test_conditions_of_the_query_string_and_of_a_form_are_checked(
    client: httpx.AsyncClient, query: str, body: dict[str, Any], status: int, error: str, field: str | None
) -> None:
    answer = await client.post(f"{QUERY}?{query}", **body)
    found = detail(answer, status, error)
    assert field is None or found["errors"][0]["field"] == field


async def test_a_query_without_results(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    data = (await client.post(QUERY, json={"include_result": False})).json()["data"]
    assert data["tasks"][0]["result"] is None


@pytest.mark.parametrize(
    ("body", "error", "field"),
    [
        ('{"limit": 0}', "invalid_value", "limit"),
        ('{"limit": 501}', "invalid_value", "limit"),
        ('{"limit": "many"}', "invalid_value", "limit"),
        ('{"offset": -1}', "invalid_value", "offset"),
        ('{"offset": 1e30}', "invalid_value", "offset"),
        ('{"status": "done"}', "invalid_value", "status"),
        ('{"status": 5}', "invalid_value", "status"),
        ('{"has_result": "perhaps"}', "invalid_value", "has_result"),
        ('{"created_after": "yesterday"}', "invalid_value", "created_after"),
        ('{"language": ["en"]}', "invalid_value", "language"),
        ('{"language": "engish"}', "invalid_value", "language"),
        ('{"order": "random"}', "invalid_value", "order"),
        ('{"prioritty": "low"}', "unknown_option", "prioritty"),
    ],
)
async def test_conditions_that_can_not_be(client: httpx.AsyncClient, body: str, error: str, field: str) -> None:
    assert fields(detail(await client.post(QUERY, content=body), 422, error)) == [field]


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"5", b'"text"', b"null", b"\xff", b"a=b", b"[" * 10_000, b'{"limit": ' + b"9" * 10_000 + b"}"],
)
async def test_bodies_that_are_no_filter(client: httpx.AsyncClient, body: bytes) -> None:
    detail(await client.post(QUERY, content=body), 422, "invalid_value")


async def test_a_date_that_utc_can_not_tell(client: httpx.AsyncClient) -> None:
    answer = await client.post(QUERY, json={"created_after": "9999-12-31T23:59:59-12:00"})
    assert "UTC" in detail(answer, 422, "invalid_value")["message"]


async def test_a_filter_of_megabytes(client: httpx.AsyncClient) -> None:
    detail(await client.post(QUERY, content=b" " * 2_000_000), 413, "upload_too_large")


# --- cancel, retry, delete --------------------------------------------------------------------------------------------


async def test_cancel(client: httpx.AsyncClient, world: World) -> None:
    await world.processing()
    answer = await client.post("/api/whisper/tasks/cancel?task_id=1")
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "cancelled")
    assert world.dispatcher.cancelled == [1]


async def test_a_finished_task_can_not_be_cancelled(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    detail(await client.post("/api/whisper/tasks/cancel?task_id=1"), 409, "task_state_conflict")
    assert world.dispatcher.cancelled == []


async def test_retry(client: httpx.AsyncClient, world: World) -> None:
    await world.failed("attempts_exhausted")
    answer = await client.post("/api/whisper/tasks/retry?task_id=1")
    assert (answer.status_code, answer.json()["data"]["status"]) == (200, "queued")
    assert world.dispatcher.wakes == 1
    detail(await client.post("/api/whisper/tasks/retry?task_id=1"), 409, "task_state_conflict")


async def test_delete_takes_the_media_along(client: httpx.AsyncClient, world: World) -> None:
    await client.post(CREATE, files=AUDIO)
    answer = await client.delete("/api/whisper/tasks/delete?task_id=1")
    assert answer.json()["data"] == {"task_id": 1, "message": "The task was deleted."}
    assert (await world.task_count(), world.media.keys, world.dispatcher.cancelled) == (0, frozenset(), [1])
    detail(await client.delete("/api/whisper/tasks/delete?task_id=1"), 404, errors.TaskNotFound.code)
    detail(await client.get(f"{RESULT}?task_id=1"), 404, errors.TaskNotFound.code)


async def test_every_status_can_be_shown(client: httpx.AsyncClient, world: World) -> None:
    await world.completed()
    await world.failed("decoding_failed")
    await world.processing()
    data = (await client.post(QUERY, json=dict.fromkeys(("status", "has_result", "has_error")))).json()["data"]
    assert {record["status"] for record in data["tasks"]} == {Status.COMPLETED, Status.FAILED, Status.PROCESSING}
    failed = data["tasks"][1]
    assert failed["error"] == {"code": "decoding_failed", "message": failed["error_message"]}


@pytest.mark.parametrize("code", ["storage_full", "storage_unavailable", "quota_exceeded"])
async def test_a_task_that_waits_is_not_an_error(client: httpx.AsyncClient, world: World, code: str) -> None:
    lease = await world.processing()
    reason = TaskError(code, "Waiting for space: the media store has no room left.")
    await world.store.fail(lease, reason, world.clock.now() + timedelta(minutes=1), counted=False)
    answer = await client.get(RESULT, params={"task_id": lease.task_id})
    assert answer.status_code == 202
    shown = answer.json()["data"]
    assert (shown["status"], shown["error_message"]) == ("queued", reason.message)
