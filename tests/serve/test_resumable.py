"""A recording uploaded by a tus client in pieces, with a break, and transcribed."""

from __future__ import annotations

import io

from tusclient.client import TusClient

from tests.serve.service import Service
from tests.support import speech


def test_an_upload_that_was_broken_off_is_resumed_and_transcribed(service: Service) -> None:
    fox = next(sample for sample in speech.of_language("en") if sample.name == "quick_brown_fox")
    media = fox.path.read_bytes()
    half = len(media) // 2
    client = TusClient(str(service.client.base_url.join("/api/whisper/uploads")))
    first = client.uploader(file_stream=io.BytesIO(media), chunk_size=10_000, metadata={"filename": "fox.wav"})
    first.upload(stop_at=half)
    again = client.uploader(file_stream=io.BytesIO(media), url=first.url, chunk_size=10_000, upload_checksum=True)
    assert again.offset == half
    again.upload()
    assert first.url
    query = {"upload_id": first.url.rpartition("/")[2], "language": "en"}
    created = service.client.post("/api/whisper/tasks/create", params=query)
    assert created.status_code == 200, created.text
    record = service.end_of(created.json()["data"]["id"]).json()["data"]
    assert (record["file_name"], record["file_size_bytes"]) == ("fox.wav", len(media))
    assert "brown fox" in record["result"]["text"]
