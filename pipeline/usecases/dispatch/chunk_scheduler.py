"""Chunks of every running task, on their way through the replicas and back.

The queue stays here, where it can be reordered and cancelled; only what the replicas can hold is sent. A chunk whose
replica died is sent again like any other: most often the machine was to blame. One whose replica died twice in a row is
a suspect: suspects are decoded one at a time, each in a call of its own, so that a recording that kills its replica is
found out while everybody else's goes on. The rest of a suspect's file waits meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.decoding.decoding_cost import chunk_cost_s, decoded_cost, relative_cost
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.decoding.transcription_options import TranscriptionOptions
from pipeline.domain.scheduling.chunk_queue import Capacity, ChunkQueue, ReleasedChunks
from pipeline.errors import AttemptsExhausted, MurmurationError, ReplicaLost
from pipeline.ports import ChunkFailure, Clock, EngineInfo, Metrics, Transcriber, Unit
from pipeline.settings import DispatchSettings
from pipeline.usecases.background_loop import SupervisedLoop, failure_messages

logger = logging.getLogger(__name__)

Deliver = Callable[[Sequence[ChunkResult]], Awaitable[None]]

SUSPECT_LOSSES = 2
"""Replicas lost in a row that make a suspect of a chunk."""

LOSS_PAUSE_S = 0.5
"""Pause before a lost unit is sent again: until then the dead replica may still be taken for alive."""

STARTING_REFRESH_S, WORKING_REFRESH_S, IDLE_REFRESH_S = 1.0, 5.0, 15.0
"""How often the number of replicas is looked up; asking Serve takes some 50 ms of CPU time."""


@dataclass(slots=True, kw_only=True, eq=False)
class Decoding:
    """One task's way through the replicas.

    Attributes:
        deliver: stores results; called as they arrive, never twice at once for the same task.
        client: whose share of the replicas it takes; ``None``: it has one of its own.
        language: of the speech; while ``None`` each unit detects it.
        previous_tokens: what the next chunk is prompted with, where previous text is conditioned on.
    """

    task_id: int
    media_prefix: str
    options: TranscriptionOptions
    priority_rank: int
    deliver: Deliver
    language: str | None = None
    client: str | None = None
    previous_tokens: tuple[int, ...] = ()
    outstanding: int = 0
    sealed: bool = False
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def relative_cost(self) -> float:
        """How many times as much as with default options a second of the audio is likely to cost."""
        return relative_cost(self.options)

    def extra_cost_s(self, results: Iterable[ChunkResult]) -> float:
        """Seconds of audio at the defaults that decoding took beyond what was expected of the options."""
        expected = self.relative_cost
        return sum(
            max(0.0, decoded_cost(self.options, result.attempts) - expected) * result.audio_s for result in results
        )

    def seal(self) -> None:
        """No more chunks will be added."""
        self.sealed = True
        self._settle()

    def delivered(self, count: int) -> None:
        """Results of so many chunks are stored."""
        self.outstanding -= count
        self._settle()

    def fail(self, error: BaseException) -> None:
        """Ends the decoding with an error; the first one counts."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # seen: nobody may be waiting any more

    def _settle(self) -> None:
        if self.sealed and self.outstanding == 0 and not self.done.done():
            self.done.set_result(None)


@dataclass(frozen=True, slots=True)
class _SuspectChunk:
    """A chunk that was at a replica when the replica died."""

    task_id: int
    priority_rank: int
    chunk: Chunk


class ChunkScheduler:
    """Sends units while replicas have room, and brings results home.

    Args:
        transcriber: the fleet.
        clock: for ageing and for deadlines.
        settings: ageing, deadlines, and how many replicas one chunk may take down.
        metrics: where queue depth and losses are counted.
    """

    def __init__(self, transcriber: Transcriber, clock: Clock, settings: DispatchSettings, metrics: Metrics) -> None:
        self._transcriber = transcriber
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._queue = ChunkQueue(settings.ageing_s)
        self._decodings: dict[int, Decoding] = {}
        self._units: dict[int, set[asyncio.Task[None]]] = defaultdict(set)
        self._suspects: deque[_SuspectChunk] = deque()
        self._suspect_in_flight = False
        self._losses: dict[tuple[int, int], int] = {}
        self._wake = asyncio.Event()
        self._capacity = Capacity(replicas=1, max_batch_size=8)
        self.engine: EngineInfo | None = None
        self._following = SupervisedLoop("replicas", "following the replicas", clock, metrics)
        self._releasing = SupervisedLoop("chunk_release", "sending chunks to replicas", clock, metrics)

    @property
    def failure_messages(self) -> tuple[str, ...]:
        """Why no chunk gets to a replica, a sentence each."""
        return failure_messages(self._following, self._releasing)

    @property
    def capacity(self) -> Capacity:
        """What the replicas can hold, as last seen."""
        return self._capacity

    # a task's side

    def open(self, decoding: Decoding, max_in_flight: int | None) -> None:
        """Admits a task; see ``ChunkQueue.open`` for ``max_in_flight``."""
        self._decodings[decoding.task_id] = decoding
        self._queue.open(
            decoding.task_id,
            decoding.priority_rank,
            self._clock.monotonic(),
            max_in_flight,
            client=decoding.client,
            cost=lambda chunk: chunk_cost_s(chunk.duration_s, decoding.options),
        )

    def limit(self, task_id: int, max_in_flight: int | None) -> None:
        """Changes how many of a task's chunks may be out at once."""
        self._queue.limit(task_id, max_in_flight)
        self._wake.set()

    def add(self, decoding: Decoding, chunks: Sequence[Chunk]) -> None:
        """Queues chunks of an admitted task."""
        decoding.outstanding += len(chunks)
        self._queue.add(decoding.task_id, chunks, self._clock.monotonic())
        self._wake.set()

    def close(self, task_id: int) -> None:
        """Forgets a task, and takes back what is still at a replica."""
        self._decodings.pop(task_id, None)
        self._queue.close(task_id)
        for unit in self._units.pop(task_id, ()):
            unit.cancel()
        self._suspects = deque(suspect for suspect in self._suspects if suspect.task_id != task_id)
        self._losses = {key: count for key, count in self._losses.items() if key[0] != task_id}
        self._wake.set()

    # the replicas' side

    async def run(self) -> None:
        """Releases units until cancelled, and then ends those that are under way."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._capacity_loop())
                group.create_task(self._release_units())
        finally:
            for task_id in list(self._decodings):
                self.close(task_id)

    async def _capacity_loop(self) -> None:
        while True:
            await self._following.round(self._query_replicas)
            self._wake.set()
            await self._clock.sleep(self._refresh_s)

    async def _query_replicas(self) -> None:
        try:
            await self._refresh_capacity()
        except MurmurationError as error:
            logger.warning("the replicas can't be asked: %s", error)

    @property
    def _refresh_s(self) -> float:
        if self.engine is None:
            return STARTING_REFRESH_S
        return WORKING_REFRESH_S if self._decodings else IDLE_REFRESH_S

    async def _refresh_capacity(self) -> None:
        replicas = await self._transcriber.replica_count()
        self._metrics.gauge("replicas", replicas)
        self._capacity = replace(self._capacity, replicas=replicas)
        if replicas:  # asking would wake a fleet that is scaled to zero
            self.engine = await self._transcriber.describe()
            self._capacity = replace(self._capacity, max_batch_size=self.engine.max_batch_size)

    async def _release_units(self) -> None:
        while True:
            if await self._releasing.round(self._release_all):
                await self._wake.wait()

    async def _release_all(self) -> None:
        self._wake.clear()
        while released := self._next():
            self._start(released)
        self._metrics.gauge("waiting_chunks", self._queue.waiting_chunks)

    def _next(self) -> tuple[ReleasedChunks, bool] | None:
        if self._suspects and not self._suspect_in_flight:
            suspect = self._suspects.popleft()
            self._suspect_in_flight = True
            return ReleasedChunks(suspect.task_id, suspect.priority_rank, (suspect.chunk,)), True
        released = self._queue.release(self._capacity, self._clock.monotonic())
        return (released, False) if released else None

    def _start(self, released: tuple[ReleasedChunks, bool]) -> None:
        task_id = released[0].task_id
        unit = asyncio.create_task(self._send(*released))
        self._units[task_id].add(unit)
        unit.add_done_callback(lambda done: self._units[task_id].discard(done) if task_id in self._units else None)

    async def _send(self, released: ReleasedChunks, suspect: bool) -> None:
        decoding = self._decodings[released.task_id]
        missing = {chunk.index: chunk for chunk in released.chunks}
        taken = False
        try:
            async with aclosing(self._results(self._unit(decoding, released))) as arriving:
                async for results in arriving:
                    taken = True
                    await self._deliver_results(decoding, results, missing)
            if missing:
                raise ReplicaLost("A replica ended its answer without all of its chunks.")
        except ReplicaLost as error:
            logger.warning("unit lost: %s", error, extra={"task_id": decoding.task_id, "chunks": len(missing)})
            self._metrics.count("lost_units")
            await self._clock.sleep(LOSS_PAUSE_S)
            self._handle_unit_loss(decoding, list(missing.values()), suspect, taken)
        except Exception as error:  # noqa: BLE001 - the task must hear of it, whatever it is
            decoding.fail(error)
        finally:
            if suspect:
                self._suspect_in_flight = False
                self._queue.pause(decoding.task_id, self._is_suspect(decoding.task_id))
            self._wake.set()

    def _is_suspect(self, task_id: int) -> bool:
        return any(suspect.task_id == task_id for suspect in self._suspects)

    def _unit(self, decoding: Decoding, released: ReleasedChunks) -> Unit:
        return Unit(
            task_id=decoding.task_id,
            media_prefix=decoding.media_prefix,
            chunks=released.chunks,
            options=decoding.options,
            language=decoding.language,
            priority_rank=released.priority_rank,
            start_tag=released.start_tag,
            previous_tokens=decoding.previous_tokens,
        )

    async def _results(self, unit: Unit) -> AsyncGenerator[Sequence[ChunkResult | ChunkFailure], None]:
        """The unit's results, or ``ReplicaLost`` once it has been silent past its deadline."""
        audio_s = sum(chunk.duration_s for chunk in unit.chunks)
        deadline_s = self._settings.unit_deadline_s + 3 * audio_s * max(1.0, relative_cost(unit.options))
        async with aclosing(self._transcriber.transcribe(unit)) as stream:
            while True:
                following = asyncio.ensure_future(anext(stream, None))
                try:
                    await self._wait_for(following, deadline_s)
                    results = following.result()
                finally:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
                if results is None:
                    return
                yield results

    async def _wait_for(self, following: asyncio.Future[Any], deadline_s: float) -> None:
        """Waits for a replica's next word; silence counts only while there is a replica that could speak."""
        while not (await asyncio.wait([following], timeout=deadline_s))[0]:
            if await self._transcriber.replica_count():
                raise ReplicaLost(f"A replica gave no sign of life for {deadline_s:.0f} seconds.")

    async def _deliver_results(
        self,
        decoding: Decoding,
        outcomes: Sequence[ChunkResult | ChunkFailure],
        missing: dict[int, Chunk],
    ) -> None:
        for failure in (outcome for outcome in outcomes if isinstance(outcome, ChunkFailure)):
            raise failure.error
        results = [outcome for outcome in outcomes if isinstance(outcome, ChunkResult) and outcome.index in missing]
        if not results:
            return
        async with decoding.writing:
            await decoding.deliver(results)
        for result in results:
            del missing[result.index]
            self._losses.pop((decoding.task_id, result.index), None)
        self._queue.charge(decoding.task_id, decoding.extra_cost_s(results))
        self._queue.finish(decoding.task_id, len(results))
        self._wake.set()
        decoding.delivered(len(results))

    def _handle_unit_loss(self, decoding: Decoding, lost: list[Chunk], suspect: bool, taken: bool) -> None:
        """Counts a loss against the chunks that were there.

        While a suspect was out, only it is to blame; and nobody is where no replica had taken the unit in.
        """
        if self._decodings.get(decoding.task_id) is not decoding:
            return
        blamed = taken and (suspect or not self._suspect_in_flight)
        losses = {chunk.index: self._count_loss(decoding, chunk) if blamed else 0 for chunk in lost}
        self._queue.put_back(
            decoding.task_id, [chunk for chunk in lost if not suspect and losses[chunk.index] < SUSPECT_LOSSES]
        )
        for chunk in lost:
            if losses[chunk.index] >= self._settings.max_attempts:
                decoding.fail(AttemptsExhausted(_poison_sentence(chunk, losses[chunk.index])))
            elif suspect or losses[chunk.index] >= SUSPECT_LOSSES:
                self._suspects.append(_SuspectChunk(decoding.task_id, decoding.priority_rank, chunk))
                self._queue.pause(decoding.task_id, True)

    def _count_loss(self, decoding: Decoding, chunk: Chunk) -> int:
        key = (decoding.task_id, chunk.index)
        self._losses[key] = self._losses.get(key, 0) + 1
        return self._losses[key]


def _poison_sentence(chunk: Chunk, losses: int) -> str:
    return (
        f"The audio from {chunk.start_s:.1f} s to {chunk.end_s:.1f} s took down the process that decoded it "
        f"{losses} times in a row."
    )
