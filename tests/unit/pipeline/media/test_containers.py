from __future__ import annotations

import av
import pytest

from pipeline.media.containers import FORMATS, refusal
from tests.support.odd_files import CHINESE, PROSE, RAW

DANGEROUS = """
    hls dash concat imf webm_dash_manifest ffmetadata image2 image2pipe mpjpeg sdp rtsp rtp sap lavfi tty v4l2 x11grab
    alsa fbdev vobsub ass srt webvtt rawvideo s16le
"""
USUAL = """
    wav mp3 mov mp4 ogg flac matroska webm aac ac3 eac3 aiff caf asf avi flv mpeg mpegts amr w64 au wv tta ape dts
"""


@pytest.mark.parametrize("name", DANGEROUS.split())
def test_demuxers_that_open_other_things_or_take_anything_are_not_allowed(name: str) -> None:
    assert name not in FORMATS.split(",")


@pytest.mark.parametrize("name", USUAL.split())
def test_what_people_record_is_allowed_and_known_to_ffmpeg(name: str) -> None:
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
def test_a_refusal_names_the_trouble(head: bytes, words: str) -> None:
    assert words in refusal(head)


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_text_is_called_text(codec: str) -> None:
    mark = b"\xff\xfe" if codec == "utf-16-le" else b""
    for end in (4096, 4095, 999, 998):
        assert "text" in refusal((mark + PROSE.encode(codec))[:end])


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "gb18030", "gbk"])
def test_chinese_text_is_called_text(codec: str) -> None:
    for end in (1500, 1499, 1498):
        assert "text" in refusal(CHINESE.encode(codec)[:end])


@pytest.mark.parametrize("kind", RAW)
@pytest.mark.parametrize("beginning", [b"", b"\xfe\xff", b"\xff\xfe", b"\xff\xfe\xff\xff", b"\xef\xbb\xbf"])
def test_raw_sound_is_not_called_text(kind: str, beginning: bytes) -> None:
    assert "text" not in refusal((beginning + RAW[kind])[:4096])
