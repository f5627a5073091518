"""A resumable upload: its announced size and metadata, and the parts received."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A resumable upload.

    Attributes:
        id: 32 hexadecimal digits that can't be guessed; also the media prefix of its parts.
        client: name of the key that it was created with, if any.
        size_bytes: size of the complete upload.
        received_bytes: number of bytes stored, and so the offset of the next ones.
        metadata: metadata from the client; ``filename`` becomes the task's file name.
        expires_at: time at which it is deleted, unless more bytes arrive.
        task_id: id of the task that it became.
    """

    id: str
    size_bytes: int
    expires_at: datetime
    received_bytes: int = 0
    client: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    task_id: int | None = None

    @property
    def complete(self) -> bool:
        """True if all bytes have arrived."""
        return self.received_bytes == self.size_bytes

    @property
    def file_name(self) -> str | None:
        """The client's name for the file, if it gave one."""
        return self.metadata.get("filename") or self.metadata.get("name") or None


@dataclass(frozen=True, slots=True)
class UploadPart:
    """The bytes ``[start, end)`` of an upload, stored under one media key."""

    start: int
    end: int
    media_key: str
