from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pipeline.asr.batcher import DecodeRequest, MicroBatcher
from pipeline.asr.engine import DecodeItem
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.settings import BatchSettings
from pipeline.testing.fake_engine import FakeEngine
from pipeline.testing.recording_metrics import RecordingMetrics


@pytest.fixture
def start() -> Iterator[Callable[..., MicroBatcher]]:
    """A factory of batchers, which do not wait for further chunks by default; they are closed at the end."""
    pairs: list[tuple[FakeEngine, MicroBatcher]] = []

    def make(
        engine: FakeEngine, *, running: bool = True, metrics: RecordingMetrics | None = None, **settings: Any
    ) -> MicroBatcher:
        chosen = BatchSettings(**{"batch_wait_s": 0, **settings})
        # The clock stands still: every batch costs nothing, so that costs decide nothing in a test.
        batcher = MicroBatcher(engine, chosen, clock=lambda: 0.0, metrics=metrics)
        pairs.append((engine, batcher))
        return batcher.start() if running else batcher

    yield make
    for engine, batcher in pairs:
        engine.resume()
        batcher.close()


@pytest.fixture
def item() -> Callable[..., DecodeItem]:
    """A factory of items that differ in their audio, ``seconds`` long."""

    def make(mark: int = 0, seconds: float = 5.0, language: str | None = "en", **options: Any) -> DecodeItem:
        features = np.full((1, round(seconds * 100)), mark, dtype=np.float32)
        chosen = TranscriptionOptions(**options)
        return DecodeItem(features=features, options=chosen, language=language, temperature=chosen.temperature[0])

    return make


@pytest.fixture
def request_of(item: Callable[..., DecodeItem]) -> Callable[..., DecodeRequest]:
    """A factory of requests for such items."""

    def make(mark: int = 0, *, task_id: int = 1, rank: int = 1, age: float = 0.0, **rest: object) -> DecodeRequest:
        return DecodeRequest(task_id, item(mark, **rest), rank, age)

    return make
