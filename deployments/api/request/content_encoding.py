"""Content encodings of request bodies (RFC 9110, §8.4.1), undone block by block so that a bomb is never unpacked."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

from deployments.api.concurrency.event_loop import slices
from pipeline.errors import RequestError, UnsupportedContentEncoding

ENCODINGS = ("gzip", "deflate")
"""Names of the encodings that are taken. Brotli and Zstandard need libraries that nothing else here does."""
BLOCK_BYTES = 64 * 1024
"""Largest piece that comes out at once, however small what went in."""

FEED_BYTES = 4 * 1024
"""What a gzip stream takes at once: what follows a member is copied once for each member in it."""
MAX_EMPTY_MEMBERS = 1000
"""Members of a gzip body with nothing in them; twenty bytes of body cost as much as a block of sound."""

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


class Inflater(Protocol):
    """The state of an encoding that is being undone."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the data unpacks to, now and then an empty piece. Raises ``RequestError`` where it can't be."""
        ...

    def finish(self) -> None:
        """Raise ``RequestError`` where the data ended too soon."""
        ...


def inflater_of(content_encoding: str) -> Inflater | None:
    """Return what undoes the encoding that a header names; ``None`` where there is nothing to undo.

    Raises:
        UnsupportedContentEncoding: it is none of ``ENCODINGS``, or there are several on top of each other.
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
        f"A body may be sent as {' or '.join(ENCODINGS)}, or as it is; not as {', '.join(names)[:50]!a}."
    )


class _Gzip:
    """Members one after the other, perhaps with zeros behind them (RFC 1952; ``gzip(1)`` pads so)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._begun = False
        self._empty_members = 0
        self._member_is_empty = True

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
                yield b""  # so that members without anything in them count as steps
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

    def finish(self) -> None:
        if self._begun and not self._member.eof:
            raise _ended_too_soon("gzip")


class _Deflate:
    """Deflated data with the wrapper of zlib, as the RFC wants it, or without, as many clients send it."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_ZLIB)
        self._begin = b""

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

    def finish(self) -> None:
        if self._begin and not self._stream.eof:
            raise _ended_too_soon("deflate")


def _unpacked(stream: zlib._Decompress, data: bytes, encoding: str) -> Iterator[bytes]:
    """Yield what the data unpacks to, in pieces of a block; what is not asked for stays packed."""
    try:
        while piece := stream.decompress(data, BLOCK_BYTES):
            yield piece
            data = stream.unconsumed_tail
    except zlib.error as error:
        raise _broken(encoding) from error


def _has_zlib_header(data: bytes) -> bool:
    """Return whether data begins as RFC 1950 has it: method 8, and a checksum over the first two bytes."""
    return data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0


def _broken(encoding: str) -> RequestError:
    return RequestError(f"The body is not the {encoding} data that its Content-Encoding says.")


def _ended_too_soon(encoding: str) -> RequestError:
    return RequestError(f"The body's {encoding} data ends before it is complete: send it again.")
