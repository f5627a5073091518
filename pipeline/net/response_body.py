"""Reads the body of an untrusted response, and counts its bytes before and after decompression."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Protocol

import httpx

from pipeline.errors import SourceTimeout, SourceTooLarge, SourceUnreachable

BLOCK_BYTES = 64 * 1024
"""Most bytes that one step of decompression yields. This bounds the memory that a compression bomb can occupy."""


@contextmanager
def translate_network_errors(host: str) -> Iterator[None]:
    """Translate network errors to the service's errors, whose sentences name the host only.

    Raises:
        SourceTimeout: a time limit was exceeded.
        SourceUnreachable: for any other network error.
    """
    try:
        yield
    except (TimeoutError, httpx.TimeoutException) as error:
        raise SourceTimeout(f"{host} did not answer in time.") from error
    except (httpx.ConnectError, httpx.ProxyError) as error:
        raise SourceUnreachable(f"No connection to {host}.") from error
    except (httpx.TransportError, OSError, ValueError) as error:  # h11 does not catch the ValueError of int()
        raise SourceUnreachable(f"{host} closed the connection early, or does not speak HTTP.") from error
    except zlib.error as error:
        raise SourceUnreachable(f"{host} sent a body that can't be decompressed.") from error


async def read_body(
    response: httpx.Response, host: str, max_bytes: int, deadline: float
) -> AsyncGenerator[bytes, None]:
    """Yield the body in decompressed blocks.

    Args:
        response: the transport's response, unread.
        host: the host's name for the sentences of errors.
        max_bytes: largest body, both as sent and decompressed.
        deadline: time of the event loop at which reading fails.

    Raises:
        SourceTooLarge: the body has more than ``max_bytes``.
        SourceTimeout, SourceUnreachable: as ``translate_network_errors``; also for an unknown or broken encoding.
    """
    decoder = _content_decoder(response.headers.get("content-encoding", ""), host)
    raw = response.aiter_raw()
    received = decoded = 0
    while (block := await _next_block(raw, host, deadline)) is not None:
        received += len(block)
        _check_size(received, max_bytes, host)
        with translate_network_errors(host):
            for plain in decoder.feed(block):
                decoded += len(plain)
                _check_size(decoded, max_bytes, host)
                yield plain
    if not decoder.complete:
        raise SourceUnreachable(f"{host} closed the connection in the middle of a compressed body.")


def _check_size(size_bytes: int, max_bytes: int, host: str) -> None:
    if size_bytes > max_bytes:
        raise SourceTooLarge(f"{host} sends more than the {max_bytes} bytes that are accepted.")


async def _next_block(raw: AsyncIterator[bytes], host: str, deadline: float) -> bytes | None:
    with translate_network_errors(host):
        async with asyncio.timeout_at(deadline):
            return await anext(raw, None)


class _ContentDecoder(Protocol):
    @property
    def complete(self) -> bool: ...

    def feed(self, data: bytes) -> Iterator[bytes]: ...


class _IdentityDecoder:
    complete = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data


class _ContentInflater:
    """A decoder of gzip (RFC 1952, any number of members) and zlib's deflate (RFC 1950), in blocks of bounded size."""

    def __init__(self) -> None:
        self._member = self._new_member()
        self._is_empty = True

    @property
    def complete(self) -> bool:
        """True if the last member has ended; an empty body is complete too."""
        return self._is_empty or self._member.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._is_empty = False
        while data:
            if self._member.eof:
                self._member = self._new_member()
            block = self._member.decompress(data, BLOCK_BYTES)
            data = self._member.unconsumed_tail or self._member.unused_data
            if block:
                yield block

    @staticmethod
    def _new_member() -> zlib._Decompress:
        return zlib.decompressobj(zlib.MAX_WBITS | 32)


def _content_decoder(encoding: str, host: str) -> _ContentDecoder:
    match encoding.strip().lower():
        case "" | "identity":
            return _IdentityDecoder()
        case "gzip" | "x-gzip" | "deflate":
            return _ContentInflater()
        case _:
            raise SourceUnreachable(f"{host} sends a content encoding that was not requested.")
