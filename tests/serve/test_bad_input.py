"""Whatever is sent: a sentence that names the trouble, nothing left on disk, and the next request is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.serve.service import Service
from tests.support import recordings, speech

CREATE = "/api/whisper/tasks/create"


@pytest.fixture(autouse=True)
def _leaves_nothing(service: Service, eventually: Callable[[Callable[[], bool]], None]) -> object:
    yield
    eventually(lambda: service.media_files() == [])
    assert service.client.get("/api/health/check").json() == {"status": "ok"}


def problem(answer: httpx.Response) -> dict[str, object]:
    detail: dict[str, object] = answer.json()["detail"]
    assert detail["code"] == answer.status_code
    assert {"code", "message", "time", "router", "params", "error"} <= set(detail)
    assert not any(word in str(detail) for word in ("Traceback", "/tmp", "site-packages", "sqlite"))
    return detail


def silent_recording(suffix: str, seconds: float = 2.0, picture: bool = False) -> bytes:
    return recordings.encode(np.zeros(int(seconds * 16_000), np.int16), suffix, picture=picture)


UNDECODABLE = {
    "text renamed to .mp3": (b"this is a letter, not a song\n" * 50, "song.mp3", "media_undecodable"),
    "an mp4 without its index": (silent_recording("mp4").partition(b"moov")[0], "film.mp4", "media_undecodable"),
    "a playlist": (b"#EXTM3U\nfile:///etc/passwd\n", "list.m3u8", "media_undecodable"),
    "an image": (
        bytes.fromhex(
            "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001"
            "a5f645400000000049454e44ae426082"
        ),
        "picture.png",
        None,
    ),
}


@pytest.mark.parametrize("case", UNDECODABLE)
def test_media_that_cannot_be_decoded(service: Service, case: str) -> None:
    media, name, error = UNDECODABLE[case]
    answer = service.end_of(service.create(media, name)["id"])
    detail = problem(answer)
    assert answer.status_code == 422
    assert detail["error"] == error or (error is None and detail["error"] in ("media_undecodable", "no_audio_stream"))


def test_no_file(service: Service) -> None:
    answer = service.client.post(CREATE)
    assert (answer.status_code, problem(answer)["error"]) == (400, "source_missing")


def test_an_empty_file(service: Service) -> None:
    answer = service.client.post(CREATE, files={"file_upload": ("empty.wav", b"")})
    assert (answer.status_code, problem(answer)["error"]) == (400, "source_missing")


def test_a_file_over_the_limit(service: Service) -> None:
    answer = service.client.post(CREATE, files={"file_upload": ("big.wav", bytes(33 * 1024 * 1024))})
    assert (answer.status_code, problem(answer)["error"]) == (413, "upload_too_large")


def test_a_file_and_a_url(service: Service) -> None:
    answer = service.client.post(
        CREATE,
        files={"file_upload": ("a.wav", silent_recording("wav"))},
        data={"file_url": "https://example.com/a.wav"},
    )
    assert answer.status_code in (400, 422)
    assert "file_url" in str(problem(answer)["message"])


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("beem_size", "5", "beam_size"),
        ("beam_size", "many", "beam_size"),
        ("temperature", "0.0,hot", "temperature"),
        ("language", "klingon", "language"),
        ("priority", "yesterday", "priority"),
        ("task_type", "sing", "task_type"),
        ("engine_name", "openai_whisper", "engine"),
        ("callback_url", "ftp://example.com", "callback_url"),
        ("clip_timestamps", "5,2", "clip_timestamps"),
    ],
)
def test_options_that_cannot_be(service: Service, field: str, value: str, named: str) -> None:
    answer = service.client.post(CREATE, files={"file_upload": ("a.wav", silent_recording("wav"))}, data={field: value})
    assert answer.status_code == 422
    assert named in str(problem(answer)["message"])


@pytest.mark.parametrize("task_id", ["", "abc", "-1", "0", "9" * 30, "1.5"])
def test_ids_that_cannot_be(service: Service, task_id: str) -> None:
    answer = service.client.get("/api/whisper/tasks/result", params={"task_id": task_id})
    assert answer.status_code in (404, 422)
    problem(answer)


@pytest.mark.parametrize("body", ["[1]", "{", '{"limit": "lots"}', '{"limit": 0}', '{"status": "odd"}'])
def test_queries_that_cannot_be(service: Service, body: str) -> None:
    answer = service.client.post("/api/whisper/tasks/query", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    problem(answer)


def test_an_unknown_route(service: Service) -> None:
    answer = service.client.get("/api/nothing")
    assert answer.status_code == 404
    problem(answer)


def test_a_running_task_is_cancelled_and_its_media_goes(service: Service, tmp_path: Path) -> None:
    long = speech.recording(speech.of_language("en"), 240.0, seed=3)
    record = service.create(speech.encode(long.audio, tmp_path / "long.ogg").read_bytes(), "long.ogg", priority="low")
    answer = service.client.post("/api/whisper/tasks/cancel", params={"task_id": record["id"]})
    assert answer.json()["data"]["status"] == "cancelled"
    again = service.client.post("/api/whisper/tasks/cancel", params={"task_id": record["id"]})
    assert (again.status_code, problem(again)["error"]) == (409, "task_state_conflict")
    deleted = service.client.delete("/api/whisper/tasks/delete", params={"task_id": record["id"]})
    assert deleted.status_code == 200
    gone = service.client.get("/api/whisper/tasks/result", params={"task_id": record["id"]})
    assert gone.status_code == 404
