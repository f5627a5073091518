"""Headers that state the wrong size of the sound."""

from __future__ import annotations

import io
import struct
import time
from contextlib import suppress

import av
import numpy as np
import pytest

from pipeline.domain.audio.extraction import ExtractionOptions
from pipeline.domain.audio.sound_options import SoundOptions
from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.errors import MediaError
from pipeline.media.audio_decoder import AudioDecoder
from pipeline.media.audio_extraction import extract_audio
from pipeline.media.header_repair import correct_sizes
from tests.support.containers import write
from tests.support.recordings import encode, tone
from tests.support.thoroughness import some

SOUND = tone(2.0)
SOUND_BYTES = 2 * len(SOUND)

WAV, RF64, W64 = encode(SOUND, "wav"), encode(SOUND, "wav", rf64="always"), encode(SOUND, "w64")
AIFF, AU, CAF = encode(SOUND, "aiff"), encode(SOUND, "au"), encode(SOUND, "caf")

Places = tuple[tuple[int, str, int], ...]
"""Offset, form and surplus of each number that depends on the size of the sound."""

FORMATS: dict[str, tuple[bytes, Places]] = {
    "wav": (WAV, ((4, "<I", WAV.index(b"data")), (WAV.index(b"data") + 4, "<I", 0))),
    "rf64": (RF64, ((20, "<Q", RF64.index(b"data")), (28, "<Q", 0))),
    "w64": (W64, ((16, "<Q", W64.index(b"data") + 24), (W64.index(b"data") + 16, "<Q", 24))),
    "aiff": (AIFF, ((4, ">I", AIFF.index(b"SSND") + 8), (AIFF.index(b"SSND") + 4, ">I", 8))),
    "au": (AU, ((8, ">I", 0),)),
    "caf": (CAF, ((CAF.index(b"data") + 4, ">q", 4),)),
}

LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf60.16.100\0"
TRAILERS = {
    "wav": [LIST, b"id3 " + struct.pack("<I", 24) + b"ID3\x03\0\0\0\0\0\x0e" + bytes(14), LIST + LIST],
    "rf64": [LIST],
    "aiff": [b"NAME" + struct.pack(">I", 6) + b"speech", b"ID3 " + struct.pack(">I", 10) + b"ID3\x03" + bytes(6)],
    "caf": [b"info" + struct.pack(">q", 20) + b"\0\0\0\x01title\0speech....."[:20]],
}
ID3V1 = b"TAG" + b"title".ljust(125, b"\0")


def with_sound_size(kind: str, size: int) -> bytes:
    """Return the recording with another size of its sound in the header."""
    content, places = FORMATS[kind]
    changed = bytearray(content)
    for offset, form, extra in places:
        struct.pack_into(form, changed, offset, size + extra)
    return bytes(changed)


def with_number(kind: str, number: int) -> bytes:
    """Return the recording with one number in place of every size in the header."""
    content, places = FORMATS[kind]
    changed = bytearray(content)
    for offset, form, _ in places:
        struct.pack_into(form, changed, offset, number)
    return bytes(changed)


def decode(content: bytes) -> tuple[np.ndarray, bool]:
    decoder = AudioDecoder(io.BytesIO(content), 3600.0, SoundOptions(normalize_level=False))
    return np.concatenate(list(decoder.blocks())), decoder.truncated


def assert_whole(content: bytes) -> None:
    audio, truncated = decode(content)
    np.testing.assert_array_equal(audio, SOUND)
    assert not truncated


@pytest.mark.parametrize("kind", FORMATS)
def test_a_header_that_is_right_is_believed(kind):
    assert with_sound_size(kind, SOUND_BYTES)[:200] == FORMATS[kind][0][:200]
    assert_whole(FORMATS[kind][0])


PLACEHOLDERS = {
    "wav": [0, 0x7FFF_FFFF, 0x7FFF_FFFF - 36, 0x7FFF_F000, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFFF - 36],
    "rf64": [0, 2**64 - 1, 2**63 - 1],
    "w64": [0, 2**64 - 1, 2**63 - 1],
    "aiff": [0, 8, 0x7F00_0008, 0x7FFF_FFFF, 0xFFFF_FFFF],
    "au": [0, 0xFFFF_FFFF],
    "caf": [0, -1, 4],
}


@pytest.mark.parametrize(
    ("kind", "number"), some([(kind, number) for kind in FORMATS for number in PLACEHOLDERS[kind]])
)
def test_a_placeholder_means_all_that_is_there(kind, number):
    assert_whole(with_number(kind, number))
    for trailer in [*TRAILERS.get(kind, []), ID3V1]:
        assert_whole(with_number(kind, number) + trailer)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [2, 4000, SOUND_BYTES // 2])
def test_a_header_that_states_less_does_not_cut_the_sound_off(kind, size):
    assert_whole(with_sound_size(kind, size))
    for trailer in [*TRAILERS.get(kind, []), ID3V1]:
        assert_whole(with_sound_size(kind, size) + trailer)


@pytest.mark.parametrize("kind", TRAILERS)
def test_what_follows_the_sound_is_not_sound(kind):
    unknown = {"wav": "<4sI", "rf64": "<4sI", "aiff": ">4sI", "caf": ">4sq"}[kind]
    assert_whole(FORMATS[kind][0] + struct.pack(unknown, b"abcd", 4) + b"efgh")
    for trailer in [*TRAILERS[kind], ID3V1, TRAILERS[kind][0] + ID3V1, TRAILERS[kind][0][:-4]]:
        assert_whole(FORMATS[kind][0] + trailer)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_recording_that_breaks_off_is_called_truncated(kind):
    content = FORMATS[kind][0]
    audio, truncated = decode(content[: len(content) * 6 // 10])
    assert truncated
    assert 1.1 < len(audio) / SAMPLE_RATE < 1.3


@pytest.mark.parametrize("codec", ["adpcm_ms", "adpcm_ima_wav", "pcm_mulaw", "pcm_f32le", "libmp3lame", "aac", "g726"])
@pytest.mark.parametrize("number", [0, 0xFFFF_FFFF])
def test_compressed_sound_in_wav_is_whole(codec, number):
    content = write("wav", codec, samples=SOUND, rate=8000)
    whole, truncated = decode(content)
    assert not truncated
    at = content.index(b"data")
    streamed = (
        content[:4] + struct.pack("<I", number) + content[8 : at + 4] + struct.pack("<I", number) + content[at + 8 :]
    )
    again, truncated = decode(streamed)
    assert not truncated
    assert abs(len(again) - len(whole)) <= SAMPLE_RATE // 20


class Pipe:
    """A file that can be written to, but has no positions."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, content: bytes) -> int:
        self.content += bytes(content)
        return len(content)


PIPED = {
    "avi": "libmp3lame",
    "asf": "libmp3lame",
    "matroska": "aac",
    "flv": "aac",
    "nut": "aac",
    "mp3": "libmp3lame",
    "flac": "flac",
    "tta": "tta",
    "wv": "wavpack",
}


@pytest.mark.parametrize("muxer", PIPED)
def test_what_is_written_into_a_pipe_is_not_called_truncated(muxer):
    target, rate = Pipe(), 44_100
    with av.open(target, "w", format=muxer) as container:
        stream = container.add_stream(PIPED[muxer], rate=rate, layout="mono")
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(SOUND[None], "s16", "mono")
        frame.sample_rate = SAMPLE_RATE
        resampler = av.AudioResampler(
            stream.codec_context.format, "mono", rate, frame_size=stream.codec_context.frame_size
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    audio, truncated = decode(target.content)
    assert abs(len(audio) / SAMPLE_RATE - 2.0) < 0.15
    assert not truncated


MS_GSM_SILENCE = bytes.fromhex("0d2800") + bytes(62)


def test_gsm_in_wav_is_whole():
    blocks = 100
    head = struct.pack("<HHIIHHHH", 0x31, 1, 8000, 1625, 65, 0, 2, 320)
    chunks = b"fmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", 65 * blocks)
    content = b"RIFF" + struct.pack("<I", 4 + len(chunks) + 65 * blocks) + b"WAVE" + chunks + MS_GSM_SILENCE * blocks
    audio, truncated = decode(content)
    assert len(audio) == pytest.approx(4 * SAMPLE_RATE, abs=1600)
    assert not truncated
    assert decode(content[: len(content) // 2])[1]


@pytest.mark.parametrize("kind", FORMATS)
def test_all_of_the_sound_is_extracted(kind):
    target = io.BytesIO()
    extract_audio(io.BytesIO(with_sound_size(kind, 4000)), target, ExtractionOptions(sample_rate=SAMPLE_RATE), 60.0)
    assert_whole(target.getvalue())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_header_is_read_without_an_error(kind):
    content = np.frombuffer(FORMATS[kind][0], np.uint8)
    source = np.random.default_rng(3)
    for _ in range(300):
        damaged = content[: source.integers(0, len(content))].copy()
        places = source.integers(0, max(1, min(len(damaged), 150)), 6)
        if len(damaged):
            damaged[places] = source.integers(0, 256, 6)
        found = correct_sizes(io.BytesIO(damaged.tobytes()))
        assert found.file.tell() == 0
        assert len(found.file.read()) <= len(damaged)


OUTER = {"wav": (4, "<I", -8), "rf64": (20, "<Q", -8), "w64": (16, "<Q", 0), "aiff": (4, ">I", -8)}
"""Offset and form of the size of the whole file, and its surplus over the length of the file."""
OPAQUE = np.random.default_rng(5).bytes(64_000)


@pytest.mark.parametrize("kind", OUTER)
@pytest.mark.parametrize("tail", [OPAQUE, bytes(64_000), ID3V1 + OPAQUE, OPAQUE + ID3V1])
def test_what_the_size_of_the_whole_includes_behind_the_sound_is_not_sound(kind, tail):
    content = bytearray(FORMATS[kind][0] + tail)
    offset, form, extra = OUTER[kind]
    struct.pack_into(form, content, offset, len(content) + extra)
    assert_whole(bytes(content))
    assert_whole(bytes(content[:-1000]))  # the sound itself is complete


@pytest.mark.parametrize("kind", OUTER)
@pytest.mark.parametrize("miscounted", [-8, 1, 8])
def test_a_size_of_the_whole_that_is_miscounted_proves_nothing(kind, miscounted):
    content = bytearray(with_sound_size(kind, 4000))
    offset, form, _ = OUTER[kind]
    struct.pack_into(form, content, offset, struct.unpack_from(form, content, offset)[0] + miscounted)
    assert_whole(bytes(content))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_tag_at_the_end_is_not_sound(kind):
    assert_whole(FORMATS[kind][0] + ID3V1)
    assert_whole(with_sound_size(kind, 4000) + ID3V1)


@pytest.mark.parametrize("pattern", [b"TAG", ID3V1[:127], b"LIST" + bytes(4), b"data" + bytes(4), b"ID3 "])
def test_a_tail_full_of_what_look_like_chunks_is_read_in_no_time(pattern):
    begin = time.process_time()
    correct_sizes(io.BytesIO(with_number("wav", 0xFFFF_FFFF) + (pattern * 100_000)[:262_149]))
    assert time.process_time() - begin < 0.5


def test_other_files_are_left_alone():
    for content in (b"", b"RIFF", b"RIFF\0\0\0\0AVI ", b"caff", encode(tone(0.1), "mp3")):
        file = io.BytesIO(content)
        assert correct_sizes(file).file is file
        assert correct_sizes(file).complete is None


def test_a_patched_file_reads_like_a_file():
    file = correct_sizes(io.BytesIO(with_sound_size("wav", 4000))).file
    assert file.read() == WAV
    assert file.seek(-10, io.SEEK_END) == len(WAV) - 10
    assert file.read(100) == WAV[-10:]
    at = WAV.index(b"data") + 4
    for start in range(at - 6, at + 6):
        for size in range(8):
            file.seek(start)
            assert file.read(size) == WAV[start : start + size]
    file.seek(0)
    with av.open(file) as container:
        assert container.format.name == "wav"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_recording_cut_off_in_its_header_gives_sound_or_is_refused(kind):
    for length in range(65):
        with suppress(MediaError):
            assert len(decode(FORMATS[kind][0][:length])[0])


def test_long_sizes_that_are_not_there_are_not_read():
    content = b"RF64\xff\xff\xff\xffWAVEds64\0\0\0\0data\xff\xff\xff\xff"
    assert correct_sizes(io.BytesIO(content)).complete is None


def voc(sound: bytes, missing: int = 8) -> bytes:
    """Return a Creative Voice file of 16 bits whose size leaves out some bytes, as sox writes it."""
    size = (12 + len(sound) - missing) % (1 << 24)
    head = b"Creative Voice File\x1a" + struct.pack("<HHH", 26, 0x0114, 0x111F) + b"\x09" + size.to_bytes(3, "little")
    return head + struct.pack("<IBBH4x", SAMPLE_RATE, 16, 1, 4) + sound + b"\0"


@pytest.mark.parametrize("missing", [0, 8])
@pytest.mark.parametrize("tail", ["0100020003000400", "0200090000000100", "ffff0000ffff0000", "0000000000000000"])
def test_a_complete_creative_voice_file_is_whole(missing, tail):
    content = voc(SOUND.tobytes()[:-8] + bytes.fromhex(tail), missing)
    audio, truncated = decode(content)
    assert len(audio) == len(SOUND)
    assert not truncated
    assert decode(content[: len(content) // 2])[1]


def test_a_creative_voice_file_whose_size_wraps_around_is_whole():
    audio, truncated = decode(voc(bytes((1 << 24) + 1000)))
    assert (len(audio), truncated) == ((1 << 23) + 500, False)


def test_a_creative_voice_file_cut_off_in_its_header_is_refused():
    for size in (20, 25, 26, 29, 31):
        with pytest.raises(MediaError):
            decode(voc(SOUND.tobytes())[:size])
