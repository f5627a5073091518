"""Uploads that want to read the server's files, or to unfold: refused in words, and the next request is served."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.serve.service import Service
from tests.support import hostile_media
from tests.support.recordings import encode, tone

EXTRACT = "/api/whisper/extract_audio"


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("server") / "secret.wav"
    path.write_bytes(encode(tone(2.0), "wav"))
    return path


@pytest.mark.parametrize(
    "kind", ["hls of a path", "hls of a subfile", "ffconcat", "dash", "svg", "sdp", "a zip in an mp4"]
)
def test_nothing_is_read_through_an_upload(service: Service, secret: Path, kind: str) -> None:
    playlists = hostile_media.playlists(secret)
    content = {**playlists, **hostile_media.disguises(playlists["hls of a path"])}[kind]
    task = service.end_of(service.create(content, "talk.mp3")["id"])
    extracted = service.client.post(EXTRACT, files={"file": ("talk.mp3", content)})
    for answer in (task, extracted):
        assert answer.status_code == 422
        assert answer.json()["detail"]["error"] in ("media_undecodable", "no_audio_stream")
        assert str(secret.parent) not in answer.text


def test_a_bomb_is_refused_in_words(service: Service) -> None:
    answer = service.end_of(service.create(hostile_media.BOMB, "talk.flac")["id"])
    assert (answer.status_code, answer.json()["detail"]["error"]) == (422, "media_too_long")
    assert "900 seconds" in answer.json()["detail"]["message"]


def test_a_bomb_is_not_extracted(service: Service) -> None:
    answer = service.client.post(EXTRACT, files={"file": ("talk.flac", hostile_media.BOMB)})
    assert (answer.status_code, answer.json()["detail"]["error"]) == (422, "output_too_large")


def test_sound_is_extracted(service: Service) -> None:
    film = encode(tone(2.0), "mp4", picture=True)
    answer = service.client.post(
        EXTRACT, files={"file": ("film.mp4", film)}, data={"output_format": "mp3", "sample_rate": "44100"}
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.headers["content-disposition"] == 'attachment; filename="extracted_audio.mp3"'
    assert int(answer.headers["content-length"]) == len(answer.content) > 10_000


def test_a_recording_without_sound(service: Service) -> None:
    answer = service.client.post(EXTRACT, files={"file": ("list.txt", b"words " * 100)})
    assert (answer.status_code, answer.json()["detail"]["error"]) == (422, "media_undecodable")


def test_a_client_that_goes_away_is_forgotten(service: Service) -> None:
    for _ in range(3):
        with pytest.raises(httpx.ReadTimeout):
            service.client.post(
                EXTRACT, files={"file": ("talk.flac", hostile_media.BOMB)}, data={"output_format": "mp3"}, timeout=0.2
            )
    test_sound_is_extracted(service)


def test_ready_says_that_confinement_holds(service: Service) -> None:
    confinement = service.client.get("/api/health/ready").json()["confinement"]
    assert confinement.pop("level") == "full"
    assert all(confinement.values())
