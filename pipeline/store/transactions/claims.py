"""Claims of waiting tasks: the candidates are chosen first, without a lock, and then claimed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    CompoundSelect,
    Connection,
    FromClause,
    Integer,
    Row,
    Select,
    Update,
    and_,
    bindparam,
    case,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
    update,
)

from pipeline.domain.scheduling.claim_rule import ClaimCandidate, ClaimRule, RunningTasks, known_order
from pipeline.domain.tasks.lifecycle import claimed
from pipeline.domain.tasks.task import Priority, Stage, Task
from pipeline.store.connection.column_types import UtcDateTime
from pipeline.store.connection.dialects import dialect_of, force_index
from pipeline.store.rows import task_codec
from pipeline.store.rows.row_reader import MIN_TIME
from pipeline.store.tables import TASKS
from pipeline.store.transactions.columns import NEXT_FENCE, PROCESSING, QUEUED, not_left_to_newer
from pipeline.store.transactions.row_defects import ReportDefect
from pipeline.store.transactions.unreadable_tasks import set_aside

LOOKAHEAD = 32
"""Candidates beyond the limit, because other processes may claim the first ones at the same moment."""
MAX_FLOWS = 12
"""Flows of which one claim reads more than the first task."""
FULL_DEPTH_FLOWS = len(Priority)
"""Up to so many flows are read as deep as a claim may reach. More flows are read less deep each."""
MIN_DEPTH = 8
"""Tasks that are read of each flow at least."""
ABANDONED = -1
"""Flow number of the candidates whose lease has expired."""
CLAIM_INDEX = "ix_tasks_status_priority_rank_client_created_at_id_available_at"
"""The index in which the tasks of a client and rank are in the order in which they are claimed."""
LEASE_INDEX = "ix_tasks_status_lease_expires_at"
"""The index of expired leases. MySQL is told to use it: it would rather walk all tasks by age, finished ones first."""
_FIRST_STAGE = case(
    (TASKS.c.split_done, Stage.TRANSCRIBING.value),
    (TASKS.c.media_key.is_not(None), Stage.SPLITTING.value),
    else_=Stage.FETCHING.value,
)
"""``Task.first_stage`` in SQL."""


@dataclass(frozen=True, slots=True)
class ClaimOutcome:
    """The result of a claim: the claimed tasks, and how many were set aside because their rows can't be read."""

    tasks: tuple[Task, ...]
    set_aside: int


def choose_candidates(
    connection: Connection,
    ranks: Collection[int],
    now: datetime,
    max_losses: int,
    limit: int,
    ageing_s: float,
    running_tasks: RunningTasks,
) -> list[int]:
    """Return the ids of claimable tasks in the order of the claim: more than ``limit``, because others may claim some.

    Only the flows whose turn it is are read. If there are many of those, there may be fewer ids than ``limit``.
    """
    rule = ClaimRule(running_tasks, now, ageing_s)
    loose_scans = dialect_of(connection.dialect).loose_index_scans
    rows = connection.execute(_select_heads(frozenset(ranks), loose_scans=loose_scans), {"now": now})
    heads = [_candidate(row) for row in rows if row.id is not None]
    chosen = [(head.rank, head.client) for _, head in rule.places(heads)[:MAX_FLOWS]]
    depth = max(MIN_DEPTH, (limit + LOOKAHEAD) * FULL_DEPTH_FLOWS // max(FULL_DEPTH_FLOWS, len(chosen)))
    values = {"now": now, "max_losses": max_losses, "depth": depth}
    values |= {f"client_{number}": client for number, (_, client) in enumerate(chosen) if client is not None}
    pattern = tuple((rank, client is not None) for rank, client in chosen)
    flows: dict[tuple[int, str | None], list[ClaimCandidate]] = {flow: [] for flow in chosen}
    abandoned: list[ClaimCandidate] = []
    for row in connection.execute(_select_candidates(pattern, frozenset(ranks)), values):
        (abandoned if row.group == ABANDONED else flows[chosen[row.group]]).append(_candidate(row))
    return known_order(rule, heads, flows, depth, abandoned)


def claim(
    connection: Connection,
    candidates: Sequence[int],
    limit: int,
    now: datetime,
    max_losses: int,
    owner: str,
    lease_expires_at: datetime,
    report_defect: ReportDefect,
) -> ClaimOutcome:
    """Claim the first ``limit`` of the candidates that are still claimable, in their order.

    Each row is read before it is claimed. A damaged one is failed; one of a newer version is left to that version.
    """
    won: list[Task] = []
    set_aside_count = 0
    while candidates and len(won) < limit:
        wanted, candidates = candidates[: limit - len(won)], candidates[limit - len(won) :]
        rows = connection.execute(_lock_claimable(wanted, now, max_losses)).mappings()
        locked = {row["id"]: task_codec.read_task(row) for row in rows}
        unreadable = [task for task in locked.values() if task.defect is not None]
        set_aside(connection, unreadable, now, report_defect)
        won += [locked[task_id] for task_id in wanted if task_id in locked and locked[task_id].defect is None]
        set_aside_count += len(unreadable)
    if won:
        ids = [task.id for task in won]
        connection.execute(_update_claimed(ids, now, max_losses, owner, lease_expires_at))
    return ClaimOutcome(tuple(claimed(task, owner, now, lease_expires_at) for task in won), set_aside_count)


def _candidate(row: Row[Any]) -> ClaimCandidate:
    return ClaimCandidate(row.id, row.priority_rank, row.client, _waiting_since(row.created_at))


def _waiting_since(created_at: object) -> datetime:
    """Return the time of creation. A damaged one counts as the earliest, so that the task is set aside at once."""
    return created_at if isinstance(created_at, datetime) else MIN_TIME


@cache
def _select_heads(ranks: frozenset[int], *, loose_scans: bool) -> CompoundSelect[Any]:
    """Select the first due task of each client and rank; parameter ``now``. Nothing is locked.

    Each is looked up in an index, however many tasks wait behind it.

    Args:
        ranks: the ranks to select from.
        loose_scans: whether the database itself skips from one distinct value of an index to the next.
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
    first = _in_order(select(TASKS.c.id, TASKS.c.created_at).where(TASKS.c.priority_rank == rank, of_client, _due(now)))
    client = null() if clients is None else clients.c.client
    columns = [
        first.with_only_columns(column).limit(1).scalar_subquery().label(column.name)
        for column in (TASKS.c.id, TASKS.c.created_at)
    ]
    head = select(literal(rank).label("priority_rank"), client.label("client"), *columns)
    return head if clients is None else head.where(clients.c.client.is_not(None))


def _distinct_clients(rank: int) -> FromClause:
    """Return the clients with queued tasks of a rank. With fewer than these three columns MySQL reads every row."""
    columns = TASKS.c.status, TASKS.c.priority_rank, TASKS.c.client
    return _in_claim_index(select(*columns).where(*_queued_after(TASKS, rank)).distinct()).subquery(f"clients_{rank}")


def _next_clients(rank: int) -> FromClause:
    """Return the same clients one after another, and then ``NULL``.

    It is for databases that read every row to find the distinct clients.
    """
    first, following = TASKS.alias(), TASKS.alias()
    clients = select(func.min(first.c.client).label("client")).where(*_queued_after(first, rank))
    walked = clients.cte(f"clients_{rank}", recursive=True)
    after = select(func.min(following.c.client)).where(*_queued_after(following, rank, walked.c.client))
    return walked.union_all(select(after.scalar_subquery()).where(walked.c.client.is_not(None)))


def _queued_after(
    tasks: FromClause, rank: int, client: ColumnElement[str] | None = None
) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for the queued tasks of a rank whose client follows the given one.

    They have one bound only: of two, SQLite may walk the index from the lower one.
    """
    lowest: ColumnElement[str] = literal("") if client is None else client
    return tasks.c.status == QUEUED, tasks.c.priority_rank == rank, tasks.c.client > lowest


@lru_cache(maxsize=256)
def _select_candidates(
    flows: tuple[tuple[int, bool], ...], abandoned_ranks: frozenset[int]
) -> CompoundSelect[Any] | Select[Any]:
    """Select the first claimable tasks of flows, and the tasks whose lease has expired. Nothing is locked.

    Ageing does not change the order within a flow, so each branch walks an index in its order and stops; ``ClaimRule``
    decides how the branches interleave. The statement is cached, because it is the longest and the most frequent.

    Args:
        flows: the rank of each, and whether it has a client. The parameters are ``now``, ``max_losses``, ``depth`` and,
            for each flow with a client, its name: ``client_3`` for flow number 3.
        abandoned_ranks: the ranks of tasks whose lease has expired.
    """
    now, max_losses = bindparam("now", type_=UtcDateTime()), bindparam("max_losses", type_=Integer())
    columns = TASKS.c.id, TASKS.c.priority_rank, TASKS.c.client, TASKS.c.created_at
    due = [
        _in_order(select(*columns, literal(number).label("group")).where(TASKS.c.priority_rank == rank, of, _due(now)))
        for number, (rank, named) in enumerate(flows)
        for of in [_of_client(number) if named else TASKS.c.client.is_(None)]
    ]
    abandoned = [
        force_index(select(*columns, literal(ABANDONED).label("group")), TASKS, LEASE_INDEX)
        .where(TASKS.c.priority_rank == rank, _abandoned(now, max_losses))
        .order_by(TASKS.c.created_at, TASKS.c.id)
        for rank in sorted(abandoned_ranks)
    ]
    branches = [branch.limit(bindparam("depth", type_=Integer())).subquery() for branch in (*due, *abandoned)]
    return union_all(*(select(branch) for branch in branches))


def _in_order(tasks: Select[Any]) -> Select[Any]:
    """Select the tasks of one flow in the order of the claim index."""
    return _in_claim_index(tasks).order_by(TASKS.c.created_at, TASKS.c.id)


def _in_claim_index(tasks: Select[Any]) -> Select[Any]:
    """Tell MySQL to use the claim index; it may prefer another one that reads every task of the other clients."""
    return force_index(tasks, TASKS, CLAIM_INDEX)


def _of_client(number: int) -> ColumnElement[bool]:
    return TASKS.c.client == bindparam(f"client_{number}", type_=TASKS.c.client.type)


def _lock_claimable(task_ids: Collection[int], now: datetime, max_losses: int) -> Select[Any]:
    """Lock those of the candidates that are still claimable; skip those that another process has locked."""
    return select(TASKS).where(TASKS.c.id.in_(task_ids), _claimable(now, max_losses)).with_for_update(skip_locked=True)


def _update_claimed(
    task_ids: Collection[int], now: datetime, max_losses: int, owner: str, lease_expires_at: datetime
) -> Update:
    """Claim tasks, as ``domain.tasks.lifecycle.claimed`` defines. The condition decides, whatever was chosen before."""
    values: dict[Column[Any], Any] = {
        # First, because MySQL assigns from left to right: after its assignment, the status would be the new one.
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


def _due(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    is_due = or_(TASKS.c.available_at.is_(None), TASKS.c.available_at <= now)
    return and_(TASKS.c.status == QUEUED, is_due, not_left_to_newer())


def _abandoned(now: datetime | BindParameter[datetime], max_losses: int | BindParameter[int]) -> ColumnElement[bool]:
    expired = and_(TASKS.c.status == PROCESSING, TASKS.c.lease_expires_at < now, not_left_to_newer())
    return and_(expired, TASKS.c.losses + 1 < max_losses)


def _claimable(now: datetime, max_losses: int) -> ColumnElement[bool]:
    """Return the condition that a task of a given id may be claimed.

    It is a ``CASE``, because databases look up a plain ``OR`` in an index, and then read every row that waits.
    """
    return case((TASKS.c.status == QUEUED, _due(now)), else_=_abandoned(now, max_losses))
