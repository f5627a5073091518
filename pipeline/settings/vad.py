"""Settings of the section ``vad``."""

from __future__ import annotations

from pydantic import Field

from pipeline.settings.section import Section


class VadSettings(Section):
    """Silero VAD, in the terms of faster-whisper."""

    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Speech probability from which a frame counts as speech."""
    min_speech_duration_ms: int = Field(default=0, ge=0)
    """Shorter speech is dropped."""
    min_silence_duration_ms: int = Field(default=500, ge=0)
    """Silence shorter than this does not end a speech span."""
    speech_pad_ms: int = Field(default=400, ge=0)
    """Padding on both sides of a speech span. With less, the beginning of a first word may be cut off."""
