"""Packets and frames out of a recording that nobody vouches for (PyAV, which bundles FFmpeg)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import av
import av.error
import numpy as np

from pipeline.errors import MediaUndecodable, NoAudioStream
from pipeline.media.containers import INPUT_OPTIONS, is_image, refusal

MAX_AMPLITUDE = 4.0
"""Floating point samples are clipped here, 12 dB over full scale: no mix is that loud, but a damaged number may be."""

_FLOATS: Mapping[str, type[np.floating[Any]]] = {
    "flt": np.float32,
    "fltp": np.float32,
    "dbl": np.float64,
    "dblp": np.float64,
}
"""FFmpeg's sample formats in floating point."""


def open_recording(file: BinaryIO) -> Any:
    """Open a recording as a PyAV container that reads nothing but these bytes.

    Raises:
        MediaUndecodable: none of the formats that are opened here.
        NoAudioStream: a picture.
    """
    head = file.read(4096)
    file.seek(0)
    try:
        if not head:
            raise MediaUndecodable(refusal(head))
        # FFmpeg would also judge a file by its name; ours have none.
        return av.open(_AnonymousFile(file), mode="r", metadata_errors="ignore", options=INPUT_OPTIONS)
    except av.error.FFmpegError as error:
        if is_image(head):
            raise NoAudioStream("The file is an image; there is no sound in it.") from error
        raise MediaUndecodable(refusal(head)) from error


class _AnonymousFile:
    """The part of a file object that a demuxer needs."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def decodable_frames(container: Any, stream: Any, note: Callable[[bool], None] = lambda _: None) -> Iterator[Any]:
    """Yield what of a stream can be decoded, damaged packets left out.

    Args:
        container: as ``open_recording`` returns it.
        stream: of the container.
        note: told, packet by packet, whether it was broken.
    """
    for packet in packets(container, [stream], note):
        frames, broken = decode_packet(packet)
        if packet.size:  # the empty packet at the end only empties the decoder
            note(broken)
        yield from frames


def packets(container: Any, streams: Sequence[Any], note: Callable[[bool], None] = lambda _: None) -> Iterator[Any]:
    """Yield the packets of some streams, as far as the container can be read; ``note`` is told where it can't."""
    source = container.demux(streams)
    while True:
        try:
            packet = next(source, None)
        except av.error.FFmpegError:
            note(True)
            return
        except IndexError:  # PyAV, at the end, on a stream that a damaged file began in its middle
            return
        if packet is None:
            return
        yield packet


def decode_packet(packet: Any) -> tuple[list[Any], bool]:
    """Return a packet's frames, and whether it is broken."""
    try:
        return packet.decode(), packet.is_corrupt
    except av.error.FFmpegError:
        return [], True


def clamp_samples(frame: Any) -> None:
    """Make every sample of a frame a number in [-4, 4], in place; what is not a number becomes 0.

    Recordings in floating point may hold NaN, infinities and numbers such as 1e30, and damaged packets may decode to
    them. One such sample would spread over its neighbours in every filter, and over the rest of the recording in every
    mean that fades. Encoders refuse them.
    """
    kind = _FLOATS.get(frame.format.name)
    if kind is None:
        return
    for plane in frame.planes:
        samples = np.frombuffer(plane, kind)
        if not np.abs(samples).max(initial=0.0) <= MAX_AMPLITUDE:  # NaN compares false
            np.nan_to_num(samples, copy=False, nan=0.0, posinf=MAX_AMPLITUDE, neginf=-MAX_AMPLITUDE)
            np.clip(samples, -MAX_AMPLITUDE, MAX_AMPLITUDE, out=samples)
