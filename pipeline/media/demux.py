"""Packets and frames out of a recording that nobody vouches for (PyAV, which bundles FFmpeg)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import av
import av.error

from pipeline.errors import MediaUndecodable, NoAudioStream
from pipeline.media.containers import INPUT_OPTIONS, is_image, refusal


def open_recording(file: BinaryIO) -> Any:
    """The recording as a PyAV container that reads nothing but these bytes.

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
        return av.open(_Nameless(file), mode="r", metadata_errors="ignore", options=INPUT_OPTIONS)
    except av.error.FFmpegError as error:
        if is_image(head):
            raise NoAudioStream("The file is an image; there is no sound in it.") from error
        raise MediaUndecodable(refusal(head)) from error


class _Nameless:
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
        frames, broken = decoded(packet)
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


def decoded(packet: Any) -> tuple[list[Any], bool]:
    """Return a packet's frames, and whether it is broken."""
    try:
        return packet.decode(), packet.is_corrupt
    except av.error.FFmpegError:
        return [], True
