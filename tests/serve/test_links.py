"""From a link to a transcript, as a client sees it, with sites on this machine in the place of the real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.serve.service import Service, Sites
from tests.standins.site import POST

FORM = {
    "url": f"https://www.tiktok.com/@standin/video/{POST}",
    "priority": "normal",
    "prepend_punctuations": "\"'“¿([{-",
    "no_speech_threshold": "0.6",
    "clip_timestamps": "0",
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
"""What existing clients send, empties included."""


def result_of(service: Service, answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    record = answer.json()["data"]
    assert record["status"] == "queued"
    ended = service.end_of(record["id"])
    assert ended.status_code == 200, ended.text
    data: dict[str, Any] = ended.json()["data"]
    return data


def test_a_tiktok_link_becomes_a_transcript(service: Service, eventually: Callable[[Callable[[], bool]], None]) -> None:
    heard = result_of(service, service.client.post("/api/tiktok/video_task", data=FORM))
    assert "fox" in heard["result"]["text"].lower()
    assert (heard["platform"], heard["file_name"]) == ("tiktok", "A fox jumps #standin.mp4")
    assert heard["file_url"] == FORM["url"]
    assert heard["file_size_bytes"] > 0

    kept = service.client.get("/api/crawl/records", params={"task_id": heard["id"]}).json()["data"]
    assert (kept["task_id"], kept["media_id"], kept["author"]) == (heard["id"], POST, "standin")
    assert (kept["title"], kept["duration_s"]) == ("A fox jumps #standin", 4.0)
    eventually(lambda: service.media_files() == [])


def test_the_url_of_a_file_becomes_a_transcript(service: Service, sites: Sites) -> None:
    answer = service.client.post("/api/whisper/tasks/create", params={"file_url": f"{sites.url}/broken/fox.mp4"})
    heard = result_of(service, answer)
    assert "fox" in heard["result"]["text"].lower()
    assert (heard["file_name"], heard["platform"]) == ("fox.mp4", None)
    nothing = service.client.get("/api/crawl/records", params={"task_id": heard["id"]})
    assert (nothing.status_code, nothing.json()["detail"]["error"]) == (404, "crawl_record_not_found")


def test_what_can_not_be_fetched_is_said_in_words(service: Service, sites: Sites) -> None:
    private = service.client.post("/api/crawl/video_task", data={"url": "http://127.0.0.2/film"})
    assert (private.status_code, private.json()["detail"]["error"]) == (422, "url_not_allowed")
    gone = service.client.post("/api/tiktok/video_task", data=FORM | {"url": FORM["url"].replace(POST, "1")})
    page = service.client.post("/api/whisper/tasks/create", params={"file_url": f"{sites.url}/page.mp3"})
    for answer, error in ((gone, "private_or_removed"), (page, "unsupported_link")):
        ended = service.end_of(answer.json()["data"]["id"])
        assert (ended.status_code, ended.json()["detail"]["error"]) == (422, error)


def test_the_handle_takes_links_too(service: Service) -> None:
    from ray import serve

    handle = serve.get_app_handle("murmuration")
    task = handle.submit_link.remote(FORM["url"], "tiktok", language="en").result(timeout_s=60)
    ended = handle.result.remote(task.id, wait_s=30).result(timeout_s=60)
    assert (ended.status, ended.platform) == ("completed", "tiktok")
