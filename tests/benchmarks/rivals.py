"""faster-whisper itself, in this process, the two ways its users run it, with its own defaults."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faster_whisper import BatchedInferencePipeline, WhisperModel

from pipeline.asr.model_files import resolve
from tests.support import speech

BATCH_SIZE = 8
"""What ``BatchedInferencePipeline`` decodes together; its own default."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A transcript: its text and the (start, end) of its segments, or words, in seconds."""

    text: str
    spans: tuple[tuple[float, float], ...]


class Rival:
    """One loaded model."""

    def __init__(self, model: WhisperModel) -> None:
        self._model = model
        self._batched = BatchedInferencePipeline(model)

    def plain(self, path: Path, language: str | None) -> Heard:
        """``WhisperModel.transcribe``."""
        segments, _ = self._model.transcribe(str(path), language=language)
        return _heard(segments)

    def plain_segments(self, path: Path, language: str | None, *, words: bool = False) -> Iterable[Any]:
        """Yield the segments of ``WhisperModel.transcribe`` with its VAD filter, as they are decoded."""
        segments, _ = self._model.transcribe(str(path), language=language, vad_filter=True, word_timestamps=words)
        return segments

    def batched(self, path: Path, language: str | None, *, words: bool = False) -> Heard:
        """``BatchedInferencePipeline.transcribe``, with times of segments, as a service must have, or words."""
        return _heard(self.batched_segments(path, language, words=words), words=words)

    def batched_segments(self, path: Path, language: str | None, *, words: bool = False) -> Iterable[Any]:
        """Yield the segments of ``BatchedInferencePipeline.transcribe``, as they are decoded."""
        segments, _ = self._batched.transcribe(
            str(path), language=language, batch_size=BATCH_SIZE, without_timestamps=False, word_timestamps=words
        )
        return segments


def load_rival(model: str, compute_type: str, threads: int) -> Rival:
    """Load a model by the names and folders that the service knows, on the CPU, and decode once to warm it up."""
    folder = str(resolve(model).path)
    rival = Rival(WhisperModel(folder, device="cpu", compute_type=compute_type, cpu_threads=threads))
    rival.plain(speech.corpus()[0].path, "en")
    return rival


def _heard(segments: Iterable[Any], *, words: bool = False) -> Heard:
    finished = list(segments)
    text = " ".join(segment.text.strip() for segment in finished)
    timed = [word for segment in finished for word in segment.words] if words else finished
    return Heard(text, tuple((one.start, one.end) for one in timed))
