"""Decompression of request bodies (``Content-Encoding``, RFC 9110, §8.4.1).

A body is decompressed block by block, so that a decompression bomb never expands in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

from typing_extensions import override

from deployments.api.concurrency.event_loop import slices
from pipeline.errors import RequestError, UnsupportedContentEncoding

ENCODINGS = ("gzip", "deflate")
"""Names of the supported encodings. Brotli and Zstandard would need further libraries."""
BLOCK_BYTES = 64 * 1024
"""Largest decompressed piece, however small its input."""

FEED_BYTES = 4 * 1024
"""Input that a gzip stream receives at once. zlib copies the rest of the input at the end of each member."""
MAX_EMPTY_MEMBERS = 1000
"""Empty members of a gzip body. Each costs as much time as a block of audio, but only twenty bytes of body."""

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


class Inflater(Protocol):
    """A decompressor for one encoding."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed data in pieces, some of which may be empty.

        Raises:
            RequestError: the data is not valid.
        """
        ...

    def finish(self) -> None:
        """Check that the data is complete. Raises ``RequestError``."""
        ...


def inflater_of(content_encoding: str) -> Inflater | None:
    """Return the decompressor for a ``Content-Encoding`` header; ``None`` if the body is not encoded.

    Raises:
        UnsupportedContentEncoding: the encoding is none of ``ENCODINGS``, or there are several.
    """
    names = [name for part in content_encoding.split(",") if (name := part.strip().lower()) not in ("", "identity")]
    match names:
        case []:
            return None
        case ["gzip" | "x-gzip"]:
            return _Gzip()
        case ["deflate"]:
            return _Deflate()
    raise UnsupportedContentEncoding(
        f"The Content-Encoding {', '.join(names)[:50]!a} is not supported: use {' or '.join(ENCODINGS)}, or none."
    )


class _Gzip(Inflater):
    """A sequence of gzip members (RFC 1952), optionally followed by zeros, which ``gzip(1)`` accepts as padding."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._begun = False
        self._empty_members = 0
        self._member_is_empty = True

    @override
    def feed(self, data: bytes) -> Iterator[bytes]:
        for piece in slices(data, FEED_BYTES):
            yield from self._feed(piece)

    def _feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._next_member()
                yield b""  # so that empty members count as steps of the loop budget
            self._begun = True
            for piece in _unpacked(self._member, data, "gzip"):
                self._member_is_empty = False
                yield piece
            data = self._member.unused_data

    def _next_member(self) -> None:
        self._empty_members += self._member_is_empty
        if self._empty_members > MAX_EMPTY_MEMBERS:
            raise _broken("gzip")
        self._member, self._member_is_empty = zlib.decompressobj(_GZIP), True

    @override
    def finish(self) -> None:
        if self._begun and not self._member.eof:
            raise _ended_too_soon("gzip")


class _Deflate(Inflater):
    """Deflate data with a zlib wrapper, as the RFC requires, or without one, as many clients send it."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_ZLIB)
        self._begin = b""

    @override
    def feed(self, data: bytes) -> Iterator[bytes]:
        if not data:
            return
        if len(self._begin) < 2:
            self._begin += data
            if len(self._begin) < 2:
                return
            data = self._begin
            self._stream = zlib.decompressobj(_ZLIB if _has_zlib_header(data) else _RAW)
        if self._stream.eof:
            raise _broken("deflate")
        yield from _unpacked(self._stream, data, "deflate")
        if self._stream.unused_data:
            raise _broken("deflate")

    @override
    def finish(self) -> None:
        if self._begin and not self._stream.eof:
            raise _ended_too_soon("deflate")


def _unpacked(stream: zlib._Decompress, data: bytes, encoding: str) -> Iterator[bytes]:
    """Yield the decompressed data in pieces of at most ``BLOCK_BYTES``; unread data stays compressed."""
    try:
        while piece := stream.decompress(data, BLOCK_BYTES):
            yield piece
            data = stream.unconsumed_tail
    except zlib.error as error:
        raise _broken(encoding) from error


def _has_zlib_header(data: bytes) -> bool:
    """Return whether data begins with a zlib header (RFC 1950): method 8, and a checksum over the first two bytes."""
    return data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0


def _broken(encoding: str) -> RequestError:
    return RequestError(f"The body is not valid {encoding} data, although its Content-Encoding says so.")


def _ended_too_soon(encoding: str) -> RequestError:
    return RequestError(f"The body's {encoding} data ends before it is complete: send it again.")
