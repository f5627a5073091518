"""The state of resumable uploads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from pipeline.domain.tasks.client import Client
from pipeline.domain.tasks.upload import Upload, UploadPart


class UploadStore(Protocol):
    """The state of resumable uploads; their bytes are in the MediaStore.

    Every method raises ``DatabaseUnavailable`` while the database does not answer.
    """

    async def create(self, upload: Upload, client: Client | None = None) -> None:
        """Notes an upload that has just begun. Raises ``QuotaExceeded`` if the client may not begin another."""
        ...

    async def get(self, upload_id: str) -> Upload:
        """The upload, or ``UploadNotFound``, expired ones included."""
        ...

    async def open_uploads(self, client: str) -> int:
        """How many uploads of a client have neither become a task nor expired."""
        ...

    async def parts(self, upload_id: str) -> tuple[UploadPart, ...]:
        """What has been received, in order, without gaps."""
        ...

    async def append(self, upload_id: str, parts: Sequence[UploadPart], expires_at: datetime) -> None:
        """Commits parts that follow each other, all or none.

        Raises ``UploadStateConflict`` unless the first begins where the upload ends: of two that come at once, one
        wins. Raises ``UploadNotFound`` too.
        """
        ...

    async def close(self, upload_id: str, task_id: int) -> None:
        """Notes the task that an upload became, and forgets its parts."""
        ...

    async def delete(self, upload_id: str) -> None:
        """Forgets an upload. Absent is fine."""
        ...

    async def expire(self, limit: int) -> list[str]:
        """Forgets up to ``limit`` uploads that have expired; returns their ids, which are their media prefixes."""
        ...

    async def live_prefixes(self, prefixes: Collection[str]) -> set[str]:
        """Which of these media prefixes belong to an upload that is not forgotten."""
        ...
