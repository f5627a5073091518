"""Recordings in every container and codec that the bundled FFmpeg writes, with other streams beside the sound."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from pipeline.domain.audio.spans import SAMPLE_RATE
from tests.support.recordings import Samples, tone

SECONDS = 0.3

NOT_A_FILE = {
    "alsa": "a device",
    "oss": "a device",
    "fbdev": "a device",
    "video4linux2,v4l2": "a device",
    "rtp": "a network stream",
    "rtp_mpegts": "a network stream",
    "rtsp": "a network stream",
    "sap": "a network stream",
    "whip": "a network stream",
    "fifo": "passes on to another muxer",
    "tee": "passes on to other muxers",
    "dash": "several files",
    "hds": "several files",
    "hls": "several files",
    "segment": "several files",
    "stream_segment,ssegment": "several files",
    "smoothstreaming": "several files",
    "webm_chunk": "several files",
    "webm_dash_manifest": "a manifest",
    "image2": "several files",
    "null": "nothing is written",
}
"""Muxers that don't write one file, and why."""

WITHOUT_SOUND = {
    "a picture or several": "a64 apng avif fits gif ico image2pipe mjpeg mpjpeg webp filmstrip",
    "video alone": (
        "amv apv avs2 avs3 cavsvideo dirac dnxhd evc h261 h263 h264 hevc ivf m4v mpeg1video mpeg2video obu rawvideo "
        "vc1 vc1test vvc yuv4mpegpipe"
    ),
    "subtitles or text": "ass ffmetadata jacosub lrc mcc microdvd mkvtimestamp_v2 rcwt scc srt sup ttml webvtt",
    "no encoder of what it holds": (
        "ac4 aea argo_cvg bit codec2 codec2raw dts gsm iamf ilbc lc3 mlp oma spx truehd data film_cpk"
    ),
    "only with video of one kind": "dv mxf mxf_d10 psp",
    "frames that are not encoded": "uncodedframecrc",
}
"""Muxers that write no file with sound here, by reason."""

NO_CARRIER = {"anull": "an encoder of nothing"}
"""Encoders no container takes, and why."""

LAYOUTS = ("mono", "stereo", "5.1")
RATES = (16_000, 48_000, 44_100, 32_000, 22_050, 8000, 96_000)
BIT_RATES = {"g723_1": 6300, "wmav1": 128_000, "wmav2": 128_000}


def muxers() -> Iterator[str]:
    """Yield every muxer that writes one file."""
    for name in sorted(av.formats_available):
        if name not in NOT_A_FILE and _writes(av.ContainerFormat, name):
            yield name


def audio_encoders() -> Iterator[str]:
    """Yield every encoder of sound."""
    for name in sorted(av.codecs_available):
        if _writes(av.Codec, name) and av.Codec(name, "w").type == "audio":
            yield name


@cache
def with_sound(muxer: str, codec: str | None = None) -> bytes | None:
    """Return a recording of a tone, or ``None`` where the container can't hold sound in this codec.

    Without a codec the container's usual one is taken.
    """
    for layout in LAYOUTS:
        for rate in RATES:
            try:
                content = write(muxer, codec, rate=rate, layout=layout)
            except (av.error.FFmpegError, ValueError, KeyError):
                continue
            if content:
                return content
    return None


AddStream = Callable[[Any], Callable[[Any], None]]
"""Adds a stream to an output container; what it returns writes that stream's content."""


def write(
    muxer: str,
    codec: str | None = None,
    *,
    samples: Samples | None = None,
    rate: int = 48_000,
    layout: str = "mono",
    others: tuple[AddStream, ...] = (),
    options: Mapping[str, str] | None = None,
) -> bytes:
    """Make a recording with other streams beside its sound.

    Raises:
        FFmpegError, ValueError: the container does not hold this codec or these streams.
    """
    target = io.BytesIO()
    with av.open(target, "w", format=muxer, options=dict(options or {})) as container:
        name = codec or container.default_audio_codec
        if name == "none":
            raise ValueError(f"{muxer} holds no sound")
        write_rest = [add(container) for add in others]
        sound = container.add_stream(name, rate=rate, layout=layout)
        sound.codec_context.options = {"strict": "experimental"}
        if sound.codec_context.name in BIT_RATES:
            sound.codec_context.bit_rate = BIT_RATES[sound.codec_context.name]
        packets = list(_encoded(sound, tone(SECONDS) if samples is None else samples, rate, layout))
        for content in write_rest:
            content(container)
        container.mux(packets)
    return target.getvalue()


def film(*tracks: tuple[Samples, dict[str, str], Disposition], muxer: str = "matroska", codec: str = "flac") -> bytes:
    """Return a recording with several audio tracks, each with metadata and flags, interleaved second by second."""
    target = io.BytesIO()
    with av.open(target, "w", format=muxer) as container:
        packets: list[Any] = []
        for _, metadata, disposition in tracks:
            stream = container.add_stream(codec, rate=48_000, layout="mono")
            stream.metadata.update(metadata)
            stream.disposition = disposition
        for stream, (sound, _, _) in zip(container.streams.audio, tracks, strict=True):
            packets += _encoded(stream, sound, 48_000, "mono")
        container.mux(sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)))
    return target.getvalue()


def pitch_of(audio: Samples) -> float:
    """Return the frequency in Hz that is strongest."""
    spectrum = np.abs(np.fft.rfft(audio.astype(float)))
    return float(np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)[int(spectrum.argmax())])


def packets_of(codec: str, content: bytes = b"Hello") -> AddStream:
    """Make a stream of one packet, written as it is: subtitles and data need no encoder."""

    def add(container: Any) -> Callable[[Any], None]:
        stream = container.add_mux_stream(codec)

        def content_of(container: Any) -> None:
            packet = av.Packet(content)
            packet.stream, packet.pts, packet.dts, packet.duration = stream, 0, 0, 100
            packet.time_base = Fraction(1, 1000)
            container.mux(packet)

        return content_of

    return add


def data(codec: str) -> AddStream:
    """Make a stream of data, of one packet."""

    def add(container: Any) -> Callable[[Any], None]:
        stream = container.add_data_stream(codec)

        def content_of(container: Any) -> None:
            packet = av.Packet(b"\x06\x0e\x2b\x34\x02\x0b\x01\x01\x0e\x01\x03\x01\x01\0\0\0\0")
            packet.stream, packet.pts, packet.dts = stream, 0, 0
            packet.time_base = Fraction(1, 1000)
            container.mux(packet)

        return content_of

    return add


def attachment(name: str, kind: str) -> AddStream:
    """Put a file into the file."""

    def add(container: Any) -> Callable[[Any], None]:
        container.add_attachment(name, kind, b"\0\1\0\0" * 64)
        return lambda container: None

    return add


def picture(codec: str, pixels: str = "yuv420p", *, cover: bool = False) -> AddStream:
    """Make a grey video of one frame, or cover art."""

    def add(container: Any) -> Callable[[Any], None]:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
        if cover:
            stream.disposition = av.stream.Disposition.attached_pic

        def content_of(container: Any) -> None:
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24")
            frame.pts = 0
            container.mux([*stream.encode(frame), *stream.encode(None)])

        return content_of

    return add


def _encoded(sound: Any, samples: Samples, rate: int, layout: str) -> Iterator[Any]:
    sound.codec_context.open()
    frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
    frame.sample_rate = SAMPLE_RATE
    resampler = av.AudioResampler(sound.codec_context.format, layout, rate, frame_size=sound.codec_context.frame_size)
    position = 0
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        piece.pts, piece.time_base = position, Fraction(1, rate)
        position += piece.samples
        yield from sound.encode(piece)
    yield from sound.encode(None)


def _writes(kind: Any, name: str) -> bool:
    try:
        kind(name, "w")
    except ValueError:
        return False
    return True
