"""Resumable uploads: bytes that arrive over several requests, on any replica, and then become a task.

What arrives is written to the MediaStore in parts, and each part counts once the database says so. A request that
breaks off keeps the parts before the break and what had arrived of the next one. Nothing is locked: of two requests
that add to the same place, the one that commits first wins and the other is told where the upload is now.
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
"""What is committed at a time: what a process that is killed can lose of an upload."""

READ_BYTES = 1024 * 1024
"""What is read of a part at a time when the recording is put together."""

CHECKSUMS: Mapping[str, Callable[[], _Hash]] = {
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
}
"""Algorithms a client may protect a request's body with."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the bytes of one request should come to."""

    algorithm: str
    digest: bytes


class ResumableUploads:
    """Takes uploads in, piece by piece.

    Args:
        store: where their state is.
        media: where their bytes go.
        clock: for the time they expire.
        max_upload_bytes: largest upload.
        ttl_s: an upload to which nothing is added for this long is thrown away.
    """

    def __init__(
        self, store: UploadStore, media: MediaStore, clock: Clock, *, max_upload_bytes: int, ttl_s: float
    ) -> None:
        self.max_upload_bytes = max_upload_bytes
        self._store = store
        self._media = media
        self._clock = clock
        self._ttl = timedelta(seconds=ttl_s)

    async def create(self, size_bytes: int, metadata: Mapping[str, str], client: Client | None = None) -> Upload:
        """Begins an upload. Raises ``UploadTooLarge``, ``QuotaExceeded``."""
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
        """The upload, or ``UploadNotFound``: absent, expired, or another client's."""
        upload = await self._store.get(upload_id)
        if upload.client != (client.name if client else None):
            raise UploadNotFound("There is no such upload; one to which nothing is added for long is thrown away.")
        return upload

    async def append(
        self, upload: Upload, offset: int, data: AsyncIterator[bytes], checksum: Checksum | None = None
    ) -> Upload:
        """Adds bytes at an offset; returns the upload as it is then.

        Raises:
            UploadStateConflict: the upload is at another offset, or another request was faster.
            UploadTooLarge: more bytes than were announced; what fits is kept.
            UploadInterrupted: the client went away; without a checksum, what had arrived is kept.
            ChecksumMismatch: they are not the bytes of the checksum; nothing is kept.
        """
        if offset != upload.received_bytes:
            raise UploadStateConflict(f"The upload is at byte {upload.received_bytes:,}, not at {offset:,}.")
        piece = _UploadAppend(self._store, self._media, upload, checksum, self._expiry)
        async with aclosing(_chunked(data)) as incoming:
            await piece.take(incoming)
        return await self._store.get(upload.id)

    async def delete(self, upload: Upload) -> None:
        """Throws an upload away, its bytes included. The task it may have become stays."""
        await self._store.delete(upload.id)
        await self._media.delete_prefix(upload.id)

    async def content(self, upload: Upload) -> AsyncIterator[bytes]:
        """All bytes of a complete upload, in order. Raises ``UploadStateConflict`` for one that is not."""
        if not upload.complete:
            raise UploadStateConflict(
                f"The upload is not complete: {upload.received_bytes:,} of {upload.size_bytes:,} bytes have arrived."
            )
        for part in await self._store.parts(upload.id):
            for start in range(0, part.end - part.start, READ_BYTES):
                yield await self._media.read(part.media_key, start, min(READ_BYTES, part.end - part.start - start))

    async def close(self, upload: Upload, task_id: int) -> None:
        """Notes the task that an upload became; its bytes are that task's now."""
        await self._store.close(upload.id, task_id)
        await self._media.delete_prefix(upload.id)

    def _expiry(self) -> datetime:
        return self._clock.now() + self._ttl


class _UploadAppend:
    """The body of one request, on its way into an upload."""

    def __init__(
        self,
        store: UploadStore,
        media: MediaStore,
        upload: Upload,
        checksum: Checksum | None,
        expiry: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._media = media
        self._upload = upload
        self._checksum = checksum
        self._expiry = expiry
        self._folder = f"{upload.id}/{uuid.uuid4().hex}"
        self._digest = CHECKSUMS[checksum.algorithm]() if checksum else None
        self._end = upload.received_bytes
        self._held: list[UploadPart] = []
        self._kept = False
        self._cause: RequestError | asyncio.CancelledError | None = None

    async def take(self, incoming: AsyncIterator[bytes]) -> None:
        try:
            while part := await self._write_part(incoming):
                self._held.append(part)
                if self._digest is None:
                    await self._commit_parts()
            self._verify()
            await self._commit_parts()
            if self._cause is not None:
                raise self._cause
        finally:
            if not self._kept:
                await self._media.delete_prefix(self._folder)

    async def _write_part(self, incoming: AsyncIterator[bytes]) -> UploadPart | None:
        """The next part, or ``None`` at the end of the body, or where it breaks off."""
        first = await self._next(incoming)
        if not first:
            return None
        start, key = self._end, f"{self._folder}/{self._end:020d}"

        async def blocks() -> AsyncIterator[bytes]:
            block = first
            while block:
                self._count_bytes(block)
                yield block
                block = await self._next(incoming) if self._end - start < PART_BYTES else b""

        await self._media.write(key, blocks())
        return UploadPart(start, self._end, key)

    async def _next(self, incoming: AsyncIterator[bytes]) -> bytes:
        """The next bytes that fit; none at the end. Why a body ended early is noted, so that its part can be kept."""
        try:
            block = await anext(incoming, b"")
        except (RequestError, asyncio.CancelledError) as error:  # the client went away, or is too slow
            self._cause = error
            return b""
        room = self._upload.size_bytes - self._end
        if len(block) > room:
            self._cause = UploadTooLarge(
                f"More bytes arrived than the upload's {self._upload.size_bytes:,}; the surplus was thrown away."
            )
        return block[:room]

    def _count_bytes(self, block: bytes) -> None:
        self._end += len(block)
        if self._digest is not None:
            self._digest.update(block)

    def _verify(self) -> None:
        if self._checksum is None or self._digest is None:
            return
        if self._cause is not None and not isinstance(self._cause, UploadTooLarge):
            raise self._cause  # half of the bytes can't be told from wrong ones
        if not compare_digest(self._digest.digest(), self._checksum.digest):
            raise ChecksumMismatch(
                "The bytes that arrived don't have the checksum in Upload-Checksum: send them again."
            )

    async def _commit_parts(self) -> None:
        if self._held:
            await self._store.append(self._upload.id, self._held, self._expiry())
            self._held, self._kept = [], True


async def _chunked(data: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The bytes without empty blocks, which would pass for the end."""
    async for block in data:
        if block:
            yield block
