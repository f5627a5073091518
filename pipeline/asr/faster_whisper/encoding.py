"""The encoder's output, kept row by row, so that a chunk that is decoded again need not be encoded again."""

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
"""Distance of digital silence from the peak of a log-mel spectrogram.

Whisper clips spectrograms at eight decades of power below their peak and divides by four (`log_mel_spectrogram` of
openai/whisper), so audio of zeros has this value.
"""

DIGITAL_SILENCE = -1.5
"""Value of digital silence beside audio so quiet that the clip is lower: power counts as at least 1e-10."""

ROWS_PER_CALL = {"cpu": 1}
"""Rows encoded in one call, by device; on other devices, all of them.

A CPU encodes eight windows of 17 s (`base`, int8, two cores) in 2.6 s together and in 1.7 s one by one, since the
activations of one row stay in its cache. ``python -m tests.benchmarks.encoder`` measures it.
"""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRow:
    """One row of the encoder's output. It keeps the rows of its whole batch in memory.

    Attributes:
        storage: output of the batch, shape ``(rows, positions, dimensions)``.
        row: index of the row.
        frames: feature frames that were encoded, padding included.
    """

    storage: ctranslate2.StorageView
    row: int
    frames: int


def encode(model: WhisperModel, features: Sequence[Features], frames: int) -> list[EncodedRow]:
    """Encode each item's features in a window of ``frames``; longer features are cut."""
    padded = [pad(one, frames) for one in features]
    step = ROWS_PER_CALL.get(model.model.device, max(1, len(padded)))
    rows: list[EncodedRow] = []
    for start in range(0, len(padded), step):
        storage = model.encode(np.stack(padded[start : start + step]))
        rows += (EncodedRow(storage, row, frames) for row in range(storage.shape[0]))
    return rows


def pad(features: Features, frames: int) -> Features:
    """Return features in a window of ``frames``, padded with silence.

    The model has learnt to end a transcript in silence. faster-whisper pads with zeros, which in a normalised
    spectrogram are noise only some 15 dB below quiet speech. In a window of 10 s the model then expects more speech,
    and stops in the middle of a sentence.

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
    """Return equally long rows as one batch.

    Unless the rows already are one batch in this order, they are copied through the host, since CTranslate2 can't slice
    its arrays.
    """
    storage = rows[0].storage
    if len(rows) == storage.shape[0] and all(one.storage is storage and one.row == at for at, one in enumerate(rows)):
        return storage
    return get_ctranslate2_storage(np.concatenate([_on_host(one) for one in rows]))


def _on_host(one: EncodedRow) -> npt.NDArray[np.generic]:
    storage = one.storage
    if storage.device != "cpu":
        storage = storage.to_device(ctranslate2.Device.cpu)
    return np.array(storage)[one.row : one.row + 1]
