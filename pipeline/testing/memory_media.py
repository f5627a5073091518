"""A media store in memory, and an audio extractor in this process."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import BinaryIO

from typing_extensions import override

from pipeline.domain.audio.extraction import ExtractionOptions
from pipeline.errors import ExtractionsFull, StorageFull
from pipeline.media.audio_extraction import extract_audio
from pipeline.media.media_store import IN_USE, validate_key
from pipeline.ports import AudioExtractor, MediaStore


class MemoryMediaStore(MediaStore):
    """A ``MediaStore`` in memory.

    Args:
        capacity_bytes: total size above which writing raises ``StorageFull``.
        now: returns the time of day, aware UTC.
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
        """All stored keys."""
        return frozenset(self._contents)

    @override
    async def write(self, key: str, data: AsyncIterator[bytes]) -> int:
        validate_key(key)
        content = bytearray()
        async for block in data:
            content += block
            self._check_room(len(content))
        self._contents[key] = bytes(content)
        self._changed[key] = self._now()
        return len(content)

    @override
    async def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        end = None if length is None else offset + length
        return self._content(key)[offset:end]

    @override
    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self._content(key))

    @override
    async def delete_prefix(self, prefix: str) -> None:
        validate_key(prefix)
        for key in [key for key in self._contents if key.startswith(f"{prefix}/")]:
            del self._contents[key], self._changed[key]

    @override
    async def touch(self, prefix: str) -> None:
        key = validate_key(f"{prefix}/{IN_USE}")
        self._contents[key], self._changed[key] = b"", self._now()

    @override
    async def prefixes(self) -> Mapping[str, datetime]:
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


class LocalExtractor(AudioExtractor):
    """An ``AudioExtractor`` that keeps its files in memory and runs in the calling thread.

    Args:
        places: number of extractions at the same time.
        max_duration_s: longest recording that is accepted.

    Attributes:
        files: all files, in order.
        clients: client of each extraction, in order.
    """

    def __init__(self, places: int = 1, max_duration_s: float = 600.0) -> None:
        self.places = places
        self.max_duration_s = max_duration_s
        self.files: list[io.BytesIO] = []
        self.clients: list[str | None] = []

    @asynccontextmanager
    @override
    async def place(self, client: str | None = None) -> AsyncIterator[None]:
        if not self.places:
            raise ExtractionsFull("All places are taken; try again later.", 10)
        self.places -= 1
        try:
            yield
        finally:
            self.places += 1

    @override
    async def receive(self, data: AsyncIterator[bytes]) -> BinaryIO:
        file = self._file()
        async for block in data:
            file.write(block)
        return file

    @override
    async def extract(
        self,
        source: BinaryIO,
        wanted: ExtractionOptions,
        client: str | None = None,
        progress: Callable[[float], None] = lambda _decoded_s: None,
    ) -> BinaryIO:
        self.clients.append(client)
        source.seek(0)
        target = self._file()
        try:
            extract_audio(source, target, wanted, self.max_duration_s, progress)
        except BaseException:
            target.close()
            raise
        return target

    @override
    async def blocks(self, file: BinaryIO) -> AsyncGenerator[bytes]:
        file.seek(0)
        while block := file.read(65_536):
            yield block

    def _file(self) -> io.BytesIO:
        self.files.append(io.BytesIO())
        return self.files[-1]
