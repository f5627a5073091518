"""Settings of the section ``logging``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from pipeline.settings.section import MEBIBYTE, Section


class LoggingSettings(Section):
    """The log."""

    format: Literal["text", "json"] = "text"
    """One line of text, or one JSON object, per event."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is logged."""
    file: Path | None = None
    """Absolute path of a file that all replicas of a node write to, besides standard error. Its folder is created.
    Empty: none."""
    file_max_bytes: int = Field(default=64 * MEBIBYTE, ge=4096)
    """Size of the log file at which it is rotated: after the line that makes it larger."""
    file_backups: int = Field(default=5, ge=1, le=1000)
    """Number of rotated files that are kept, as `<file>.1` (the newest), `<file>.2` …"""

    @field_validator("file")
    @classmethod
    def _absolute(cls, file: Path | None) -> Path | None:
        if file is not None and not file.is_absolute():
            raise ValueError("must be an absolute path: a replica's working directory is not yours")
        return file
