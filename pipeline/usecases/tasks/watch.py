"""Waiting for a task's end, and following it there: what a client sees of a task that is not finished yet."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from pipeline.domain.decoding.stitching import chunk_segments
from pipeline.domain.decoding.transcript import ChunkResult, Segment
from pipeline.domain.tasks.task import Status, Task
from pipeline.errors import DatabaseUnavailable, TaskNotFound
from pipeline.ports import Clock

WATCH_SLICE_S = 5.0
"""Longest single wait for news of a task, so that news that was missed is found in the database."""
OUTAGE_PAUSE_S = 1.0
"""Pause before the next look while the database is away."""
WATCH_PAUSE_S = 0.1
"""Shortest time between two looks at the database for one waiting client."""

Watch = Callable[[int, int, float], Awaitable[int]]
"""Takes a task's id, the number of the news seen last (-1: none) and seconds; returns the number of the latest news as
soon as it is another, or the seconds are over. A hint."""
WatchEnd = Callable[[int, float], Awaitable[None]]
"""Returns when a task has finished, or after so many seconds; a hint."""


class TaskReader(Protocol):
    """What following a task takes of the task store; ``ports.TaskRecords`` is one."""

    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        """Return the task. Raises ``TaskNotFound``, ``DatabaseUnavailable``."""
        ...

    async def results(self, task_id: int, first: int) -> tuple[ChunkResult, ...]:
        """Return the results of a task's chunks, from the first one on. Raises ``DatabaseUnavailable``."""
        ...


async def wait_for_end(
    store: TaskReader,
    watch_end: WatchEnd,
    clock: Clock,
    task_id: int,
    wait_s: float,
    *,
    include_result: bool = True,
) -> Task:
    """Return the task once it is finished or ``wait_s`` seconds are over. Raises ``TaskNotFound``."""
    deadline = clock.monotonic() + wait_s
    task = await store.get(task_id, include_result=include_result)
    while not task.status.finished and (left_s := deadline - clock.monotonic()) > 0:
        looked_at = clock.monotonic()
        await watch_end(task_id, min(left_s, WATCH_SLICE_S))
        task = await store.get(task_id, include_result=include_result)
        if not task.status.finished and clock.monotonic() - looked_at < WATCH_PAUSE_S:
            await clock.sleep(WATCH_PAUSE_S)
    return task


@dataclass(frozen=True, slots=True)
class TaskQueued:
    """The task waits for its turn."""

    task: Task


@dataclass(frozen=True, slots=True)
class TaskProgressed:
    """The task is being worked on, and has come this far."""

    task: Task


@dataclass(frozen=True, slots=True)
class SegmentReady:
    """A segment of the transcript, as it will be there.

    Attributes:
        segment: with its number, from 1.
        chunk: index of its chunk, counted over the chunks in which something was said.
        last: no more segments of this chunk follow.
    """

    segment: Segment
    chunk: int
    last: bool


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """The task has finished, one way or another; with its result where there is one. Nothing follows."""

    task: Task


TaskEvent = TaskQueued | TaskProgressed | SegmentReady | TaskEnded
ReportedState = TypeVar("ReportedState")


async def follow(
    store: TaskReader, watch: Watch, clock: Clock, task: Task, after_chunk: int = -1
) -> AsyncGenerator[TaskEvent, None]:
    """What happens to a task, from where it stands to its end; of a finished one, what there is to tell.

    Segments come in the order of the timeline, each once, as soon as all before them are there. A task that is deleted
    meanwhile ends as cancelled; while the database is away nothing is told.

    Args:
        store: where the task is.
        watch: says when to look again.
        clock: bounds how often that is.
        task: as it was read last, with its result if it is completed.
        after_chunk: segments up to this chunk (``SegmentReady.chunk``) are left out.
    """
    prefix, seen, reported = _TranscriptPrefix(store, after_chunk), -1, None
    while True:
        looked_at = clock.monotonic()
        if not task.status.finished and (state := _state(task)) != reported:
            reported = state
            yield TaskQueued(task) if task.status is Status.QUEUED else TaskProgressed(task)
        for heard in await _insist(clock, partial(prefix.grow, task)):
            yield heard
        if task.status.finished:
            yield TaskEnded(task)
            return
        seen_before, seen = seen, await watch(task.id, seen, WATCH_SLICE_S)
        if seen_before >= 0 and clock.monotonic() - looked_at < WATCH_PAUSE_S:
            await clock.sleep(WATCH_PAUSE_S)
        task = await _insist(clock, partial(_reload, store, task))


async def _reload(store: TaskReader, task: Task) -> Task:
    try:
        return await store.get(task.id, include_result=True)
    except TaskNotFound:
        return replace(task, status=Status.CANCELLED, stage=None, result=None)


async def _insist(clock: Clock, look: Callable[[], Awaitable[ReportedState]]) -> ReportedState:
    while True:
        try:
            return await look()
        except DatabaseUnavailable:
            await clock.sleep(OUTAGE_PAUSE_S)


def _state(task: Task) -> tuple[object, ...]:
    """What a client is told of a task that runs; the same state is told once."""
    return task.status, task.stage, task.audio_done_s, task.audio_total_s if task.split_done else None


class _TranscriptPrefix:
    """The segments of a task's first chunks, as far as these are decoded without a gap.

    Chunks lie apart on the timeline, so what one of them adds to the transcript does not depend on those after it.
    """

    def __init__(self, store: TaskReader, after_chunk: int) -> None:
        self._store = store
        self._after_chunk = after_chunk
        self._next_chunk = 0
        self._segments = 0
        self._chunk = -1
        self._seek: int | None = None

    async def grow(self, task: Task) -> list[SegmentReady]:
        """What has been added since it was asked last."""
        if task.result is not None:  # its chunks are gone, and the transcript holds all of them
            groups = _by_chunk(task.result.segments[self._segments :])
            return [heard for segments in groups for heard in self._append(segments)]
        grown: list[SegmentReady] = []
        for result in await self._store.results(task.id, self._next_chunk):
            if result.index != self._next_chunk:
                break
            self._next_chunk += 1
            grown += self._append(chunk_segments(result, task.file_duration_s or math.inf, self._segments + 1))
        return grown

    def _append(self, segments: Sequence[Segment]) -> Sequence[SegmentReady]:
        """Segments of one chunk, which is told from the one before it by its ``seek``."""
        if not segments:
            return ()
        if segments[0].seek != self._seek:
            self._chunk += 1
            self._seek = segments[0].seek
        self._segments += len(segments)
        if self._chunk <= self._after_chunk:
            return ()
        return [SegmentReady(segment, self._chunk, segment is segments[-1]) for segment in segments]


def _by_chunk(segments: Sequence[Segment]) -> Sequence[Sequence[Segment]]:
    groups: list[list[Segment]] = []
    for segment in segments:
        if not groups or groups[-1][0].seek != segment.seek:
            groups.append([])
        groups[-1].append(segment)
    return groups
