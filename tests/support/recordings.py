"""Recordings made on the spot, in memory: any container, any codec, and the ways in which files are broken."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import AsyncIterator
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from pipeline.domain.audio.spans import SAMPLE_RATE

Samples = npt.NDArray[np.int16]

FORMATS: dict[str, tuple[str, str, int]] = {
    "wav": ("wav", "pcm_s16le", SAMPLE_RATE),
    "mp3": ("mp3", "libmp3lame", 44_100),
    "m4a": ("ipod", "aac", 44_100),
    "mp4": ("mp4", "aac", 44_100),
    "ogg": ("ogg", "libopus", 48_000),
    "flac": ("flac", "flac", SAMPLE_RATE),
    "webm": ("webm", "libopus", 48_000),
    "mkv": ("matroska", "aac", 44_100),
    "aac": ("adts", "aac", 44_100),
    "aiff": ("aiff", "pcm_s16be", SAMPLE_RATE),
    "caf": ("caf", "pcm_s16le", SAMPLE_RATE),
    "avi": ("avi", "pcm_s16le", SAMPLE_RATE),
    "flv": ("flv", "aac", 44_100),
    "ts": ("mpegts", "aac", 44_100),
    "w64": ("w64", "pcm_s16le", SAMPLE_RATE),
    "au": ("au", "pcm_s16be", SAMPLE_RATE),
    "wv": ("wv", "wavpack", SAMPLE_RATE),
    "tta": ("tta", "tta", SAMPLE_RATE),
    "ac3": ("ac3", "ac3", 48_000),
}
"""By the usual suffix: FFmpeg's muxer, encoder and sample rate."""

FRAGMENTED: dict[str, Any] = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "1000000"}
"""Muxer options for an mp4 that is written as it is recorded, second by second."""


def encode(
    samples: Samples,
    suffix: str,
    *,
    rate: int | None = None,
    starts_s: float = 0.0,
    picture: bool = False,
    **options: str,
) -> bytes:
    """Encode 16 kHz mono samples as a recording.

    Args:
        samples: what is heard.
        suffix: a key of ``FORMATS``.
        rate: samples a second of the encoded sound, if not that of ``FORMATS``.
        starts_s: when the sound begins; the picture begins at 0.
        picture: whether there is a picture as well, one frame a second.
        options: of FFmpeg's muxer.
    """
    muxer, codec, usual_rate = FORMATS[suffix]
    rate = rate or usual_rate
    target = io.BytesIO()
    with av.open(target, "w", format=muxer, options=options) as container:
        sound = container.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(sound.codec_context.format, "mono", rate)
        if picture:
            _add_picture(container, seconds=int(starts_s + len(samples) / SAMPLE_RATE))
        position = round(starts_s * rate)
        for start in range(0, len(samples), SAMPLE_RATE):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + SAMPLE_RATE], "s16", "mono")
            frame.sample_rate = SAMPLE_RATE
            position = _write(container, sound, resampler.resample(frame), position)
        _write(container, sound, resampler.resample(None), position)
        container.mux(sound.encode(None))
    return target.getvalue()


def wav(samples: npt.NDArray[np.float32], rate: int = SAMPLE_RATE) -> bytes:
    """Write a WAV file of 16 bits; samples in [-1, 1], shape ``(samples,)`` or ``(channels, samples)``."""
    channels = np.atleast_2d(samples)
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(np.clip(channels.T, -1.0, 1.0) * 32_767).astype("<i2").tobytes())
    return target.getvalue()


def wav_of(channels: np.ndarray, rate: int = SAMPLE_RATE) -> bytes:
    """Write sound of shape ``(samples, channels)``, in 16 bits, as WAV."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(channels.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(channels.astype("<i2").tobytes())
    return target.getvalue()


def float_wav(channels: np.ndarray, rate: int) -> bytes:
    """Write sound of shape ``(samples, channels)`` as floating point WAV without converting its numbers."""
    frame_bytes = channels.itemsize * channels.shape[1]
    form = struct.pack("<HHIIHH", 3, channels.shape[1], rate, rate * frame_bytes, frame_bytes, 8 * channels.itemsize)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", channels.nbytes)
    content = b"WAVE" + chunks + channels.tobytes()
    return b"RIFF" + struct.pack("<I", len(content)) + content


def noise(seconds: float, seed: int = 0) -> bytes:
    """Make a WAV file of white noise; transcribed with ``vad_filter=false``, all of it is decoded."""
    samples = np.random.default_rng(seed).normal(0, 2000, round(seconds * SAMPLE_RATE)).astype("<i2")
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return target.getvalue()


class FailingFile(io.BytesIO):
    """A file on storage that goes away."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 100_000:
            raise ConnectionResetError("storage went away")
        return super().read(size)


def picture_only(suffix: str = "mp4") -> bytes:
    """Make a video without sound."""
    target = io.BytesIO()
    with av.open(target, "w", format=FORMATS[suffix][0]) as container:
        _add_picture(container, seconds=2)
    return target.getvalue()


def image(muxer: str, codec: str, pixels: str) -> bytes:
    """Make a grey picture."""
    target = io.BytesIO()
    with av.open(target, "w", format=muxer) as container:
        _add_picture(container, seconds=1, codec=codec, pixels=pixels)
    return target.getvalue()


def flac_of_silence(frames: int, rate: int, block: int = 65_535) -> bytes:
    """Write a FLAC file of 14 bytes for each ``block`` samples: a constant subframe a frame (RFC 9639)."""
    sample_info = (rate << 12 | (16 - 1) << 4).to_bytes(4, "big")  # mono; the number of samples is not said
    streaminfo = block.to_bytes(2, "big") * 2 + bytes(6) + sample_info + bytes(4) + bytes(16)
    content = [b"fLaC\x80\x00\x00\x22", streaminfo]
    for number in range(frames):
        head = b"\xff\xf8\x70\x08" + chr(number).encode("utf-8", "surrogatepass") + (block - 1).to_bytes(2, "big")
        frame = head + _crc(head, 8, 0x07) + bytes(3)
        content.append(frame + _crc(frame, 16, 0x8005))
    return b"".join(content)


def _crc(content: bytes, bits: int, polynomial: int) -> bytes:
    table, value, mask = _crc_table(bits, polynomial), 0, (1 << bits) - 1
    for byte in content:
        value = (value << 8 ^ table[value >> bits - 8 ^ byte]) & mask
    return value.to_bytes(bits // 8, "big")


@cache
def _crc_table(bits: int, polynomial: int) -> list[int]:
    table = list(range(0, 256 << bits - 8, 1 << bits - 8))
    for _ in range(8):
        table = [value << 1 ^ (polynomial | 1 << bits if value >> bits - 1 else 0) for value in table]
    return table


def tone(seconds: float, hertz: float = 440.0, amplitude: int = 8000) -> Samples:
    """Make a sine."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.rint(np.sin(2 * np.pi * hertz * times) * amplitude).astype(np.int16)


def silence(seconds: float) -> Samples:
    """Make digital silence."""
    return np.zeros(round(seconds * SAMPLE_RATE), np.int16)


def click_at(seconds: float, total_s: float) -> Samples:
    """Silence with 0.1 s of a loud tone from the given time on."""
    audio = silence(total_s)
    burst = tone(0.1, 600.0, 20_000)
    start = round(seconds * SAMPLE_RATE)
    audio[start : start + len(burst)] = burst
    return audio


def heard_at(audio: Samples) -> float:
    """Return the time of the first loud sample, in seconds."""
    return float(np.flatnonzero(np.abs(audio.astype(np.int32)) > 6000)[0]) / SAMPLE_RATE


async def stream(content: bytes, block: int = 65_536) -> AsyncIterator[bytes]:
    """Yield the bytes as an upload brings them."""
    for start in range(0, len(content), block):
        yield content[start : start + block]


def _write(container: Any, sound: Any, frames: list[Any], position: int) -> int:
    for frame in frames:
        frame.pts, frame.time_base = position, Fraction(1, frame.sample_rate)
        position += frame.samples
        container.mux(sound.encode(frame))
    return position


def _add_picture(container: Any, seconds: int, codec: str = "mpeg4", pixels: str = "yuv420p") -> None:
    stream = container.add_stream(codec, rate=1)
    stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
    for second in range(seconds):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24")
        frame.pts = second
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
