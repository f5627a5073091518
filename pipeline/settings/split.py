"""Settings of the section ``split``."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings.section import Section


class SplitSettings(Section):
    """Splitting of recordings."""

    max_chunk_s: float = Field(default=15.0, ge=1, le=30)
    """Longest chunk. Whisper takes at most 30 s; shorter chunks waste less and batch better."""
    part_s: float = Field(default=300.0, ge=30)
    """Length of one part of prepared audio. The first parts are shorter, so that decoding starts early."""
    concurrency: int | None = Field(default=None, ge=1)
    """Recordings that one Splitter works on at the same moment. Its other recordings wait for a turn, which lasts for
    half a minute of audio. Empty: one recording for each two cores."""
