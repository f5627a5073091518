"""No upload, whatever format it claims, can read a file of the server."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.domain.audio.extraction import ExtractionOptions
from pipeline.errors import MediaError
from pipeline.media.audio_decoder import AudioDecoder
from pipeline.media.audio_extraction import extract_audio
from tests.support import hostile_media
from tests.support.recordings import encode, tone

SECRET = Path("/tmp/secret.wav")
KINDS = [*hostile_media.playlists(SECRET), *hostile_media.disguises(b"")]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A recording that belongs to the server: a tone."""
    path = tmp_path / "secret.wav"
    path.write_bytes(encode(tone(2.0, amplitude=20_000), "wav"))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_what_names_another_file_is_refused_in_words(secret: Path, kind: str) -> None:
    playlists = hostile_media.playlists(secret)
    content = {**playlists, **hostile_media.disguises(playlists["hls of a file"])}[kind]
    for refused in (
        lambda: list(AudioDecoder(io.BytesIO(content), 60.0).blocks()),
        lambda: extract_audio(io.BytesIO(content), io.BytesIO(), ExtractionOptions(), 60.0),
    ):
        with pytest.raises(MediaError) as caught:
            refused()
        assert caught.value.message.endswith(".")
        assert str(secret.parent) not in caught.value.message


def test_a_track_in_another_file_is_not_read(secret: Path) -> None:
    content = hostile_media.external_track(secret)
    try:
        audio = np.concatenate(list(AudioDecoder(io.BytesIO(content), 60.0).blocks()))
    except MediaError:
        return
    assert np.abs(audio.astype(int)).max() < 1000  # its own silence


def test_such_a_track_would_be_read_if_it_were_allowed(secret: Path) -> None:
    """Check that the test above could fail."""
    opened: list[str] = []

    def watched(path: str, *_: object) -> object:
        opened.append(path)
        raise PermissionError

    options = {"enable_drefs": "1", "use_absolute_path": "1"}
    with pytest.raises(PermissionError):
        av.open(io.BytesIO(hostile_media.external_track(secret)), options=options, io_open=watched)
    assert opened == [str(secret)]
