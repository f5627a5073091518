"""Extraction: converting the sound of a recording to another format, block by block, with PyAV, which bundles FFmpeg.

pydub would be the usual choice. But it holds the whole recording in memory, starts one program to read and another to
write, truncates samples instead of rounding them, resamples without a filter against aliasing, and writes 32 bits for
24. The tests read with pydub the files that are written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import Any, BinaryIO

import av
import av.error

from pipeline.domain.audio.extraction import AudioFormat, ExtractionOptions
from pipeline.errors import MediaTooLong, MediaUndecodable
from pipeline.media.demux import clamp_samples, decodable_frames
from pipeline.media.track_choice import open_track

TICK_FRAMES = 64
"""Number of frames between two calls of ``tick``."""
MAX_CHANNELS = 8
_LAYOUTS = ("", "mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
"""FFmpeg's default layout, by number of channels."""


@dataclass(frozen=True, slots=True)
class Codec:
    """FFmpeg's names and options for one output format.

    Attributes:
        muxer: name of the container format.
        encoder: name of the encoder.
        sample_format: sample format that the encoder takes.
        rates: sample rates in Hz that the encoder takes, in ascending order; empty: any.
        max_channels: number of channels that are kept; a recording with more is mixed to stereo.
        muxer_options: options of the container format.
        encoder_options: options of the encoder.
    """

    muxer: str
    encoder: str
    sample_format: str
    rates: tuple[int, ...] = ()
    max_channels: int = MAX_CHANNELS
    muxer_options: Mapping[str, str] = field(default_factory=dict)
    encoder_options: Mapping[str, str] = field(default_factory=dict)


_WAV = {"fflags": "+bitexact"}  # writes only the two chunks that every reader expects
_CODECS: Mapping[tuple[AudioFormat, int], Codec] = {
    (AudioFormat.WAV, 1): Codec("wav", "pcm_u8", "u8", muxer_options=_WAV),
    (AudioFormat.WAV, 2): Codec("wav", "pcm_s16le", "s16", muxer_options=_WAV),
    (AudioFormat.WAV, 3): Codec("wav", "pcm_s24le", "s32", muxer_options=_WAV),
    (AudioFormat.WAV, 4): Codec("wav", "pcm_s32le", "s32", muxer_options=_WAV),
    (AudioFormat.FLAC, 2): Codec("flac", "flac", "s16"),
    (AudioFormat.FLAC, 3): Codec("flac", "flac", "s32", encoder_options={"bits_per_raw_sample": "24"}),
    (AudioFormat.FLAC, 4): Codec(
        "flac", "flac", "s32", encoder_options={"bits_per_raw_sample": "32", "strict": "experimental"}
    ),
    (AudioFormat.MP3, 0): Codec(
        "mp3", "libmp3lame", "fltp", (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000), 2
    ),
    (AudioFormat.OGG, 0): Codec("ogg", "libopus", "flt", (8000, 12_000, 16_000, 24_000, 48_000), 2),
    (AudioFormat.M4A, 0): Codec(
        "ipod",
        "aac",
        "fltp",
        (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000),
        2,
    ),
}


def extract_audio(
    source: BinaryIO,
    target: BinaryIO,
    wanted: ExtractionOptions,
    max_duration_s: float,
    tick: Callable[[float], None] = lambda _decoded_s: None,
) -> None:
    """Write the best audio track of a recording (``domain.audio.tracks``) to a file in another format.

    Channels are kept up to the format's maximum: two for lossy formats, eight for others.

    Args:
        source: the recording, seekable.
        target: the output, seekable.
        wanted: format, sample rate and bit depth of the output.
        max_duration_s: longest recording, in seconds.
        tick: called every ``TICK_FRAMES`` frames and at the end with the seconds decoded so far.

    Raises:
        MediaUndecodable: the source is not a recording, or none of its sound can be decoded.
        NoAudioStream: the recording has no sound.
        MediaTooLong: the recording is longer than ``max_duration_s``.
    """
    codec = codec_for(wanted)
    with open_track(source) as track:
        frames = _limit_duration(decodable_frames(track.container, track.stream), max_duration_s, tick)
        first = next(frames, None)
        if first is None:
            raise MediaUndecodable("The file has an audio stream, but no sound in it could be decoded.")
        with av.open(target, "w", format=codec.muxer, options=dict(codec.muxer_options)) as output:
            _AudioWriter(output, codec, _rate(codec, wanted.sample_rate), first.layout).write(chain([first], frames))


def codec_for(wanted: ExtractionOptions) -> Codec:
    """Return the codec for a format and bit depth. Raises ``KeyError`` if the format does not have that depth."""
    lossless = wanted.output_format in (AudioFormat.WAV, AudioFormat.FLAC)
    return _CODECS[wanted.output_format, wanted.bit_depth if lossless else 0]


def _rate(codec: Codec, wanted_rate: int) -> int:
    """Return the requested rate, or the next higher one that the encoder takes, or its highest."""
    return next((rate for rate in codec.rates if rate >= wanted_rate), codec.rates[-1]) if codec.rates else wanted_rate


def _limit_duration(frames: Iterator[Any], max_duration_s: float, tick: Callable[[float], None]) -> Iterator[Any]:
    passed_s = 0.0
    for count, frame in enumerate(frames):
        if count % TICK_FRAMES == 0:
            tick(passed_s)
        passed_s += frame.samples / frame.sample_rate
        if passed_s > max_duration_s:
            raise MediaTooLong(f"The recording is longer than the limit of {max_duration_s:.0f} seconds.")
        yield frame
    tick(passed_s)


class _AudioWriter:
    """A writer that resamples and encodes decoded frames."""

    def __init__(self, output: Any, codec: Codec, rate: int, layout: Any) -> None:
        # The layout follows from the number of channels: files often do not name them, and encoders need names.
        self._layout = _LAYOUTS[layout.nb_channels] if layout.nb_channels <= codec.max_channels else "stereo"
        self._rate = rate
        self._output = output
        self._stream = output.add_stream(codec.encoder, rate=rate, layout=self._layout)
        self._stream.codec_context.format = codec.sample_format
        self._stream.codec_context.options = dict(codec.encoder_options)
        if codec.encoder == "libmp3lame":  # its default is half of this bit rate
            self._stream.codec_context.bit_rate = self._stream.layout.nb_channels * (
                64_000 if rate >= 32_000 else 32_000
            )
        # FFmpeg truncates when it converts integers to integers. From floating point it rounds, and 16 bits survive it.
        steps = ("flt", codec.sample_format) if codec.sample_format in ("u8", "s16") else (codec.sample_format,)
        self._formats = steps
        self._chain: list[Any] = []
        self._setup: tuple[Any, ...] | None = None
        self._position = 0

    def write(self, frames: Iterator[Any]) -> None:
        """Write all frames and finish the stream."""
        for frame in frames:
            setup = (frame.sample_rate, frame.format.name, frame.layout.name)
            if setup != self._setup:
                self._flush()
                self._chain = [av.AudioResampler(name, self._layout, self._rate) for name in self._formats]
                self._setup = setup
            clamp_samples(frame)
            frame.pts = None  # frames are joined without gaps; the encoder's times are set below
            self._encode(self._convert([frame]))
        self._flush()
        self._output.mux(self._stream.encode(None))

    def _convert(self, frames: list[Any], first: int = 0) -> list[Any]:
        for resampler in self._chain[first:]:
            frames = [converted for frame in frames for converted in _resampled(resampler, frame)]
        return frames

    def _flush(self) -> None:
        for index, resampler in enumerate(self._chain):
            self._encode(self._convert(_resampled(resampler, None), index + 1))

    def _encode(self, frames: list[Any]) -> None:
        for frame in frames:
            frame.pts, frame.time_base = self._position, Fraction(1, self._rate)
            self._position += frame.samples
            self._output.mux(self._stream.encode(frame))


def _resampled(resampler: Any, frame: Any) -> list[Any]:
    try:
        return list(resampler.resample(frame))
    except av.error.FFmpegError as error:
        raise MediaUndecodable("The sound has a sample rate or channels that can't be converted.") from error
