"""A task store in memory, with the behaviour of the SQL one except durability."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from typing_extensions import override

from pipeline.domain.audio.spans import Chunk, to_seconds
from pipeline.domain.decoding.transcript import ChunkResult, Transcript
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.scheduling.claim_rule import NO_RUNNING_TASKS, ClaimCandidate, ClaimRule, RunningTasks
from pipeline.domain.scheduling.due_choice import DueWork, choose_fairly
from pipeline.domain.scheduling.fair_queue import AGEING_S, share_key
from pipeline.domain.summaries.summary import Summary
from pipeline.domain.tasks.client import (
    DAY,
    SECONDS_PER_BYTE,
    USAGE_RETENTION,
    AudioCharge,
    Client,
    ClientLoad,
    refuse_more_audio,
    refuse_over_quota,
)
from pipeline.domain.tasks.lifecycle import (
    CANCEL_REFUSED,
    CLOCK_TOLERANCE,
    RETRY_REFUSED,
    attempts_exhausted,
    claimed,
    message_id,
    refusal_sentence,
    refuse_fixed_fields,
)
from pipeline.domain.tasks.task import (
    CallbackState,
    IdempotencyClaim,
    NewTask,
    Priority,
    Stage,
    Status,
    SummaryState,
    Task,
    TaskError,
)
from pipeline.errors import DatabaseUnavailable, IdempotencyConflict, LeaseLost, TaskNotFound, TaskStateConflict
from pipeline.ports import (
    Clock,
    DeliveryAttempt,
    Lease,
    OutboxMessage,
    QueueStats,
    StoredChunks,
    SummaryLease,
    TaskPage,
    TaskQuery,
    TaskStore,
)

T = TypeVar("T")


@dataclass(slots=True)
class _StoredTask:
    """The stored state of one task. ``task`` never has its result."""

    task: Task
    result: Transcript | None = None
    chunks: dict[int, Chunk] = field(default_factory=dict)
    results: dict[int, ChunkResult] = field(default_factory=dict)
    parts: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    crawl: CrawlRecord | None = None


@dataclass(slots=True)
class _StoredCallback:
    """A callback in the outbox; ``due_at`` is ``None`` once it is delivered or given up."""

    message: OutboxMessage
    due_at: datetime | None
    created_at: datetime
    owner: str | None = None

    def due(self, at: datetime) -> DueWork:
        """Return the callback as a candidate for ``choose_fairly``, due at ``at``."""
        return DueWork(self.message.id, share_key(self.message.task_id, self.message.client), 0, at.timestamp())


@dataclass(frozen=True, slots=True)
class _StoredKey:
    fingerprint: str
    task_id: int
    expires_at: datetime


class MemoryTaskStore(TaskStore):
    """A ``TaskStore`` in memory, for one event loop. Every method takes effect in one step.

    Args:
        clock: source of all times.
        idempotency_ttl_s: how long an idempotency key is valid.
        ageing_s: waiting time after which a task rises by one priority.
        max_losses: number of expired leases in a row without progress after which a task is left to
            ``fail_exhausted``.

    Attributes:
        available: while ``False``, every method raises ``DatabaseUnavailable``.
    """

    def __init__(
        self, clock: Clock, *, idempotency_ttl_s: float = 86_400.0, ageing_s: float = 600.0, max_losses: int = 3
    ) -> None:
        self.available = True
        self._clock = clock
        self._idempotency_ttl = timedelta(seconds=idempotency_ttl_s)
        self._ageing_s = ageing_s
        self._max_losses = max_losses
        self._records: dict[int, _StoredTask] = {}
        self._keys: dict[str, _StoredKey] = {}
        self._outbox: dict[int, _StoredCallback] = {}
        self._taken: dict[tuple[int, int], tuple[str, float, datetime]] = {}
        self._extracted: dict[str, tuple[str, float, datetime]] = {}
        self._last_task_id = 0
        self._last_message_id = 0

    @override
    async def migrate(self) -> None:
        self._answer()

    @override
    async def ping(self) -> None:
        self._answer()

    @override
    async def close(self) -> None:
        """Do nothing: stored tasks stay, as in a database."""

    # records

    @override
    async def create(
        self, new: NewTask, idempotency: IdempotencyClaim | None = None, client: Client | None = None
    ) -> tuple[Task, bool]:
        now = self._answer()
        if idempotency and (known := self._keys.get(idempotency.key)) and known.expires_at > now:
            if known.fingerprint != idempotency.fingerprint:
                raise IdempotencyConflict("This Idempotency-Key was already used for another request; use a new key.")
            return self._record(known.task_id).task, False
        if client:
            refuse_over_quota(client, await self.client_load(client.name), now)
        self._last_task_id += 1
        task = _new_task(self._last_task_id, new, now)
        self._records[task.id] = _StoredTask(task)
        if idempotency:
            self._keys[idempotency.key] = _StoredKey(idempotency.fingerprint, task.id, now + self._idempotency_ttl)
        return task, True

    @override
    async def client_load(self, client: str) -> ClientLoad:
        since = self._answer() - DAY
        counted = (*self._taken.values(), *self._extracted.values())
        taken = [(at, audio_s) for name, audio_s, at in counted if name == client and at > since]
        return ClientLoad(
            queued_tasks=sum(task.client == client for task in self._in_status(Status.QUEUED)),
            audio_s=sum(audio_s for _at, audio_s in taken),
            oldest_at=min((at for at, _audio_s in taken), default=None),
            pending_s=self._unsplit_s(client),
        )

    @override
    async def get(self, task_id: int, *, include_result: bool = False) -> Task:
        self._answer()
        return _shown(self._record(task_id), include_result=include_result)

    @override
    async def query(self, query: TaskQuery) -> TaskPage:
        self._answer()
        matching = [record for record in self._records.values() if _matches(record, query)]
        matching.sort(key=lambda record: (record.task.created_at, record.task.id), reverse=query.descending)
        page = matching[query.offset : query.offset + query.limit]
        tasks = tuple(_shown(record, include_result=query.include_result) for record in page)
        return TaskPage(tasks, len(matching))

    @override
    async def stats(self) -> QueueStats:
        now = self._answer()
        queued = self._in_status(Status.QUEUED)
        processing = self._in_status(Status.PROCESSING)
        oldest = min((task.created_at for task in queued), default=now)
        return QueueStats(
            queued_tasks={priority: sum(task.priority is priority for task in queued) for priority in Priority},
            processing_tasks=len(processing),
            pending_audio_s=sum(self._pending_audio_s(task) for task in queued + processing),
            oldest_queued_s=max(0.0, (now - oldest).total_seconds()),
            oldest_s={priority: _age_s(queued, priority, now) for priority in Priority},
            waiting_callbacks=sum(callback.due_at is not None for callback in self._outbox.values()),
        )

    @override
    async def cancel(self, task_id: int) -> Task:
        now = self._answer()
        task = self._record(task_id).task
        if task.status.finished:
            raise TaskStateConflict(refusal_sentence(task, CANCEL_REFUSED))
        ended = replace(_without_owner(task, Status.CANCELLED, now), summary=_not_due(task.summary))
        return self._put(replace(ended, fence=task.fence + 1, finished_at=now, available_at=None, error=None))

    @override
    async def begin_extraction(self, client: Client, extraction_id: str, size_bytes: int) -> float:
        now = self._answer()
        refuse_more_audio(client.max_audio_s, await self.client_load(client.name), now)
        estimate_s = size_bytes * (self._seconds_per_byte or SECONDS_PER_BYTE)
        self._extracted[extraction_id] = (client.name, estimate_s, now)
        return estimate_s

    @override
    async def charge_extraction(self, extraction_id: str, audio_s: float) -> None:
        self._answer()
        client, _, taken_at = self._extracted[extraction_id]
        self._extracted[extraction_id] = (client, audio_s, taken_at)

    @override
    async def retry(self, task_id: int, client: Client | None = None) -> Task:
        """Put a finished task back into the queue, and withdraw undelivered callbacks of its earlier run."""
        now = self._answer()
        record = self._record(task_id)
        task = record.task
        possible = task.media_key or task.file_url or record.result is not None
        if task.status not in (Status.FAILED, Status.CANCELLED) or not possible:
            raise TaskStateConflict(refusal_sentence(task, RETRY_REFUSED))
        if client and client.name == task.client:
            limited = replace(client, max_audio_s=None) if task.split_done else client
            refuse_over_quota(limited, await self.client_load(client.name), now)
        self._drop_callbacks(task_id, settled_too=False)
        fresh = replace(
            task,
            attempts=0,
            failures=0,
            losses=0,
            started_at=None,
            finished_at=None,
            error=None,
            callback=CallbackState(),
            summary=replace(task.summary, error=None),
            media_key=None if task.file_url and not task.split_done else task.media_key,
        )
        if record.result is not None:
            return self._put(_summary_due(fresh, now))
        return self._put(_without_owner(fresh, Status.QUEUED, now))

    @override
    async def extend_wait(self, task_id: int, until: datetime) -> None:
        self._answer()
        if task_id in self._records:
            self._put(replace(self._records[task_id].task, awaited_until=until))

    @override
    async def delete(self, task_id: int) -> str:
        self._answer()
        return self._remove(self._record(task_id).task)

    # attempts

    @override
    async def claim(
        self,
        owner: str,
        lease: timedelta,
        limit: int,
        ranks: Collection[int],
        running_tasks: RunningTasks = NO_RUNNING_TASKS,
    ) -> list[Task]:
        now = self._answer()
        waiting = [
            record.task
            for record in self._records.values()
            if record.task.priority.rank in ranks and self._claimable(record.task, now)
        ]
        candidates = [ClaimCandidate(task.id, task.priority.rank, task.client, task.created_at) for task in waiting]
        places = ClaimRule(running_tasks, now, self._ageing_s).places(candidates)[: max(0, limit)]
        return [self._put(claimed(self._records[one.id].task, owner, now, now + lease)) for _, one in places]

    @override
    async def heartbeat(self, leases: Sequence[Lease], lease: timedelta) -> frozenset[int]:
        now = self._answer()
        held = [each for each in leases if self._held(each)]
        for each in held:
            self._put(replace(self._records[each.task_id].task, lease_expires_at=now + lease))
        return frozenset(each.task_id for each in leases if each not in held)

    @override
    async def fail_exhausted(self, max_losses: int) -> list[Task]:
        now = self._answer()
        lost = [task for task in self._in_status(Status.PROCESSING) if _abandoned(task, now)]
        return [
            self._fail(task, attempts_exhausted(task.losses + 1), now) for task in lost if task.losses + 1 >= max_losses
        ]

    @override
    async def fail_unreachable(self, limit: int) -> list[Task]:
        """Return no task: a record in memory is never damaged."""
        self._answer()
        return []

    @override
    async def lease_owners(self) -> frozenset[str]:
        now = self._answer()
        taken = [callback for callback in self._outbox.values() if callback.due_at and callback.due_at > now]
        of_callbacks = {callback.owner for callback in taken if callback.owner}
        tasks = [record.task for record in self._records.values()]
        of_summaries = {
            task.summary.owner
            for task in tasks
            if task.summary.due_at and task.summary.due_at > now and task.summary.owner
        }
        of_tasks = {task.owner for task in self._in_status(Status.PROCESSING) if task.owner}
        return frozenset(of_tasks | of_callbacks | of_summaries)

    @override
    async def expire_leases_of(self, owner: str) -> None:
        now = self._answer()
        for task in self._in_status(Status.PROCESSING):
            if task.owner == owner:
                self._put(replace(task, lease_expires_at=now - timedelta(seconds=1)))
        for callback in self._outbox.values():
            if callback.owner == owner and callback.due_at and callback.due_at > now:
                callback.due_at, callback.owner = now, None
        for task in (record.task for record in self._records.values()):
            if task.summary.owner == owner and task.summary.due_at and task.summary.due_at > now:
                self._put(replace(task, summary=replace(task.summary, due_at=now, owner=None)))

    @override
    async def update(self, lease: Lease, **changes: Any) -> None:
        """Set fields of the task. Raise ``TypeError`` for fields that only the store changes."""
        refuse_fixed_fields(changes)
        now = self._answer()
        task = self._put(replace(self._leased(lease).task, updated_at=now, **changes))
        is_taken = any(task_id == task.id for task_id, _ in self._taken)
        if changes.get("split_done") and task.client and task.file_duration_s is not None and not is_taken:
            self._taken[task.id, 0] = (task.client, task.file_duration_s, now)

    @override
    async def save_crawl_record(self, lease: Lease, record: CrawlRecord) -> None:
        now = self._answer()
        kept = self._leased(lease)
        kept.crawl = record
        self._put(replace(kept.task, updated_at=now))

    @override
    async def crawl_record(self, task_id: int) -> CrawlRecord | None:
        self._answer()
        return self._record(task_id).crawl

    @override
    async def add_part(
        self,
        lease: Lease,
        part: int,
        start: int,
        end: int,
        chunks: Sequence[Chunk],
        charge: AudioCharge | None = None,
    ) -> None:
        """Store a part with its chunks. A part whose number is stored already is not changed."""
        now = self._answer()
        record = self._leased(lease)
        if part in record.parts:
            return
        if record.task.client is not None and (record.task.id, part) not in self._taken:
            await self._take(record.task.client, (record.task.id, part), charge or AudioCharge(to_seconds(end - start)))
        record.parts[part] = (part, start, end)
        record.chunks.update((chunk.index, chunk) for chunk in chunks)
        total_s = record.task.audio_total_s + sum(chunk.duration_s for chunk in chunks)
        self._put(replace(record.task, audio_total_s=total_s, failures=0, losses=0, updated_at=now))

    @override
    async def save_results(self, lease: Lease, results: Sequence[ChunkResult]) -> None:
        now = self._answer()
        record = self._leased(lease)
        for result in results:
            if result.index not in record.results:
                record.results[result.index] = result
                done_s = record.task.audio_done_s + result.audio_s
                self._put(replace(record.task, audio_done_s=done_s, failures=0, losses=0, updated_at=now))

    @override
    async def chunks(self, task_id: int) -> StoredChunks:
        """Return the stored chunks; empty for a task that does not exist or is completed."""
        self._answer()
        record = self._records.get(task_id)
        if record is None:
            return StoredChunks()
        return StoredChunks(_ordered(record.chunks), _ordered(record.results), _ordered(record.parts))

    @override
    async def results(self, task_id: int, first: int) -> tuple[ChunkResult, ...]:
        """Return the stored results; empty for a task that does not exist or is completed."""
        self._answer()
        record = self._records.get(task_id)
        return _ordered(record.results, first) if record else ()

    @override
    async def complete(self, lease: Lease, transcript: Transcript) -> Task:
        """Complete the task. It is returned without its result, which the caller has."""
        now = self._answer()
        record = self._leased(lease)
        record.result = transcript
        record.chunks, record.results, record.parts = {}, {}, {}
        info = transcript.info
        known = replace(
            record.task,
            language=info.language,
            language_probability=info.language_probability,
            file_duration_s=info.duration,
        )
        if known.summary_options is not None:
            return self._put(_summary_due(known, now))
        return self._finish(known, Status.COMPLETED, None, now)

    @override
    async def fail(
        self,
        lease: Lease,
        error: TaskError,
        retry_at: datetime | None = None,
        *,
        keep_prepared: bool = True,
        counted: bool = True,
    ) -> Task:
        now = self._answer()
        task = self._leased(lease).task
        if not keep_prepared:
            task = _unprepared(self._records[task.id])
        if retry_at is None:
            return self._fail(task, error, now)
        queued = _without_owner(replace(task, failures=task.failures + counted), Status.QUEUED, now)
        return self._put(replace(queued, error=error, available_at=retry_at))

    @override
    async def release(self, lease: Lease) -> None:
        now = self._answer()
        task = self._leased(lease).task
        self._put(replace(_without_owner(task, Status.QUEUED, now), attempts=task.attempts - 1))

    # summaries

    @override
    async def claim_summaries(self, owner: str, lease: timedelta, limit: int) -> list[SummaryLease]:
        now = self._answer()
        tasks = [record.task for record in self._records.values()]
        waiting = {task.id: (task, task.summary.due_at) for task in tasks if task.summary.due_at}
        held = [_due(task, at) for task, at in waiting.values() if task.summary.owner == owner and at > now]
        due = [_due(task, at) for task, at in waiting.values() if at <= now]
        chosen = choose_fairly(due, held, limit, now.timestamp(), AGEING_S)
        return [self._take_summary(self._record(number).task, owner, now + lease) for number in chosen]

    @override
    async def renew_summaries(self, turns: Sequence[SummaryLease], lease: timedelta) -> frozenset[int]:
        now = self._answer()
        for turn in turns:
            if self._summary_held(turn):
                self._change_summary(turn, due_at=now + lease)
        return frozenset(turn.task_id for turn in turns if not self._summary_held(turn))

    @override
    async def finish_summary(self, turn: SummaryLease, outcome: Summary | TaskError) -> Task:
        now = self._answer()
        result = {"error": outcome} if isinstance(outcome, TaskError) else {"result": outcome, "error": None}
        task = self._change_summary(turn, owner=None, due_at=None, **result)
        return self._finish(task, Status.COMPLETED, task.error, now)

    @override
    async def postpone_summary(
        self, turn: SummaryLease, due_at: datetime, error: TaskError | None = None, *, counted: bool = True
    ) -> None:
        now = self._answer()
        attempts = turn.attempts if counted else turn.attempts - 1
        shown = {"error": error} if error else {}
        task = self._change_summary(turn, owner=None, due_at=due_at, attempts=attempts, **shown)
        self._put(replace(task, updated_at=now))

    @override
    async def save_summary(self, task_id: int, summary: Summary) -> None:
        now = self._answer()
        task = self._record(task_id).task
        self._put(replace(task, updated_at=now, summary=replace(task.summary, result=summary, error=None)))

    # callbacks

    @override
    async def claim_callbacks(self, owner: str, lease: timedelta, limit: int) -> list[OutboxMessage]:
        now = self._answer()
        waiting = [(each, each.due_at) for each in self._outbox.values() if each.due_at]
        held = [each.due(at) for each, at in waiting if each.owner == owner and at > now]
        due = [each.due(at) for each, at in waiting if at <= now]
        taken = sorted(choose_fairly(due, held, limit, now.timestamp(), AGEING_S))
        for number in taken:
            self._outbox[number].due_at, self._outbox[number].owner = now + lease, owner
        return [self._outbox[number].message for number in taken]

    @override
    async def record_delivery(self, message: OutboxMessage, attempt: DeliveryAttempt) -> None:
        """Record an attempt. A callback that was settled or withdrawn in the meantime is not changed."""
        now = self._answer()
        callback = self._outbox.get(message.id)
        if callback is None or callback.due_at is None:
            return
        callback.message = replace(callback.message, attempts=callback.message.attempts + 1)
        callback.due_at, callback.owner = None if attempt.delivered else attempt.retry_at, None
        state = CallbackState(attempt.status_code, attempt.message, now)
        self._put(replace(self._record(message.task_id).task, callback=state, updated_at=now))

    # housekeeping

    @override
    async def expire(self, older_than: datetime, limit: int) -> list[str]:
        """Delete expired tasks, except those whose callback is still to be delivered."""
        self._answer()
        owed = {callback.message.task_id for callback in self._outbox.values() if callback.due_at}
        finished = sorted(
            (task.finished_at, task.id)
            for task in (record.task for record in self._records.values())
            if task.finished_at and task.finished_at < older_than and task.id not in owed
        )
        return [self._remove(self._record(task_id).task) for _finished_at, task_id in finished[:limit]]

    @override
    async def delete_unawaited(self, limit: int) -> list[str]:
        now = self._answer()
        unawaited = sorted(
            (task.awaited_until, task.id)
            for task in (record.task for record in self._records.values())
            if task.awaited_until and task.awaited_until < now
        )
        return [self._remove(self._record(task_id).task) for _awaited_until, task_id in unawaited[:limit]]

    @override
    async def delete_expired_media(self, older_than: datetime, limit: int, statuses: Collection[Status]) -> list[str]:
        self._answer()
        kept = sorted(
            (record.task.finished_at, record.task.id)
            for record in self._records.values()
            if record.task.finished_at and record.task.media_key and record.task.status in statuses
        )
        expired = [self._records[task_id] for finished_at, task_id in kept if finished_at < older_than][:limit]
        for record in expired:
            self._put(replace(_unprepared(record), media_key=None))
        return [record.task.media_prefix for record in expired]

    @override
    async def release_postponed(self) -> int:
        now = self._answer()
        future, released = now + CLOCK_TOLERANCE, 0
        for task in [record.task for record in self._records.values() if record.task.updated_at > future]:
            if task.status is Status.QUEUED and task.available_at and task.available_at > future:
                self._put(replace(task, available_at=None))
                released += 1
            elif task.summary.due_at and task.summary.due_at > future and task.summary.owner is None:
                self._put(replace(task, summary=replace(task.summary, due_at=now)))
                released += 1
        for callback in self._outbox.values():
            tried_at = self._record(callback.message.task_id).task.callback.time
            stamped_at = max(callback.created_at, tried_at or callback.created_at)
            if callback.due_at and callback.due_at > future and callback.owner is None and stamped_at > future:
                callback.due_at = now
                released += 1
        return released

    @override
    async def prune_callbacks(self, older_than: datetime, limit: int) -> int:
        self._answer()
        settled = [
            number
            for number, callback in self._outbox.items()
            if callback.due_at is None and callback.created_at < older_than
        ]
        for number in settled[:limit]:
            del self._outbox[number]
        return len(settled[:limit])

    @override
    async def prune_idempotency_keys(self, limit: int) -> int:
        now = self._answer()
        expired = [name for name, key in self._keys.items() if key.expires_at <= now][:limit]
        for name in expired:
            del self._keys[name]
        return len(expired)

    @override
    async def live_prefixes(self, prefixes: Collection[str], *, transcribed: bool = True) -> set[str]:
        self._answer()
        needing = [record.task for record in self._records.values() if transcribed or record.result is None]
        return {task.media_prefix for task in needing} & set(prefixes)

    @override
    async def count_queued_with_error(self, code: str) -> int:
        self._answer()
        return sum(task.error is not None and task.error.code == code for task in self._in_status(Status.QUEUED))

    @override
    async def delete_old_usage(self) -> None:
        since = self._answer() - USAGE_RETENTION
        self._taken = {part: taken for part, taken in self._taken.items() if taken[2] > since}
        self._extracted = {name: taken for name, taken in self._extracted.items() if taken[2] > since}

    # state

    def _answer(self) -> datetime:
        if not self.available:
            raise DatabaseUnavailable("The task database does not answer.")
        return self._clock.now()

    def _record(self, task_id: int) -> _StoredTask:
        record = self._records.get(task_id)
        if record is None:
            raise TaskNotFound(f"There is no task {task_id}.")
        return record

    def _put(self, task: Task) -> Task:
        self._records[task.id].task = task
        return task

    def _in_status(self, status: Status) -> list[Task]:
        return [record.task for record in self._records.values() if record.task.status is status]

    def _claimable(self, task: Task, now: datetime) -> bool:
        if task.status is Status.QUEUED:
            return task.available_at is None or task.available_at <= now
        return _abandoned(task, now) and task.losses + 1 < self._max_losses

    def _held(self, lease: Lease) -> bool:
        record = self._records.get(lease.task_id)
        return record is not None and record.task.status is Status.PROCESSING and record.task.fence == lease.fence

    def _leased(self, lease: Lease) -> _StoredTask:
        if not self._held(lease):
            raise LeaseLost(f"Task {lease.task_id} passed to another owner, or ended, after fence {lease.fence}.")
        return self._records[lease.task_id]

    async def _take(self, client: str, part: tuple[int, int], charge: AudioCharge) -> None:
        now = self._answer()
        refuse_more_audio(charge.max_audio_s, await self.client_load(client), now)
        self._taken[part] = (client, charge.audio_s, now)

    def _unsplit_s(self, client: str) -> float:
        """Return the estimated seconds of the client's recordings that are not split yet."""
        live = self._in_status(Status.QUEUED) + self._in_status(Status.PROCESSING)
        unsplit = [task for task in live if task.client == client and not task.split_done]
        ids = {task.id for task in unsplit}
        taken_s = sum(audio_s for (task_id, _), (_, audio_s, _) in self._taken.items() if task_id in ids)
        size_bytes = sum(task.file_size_bytes or 0 for task in unsplit)
        return max(0.0, size_bytes * (self._seconds_per_byte or SECONDS_PER_BYTE) - taken_s)

    def _pending_audio_s(self, task: Task) -> float:
        total_s = task.audio_total_s
        if not task.split_done:
            total_s = max(total_s, (task.file_size_bytes or 0) * self._seconds_per_byte)
        return total_s - task.audio_done_s

    @property
    def _seconds_per_byte(self) -> float:
        recent = sorted(
            (task.finished_at, task.file_duration_s, task.file_size_bytes)
            for task in (record.task for record in self._records.values())
            if task.finished_at and task.file_duration_s and task.file_size_bytes
        )[-100:]
        return sum(each[1] for each in recent) / sum(each[2] for each in recent) if recent else 0.0

    def _fail(self, task: Task, error: TaskError, now: datetime) -> Task:
        return self._finish(replace(task, failures=task.failures + 1), Status.FAILED, error, now)

    def _finish(self, task: Task, status: Status, error: TaskError | None, now: datetime) -> Task:
        if task.callback_url:
            self._last_message_id += 1
            name = message_id(task.id, task.fence, task.media_prefix)
            message = OutboxMessage(self._last_message_id, name, task.id, task.callback_url, 0, task.client)
            self._outbox[message.id] = _StoredCallback(message, now, now)
        return self._put(replace(_without_owner(task, status, now), finished_at=now, error=error))

    def _take_summary(self, task: Task, owner: str, lease_expires_at: datetime) -> SummaryLease:
        assert task.summary_options is not None  # noqa: S101 (only tasks with these options have summaries)
        attempts = task.summary.attempts + 1
        taken = replace(task.summary, owner=owner, due_at=lease_expires_at, attempts=attempts)
        self._put(replace(task, summary=taken))
        return SummaryLease(task.id, task.media_prefix, task.fence, owner, attempts, task.summary_options)

    def _summary_held(self, turn: SummaryLease) -> bool:
        record = self._records.get(turn.task_id)
        if record is None or record.task.fence != turn.fence:
            return False
        return (record.task.summary.owner, record.task.summary.attempts) == (turn.owner, turn.attempts)

    def _change_summary(self, turn: SummaryLease, **changes: Any) -> Task:
        if not self._summary_held(turn):
            raise LeaseLost(f"The summary of task {turn.task_id} passed to another owner, or is no longer wanted.")
        task = self._records[turn.task_id].task
        return self._put(replace(task, summary=replace(task.summary, **changes)))

    def _remove(self, task: Task) -> str:
        del self._records[task.id]
        self._keys = {name: key for name, key in self._keys.items() if key.task_id != task.id}
        self._drop_callbacks(task.id, settled_too=True)
        return task.media_prefix

    def _drop_callbacks(self, task_id: int, *, settled_too: bool) -> None:
        self._outbox = {
            number: callback
            for number, callback in self._outbox.items()
            if callback.message.task_id != task_id or not (settled_too or callback.due_at)
        }


def _due(task: Task, at: datetime) -> DueWork:
    """Return a task's summary as a candidate for ``choose_fairly``, due at ``at``."""
    return DueWork(task.id, share_key(task.id, task.client), task.priority.rank, at.timestamp())


def _new_task(task_id: int, new: NewTask, now: datetime) -> Task:
    given = {name: getattr(new, name) for name in NewTask.__dataclass_fields__}
    status, language = Status.QUEUED, new.options.language
    return Task(id=task_id, status=status, language=language, created_at=now, updated_at=now, **given)


def _unprepared(record: _StoredTask) -> Task:
    """Delete the parts, chunks and results of a task; return the task without them."""
    record.chunks, record.results, record.parts = {}, {}, {}
    return replace(record.task, split_done=False, audio_total_s=0.0, audio_done_s=0.0)


def _without_owner(task: Task, status: Status, now: datetime) -> Task:
    return replace(task, status=status, owner=None, lease_expires_at=None, stage=None, updated_at=now)


def _not_due(summary: SummaryState) -> SummaryState:
    return replace(summary, owner=None, due_at=None)


def _summary_due(task: Task, now: datetime) -> Task:
    waiting = _without_owner(task, Status.PROCESSING, now)
    return replace(
        waiting,
        stage=Stage.SUMMARIZING,
        fence=task.fence + 1,
        error=None,
        summary=SummaryState(result=task.summary.result, due_at=now),
    )


def _abandoned(task: Task, now: datetime) -> bool:
    expired = task.lease_expires_at is not None and task.lease_expires_at < now
    return task.status is Status.PROCESSING and expired


def _shown(record: _StoredTask, *, include_result: bool) -> Task:
    return replace(record.task, result=record.result) if include_result else record.task


def _matches(record: _StoredTask, query: TaskQuery) -> bool:
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


def _ordered(by_number: dict[int, T], first: int = 0) -> tuple[T, ...]:
    return tuple(by_number[number] for number in sorted(by_number) if number >= first)


def _age_s(tasks: Sequence[Task], priority: Priority, now: datetime) -> float:
    """Return the age of the oldest of these tasks with the priority; 0 if there is none."""
    oldest = min((task.created_at for task in tasks if task.priority is priority), default=now)
    return max(0.0, (now - oldest).total_seconds())
