"""The waits of one client's clips while another has hours with costly options queued: the real scheduler, simulated.

As ``scheduling``, with replicas that climb the ladder of temperatures for every chunk of the first client, each step as
long as ``decoding_cost`` has it. The other client sends a clip now and then.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from pipeline.asr.batch_cost import CostModel
from pipeline.asr.batch_selection import select_batch
from pipeline.asr.pending_chunk import FREE_DECODINGS
from pipeline.domain.decoding.decoding_cost import fallback_costs, search_width
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.ports import ChunkFailure, EngineInfo, NullMetrics, Unit
from pipeline.settings import DispatchSettings
from pipeline.usecases.dispatch.chunk_scheduler import ChunkScheduler
from pipeline.usecases.dispatch.task_decoding import TaskDecoding
from tests.benchmarks.reports import report
from tests.benchmarks.scheduling import HOP_S, MARGIN_FRAMES, chunks_of
from tests.benchmarks.virtual_time import VirtualClock, run
from tests.support.tables import percentile

PLAIN = TranscriptionOptions(language="en")
DEAR = TranscriptionOptions(language="en", beam_size=20, best_of=20, log_prob_threshold=0.0)
CHUNK_S, HOUR_CHUNKS = 15.0, 240
CLIP_S = 3.0
USUAL = fallback_costs(PLAIN)


@dataclass(slots=True, eq=False)
class Climbing:
    """A chunk in line, with the cost of each decoding that is left."""

    rank: int
    start_tag: float
    number: int
    duration_s: float
    steps: list[float]
    width: int
    done: asyncio.Future[None]
    work: float = 0.0
    excess: float = 0.0
    deferred_until: int = 0

    @property
    def key(self) -> tuple[int, float]:
        return self.width, self.cost_factor

    @property
    def cost_factor(self) -> float:
        return self.steps[0]

    @property
    def frames(self) -> int:
        return max(800, int(self.duration_s * 100) + MARGIN_FRAMES)

    @property
    def order(self) -> tuple[int, float, int]:
        """As ``PendingChunk.order``."""
        return self.rank, self.start_tag + max(self.excess, self.work - FREE_DECODINGS) * self.duration_s, self.number


@dataclass(slots=True)
class SharedReplica:
    """Decodes by waiting."""

    cost: CostModel
    rows: int
    max_batch_s: float
    line: list[Climbing] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    batches: int = 0
    arrivals: int = 0

    async def work(self) -> None:
        while True:
            await self.more.wait()
            while self.line:
                await self._decode()
            self.more.clear()

    async def _decode(self) -> None:
        self.line.sort(key=lambda waiting: waiting.order)
        batch = select_batch(self.line, self.rows, self.max_batch_s, self.cost, self.batches)
        self.line = [waiting for waiting in self.line if waiting not in batch]
        self.batches += 1
        await asyncio.sleep(self.cost.predict(len(batch), max(one.frames for one in batch), batch[0].cost_factor))
        for one in batch:
            usual = USUAL[-len(one.steps)] if len(one.steps) > 1 else one.steps[0]
            one.work += one.steps[0]
            one.excess += max(0.0, one.steps.pop(0) - usual)
            if one.steps:
                self.line.append(one)
            elif not one.done.done():
                one.done.set_result(None)

    def put(self, unit: Unit, duration_s: float) -> asyncio.Future[None]:
        costs = fallback_costs(unit.options)
        climbs = unit.options.log_prob_threshold == 0.0
        width = max(search_width(unit.options, temperature) for temperature in unit.options.temperature)
        self.arrivals += 1
        self.line.append(
            Climbing(
                unit.priority_rank,
                unit.start_tag,
                self.arrivals,
                duration_s,
                list(costs if climbs else costs[:1]),
                width,
                asyncio.get_running_loop().create_future(),
            )
        )
        self.more.set()
        return self.line[-1].done


class SharedFleet:
    """``ports.Transcriber`` over replicas that wait."""

    def __init__(self, replicas: Sequence[SharedReplica]) -> None:
        self._replicas = replicas
        self._random = random.Random(1)

    async def transcribe(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        replica = min((self._random.choice(self._replicas) for _ in range(2)), key=lambda one: len(one.line))
        yield ()
        await asyncio.sleep(HOP_S)
        chunks = {replica.put(unit, chunk.duration_s): chunk for chunk in unit.chunks}
        while chunks:
            done, _ = await asyncio.wait(chunks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(HOP_S)
            finished = [chunks.pop(one) for one in done]
            attempts = len(fallback_costs(unit.options)) if unit.options is DEAR else 1
            yield [ChunkResult(one.index, one.duration_s, (), "en", None, attempts) for one in finished]

    async def describe(self) -> EngineInfo:
        return EngineInfo("waiting", "waiting", "cpu", "int8", ("en",), self._replicas[0].rows)

    async def replica_count(self) -> int:
        return len(self._replicas)


def decoding(number: int, client: str, options: TranscriptionOptions) -> TaskDecoding:
    async def deliver(_: Sequence[ChunkResult]) -> None:
        return None

    return TaskDecoding(
        task_id=number,
        media_prefix=str(number),
        options=options,
        priority_rank=1,
        deliver=deliver,
        client=client,
        language="en",
    )


async def clip(scheduler: ChunkScheduler, clock: VirtualClock, number: int) -> float:
    """Return the seconds until a clip is decoded."""
    began = clock.monotonic()
    one = decoding(number, "clips", PLAIN)
    scheduler.open(one, None)
    scheduler.add(one, chunks_of([CLIP_S]))
    one.complete_input()
    await one.done
    scheduler.close(number)
    return clock.monotonic() - began


async def simulate(count: int, hours: int, options: TranscriptionOptions, chosen: argparse.Namespace) -> list[float]:
    """Return the seconds of each clip."""
    clock = VirtualClock()
    per_frame_s = 1 / chosen.rtfx / 100 / (1 + MARGIN_FRAMES / 100 / CHUNK_S)
    replicas = [SharedReplica(CostModel(0.3, per_frame_s), 8, 4.0) for _ in range(count)]
    scheduler = ChunkScheduler(SharedFleet(replicas), clock, DispatchSettings(unit_deadline_s=1e6), NullMetrics())
    working = [asyncio.create_task(replica.work()) for replica in replicas]
    scheduling = asyncio.create_task(scheduler.run())
    await asyncio.sleep(1.0)
    for number in range(hours):
        one = decoding(number, "hours", options)
        scheduler.open(one, None)
        scheduler.add(one, chunks_of([CHUNK_S] * HOUR_CHUNKS))
    await asyncio.sleep(chosen.lead)
    clips = []
    for number in range(chosen.clips):
        clips.append(asyncio.create_task(clip(scheduler, clock, hours + number)))
        await asyncio.sleep(chosen.pause)
    seconds = await asyncio.gather(*clips)
    for task in [scheduling, *working]:
        task.cancel()
    await asyncio.gather(scheduling, *working, return_exceptions=True)
    return list(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--hours", type=int, default=64, help="recordings of an hour that the other client has running")
    parser.add_argument("--rtfx", type=float, default=30.0, help="of a replica, with default options")
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--pause", type=float, default=17.0, help="seconds between clips")
    parser.add_argument("--lead", type=float, default=300.0, help="seconds that the other client has the fleet alone")
    chosen = parser.parse_args()
    rows = []
    for count in chosen.replicas:
        for name, hours, options in (
            ("idle", 0, PLAIN),
            ("defaults", chosen.hours, PLAIN),
            ("dear", chosen.hours, DEAR),
        ):
            seconds = run(simulate(count, hours, options, chosen))
            rows.append([str(count), name, *(f"{percentile(seconds, part):.1f} s" for part in (50, 95, 100))])
    report(
        f"Clips of {CLIP_S:.0f} s beside {chosen.hours} hours of another client",
        ["replicas", "the hours' options", "p50", "p95", "longest"],
        rows,
    )


if __name__ == "__main__":
    main()
