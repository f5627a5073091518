"""An engine without a model: it computes a text from the samples and takes as long as a real engine, but no CPU."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from typing_extensions import override

from pipeline.asr.engine import (
    FEATURE_SAMPLES,
    FRAMES_PER_SECOND,
    FULL_WINDOW_FRAMES,
    Decoded,
    DecodeItem,
    Engine,
    Features,
    Samples,
)
from pipeline.domain.decoding.engine_name import InstalledEngine
from pipeline.domain.decoding.transcript import AlignedWord, LanguageDetection, Segment
from pipeline.errors import ConfigurationError, DecodingFailed
from pipeline.ports import EngineInfo

DEFAULT_MODEL = "waiting-20x"
MODEL_NAME = re.compile(r"waiting-(\d+(?:\.\d+)?)x")


class SimulatedEngine(Engine):
    """A deterministic ``Engine`` for tests, and for trials of a cluster on one machine.

    The text identifies the audio: ``heard 1f2e3d4c`` for the same audio in any batch. The detected language is the
    first one of the engine, or the first one that is allowed.

    Args:
        info: value of ``info``.
        rtfx: seconds of audio decoded in one second of time; ``None`` to return at once.
        short_windows: whether windows fit the longest chunk and 2 s of margin; otherwise they are always full.
    """

    def __init__(self, info: EngineInfo, *, rtfx: float | None = None, short_windows: bool = True) -> None:
        self._info = info
        self._rtfx = rtfx
        self._short_windows = short_windows

    @classmethod
    def of_model(cls, model: str | None = None) -> SimulatedEngine:
        """Return the engine ``waiting`` with the speed in its model's name.

        It is used only if the settings name it (``asr.engine: waiting``), and appears by that name in ``EngineInfo``
        and in every transcript.

        Args:
            model: ``waiting-<speed>x``, such as ``waiting-20x`` for 20 s of audio in one second; ``None`` for that.

        Raises:
            ConfigurationError: the name is not of that form.
        """
        name = model or DEFAULT_MODEL
        speed = MODEL_NAME.fullmatch(name)
        if speed is None:
            raise ConfigurationError(
                f"asr.model of the engine `waiting` must be `waiting-<speed>x`, such as {DEFAULT_MODEL}."
            )
        info = EngineInfo(InstalledEngine.WAITING, name, "none", "none", ("en", "de"), 8)
        return SimulatedEngine(info, rtfx=float(speed[1]))

    @property
    @override
    def info(self) -> EngineInfo:
        return self._info

    @override
    def prepare(self, samples: Samples) -> Features:
        """Return the mean loudness of every 10 ms, shape ``(1, frames)``."""
        frames = len(samples) // FEATURE_SAMPLES
        if frames == 0 or not np.isfinite(samples).all():
            raise DecodingFailed("This chunk of audio can't be decoded.")
        loudness = np.abs(samples[: frames * FEATURE_SAMPLES]).reshape(frames, FEATURE_SAMPLES).mean(axis=1)
        features: Features = loudness.astype(np.float32)[np.newaxis, :]
        return features

    @override
    def batch_key(self, item: DecodeItem) -> Hashable:
        """Return temperature, beams, length of the prompt and the full window, if required, as a real engine does."""
        return item.temperature, item.options.beam_size, len(item.previous_tokens), item.full_window

    @override
    def window_frames(self, items: Sequence[DecodeItem]) -> int:
        """Return the longest item and 2 s of margin, or the full 30 s."""
        if not self._short_windows or any(item.full_window for item in items):
            return FULL_WINDOW_FRAMES
        return min(FULL_WINDOW_FRAMES, max(item.frames for item in items) + 2 * FRAMES_PER_SECOND)

    @override
    def decode(self, items: Sequence[DecodeItem]) -> list[Decoded | DecodingFailed]:
        if self._rtfx is not None:
            time.sleep(sum(item.duration_s for item in items) / self._rtfx)
        return [*self._decode_items(items)]

    def _decode_items(self, items: Sequence[DecodeItem]) -> list[Decoded]:
        full_window = self.window_frames(items) == FULL_WINDOW_FRAMES
        return [replace(self._decode_item(item), full_window=full_window) for item in items]

    def _decode_item(self, item: DecodeItem) -> Decoded:
        checksum = zlib.crc32(item.features.tobytes())
        text = f" heard {checksum:08x}"
        detection = self._detection(item) if item.language is None else None
        half_s = item.duration_s / 2
        segment = Segment(
            id=0,
            seek=0,
            start=0.0,
            end=item.duration_s,
            text=text,
            tokens=(checksum % 50_000,),
            temperature=item.temperature,
            avg_logprob=-0.2,
            compression_ratio=1.0,
            no_speech_prob=0.01,
            words=(
                AlignedWord(0.0, half_s, " heard", 0.9),
                AlignedWord(half_s, item.duration_s, f" {checksum:08x}", 0.9, (checksum % 50_000,)),
            )
            if item.options.word_timestamps
            else None,
        )
        return Decoded(
            text=text.strip(),
            segments=(segment,),
            temperature=item.temperature,
            avg_logprob=segment.avg_logprob,
            compression_ratio=segment.compression_ratio,
            no_speech_prob=segment.no_speech_prob,
            language=detection.language if detection else item.language or "en",
            detection=detection,
        )

    def _detection(self, item: DecodeItem) -> LanguageDetection:
        allowed = [name for name in self._info.languages if name in item.options.languages] or self._info.languages
        share = 0.1 / max(1, len(allowed) - 1)
        return LanguageDetection(allowed[0], 0.9, ((allowed[0], 0.9), *((language, share) for language in allowed[1:])))
