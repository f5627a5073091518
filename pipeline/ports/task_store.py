"""The port of the durable queue that task records form, with the summaries and callbacks that are due."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from pipeline.domain.audio.spans import Chunk
from pipeline.domain.decoding.transcript import ChunkResult, Transcript
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.scheduling.claim_rule import NO_RUNNING_TASKS, RunningTasks
from pipeline.domain.summaries.summary import Summary
from pipeline.domain.tasks.client import AudioCharge
from pipeline.domain.tasks.task import Status, Task, TaskError
from pipeline.ports.callbacks import DeliveryAttempt, OutboxMessage
from pipeline.ports.task_records import TaskRecords
from pipeline.ports.task_values import Lease, SummaryLease


class TaskStore(TaskRecords, Protocol):
    """The durable queue and the record of every task, on SQLite or MySQL.

    Methods that take a ``Lease`` raise ``LeaseLost`` unless the task is still ``processing`` under the same fence.
    """

    async def migrate(self) -> None:
        """Upgrade the schema to this version; safe to call from many processes at once."""
        ...

    async def close(self) -> None:
        """Close every connection."""
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
        """Claim up to ``limit`` tasks of the given priority ranks that are queued and due, or whose lease expired.

        Order: priority (lifted by age), then turns between clients, given what the caller holds, then age, then id
        (``domain.scheduling.claim_rule``). If fewer than ``limit`` are returned there may be more; if none is returned
        there is nothing to claim. Each claim sets owner, lease, ``fence + 1``,
        ``attempts + 1``, ``started_at``, ``processing``, ``Task.first_stage``; ``losses + 1`` where a lease expired.
        Expired tasks that were lost too often without progress are left to ``fail_exhausted``. A task with a damaged
        record is failed (``record_unreadable``) instead, and one that only a newer version can read is left as it is.
        """
        ...

    async def heartbeat(self, leases: Sequence[Lease], lease: timedelta) -> frozenset[int]:
        """Renew leases; return the ids of tasks that the caller has lost (expired, cancelled or deleted)."""
        ...

    async def fail_exhausted(self, max_losses: int) -> list[Task]:
        """Fail (``attempts_exhausted``) the tasks whose lease expired ``max_losses`` times in a row without progress.

        Progress is a part or a result that was not stored before. Returns the tasks.
        """
        ...

    async def fail_unreachable(self, limit: int) -> list[Task]:
        """Fail up to ``limit`` tasks whose damaged record hides them from every claim; return them.

        A damaged record that a claim finds is failed by the claim.
        """
        ...

    async def lease_owners(self) -> frozenset[str]:
        """Return the owners of task leases, and of callback leases that have not expired."""
        ...

    async def expire_leases_of(self, owner: str) -> None:
        """End every lease of an owner that is known to be dead, so that nobody waits for them to expire."""
        ...

    async def update(self, lease: Lease, **changes: Any) -> None:
        """Set fields of the record (names of ``Task``): stage, media_key, file_duration_s and so on.

        With ``split_done``, ``file_duration_s`` is charged to the task's client unless its parts were.
        """
        ...

    async def save_crawl_record(self, lease: Lease, record: CrawlRecord) -> None:
        """Store what a site says about the task's recording; a later record replaces an earlier one."""
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
        """Commit a part of prepared audio with its chunks, and raise ``audio_total_s`` by their duration.

        The same transaction charges the part to the task's client, once: ``charge``, or its length without a limit.
        Raises ``QuotaExceeded`` if the client's audio is used up; nothing is committed then.

        A part is progress: it resets ``failures`` and ``losses`` to 0, as ``save_results`` does.
        """
        ...

    async def save_results(self, lease: Lease, results: Sequence[ChunkResult]) -> None:
        """Store finished chunks once each and raise ``audio_done_s`` by their duration; ignore chunks stored before."""
        ...

    async def complete(self, lease: Lease, transcript: Transcript) -> Task:
        """Complete a task: store its transcript and, if it has a ``callback_url``, its outbox row, in one transaction.

        All of its audio counts as decoded, since the last results are stored only as part of the transcript.

        If a summary was requested, the task stays ``processing`` in stage ``summarizing`` without an owner, its summary
        is due, and the fence is raised, which ends the lease.
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
        """Fail a task and store its outbox row, or queue it again from ``retry_at`` on and keep the error for clients.

        Both raise ``failures`` by one if ``counted``. Without ``keep_prepared``, parts, chunks and results are deleted,
        so that a retry begins with the recording.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Queue a task again at once without counting the attempt, for a Dispatcher that shuts down."""
        ...

    # summaries

    async def claim_summaries(self, owner: str, lease: timedelta, limit: int) -> list[SummaryLease]:
        """Claim up to ``limit`` summaries that are due, for the duration of the lease.

        Order: priority (lifted by age), then the client of which the owner has fewest in hand, then longest due first.
        Slots are kept for other clients (``domain.scheduling.due_choice.choose_fairly``).
        """
        ...

    async def renew_summaries(self, turns: Sequence[SummaryLease], lease: timedelta) -> frozenset[int]:
        """Renew leases; return the ids of tasks whose summary the caller may not write any more."""
        ...

    async def finish_summary(self, turn: SummaryLease, outcome: Summary | TaskError) -> Task:
        """Complete a task with its summary, or the reason for its absence, and its outbox row. Raises ``LeaseLost``."""
        ...

    async def postpone_summary(
        self, turn: SummaryLease, due_at: datetime, error: TaskError | None = None, *, counted: bool = True
    ) -> None:
        """Release the summary until ``due_at``, and keep the error for clients. Raises ``LeaseLost``."""
        ...

    # callbacks

    async def claim_callbacks(self, owner: str, lease: timedelta, limit: int) -> list[OutboxMessage]:
        """Claim up to ``limit`` callbacks that are due, for the duration of the lease.

        Order: the client of which the owner has fewest in hand, then longest due first. Slots are kept for other
        clients, as in ``claim_summaries``.
        """
        ...

    async def record_delivery(self, message: OutboxMessage, attempt: DeliveryAttempt) -> None:
        """Record a delivery attempt, in the outbox and in the task's record."""
        ...

    # housekeeping

    async def expire(self, older_than: datetime, limit: int) -> list[str]:
        """Delete up to ``limit`` tasks that finished before ``older_than``; return their media prefixes."""
        ...

    async def delete_unawaited(self, limit: int) -> list[str]:
        """Delete up to ``limit`` tasks in any state that no client waits for any more; return their media prefixes.

        Those are the tasks whose ``awaited_until`` has passed.
        """
        ...

    async def delete_expired_media(self, older_than: datetime, limit: int, statuses: Collection[Status]) -> list[str]:
        """Release the recordings of up to ``limit`` tasks finished before ``older_than``; return their media prefixes.

        Only tasks in one of the statuses count. Their stored chunks are deleted, and ``media_key`` becomes empty.
        """
        ...

    async def release_postponed(self) -> int:
        """Make due now what was postponed by a clock that has been set back since; return the number.

        Those are retries, summaries and callbacks without an owner, of tasks whose last change lies in the future.
        They would otherwise wait for as long as the clock was ahead.
        """
        ...

    async def prune_callbacks(self, older_than: datetime, limit: int) -> int:
        """Delete up to ``limit`` older callbacks that are delivered or given up; return the number."""
        ...

    async def prune_idempotency_keys(self, limit: int) -> int:
        """Delete up to ``limit`` expired idempotency keys; return the number."""
        ...

    async def live_prefixes(self, prefixes: Collection[str], *, transcribed: bool = True) -> set[str]:
        """Return those of the media prefixes that belong to an existing task.

        Without ``transcribed``, only those of tasks without a transcript, which may still need them.
        """
        ...

    async def count_queued_with_error(self, code: str) -> int:
        """Return the number of queued tasks that show an error of this code, and so wait for what it names."""
        ...

    async def delete_old_usage(self) -> None:
        """Delete usage that is too old to count towards any quota."""
        ...
