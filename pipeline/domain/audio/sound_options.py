"""Options that apply to a recording's sound before transcription."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SoundOptions:
    """The options of a client for decoding a recording.

    Attributes:
        audio_track: index or language of the audio track; ``None`` for the best one (``domain.audio.tracks``).
        normalize_level: whether quiet speech is raised to the working level.
    """

    audio_track: str | None = None
    normalize_level: bool = True


DEFAULT_SOUND_OPTIONS = SoundOptions()
