from __future__ import annotations

import io

import numpy as np
import pytest
from av.stream import Disposition

from pipeline.domain.audio.extraction import ExtractionOptions
from pipeline.domain.audio.sound_options import SoundOptions
from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.errors import MediaUndecodable, NoSuchTrack
from pipeline.media.audio_decoder import AudioDecoder
from pipeline.media.audio_extraction import extract_audio
from tests.support.containers import film, pitch_of
from tests.support.recordings import Samples, silence, tone

Track = tuple[Samples, dict[str, str], Disposition]

LOW, HIGH = 300.0, 1200.0


def decode_pitch(content: bytes, audio_track: str | None = None) -> tuple[float, AudioDecoder]:
    decoder = AudioDecoder(io.BytesIO(content), 3600.0, SoundOptions(audio_track=audio_track))
    audio = np.concatenate(list(decoder.blocks()))
    return round(pitch_of(audio), -2), decoder


def chosen_index(content: bytes, audio_track: str | None = None) -> int:
    """Return the index of the chosen track; check that it is the decoded one."""
    pitch, decoder = decode_pitch(content, audio_track)
    [chosen] = [track for track in decoder.tracks if track.chosen]
    assert pitch == round((LOW, HIGH, 2000.0)[chosen.index], -2)
    return chosen.index


NONE = Disposition(0)
FIRST, SECOND, THIRD = tone(1.0, LOW), tone(1.0, HIGH), tone(1.0, 2000.0)


@pytest.mark.parametrize(
    ("first", "second", "index"),
    [
        ((FIRST, {}, NONE), (SECOND, {}, NONE), 0),
        ((FIRST, {}, NONE), (SECOND, {}, Disposition.default), 1),
        ((FIRST, {}, Disposition.default | Disposition.comment), (SECOND, {}, NONE), 1),
        ((FIRST, {}, Disposition.visual_impaired), (SECOND, {}, NONE), 1),
        ((FIRST, {}, Disposition.hearing_impaired), (SECOND, {}, NONE), 1),
        ((FIRST, {"title": "Commentary by the director"}, Disposition.default), (SECOND, {}, NONE), 1),
        ((silence(1.0), {}, Disposition.default), (SECOND, {}, NONE), 1),
        ((np.ones(SAMPLE_RATE, np.int16), {}, Disposition.default), (SECOND, {}, NONE), 1),
    ],
)
@pytest.mark.parametrize("codec", ["flac", "libopus"])
def test_the_best_track_is_taken(
    first: Track,
    second: Track,
    index: int,
    codec: str,
) -> None:
    assert chosen_index(film(first, second, codec=codec)) == index


@pytest.mark.parametrize("muxer", ["mp4", "mov", "mpegts"])
def test_a_silent_track_is_left_out_in_every_container(muxer: str) -> None:
    assert (
        chosen_index(
            film(
                (silence(1.0), {}, NONE),
                (SECOND, {}, NONE),
                muxer=muxer,
                codec="libopus" if muxer == "mpegts" else "aac",
            )
        )
        == 1
    )


def test_a_track_that_is_silent_at_first_is_taken_where_the_others_are_silent() -> None:
    late = np.concatenate([silence(40.0), tone(5.0, LOW)])
    content = film((late, {}, NONE), (silence(45.0), {}, NONE))
    assert chosen_index(content) == 0


def test_a_track_that_begins_late_keeps_its_times() -> None:
    content = film((silence(4.0), {}, Disposition.default), (np.concatenate([silence(2.5), tone(1.5, HIGH)]), {}, NONE))
    _, decoder = decode_pitch(content)
    assert [track.chosen for track in decoder.tracks] == [False, True]
    audio = np.concatenate(list(AudioDecoder(io.BytesIO(content), 60.0).blocks()))
    assert np.flatnonzero(np.abs(audio.astype(int)) > 2000)[0] / SAMPLE_RATE == pytest.approx(2.5, abs=0.05)


def test_a_silent_recording_is_taken_as_it_is() -> None:
    _, decoder = decode_pitch(film((silence(1.0), {}, NONE), (silence(1.0), {}, Disposition.default)))
    assert [(track.silent, track.chosen) for track in decoder.tracks] == [(True, False), (True, True)]


@pytest.mark.parametrize(
    ("wanted", "index"), [("0", 0), ("1", 1), ("2", 2), ("de", 1), ("ger", 1), ("deu", 1), ("en", 0), ("en-GB", 0)]
)
def test_a_track_may_be_asked_for(wanted: str, index: int) -> None:
    content = film(
        (FIRST, {"language": "eng"}, NONE),
        (SECOND, {"language": "ger"}, NONE),
        (THIRD, {"language": "eng", "title": "Commentary"}, Disposition.default),
    )
    assert chosen_index(content, wanted) == index


def test_a_track_that_is_not_there_is_refused_with_those_that_are() -> None:
    content = film(
        (FIRST, {"language": "eng", "title": "Main"}, Disposition.default), (SECOND, {"language": "ger"}, NONE)
    )
    with pytest.raises(
        NoSuchTrack, match=r"no audio track 'fr'. It has: 0 \(flac, eng, “Main”, default\), 1 \(flac, ger\)\."
    ):
        decode_pitch(content, "fr")


def test_the_tracks_are_listed() -> None:
    content = film(
        (FIRST, {"language": "eng", "title": "Main"}, Disposition.default),
        (SECOND, {"language": "ger"}, Disposition.comment),
    )
    _, decoder = decode_pitch(content)
    main, other = decoder.tracks
    assert (main.index, main.codec, main.language, main.title, main.channels) == (0, "flac", "eng", "Main", 1)
    assert (main.default, main.auxiliary, main.decodable, main.chosen) == (True, False, True, True)
    assert (other.index, other.language, other.default, other.auxiliary, other.chosen) == (1, "ger", False, True, False)
    assert (main.silent, other.silent) == (False, None)


def unknown_codec(content: bytes) -> bytes:
    """Give an MP4's first track a codec that FFmpeg does not know, as Apple's ``apac``."""
    at = content.index(b"mp4a")
    content = content[:at] + b"apac" + content[at + 4 :]
    at = content.index(b"esds")
    return content[:at] + b"dapa" + content[at + 4 :]


def test_a_track_nobody_can_decode_is_left_out() -> None:
    content = unknown_codec(film((FIRST, {}, Disposition.default), (SECOND, {}, NONE), muxer="mov", codec="aac"))
    assert chosen_index(content) == 1
    with pytest.raises(MediaUndecodable, match="no decoder"):
        decode_pitch(content, "0")
    with pytest.raises(MediaUndecodable, match="no decoder"):
        decode_pitch(unknown_codec(film((FIRST, {}, NONE), muxer="mov", codec="aac")))


def test_the_same_track_is_extracted() -> None:
    content = film((silence(1.0), {}, Disposition.default), (SECOND, {}, NONE))
    target = io.BytesIO()
    extract_audio(io.BytesIO(content), target, ExtractionOptions(), 60.0)
    assert decode_pitch(target.getvalue())[0] == round(HIGH, -2)
