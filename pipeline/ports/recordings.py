"""The ports of stored recordings and prepared audio, and of extracting their sound."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import BinaryIO, Protocol

from pipeline.domain.audio.extraction import ExtractionOptions


class MediaStore(Protocol):
    """Bytes under keys (``<task>/source``, ``<task>/pcm/00000.s16le``) in a folder or bucket that every node reaches.

    A key appears whole or not at all. Errors: ``FileNotFoundError`` for an absent key, ``StorageFull``,
    ``StorageUnavailable``.
    """

    async def write(self, key: str, data: AsyncIterator[bytes]) -> int:
        """Store the stream and return its size in bytes. If the stream raises, nothing stays behind."""
        ...

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return the bytes ``[offset, offset + length)`` of a key, or all from ``offset`` on."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Return a seekable file object for a decoder, to be used off the event loop."""
        ...

    async def delete_prefix(self, prefix: str) -> None:
        """Delete every key under a folder. A missing folder is ignored."""
        ...

    async def touch(self, prefix: str) -> None:
        """Mark a task folder as changed now, so that housekeeping spares it while somebody writes there."""
        ...

    async def prefixes(self) -> Mapping[str, datetime]:
        """Return the existing task folders, with the time of the last change of each, to find orphans.

        Folders whose name begins with a dot belong to no task and are left out. A folder in which a writer has died
        over a half-written key counts as changed very long ago.
        """
        ...


class AudioExtractor(Protocol):
    """An extractor of sound, for clients who wait for it. Files are temporary: closing one deletes it."""

    def place(self, client: str | None = None) -> AbstractAsyncContextManager[None]:
        """Hold a place for one more extraction, for the duration of the block.

        Args:
            client: the client that it is for; one client can't take all places. ``None``: no particular one.

        Raises:
            ExtractionsFull: no place is free, or the free ones are kept for others.
        """
        ...

    async def receive(self, data: AsyncIterator[bytes]) -> BinaryIO:
        """Return a stream as a file. If the stream raises, nothing stays behind. Raises ``StorageFull``."""
        ...

    async def extract(
        self,
        source: BinaryIO,
        wanted: ExtractionOptions,
        client: str | None = None,
        progress: Callable[[float], None] = lambda _decoded_s: None,
    ) -> BinaryIO:
        """Return the sound of a file as another file. Clients take turns; ``progress`` gets the seconds decoded so far.

        Raises:
            MediaError: the file has no sound that can be decoded.
            DecoderCrashed: the decoder's process ended.
            StorageFull: there is no space for the result.
        """
        ...

    def blocks(self, file: BinaryIO) -> AsyncGenerator[bytes, None]:
        """Yield the content of a file."""
        ...
