"""OpenAI's own client against the running service: real sockets, real model."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pysubs2
import pytest
from whisper_normalizer.english import EnglishTextNormalizer

from tests.serve.service import Service
from tests.support import speech

words = EnglishTextNormalizer()
FOX = next(item for item in speech.of_language("en") if item.name == "quick_brown_fox")
FILE = ("fox.wav", FOX.path.read_bytes())


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="any", base_url=str(service.client.base_url.join("/v1")), max_retries=0) as client:
        yield client


@pytest.fixture(autouse=True)
def _leaves_nothing(service: Service, eventually: Callable[[Callable[[], bool]], None]) -> Iterator[None]:
    before = task_count(service)
    yield
    eventually(lambda: service.media_files() == [])
    eventually(lambda: task_count(service) == before)


def task_count(service: Service) -> int:
    """Return the number of tasks, in any state."""
    everything = dict.fromkeys(("status", "priority", "engine_name", "has_result", "has_error"))
    answer = service.client.post("/api/whisper/tasks/query", json=everything)
    count: int = answer.json()["data"]["total_count"]
    return count


def transcribe(client: openai.OpenAI, **options: Any) -> Any:
    return client.audio.transcriptions.create(**{"model": "whisper-1", "file": FILE, "language": "en"} | options)


def test_every_format(client: openai.OpenAI) -> None:
    plain = transcribe(client)
    assert words(plain.text) == words(FOX.text)
    assert plain.usage.seconds == pytest.approx(FOX.duration_s, abs=0.1)
    assert transcribe(client, response_format="text") == f"{plain.text}\n"
    for name in ("srt", "vtt"):
        cues = pysubs2.SSAFile.from_string(transcribe(client, response_format=name), format_=name)
        assert words(" ".join(cue.plaintext for cue in cues)) == words(FOX.text)


def test_how_sure_the_model_is(client: openai.OpenAI) -> None:
    heard = transcribe(client, include=["logprobs"])
    assert words("".join(entry.token for entry in heard.logprobs)) == words(FOX.text)
    assert all(entry.logprob <= 0 for entry in heard.logprobs)


def test_times_of_words_and_segments(client: openai.OpenAI) -> None:
    heard = transcribe(
        client,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        chunking_strategy={"type": "server_vad", "threshold": 0.4, "prefix_padding_ms": 300},
    )
    assert heard.language == "english"
    assert heard.duration == pytest.approx(FOX.duration_s, abs=0.1)
    assert words(" ".join(word.word for word in heard.words)) == words(FOX.text)
    assert words(" ".join(segment.text for segment in heard.segments)) == words(FOX.text)
    assert all(0 <= word.start <= word.end <= heard.duration for word in heard.words)


def test_a_stream_of_a_longer_recording(client: openai.OpenAI, tmp_path: Path) -> None:
    joined = speech.recording(speech.of_language("en"), 60.0, seed=3)
    file = speech.encode(joined.audio, tmp_path / "speech.mp3")
    stream = transcribe(client, file=file, stream=True)
    *deltas, done = list(stream)
    assert len(deltas) >= 3
    assert done.type == "transcript.text.done"
    assert done.text == "".join(event.delta for event in deltas)
    assert "lazy dog" in done.text.lower()


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # the client's, of an endpoint OpenAI is to switch off
def test_a_translation(client: openai.OpenAI) -> None:
    hello = next(item for item in speech.of_language("fr") if item.name == "bonjour_monde")
    heard = client.audio.translations.create(model="whisper-1", file=hello.path, extra_body={"language": "fr"})
    assert "hello" in heard.text.lower()


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["base", "whisper-1"]
    assert client.models.retrieve("base").id == "base"


def test_errors_are_of_their_own_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="whisper-1"):
        transcribe(client, model="whisper-9")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("whisper-9")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="base", messages=[])
    with pytest.raises(openai.BadRequestError, match="speakers"):
        transcribe(client, response_format="diarized_json")
    with pytest.raises(openai.BadRequestError, match="verbose_json"):
        transcribe(client, timestamp_granularities=["word"])
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            transcribe(client, file=("letter.mp3", b"this is a letter, not a song\n" * 50), stream=stream)
        assert caught.value.code == "media_undecodable"
    with pytest.raises(openai.APIStatusError) as too_large:
        transcribe(client, file=("big.wav", bytes(33 * 1024 * 1024)))
    assert too_large.value.status_code == 413


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}], ids=["whole", "streamed"])
def test_a_client_that_goes_away_stops_its_work(
    service: Service, eventually: Callable[[Callable[[], bool]], None], tmp_path: Path, fields: dict[str, str]
) -> None:
    before = task_count(service)
    long = speech.recording(speech.of_language("en"), 600.0, seed=5)
    media = speech.encode(long.audio, tmp_path / "long.ogg").read_bytes()
    request = httpx.Request(
        "POST", service.client.base_url.join("/v1/audio/transcriptions"), data=fields, files={"file": ("a.ogg", media)}
    )
    with socket.create_connection((request.url.host, request.url.port or 80)) as connection:
        head = f"POST {request.url.path} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        sending = threading.Thread(target=connection.sendall, args=(head.encode() + b"\r\n" + request.read(),))
        sending.start()
        sending.join()
        eventually(lambda: task_count(service) == before + 1)
    eventually(lambda: task_count(service) == before)
