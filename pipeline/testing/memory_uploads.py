"""The state of resumable uploads in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from typing_extensions import override

from pipeline.domain.tasks.client import Client, refuse_another_upload
from pipeline.domain.tasks.upload import Upload, UploadPart
from pipeline.errors import UploadNotFound, UploadStateConflict
from pipeline.ports import Clock, UploadStore


class MemoryUploadStore(UploadStore):
    """An ``UploadStore`` in memory, for one event loop. Every method takes effect in one step."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._uploads: dict[str, Upload] = {}
        self._parts: dict[str, tuple[UploadPart, ...]] = {}

    @override
    async def create(self, upload: Upload, client: Client | None = None) -> None:
        if client:
            refuse_another_upload(client, await self.open_uploads(client.name))
        self._uploads[upload.id] = upload

    @override
    async def get(self, upload_id: str) -> Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.expires_at <= self._clock.now():
            raise UploadNotFound("There is no such upload; one to which nothing is added for long is thrown away.")
        return upload

    @override
    async def open_uploads(self, client: str) -> int:
        now = self._clock.now()
        return sum(
            upload.client == client and upload.task_id is None and upload.expires_at > now
            for upload in self._uploads.values()
        )

    @override
    async def parts(self, upload_id: str) -> tuple[UploadPart, ...]:
        return self._parts.get(upload_id, ())

    @override
    async def append(self, upload_id: str, parts: Sequence[UploadPart], expires_at: datetime) -> None:
        upload = await self.get(upload_id)
        if upload.received_bytes != parts[0].start or upload.task_id is not None:
            raise UploadStateConflict(f"The upload is at byte {upload.received_bytes:,}, not at {parts[0].start:,}.")
        self._uploads[upload_id] = replace(upload, received_bytes=parts[-1].end, expires_at=expires_at)
        self._parts[upload_id] = (*self._parts.get(upload_id, ()), *parts)

    @override
    async def close(self, upload_id: str, task_id: int) -> None:
        self._uploads[upload_id] = replace(self._uploads[upload_id], task_id=task_id)
        self._parts.pop(upload_id, None)

    @override
    async def delete(self, upload_id: str) -> None:
        self._uploads.pop(upload_id, None)
        self._parts.pop(upload_id, None)

    @override
    async def expire(self, limit: int) -> list[str]:
        now = self._clock.now()
        expired = [upload.id for upload in self._uploads.values() if upload.expires_at <= now][:limit]
        for upload_id in expired:
            await self.delete(upload_id)
        return expired

    @override
    async def live_prefixes(self, prefixes: Collection[str]) -> set[str]:
        return self._uploads.keys() & set(prefixes)
