"""What the encoder made of audio, kept by the row: a chunk that is decoded again need not be encoded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ctranslate2
import numpy as np
import numpy.typing as npt
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.transcribe import get_ctranslate2_storage

from pipeline.asr.engine import Features

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
    """Encodes each in a window of ``frames``; what is longer is cut."""
    padded = [pad_or_trim(one, frames) for one in features]
    step = ROWS_PER_CALL.get(model.model.device, max(1, len(padded)))
    rows: list[EncodedRow] = []
    for start in range(0, len(padded), step):
        storage = model.encode(np.stack(padded[start : start + step]))
        rows += (EncodedRow(storage, row, frames) for row in range(storage.shape[0]))
    return rows


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
