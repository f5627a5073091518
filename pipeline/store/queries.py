"""Every statement of the task store, by name. They take values and return SQLAlchemy statements; nothing runs here.

All of them mean the same on SQLite and on MySQL ≥ 8.0.1 or MariaDB ≥ 10.6. ``FOR UPDATE`` is left out on SQLite by
SQLAlchemy: there a writing transaction has the whole database to itself from its first statement.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    CompoundSelect,
    Delete,
    Insert,
    Integer,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    union,
    union_all,
    update,
)

from pipeline.domain.task import Stage, Status
from pipeline.ports import Lease, SummaryTurn, TaskQuery
from pipeline.store.engine import UtcDateTime
from pipeline.store.tables import (
    CHUNK_RESULTS,
    CHUNKS,
    CRAWL_RECORDS,
    IDEMPOTENCY_KEYS,
    OUTBOX,
    PARTS,
    TASKS,
    TRANSCRIPTS,
)

QUEUED, PROCESSING = Status.QUEUED.value, Status.PROCESSING.value
LIVE = (QUEUED, PROCESSING)
DENSITY_SAMPLE = 100
"""Recordings from which the length of those that wait is estimated."""
NO_OWNER: dict[str, Any] = {"owner": None, "lease_expires_at": None, "stage": None}
"""Columns of a task that nobody runs."""
UNPREPARED: dict[str, Any] = {"split_done": False, "audio_total_s": 0.0, "audio_done_s": 0.0}
"""Columns of a task of which nothing is prepared."""
PROGRESS: dict[str, Any] = {"failures": 0, "losses": 0}
"""Columns of a task that got further."""
NO_SUMMARY_DUE: dict[str, Any] = {"summary_owner": None, "summary_due_at": None}
"""Columns of a task whose summary nobody is to write."""


# --- records ----------------------------------------------------------------------------------------------------------


def insert_rows(table: Table) -> Insert:
    """New rows; the values come with the execution."""
    return insert(table)


def task(task_id: int, *, with_result: bool = False) -> Select[Any]:
    """One task, with its transcript where asked."""
    return _tasks(with_result=with_result).where(TASKS.c.id == task_id)


def tasks(task_ids: Collection[int]) -> Select[Any]:
    """Several tasks, without transcripts."""
    return select(TASKS).where(TASKS.c.id.in_(task_ids))


def task_page(query: TaskQuery) -> Select[Any]:
    """One page of the tasks that match."""
    order = [column.desc() if query.descending else column for column in (TASKS.c.created_at, TASKS.c.id)]
    statement = _tasks(with_result=query.include_result).where(*_filters(query))
    return statement.order_by(*order).limit(query.limit).offset(query.offset)


def task_count(query: TaskQuery) -> Select[int]:
    """How many tasks match in all."""
    return select(func.count()).select_from(TASKS).where(*_filters(query))


def recent_density() -> Select[float, int]:
    """Seconds and bytes of the recordings that were finished last."""
    recent = (
        select(TASKS.c.file_duration_s.label("seconds"), TASKS.c.file_size_bytes.label("size_bytes"))
        .where(TASKS.c.finished_at.is_not(None), TASKS.c.file_duration_s > 0, TASKS.c.file_size_bytes > 0)
        .order_by(TASKS.c.finished_at.desc())
        .limit(DENSITY_SAMPLE)
        .subquery()
    )
    return select(func.sum(recent.c.seconds).label("seconds"), func.sum(recent.c.size_bytes).label("size_bytes"))


def live_totals(seconds_a_byte: float) -> Select[Any]:
    """Per status and priority of the tasks that wait or run: how many, their audio to come, the oldest.

    What is not split yet counts by its size.
    """
    estimate_s = func.coalesce(TASKS.c.file_size_bytes, 0) * seconds_a_byte
    unsplit = and_(TASKS.c.split_done.is_(False), estimate_s > TASKS.c.audio_total_s)
    pending_s = case((unsplit, estimate_s), else_=TASKS.c.audio_total_s) - TASKS.c.audio_done_s
    return (
        select(
            TASKS.c.status,
            TASKS.c.priority_rank,
            func.count().label("tasks"),
            func.sum(case((pending_s > 0, pending_s), else_=0.0)).label("pending_audio_s"),
            func.min(TASKS.c.created_at).label("oldest"),
        )
        .where(TASKS.c.status.in_(LIVE))
        .group_by(TASKS.c.status, TASKS.c.priority_rank)
    )


def cancel_task(task_id: int, now: datetime) -> Update:
    """Ends a task that waits or runs; the higher fence takes it from its owner."""
    return (
        update(TASKS)
        .where(TASKS.c.id == task_id, TASKS.c.status.in_(LIVE))
        .values(
            status=Status.CANCELLED.value,
            fence=TASKS.c.fence + 1,
            finished_at=now,
            updated_at=now,
            available_at=None,
            error_code=None,
            error_message=None,
            **NO_OWNER,
            **NO_SUMMARY_DUE,
        )
    )


def requeue_task(task_id: int, now: datetime) -> Update:
    """Gives a failed or cancelled task a fresh start; its chunks stay.

    A recording that can be fetched again is, unless it was split already: the stored one may be what failed.
    """
    fetched = and_(TASKS.c.file_url.is_not(None), ~TASKS.c.split_done)
    return (
        update(TASKS)
        .where(
            TASKS.c.id == task_id,
            TASKS.c.status.in_((Status.FAILED.value, Status.CANCELLED.value)),
            or_(TASKS.c.media_key.is_not(None), TASKS.c.file_url.is_not(None), _has_result()),
        )
        .values(
            status=QUEUED,
            attempts=0,
            failures=0,
            losses=0,
            started_at=None,
            finished_at=None,
            updated_at=now,
            error_code=None,
            error_message=None,
            callback_status_code=None,
            callback_message=None,
            callback_time=None,
            summary_error_code=None,
            summary_error_message=None,
            media_key=case((fetched, None), else_=TASKS.c.media_key),
        )
    )


def crawl_record(task_id: int) -> Select[str]:
    """What is kept of a task's link."""
    return select(CRAWL_RECORDS.c.record).where(CRAWL_RECORDS.c.task_id == task_id)


def delete_tasks(task_ids: Collection[int]) -> Delete:
    """Removes tasks; foreign keys take along all that hangs on them."""
    return delete(TASKS).where(TASKS.c.id.in_(task_ids))


def expired_records(older_than: datetime, limit: int) -> Select[Any]:
    """Finished tasks to be forgotten, oldest first; not those whose callback is still to be delivered."""
    owed = select(OUTBOX.c.id).where(OUTBOX.c.task_id == TASKS.c.id, OUTBOX.c.due_at.is_not(None))
    return (
        select(TASKS.c.id, TASKS.c.media_prefix)
        .where(TASKS.c.finished_at < older_than, ~owed.correlate(TASKS).exists())
        .order_by(TASKS.c.finished_at, TASKS.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def await_until(task_id: int, until: datetime) -> Update:
    """Somebody still waits for the task."""
    return update(TASKS).where(TASKS.c.id == task_id).values(awaited_until=until)


def unawaited_records(now: datetime, limit: int) -> Select[Any]:
    """Tasks that were only wanted while somebody waited, and nobody does."""
    return (
        select(TASKS.c.id, TASKS.c.media_prefix)
        .where(TASKS.c.awaited_until < now)
        .order_by(TASKS.c.awaited_until, TASKS.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def prefixes_in_use(prefixes: Collection[str], *, transcribed: bool) -> Select[str]:
    """Which of these media prefixes belong to a task; without ``transcribed``, to one that has no transcript yet."""
    statement = select(TASKS.c.media_prefix).where(TASKS.c.media_prefix.in_(prefixes)).distinct()
    return statement if transcribed else statement.where(~_has_result())


def finished_recordings(older_than: datetime, limit: int, statuses: Collection[Status]) -> Select[Any]:
    """Finished tasks whose recording is still kept, oldest first."""
    return (
        select(TASKS.c.id, TASKS.c.media_prefix)
        .where(
            TASKS.c.finished_at < older_than,
            TASKS.c.media_key.is_not(None),
            TASKS.c.status.in_([status.value for status in statuses]),
        )
        .order_by(TASKS.c.finished_at, TASKS.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def forget_recordings(task_ids: Collection[int]) -> Update:
    """The tasks have no recording and no prepared audio any more."""
    return update(TASKS).where(TASKS.c.id.in_(task_ids)).values(media_key=None, **UNPREPARED)


# --- idempotency keys -------------------------------------------------------------------------------------------------


def idempotency_key(key_sha256: str, now: datetime) -> Select[Any]:
    """A key that still counts."""
    return select(IDEMPOTENCY_KEYS.c.fingerprint, IDEMPOTENCY_KEYS.c.task_id).where(
        IDEMPOTENCY_KEYS.c.key_sha256 == key_sha256, IDEMPOTENCY_KEYS.c.expires_at > now
    )


def forget_expired_key(key_sha256: str, now: datetime) -> Delete:
    """Makes room for a key that may be used again."""
    return delete(IDEMPOTENCY_KEYS).where(
        IDEMPOTENCY_KEYS.c.key_sha256 == key_sha256, IDEMPOTENCY_KEYS.c.expires_at <= now
    )


def expired_keys(now: datetime, limit: int) -> Select[str]:
    """Keys that may be used again."""
    return select(IDEMPOTENCY_KEYS.c.key_sha256).where(IDEMPOTENCY_KEYS.c.expires_at <= now).limit(limit)


def delete_keys(digests: Collection[str], now: datetime) -> Delete:
    """Forgets keys, but not one that was used anew since."""
    return delete(IDEMPOTENCY_KEYS).where(
        IDEMPOTENCY_KEYS.c.key_sha256.in_(digests), IDEMPOTENCY_KEYS.c.expires_at <= now
    )


# --- the run of a task ------------------------------------------------------------------------------------------------


@cache
def claim_candidates(ranks: frozenset[int]) -> CompoundSelect[Any]:
    """The first tasks of each rank that may be claimed; parameters ``now``, ``max_losses``, ``depth`` of each kind.

    Within a rank ageing changes nothing, so each branch walks an index in its order and stops; how the branches
    interleave is ``claim_order``'s to say. Nothing is locked yet. Built once: it is the longest and the most frequent.
    """
    now, max_losses = bindparam("now", type_=UtcDateTime()), bindparam("max_losses", type_=Integer())
    branches = [
        select(TASKS.c.id, TASKS.c.priority_rank, TASKS.c.created_at)
        .where(TASKS.c.priority_rank == rank, condition)
        .order_by(TASKS.c.created_at, TASKS.c.id)
        .limit(bindparam("depth", type_=Integer()))
        .subquery()
        for rank in sorted(ranks)
        for condition in (_due(now), _abandoned(now, max_losses))
    ]
    return union_all(*(select(branch) for branch in branches))


_FIRST_STAGE = case(
    (TASKS.c.split_done, Stage.TRANSCRIBING.value),
    (TASKS.c.media_key.is_not(None), Stage.SPLITTING.value),
    else_=Stage.FETCHING.value,
)
"""``Task.first_stage`` in SQL."""


def lock_claimable(task_ids: Collection[int], now: datetime, max_losses: int) -> Select[int]:
    """Those of the candidates that are still to be had; rows another process is about to take are passed over."""
    return (
        select(TASKS.c.id)
        .where(TASKS.c.id.in_(task_ids), _claimable(now, max_losses))
        .with_for_update(skip_locked=True)
    )


def claim_tasks(
    task_ids: Collection[int], now: datetime, max_losses: int, owner: str, lease_expires_at: datetime
) -> Update:
    """Takes tasks: the condition decides, whatever was chosen before."""
    values: dict[Column[Any], Any] = {
        # First, because MySQL goes from left to right: further on, the status would be the new one.
        TASKS.c.losses: case((TASKS.c.status == PROCESSING, TASKS.c.losses + 1), else_=TASKS.c.losses),
        TASKS.c.status: PROCESSING,
        TASKS.c.owner: owner,
        TASKS.c.lease_expires_at: lease_expires_at,
        TASKS.c.fence: TASKS.c.fence + 1,
        TASKS.c.attempts: TASKS.c.attempts + 1,
        TASKS.c.started_at: now,
        TASKS.c.updated_at: now,
        TASKS.c.available_at: None,
        TASKS.c.stage: _FIRST_STAGE,
    }
    return update(TASKS).where(TASKS.c.id.in_(task_ids), _claimable(now, max_losses)).ordered_values(*values.items())


def renew_leases(leases: Sequence[Lease], lease_expires_at: datetime) -> Update:
    """Renews those of the leases that still hold."""
    return (
        update(TASKS)
        .where(
            TASKS.c.id.in_([lease.task_id for lease in leases]),
            TASKS.c.status == PROCESSING,
            or_(*(and_(TASKS.c.id == lease.task_id, TASKS.c.fence == lease.fence) for lease in leases)),
        )
        .values(lease_expires_at=lease_expires_at)
    )


def running_fences(task_ids: Collection[int]) -> Select[int, int]:
    """The fences of those of the tasks that run."""
    return select(TASKS.c.id, TASKS.c.fence).where(TASKS.c.id.in_(task_ids), TASKS.c.status == PROCESSING)


def any_exhausted(now: datetime, max_losses: int) -> Select[int]:
    """Whether there is a task whose lease expired once too often."""
    return select(TASKS.c.id).where(*_exhausted(now, max_losses)).limit(1)


def lock_exhausted(now: datetime, max_losses: int) -> Select[Any]:
    """Tasks whose lease expired once too often."""
    return select(TASKS).where(*_exhausted(now, max_losses)).order_by(TASKS.c.id).with_for_update(skip_locked=True)


def owners(now: datetime) -> CompoundSelect[str]:
    """Who holds a lease of a task, or one of a callback or a summary that has not expired yet."""
    of_tasks = select(TASKS.c.owner).where(TASKS.c.status == PROCESSING, TASKS.c.owner.is_not(None))
    of_callbacks = select(OUTBOX.c.owner).where(OUTBOX.c.due_at > now, OUTBOX.c.owner.is_not(None))
    of_summaries = select(TASKS.c.summary_owner).where(TASKS.c.summary_due_at > now, TASKS.c.summary_owner.is_not(None))
    return union(of_tasks, of_callbacks, of_summaries)


def disown_tasks(owner: str, expired_at: datetime) -> Update:
    """Ends the leases of an owner on tasks."""
    return update(TASKS).where(TASKS.c.status == PROCESSING, TASKS.c.owner == owner).values(lease_expires_at=expired_at)


def disown_callbacks(owner: str, now: datetime) -> Update:
    """Ends the leases of an owner on callbacks."""
    return update(OUTBOX).where(OUTBOX.c.owner == owner, OUTBOX.c.due_at > now).values(due_at=now, owner=None)


def disown_summaries(owner: str, now: datetime) -> Update:
    """Ends the leases of an owner on summaries."""
    return (
        update(TASKS)
        .where(TASKS.c.summary_owner == owner, TASKS.c.summary_due_at > now)
        .values(summary_due_at=now, summary_owner=None)
    )


def lock_leased(lease: Lease) -> Select[Any]:
    """The task of a lease that still holds; nobody can take it away before the transaction ends."""
    return select(TASKS).where(*_under(lease)).with_for_update()


def change_leased(lease: Lease, values: dict[str, Any]) -> Update:
    """Changes the task of a lease that still holds."""
    return update(TASKS).where(*_under(lease)).values(**values)


def add_audio_total(lease: Lease, seconds: float, now: datetime) -> Update:
    """More audio to decode."""
    return change_leased(lease, PROGRESS | {"audio_total_s": TASKS.c.audio_total_s + seconds, "updated_at": now})


def add_audio_done(lease: Lease, seconds: float, now: datetime) -> Update:
    """More audio decoded."""
    return change_leased(lease, PROGRESS | {"audio_done_s": TASKS.c.audio_done_s + seconds, "updated_at": now})


def part_exists(task_id: int, part: int) -> Select[int]:
    """Whether a part was committed before."""
    return select(PARTS.c.part).where(PARTS.c.task_id == task_id, PARTS.c.part == part)


def results_among(task_id: int, indexes: Collection[int]) -> Select[int]:
    """Which of these chunks have a result."""
    return select(CHUNK_RESULTS.c.chunk_index).where(
        CHUNK_RESULTS.c.task_id == task_id, CHUNK_RESULTS.c.chunk_index.in_(indexes)
    )


def results(task_id: int, first: int) -> Select[str]:
    """Results of a task from a chunk on, in order."""
    return (
        select(CHUNK_RESULTS.c.result)
        .where(CHUNK_RESULTS.c.task_id == task_id, CHUNK_RESULTS.c.chunk_index >= first)
        .order_by(CHUNK_RESULTS.c.chunk_index)
    )


def parts(task_id: int) -> Select[int, int, int]:
    """All parts of a task, in order."""
    return (
        select(PARTS.c.part, PARTS.c.part_start, PARTS.c.part_end)
        .where(PARTS.c.task_id == task_id)
        .order_by(PARTS.c.part)
    )


def chunks(task_id: int) -> Select[Any]:
    """All chunks of a task, in order."""
    return select(CHUNKS).where(CHUNKS.c.task_id == task_id).order_by(CHUNKS.c.chunk_index)


def delete_of_task(table: Table, task_id: int) -> Delete:
    """A task's rows of one table: its chunks, once the transcript holds them all."""
    return delete(table).where(table.c.task_id == task_id)


# --- summaries --------------------------------------------------------------------------------------------------------


def summary_is_due(now: datetime) -> dict[str, Any]:
    """Columns of a task of which only the summary is missing; the higher fence ends the lease under which it ran."""
    return NO_OWNER | {
        "status": PROCESSING,
        "stage": Stage.SUMMARIZING.value,
        "fence": TASKS.c.fence + 1,
        "updated_at": now,
        "summary_error_code": None,
        "summary_error_message": None,
        "summary_attempts": 0,
        "summary_owner": None,
        "summary_due_at": now,
    }


def resume_summary(task_id: int, now: datetime) -> Update:
    """Sends a queued task that has its transcript on to its summary."""
    transcribed = select(TRANSCRIPTS.c.task_id).where(TRANSCRIPTS.c.task_id == task_id).exists()
    return (
        update(TASKS).where(TASKS.c.id == task_id, TASKS.c.status == QUEUED, transcribed).values(**summary_is_due(now))
    )


def due_summaries(now: datetime, limit: int) -> Select[int]:
    """Tasks whose summary is to be written now, longest due first."""
    return (
        select(TASKS.c.id)
        .where(TASKS.c.summary_due_at <= now)
        .order_by(TASKS.c.summary_due_at, TASKS.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def take_summaries(task_ids: Collection[int], owner: str, now: datetime, due_at: datetime) -> Update:
    """Keeps others from them until the lease has run out."""
    return (
        update(TASKS)
        .where(TASKS.c.id.in_(task_ids), TASKS.c.summary_due_at <= now)
        .values(summary_owner=owner, summary_due_at=due_at, summary_attempts=TASKS.c.summary_attempts + 1)
    )


def summaries_of(owner: str, task_ids: Collection[int]) -> Select[Any]:
    """Those of the tasks whose summary this owner has in hand."""
    return (
        select(TASKS.c.id, TASKS.c.fence, TASKS.c.summary_attempts, TASKS.c.summary_options)
        .where(TASKS.c.id.in_(task_ids), TASKS.c.summary_owner == owner)
        .order_by(TASKS.c.id)
    )


def renew_summary(turn: SummaryTurn, due_at: datetime) -> Update:
    """Renews one lease that still holds."""
    return change_summary(turn, {"summary_due_at": due_at})


def change_summary(turn: SummaryTurn, values: dict[str, Any]) -> Update:
    """Changes the task of a summary that is still the owner's to write."""
    return (
        update(TASKS)
        .where(
            TASKS.c.id == turn.task_id,
            TASKS.c.fence == turn.fence,
            TASKS.c.summary_owner == turn.owner,
            TASKS.c.summary_attempts == turn.attempts,
        )
        .values(**values)
    )


def change_task(task_id: int, values: dict[str, Any]) -> Update:
    """Changes a task, whatever its state."""
    return update(TASKS).where(TASKS.c.id == task_id).values(**values)


# --- callbacks --------------------------------------------------------------------------------------------------------


def due_callbacks(now: datetime, limit: int) -> Select[int]:
    """Callbacks to be delivered now, longest due first."""
    return (
        select(OUTBOX.c.id)
        .where(OUTBOX.c.due_at <= now)
        .order_by(OUTBOX.c.due_at, OUTBOX.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def take_callbacks(ids: Collection[int], owner: str, now: datetime, due_at: datetime) -> Update:
    """Keeps others from them until the lease has run out."""
    return update(OUTBOX).where(OUTBOX.c.id.in_(ids), OUTBOX.c.due_at <= now).values(owner=owner, due_at=due_at)


def callbacks(ids: Collection[int]) -> Select[Any]:
    """Messages, longest waiting first."""
    return select(OUTBOX).where(OUTBOX.c.id.in_(ids)).order_by(OUTBOX.c.id)


def note_callback(outbox_id: int, task_id: int, values: dict[str, Any]) -> Update:
    """The answer in the task's record; nothing once the message is delivered, given up or withdrawn."""
    open_message = select(OUTBOX.c.id).where(OUTBOX.c.id == outbox_id, OUTBOX.c.due_at.is_not(None)).exists()
    return update(TASKS).where(TASKS.c.id == task_id, open_message).values(**values)


def settle_callback(outbox_id: int, retry_at: datetime | None, delivered_at: datetime | None) -> Update:
    """Counts an attempt; without ``retry_at`` it was the last."""
    return (
        update(OUTBOX)
        .where(OUTBOX.c.id == outbox_id, OUTBOX.c.due_at.is_not(None))
        .values(attempts=OUTBOX.c.attempts + 1, due_at=retry_at, delivered_at=delivered_at, owner=None)
    )


def waiting_callbacks() -> Select[int]:
    """How many callbacks are still to be delivered."""
    return select(func.count()).select_from(OUTBOX).where(OUTBOX.c.due_at.is_not(None))


def settled_callbacks(older_than: datetime, limit: int) -> Select[int]:
    """Callbacks with which nothing more will happen."""
    return select(OUTBOX.c.id).where(OUTBOX.c.due_at.is_(None), OUTBOX.c.created_at < older_than).limit(limit)


def delete_callbacks(ids: Collection[int]) -> Delete:
    """Forgets callbacks."""
    return delete(OUTBOX).where(OUTBOX.c.id.in_(ids))


def withdraw_callbacks(task_id: int) -> Delete:
    """Drops what is undelivered of earlier runs: a receiver would be shown a task that is queued again."""
    return delete(OUTBOX).where(OUTBOX.c.task_id == task_id, OUTBOX.c.due_at.is_not(None))


# --- conditions -------------------------------------------------------------------------------------------------------


def _tasks(*, with_result: bool) -> Select[Any]:
    if not with_result:
        return select(TASKS)
    return select(TASKS, TRANSCRIPTS.c.transcript).outerjoin(TRANSCRIPTS, TRANSCRIPTS.c.task_id == TASKS.c.id)


def _due(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    return and_(TASKS.c.status == QUEUED, or_(TASKS.c.available_at.is_(None), TASKS.c.available_at <= now))


def _abandoned(now: datetime | BindParameter[datetime], max_losses: int | BindParameter[int]) -> ColumnElement[bool]:
    return and_(TASKS.c.status == PROCESSING, TASKS.c.lease_expires_at < now, TASKS.c.losses + 1 < max_losses)


def _exhausted(now: datetime, max_losses: int) -> tuple[ColumnElement[bool], ...]:
    return TASKS.c.status == PROCESSING, TASKS.c.lease_expires_at < now, TASKS.c.losses + 1 >= max_losses


def _claimable(now: datetime, max_losses: int) -> ColumnElement[bool]:
    return or_(_due(now), _abandoned(now, max_losses))


def _under(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return TASKS.c.id == lease.task_id, TASKS.c.status == PROCESSING, TASKS.c.fence == lease.fence


def _filters(query: TaskQuery) -> list[ColumnElement[bool]]:
    equal = {
        TASKS.c.status: query.status,
        TASKS.c.language: query.language,
        TASKS.c.engine_name: query.engine_name,
        TASKS.c.task_type: query.task_type,
        TASKS.c.platform: query.platform,
        TASKS.c.client: query.client,
    }
    # str(): a driver knows text, not enums.
    conditions = [column == str(value) for column, value in equal.items() if value is not None]
    if query.priority is not None:
        conditions.append(TASKS.c.priority_rank == query.priority.rank)
    if query.created_after is not None:
        conditions.append(TASKS.c.created_at >= query.created_after)
    if query.created_before is not None:
        conditions.append(TASKS.c.created_at <= query.created_before)
    if query.has_result is not None:
        conditions.append(_has_result() if query.has_result else ~_has_result())
    if query.has_error is not None:
        conditions.append(TASKS.c.error_code.is_not(None) if query.has_error else TASKS.c.error_code.is_(None))
    return conditions


def _has_result() -> ColumnElement[bool]:
    return select(TRANSCRIPTS.c.task_id).where(TRANSCRIPTS.c.task_id == TASKS.c.id).correlate(TASKS).exists()
