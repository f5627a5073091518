"""Reading packets and frames from untrusted recordings with PyAV, which bundles FFmpeg."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import av
import av.error
import numpy as np

from pipeline.errors import MediaUndecodable, NoAudioStream
from pipeline.media.containers import INPUT_OPTIONS, is_image, refusal

MAX_AMPLITUDE = 4.0
"""Limit of floating point samples, 12 dB over full scale. No mix is that loud, but a damaged sample may be."""

_FLOATS: Mapping[str, type[np.floating[Any]]] = {
    "flt": np.float32,
    "fltp": np.float32,
    "dbl": np.float64,
    "dblp": np.float64,
}
"""FFmpeg's floating point sample formats and their NumPy types."""


def open_recording(file: BinaryIO) -> Any:
    """Open a recording as a PyAV container that can read only the bytes of this file.

    Raises:
        MediaUndecodable: the file has none of the supported formats.
        NoAudioStream: the file is an image.
    """
    head = file.read(4096)
    file.seek(0)
    try:
        if not head:
            raise MediaUndecodable(refusal(head))
        # FFmpeg would also guess the format from the file's name, so the file is passed without one.
        return av.open(_AnonymousFile(file), mode="r", metadata_errors="ignore", options=INPUT_OPTIONS)
    except av.error.FFmpegError as error:
        if is_image(head):
            raise NoAudioStream("The file is an image; there is no sound in it.") from error
        raise MediaUndecodable(refusal(head)) from error


class _AnonymousFile:
    """A file object reduced to the methods that a demuxer needs."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def decodable_frames(container: Any, stream: Any, on_packet: Callable[[bool], None] = lambda _: None) -> Iterator[Any]:
    """Yield the frames of a stream; skip packets that can't be decoded.

    Args:
        container: result of ``open_recording``.
        stream: one of the container's streams.
        on_packet: called for each packet with whether it is broken, and with ``True`` where reading stops.
    """
    for packet in packets(container, [stream], on_packet):
        frames, broken = decode_packet(packet)
        if packet.size:  # the empty packet at the end only flushes the decoder
            on_packet(broken)
        yield from frames


def packets(
    container: Any, streams: Sequence[Any], on_packet: Callable[[bool], None] = lambda _: None
) -> Iterator[Any]:
    """Yield the packets of some streams until the end; if the container can't be read further, call ``on_packet``."""
    source = container.demux(streams)
    while True:
        try:
            packet = next(source, None)
        except av.error.FFmpegError:
            on_packet(True)
            return
        except IndexError:  # raised by PyAV at the end, for a stream that starts in the middle of a damaged file
            return
        if packet is None:
            return
        yield packet


def decode_packet(packet: Any) -> tuple[list[Any], bool]:
    """Decode a packet; return its frames and whether the packet is broken."""
    try:
        return packet.decode(), packet.is_corrupt
    except av.error.FFmpegError:
        return [], True


def clamp_samples(frame: Any) -> None:
    """Clip the samples of a floating point frame to [-4, 4], in place; NaN becomes 0.

    Floating point recordings may hold NaN, infinities and numbers such as 1e30, and damaged packets may decode to
    them. One such sample would spread to its neighbours in every filter, and to the rest of the recording in every
    running mean. Encoders refuse such samples.
    """
    kind = _FLOATS.get(frame.format.name)
    if kind is None:
        return
    for plane in frame.planes:
        samples = np.frombuffer(plane, kind)
        if not np.abs(samples).max(initial=0.0) <= MAX_AMPLITUDE:  # NaN compares false
            np.nan_to_num(samples, copy=False, nan=0.0, posinf=MAX_AMPLITUDE, neginf=-MAX_AMPLITUDE)
            np.clip(samples, -MAX_AMPLITUDE, MAX_AMPLITUDE, out=samples)
