"""Statements about the run of a task, from its claim to its results."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Integer,
    Select,
    Update,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    tuple_,
    union,
    union_all,
    update,
)

from pipeline.domain.tasks.task import Stage, Status
from pipeline.ports import Lease
from pipeline.store.connection.column_types import UtcDateTime
from pipeline.store.connection.dialects import force_index
from pipeline.store.queries.common import (
    LIVE,
    NEXT_FENCE,
    NO_OWNER,
    NO_SUMMARY_DUE,
    PROCESSING,
    PROGRESS,
    QUEUED,
    not_left_by,
)
from pipeline.store.rows.vocabulary import vocabulary_digest
from pipeline.store.tables import (
    CHUNK_RESULTS,
    CHUNKS,
    OUTBOX,
    PARTS,
    TASKS,
)

LEASE_INDEX = "ix_tasks_status_lease_expires_at"
"""What a claim walks. MySQL is told so: it would rather walk all tasks by age, and the finished ones first."""
MAX_DATETIME = datetime.max.replace(tzinfo=UTC)
"""A time that is later in SQLite is none."""

LOST = -1
"""Group of the candidates whose owner was lost."""

CLAIM_INDEX = "ix_tasks_status_priority_rank_client_created_at_id_available_at"
"""Index in which the tasks of a client and rank lie in the order they are claimed."""


@cache
def claim_heads(ranks: frozenset[int], *, loose_scans: bool) -> CompoundSelect[Any]:
    """The first task of each client and rank that is due; parameter ``now``. Nothing is locked yet.

    Each is found in its place in an index, whatever waits behind it.

    Args:
        ranks: which ones.
        loose_scans: whether the database skips from one distinct value to the next by itself.
    """
    now = bindparam("now", type_=UtcDateTime())
    clients = _distinct_clients if loose_scans else _next_clients
    heads = []
    for rank in sorted(ranks):
        named = clients(rank)
        heads += [_head(rank, TASKS.c.client == named.c.client, now, named), _head(rank, TASKS.c.client.is_(None), now)]
    return union_all(*heads)


def _head(
    rank: int, of_client: ColumnElement[bool], now: BindParameter[datetime], clients: FromClause | None = None
) -> Select[Any]:
    first = _walk(select(TASKS.c.id, TASKS.c.created_at).where(TASKS.c.priority_rank == rank, of_client, _due(now)))
    client = null() if clients is None else clients.c.client
    columns = [
        first.with_only_columns(column).limit(1).scalar_subquery().label(column.name)
        for column in (TASKS.c.id, TASKS.c.created_at)
    ]
    head = select(literal(rank).label("priority_rank"), client.label("client"), *columns)
    return head if clients is None else head.where(clients.c.client.is_not(None))


def _distinct_clients(rank: int) -> FromClause:
    """The clients that have tasks of a rank in the queue; all three columns, or MySQL reads every row."""
    columns = TASKS.c.status, TASKS.c.priority_rank, TASKS.c.client
    return _in_claim_index(select(*columns).where(*_queued_after(TASKS, rank)).distinct()).subquery(f"clients_{rank}")


def _next_clients(rank: int) -> FromClause:
    """The same, one after another, for databases that would read every row to find what differs; ends with ``NULL``."""
    first, following = TASKS.alias(), TASKS.alias()
    clients = select(func.min(first.c.client).label("client")).where(*_queued_after(first, rank))
    walked = clients.cte(f"clients_{rank}", recursive=True)
    after = select(func.min(following.c.client)).where(*_queued_after(following, rank, walked.c.client))
    return walked.union_all(select(after.scalar_subquery()).where(walked.c.client.is_not(None)))


def _queued_after(
    tasks: FromClause, rank: int, client: ColumnElement[str] | None = None
) -> tuple[ColumnElement[bool], ...]:
    """One bound only: of two, SQLite may walk from the lower one."""
    lowest: ColumnElement[str] = literal("") if client is None else client
    return tasks.c.status == QUEUED, tasks.c.priority_rank == rank, tasks.c.client > lowest


@lru_cache(maxsize=256)
def claim_candidates(
    groups: tuple[tuple[int, bool], ...], abandoned_ranks: frozenset[int]
) -> CompoundSelect[Any] | Select[Any]:
    """The first tasks of groups that may be claimed, and of those whose owner was lost.

    Within a group ageing changes nothing, so each branch walks an index in its order and stops; how the branches
    interleave is ``ClaimRule``'s to say. Nothing is locked yet. Built once: it is the longest and the most frequent.

    Args:
        groups: rank of each, and whether it is a client's; the parameters are ``now``, ``max_losses``, ``depth`` and,
            for the group of number 3 that is a client's, ``client_3``.
        abandoned_ranks: ranks of tasks whose owner was lost.
    """
    now, max_losses = bindparam("now", type_=UtcDateTime()), bindparam("max_losses", type_=Integer())
    columns = TASKS.c.id, TASKS.c.priority_rank, TASKS.c.client, TASKS.c.created_at
    due = [
        _walk(select(*columns, literal(number).label("group")).where(TASKS.c.priority_rank == rank, of, _due(now)))
        for number, (rank, named) in enumerate(groups)
        for of in [_of_client(number) if named else TASKS.c.client.is_(None)]
    ]
    lost = [
        force_index(select(*columns, literal(LOST).label("group")), TASKS, LEASE_INDEX)
        .where(TASKS.c.priority_rank == rank, _abandoned(now, max_losses))
        .order_by(TASKS.c.created_at, TASKS.c.id)
        for rank in sorted(abandoned_ranks)
    ]
    branches = [branch.limit(bindparam("depth", type_=Integer())).subquery() for branch in (*due, *lost)]
    return union_all(*(select(branch) for branch in branches))


def _walk(tasks: Select[Any]) -> Select[Any]:
    """The tasks of one client and rank in the order of the index."""
    return _in_claim_index(tasks).order_by(TASKS.c.created_at, TASKS.c.id)


def _in_claim_index(tasks: Select[Any]) -> Select[Any]:
    """The same by the index of claims: MySQL may prefer another one that reads every task of the other clients."""
    return force_index(tasks, TASKS, CLAIM_INDEX)


def _of_client(number: int) -> ColumnElement[bool]:
    return TASKS.c.client == bindparam(f"client_{number}", type_=TASKS.c.client.type)


_FIRST_STAGE = case(
    (TASKS.c.split_done, Stage.TRANSCRIBING.value),
    (TASKS.c.media_key.is_not(None), Stage.SPLITTING.value),
    else_=Stage.FETCHING.value,
)
"""``Task.first_stage`` in SQL."""


def lock_claimable(task_ids: Collection[int], now: datetime, max_losses: int) -> Select[Any]:
    """Those of the candidates that are still to be had; rows another process is about to take are passed over."""
    return select(TASKS).where(TASKS.c.id.in_(task_ids), _claimable(now, max_losses)).with_for_update(skip_locked=True)


def claim_tasks(
    task_ids: Collection[int], now: datetime, max_losses: int, owner: str, lease_expires_at: datetime
) -> Update:
    """Takes tasks, as ``domain.lifecycle.claimed`` says: the condition decides, whatever was chosen before."""
    values: dict[Column[Any], Any] = {
        # First, because MySQL goes from left to right: further on, the status would be the new one.
        TASKS.c.losses: case((TASKS.c.status == PROCESSING, TASKS.c.losses + 1), else_=TASKS.c.losses),
        TASKS.c.status: PROCESSING,
        TASKS.c.owner: owner,
        TASKS.c.lease_expires_at: lease_expires_at,
        TASKS.c.fence: NEXT_FENCE,
        TASKS.c.attempts: TASKS.c.attempts + 1,
        TASKS.c.started_at: now,
        TASKS.c.updated_at: now,
        TASKS.c.available_at: None,
        TASKS.c.stage: _FIRST_STAGE,
    }
    return update(TASKS).where(TASKS.c.id.in_(task_ids), _claimable(now, max_losses)).ordered_values(*values.items())


def fail_unreadable(task_id: int, code: str, message: str, now: datetime) -> Update:
    """Ends a task whose record is damaged, whoever runs it."""
    return (
        update(TASKS)
        .where(TASKS.c.id == task_id, TASKS.c.status.in_(LIVE))
        .values(
            status=Status.FAILED.value,
            fence=NEXT_FENCE,
            finished_at=now,
            updated_at=now,
            available_at=None,
            error_code=code,
            error_message=message,
            **NO_OWNER,
            **NO_SUMMARY_DUE,
        )
    )


def leave_tasks(task_ids: Collection[int], by: str) -> Update:
    """Marks tasks that the version of a vocabulary leaves to a newer one."""
    return update(TASKS).where(TASKS.c.id.in_(task_ids)).values(left_by=by)


def unreachable(limit: int) -> CompoundSelect[int]:
    """Tasks that no claim ever comes to: a rank that is no rank, a time that never comes, or none where one must be."""
    rank = TASKS.c.priority_rank
    no_rank = or_(rank.is_(None), rank < -(2**15), rank >= 2**15, rank != cast(rank, Integer))
    queued = TASKS.c.status == QUEUED, or_(no_rank, TASKS.c.available_at > MAX_DATETIME)
    no_lease = and_(TASKS.c.lease_expires_at.is_(None), TASKS.c.summary_due_at.is_(None))
    never = or_(TASKS.c.lease_expires_at > MAX_DATETIME, TASKS.c.summary_due_at > MAX_DATETIME)
    processing = TASKS.c.status == PROCESSING, or_(no_rank, never, no_lease)
    found = [
        select(TASKS.c.id).where(*conditions, not_left_by(vocabulary_digest())).limit(limit).subquery()
        for conditions in (queued, processing)
    ]
    return union_all(*(select(each) for each in found))


def lock_tasks(task_ids: Collection[int]) -> Select[Any]:
    """These of the tasks that nobody else has locked."""
    return select(TASKS).where(TASKS.c.id.in_(task_ids)).order_by(TASKS.c.id).with_for_update(skip_locked=True)


def renew_leases(leases: Sequence[Lease], lease_expires_at: datetime) -> Update:
    """Renews those of the leases that still hold."""
    return (
        update(TASKS)
        .where(
            TASKS.c.id.in_([lease.task_id for lease in leases]),
            TASKS.c.status == PROCESSING,
            # Not an OR of each: SQLite takes no expression that is more than 1,000 deep.
            tuple_(TASKS.c.id, TASKS.c.fence).in_([(lease.task_id, lease.fence) for lease in leases]),
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


def lease_owners(now: datetime) -> CompoundSelect[str]:
    """Who holds a lease of a task, or one of a callback or a summary that has not expired yet."""
    of_tasks = select(TASKS.c.owner).where(TASKS.c.status == PROCESSING, TASKS.c.owner.is_not(None))
    of_callbacks = select(OUTBOX.c.owner).where(OUTBOX.c.due_at > now, OUTBOX.c.owner.is_not(None))
    of_summaries = select(TASKS.c.summary_owner).where(TASKS.c.summary_due_at > now, TASKS.c.summary_owner.is_not(None))
    return union(of_tasks, of_callbacks, of_summaries)


def expire_task_leases(owner: str, expired_at: datetime) -> Update:
    """Ends the leases of an owner on tasks."""
    return update(TASKS).where(TASKS.c.status == PROCESSING, TASKS.c.owner == owner).values(lease_expires_at=expired_at)


def expire_callback_leases(owner: str, now: datetime) -> Update:
    """Ends the leases of an owner on callbacks."""
    return update(OUTBOX).where(OUTBOX.c.owner == owner, OUTBOX.c.due_at > now).values(due_at=now, owner=None)


def expire_summary_leases(owner: str, now: datetime) -> Update:
    """Ends the leases of an owner on summaries."""
    return (
        update(TASKS)
        .where(TASKS.c.summary_owner == owner, TASKS.c.summary_due_at > now)
        .values(summary_due_at=now, summary_owner=None)
    )


def lock_leased(lease: Lease) -> Select[Any]:
    """The task of a lease that still holds; nobody can take it away before the transaction ends."""
    return select(TASKS).where(*_lease_holds(lease)).with_for_update()


def change_leased(lease: Lease, values: dict[str, Any]) -> Update:
    """Changes the task of a lease that still holds."""
    return update(TASKS).where(*_lease_holds(lease)).values(**values)


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


def results(task_id: int, first: int) -> Select[Any]:
    """Results of a task from a chunk on, in order."""
    return (
        select(CHUNK_RESULTS)
        .where(CHUNK_RESULTS.c.task_id == task_id, CHUNK_RESULTS.c.chunk_index >= first)
        .order_by(CHUNK_RESULTS.c.chunk_index)
    )


def parts(task_id: int) -> Select[Any]:
    """All parts of a task, in order."""
    return select(PARTS).where(PARTS.c.task_id == task_id).order_by(PARTS.c.part)


def chunks(task_id: int) -> Select[Any]:
    """All chunks of a task, in order."""
    return select(CHUNKS).where(CHUNKS.c.task_id == task_id).order_by(CHUNKS.c.chunk_index)


def _due(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    is_due = or_(TASKS.c.available_at.is_(None), TASKS.c.available_at <= now)
    return and_(TASKS.c.status == QUEUED, is_due, not_left_by(vocabulary_digest()))


def _abandoned(now: datetime | BindParameter[datetime], max_losses: int | BindParameter[int]) -> ColumnElement[bool]:
    expired = and_(TASKS.c.status == PROCESSING, TASKS.c.lease_expires_at < now, not_left_by(vocabulary_digest()))
    return and_(expired, TASKS.c.losses + 1 < max_losses)


def _exhausted(now: datetime, max_losses: int) -> tuple[ColumnElement[bool], ...]:
    expired = TASKS.c.status == PROCESSING, TASKS.c.lease_expires_at < now, not_left_by(vocabulary_digest())
    return *expired, TASKS.c.losses + 1 >= max_losses


def _claimable(now: datetime, max_losses: int) -> ColumnElement[bool]:
    """Whether a task whose id is given may be claimed.

    No database looks that up in an index, as it may do for a plain ``or``: every row that waits would be read.
    """
    return case((TASKS.c.status == QUEUED, _due(now)), else_=_abandoned(now, max_losses))


def _lease_holds(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return TASKS.c.id == lease.task_id, TASKS.c.status == PROCESSING, TASKS.c.fence == lease.fence
