import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.errors import AttemptsExhausted, DecodingFailed
from pipeline.ports import NullMetrics
from pipeline.settings import DispatchSettings
from pipeline.testing.fake_splitter import make_chunks
from pipeline.testing.fake_transcriber import FakeTranscriber
from pipeline.usecases.dispatch.chunk_scheduler import ChunkScheduler
from pipeline.usecases.dispatch.task_decoding import TaskDecoding
from tests.support.clocks import QuickClock

OPTIONS = TranscriptionOptions()
DEAR = TranscriptionOptions(beam_size=20, best_of=20, log_prob_threshold=0.0)


class Job:
    """A decoding whose results are kept in a list."""

    def __init__(
        self, task_id: int, rank: int = 1, client: str | None = None, options: TranscriptionOptions = OPTIONS
    ) -> None:
        self.results: list[int] = []
        self.decoding = TaskDecoding(
            task_id=task_id,
            media_prefix=f"t{task_id}",
            options=options,
            client=client,
            priority_rank=rank,
            deliver=self._keep,
            language="en",
        )

    async def _keep(self, results: Sequence[ChunkResult]) -> None:
        self.results.extend(result.index for result in results)

    async def done(self) -> list[int]:
        await asyncio.wait_for(self.decoding.done, 5)
        return sorted(self.results)


@asynccontextmanager
async def scheduling(fleet: FakeTranscriber, **settings: float) -> AsyncIterator[ChunkScheduler]:
    scheduler = ChunkScheduler(fleet, QuickClock(), DispatchSettings(**settings), NullMetrics())
    running = asyncio.create_task(scheduler.run())
    yield scheduler
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def start(scheduler: ChunkScheduler, job: Job, chunks: Sequence[Chunk], max_in_flight: int | None = None) -> Job:
    scheduler.open(job.decoding, max_in_flight)
    scheduler.add(job.decoding, chunks)
    job.decoding.complete_input()
    return job


async def test_every_chunk_comes_back_once() -> None:
    async with scheduling(FakeTranscriber()) as scheduler:
        jobs = [start(scheduler, Job(number), make_chunks(20)) for number in range(3)]
        assert [await job.done() for job in jobs] == [list(range(20))] * 3


async def test_a_task_without_chunks_is_done_without_the_model() -> None:
    fleet = FakeTranscriber()
    async with scheduling(fleet) as scheduler:
        assert await start(scheduler, Job(1), ()).done() == []
    assert fleet.units == []


async def test_one_chunk_at_a_time_where_the_task_asks_for_it() -> None:
    fleet = FakeTranscriber()
    async with scheduling(fleet) as scheduler:
        await start(scheduler, Job(1), make_chunks(4), max_in_flight=1).done()
    assert [[chunk.index for chunk in unit.chunks] for unit in fleet.units] == [[0], [1], [2], [3]]


async def test_chunks_of_a_lost_replica_are_sent_again_together() -> None:
    fleet = FakeTranscriber()
    fleet.poison[1, 2] = 1
    async with scheduling(fleet) as scheduler:
        assert await start(scheduler, Job(1), make_chunks(6)).done() == list(range(6))
    assert [[chunk.index for chunk in unit.chunks] for unit in fleet.units] == [[0, 1, 2, 3, 4, 5], [2, 3, 4, 5]]


async def test_chunks_that_lost_two_replicas_are_sent_alone() -> None:
    fleet = FakeTranscriber()
    fleet.poison[1, 2] = 2
    async with scheduling(fleet) as scheduler:
        assert await start(scheduler, Job(1), make_chunks(6)).done() == list(range(6))
    assert [[chunk.index for chunk in unit.chunks] for unit in fleet.units[2:]] == [[2], [3], [4], [5]]


async def test_a_unit_that_no_replica_accepted_is_not_blamed() -> None:
    fleet = FakeTranscriber()
    fleet.unreachable = 20
    async with scheduling(fleet, max_attempts=1) as scheduler:
        assert await start(scheduler, Job(1), make_chunks(3)).done() == [0, 1, 2]


async def test_a_chunk_that_kills_its_replicas_fails_only_its_task() -> None:
    fleet = FakeTranscriber()
    fleet.poison[1, 3] = 1000
    async with scheduling(fleet, max_attempts=3) as scheduler:
        poisoned, innocent = Job(1), Job(2)
        start(scheduler, poisoned, make_chunks(8))
        start(scheduler, innocent, make_chunks(30))
        with pytest.raises(AttemptsExhausted, match=r"30\.0 s to 40\.0 s"):
            await poisoned.done()
        scheduler.close(1)
        assert await innocent.done() == list(range(30))
    assert 1000 - fleet.poison[1, 3] == 3


async def test_a_chunk_the_model_fails_on_fails_its_task() -> None:
    fleet = FakeTranscriber()
    fleet.bad.add((1, 0))
    async with scheduling(fleet) as scheduler:
        with pytest.raises(DecodingFailed):
            await start(scheduler, Job(1), make_chunks(1)).done()


async def test_a_silent_replica_is_given_up() -> None:
    fleet = FakeTranscriber()
    fleet.open_gate.clear()
    async with scheduling(fleet, unit_deadline_s=0.01, max_attempts=1) as scheduler:
        with pytest.raises(AttemptsExhausted):
            await start(scheduler, Job(1), make_chunks(1, seconds=0.01)).done()


async def test_replicas_scaled_to_zero_do_not_time_out() -> None:
    fleet = FakeTranscriber(replicas=0)
    fleet.open_gate.clear()
    async with scheduling(fleet, unit_deadline_s=0.01, max_attempts=1) as scheduler:
        job = start(scheduler, Job(1), make_chunks(1, seconds=0.01))
        await asyncio.sleep(0.1)
        fleet.open_gate.set()
        assert await job.done() == [0]


async def test_closing_a_task_cancels_its_units() -> None:
    fleet = FakeTranscriber()
    fleet.open_gate.clear()
    async with scheduling(fleet) as scheduler:
        start(scheduler, Job(1), make_chunks(3))
        while not fleet.units:
            await asyncio.sleep(0)
        scheduler.close(1)
        while not fleet.abandoned:
            await asyncio.sleep(0)
        assert [unit.task_id for unit in fleet.abandoned] == [1]


async def test_capacity_follows_the_number_of_replicas() -> None:
    fleet = FakeTranscriber(replicas=3, max_batch_size=4)
    async with scheduling(fleet) as scheduler:
        while scheduler.engine is None:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert scheduler.capacity.chunks == 3 * 4 * 3
        fleet.replicas = 5
        while scheduler.capacity.replicas != 5:
            await asyncio.sleep(0.001)


async def test_a_clip_goes_to_a_replica_next_although_another_client_has_a_thousand_hours_queued() -> None:
    fleet = FakeTranscriber()
    fleet.open_gate.clear()
    hour = make_chunks(240, seconds=15.0)
    async with scheduling(fleet) as scheduler:
        for number in range(1_000):
            start(scheduler, Job(number, client="a", options=DEAR), hour)
        while not fleet.units:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        before = len(fleet.units)
        start(scheduler, Job(5_000, client="b"), make_chunks(1, seconds=3.0))
        while len(fleet.units) == before:
            await asyncio.sleep(0)
    assert fleet.units[before].task_id == 5_000
    assert fleet.units[before].start_tag <= min(unit.start_tag for unit in fleet.units[:before])


async def test_a_unit_with_costly_options_has_a_longer_timeout() -> None:
    fleet = FakeTranscriber()
    fleet.open_gate.clear()
    async with scheduling(fleet, unit_deadline_s=0.01, max_attempts=1) as scheduler:
        plain = start(scheduler, Job(1), make_chunks(1, seconds=0.1))
        dear = start(scheduler, Job(2, options=DEAR), make_chunks(1, seconds=3.0))
        with pytest.raises(AttemptsExhausted):
            await plain.done()
        fleet.open_gate.set()
        assert await dear.done() == [0]
