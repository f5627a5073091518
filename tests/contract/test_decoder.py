"""A decoder in this process and one in a child decode the same and refuse the same."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
import pytest
from av.stream import Disposition

from pipeline.domain.audio.sound_options import DEFAULT_SOUND_OPTIONS, SoundOptions
from pipeline.errors import MediaTooLong, MediaUndecodable, NoAudioStream
from pipeline.media.audio_decoder import AudioDecoder
from pipeline.media.recording_decoder import RecordingDecoder
from pipeline.media.sandbox.sandbox import Sandbox, SandboxLimits
from pipeline.media.sandbox.sandboxed_decoder import SandboxedDecoder
from tests.support.containers import film, pitch_of
from tests.support.recordings import FORMATS, FailingFile, encode, flac_of_silence, picture_only, tone

LOW, HIGH = 300.0, 1200.0

NewDecoder = Callable[..., RecordingDecoder]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(SandboxLimits())
    yield sandbox
    sandbox.close()


@pytest.fixture(params=["here", "in a child"])
def new_decoder(request: pytest.FixtureRequest, sandbox: Sandbox) -> NewDecoder:
    def make(
        file: BinaryIO, max_duration_s: float = 3600.0, sound: SoundOptions = DEFAULT_SOUND_OPTIONS
    ) -> RecordingDecoder:
        if request.param == "here":
            return AudioDecoder(file, max_duration_s, sound)
        return SandboxedDecoder(sandbox, file, max_duration_s, sound)

    return make


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_child_decodes_every_format_as_we_do(sandbox: Sandbox, suffix: str) -> None:
    content = encode(tone(40.0), suffix)
    here = list(AudioDecoder(io.BytesIO(content), 60.0).blocks())
    there = list(SandboxedDecoder(sandbox, io.BytesIO(content), 60.0).blocks())
    assert list(map(len, here)) == list(map(len, there))
    # Where FFmpeg adds floating point numbers up, it depends on the place in memory in which order.
    np.testing.assert_allclose(np.concatenate(here).astype(int), np.concatenate(there).astype(int), atol=1)


def test_samples_come_through_unchanged(new_decoder: NewDecoder) -> None:
    decoder = new_decoder(io.BytesIO(encode(tone(2.0), "flac")))
    np.testing.assert_array_equal(np.concatenate(list(decoder.blocks())), tone(2.0))
    assert not decoder.truncated


def test_the_sound_is_taken_as_it_is_asked_for(new_decoder: NewDecoder) -> None:
    content = film(
        (tone(1.0, LOW), {"language": "eng"}, Disposition.default), (tone(1.0, HIGH), {}, Disposition.comment)
    )
    decoder = new_decoder(io.BytesIO(content), sound=SoundOptions(audio_track="1", normalize_level=False))
    assert pitch_of(np.concatenate(list(decoder.blocks()))) == pytest.approx(HIGH, abs=5)
    assert [(track.language, track.auxiliary, track.chosen) for track in decoder.tracks] == [
        ("eng", False, False),
        (None, True, True),
    ]


def test_a_recording_that_breaks_off_is_called_truncated(new_decoder: NewDecoder) -> None:
    decoder = new_decoder(io.BytesIO(encode(tone(4.0), "wav")[:60_000]))
    assert 1.8 < sum(map(len, decoder.blocks())) / 16_000 < 1.9
    assert decoder.truncated


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", MediaUndecodable, "empty"),
        (b"#EXTM3U\n/etc/passwd\n", MediaUndecodable, "playlist"),
        (picture_only(), NoAudioStream, "no audio stream"),
        (flac_of_silence(14_000, 8000), MediaTooLong, "limit of 3600 seconds"),
    ],
)
def test_what_can_t_be_is_refused_in_words(
    new_decoder: NewDecoder, content: bytes, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        list(new_decoder(io.BytesIO(content)).blocks())


def test_storage_that_fails_is_not_taken_for_the_end(new_decoder: NewDecoder) -> None:
    with pytest.raises(ConnectionResetError, match="storage went away"):
        list(new_decoder(FailingFile(encode(tone(60.0), "wav"))).blocks())
