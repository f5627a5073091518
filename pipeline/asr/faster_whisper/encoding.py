"""What the encoder made of audio, kept by the row: a chunk that is decoded again need not be encoded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ctranslate2
import numpy as np
import numpy.typing as npt
from faster_whisper import WhisperModel
from faster_whisper.transcribe import get_ctranslate2_storage

from pipeline.asr.engine import Features

SILENCE_BELOW_PEAK = 2.0
"""How far digital silence lies below the loudest point of a log-mel spectrogram.

Whisper cuts spectrograms off at eight decades of power below their peak and divides by four (`log_mel_spectrogram` of
openai/whisper), so that is where audio of zeros ends up.
"""

DIGITAL_SILENCE = -1.5
"""Where it ends up beside audio so quiet that the cut lies lower: power is taken for at least 1e-10."""

ROWS_PER_CALL = {"cpu": 1}
"""Rows encoded in one call, by device; elsewhere all of them.

A CPU encodes eight windows of 17 s (`base`, int8, two cores) in 2.6 s together and in 1.7 s one by one: what a layer
works on then stays in its cache. ``python -m tests.benchmarks.encoder`` measures it.
"""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRow:
    """One row of an encoder's output; it keeps the rest of its batch alive.

    Attributes:
        storage: shape ``(rows, positions, dimensions)``.
        row: which one it is.
        frames: feature frames that were encoded, padding included.
    """

    storage: ctranslate2.StorageView
    row: int
    frames: int


def encode(model: WhisperModel, features: Sequence[Features], frames: int) -> list[EncodedRow]:
    """Encode each in a window of ``frames``; what is longer is cut."""
    padded = [pad(one, frames) for one in features]
    step = ROWS_PER_CALL.get(model.model.device, max(1, len(padded)))
    rows: list[EncodedRow] = []
    for start in range(0, len(padded), step):
        storage = model.encode(np.stack(padded[start : start + step]))
        rows += (EncodedRow(storage, row, frames) for row in range(storage.shape[0]))
    return rows


def pad(features: Features, frames: int) -> Features:
    """Return features in a window of ``frames``, the rest of which is silent.

    The model has learnt to end a transcript in silence. faster-whisper fills the window with zeros, which in a
    normalised spectrogram are a hiss, only some 15 dB below quiet speech: in a window of 10 s the model then takes it
    for a speaker who goes on, and stops in the middle of a sentence.

    Args:
        features: shape ``(channels, n)``.
        frames: length of the window.
    """
    silence = max(features.max() - SILENCE_BELOW_PEAK, DIGITAL_SILENCE)
    window = np.full((features.shape[0], frames), silence, np.float32)
    used = min(frames, features.shape[1])
    window[:, :used] = features[:, :used]
    return window


def stacked(rows: Sequence[EncodedRow]) -> ctranslate2.StorageView:
    """Equally long rows as one batch; by way of the host unless they are one already, since CTranslate2 can't slice."""
    storage = rows[0].storage
    if len(rows) == storage.shape[0] and all(one.storage is storage and one.row == at for at, one in enumerate(rows)):
        return storage
    return get_ctranslate2_storage(np.concatenate([_on_host(one) for one in rows]))


def _on_host(one: EncodedRow) -> npt.NDArray[np.generic]:
    storage = one.storage
    if storage.device != "cpu":
        storage = storage.to_device(ctranslate2.Device.cpu)
    return np.array(storage)[one.row : one.row + 1]
