"""The Dispatcher's scheduling at scale: the real chunk queue and batch forming over replicas that only wait.

Time is simulated, CPU time is not: what the scheduler spends on a chunk is real. A replica takes
``overhead + rows × frames × rate`` seconds for a batch, as the batcher's own cost model has it; units reach replicas as
Serve sends them, to the less busy of two. One 10-hour file and 1,000 files of 1 to 15 s arrive at once, or as many
times that as ``--load`` says.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from pipeline.asr.batch_cost import CostModel
from pipeline.asr.batch_selection import select_batch
from pipeline.domain.audio.spans import SAMPLE_RATE, Chunk, Span
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.ports import ChunkFailure, EngineInfo, NullMetrics, Unit
from pipeline.settings import DispatchSettings
from pipeline.usecases.dispatch.chunk_scheduler import ChunkScheduler
from pipeline.usecases.dispatch.task_decoding import TaskDecoding
from tests.benchmarks.reports import report
from tests.benchmarks.virtual_time import VirtualClock, run
from tests.support.tables import percentile

CHUNK_S = 15.0
MARGIN_FRAMES = 200
HOP_S = 0.005
LONG_S, SHORT_FILES = 36_000.0, 1_000
LAST_MINUTE_S = 60.0


@dataclass(slots=True, eq=False)
class QueuedChunk:
    """A chunk in line at a replica."""

    rank: int
    start_tag: float
    frames: int
    done: asyncio.Future[None]
    key: int = 0
    deferred_until: int = 0
    cost_factor: float = 1.0
    width: int = 5


@dataclass(slots=True)
class Replica:
    """Decodes by waiting."""

    cost: CostModel
    rows: int
    max_batch_s: float
    units: int = 0
    line: list[QueuedChunk] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    batches: list[tuple[float, float]] = field(default_factory=list)

    async def work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self.more.wait()
            while self.line:
                self.line.sort(key=lambda waiting: (waiting.rank, waiting.start_tag))
                batch = select_batch(self.line, self.rows, self.max_batch_s, self.cost, len(self.batches))
                self.line = [waiting for waiting in self.line if waiting not in batch]
                began = loop.time()
                await asyncio.sleep(self.cost.predict(len(batch), max(one.frames for one in batch)))
                self.batches.append((began, loop.time()))
                for one in batch:
                    if not one.done.done():
                        one.done.set_result(None)
            self.more.clear()

    def busy_until(self, end_s: float) -> float:
        return sum(max(0.0, min(end, end_s) - began) for began, end in self.batches)


class Fleet:
    """``ports.Transcriber`` over replicas that wait."""

    def __init__(self, replicas: Sequence[Replica], seed: int) -> None:
        self._replicas = replicas
        self._random = random.Random(seed)

    async def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        candidates = [self._random.choice(self._replicas) for _ in range(2)]
        replica = min(candidates, key=lambda one: one.units)
        replica.units += 1
        await asyncio.sleep(HOP_S)
        loop = asyncio.get_running_loop()
        chunks = {}
        for chunk in unit.chunks:
            frames = max(1_000, int(chunk.duration_s * 100) + MARGIN_FRAMES)
            waiting = QueuedChunk(unit.priority_rank, unit.start_tag, frames, loop.create_future())
            replica.line.append(waiting)
            chunks[waiting.done] = chunk
        replica.more.set()
        try:
            while chunks:
                done, _ = await asyncio.wait(chunks, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(HOP_S)
                finished = [chunks.pop(one) for one in done]
                yield [ChunkResult(one.index, one.duration_s, (), "en", None) for one in finished]
        finally:
            replica.units -= 1

    async def describe(self) -> EngineInfo:
        return EngineInfo("waiting", "waiting", "cuda", "float16", ("en",), self._replicas[0].rows)

    async def replica_count(self) -> int:
        return len(self._replicas)


@dataclass(frozen=True, slots=True)
class SimulationOutcome:
    """One simulation: seconds until all is done, until each file is, and what the scheduler itself took."""

    took_s: float
    short_s: list[float]
    busy: float
    busy_before_end: float
    cpu_s: float
    chunks: int


def main() -> None:
    chosen = arguments().parse_args()
    rows, first = [], None
    for replicas in map(int, chosen.replicas.split(",")):
        outcome = run(simulate(replicas, chosen))
        first = first or (replicas, outcome.took_s)
        rows.append(row(replicas, outcome, speed_up=first[0] * first[1] / outcome.took_s))
    headers = [
        "replicas",
        "all done",
        "speed-up",
        "busy",
        f"busy, all but the last {LAST_MINUTE_S:.0f} s",
        "short files p50 / p95",
    ]
    fleet = f"replicas of {chosen.rtfx:.0f} RTFx, batches of {chosen.rows}"
    title = f"{chosen.load} × (10 h + {SHORT_FILES} short files), {fleet}"
    report(title, [*headers, "Dispatcher CPU a chunk"], rows)


def arguments() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--replicas", default="1,8,64,256", help="fleets to simulate, in order")
    options.add_argument("--load", type=int, default=1, help="how many times the files")
    options.add_argument("--rtfx", type=float, default=200.0, help="of one replica with full batches of whole chunks")
    options.add_argument("--overhead", type=float, default=0.05, help="seconds of a batch, however small")
    options.add_argument("--rows", type=int, default=16, help="chunks in a batch at most")
    options.add_argument("--max-batch-s", type=float, default=4.0, help="predicted seconds of a batch at most")
    return options


def row(replicas: int, outcome: SimulationOutcome, speed_up: float) -> list[str]:
    return [
        str(replicas),
        f"{outcome.took_s:.1f} s",
        f"{speed_up:.1f} ({100 * speed_up / replicas:.0f} %)",
        f"{100 * outcome.busy:.1f} %",
        f"{100 * outcome.busy_before_end:.1f} %" if outcome.took_s > LAST_MINUTE_S else "",
        f"{percentile(outcome.short_s, 50):.1f} / {percentile(outcome.short_s, 95):.1f} s",
        f"{1000 * outcome.cpu_s / outcome.chunks:.2f} ms",
    ]


async def simulate(count: int, chosen: argparse.Namespace) -> SimulationOutcome:
    """Run one fleet over the whole load."""
    clock = VirtualClock()
    batch_s = chosen.rows * CHUNK_S / chosen.rtfx
    per_frame_s = (batch_s - chosen.overhead) / (chosen.rows * (CHUNK_S * 100 + MARGIN_FRAMES))
    cost = CostModel(chosen.overhead, per_frame_s)
    replicas = [Replica(cost, chosen.rows, chosen.max_batch_s) for _ in range(count)]
    scheduler = ChunkScheduler(Fleet(replicas, seed=count), clock, DispatchSettings(), NullMetrics())
    working = [asyncio.create_task(replica.work()) for replica in replicas]
    scheduling = asyncio.create_task(scheduler.run())
    await asyncio.sleep(1.0)  # the fleet has been counted
    began, cpu = clock.monotonic(), time.process_time()
    ends = await asyncio.gather(*(decode(scheduler, clock, number, chunks) for number, chunks in files(chosen.load)))
    cpu_s, took_s = time.process_time() - cpu, clock.monotonic() - began
    for task in [scheduling, *working]:
        task.cancel()
    await asyncio.gather(scheduling, *working, return_exceptions=True)
    return SimulationOutcome(
        took_s=took_s,
        short_s=[end - began for end, chunks in ends if chunks == 1],
        busy=busy(replicas, began, took_s),
        busy_before_end=busy(replicas, began, took_s - LAST_MINUTE_S),
        cpu_s=cpu_s,
        chunks=sum(chunks for _, chunks in ends),
    )


def busy(replicas: Sequence[Replica], began: float, seconds: float) -> float:
    return sum(replica.busy_until(began + seconds) for replica in replicas) / (seconds * len(replicas))


def files(load: int) -> list[tuple[int, list[float]]]:
    """Return the lengths of each file's chunks."""
    source = random.Random(1)
    made: list[list[float]] = []
    for _ in range(load):
        made.append([source.uniform(0.8, 1.0) * CHUNK_S for _ in range(int(LONG_S / CHUNK_S / 0.9))])
        made += ([source.uniform(1.0, 15.0)] for _ in range(SHORT_FILES))
    return list(enumerate(made))


async def decode(
    scheduler: ChunkScheduler, clock: VirtualClock, number: int, lengths: Sequence[float]
) -> tuple[float, int]:
    """Queue a file's chunks and wait for all of them; return the time of the end and their number."""

    async def deliver(_: Sequence[ChunkResult]) -> None:
        return None

    decoding = TaskDecoding(
        task_id=number, media_prefix=str(number), options=OPTIONS, priority_rank=1, deliver=deliver, language="en"
    )
    scheduler.open(decoding, None)
    scheduler.add(decoding, chunks_of(lengths))
    decoding.complete_input()
    await decoding.done
    scheduler.close(number)
    return clock.monotonic(), len(lengths)


OPTIONS = TranscriptionOptions(language="en")


def chunks_of(lengths: Sequence[float]) -> list[Chunk]:
    position, made = 0, []
    for index, seconds in enumerate(lengths):
        end = position + int(seconds * SAMPLE_RATE)
        made.append(Chunk(index, 0, 0, (Span(position, end),)))
        position = end
    return made


if __name__ == "__main__":
    main()
