"""Task records, the queue that they are, and the summaries and callbacks they owe."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.decoding.transcript import ChunkResult, Transcript
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.scheduling.claim_rule import NO_RUNNING_TASKS, RunningTasks
from pipeline.domain.summaries.summary import Summary, SummaryOptions
from pipeline.domain.tasks.client import AudioCharge, Client, ClientLoad
from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Priority, Status, Task, TaskError
from pipeline.ports.callbacks import DeliveryAttempt, OutboxMessage


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
    """One page of a query, in the order (created_at, id), and how many match in all."""

    tasks: tuple[Task, ...]
    total_count: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a task: the fence is that of the claim."""

    task_id: int
    fence: int


@dataclass(frozen=True, slots=True)
class StoredChunks:
    """All that is stored of a task's chunks, for resuming and stitching, each in order of index.

    ``parts`` are the committed parts of prepared audio as (part, start, end) in samples.
    """

    chunks: tuple[Chunk, ...] = ()
    results: tuple[ChunkResult, ...] = ()
    parts: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How much waits and runs, per priority: tasks, and seconds of audio not yet decoded.

    A recording that is not split yet counts by its size, at the seconds a byte of those that finished last.
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
    """The right to write a task's summary; ``attempts`` is raised each time it is taken, ``fence`` is the task's."""

    task_id: int
    media_prefix: str
    fence: int
    owner: str
    attempts: int
    options: SummaryOptions


class TaskRecords(Protocol):
    """The record of every task, as clients see and change it: what the HTTP surface has of the task store.

    Every method raises ``DatabaseUnavailable`` while the database does not answer. A record that can't be read never
    keeps another from being read: it is shown as far as it can be, with the reason (``Task.defect``).
    """

    async def ping(self) -> None:
        """Returns if the database answers."""
        ...

    async def create(
        self, new: NewTask, idempotency: IdempotencyClaim | None = None, client: Client | None = None
    ) -> tuple[Task, bool]:
        """Stores a task as ``queued``; returns it and whether it is new.

        The same idempotency key with the same fingerprint returns the original task; with another, raises
        ``IdempotencyConflict``. A key lives as long as the store is told to keep keys.
        ``QuotaExceeded``: the client may not have another task now.
        """
        ...

    async def client_load(self, client: str) -> ClientLoad:
        """What a client has in the queue, and the audio it has used in the last 24 hours."""
        ...

    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        """The task, or ``TaskNotFound``."""
        ...

    async def crawl_record(self, task_id: int) -> CrawlRecord | None:
        """What is kept of the task's link. Raises ``TaskNotFound``, ``RecordUnreadable``."""
        ...

    async def query(self, query: TaskQuery) -> TaskPage:
        """The tasks that match."""
        ...

    async def stats(self) -> QueueStats:
        """How much waits and runs."""
        ...

    async def cancel(self, task_id: int) -> Task:
        """Queued or processing → ``cancelled`` at once. A running task's fence is raised, so its owner's lease is lost.

        Raises ``TaskNotFound``, or ``TaskStateConflict`` for a finished task.
        """
        ...

    async def retry(self, task_id: int, client: Client | None = None) -> Task:
        """Failed or cancelled → ``queued`` with attempts 0; stored chunks are kept. Else ``TaskStateConflict``.

        ``QuotaExceeded``: the client may not have another task in the queue now, and the task is its own.

        A task that was cancelled while only its summary was missing goes back to that stage instead. One whose
        recording has gone (``delete_expired_media``), and can't be fetched again, is a conflict too.
        """
        ...

    async def begin_extraction(self, client: Client, extraction_id: str, size_bytes: int) -> float:
        """Take the audio of a recording whose sound is to be extracted, as estimated from its size.

        Returns the estimate in seconds. Raises ``QuotaExceeded`` where the client's audio is used up.
        """
        ...

    async def charge_extraction(self, extraction_id: str, audio_s: float) -> None:
        """Put the seconds that were decoded, so far or in the end, in the place of the estimate."""
        ...

    async def extend_wait(self, task_id: int, until: datetime) -> None:
        """Moves on the time until which a client is known to wait for the task; a task that is gone stays so."""
        ...

    async def delete(self, task_id: int) -> str:
        """Removes the task and all that hangs on it, whatever its state; returns its media prefix."""
        ...

    async def chunks(self, task_id: int) -> StoredChunks:
        """All that is stored of the task's chunks. Raises ``RecordUnreadable`` where a chunk or a part is damaged.

        A result that is damaged is left out: its chunk is decoded again.
        """
        ...

    async def results(self, task_id: int, first: int) -> tuple[ChunkResult, ...]:
        """What is stored of the results of the chunk of index ``first`` and of those after it, in order."""
        ...

    async def save_summary(self, task_id: int, summary: Summary) -> None:
        """Stores a summary that was asked for apart from the task's run. Raises ``TaskNotFound``."""
        ...


class TaskStore(TaskRecords, Protocol):
    """The durable queue and the record of every task, on SQLite or MySQL.

    Methods that take a ``Lease`` raise ``LeaseLost`` unless the task is still ``processing`` under that very fence.
    """

    async def migrate(self) -> None:
        """Brings the schema to this version; safe to call from many processes at once."""
        ...

    async def close(self) -> None:
        """Lets go of every connection."""
        ...

    # the run of a task

    async def claim(
        self,
        owner: str,
        lease: timedelta,
        limit: int,
        ranks: Collection[int],
        running_tasks: RunningTasks = NO_RUNNING_TASKS,
    ) -> list[Task]:
        """Takes up to ``limit`` tasks of the given priority ranks that are queued and due, or whose lease expired.

        Order: priority (lifted by age), then turns between clients, given what the caller holds, then age, then id:
        see ``domain.claims``. There may be more to claim where fewer than ``limit`` are returned; there is nothing
        where none is. Each claim sets owner, lease, ``fence + 1``,
        ``attempts + 1``, ``started_at``, ``processing``, ``Task.first_stage``; ``losses + 1`` where a lease expired.
        Expired tasks that were lost too often without getting any further are left to ``fail_exhausted``.
        A task whose record is damaged is failed (``record_unreadable``) instead, and one that only a newer version can
        read is left as it is.
        """
        ...

    async def heartbeat(self, leases: Sequence[Lease], lease: timedelta) -> frozenset[int]:
        """Renews leases; returns the ids of tasks that are no longer ours (lost, cancelled or deleted)."""
        ...

    async def fail_exhausted(self, max_losses: int) -> list[Task]:
        """Fails (``attempts_exhausted``) the tasks whose lease expired so many times in a row without progress between.

        Progress is a part or a result that was not stored before. Returns the tasks.
        """
        ...

    async def fail_unreachable(self, limit: int) -> list[Task]:
        """Fails up to ``limit`` tasks whose damaged record keeps every claim from finding them; returns them.

        Damaged records that a claim does find are failed there and then.
        """
        ...

    async def lease_owners(self) -> frozenset[str]:
        """Who holds the lease of a task, or of a callback that others are still kept from."""
        ...

    async def expire_leases_of(self, owner: str) -> None:
        """Ends every lease of an owner that is dead for certain, so that nobody need wait for them to expire."""
        ...

    async def update(self, lease: Lease, **changes: Any) -> None:
        """Sets fields of the record (names of ``Task``): stage, media_key, file_duration_s and so on.

        With ``split_done`` the recording's ``file_duration_s`` counts as taken from the task's client, if no part does.
        """
        ...

    async def save_crawl_record(self, lease: Lease, record: CrawlRecord) -> None:
        """Keeps what a site says about the task's recording; a later record takes the place of an earlier one."""
        ...

    async def add_part(
        self,
        lease: Lease,
        part: int,
        start: int,
        end: int,
        chunks: Sequence[Chunk],
        charge: AudioCharge | None = None,
    ) -> None:
        """Commits a part of prepared audio with its chunks, and raises ``audio_total_s`` by theirs.

        The same transaction takes the part from the task's client, once: ``charge``, or its length without a limit.
        ``QuotaExceeded``: the client's audio is used up; nothing is committed.

        That is progress: ``failures`` and ``losses`` count from 0 again, as they do with ``save_results``.
        """
        ...

    async def save_results(self, lease: Lease, results: Sequence[ChunkResult]) -> None:
        """Stores finished chunks once each and raises ``audio_done_s`` by theirs; a chunk stored before is ignored."""
        ...

    async def complete(self, lease: Lease, transcript: Transcript) -> Task:
        """``completed``, with its transcript and, if it has a ``callback_url``, its outbox row, in one transaction.

        Where a summary was asked for, the task stays ``processing`` in stage ``summarizing`` instead, without an owner:
        its summary is due, and the fence is raised, since the lease has served its purpose.
        """
        ...

    async def fail(
        self,
        lease: Lease,
        error: TaskError,
        retry_at: datetime | None = None,
        *,
        keep_prepared: bool = True,
        counted: bool = True,
    ) -> Task:
        """``failed`` with its outbox row; or back to ``queued`` from ``retry_at`` on, with the error kept for show.

        Either counts as one of ``failures``, unless it is not ``counted``. Without ``keep_prepared`` its parts, chunks
        and results are forgotten, so that a retry begins at the recording.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Back to ``queued`` at once, the attempt not counted: for a Dispatcher that shuts down."""
        ...

    # summaries

    async def claim_summaries(self, owner: str, lease: timedelta, limit: int) -> list[SummaryLease]:
        """Takes up to ``limit`` summaries that are due, for as long as the lease lasts.

        Order: priority (lifted by age), then the client of which the owner has fewest in hand, then longest due first.
        Slots are kept for others: see ``domain.fair_choice.choose_fairly``.
        """
        ...

    async def renew_summaries(self, turns: Sequence[SummaryLease], lease: timedelta) -> frozenset[int]:
        """Renews leases; returns the ids of tasks whose summary is no longer the caller's to write."""
        ...

    async def finish_summary(self, turn: SummaryLease, outcome: Summary | TaskError) -> Task:
        """``completed``, with its summary or the reason why there is none, and its outbox row. Else ``LeaseLost``."""
        ...

    async def postpone_summary(
        self, turn: SummaryLease, due_at: datetime, error: TaskError | None = None, *, counted: bool = True
    ) -> None:
        """Gives the summary back until ``due_at``, with the error kept for show. Raises ``LeaseLost``."""
        ...

    # callbacks

    async def claim_callbacks(self, owner: str, lease: timedelta, limit: int) -> list[OutboxMessage]:
        """Takes up to ``limit`` callbacks that are due, for as long as the lease lasts.

        Order: the client of which the owner has fewest in hand, then longest due first; slots are kept for others, as
        in ``claim_summaries``.
        """
        ...

    async def record_delivery(self, message: OutboxMessage, attempt: DeliveryAttempt) -> None:
        """Notes an attempt, in the outbox and in the task's record."""
        ...

    # housekeeping

    async def expire(self, older_than: datetime, limit: int) -> list[str]:
        """Deletes up to ``limit`` finished tasks finished before then; returns their media prefixes."""
        ...

    async def delete_unawaited(self, limit: int) -> list[str]:
        """Deletes up to ``limit`` tasks, whatever their state, that nobody waits for any more.

        Those are the tasks whose ``awaited_until`` has passed. Returns their media prefixes.
        """
        ...

    async def delete_expired_media(self, older_than: datetime, limit: int, statuses: Collection[Status]) -> list[str]:
        """Takes the recordings from up to ``limit`` tasks that finished so before then; returns their media prefixes.

        Their stored chunks go too, and ``media_key`` is empty from then on.
        """
        ...

    async def release_postponed(self) -> int:
        """Makes due now what was postponed by a clock that has been set back since; returns how many.

        Those are retries, summaries and callbacks that nobody has in hand, of tasks whose last change lies in the
        future. Without this they would wait for as long as the clock was ahead.
        """
        ...

    async def prune_callbacks(self, older_than: datetime, limit: int) -> int:
        """Deletes up to ``limit`` callbacks created before then that are delivered or given up; returns how many."""
        ...

    async def prune_idempotency_keys(self, limit: int) -> int:
        """Deletes up to ``limit`` idempotency keys that have expired; returns how many."""
        ...

    async def live_prefixes(self, prefixes: Collection[str], *, transcribed: bool = True) -> set[str]:
        """Which of these media prefixes belong to a task that exists.

        Without ``transcribed``, only to one that has no transcript yet, and so may need them.
        """
        ...

    async def count_queued_with_error(self, code: str) -> int:
        """Return how many queued tasks show an error of this code: those that wait for what it names."""
        ...

    async def delete_old_usage(self) -> None:
        """Forgets what was taken from clients so long ago that no limit asks for it."""
        ...
