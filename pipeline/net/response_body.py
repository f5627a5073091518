"""Reading an answer's body without trusting it: counted as it arrives, before and after decompression."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Protocol

import httpx

from pipeline.errors import SourceTimeout, SourceTooLarge, SourceUnreachable

BLOCK_BYTES = 64 * 1024
"""Most that one step of decompression yields, and so all that a compression bomb can occupy."""


@contextmanager
def translate_network_errors(host: str) -> Iterator[None]:
    """Turns what the network does to us into errors of our own, whose sentences name the host and nothing else.

    Raises:
        SourceTimeout: a time limit passed.
        SourceUnreachable: anything else that went wrong on the way.
    """
    try:
        yield
    except (TimeoutError, httpx.TimeoutException) as error:
        raise SourceTimeout(f"{host} did not answer in time.") from error
    except (httpx.ConnectError, httpx.ProxyError) as error:
        raise SourceUnreachable(f"No connection to {host}.") from error
    except (httpx.TransportError, OSError, ValueError) as error:  # h11 lets the ValueError of an endless number out
        raise SourceUnreachable(f"{host} broke off, or does not speak HTTP.") from error
    except zlib.error as error:
        raise SourceUnreachable(f"{host} sent a body that can't be decompressed.") from error


async def read_body(
    response: httpx.Response, host: str, max_bytes: int, deadline: float
) -> AsyncGenerator[bytes, None]:
    """The body in decompressed blocks.

    Args:
        response: as the transport gave it, unread.
        host: for the sentences of errors.
        max_bytes: largest body, counted both as sent and as decompressed.
        deadline: when to stop, in the event loop's time.

    Raises:
        SourceTooLarge, SourceTimeout, SourceUnreachable: see ``translate_network_errors``.
    """
    decoder = _decoder(response.headers.get("content-encoding", ""), host)
    raw = response.aiter_raw()
    received = given = 0
    while (block := await _next_block(raw, host, deadline)) is not None:
        received += len(block)
        _check_size(received, max_bytes, host)
        with translate_network_errors(host):
            for plain in decoder.feed(block):
                given += len(plain)
                _check_size(given, max_bytes, host)
                yield plain
    if not decoder.complete:
        raise SourceUnreachable(f"{host} broke off in the middle of a compressed body.")


def _check_size(size_bytes: int, max_bytes: int, host: str) -> None:
    if size_bytes > max_bytes:
        raise SourceTooLarge(f"{host} sends more than the {max_bytes} bytes that are taken.")


async def _next_block(raw: AsyncIterator[bytes], host: str, deadline: float) -> bytes | None:
    with translate_network_errors(host):
        async with asyncio.timeout_at(deadline):
            return await anext(raw, None)


class _Decoder(Protocol):
    @property
    def complete(self) -> bool: ...

    def feed(self, data: bytes) -> Iterator[bytes]: ...


class _IdentityDecoder:
    complete = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data


class _Inflater:
    """gzip (RFC 1952, any number of members) and zlib's deflate (RFC 1950), in blocks of bounded size."""

    def __init__(self) -> None:
        self._member = self._new_member()
        self._untouched = True

    @property
    def complete(self) -> bool:
        """Whether the last member ended; a body without a byte is complete too."""
        return self._untouched or self._member.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._untouched = False
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


def _decoder(encoding: str, host: str) -> _Decoder:
    match encoding.strip().lower():
        case "" | "identity":
            return _IdentityDecoder()
        case "gzip" | "x-gzip" | "deflate":
            return _Inflater()
        case _:
            raise SourceUnreachable(f"{host} sends a content encoding that was not asked for.")
