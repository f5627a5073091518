"""Messages between a child and its parent, over a stream socket: a kind, a length and a payload.

Only the child sends messages. The parent replies to one kind alone: to ``READ``, a request for bytes of the recording,
with those bytes behind their length.
"""

from __future__ import annotations

import io
import socket
import struct
from enum import IntEnum
from typing import Any

from typing_extensions import override

MAX_PAYLOAD_BYTES = 4 * 1024 * 1024
"""Longest payload that a child sends; the parent refuses a longer one."""

READ_AHEAD_BYTES = 256 * 1024
"""Number of bytes requested at a time. FFmpeg reads only 32 KB at once, and each request costs a round trip."""

_HEADER = struct.Struct("!BI")
_READ = struct.Struct("!QI")
_LENGTH = struct.Struct("!I")
_OFFSET = struct.Struct("!Q")


SECONDS = struct.Struct("<d")
"""Progress of an extraction in seconds of the recording: the payload of that job's ``DATA``."""


class MessageKind(IntEnum):
    """The kind of a message, which determines its payload."""

    READ = 1
    """Offset and number of the requested bytes."""
    DATA = 2
    """The next bytes of the result; for an extraction, its progress."""
    WRITE = 3
    """An offset in the result, and the bytes to write there."""
    DONE = 4
    """The end of the job, with the rest of its result as JSON."""
    REFUSED = 5
    """One of our errors as JSON: its code and its message."""
    DEFECT = 6
    """The traceback of an unexpected error."""


class ConnectionClosed(Exception):
    """The other end of the socket is closed, or sent something that is not a message."""


class Wire:
    """One end of the socket between a child and its parent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, kind: MessageKind, payload: bytes) -> None:
        """Send a message; for the child."""
        self._sock.sendall(_HEADER.pack(kind, len(payload)))
        self._sock.sendall(payload)

    def read(self, offset: int, size: int) -> bytes:
        """Request bytes of the recording and return them; for the child."""
        self.send(MessageKind.READ, _READ.pack(offset, size))
        return bytes(self._receive_exactly(_LENGTH.unpack(self._receive_exactly(_LENGTH.size))[0]))

    def receive(self) -> tuple[MessageKind, bytearray]:
        """Return the next message; for the parent.

        Raises:
            ConnectionClosed: the child is gone, or sent something that is not a message.
        """
        number, length = _HEADER.unpack(self._receive_exactly(_HEADER.size))
        if length > MAX_PAYLOAD_BYTES or number not in frozenset(MessageKind):
            raise ConnectionClosed
        return MessageKind(number), self._receive_exactly(length)

    def send_content(self, content: bytes) -> None:
        """Reply to ``READ``; for the parent.

        Length and content are sent together. A child that receives a length of zero has its reply and may end; sending
        an empty content after that would fail.
        """
        self._sock.sendall(_LENGTH.pack(len(content)) + content)

    def _receive_exactly(self, size: int) -> bytearray:
        content = bytearray(size)
        view, filled = memoryview(content), 0
        while filled < size:
            count = self._sock.recv_into(view[filled:])
            if not count:
                raise ConnectionClosed
            filled += count
        return content


def parse_read(payload: bytearray) -> tuple[int, int]:
    """Return the offset and the size that a ``READ`` requests, the size at most that of the largest payload."""
    if len(payload) != _READ.size:
        raise ConnectionClosed
    offset, size = _READ.unpack(payload)
    return offset, min(size, MAX_PAYLOAD_BYTES)


def parse_write(payload: bytearray) -> tuple[int, memoryview]:
    """Return the offset of a ``WRITE`` and the bytes to write there."""
    if len(payload) < _OFFSET.size:
        raise ConnectionClosed
    return _OFFSET.unpack_from(payload)[0], memoryview(payload)[_OFFSET.size :]


class _RemoteFile(io.RawIOBase):
    """A file that is open in the parent, with a position of its own."""

    def __init__(self) -> None:
        self._position = 0
        self._size = 0

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return self._position

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position


class RemoteSource(_RemoteFile):
    """The recording, for the child to read."""

    def __init__(self, wire: Wire, size: int) -> None:
        super().__init__()
        self._wire, self._size = wire, size

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any, /) -> int:
        content = self._wire.read(self._position, len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


class RemoteTarget(_RemoteFile):
    """The output file of an extraction, for the child to write."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, content: Any, /) -> int:
        data = bytes(content)
        self._wire.send(MessageKind.WRITE, _OFFSET.pack(self._position) + data)
        self._position += len(data)
        self._size = max(self._size, self._position)
        return len(data)
