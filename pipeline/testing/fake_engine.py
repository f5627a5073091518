"""An engine that knows no speech: what it "hears" is computed from the samples, and it fails on command."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np

from pipeline.asr.engine import (
    FEATURE_SAMPLES,
    FRAMES_PER_SECOND,
    FULL_WINDOW_FRAMES,
    Decoded,
    DecodeItem,
    Features,
    Samples,
)
from pipeline.domain.decoding.transcript import AlignedWord, LanguageDetection, Segment
from pipeline.errors import DecodingFailed
from pipeline.ports import EngineInfo


class FakeEngine:
    """Satisfies ``Engine``, deterministically and at once.

    The text tells the audio apart: ``heard 1f2e3d4c`` for one and the same audio, whatever batch it is in. It detects
    the first of its languages, or the first that is allowed.

    Args:
        info: what it says it is.
        memory_rows: batches of more chunks than this raise ``MemoryError``.
        fault: asked for every item of a batch; an error it returns is raised for the whole batch.
        result: asked for every decoding, and may change it: to loop at temperature 0, to be silent, to refuse it.
        short_windows: whether windows fit the longest chunk (and 2 s), or are always full.
        batch_s: what a batch takes, in seconds; spent by ``sleep``.
        row_s: what each of its chunks adds to that.
        sleep: how it waits; a fake clock's for simulations.

    Attributes:
        batches: all batches it was given, in order, failed ones included.
        entered: set whenever it has begun a batch.
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
    def info(self) -> EngineInfo:
        """What it says it is."""
        return self._info

    def hold(self) -> None:
        """Stops every batch at its beginning until ``release``."""
        self._open.clear()
        self.entered.clear()

    def release(self) -> None:
        """Lets batches through again."""
        self._open.set()

    def prepare(self, samples: Samples) -> Features:
        """The loudness of every 10 ms."""
        frames = len(samples) // FEATURE_SAMPLES
        if frames == 0 or not np.isfinite(samples).all():
            raise DecodingFailed("This stretch of audio can't be decoded.")
        loudness = np.abs(samples[: frames * FEATURE_SAMPLES]).reshape(frames, FEATURE_SAMPLES).mean(axis=1)
        features: Features = loudness.astype(np.float32)[np.newaxis, :]
        return features

    def batch_key(self, item: DecodeItem) -> Hashable:
        """Temperature, beams and the full window where it is asked for, as a real one has it."""
        return item.temperature, item.options.beam_size, len(item.previous_tokens), item.full_window

    def window_frames(self, items: Sequence[DecodeItem]) -> int:
        """The longest item and 2 s of margin, or the full 30 s."""
        if not self._short_windows or any(item.full_window for item in items):
            return FULL_WINDOW_FRAMES
        return min(FULL_WINDOW_FRAMES, max(item.frames for item in items) + 2 * FRAMES_PER_SECOND)

    def decode(self, items: Sequence[DecodeItem]) -> list[Decoded | DecodingFailed]:
        """See ``Engine.decode``."""
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
