"""A resumable upload: what was announced, and what has arrived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One resumable upload.

    Attributes:
        id: 32 hexadecimal digits that can't be guessed; also the media prefix of its parts.
        client: name of the key it was begun with, if any.
        size_bytes: how long it will be.
        received_bytes: how much of it is safe: where the next bytes go.
        metadata: what its client noted with it; ``filename`` becomes the task's file name.
        expires_at: when it is thrown away, unless more arrives.
        task_id: the task it became.
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
        """Whether all of it has arrived."""
        return self.received_bytes == self.size_bytes

    @property
    def file_name(self) -> str | None:
        """The name its client gave the file."""
        return self.metadata.get("filename") or self.metadata.get("name") or None


@dataclass(frozen=True, slots=True)
class UploadPart:
    """A piece of an upload: bytes ``[start, end)`` of it, under a key of the media store."""

    start: int
    end: int
    media_key: str
