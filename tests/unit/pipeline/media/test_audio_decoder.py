from __future__ import annotations

import io
import struct
import wave
import zipfile
from contextlib import suppress
from functools import cache

import av
import numpy as np
import pytest

from pipeline.domain.audio.sound_options import SoundOptions
from pipeline.domain.audio.spans import SAMPLE_RATE
from pipeline.errors import MediaError, MediaTooLong, MediaUndecodable, NoAudioStream
from pipeline.media.audio_decoder import BLOCK_SAMPLES, AudioDecoder
from tests.support import containers, recordings, speech
from tests.support.recordings import FORMATS, FRAGMENTED, FailingFile, click_at, encode, heard_at, silence, tone
from tests.support.thoroughness import some


def decode(content: bytes, max_duration_s: float = 3600.0) -> tuple[np.ndarray, bool]:
    decoder = AudioDecoder(io.BytesIO(content), max_duration_s)
    return np.concatenate(list(decoder.blocks())), decoder.truncated


def in_layout(audio: np.ndarray, layout: str, rate: int) -> bytes:
    """Encode 16 kHz sound of shape ``(samples, channels)`` as WAV in a layout and at a sample rate."""
    target = io.BytesIO()
    with av.open(target, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio).reshape(1, -1), "s16", layout)
        frame.sample_rate = SAMPLE_RATE
        resampler = av.AudioResampler("s16", layout, rate)
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            converted.pts = None
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return target.getvalue()


def floating(audio: np.ndarray, codec: str) -> bytes:
    """Encode 16 kHz mono sound in [-1, 1] as WAV."""
    target = io.BytesIO()
    with av.open(target, "w", format="wav") as container:
        stream = container.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(audio[None], "dbl", "mono")
        frame.sample_rate = SAMPLE_RATE
        resampler = av.AudioResampler(stream.codec_context.format, "mono", SAMPLE_RATE)
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return target.getvalue()


def wav_of(channels: np.ndarray, rate: int = SAMPLE_RATE) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(channels.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(channels.astype("<i2").tobytes())
    return target.getvalue()


@pytest.mark.parametrize("suffix", some([*FORMATS]))
def test_every_format_is_decoded_and_keeps_its_times(suffix):
    audio, truncated = decode(encode(click_at(1.5, 3.0), suffix))
    assert audio.dtype == np.int16
    assert abs(len(audio) / SAMPLE_RATE - 3.0) < 0.1
    assert abs(heard_at(audio) - 1.5) < 0.05
    assert not truncated


def test_samples_of_a_lossless_recording_come_through_unchanged():
    original = tone(2.0)
    audio, _ = decode(encode(original, "flac"))
    np.testing.assert_array_equal(audio, original)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_starts_late_in_a_video_keeps_its_times(suffix):
    audio, truncated = decode(encode(click_at(1.0, 2.0), suffix, starts_s=2.5, picture=True))
    assert abs(heard_at(audio) - 3.5) < 0.05
    assert not truncated


def test_a_gap_in_the_time_stamps_is_filled_with_silence():
    whole = encode(np.concatenate([tone(3.0), click_at(1.0, 3.0)]), "ts")
    packets = [whole[i : i + 188] for i in range(0, len(whole), 188)]
    third = len(packets) // 6
    audio, _ = decode(b"".join(packets[:third] + packets[2 * third :]))
    assert abs(len(audio) / SAMPLE_RATE - 6.0) < 0.1


@pytest.mark.parametrize("channels", some(range(2, 17)))
def test_sound_in_one_of_many_channels_keeps_its_level(channels):
    audio = np.zeros((SAMPLE_RATE, channels))
    audio[:, channels - 1] = tone(1.0)
    decoded, _ = decode(wav_of(audio))
    np.testing.assert_allclose(decoded, tone(1.0), atol=1)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_channels_that_are_alike_are_decoded_like_one(rate):
    alone, _ = decode(wav_of(tone(2.0)[:, None], rate))
    twice, _ = decode(wav_of(np.stack([tone(2.0)] * 2, axis=1), rate))
    np.testing.assert_array_equal(twice, alone)


def test_channels_in_opposite_phase_are_not_silent():
    decoded, _ = decode(wav_of(np.stack([tone(1.0), -tone(1.0)], axis=1)))
    np.testing.assert_allclose(np.abs(decoded), np.abs(tone(1.0)), atol=1)


@pytest.mark.parametrize("layout", ["2.1", "3.0", "4.0", "quad", "5.0", "5.1", "5.1(side)", "6.1", "7.1", "7.1(wide)"])
@pytest.mark.parametrize("rate", [8000, 48_000])
def test_sound_in_any_channel_of_a_layout_keeps_its_level_but_low_frequency_effects(layout, rate):
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    sound = tone(0.5)
    for index, name in some([*enumerate(names)], f"{layout} {rate}"):
        audio = np.zeros((len(sound), len(names)), np.int16)
        audio[:, index] = sound
        decoded, _ = decode(in_layout(audio, layout, rate))
        loudest = np.abs(decoded[1000:-1000].astype(int)).max(initial=0)
        assert loudest == pytest.approx(0 if name.startswith("LFE") else 8000, abs=300), name


@pytest.mark.parametrize("rate", some([4000, 6000, 7350, 11_025, 22_050, 37_800, 88_200, 96_000, 176_400, 192_000]))
def test_every_sample_rate_is_converted(rate):
    decoded, truncated = decode(encode(click_at(1.5, 3.0), "wav", rate=rate))
    assert abs(len(decoded) / SAMPLE_RATE - 3.0) < 0.01
    assert abs(heard_at(decoded) - 1.5) < 0.01
    assert not truncated


@pytest.mark.parametrize("codec", ["pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_quiet_sound_of_more_than_16_bits_keeps_its_bits(codec):
    loud = speech.load(speech.corpus()[0].path).astype(np.float64)
    quiet, _ = decode(floating(loud / 100, codec))  # -66 dB of full scale: 16 steps of 16 bits
    whole, _ = decode(floating(loud, codec))
    difference = quiet.astype(float) - whole
    assert 20 * np.log10(np.std(difference) / np.std(whole.astype(float))) < -40


def test_the_level_may_be_left_alone():
    quiet = (speech.load(speech.corpus()[0].path) * 327).astype(np.int16)
    content = wav_of(quiet[:, None])
    untouched = AudioDecoder(io.BytesIO(content), 60.0, SoundOptions(normalize_level=False)).blocks()
    np.testing.assert_array_equal(np.concatenate(list(untouched)), quiet)
    assert np.abs(decode(content)[0].astype(int)).max() > 20 * np.abs(quiet.astype(int)).max()


def test_a_rate_that_changes_in_mid_stream_is_followed():
    chained = encode(tone(1.0), "aac", rate=44_100) + encode(tone(1.0), "aac", rate=16_000)
    audio, _ = decode(chained)
    assert abs(len(audio) / SAMPLE_RATE - 2.0) < 0.2


@pytest.mark.parametrize("layouts", [("mono", "stereo"), ("5.1", "mono"), ("stereo", "5.1", "stereo")])
def test_a_layout_that_changes_in_mid_stream_is_followed(layouts):
    pieces = [containers.write("adts", "aac", samples=tone(1.0), layout=layout) for layout in layouts]
    audio, _ = decode(b"".join(pieces))
    assert abs(len(audio) / SAMPLE_RATE - len(layouts)) < 0.2
    levels = [
        np.abs(audio[int((second + 0.5) * SAMPLE_RATE) :][:1600].astype(int)).max() for second in range(len(layouts))
    ]
    expected = {"mono": 8000, "stereo": 5657, "5.1": 8000}  # FFmpeg copies mono to both channels, 3 dB lower
    assert levels == pytest.approx([expected[layout] for layout in layouts], rel=0.1)


def test_blocks_are_of_one_size_but_the_last():
    blocks = list(AudioDecoder(io.BytesIO(encode(silence(65.0), "flac")), 3600).blocks())
    assert [len(block) for block in blocks] == [BLOCK_SAMPLES, BLOCK_SAMPLES, 65 * SAMPLE_RATE - 2 * BLOCK_SAMPLES]


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.1])
def test_a_very_short_clip_is_decoded(seconds):
    audio, truncated = decode(wav_of(tone(seconds)[:, None]))
    assert len(audio) == round(seconds * SAMPLE_RATE)
    assert not truncated


def test_a_recording_over_the_limit_is_refused_when_the_limit_is_reached():
    blocks = AudioDecoder(io.BytesIO(encode(silence(100.0), "flac")), max_duration_s=50.0).blocks()
    next(blocks)
    with pytest.raises(MediaTooLong, match="50 seconds"):
        next(blocks)


@pytest.mark.parametrize(
    "suffix", some(["wav", "mp3", "ogg", "flac", "webm", "mkv", "aac", "aiff", "caf", "flv", "wv"])
)
def test_what_is_there_of_a_recording_that_breaks_off_is_decoded(suffix):
    noise = np.random.default_rng(1).normal(0, 3000, 10 * SAMPLE_RATE).astype(np.int16)
    content = encode(noise, suffix)
    audio, truncated = decode(content[: len(content) * 6 // 10])
    assert truncated
    assert 3.9 < len(audio) / SAMPLE_RATE < 6.2


def test_a_fragmented_mp4_that_breaks_off_is_decoded_as_far_as_it_goes():
    content = encode(tone(10.0), "mp4", **FRAGMENTED)
    audio, truncated = decode(content[: len(content) * 6 // 10])
    assert truncated
    assert 5 < len(audio) / SAMPLE_RATE < 6.5
    assert not decode(content)[1]


def test_an_mp3_without_a_length_in_its_header_is_not_called_broken():
    quiet_then_loud = np.concatenate([silence(5.0), tone(5.0)])
    _, truncated = decode(encode(quiet_then_loud, "mp3", write_xing="0"))
    assert not truncated


def test_an_mp3_with_tags_around_it_is_decoded():
    id3v2 = b"ID3\x03\x00\x00" + bytes([0, 0, 8, 0]) + bytes(1024)
    id3v1 = b"TAG" + b"title".ljust(125, b"\0")
    audio, truncated = decode(id3v2 + encode(tone(2.0), "mp3") + id3v1)
    assert abs(len(audio) / SAMPLE_RATE - 2.0) < 0.1
    assert not truncated


def test_damaged_packets_are_left_out_and_the_times_stay():
    content = bytearray(encode(np.concatenate([tone(4.0), click_at(3.0, 4.0)]), "mkv"))
    middle = len(content) // 4
    content[middle : middle + 200] = b"\xff" * 200
    audio, _ = decode(bytes(content))
    assert abs(len(audio) / SAMPLE_RATE - 8.0) < 0.2
    assert abs(int(np.flatnonzero(np.abs(audio.astype(int)) > 12_000)[-1]) / SAMPLE_RATE - 7.1) < 0.1


def archive() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("speech.wav", encode(tone(0.1), "wav"))
    return target.getvalue()


MPEG_VIDEO_ONLY = recordings.picture_only("mp4")
MP4 = encode(tone(3.0), "mp4")
AU = encode(tone(1.0), "au")

UNDECODABLE = {
    "empty": (b"", MediaUndecodable, "empty"),
    "text": (b"This is not an mp3.\n" * 200, MediaUndecodable, "text"),
    "one byte": (b"x", MediaUndecodable, "text"),
    "random bytes": (np.random.default_rng(0).bytes(20_000), MediaUndecodable, "decoded|format"),
    "mp4 without its index": (MP4[: MP4.index(b"moov") - 4], MediaUndecodable, "index"),
    "video without sound": (MPEG_VIDEO_ONLY, NoAudioStream, "no audio stream"),
    "png": (recordings.image("image2pipe", "png", "rgb24"), NoAudioStream, "image"),
    "jpeg": (recordings.image("image2pipe", "mjpeg", "yuvj420p"), NoAudioStream, "image"),
    "svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', NoAudioStream, "image"),
    "m3u8": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", MediaUndecodable, "playlist"),
    "concat": (b"ffconcat version 1.0\nfile /etc/passwd\n", MediaUndecodable, "playlist"),
    "sdp": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=audio 5004 RTP/AVP 0\n", MediaUndecodable, "text"),
    "subtitles": (b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n", MediaUndecodable, "text"),
    "zip": (archive(), MediaUndecodable, "archive"),
    "wav header alone": (wav_of(np.zeros((0, 1))), MediaUndecodable, "no sound"),
    "a sample rate of 4 GHz": (AU[:16] + b"\xff" * 4 + AU[20:], MediaUndecodable, "sample rate|decoded|format"),
    "riff of nothing": (b"RIFF" + struct.pack("<I", 4) + b"WAVE", MediaUndecodable, "decoded|format"),
}


@pytest.mark.parametrize("kind", UNDECODABLE)
def test_bad_input_is_refused_with_a_sentence(kind):
    content, error, words = UNDECODABLE[kind]
    with pytest.raises(error, match=words) as caught:
        decode(content)
    assert isinstance(caught.value, MediaError)
    assert caught.value.message.endswith(".")
    assert "/etc" not in caught.value.message


def test_a_playlist_does_not_open_what_it_names(tmp_path):
    target = tmp_path / "secret.wav"
    target.write_bytes(encode(tone(1.0), "wav"))
    for playlist in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target.as_uri()}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{target}'\n",
    ):
        with pytest.raises(MediaUndecodable):
            decode(playlist.encode())


def test_a_damaged_file_is_decoded_or_refused_and_nothing_else():
    source = np.random.default_rng(11)
    for suffix in ("ts", "au", "mp3", "mp4", "ogg"):
        content = np.frombuffer(encode(tone(0.5), suffix), np.uint8)
        for _ in range(8):
            damaged = content.copy()
            damaged[source.integers(0, len(damaged), 30)] = source.integers(0, 256, 30)
            with suppress(MediaError):
                assert decode(damaged.tobytes())[0].dtype == np.int16


def test_storage_that_fails_is_not_taken_for_the_end_of_the_recording():
    with pytest.raises(ConnectionResetError):
        list(AudioDecoder(FailingFile(encode(tone(60.0), "wav")), 3600).blocks())


def float_wav(channels: np.ndarray, rate: int) -> bytes:
    """Write sound of shape ``(samples, channels)`` as floating point WAV without converting its numbers."""
    frame_bytes = channels.itemsize * channels.shape[1]
    form = struct.pack("<HHIIHH", 3, channels.shape[1], rate, rate * frame_bytes, frame_bytes, 8 * channels.itemsize)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", channels.nbytes)
    content = b"WAVE" + chunks + channels.tobytes()
    return b"RIFF" + struct.pack("<I", len(content)) + content


@cache
def decoded_left(bad: float | None, kind: type, channels: int, rate: int, *, normalize_level: bool) -> np.ndarray:
    """Decode twenty seconds of sound on the left channel only, with a bad sample at 4 s if one is given."""
    sound = np.zeros((20 * rate, channels), kind)
    sound[:, 0] = 0.2 * np.sin(2 * np.pi * 440 * np.arange(20 * rate) / rate)
    if bad is not None:
        with np.errstate(over="ignore"):
            sound[4 * rate] = bad
    decoder = AudioDecoder(io.BytesIO(float_wav(sound, rate)), 60.0, SoundOptions(normalize_level=normalize_level))
    return np.concatenate(list(decoder.blocks())).astype(int)


@pytest.mark.parametrize("bad", some([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e300, 1e-42]))
@pytest.mark.parametrize(("kind", "rate"), [(np.float32, 16_000), (np.float64, 44_100)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("normalize_level", [False, True])
def test_a_sample_that_is_no_number_of_sound_changes_only_its_surroundings(bad, kind, channels, rate, normalize_level):
    expected = decoded_left(None, kind, channels, rate, normalize_level=normalize_level)
    audio = decoded_left(bad, kind, channels, rate, normalize_level=normalize_level)
    assert len(audio) == len(expected)
    second = 5 * SAMPLE_RATE + np.arange(SAMPLE_RATE)
    for start in (-SAMPLE_RATE * 4, SAMPLE_RATE, 10 * SAMPLE_RATE):
        np.testing.assert_allclose(audio[second + start], expected[second + start], rtol=0.02, atol=40)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_floating_point_over_full_scale_is_kept_until_it_is_mixed(kind):
    sound = np.stack([1.5 * tone(1.0), np.zeros(SAMPLE_RATE)], axis=1).astype(kind) / 8000
    half = np.stack([1.5 * tone(1.0), np.zeros(SAMPLE_RATE)], axis=1).astype(kind) / 16_000
    loud, quiet = decode(float_wav(sound, SAMPLE_RATE))[0], decode(float_wav(half, SAMPLE_RATE))[0]
    assert np.abs(loud.astype(int)).max() <= 32_768
    np.testing.assert_allclose(quiet[100:200], tone(1.0)[100:200] * 1.5 * 32_768 / 16_000, atol=2)


def test_nothing_but_numbers_that_are_none_is_silence():
    audio, truncated = decode(float_wav(np.full((SAMPLE_RATE, 2), np.nan, np.float32), SAMPLE_RATE))
    np.testing.assert_array_equal(audio, np.zeros(SAMPLE_RATE))
    assert not truncated
