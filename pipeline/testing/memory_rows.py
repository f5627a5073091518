"""Values that the task store in memory keeps, and pure functions on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.decoding.transcript import ChunkResult, Transcript
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.scheduling.due_choice import DueWork
from pipeline.domain.scheduling.fair_queue import share_key
from pipeline.domain.tasks.task import NewTask, Priority, Stage, Status, SummaryState, Task
from pipeline.ports import OutboxMessage, TaskQuery

T = TypeVar("T")


@dataclass(slots=True)
class StoredTask:
    """The stored state of one task. ``task`` never has its result."""

    task: Task
    result: Transcript | None = None
    chunks: dict[int, Chunk] = field(default_factory=dict)
    results: dict[int, ChunkResult] = field(default_factory=dict)
    parts: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    crawl: CrawlRecord | None = None


@dataclass(slots=True)
class StoredCallback:
    """A callback in the outbox; ``due_at`` is ``None`` once it is delivered or given up."""

    message: OutboxMessage
    due_at: datetime | None
    created_at: datetime
    owner: str | None = None

    def due(self, at: datetime) -> DueWork:
        """Return the callback as a candidate for ``choose_fairly``, due at ``at``."""
        return DueWork(self.message.id, share_key(self.message.task_id, self.message.client), 0, at.timestamp())


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An idempotency key with its request and task."""

    fingerprint: str
    task_id: int
    expires_at: datetime


def queued_task(task_id: int, new: NewTask, now: datetime) -> Task:
    """Return the queued task of a submission."""
    given = {name: getattr(new, name) for name in NewTask.__dataclass_fields__}
    status, language = Status.QUEUED, new.options.language
    return Task(id=task_id, status=status, language=language, created_at=now, updated_at=now, **given)


def without_owner(task: Task, status: Status, now: datetime) -> Task:
    """Return the task in another status, without owner, lease and stage."""
    return replace(task, status=status, owner=None, lease_expires_at=None, stage=None, updated_at=now)


def without_prepared(record: StoredTask) -> Task:
    """Delete the parts, chunks and results of a task; return the task without them."""
    record.chunks, record.results, record.parts = {}, {}, {}
    return replace(record.task, split_done=False, audio_total_s=0.0, audio_done_s=0.0)


def without_due_summary(summary: SummaryState) -> SummaryState:
    """Return the state of a summary that is not to be written."""
    return replace(summary, owner=None, due_at=None)


def due_summary(task: Task, at: datetime) -> DueWork:
    """Return a task's summary as a candidate for ``choose_fairly``, due at ``at``."""
    return DueWork(task.id, share_key(task.id, task.client), task.priority.rank, at.timestamp())


def with_due_summary(task: Task, now: datetime) -> Task:
    """Return the task in the stage of its summary, which is due now. The fence rises, since the lease is over."""
    waiting = without_owner(task, Status.PROCESSING, now)
    return replace(
        waiting,
        stage=Stage.SUMMARIZING,
        fence=task.fence + 1,
        error=None,
        summary=SummaryState(result=task.summary.result, due_at=now),
    )


def is_abandoned(task: Task, now: datetime) -> bool:
    """Return whether the task is processing under an expired lease."""
    expired = task.lease_expires_at is not None and task.lease_expires_at < now
    return task.status is Status.PROCESSING and expired


def to_task(record: StoredTask, *, include_result: bool) -> Task:
    """Return the task, with its result if requested."""
    return replace(record.task, result=record.result) if include_result else record.task


def matches(record: StoredTask, query: TaskQuery) -> bool:
    """Return whether a task is in the result of a query."""
    task = record.task
    wanted: Iterable[tuple[object, object]] = (
        (query.status, task.status),
        (query.priority, task.priority),
        (query.language, task.language),
        (query.engine_name, task.engine_name),
        (query.task_type, task.options.task_type),
        (query.platform, task.platform),
        (query.client, task.client),
        (query.has_result, record.result is not None),
        (query.has_error, task.error is not None),
    )
    if any(value is not None and value != actual for value, actual in wanted):
        return False
    return _within(task.created_at, query)


def _within(created_at: datetime, query: TaskQuery) -> bool:
    if query.created_after is not None and created_at < query.created_after:
        return False
    return query.created_before is None or created_at <= query.created_before


def in_order(by_number: dict[int, T], first: int = 0) -> tuple[T, ...]:
    """Return the values in the order of their numbers, from ``first`` on."""
    return tuple(by_number[number] for number in sorted(by_number) if number >= first)


def oldest_age_s(tasks: Sequence[Task], priority: Priority, now: datetime) -> float:
    """Return the age of the oldest of these tasks with the priority; 0 if there is none."""
    oldest = min((task.created_at for task in tasks if task.priority is priority), default=now)
    return max(0.0, (now - oldest).total_seconds())
