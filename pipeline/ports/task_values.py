"""Values of the task store: queries and their pages, leases, stored chunks and statistics of the queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.summaries.summary import SummaryOptions
from pipeline.domain.tasks.task import Priority, Status, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskQuery:
    """A filter over tasks; ``None`` switches a condition off. Times are aware UTC and inclusive."""

    status: Status | None = None
    priority: Priority | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    language: str | None = None
    engine_name: str | None = None
    task_type: str | None = None
    platform: str | None = None
    has_result: bool | None = None
    has_error: bool | None = None
    client: str | None = None
    include_result: bool = True
    descending: bool = False
    limit: int = 20
    offset: int = 0


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A page of a query, in the order (created_at, id), and the number of all tasks that match."""

    tasks: tuple[Task, ...]
    total_count: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a task. Its fence is that of the claim."""

    task_id: int
    fence: int


@dataclass(frozen=True, slots=True)
class StoredChunks:
    """A task's stored chunks and results, for resuming and stitching, each in order of index.

    ``parts`` are the committed parts of prepared audio as (part, start, end) in samples.
    """

    chunks: tuple[Chunk, ...] = ()
    results: tuple[ChunkResult, ...] = ()
    parts: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Tasks that wait and run, per priority, and the seconds of audio not yet decoded.

    The audio of a recording that is not split yet is estimated from its size, using recent seconds per byte.
    """

    queued_tasks: Mapping[Priority, int]
    processing_tasks: int
    pending_audio_s: float
    oldest_queued_s: float
    oldest_s: Mapping[Priority, float] = field(default_factory=dict)
    """Age of the oldest queued task of each priority, in seconds; 0 where none waits."""
    waiting_callbacks: int = 0
    left_tasks: int = 0
    """Tasks that only a newer version of this software can read, and that are left to it."""


@dataclass(frozen=True, slots=True)
class SummaryLease:
    """The right to write a task's summary. Each claim raises ``attempts``; ``fence`` is the task's."""

    task_id: int
    media_prefix: str
    fence: int
    owner: str
    attempts: int
    options: SummaryOptions
