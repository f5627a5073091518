"""Decoding and extraction of a recording in a child of the sandbox."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict
from typing import BinaryIO

import numpy as np
from typing_extensions import override

from pipeline.domain.audio.extraction import ExtractionOptions
from pipeline.domain.audio.sound_options import DEFAULT_SOUND_OPTIONS, SoundOptions
from pipeline.domain.audio.spans import to_samples
from pipeline.domain.audio.speech import Samples
from pipeline.domain.audio.tracks import Track
from pipeline.errors import DecoderCrashed, OutputTooLarge
from pipeline.media.recording_decoder import RecordingDecoder
from pipeline.media.sandbox.decoder_messages import SECONDS, MessageKind, parse_write
from pipeline.media.sandbox.sandbox import Sandbox


class SandboxedDecoder(RecordingDecoder):
    """An ``AudioDecoder`` in a child. Both ``truncated`` and ``tracks`` are known after the last block.

    Args:
        sandbox: starts the child.
        file: the recording, seekable; read in the thread that iterates over ``blocks``.
        max_duration_s: longest recording, in seconds.
        sound: track to decode, and whether to control the level.
    """

    def __init__(
        self, sandbox: Sandbox, file: BinaryIO, max_duration_s: float, sound: SoundOptions = DEFAULT_SOUND_OPTIONS
    ) -> None:
        self._sandbox = sandbox
        self._file = file
        self._max_duration_s = max_duration_s
        self._sound = sound
        self.truncated = False
        self.tracks: tuple[Track, ...] = ()

    @override
    def blocks(self) -> Generator[Samples]:
        left = to_samples(self._max_duration_s)
        arguments = {"max_duration_s": self._max_duration_s, "sound": asdict(self._sound)}
        with self._sandbox.child("decode", self._file, **arguments) as child:
            with closing(child.messages()) as messages:
                for _, payload in messages:
                    block = np.frombuffer(payload, np.int16)
                    left -= len(block)
                    _check_size(left)
                    yield block
            self.truncated = bool(child.result.get("truncated"))
            self.tracks = tuple(Track(**track) for track in child.result.get("tracks", ()))


def extract_in(
    sandbox: Sandbox,
    source: BinaryIO,
    target: BinaryIO,
    wanted: ExtractionOptions,
    *,
    max_duration_s: float,
    max_bytes: int,
) -> Generator[float]:
    """Run ``audio_extraction.extract_audio`` in a child; yield the seconds decoded so far after each step.

    Raises:
        MediaError: the recording has no sound, or more of it than ``max_duration_s`` or ``max_bytes``.
        DecoderCrashed: the child died.
    """
    arguments = {"max_duration_s": max_duration_s, "wanted": asdict(wanted)}
    with sandbox.child("extract", source, **arguments) as child, closing(child.messages()) as messages:
        decoded_s = 0.0
        for kind, payload in messages:
            if kind is MessageKind.DATA and len(payload) == SECONDS.size:
                decoded_s = min(max(decoded_s, SECONDS.unpack(payload)[0]), max_duration_s)
            offset, content = parse_write(payload) if kind is MessageKind.WRITE else (0, memoryview(b""))
            if offset + len(content) > max_bytes:
                raise OutputTooLarge(f"The extracted sound would be larger than the limit of {max_bytes:,} bytes.")
            target.seek(offset)
            target.write(content)
            yield decoded_s


def _check_size(left: int) -> None:
    """Refuse more sound than the limit allows. Children keep the limit themselves unless they were taken over."""
    if left < 0:
        raise DecoderCrashed("The process that decoded the recording sent more sound than the limit allows.")
