"""Settings of the section ``media``."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings.section import MEBIBYTE, Section


class MediaSettings(Section):
    """The media store, and the limits of recordings."""

    url: str | None = None
    """fsspec URL of the store: `file:///shared/folder`, `s3://bucket/folder`. Empty: a folder in `data_dir`."""
    max_upload_bytes: int = Field(default=2048 * MEBIBYTE, gt=0)
    """Largest upload or download."""
    max_duration_s: float = Field(default=36_000.0, gt=0)
    """Longest recording, in seconds."""
    decode_cpu_s: float = Field(default=120.0, gt=0)
    """Processor seconds for decoding any recording, whatever its size; decoding runs in a process of its own."""
    decode_cpu_s_per_mib: float = Field(default=20.0, ge=0)
    """Further processor seconds for each MiB of the recording. An hour of AAC takes 4 s (measured on one core of a
    server)."""
    decode_memory_bytes: int = Field(default=512 * MEBIBYTE, ge=64 * MEBIBYTE)
    """Memory for decoding a recording, beyond that of the loaded codecs."""
    max_extractions: int = Field(default=4, ge=1)
    """`extract_audio` requests in progress at the same time in one Ingress replica: they take turns at half of its
    cores. A client leaves half of the slots to others."""
    max_waiting_extractions: int = Field(default=16, ge=0)
    """Further `extract_audio` requests that wait for a slot. More are refused with 503, and so is a client that has
    half of them."""
    keep_source: bool = False
    """Keep the recording and the prepared audio after the task has completed."""
    retention_s: float | None = Field(default=2_592_000.0, gt=0)
    """Age at which the recordings of failed and cancelled tasks, kept for a retry, are deleted; with `keep_source`
    those of completed tasks too. Empty: they are kept as long as their task."""
    orphan_age_s: float = Field(default=600.0, ge=30)
    """Age, since the last change, at which media that belongs to no task is deleted. An upload in progress is never
    that old, however slow its client is."""
