"""A media store in memory, and an extractor in this process."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import BinaryIO

from pipeline.domain.audio.extraction import ExtractionOptions
from pipeline.errors import ExtractionsFull, StorageFull
from pipeline.media.audio_extraction import extract_audio
from pipeline.media.media_store import IN_USE, validate_key


class MemoryMediaStore:
    """A ``MediaStore`` whose keys live in a dictionary.

    Args:
        capacity_bytes: with more than this in all, writing raises ``StorageFull``.
        now: the time of day, aware UTC.
    """

    def __init__(
        self, capacity_bytes: int | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._capacity_bytes = capacity_bytes
        self._now = now
        self._contents: dict[str, bytes] = {}
        self._changed: dict[str, datetime] = {}

    @property
    def keys(self) -> frozenset[str]:
        """What is stored."""
        return frozenset(self._contents)

    async def write(self, key: str, data: AsyncIterator[bytes]) -> int:
        """Stores the stream and returns its size in bytes. If the stream raises, nothing stays behind."""
        validate_key(key)
        content = bytearray()
        async for block in data:
            content += block
            self._check_room(len(content))
        self._contents[key] = bytes(content)
        self._changed[key] = self._now()
        return len(content)

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes ``[offset, offset + length)`` of a key, or to its end."""
        end = None if length is None else offset + length
        return self._content(key)[offset:end]

    def open(self, key: str) -> BinaryIO:
        """A seekable file object."""
        return io.BytesIO(self._content(key))

    async def delete_prefix(self, prefix: str) -> None:
        """Removes every key under a folder."""
        validate_key(prefix)
        for key in [key for key in self._contents if key.startswith(f"{prefix}/")]:
            del self._contents[key], self._changed[key]

    async def touch(self, prefix: str) -> None:
        """Makes a folder count as changed now."""
        key = validate_key(f"{prefix}/{IN_USE}")
        self._contents[key], self._changed[key] = b"", self._now()

    async def prefixes(self) -> Mapping[str, datetime]:
        """The folders that exist, with the time each was last changed."""
        latest: dict[str, datetime] = {}
        for key, changed in self._changed.items():
            prefix = key.split("/")[0]
            if not prefix.startswith("."):
                latest[prefix] = max(changed, latest.get(prefix, changed))
        return latest

    def _content(self, key: str) -> bytes:
        try:
            return self._contents[validate_key(key)]
        except KeyError:
            raise FileNotFoundError(key) from None

    def _check_room(self, more: int) -> None:
        if self._capacity_bytes is not None and sum(map(len, self._contents.values())) + more > self._capacity_bytes:
            raise StorageFull("The media store has no room left; try again later.", 60)


class LocalExtractor:
    """An ``AudioExtractor`` that keeps its files in memory and works where it is called.

    Args:
        places: room for so many at a time.
        max_duration_s: longer recordings are refused.

    Attributes:
        files: all that were made.
        clients: whose recordings were worked on, in order.
    """

    def __init__(self, places: int = 1, max_duration_s: float = 600.0) -> None:
        self.places = places
        self.max_duration_s = max_duration_s
        self.files: list[io.BytesIO] = []
        self.clients: list[str | None] = []

    @asynccontextmanager
    async def place(self, client: str | None = None) -> AsyncIterator[None]:
        """See ``ports.AudioExtractor.place``."""
        if not self.places:
            raise ExtractionsFull("There is no room: try later.", 10)
        self.places -= 1
        try:
            yield
        finally:
            self.places += 1

    async def receive(self, data: AsyncIterator[bytes]) -> BinaryIO:
        """See ``ports.AudioExtractor.receive``."""
        file = self._file()
        async for block in data:
            file.write(block)
        return file

    async def extract(
        self,
        source: BinaryIO,
        wanted: ExtractionOptions,
        client: str | None = None,
        progress: Callable[[float], None] = lambda _decoded_s: None,
    ) -> BinaryIO:
        """See ``ports.AudioExtractor.extract``."""
        self.clients.append(client)
        source.seek(0)
        target = self._file()
        try:
            extract_audio(source, target, wanted, self.max_duration_s, progress)
        except BaseException:
            target.close()
            raise
        return target

    async def blocks(self, file: BinaryIO) -> AsyncGenerator[bytes]:
        """See ``ports.AudioExtractor.blocks``."""
        file.seek(0)
        while block := file.read(65_536):
            yield block

    def _file(self) -> io.BytesIO:
        self.files.append(io.BytesIO())
        return self.files[-1]
