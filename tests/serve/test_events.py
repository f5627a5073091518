"""Following a task over a real connection, and going on where it broke."""

from __future__ import annotations

from pathlib import Path

import httpx_sse
import pytest

from tests.serve.service import Service
from tests.support import speech


def events(
    service: Service, task_id: int, last_event_id: str = "", limit: int = 10_000
) -> list[httpx_sse.ServerSentEvent]:
    """Return the events until the end, or until ``limit`` segments have arrived."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    url, found = "/api/whisper/tasks/events", []
    with httpx_sse.connect_sse(service.client, "GET", url, params={"task_id": task_id}, headers=headers) as source:
        for event in source.iter_sse():
            found.append(event)
            if sum(one.event == "segment" for one in found) == limit:
                break
    return found


def test_a_task_is_followed_and_the_thread_is_taken_up_again(service: Service, tmp_path: Path) -> None:
    joined = speech.recording(speech.of_language("en"), 60.0, seed=3)
    media = speech.encode(joined.audio, tmp_path / "speech.mp3").read_bytes()
    task_id = service.create(media, "speech.mp3", language="en")["id"]

    begun = events(service, task_id, limit=1)
    assert begun[0].event in ("queued", "progress")
    resumed = events(service, task_id, begun[-1].id)
    assert resumed[-1].event == "completed"
    assert resumed[-1].json()["file_duration"] == pytest.approx(joined.duration_s, abs=0.1)
    done = [event.json()["audio_done_s"] for event in begun + resumed if event.event == "progress"]
    assert done == sorted(done)

    result = service.end_of(task_id).json()["data"]["result"]
    told = {event.json()["id"]: event.json() for event in begun + resumed if event.event == "segment"}
    assert list(told.values()) == result["segments"]
    again = events(service, task_id)
    assert [event.json() for event in again if event.event == "segment"] == result["segments"]
    assert again[-1].event == "completed"
    middle = next(event for event in again if event.id)
    rest = [event.json()["id"] for event in events(service, task_id, middle.id) if event.event == "segment"]
    assert rest == [segment["id"] for segment in result["segments"] if segment["id"] > middle.json()["id"]]
