"""Fair sharing between recordings that are split at the same time, block by block, with decoders that only count."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import pytest

from pipeline.domain.audio.sound_options import SoundOptions
from pipeline.domain.audio.speech import Samples
from pipeline.domain.audio.tracks import Track
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.media.streaming_splitter import StreamingSplitter
from pipeline.ports import SplitDone, SplitRequest
from pipeline.settings import SplitSettings, VadSettings
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_media import MemoryMediaStore
from tests.support.recordings import stream
from tests.support.thoroughness import examples
from tests.unit.pipeline.media.test_streaming_splitter import no_activity

BLOCK = np.zeros(16_000, np.int16)


class Meter:
    """A counter of the recordings that are worked on at the same moment."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    @contextmanager
    def working(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1


@dataclass
class CountingDecoder:
    """A decoder of as many blocks as the recording states; each block is logged under the recording's name."""

    name: str
    blocks_left: int
    log: list[str]
    meter: Meter
    truncated: bool = False
    tracks: tuple[Track, ...] = ()
    open_gate: threading.Event | None = None

    def blocks(self) -> Generator[Samples]:
        for _ in range(self.blocks_left):
            if self.open_gate is not None:
                self.open_gate.wait(5.0)
            with self.meter.working():
                time.sleep(0.0001)
                self.log.append(self.name)
            yield BLOCK


class WorkClock(ManualClock):
    """A clock that advances with each block, so that every block has the same cost on a busy machine too."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self._log = log

    def monotonic(self) -> float:
        return 0.001 * len(self._log)


@dataclass
class Splits:
    """A splitter with one turn at a time, and its recordings."""

    concurrency: int = 1
    hangs: set[str] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    store: MemoryMediaStore = field(default_factory=MemoryMediaStore)
    gate: threading.Event = field(default_factory=threading.Event)
    meter: Meter = field(default_factory=Meter)

    def __post_init__(self) -> None:
        settings = SplitSettings(concurrency=self.concurrency)
        clock = WorkClock(self.log)
        self.splitter = StreamingSplitter(self.store, no_activity, VadSettings(), settings, self._decoder, clock)

    def _decoder(self, file: BinaryIO, _: SoundOptions) -> CountingDecoder:
        name, blocks = file.read().decode().split()
        return CountingDecoder(
            name, int(blocks), self.log, self.meter, open_gate=self.gate if name in self.hangs else None
        )

    async def split(self, name: str, blocks: int, *, client: str, rank: int = 1) -> SplitDone:
        await self.store.write(f"{name}/source", stream(f"{name} {blocks}".encode()))
        options = TranscriptionOptions(vad_filter=False)
        request = SplitRequest(1, f"{name}/source", name, options, 15.0, priority_rank=rank, share_key=client)
        *_, done = [event async for event in self.splitter.split(request)]
        assert isinstance(done, SplitDone)
        return done

    def begin(self, name: str, blocks: int, *, client: str, rank: int = 1) -> asyncio.Task[SplitDone]:
        return asyncio.create_task(self.split(name, blocks, client=client, rank=rank))

    async def under_way(self, *names: str, blocks: int = 1) -> None:
        async with asyncio.timeout(20):
            while not set(names) <= set(self.log) or len(self.log) < blocks:
                await asyncio.sleep(0.001)


async def stop(*tasks: asyncio.Task[SplitDone]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


ENDLESS = 1_000_000


@pytest.mark.parametrize(
    ("client", "rank"), [("other", 0), ("other", 1), ("same", 0), ("same", 1)], ids=lambda value: str(value)
)
async def test_a_short_recording_is_through_in_its_own_few_blocks(client: str, rank: int) -> None:
    splits = Splits()
    long = [splits.begin(f"long{number}", ENDLESS, client="same") for number in range(10)]
    await splits.under_way(*(f"long{number}" for number in range(10)), blocks=examples(600))
    began = len(splits.log)
    done = await splits.split("clip", 3, client=client, rank=rank)
    ended = max(place for place, name in enumerate(splits.log) if name == "clip") + 1
    await stop(*long)
    assert done.duration_s == 3.0
    others = [name for name in splits.log[began:ended] if name != "clip"]
    assert len(others) <= 15, Counter(others)


async def test_clients_share_the_blocks_evenly_however_many_recordings_each_has() -> None:
    splits = Splits()
    many = [splits.begin(f"many{number}", ENDLESS, client="many") for number in range(8)]
    await splits.under_way(*(f"many{number}" for number in range(8)))
    one = splits.begin("one", ENDLESS, client="one")
    await splits.under_way("one")
    began = len(splits.log)
    await splits.under_way(blocks=began + 200)
    taken = splits.log[began : began + 200]
    await stop(one, *many)
    assert 50 <= taken.count("one") <= 150  # by time, not by blocks


async def test_a_recording_whose_storage_hangs_does_not_keep_the_turn() -> None:
    splits = Splits(hangs={"hangs"})
    hanging = splits.begin("hangs", 1, client="a", rank=0)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await splits.split("clip", 3, client="b", rank=2)
    assert not hanging.done()
    splits.gate.set()
    assert (await hanging).duration_s == 1.0


async def test_as_many_are_worked_on_at_once_as_the_settings_say() -> None:
    splits = Splits(concurrency=2)
    async with asyncio.timeout(10):
        await asyncio.gather(*(splits.split(f"r{number}", 5, client=f"c{number}") for number in range(12)))
    assert splits.meter.most == 2
