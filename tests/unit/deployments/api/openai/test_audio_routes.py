from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI
from starlette.types import Message

from deployments.api.openai import audio_routes
from deployments.api.services import Readiness
from pipeline.domain.decoding.transcription_options import DEFAULT_TEMPERATURES, TaskType, TranscriptionOptions
from pipeline.domain.tasks.task import Priority
from pipeline.errors import MediaUndecodable
from tests.unit.deployments.api.openai.service import AUDIO, Service

TEXT = "chunk 0 chunk 1 chunk 2 chunk 3 chunk 4"
TRANSCRIPTIONS = "/v1/audio/transcriptions"


async def test_the_default_answer_is_the_text(client: openai.AsyncOpenAI, service: Service, api: FastAPI) -> None:
    answer = await client.audio.transcriptions.create(model="whisper-1", file=AUDIO)
    assert answer.text == TEXT
    assert answer.usage is not None
    assert answer.usage.model_dump() == {"type": "duration", "seconds": 50.0}
    assert answer.logprobs is None
    await service.until_gone(api)
    assert service.dispatcher.cancelled == []  # a finished task is not cancelled


@pytest.mark.parametrize(
    ("response_format", "media_type", "begin"),
    [
        ("text", "text/plain", f"{TEXT}\n"),
        ("srt", "text/srt", "1\n00:00:00,000 --> 00:00:10,000\nchunk 0\n\n2\n"),
        ("vtt", "text/vtt", "WEBVTT\n\n1\n00:00:00.000 --> 00:00:10.000\nchunk 0\n"),
    ],
)
async def test_formats_of_text(client: openai.AsyncOpenAI, response_format: Any, media_type: str, begin: str) -> None:
    raw = await client.audio.transcriptions.with_raw_response.create(
        model="whisper-1", file=AUDIO, response_format=response_format
    )
    assert raw.headers["content-type"] == f"{media_type}; charset=utf-8"
    answer: Any = await client.audio.transcriptions.create(
        model="whisper-1", file=AUDIO, response_format=response_format
    )
    assert isinstance(answer, str)
    assert answer.startswith(begin)


async def test_verbose_json_has_segments(client: openai.AsyncOpenAI) -> None:
    answer = await client.audio.transcriptions.create(model="", file=AUDIO, response_format="verbose_json")
    assert (answer.language, answer.duration, answer.text) == ("english", 50.0, TEXT)
    assert answer.words is None
    assert answer.segments is not None
    assert [segment.id for segment in answer.segments] == [0, 1, 2, 3, 4]
    assert answer.segments[1].model_dump() == {
        "id": 1,
        "seek": 1000,
        "start": 10.0,
        "end": 20.0,
        "text": " chunk 1",
        "tokens": [1],
        "temperature": 0.0,
        "avg_logprob": -0.1,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    }
    assert answer.to_dict()["task"] == "transcribe"


@pytest.mark.parametrize("granularities", [["word"], ["segment"], ["segment", "word"]])
async def test_granularities(client: openai.AsyncOpenAI, granularities: Any) -> None:
    answer = await client.audio.transcriptions.create(
        model="whisper-1", file=AUDIO, response_format="verbose_json", timestamp_granularities=granularities
    )
    assert (answer.segments is not None) == ("segment" in granularities)
    assert (answer.words is not None) == ("word" in granularities)
    if answer.words:
        assert answer.words[0].model_dump() == {"word": "chunk", "start": 0.0, "end": 5.0}


async def test_a_stream_gives_the_text_bit_by_bit_and_then_whole(
    client: openai.AsyncOpenAI, service: Service, api: FastAPI
) -> None:
    stream = await client.audio.transcriptions.create(model="whisper-1", file=AUDIO, stream=True)
    *deltas, done = [event async for event in stream]
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert [event.delta for event in deltas][:2] == ["chunk 0", " chunk 1"]  # type: ignore[union-attr]
    assert done.type == "transcript.text.done"
    assert done.text == TEXT == "".join(event.delta for event in deltas)  # type: ignore[union-attr]
    assert done.to_dict()["usage"] == {"type": "duration", "seconds": 50.0}
    await service.until_gone(api)


async def test_log_probabilities_of_words(client: openai.AsyncOpenAI) -> None:
    answer = await client.audio.transcriptions.create(model="whisper-1", file=AUDIO, include=["logprobs"])
    assert answer.logprobs is not None
    assert "".join(str(entry.token) for entry in answer.logprobs).strip() == TEXT
    first = answer.logprobs[0].model_dump()
    assert first == {"token": " chunk", "bytes": list(b" chunk"), "logprob": pytest.approx(-0.693147)}
    stream = await client.audio.transcriptions.create(model="whisper-1", file=AUDIO, include=["logprobs"], stream=True)
    events: list[Any] = [event async for event in stream]
    assert [entry.token for entry in events[0].logprobs] == [" chunk", " 0"]
    assert len(events[-1].logprobs) == 10


@pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning"
)  # raised by OpenAI's client for an endpoint that OpenAI will remove
async def test_translations(client: openai.AsyncOpenAI, service: Service) -> None:
    plain = await client.audio.translations.create(model="whisper-1", file=AUDIO)
    assert plain.text == TEXT
    service.fleet.language = "de"
    verbose = await client.audio.translations.create(model="whisper-1", file=AUDIO, response_format="verbose_json")
    assert (verbose.language, verbose.to_dict()["task"]) == ("english", "translate")
    assert {unit.options.task_type for unit in service.fleet.units} == {TaskType.TRANSLATE}


async def test_every_option_reaches_the_model(client: openai.AsyncOpenAI, service: Service) -> None:
    await client.audio.transcriptions.create(
        model="base",
        file=AUDIO,
        language="EN",
        prompt="Names: Kenobi, Grievous.",
        temperature=0.4,
        chunking_strategy={
            "type": "server_vad",
            "threshold": 0.7,
            "silence_duration_ms": 900,
            "prefix_padding_ms": 100,
        },
        languages=["en", "de"],
        keywords=["Kenobi", "General Grievous"],
        known_speaker_names=["ignored"],
        extra_body={"vad_filter": True, "hotwords": "droid", "priority": "low", "what_is_this": "ignored"},
    )
    [unit, *_] = service.fleet.units
    assert unit.options == TranscriptionOptions(
        language="en",
        languages=("en", "de"),
        initial_prompt="Names: Kenobi, Grievous.",
        hotwords="droid, Kenobi, General Grievous",
        temperature=(0.4,),
        vad_threshold=0.7,
        vad_min_silence_duration_ms=900,
        vad_speech_pad_ms=100,
    )
    assert unit.priority_rank == Priority.LOW.rank


async def test_the_defaults(client: openai.AsyncOpenAI, service: Service) -> None:
    await client.audio.transcriptions.create(model="whisper-1", file=AUDIO, temperature=0, chunking_strategy="auto")
    [unit, *_] = service.fleet.units
    assert unit.options == TranscriptionOptions(temperature=DEFAULT_TEMPERATURES)
    assert unit.priority_rank == Priority.HIGH.rank


# --- errors -----------------------------------------------------------------------------------------------------------


def body_of(error: openai.APIStatusError) -> dict[str, Any]:
    """Return the body of an error, after checking its shape."""
    assert isinstance(error.body, dict)
    assert error.body.keys() == {"message", "type", "param", "code"}
    assert re.search(r"[^.?!\s][.?!]$", error.body["message"]), error.body["message"]
    return error.body


async def test_an_unknown_model(client: openai.AsyncOpenAI, service: Service) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=AUDIO)
    assert body_of(caught.value)["code"] == "model_not_found"
    assert service.media.keys == frozenset()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"response_format": "diarized_json"}, "response_format"),
    ({"response_format": "yaml"}, "response_format"),
    ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
    ({"timestamp_granularities": ["vowel"], "response_format": "verbose_json"}, "timestamp_granularities"),
    ({"include": ["logprobs"], "response_format": "text"}, "include"),
    ({"include": ["feelings"]}, "include"),
    ({"stream": True, "response_format": "srt"}, "stream"),
    ({"temperature": 1.5}, "temperature"),
    ({"language": "klingon"}, "language"),
    ({"language": "fr"}, "language"),  # the model does not know it
    ({"languages": ["en", "xx"]}, "languages"),
    ({"chunking_strategy": {"type": "client_vad"}}, "chunking_strategy"),
    ({"chunking_strategy": {"type": "server_vad", "threshold": 2}}, "chunking_strategy"),
    ({"chunking_strategy": "manual"}, "chunking_strategy"),
    ({"extra_body": {"priority": "yesterday"}}, "priority"),
    ({"prompt": "p" * 4001}, "prompt"),
]


@pytest.mark.parametrize(("fields", "param"), BAD, ids=[str(fields)[:60] for fields, _ in BAD])
async def test_values_that_can_not_be(
    client: openai.AsyncOpenAI, service: Service, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.audio.transcriptions.create(**{"model": "whisper-1", "file": AUDIO} | fields)
    body = body_of(caught.value)
    assert (body["type"], body["param"]) == ("invalid_request_error", param)
    assert (await service.tasks(), service.media.keys) == ((), frozenset())


@pytest.mark.parametrize(
    ("form", "language"),
    [
        ({}, "english"),
        ({"language": "de"}, "german"),
        ({"languages": ["de", "zh"]}, "german"),
    ],
)
async def test_silence_has_a_language_too(
    client: openai.AsyncOpenAI, service: Service, form: dict[str, Any], language: str
) -> None:
    service.splitter._parts = ((),)
    answer = await client.audio.transcriptions.create(
        model="whisper-1", file=AUDIO, response_format="verbose_json", extra_body=form
    )
    assert (answer.text, answer.segments, answer.language) == ("", [], language)


@pytest.mark.parametrize(
    ("language", "code"),
    [("English", "en"), ("en-US", "en"), ("deutsch", "de"), ("ger", "de"), ("zh-CN", "zh"), ("auto", None), ("", None)],
)
async def test_a_language_by_any_of_its_names(
    http: httpx.AsyncClient, service: Service, language: str, code: str | None
) -> None:
    form = {"language": language, "languages[]": ["zh-Hans", "en_GB", "auto"]}
    assert (await http.post(TRANSCRIPTIONS, files={"file": AUDIO}, data=form)).status_code == 200
    options = service.fleet.units[0].options
    assert (options.language, options.languages) == (code, ("zh", "en"))


@pytest.mark.parametrize(("response_format", "words"), [("srt", True), ("vtt", True), ("text", False), ("json", False)])
async def test_cues_are_timed_by_words(
    client: openai.AsyncOpenAI, service: Service, response_format: Any, words: bool
) -> None:
    await client.audio.transcriptions.create(model="whisper-1", file=AUDIO, response_format=response_format)
    assert service.fleet.units[0].options.word_timestamps is words


async def test_without_a_recording(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    answer = await http.post(TRANSCRIPTIONS, data={"model": "whisper-1"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    with pytest.raises(openai.BadRequestError, match="empty"):
        await client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", b""))


async def test_fields_may_come_in_any_order_and_spelling(http: httpx.AsyncClient) -> None:
    parts: Any = [
        ("timestamp_granularities[]", (None, "word")),
        ("file", AUDIO),
        ("timestamp_granularities[1]", (None, "segment")),
        ("response_format", (None, "verbose_json")),
    ]
    body = (await http.post(TRANSCRIPTIONS, files=parts)).json()
    assert body["words"]
    assert body["segments"]


async def test_what_is_wrong_before_the_recording_is_refused_before_it_is_stored(
    http: httpx.AsyncClient, service: Service
) -> None:
    written: list[str] = []
    write = service.media.write

    async def noted(key: str, data: Any) -> int:
        written.append(key)
        return await write(key, data)

    service.media.write = noted  # type: ignore[method-assign]
    first: Any = [("model", (None, "nothing-of-the-kind")), ("file", AUDIO)]
    assert (await http.post(TRANSCRIPTIONS, files=first)).status_code == 404
    assert written == []
    assert (await http.post(TRANSCRIPTIONS, files=list(reversed(first)))).status_code == 404
    assert len(written) == 1
    assert service.media.keys == frozenset()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_recording_that_can_not_be_used(
    client: openai.AsyncOpenAI, service: Service, api: FastAPI, stream: bool
) -> None:
    service.splitter.failure = MediaUndecodable("No decoder makes sense of this file.")
    with pytest.raises(openai.BadRequestError, match="No decoder") as caught:
        await client.audio.transcriptions.create(model="whisper-1", file=AUDIO, stream=stream)
    assert body_of(caught.value)["code"] == "media_undecodable"
    assert caught.value.response.headers["x-should-retry"] == "false"
    await service.until_gone(api)


async def test_a_failure_after_the_first_words_ends_the_stream(
    client: openai.AsyncOpenAI, service: Service, api: FastAPI
) -> None:
    service.fleet.info = replace(service.fleet.info, max_batch_size=1)
    service.fleet.bad = {(1, 4)}
    stream = await client.audio.transcriptions.create(model="whisper-1", file=AUDIO, stream=True)
    with pytest.raises(openai.APIError, match="model failed"):
        assert [event async for event in stream]
    await service.until_gone(api)


@pytest.mark.parametrize("verb", ["cancel", "delete"])
async def test_a_task_that_is_taken_away(client: openai.AsyncOpenAI, service: Service, verb: str) -> None:
    service.fleet.open_gate.clear()
    calling = asyncio.create_task(client.audio.transcriptions.create(model="whisper-1", file=AUDIO))
    await service.until_decoding()
    await getattr(service.store, verb)(1)
    await service.dispatcher.cancel(1)
    with pytest.raises(openai.ConflictError) as caught:
        await calling
    assert body_of(caught.value)["code"] == "cancelled"


async def test_before_a_model_is_loaded(client: openai.AsyncOpenAI, service: Service) -> None:
    service.readiness = Readiness(ready=False)
    with pytest.raises(openai.InternalServerError) as caught:
        await client.audio.transcriptions.create(model="base", file=AUDIO)
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"] == "5"
    assert (await client.audio.transcriptions.create(model="whisper-1", file=AUDIO)).text == TEXT


# --- clients that disconnect ------------------------------------------------------------------------------------------


async def post_and_leave(api: FastAPI, fields: dict[str, str], moment: Callable[[], Awaitable[None]]) -> list[Message]:
    """Send a whole recording, then close the connection at once; return the messages received until then."""
    request = httpx.Request("POST", f"http://service{TRANSCRIPTIONS}", data=fields, files={"file": AUDIO})
    arriving = [{"type": "http.request", "body": request.read(), "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if arriving:
            return arriving.pop()
        await moment()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": TRANSCRIPTIONS,
        "query_string": b"",
        "headers": [(b"content-type", request.headers["content-type"].encode())],
        "scheme": "http",
        "server": ("service", 80),
    }
    async with asyncio.timeout(5):
        await api(scope, receive, send)
    return sent


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}])
async def test_a_client_that_goes_away_stops_its_work(service: Service, api: FastAPI, fields: dict[str, str]) -> None:
    service.fleet.open_gate.clear()
    await post_and_leave(api, fields, service.until_decoding)
    await service.until_gone(api)
    assert service.dispatcher.cancelled == [1]
    assert service.fleet.abandoned


async def test_a_client_that_goes_away_in_the_middle_of_a_stream(
    service: Service, api: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_routes, "FIRST_EVENT_TIMEOUT_S", 0.0)
    service.fleet.open_gate.clear()
    [start, *_] = await post_and_leave(api, {"stream": "true"}, service.until_decoding)
    assert (start["type"], start["status"]) == ("http.response.start", 200)
    await service.until_gone(api)
    assert service.dispatcher.cancelled == [1]


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}])
async def test_a_request_that_is_cancelled_stops_its_work(
    http: httpx.AsyncClient, service: Service, api: FastAPI, fields: dict[str, str]
) -> None:
    """Serve cancels the handler when its client disconnects."""
    service.fleet.open_gate.clear()
    calling = asyncio.create_task(http.post(TRANSCRIPTIONS, data=fields, files={"file": AUDIO}))
    await service.until_decoding()
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    await service.until_gone(api)
    assert service.dispatcher.cancelled == [1]


async def test_a_request_that_is_cancelled_while_its_task_is_being_stored(
    http: httpx.AsyncClient, service: Service, api: FastAPI
) -> None:
    begun, go, create = asyncio.Event(), asyncio.Event(), service.store.create

    async def slow(*arguments: Any) -> Any:
        begun.set()
        await go.wait()
        return await create(*arguments)

    service.store.create = slow  # type: ignore[method-assign]
    calling = asyncio.create_task(http.post(TRANSCRIPTIONS, files={"file": AUDIO}))
    await begun.wait()
    calling.cancel()
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(calling, return_exceptions=True)
    await service.until_gone(api)
    assert service.dispatcher.cancelled == [1]


async def test_a_call_is_a_task_that_is_known_to_be_awaited(http: httpx.AsyncClient, service: Service) -> None:
    service.fleet.open_gate.clear()
    calling = asyncio.create_task(http.post(TRANSCRIPTIONS, files={"file": AUDIO}))
    await service.until_decoding()
    [task] = await service.tasks()
    assert (task.priority, task.file_name) == (Priority.HIGH, "talk.mp3")
    assert task.awaited_until is not None
    service.fleet.open_gate.set()
    assert json.loads((await calling).text)["text"] == TEXT
