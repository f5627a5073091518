"""A confined child opens every container, codec and kind of stream as this process does: it has all it needs loaded."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator

import av.error
import pytest
from av.stream import Disposition

from pipeline.domain.audio.extraction import ExtractionOptions
from pipeline.errors import MediaError
from pipeline.media.audio_decoder import AudioDecoder
from pipeline.media.audio_extraction import extract_audio
from pipeline.media.sandbox.decoder_jobs import NOT_LOADED
from pipeline.media.sandbox.sandbox import Sandbox, SandboxLimits
from pipeline.media.sandbox.sandboxed_decoder import SandboxedDecoder, extract_in
from tests.support import containers
from tests.support.containers import AddStream, attachment, data, film, packets_of, picture
from tests.support.odd_files import CHINESE, FORMATS, PROSE, RAW, with_sound_size
from tests.support.recordings import silence, tone

MAX_DURATION_S = 60.0

CARRIERS = """
    matroska webm mp4 mov ipod 3gp mpegts mpeg vob ogg nut avi asf flv wtv mxf gxf ismv mp3 flac aiff wav caf
"""
"""Containers that hold several streams, or pictures."""

SUBTITLES = """
    subrip ass webvtt mov_text text ttml hdmv_pgs_subtitle dvd_subtitle dvb_subtitle dvb_teletext xsub eia_608
    hdmv_text_subtitle arib_caption
"""
DATA = "klv bin_data timed_id3 scte_35 epg dvd_nav_packet smpte_436m_anc"

STREAMS: dict[str, tuple[AddStream, ...]] = {
    **{f"subtitles: {codec}": (packets_of(codec),) for codec in SUBTITLES.split()},
    **{f"data: {codec}": (data(codec),) for codec in DATA.split()},
    "a font": (attachment("sans.ttf", "font/ttf"),),
    "fonts and a picture": (
        attachment("sans.ttf", "font/ttf"),
        attachment("serif.otf", "application/vnd.ms-opentype"),
        attachment("cover.jpg", "image/jpeg"),
    ),
    "cover art: jpeg": (picture("mjpeg", "yuvj420p", cover=True),),
    "cover art: png": (picture("png", "rgb24", cover=True),),
    "a video": (picture("mpeg2video"),),
    "videos of three codecs": (picture("mpeg4"), picture("mjpeg", "yuvj420p"), picture("mpeg2video")),
    "everything": (
        picture("mpeg4"),
        packets_of("subrip"),
        packets_of("ass"),
        packets_of("hdmv_pgs_subtitle"),
        packets_of("dvd_subtitle"),
        attachment("sans.ttf", "font/ttf"),
    ),
}
EXPECTED_CARRIERS = {
    "subtitles: subrip": {"matroska"},
    "subtitles: ass": {"matroska"},
    "subtitles: webvtt": {"matroska", "webm"},
    "subtitles: mov_text": {"mp4", "mov", "ipod", "3gp"},
    "subtitles: hdmv_pgs_subtitle": {"matroska"},
    "subtitles: dvd_subtitle": {"matroska"},
    "subtitles: dvb_subtitle": {"mpegts"},
    "subtitles: eia_608": {"mov"},
    "cover art: jpeg": {"mp3", "flac", "mp4"},
    "a video": {"matroska", "mpegts", "mxf"},
    "everything": {"matroska"},
}
"""So that a container which is no longer written here is noticed."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(SandboxLimits())
    yield sandbox
    sandbox.close()


def decoded(decoder: AudioDecoder | SandboxedDecoder) -> tuple[object, object]:
    """Return the number of samples and whether the end is missing, or the refusal."""
    try:
        samples = sum(map(len, decoder.blocks()))
    except MediaError as error:
        return type(error), error.message
    return samples, decoder.truncated


def extracted_here(content: bytes) -> object:
    target = io.BytesIO()
    try:
        extract_audio(io.BytesIO(content), target, ExtractionOptions(), MAX_DURATION_S)
    except MediaError as error:
        return type(error), error.message
    return len(target.getvalue())


def extracted_there(sandbox: Sandbox, content: bytes) -> object:
    target = io.BytesIO()
    try:
        for _ in extract_in(
            sandbox,
            io.BytesIO(content),
            target,
            ExtractionOptions(),
            max_duration_s=MAX_DURATION_S,
            max_bytes=1 << 30,
        ):
            pass
    except MediaError as error:
        return type(error), error.message
    return len(target.getvalue())


def assert_the_same(sandbox: Sandbox, content: bytes, name: str) -> tuple[object, object]:
    here = decoded(AudioDecoder(io.BytesIO(content), MAX_DURATION_S))
    assert decoded(SandboxedDecoder(sandbox, io.BytesIO(content), MAX_DURATION_S)) == here, name
    assert extracted_there(sandbox, content) == extracted_here(content), name
    return here


def test_every_container_is_opened(sandbox: Sandbox) -> None:
    left_out = {name for names in containers.WITHOUT_SOUND.values() for name in names.split()}
    for muxer in containers.muxers():
        content = containers.with_sound(muxer)
        assert content is not None or muxer in left_out, muxer
        if content is not None:
            assert_the_same(sandbox, content, muxer)


def test_every_codec_is_decoded(sandbox: Sandbox) -> None:
    carriers = ["matroska", "mov", "nut", "asf", "mpegts", "wav", *containers.muxers()]
    for encoder in containers.audio_encoders():
        found = (containers.with_sound(muxer, encoder) for muxer in carriers)
        content = next((content for content in found if content), None)
        assert content is not None or encoder in containers.NO_CARRIER, encoder
        if content is not None:
            assert_the_same(sandbox, content, encoder)


@pytest.mark.parametrize("kind", STREAMS)
def test_every_other_stream_may_stand_beside_the_sound(sandbox: Sandbox, kind: str) -> None:
    carriers = set()
    for muxer in CARRIERS.split():
        codec = "pcm_s16le" if muxer in ("mxf", "gxf") else None
        try:
            content = containers.write(muxer, codec, others=STREAMS[kind])
        except (av.error.FFmpegError, ValueError):
            continue
        samples, _ = assert_the_same(sandbox, content, muxer)
        assert isinstance(samples, int), (muxer, samples)
        carriers.add(muxer)
    assert carriers >= EXPECTED_CARRIERS.get(kind, set())
    assert carriers


def test_what_is_refused_is_refused_alike(sandbox: Sandbox) -> None:
    texts = [PROSE.encode(codec) for codec in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "utf-7", "latin-1")]
    texts += [CHINESE.encode(codec) for codec in ("utf-8", "utf-16", "gb18030")]
    texts += ["こんにちは、世界。\n".encode("shift_jis") * 50, "안녕하세요, 세계.\n".encode("euc_kr") * 50]
    for content in (
        *texts,
        *RAW.values(),
        *(b"\xfe\xff" + sound for sound in RAW.values()),
        b"",
        b"PK\3\4",
        b"#EXTM3U",
    ):
        assert_the_same(sandbox, content, repr(content[:20]))


def test_what_is_looked_at_before_it_is_decoded_is_decoded_alike(sandbox: Sandbox) -> None:
    silent_first = film((silence(1.0), {}, Disposition(0)), (tone(1.0), {"language": "eng"}, Disposition(0)))
    for content in (silent_first, *(with_sound_size(kind, size) for kind in FORMATS for size in (4000, 0))):
        samples, truncated = assert_the_same(sandbox, content, repr(content[:20]))
        assert isinstance(samples, int)
        assert not truncated


def test_all_that_is_imported_late_is_loaded_before_children_are_made() -> None:
    program = (
        "import encodings, pkgutil, sys, av;"
        "from pipeline.media.sandbox.decoder_jobs import preload_modules; preload_modules();"
        "names = {module.name for package in (av, encodings)"
        " for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.')};"
        "print(*sorted(names - set(sys.modules)))"
    )
    missing = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert set(missing.split()) == NOT_LOADED
