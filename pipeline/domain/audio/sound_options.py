"""How the sound of a recording is taken, before anything is transcribed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SoundOptions:
    """What a client may ask of decoding.

    Attributes:
        audio_track: index or language of the audio track; ``None`` for the best (``domain.tracks``).
        normalize_level: whether quiet speech is raised to the working level.
    """

    audio_track: str | None = None
    normalize_level: bool = True


DEFAULT_SOUND_OPTIONS = SoundOptions()
