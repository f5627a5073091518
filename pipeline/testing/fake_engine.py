"""An engine without a model: it computes its text from the samples, and fails as a test prescribes."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Hashable, Sequence
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
from pipeline.domain.decoding.transcript import AlignedWord, LanguageDetection, Segment
from pipeline.errors import DecodingFailed
from pipeline.ports import EngineInfo


class FakeEngine(Engine):
    """A deterministic ``Engine`` that returns at once.

    The text identifies the audio: ``heard 1f2e3d4c`` for the same audio in any batch. The detected language is the
    first one of the engine, or the first one that is allowed.

    Args:
        info: value of ``info``.
        memory_rows: batches of more chunks than this raise ``MemoryError``.
        fault: called for every item of a batch; an error that it returns is raised for the whole batch.
        result: called for every decoding; it may change it, for example to a repetition loop at temperature 0 or to
            silence, or return ``DecodingFailed``.
        short_windows: whether windows fit the longest chunk and 2 s of margin; otherwise they are always full.
        batch_s: seconds that every batch takes; spent by ``sleep``.
        row_s: seconds that each chunk of a batch adds.
        sleep: waits for so many seconds; simulations pass the one of a fake clock.

    Attributes:
        batches: all batches in order, failed ones included.
        entered: set whenever a batch has begun.
    """

    def __init__(
        self,
        *,
        info: EngineInfo | None = None,
        memory_rows: int | None = None,
        fault: Callable[[DecodeItem], Exception | None] = lambda _: None,
        result: Callable[[DecodeItem, Decoded], Decoded | DecodingFailed] = lambda _, decoded: decoded,
        short_windows: bool = True,
        batch_s: float = 0.0,
        row_s: float = 0.0,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._info = info or EngineInfo("fake", "fake", "cpu", "int8", ("en", "de", "ja"), 8)
        self._memory_rows = memory_rows
        self._fault = fault
        self._result = result
        self._short_windows = short_windows
        self._batch_s = batch_s
        self._row_s = row_s
        self._sleep = sleep
        self._open = threading.Event()
        self._open.set()
        self.entered = threading.Event()
        self.batches: list[tuple[DecodeItem, ...]] = []

    @property
    @override
    def info(self) -> EngineInfo:
        return self._info

    def hold(self) -> None:
        """Stop every batch at its beginning until ``release``."""
        self._open.clear()
        self.entered.clear()

    def release(self) -> None:
        """Let batches continue."""
        self._open.set()

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
        self.batches.append(tuple(items))
        self.entered.set()
        self._open.wait()
        if self._sleep is not None:
            self._sleep(self._batch_s + self._row_s * len(items))
        if self._memory_rows is not None and len(items) > self._memory_rows:
            raise MemoryError
        for error in filter(None, map(self._fault, items)):
            raise error
        full = self.window_frames(items) == FULL_WINDOW_FRAMES
        return [self._result(item, replace(self._computed_text(item), full_window=full)) for item in items]

    def _computed_text(self, item: DecodeItem) -> Decoded:
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
