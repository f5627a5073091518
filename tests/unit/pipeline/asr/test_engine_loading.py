import pytest

from pipeline.asr import engine_loading
from pipeline.asr.faster_whisper import cuda


@pytest.mark.parametrize(
    ("wanted", "gpus", "device"),
    [("auto", 0, "cpu"), ("auto", 1, "cuda"), ("cpu", 1, "cpu"), ("cuda", 2, "cuda")],
)
def test_the_device_is_what_is_wanted_and_there(
    monkeypatch: pytest.MonkeyPatch, wanted: str, gpus: int, device: str
) -> None:
    monkeypatch.setattr(cuda, "cuda_device_count", lambda: gpus)
    assert engine_loading.available_device(wanted) == device


def test_a_gpu_that_is_not_there_is_replaced_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cuda, "cuda_device_count", lambda: 0)
    assert engine_loading.available_device("cuda") == "cpu"
    assert "decoding on the CPU" in caplog.text
