"""The port of resumable uploads."""

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
        """Store an upload that has just begun. Raises ``QuotaExceeded`` if the client may not begin another."""
        ...

    async def get(self, upload_id: str) -> Upload:
        """Return the upload. Raises ``UploadNotFound``, also for expired ones."""
        ...

    async def open_uploads(self, client: str) -> int:
        """Return the number of a client's uploads that have neither become a task nor expired."""
        ...

    async def parts(self, upload_id: str) -> tuple[UploadPart, ...]:
        """Return the parts received so far, in order, without gaps."""
        ...

    async def append(self, upload_id: str, parts: Sequence[UploadPart], expires_at: datetime) -> None:
        """Commit parts that follow each other, all or none.

        Raises ``UploadStateConflict`` unless the first begins where the upload ends, so that of two requests at once
        one wins. Raises ``UploadNotFound``.
        """
        ...

    async def close(self, upload_id: str, task_id: int) -> None:
        """Record the task that an upload became, and delete its parts."""
        ...

    async def delete(self, upload_id: str) -> None:
        """Delete an upload. A missing one is ignored."""
        ...

    async def expire(self, limit: int) -> list[str]:
        """Delete up to ``limit`` expired uploads; return their ids, which are their media prefixes."""
        ...

    async def live_prefixes(self, prefixes: Collection[str]) -> set[str]:
        """Return those of the media prefixes that belong to a stored upload."""
        ...
