"""The port between splitting and decoding: a decoder of one recording."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from pipeline.domain.audio.speech import Samples
from pipeline.domain.audio.tracks import Track


class RecordingDecoder(Protocol):
    """A decoder of one recording to 16 kHz mono.

    Attributes:
        truncated: known after the last block: whether the recording breaks off, or is shorter than it states.
        tracks: known after the first block, or at the latest after the last: its audio tracks, the decoded one marked.
    """

    truncated: bool
    tracks: tuple[Track, ...]

    def blocks(self) -> Generator[Samples]:
        """Yield the audio in blocks of 16-bit samples.

        Raises:
            MediaError: the recording can't be transcribed.
            DecoderCrashed: the process that decodes it died.
        """
        ...
