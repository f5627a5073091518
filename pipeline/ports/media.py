"""Where recordings and prepared audio lie, and sound taken out of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import BinaryIO, Protocol

from pipeline.domain.audio.extraction import ExtractionOptions


class MediaStore(Protocol):
    """Bytes under keys (``<task>/source``, ``<task>/pcm/00000.s16le``) in a folder or bucket every node can reach.

    A key appears whole or not at all. Errors: ``FileNotFoundError`` for an absent key, ``StorageFull``,
    ``StorageUnavailable``.
    """

    async def write(self, key: str, data: AsyncIterator[bytes]) -> int:
        """Stores the stream and returns its size in bytes. If the stream raises, nothing stays behind."""
        ...

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes ``[offset, offset + length)`` of a key, or to its end."""
        ...

    def open(self, key: str) -> BinaryIO:
        """A seekable file object for a decoder, to be used off the event loop."""
        ...

    async def delete_prefix(self, prefix: str) -> None:
        """Removes every key under a folder. Absent is fine."""
        ...

    async def touch(self, prefix: str) -> None:
        """Makes a task folder count as changed now: so whoever still writes there keeps it from sweeps."""
        ...

    async def prefixes(self) -> Mapping[str, datetime]:
        """The task folders that exist, with the time each was last changed; for sweeping orphans.

        Folders whose name begins with a dot are not a task's, and not among them.
        A folder in which somebody has died over a half-written key counts as changed very long ago.
        """
        ...


class AudioExtractor(Protocol):
    """Takes the sound out of recordings for clients who wait for it. Files are temporary: closing one removes it."""

    def place(self, client: str | None = None) -> AbstractAsyncContextManager[None]:
        """Room for one more, for as long as the block lasts.

        Args:
            client: whose it is; one client can't take all the room. ``None``: nobody's in particular.

        Raises:
            ExtractionsFull: there is none, or the rest is for others.
        """
        ...

    async def receive(self, data: AsyncIterator[bytes]) -> BinaryIO:
        """A recording as it comes, as a file. If the stream raises, nothing stays behind. Raises ``StorageFull``."""
        ...

    async def extract(
        self,
        source: BinaryIO,
        wanted: ExtractionOptions,
        client: str | None = None,
        progress: Callable[[float], None] = lambda _decoded_s: None,
    ) -> BinaryIO:
        """The sound of a file, as another; clients share the work, and ``progress`` is told the seconds decoded so far.

        Raises:
            MediaError, DecoderCrashed, StorageFull: as they say.
        """
        ...

    def blocks(self, file: BinaryIO) -> AsyncGenerator[bytes, None]:
        """The content of a file."""
        ...
