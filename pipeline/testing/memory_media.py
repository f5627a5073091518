"""A media store in memory."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import BinaryIO

from typing_extensions import override

from pipeline.errors import StorageFull
from pipeline.media.media_store import IN_USE, validate_key
from pipeline.ports import MediaStore


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
