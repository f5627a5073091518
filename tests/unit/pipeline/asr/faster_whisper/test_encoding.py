import ctranslate2
import numpy as np
import numpy.typing as npt
import pytest
from ctranslate2 import StorageView
from faster_whisper.feature_extractor import FeatureExtractor

from pipeline.asr.faster_whisper.encoding import EncodedRow, encode, pad, stacked


class MeanModel:
    """The part of a ``WhisperModel`` that encoding needs: it encodes a window to its mean and records its calls."""

    def __init__(self, device: str) -> None:
        self.model = self
        self.device = device
        self.calls: list[tuple[int, ...]] = []

    def encode(self, features: npt.NDArray[np.float32]) -> StorageView:
        self.calls.append(features.shape)
        return ctranslate2.StorageView.from_array(features.mean(axis=(1, 2), keepdims=True))


def row(storage: StorageView, at: int) -> EncodedRow:
    return EncodedRow(storage, at, 100)


@pytest.fixture
def features() -> list[npt.NDArray[np.float32]]:
    return [np.full((80, length), value, np.float32) for length, value in ((100, 1.0), (50, 2.0), (200, 3.0))]


def values(storage: StorageView) -> list[float]:
    return np.array(storage).flatten().tolist()


@pytest.mark.parametrize(("device", "rows_per_call"), [("cpu", 1), ("cuda", 3)])
def test_a_cpu_encodes_row_by_row_and_a_gpu_all_at_once(
    features: list[npt.NDArray[np.float32]], device: str, rows_per_call: int
) -> None:
    model = MeanModel(device)
    rows = encode(model, features, 100)
    assert set(model.calls) == {(rows_per_call, 80, 100)}
    assert [one.frames for one in rows] == [100, 100, 100]
    assert values(stacked(rows)) == [
        1.0,
        1.0,
        3.0,
    ]  # the second is half silence, 2 below it; the third is cut


@pytest.mark.parametrize("gain", [1.0, 0.01, 1e-3, 1e-4])
def test_a_window_is_filled_with_what_audio_of_zeros_would_be(gain: float) -> None:
    extract = FeatureExtractor()
    tone = (gain * np.sin(np.arange(16_000) / 5)).astype(np.float32)
    whole = extract(np.concatenate([tone, np.zeros(16_000, np.float32)]))[:, :200]
    filled = pad(extract(tone)[:, :99], 200)
    assert np.abs(filled[:, 105:] - whole[:, 105:]).max() < 1e-4


def test_nothing_is_encoded_where_nothing_is_asked() -> None:
    model = MeanModel("cuda")
    assert encode(model, [], 100) == []
    assert model.calls == []


def test_a_whole_batch_is_not_copied() -> None:
    storage = ctranslate2.StorageView.from_array(np.zeros((2, 3, 4), np.float32))
    assert stacked([row(storage, 0), row(storage, 1)]) is storage


def test_rows_of_different_batches_are_stacked_in_the_order_asked_for() -> None:
    one = ctranslate2.StorageView.from_array(np.array([[[1.0]], [[2.0]]], np.float32))
    other = ctranslate2.StorageView.from_array(np.array([[[3.0]]], np.float32))
    assert values(stacked([row(one, 1), row(other, 0), row(one, 0)])) == [2.0, 3.0, 1.0]
    assert values(stacked([row(one, 1)])) == [2.0]
    assert values(stacked([row(one, 1), row(one, 0)])) == [2.0, 1.0]
