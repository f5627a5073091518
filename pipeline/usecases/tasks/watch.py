"""Waiting for a task to finish, and streaming its progress to a client until then."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from pipeline.domain.decoding.stitching import chunk_segments
from pipeline.domain.decoding.transcript import ChunkResult, Segment
from pipeline.domain.tasks.task import Status, Task
from pipeline.errors import TaskNotFound
from pipeline.ports import Clock
from pipeline.usecases.outage_retry import retry_until_available

WATCH_SLICE_S = 5.0
"""Longest single wait for a notification. After it the database is read, in case a notification was missed."""
WATCH_PAUSE_S = 0.1
"""Shortest time between two reads of the database for one waiting client."""

WaitForChange = Callable[[int, int, float], Awaitable[int]]
"""A function of a task's id, the change number seen last (-1: none) and a timeout in seconds. It returns the latest
change number once it differs, or after the timeout. It is only a hint: a change may be missed."""
WaitForEnd = Callable[[int, float], Awaitable[None]]
"""A function of a task's id and a timeout in seconds. It returns once the task has finished, or after the timeout.
It is only a hint: an end may be missed."""


class TaskReader(Protocol):
    """The part of ``ports.TaskRecords`` that following a task needs."""

    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        """Return the task. Raises ``TaskNotFound``, ``DatabaseUnavailable``."""
        ...

    async def results(self, task_id: int, first: int) -> tuple[ChunkResult, ...]:
        """Return the results of a task's chunks, from index ``first`` on. Raises ``DatabaseUnavailable``."""
        ...


async def wait_for_end(
    store: TaskReader,
    watch_end: WaitForEnd,
    clock: Clock,
    task_id: int,
    wait_s: float,
    *,
    include_result: bool = True,
) -> Task:
    """Return the task once it has finished, or as it is after ``wait_s`` seconds. Raises ``TaskNotFound``."""
    deadline = clock.monotonic() + wait_s
    task = await store.get(task_id, include_result=include_result)
    while not task.status.finished and (left_s := deadline - clock.monotonic()) > 0:
        read_at = clock.monotonic()
        await watch_end(task_id, min(left_s, WATCH_SLICE_S))
        task = await store.get(task_id, include_result=include_result)
        if not task.status.finished and clock.monotonic() - read_at < WATCH_PAUSE_S:
            await clock.sleep(WATCH_PAUSE_S)
    return task


@dataclass(frozen=True, slots=True)
class TaskQueued:
    """An event: the task is in the queue."""

    task: Task


@dataclass(frozen=True, slots=True)
class TaskProgressed:
    """An event: the task is in progress, as far as its record says."""

    task: Task


@dataclass(frozen=True, slots=True)
class SegmentReady:
    """An event: a segment is in its final form.

    Attributes:
        segment: the segment, with its number from 1.
        chunk: index of its chunk, counting only chunks with segments.
        last: this is the last segment of its chunk.
    """

    segment: Segment
    chunk: int
    last: bool


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """The last event: the task has finished. The task holds its result if there is one."""

    task: Task


TaskEvent = TaskQueued | TaskProgressed | SegmentReady | TaskEnded


async def follow(
    store: TaskReader, watch: WaitForChange, clock: Clock, task: Task, after_chunk: int = -1
) -> AsyncGenerator[TaskEvent, None]:
    """Yield the events of a task from its present state to its end.

    Segments come in order of the timeline, each once, as soon as all segments before it are ready. A task that is
    deleted meanwhile ends as cancelled. There are no events while the database is unavailable.

    Args:
        store: holds the task.
        watch: waits for the next change of the task.
        clock: limits how often the database is read.
        task: the task as last read, with its result if it is completed.
        after_chunk: segments up to and including this chunk (``SegmentReady.chunk``) are left out.
    """
    prefix, seen, reported = _TranscriptPrefix(store, after_chunk), -1, None
    while True:
        read_at = clock.monotonic()
        if not task.status.finished and (state := _reported_state(task)) != reported:
            reported = state
            yield TaskQueued(task) if task.status is Status.QUEUED else TaskProgressed(task)
        for event in await retry_until_available(partial(prefix.new_segments, task), clock):
            yield event
        if task.status.finished:
            yield TaskEnded(task)
            return
        seen_before, seen = seen, await watch(task.id, seen, WATCH_SLICE_S)
        if seen_before >= 0 and clock.monotonic() - read_at < WATCH_PAUSE_S:
            await clock.sleep(WATCH_PAUSE_S)
        task = await retry_until_available(partial(_reload, store, task), clock)


async def _reload(store: TaskReader, task: Task) -> Task:
    try:
        return await store.get(task.id, include_result=True)
    except TaskNotFound:
        return replace(task, status=Status.CANCELLED, stage=None, result=None)


def _reported_state(task: Task) -> tuple[object, ...]:
    """Return the values that make a new progress event if one of them changes."""
    return task.status, task.stage, task.audio_done_s, task.audio_total_s if task.split_done else None


class _TranscriptPrefix:
    """The segments of a task's first chunks, up to the first chunk without a result.

    Chunks do not overlap on the timeline, so the segments of one do not depend on the chunks after it.
    """

    def __init__(self, store: TaskReader, after_chunk: int) -> None:
        self._store = store
        self._after_chunk = after_chunk
        self._next_chunk = 0
        self._segments = 0
        self._chunk = -1
        self._seek: int | None = None

    async def new_segments(self, task: Task) -> list[SegmentReady]:
        """Return the segments that were added since the last call."""
        if task.result is not None:  # the chunks are deleted, and the transcript holds their segments
            groups = _by_chunk(task.result.segments[self._segments :])
            return [event for segments in groups for event in self._append(segments)]
        events: list[SegmentReady] = []
        for result in await self._store.results(task.id, self._next_chunk):
            if result.index != self._next_chunk:
                break
            self._next_chunk += 1
            events += self._append(chunk_segments(result, task.file_duration_s or math.inf, self._segments + 1))
        return events

    def _append(self, segments: Sequence[Segment]) -> Sequence[SegmentReady]:
        """Append the segments of one chunk and return their events. Another ``seek`` marks another chunk."""
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
