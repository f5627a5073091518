"""What a child and its parent say to each other: messages of a kind, a length and a payload, over a stream socket.

The child speaks. All it ever asks is for bytes of its recording (``READ``), and the answer is those bytes behind their
length.
"""

from __future__ import annotations

import io
import socket
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any

MAX_PAYLOAD_BYTES = 4 * 1024 * 1024
"""Longer messages are no child of ours."""

READ_AHEAD_BYTES = 256 * 1024
"""Asked for at a time: FFmpeg itself reads 32 KB, and each question costs two trips."""

_HEADER = struct.Struct("!BI")
_QUESTION = struct.Struct("!QI")
_LENGTH = struct.Struct("!I")
_OFFSET = struct.Struct("!Q")


SECONDS = struct.Struct("<d")
"""How far an extraction is, in seconds of the recording: the ``DATA`` of that job."""


class MessageKind(IntEnum):
    """What a message means."""

    READ = 1
    """Offset and number of the bytes wanted."""
    DATA = 2
    """The next bytes of the result."""
    WRITE = 3
    """An offset in the result, and the bytes that belong there."""
    DONE = 4
    """The end, with what else there is to say as JSON."""
    REFUSED = 5
    """An error of ours, as JSON: its code and its sentence."""
    DEFECT = 6
    """A traceback."""


class ChildGone(Exception):
    """The other end of the socket is closed."""


class Wire:
    """One end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, kind: MessageKind, payload: bytes) -> None:
        """Sends a message; for the child."""
        self._sock.sendall(_HEADER.pack(kind, len(payload)))
        self._sock.sendall(payload)

    def ask(self, offset: int, size: int) -> bytes:
        """Bytes of the recording; for the child."""
        self.send(MessageKind.READ, _QUESTION.pack(offset, size))
        return bytes(self._exactly(_LENGTH.unpack(self._exactly(_LENGTH.size))[0]))

    def receive(self) -> tuple[MessageKind, bytearray]:
        """The next message; for the parent.

        Raises:
            ChildGone: there is none, or what came is not a message.
        """
        number, length = _HEADER.unpack(self._exactly(_HEADER.size))
        if length > MAX_PAYLOAD_BYTES or number not in frozenset(MessageKind):
            raise ChildGone
        return MessageKind(number), self._exactly(length)

    def answer(self, content: bytes) -> None:
        """Answers ``READ``; for the parent.

        In one piece: a child that has read a length of zero has its answer, and may be done and gone before an empty
        second piece is sent, which then fails.
        """
        self._sock.sendall(_LENGTH.pack(len(content)) + content)

    def _exactly(self, size: int) -> bytearray:
        content = bytearray(size)
        view, filled = memoryview(content), 0
        while filled < size:
            count = self._sock.recv_into(view[filled:])
            if not count:
                raise ChildGone
            filled += count
        return content


def parse_read(payload: bytearray) -> tuple[int, int]:
    """Offset and size that a ``READ`` asks for; never more than one message may hold."""
    if len(payload) != _QUESTION.size:
        raise ChildGone
    offset, size = _QUESTION.unpack(payload)
    return offset, min(size, MAX_PAYLOAD_BYTES)


def parse_write(payload: bytearray) -> tuple[int, memoryview]:
    """Where the bytes of a ``WRITE`` belong, and the bytes."""
    if len(payload) < _OFFSET.size:
        raise ChildGone
    return _OFFSET.unpack_from(payload)[0], memoryview(payload)[_OFFSET.size :]


class _Seekable(io.RawIOBase):
    """A position in a file that lies with the parent."""

    def __init__(self) -> None:
        self._position = 0
        self._size = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position


class RemoteSource(_Seekable):
    """The recording, as the child sees it."""

    def __init__(self, wire: Wire, size: int) -> None:
        super().__init__()
        self._wire, self._size = wire, size

    def readable(self) -> bool:
        """It is read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """See ``io.RawIOBase``."""
        content = self._wire.ask(self._position, len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


class RemoteTarget(_Seekable):
    """The result, as the child writes it."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def writable(self) -> bool:
        """It is written."""
        return True

    def write(self, content: Any, /) -> int:
        """See ``io.RawIOBase``."""
        data = bytes(content)
        self._wire.send(MessageKind.WRITE, _OFFSET.pack(self._position) + data)
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)


Job = Callable[[Wire, int], dict[str, Any]]
"""What a child does: given its wire and the size of its recording in bytes; returns what ``DONE`` says."""
