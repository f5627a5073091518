from __future__ import annotations

import av
import pytest

from pipeline.media.containers import FORMATS, refusal

DANGEROUS = """
    hls dash concat imf webm_dash_manifest ffmetadata image2 image2pipe mpjpeg sdp rtsp rtp sap lavfi tty v4l2 x11grab
    alsa fbdev vobsub ass srt webvtt rawvideo s16le
"""
USUAL = """
    wav mp3 mov mp4 ogg flac matroska webm aac ac3 eac3 aiff caf asf avi flv mpeg mpegts amr w64 au wv tta ape dts
"""


@pytest.mark.parametrize("name", DANGEROUS.split())
def test_demuxers_that_open_other_things_or_take_anything_are_not_allowed(name):
    assert name not in FORMATS.split(",")


@pytest.mark.parametrize("name", USUAL.split())
def test_what_people_record_is_allowed_and_known_to_ffmpeg(name):
    assert name in FORMATS.split(",")
    assert name in av.formats_available


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "empty"),
        (b"\0\0\0\x20ftypisom", "index"),
        (b"PK\x03\x04", "archive"),
        (b"\n#EXTM3U", "playlist"),
        (b"[playlist]\nFile1=", "playlist"),
        ("Grüße aus Köln\n".encode(), "text"),
        ("Text".encode("utf-16"), "text"),
        (b"\x00\x01\x02\x03\x04", "format"),
    ],
)
def test_a_refusal_names_the_trouble(head, words):
    assert words in refusal(head)
