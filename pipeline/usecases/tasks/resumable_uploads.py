"""Resumable uploads: recordings whose bytes arrive over several requests, on any replica, before they become a task.

The bytes are written to the media store in parts. A part counts once its row is committed. If a request breaks off, the
parts before the break are kept, and so are the bytes of the next part that had arrived. There are no locks: of two
requests that append at the same offset, the first to commit wins, and the other gets the upload's current offset.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import TYPE_CHECKING

from pipeline.domain.tasks.client import Client
from pipeline.domain.tasks.upload import Upload, UploadPart
from pipeline.errors import (
    ChecksumMismatch,
    RequestError,
    UploadNotFound,
    UploadStateConflict,
    UploadTooLarge,
)
from pipeline.ports import Clock, MediaStore, UploadStore

if TYPE_CHECKING:
    from hashlib import _Hash

PART_BYTES = 8 * 1024 * 1024
"""Largest part. A process that is killed loses at most this much of an upload."""

READ_BYTES = 1024 * 1024
"""Bytes read at a time when the parts are joined to the recording."""

CHECKSUMS: Mapping[str, Callable[[], _Hash]] = {
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
}
"""Checksum algorithms that a client may use for a request's body."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """The expected digest of the bytes of one request."""

    algorithm: str
    digest: bytes


class ResumableUploads:
    """The resumable uploads of all clients.

    Args:
        store: holds the state of the uploads.
        media: holds their bytes.
        clock: gives the time of expiry.
        max_upload_bytes: size of the largest upload.
        ttl_s: seconds without new bytes after which an upload expires.
        part_bytes: size of the largest part.
        read_bytes: bytes read at a time when the parts are joined.
    """

    def __init__(
        self,
        store: UploadStore,
        media: MediaStore,
        clock: Clock,
        *,
        max_upload_bytes: int,
        ttl_s: float,
        part_bytes: int = PART_BYTES,
        read_bytes: int = READ_BYTES,
    ) -> None:
        self.max_upload_bytes = max_upload_bytes
        self._store = store
        self._media = media
        self._clock = clock
        self._ttl = timedelta(seconds=ttl_s)
        self._part_bytes = part_bytes
        self._read_bytes = read_bytes

    async def create(self, size_bytes: int, metadata: Mapping[str, str], client: Client | None = None) -> Upload:
        """Create an empty upload. Raises ``UploadTooLarge``, ``QuotaExceeded``."""
        if size_bytes > self.max_upload_bytes:
            raise UploadTooLarge(
                f"The file is too large: the upload has {size_bytes:,} bytes and the limit is "
                f"{self.max_upload_bytes:,}."
            )
        upload = Upload(
            id=uuid.uuid4().hex,
            size_bytes=size_bytes,
            metadata=metadata,
            client=client.name if client else None,
            expires_at=self._expiry(),
        )
        await self._store.create(upload, client)
        return upload

    async def get(self, upload_id: str, client: Client | None = None) -> Upload:
        """Return the upload. Raises ``UploadNotFound`` if it is absent, has expired, or belongs to another client."""
        upload = await self._store.get(upload_id)
        if upload.client != (client.name if client else None):
            raise UploadNotFound("There is no such upload. An upload expires when no bytes are added to it for long.")
        return upload

    async def append(
        self, upload: Upload, offset: int, data: AsyncIterator[bytes], checksum: Checksum | None = None
    ) -> Upload:
        """Append bytes at an offset, and return the upload after that.

        Raises:
            UploadStateConflict: the upload is at another offset, or another request committed first.
            UploadTooLarge: more bytes arrived than were announced; the announced ones are kept.
            UploadInterrupted: the client disconnected; the bytes that had arrived are kept unless there is a checksum.
            ChecksumMismatch: the bytes do not match the checksum; none is kept.
        """
        if offset != upload.received_bytes:
            raise UploadStateConflict(f"The upload is at byte {upload.received_bytes:,}, not at {offset:,}.")
        appending = _UploadAppend(self._store, self._media, upload, checksum, self._expiry, self._part_bytes)
        async with aclosing(_without_empty_blocks(data)) as incoming:
            await appending.receive(incoming)
        return await self._store.get(upload.id)

    async def delete(self, upload: Upload) -> None:
        """Delete an upload and its bytes. A task that was made of it stays."""
        await self._store.delete(upload.id)
        await self._media.delete_prefix(upload.id)

    async def content(self, upload: Upload) -> AsyncIterator[bytes]:
        """Yield the bytes of a complete upload in order. Raises ``UploadStateConflict`` for an incomplete one."""
        if not upload.complete:
            raise UploadStateConflict(
                f"The upload is not complete: {upload.received_bytes:,} of {upload.size_bytes:,} bytes have arrived."
            )
        for part in await self._store.parts(upload.id):
            size = part.end - part.start
            for start in range(0, size, self._read_bytes):
                yield await self._media.read(part.media_key, start, min(self._read_bytes, size - start))

    async def close(self, upload: Upload, task_id: int) -> None:
        """Record the task that was made of the upload, and delete the upload's bytes, of which the task has a copy."""
        await self._store.close(upload.id, task_id)
        await self._media.delete_prefix(upload.id)

    def _expiry(self) -> datetime:
        return self._clock.now() + self._ttl


class _UploadAppend:
    """The body of one request that is appended to an upload."""

    def __init__(
        self,
        store: UploadStore,
        media: MediaStore,
        upload: Upload,
        checksum: Checksum | None,
        expiry: Callable[[], datetime],
        part_bytes: int,
    ) -> None:
        self._store = store
        self._media = media
        self._upload = upload
        self._checksum = checksum
        self._expiry = expiry
        self._part_bytes = part_bytes
        self._folder = f"{upload.id}/{uuid.uuid4().hex}"
        self._digest = CHECKSUMS[checksum.algorithm]() if checksum else None
        self._end = upload.received_bytes
        self._uncommitted: list[UploadPart] = []
        self._has_committed = False
        self._interruption: RequestError | asyncio.CancelledError | None = None

    async def receive(self, incoming: AsyncIterator[bytes]) -> None:
        try:
            while part := await self._write_part(incoming):
                self._uncommitted.append(part)
                if self._digest is None:
                    await self._commit_parts()
            self._verify()
            await self._commit_parts()
            if self._interruption is not None:
                raise self._interruption
        finally:
            if not self._has_committed:
                await self._media.delete_prefix(self._folder)

    async def _write_part(self, incoming: AsyncIterator[bytes]) -> UploadPart | None:
        """Write and return the next part; ``None`` once the body has ended or broken off."""
        first = await self._next_block(incoming)
        if not first:
            return None
        start, key = self._end, f"{self._folder}/{self._end:020d}"

        async def blocks() -> AsyncIterator[bytes]:
            block = first
            while block:
                self._count_bytes(block)
                yield block
                block = await self._next_block(incoming) if self._end - start < self._part_bytes else b""

        await self._media.write(key, blocks())
        return UploadPart(start, self._end, key)

    async def _next_block(self, incoming: AsyncIterator[bytes]) -> bytes:
        """Return the next bytes that fit into the upload, and none at the end.

        The reason for an early end is kept in ``_interruption`` and raised after the part is committed.
        """
        try:
            block = await anext(incoming, b"")
        except (RequestError, asyncio.CancelledError) as error:  # the client disconnected or is too slow
            self._interruption = error
            return b""
        room = self._upload.size_bytes - self._end
        if len(block) > room:
            self._interruption = UploadTooLarge(
                f"More bytes arrived than the upload's {self._upload.size_bytes:,}. The surplus was discarded."
            )
        return block[:room]

    def _count_bytes(self, block: bytes) -> None:
        self._end += len(block)
        if self._digest is not None:
            self._digest.update(block)

    def _verify(self) -> None:
        if self._checksum is None or self._digest is None:
            return
        if self._interruption is not None and not isinstance(self._interruption, UploadTooLarge):
            raise self._interruption  # the checksum of an incomplete body can't be verified
        if not compare_digest(self._digest.digest(), self._checksum.digest):
            raise ChecksumMismatch("The bytes that arrived don't match Upload-Checksum: send them again.")

    async def _commit_parts(self) -> None:
        if self._uncommitted:
            await self._store.append(self._upload.id, self._uncommitted, self._expiry())
            self._uncommitted, self._has_committed = [], True


async def _without_empty_blocks(data: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the non-empty blocks; an empty one would be taken for the end."""
    async for block in data:
        if block:
            yield block
