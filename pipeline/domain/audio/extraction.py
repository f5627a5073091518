"""Options for extracting the sound of a recording."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from annotated_types import Ge, Le


class AudioFormat(StrEnum):
    """The formats that an extraction can write."""

    WAV = "wav"
    MP3 = "mp3"
    FLAC = "flac"
    OGG = "ogg"
    M4A = "m4a"


MEDIA_TYPES = {
    AudioFormat.WAV: "audio/wav",
    AudioFormat.MP3: "audio/mpeg",
    AudioFormat.FLAC: "audio/flac",
    AudioFormat.OGG: "audio/ogg",
    AudioFormat.M4A: "audio/mp4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionOptions:
    """The form in which the sound of a recording is written."""

    sample_rate: Annotated[int, Ge(8000), Le(192_000)] = 22_050
    """Samples per second. `mp3`, `ogg` and `m4a` support only some rates: the next higher one is used."""
    bit_depth: Annotated[int, Ge(1), Le(4)] = 2
    """Bytes per sample, 1 to 4; only for `wav` and `flac` (2 to 4)."""
    output_format: AudioFormat = AudioFormat.WAV
    """Format of the file: `ogg` holds Opus, `m4a` AAC."""
