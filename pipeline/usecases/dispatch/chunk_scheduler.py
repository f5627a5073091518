"""Scheduling of the chunks of all running tasks on the replicas.

The queue stays in this process, where it can be reordered and cancelled; only as much as the replicas can hold is sent.
Chunks whose replica died are sent again. A suspect is sent alone, and other chunks of its task wait meanwhile: see
``domain.scheduling.chunk_losses``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.decoding.decoding_cost import chunk_cost_s, relative_cost
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.scheduling.capacity import Capacity, ReleasedChunks
from pipeline.domain.scheduling.chunk_losses import ChunkLosses
from pipeline.domain.scheduling.chunk_queue import ChunkQueue
from pipeline.domain.tasks.exhaustion import decoding_message
from pipeline.errors import AttemptsExhausted, MurmurationError, ReplicaLost
from pipeline.ports import ChunkFailure, Clock, EngineInfo, Metrics, Transcriber, Unit
from pipeline.settings import DispatchSettings
from pipeline.usecases.background_loop import SupervisedLoop, failure_messages
from pipeline.usecases.dispatch.task_decoding import TaskDecoding
from pipeline.usecases.outage_retry import REPLICA_LOSS_PAUSE_S

logger = logging.getLogger(__name__)

STARTING_REFRESH_S, WORKING_REFRESH_S, IDLE_REFRESH_S = 1.0, 5.0, 15.0
"""Interval between queries for the number of replicas; a query to Serve takes about 50 ms of CPU time."""


class ChunkScheduler:
    """A queue of chunks that sends units while replicas have capacity, and delivers the results.

    Args:
        transcriber: the replicas.
        clock: measures ageing and times the pauses.
        settings: ageing, deadlines, and the number of losses after which a chunk fails its task.
        metrics: records queue depth and losses.
    """

    def __init__(self, transcriber: Transcriber, clock: Clock, settings: DispatchSettings, metrics: Metrics) -> None:
        self._transcriber = transcriber
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._queue = ChunkQueue(settings.ageing_s)
        self._decodings: dict[int, TaskDecoding] = {}
        self._units: dict[int, set[asyncio.Task[None]]] = defaultdict(set)
        self._losses = ChunkLosses(settings.max_attempts)
        self._wake = asyncio.Event()
        self._capacity = Capacity(replicas=1, max_batch_size=8)
        self.engine: EngineInfo | None = None
        self._querying = SupervisedLoop("replicas", "querying the replicas", clock, metrics)
        self._releasing = SupervisedLoop("chunk_release", "sending chunks to replicas", clock, metrics)

    @property
    def failure_messages(self) -> tuple[str, ...]:
        """Reasons why no chunk is sent to a replica, one sentence each."""
        return failure_messages(self._querying, self._releasing)

    @property
    def capacity(self) -> Capacity:
        """The capacity of the replicas at the last query."""
        return self._capacity

    # called by attempts

    def open(self, decoding: TaskDecoding, max_in_flight: int | None) -> None:
        """Admit a task. At most ``max_in_flight`` of its chunks are at replicas at once; ``None``: no limit."""
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
        """Change how many chunks of a task may be at replicas at once."""
        self._queue.limit(task_id, max_in_flight)
        self._wake.set()

    def add(self, decoding: TaskDecoding, chunks: Sequence[Chunk]) -> None:
        """Queue chunks of an admitted task."""
        decoding.outstanding += len(chunks)
        self._queue.add(decoding.task_id, chunks, self._clock.monotonic())
        self._wake.set()

    def close(self, task_id: int) -> None:
        """Remove a task, and cancel its units at the replicas."""
        self._decodings.pop(task_id, None)
        self._queue.close(task_id)
        for unit in self._units.pop(task_id, ()):
            unit.cancel()
        self._losses.forget_task(task_id)
        self._wake.set()

    # the loops

    async def run(self) -> None:
        """Send units until cancelled, then cancel those that are under way."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._capacity_loop())
                group.create_task(self._release_units())
        finally:
            for task_id in list(self._decodings):
                self.close(task_id)

    async def _capacity_loop(self) -> None:
        while True:
            await self._querying.round(self._query_replicas)
            self._wake.set()
            await self._clock.sleep(self._refresh_s)

    async def _query_replicas(self) -> None:
        try:
            await self._refresh_capacity()
        except MurmurationError as error:
            logger.warning("the replicas do not answer: %s", error)

    @property
    def _refresh_s(self) -> float:
        if self.engine is None:
            return STARTING_REFRESH_S
        return WORKING_REFRESH_S if self._decodings else IDLE_REFRESH_S

    async def _refresh_capacity(self) -> None:
        replicas = await self._transcriber.replica_count()
        self._metrics.gauge("replicas", replicas)
        self._capacity = replace(self._capacity, replicas=replicas)
        if replicas:  # with none, the call would start one although no work waits
            self.engine = await self._transcriber.describe()
            self._capacity = replace(self._capacity, max_batch_size=self.engine.max_batch_size)

    async def _release_units(self) -> None:
        while True:
            if await self._releasing.round(self._release_all):
                await self._wake.wait()

    async def _release_all(self) -> None:
        self._wake.clear()
        while released := self._next_unit():
            self._start(released)
        self._metrics.gauge("waiting_chunks", self._queue.waiting_chunks)

    def _next_unit(self) -> tuple[ReleasedChunks, bool] | None:
        """Return the chunks to send next, and whether they are a suspect; ``None`` if nothing can be sent."""
        if suspect := self._losses.next_suspect():
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
        accepted = False
        try:
            async with aclosing(self._results(self._unit(decoding, released))) as stream:
                async for results in stream:
                    accepted = True
                    await self._deliver_results(decoding, results, missing)
            if missing:
                raise ReplicaLost("A replica's stream ended without results for all of its chunks.")
        except ReplicaLost as error:
            logger.warning("unit lost: %s", error, extra={"task_id": decoding.task_id, "chunks": len(missing)})
            self._metrics.count("lost_units")
            await self._clock.sleep(REPLICA_LOSS_PAUSE_S)
            self._handle_unit_loss(decoding, list(missing.values()), suspect=suspect, accepted=accepted)
        except Exception as error:  # noqa: BLE001 - any error fails the task
            decoding.fail(error)
        finally:
            if suspect:
                self._losses.end_suspect()
                self._queue.pause(decoding.task_id, self._losses.has_suspect(decoding.task_id))
            self._wake.set()

    def _unit(self, decoding: TaskDecoding, released: ReleasedChunks) -> Unit:
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
        """Yield the unit's results as they arrive. Raise ``ReplicaLost`` if nothing arrives for too long."""
        audio_s = sum(chunk.duration_s for chunk in unit.chunks)
        timeout_s = self._settings.unit_deadline_s + 3 * audio_s * max(1.0, relative_cost(unit.options))
        async with aclosing(self._transcriber.transcribe(unit)) as stream:
            while True:
                next_item = asyncio.ensure_future(anext(stream, None))
                try:
                    await self._wait_for(next_item, timeout_s)
                    results = next_item.result()
                finally:
                    next_item.cancel()
                    await asyncio.gather(next_item, return_exceptions=True)
                if results is None:
                    return
                yield results

    async def _wait_for(self, next_item: asyncio.Future[Any], timeout_s: float) -> None:
        """Wait for the next item of a replica's stream. Without any replica, it waits for one to start.

        Raises ``ReplicaLost`` after ``timeout_s`` seconds without an item.
        """
        while not (await asyncio.wait([next_item], timeout=timeout_s))[0]:
            if await self._transcriber.replica_count():
                raise ReplicaLost(f"A replica sent nothing for {timeout_s:.0f} seconds.")

    async def _deliver_results(
        self,
        decoding: TaskDecoding,
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
            self._losses.forget_chunk(decoding.task_id, result.index)
        self._queue.charge(decoding.task_id, decoding.extra_cost_s(results))
        self._queue.finish(decoding.task_id, len(results))
        self._wake.set()
        decoding.count_stored(len(results))

    def _handle_unit_loss(
        self, decoding: TaskDecoding, lost: Sequence[Chunk], *, suspect: bool, accepted: bool
    ) -> None:
        """Count the loss against the chunks of the unit, and queue them again or fail the task."""
        task_id = decoding.task_id
        if self._decodings.get(task_id) is not decoding:
            return
        decision = self._losses.count(task_id, decoding.priority_rank, lost, suspect=suspect, accepted=accepted)
        self._queue.put_back(task_id, decision.retried)
        if decision.suspects:
            self._queue.pause(task_id, True)
        for chunk, losses in decision.exhausted:
            decoding.fail(AttemptsExhausted(decoding_message(chunk, losses)))
