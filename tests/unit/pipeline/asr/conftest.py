from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pipeline.asr.batcher import MicroBatcher
from pipeline.asr.engine import DecodeItem
from pipeline.asr.pending_chunk import PendingChunk
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.settings import BatchSettings
from pipeline.testing.fake_engine import FakeEngine

Start = Callable[..., MicroBatcher]


@pytest.fixture
def start() -> Iterator[Start]:
    """A factory of batchers, which do not wait for further chunks by default; they are closed at the end."""
    pairs: list[tuple[FakeEngine, MicroBatcher]] = []

    def make(engine: FakeEngine, *, running: bool = True, metrics=None, **settings: float) -> MicroBatcher:
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

    def make(mark: int = 0, seconds: float = 5.0, language: str | None = "en", **options: object) -> DecodeItem:
        features = np.full((1, round(seconds * 100)), mark, dtype=np.float32)
        chosen = TranscriptionOptions(**options)
        return DecodeItem(features=features, options=chosen, language=language, temperature=chosen.temperature[0])

    return make


@pytest.fixture
def submit(item) -> Callable[..., list[PendingChunk]]:
    """A function that submits such items to a batcher, one for each mark."""

    def run(batcher: MicroBatcher, *marks: int, rank: int = 1, age: float = 0.0, **rest: object) -> list[PendingChunk]:
        return batcher.submit([item(mark, **rest) for mark in marks], rank=rank, start_tag=age)

    return run
