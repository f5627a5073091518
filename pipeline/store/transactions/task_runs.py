"""Transactions on the run of a task: from the claim to its end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Row, Update
from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline.domain.audio.spans import Chunk, to_seconds
from pipeline.domain.decoding.transcript import ChunkResult, Transcript
from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.scheduling.claim_rule import ClaimCandidate, ClaimRule, RunningTasks, known_order
from pipeline.domain.tasks.client import AudioCharge
from pipeline.domain.tasks.lifecycle import attempts_exhausted, claimed
from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import Priority, Status, Task, TaskError
from pipeline.errors import LeaseLost, RecordUnreadable
from pipeline.ports import Lease, StoredChunks
from pipeline.store import queries
from pipeline.store.connection.dialects import dialect_of
from pipeline.store.rows import chunk_codec, crawl_codec, task_codec, transcript_codec
from pipeline.store.rows.row_reader import MIN_TIME
from pipeline.store.rows.vocabulary import vocabulary_digest
from pipeline.store.tables import CHUNK_RESULTS, CHUNKS, CRAWL_RECORDS, MAX_ID, PARTS, TRANSCRIPTS
from pipeline.store.transactions import callback_outbox, client_usage

T = TypeVar("T")
Note = Callable[[RecordDefect], None]
"""Told of each row that can't be read."""

PREPARED_TABLES = (CHUNK_RESULTS, CHUNKS, PARTS)
"""What is kept of a task only until it is completed."""
LOOKAHEAD = 32
"""Candidates beyond the limit: others may claim the first ones in the same moment."""
MAX_GROUPS = 12
"""Clients and ranks of which one claim looks at more than the first task."""
FULL_GROUPS = len(Priority)
"""As many of them are looked at as deep as a claim may reach; where there are more, each less deep."""
MIN_DEPTH = 8
"""Tasks that are looked at of any of them."""
EXPIRED_AGO = timedelta(seconds=1)
"""How long ago a lease that is ended has expired."""


@dataclass(frozen=True, slots=True)
class ClaimOutcome:
    """What came of a claim: the tasks that were taken, and how many were set aside because they can't be read."""

    tasks: tuple[Task, ...]
    set_aside: int


async def candidates(
    connection: AsyncConnection,
    ranks: Collection[int],
    now: datetime,
    max_losses: int,
    limit: int,
    ageing_s: float,
    running_tasks: RunningTasks,
) -> list[int]:
    """Ids of tasks that may be claimed, in the order of the claim; more than ``limit``, so that losing some is fine.

    Of few clients at a time: those whose turn it is. Where more have their turn, there may be fewer ids than that.
    """
    rule = ClaimRule(running_tasks, now, ageing_s)
    loose_scans = dialect_of(connection.dialect).loose_index_scans
    rows = await connection.execute(queries.runs.claim_heads(frozenset(ranks), loose_scans=loose_scans), {"now": now})
    heads = [_candidate(row) for row in rows if row.id is not None]
    chosen = [(one.rank, one.client) for _, one in rule.places(heads)[:MAX_GROUPS]]
    depth = max(MIN_DEPTH, (limit + LOOKAHEAD) * FULL_GROUPS // max(FULL_GROUPS, len(chosen)))
    values = {"now": now, "max_losses": max_losses, "depth": depth}
    values |= {f"client_{number}": client for number, (_, client) in enumerate(chosen) if client is not None}
    pattern = tuple((rank, client is not None) for rank, client in chosen)
    groups: dict[tuple[int, str | None], list[ClaimCandidate]] = {group: [] for group in chosen}
    lost: list[ClaimCandidate] = []
    for row in await connection.execute(queries.runs.claim_candidates(pattern, frozenset(ranks)), values):
        (lost if row.group == queries.runs.LOST else groups[chosen[row.group]]).append(_candidate(row))
    return known_order(rule, heads, groups, depth, lost)


def _candidate(row: Row[Any]) -> ClaimCandidate:
    return ClaimCandidate(row.id, row.priority_rank, row.client, _since(row.created_at))


def _since(created_at: object) -> datetime:
    """When a candidate began to wait; what is damaged there comes first, so that it is dealt with at once."""
    return created_at if isinstance(created_at, datetime) else MIN_TIME


async def claim(
    connection: AsyncConnection,
    waiting: Sequence[int],
    limit: int,
    now: datetime,
    max_losses: int,
    owner: str,
    lease_expires_at: datetime,
    note: Note,
) -> ClaimOutcome:
    """Takes the first ``limit`` of the candidates that are still to be had, in their order.

    Each row is read before it is taken: one that is damaged is failed, one of a newer version is left to that.
    """
    won: list[Task] = []
    set_aside = 0
    while waiting and len(won) < limit:
        wanted, waiting = waiting[: limit - len(won)], waiting[limit - len(won) :]
        rows = (await connection.execute(queries.runs.lock_claimable(wanted, now, max_losses))).mappings()
        locked = {row["id"]: task_codec.read_task(row) for row in rows}
        unreadable = [task for task in locked.values() if task.defect is not None]
        await _set_aside(connection, unreadable, now, note)
        won += [locked[task_id] for task_id in wanted if task_id in locked and locked[task_id].defect is None]
        set_aside += len(unreadable)
    if won:
        ids = [task.id for task in won]
        await connection.execute(queries.runs.claim_tasks(ids, now, max_losses, owner, lease_expires_at))
    return ClaimOutcome(tuple(claimed(task, owner, now, lease_expires_at) for task in won), set_aside)


async def _set_aside(connection: AsyncConnection, tasks: Sequence[Task], now: datetime, note: Note) -> list[Task]:
    """Fails tasks whose rows are damaged, and marks those of a newer version as left; returns those that failed."""
    left = [task.id for task in tasks if task.defect and task.defect.newer]
    if left:
        await connection.execute(queries.runs.leave_tasks(left, vocabulary_digest()))
    failed = []
    for task in tasks:
        if task.defect is not None:
            note(task.defect)
            if not task.defect.newer:
                failed.append(await _fail_unreadable(connection, task.id, task.defect, now))
    return failed


async def _fail_unreadable(connection: AsyncConnection, task_id: int, defect: RecordDefect, now: datetime) -> Task:
    """Ends a task whose row is damaged, and owes its callback where that can still be told."""
    await connection.execute(queries.runs.fail_unreadable(task_id, defect.code, defect.sentence, now))
    task = await _read(connection, task_id)
    await callback_outbox.enqueue_callback(connection, task, now)
    return task


async def unreachable(connection: AsyncConnection, limit: int) -> list[int]:
    """Ids of tasks that no claim ever comes to; asked first, because failing them locks."""
    return list(await connection.scalars(queries.runs.unreachable(limit)))


async def fail_unreachable(
    connection: AsyncConnection, task_ids: Sequence[int], now: datetime, note: Note
) -> list[Task]:
    """Fails those of the tasks whose damaged row keeps every claim from finding them."""
    rows = (await connection.execute(queries.runs.lock_tasks(task_ids))).mappings().all()
    tasks = [task_codec.read_task(row) for row in rows]
    tasks = [task for task in tasks if task.finished_at is None]
    stuck = [task for task in tasks if task.defect is None and task.status is Status.PROCESSING]
    without_lease = [
        replace(task, defect=RecordDefect("tasks", "lease_expires_at", str(task.id)))
        for task in stuck
        if task.lease_expires_at is None and task.summary.due_at is None
    ]
    unreadable = [task for task in tasks if task.defect is not None]
    return await _set_aside(connection, unreadable + without_lease, now, note)


async def heartbeat(connection: AsyncConnection, leases: Sequence[Lease], lease_expires_at: datetime) -> frozenset[int]:
    """Renews leases; returns the tasks that are no longer the caller's."""
    await connection.execute(queries.runs.renew_leases(leases, lease_expires_at))
    rows = await connection.execute(queries.runs.running_fences([lease.task_id for lease in leases]))
    held = {Lease(row.id, row.fence) for row in rows}
    return frozenset(lease.task_id for lease in leases if lease not in held)


async def any_exhausted(connection: AsyncConnection, now: datetime, max_losses: int) -> bool:
    """Whether there is anything to bury: asked at every claim, so that the many with nothing need no lock."""
    return (await connection.execute(queries.runs.any_exhausted(now, max_losses))).first() is not None


async def fail_exhausted(connection: AsyncConnection, now: datetime, max_losses: int, note: Note) -> list[Task]:
    """Fails the tasks whose lease expired once too often."""
    rows = (await connection.execute(queries.runs.lock_exhausted(now, max_losses))).mappings().all()
    lost = [task_codec.read_task(row) for row in rows]
    unreadable = await _set_aside(connection, [task for task in lost if task.defect is not None], now, note)
    return unreadable + [
        await _fail(connection, task, attempts_exhausted(task.losses + 1), now) for task in lost if task.defect is None
    ]


async def lease_owners(connection: AsyncConnection, now: datetime) -> frozenset[str]:
    """Who holds a lease."""
    names = await connection.scalars(queries.runs.lease_owners(now))
    return frozenset(name for name in names if isinstance(name, str))


async def expire_leases_of(connection: AsyncConnection, owner: str, now: datetime) -> None:
    """Ends every lease of an owner."""
    await connection.execute(queries.runs.expire_task_leases(owner, now - EXPIRED_AGO))
    await connection.execute(queries.runs.expire_callback_leases(owner, now))
    await connection.execute(queries.runs.expire_summary_leases(owner, now))


async def update(connection: AsyncConnection, lease: Lease, changes: Mapping[str, Any], now: datetime) -> None:
    """Sets columns of the task."""
    await _change(
        connection, lease, queries.runs.change_leased(lease, task_codec.columns_of(changes) | {"updated_at": now})
    )
    if changes.get("split_done"):
        await client_usage.charge_recording(connection, lease.task_id, now)


async def save_crawl_record(connection: AsyncConnection, lease: Lease, record: CrawlRecord, now: datetime) -> None:
    """Keeps a record of the task's link, in the place of an earlier one."""
    await _leased(connection, lease)
    await connection.execute(queries.common.delete_of_task(CRAWL_RECORDS, lease.task_id))
    row = {"task_id": lease.task_id, "record": crawl_codec.crawl_to_json(record)}
    await connection.execute(queries.common.insert_rows(CRAWL_RECORDS), row)
    await _change(connection, lease, queries.runs.change_leased(lease, {"updated_at": now}))


async def add_part(
    connection: AsyncConnection,
    lease: Lease,
    part: tuple[int, int, int],
    chunks: Sequence[Chunk],
    now: datetime,
    charge: AudioCharge | None = None,
) -> None:
    """Commits a part (number, start, end) with its chunks, once, and takes its audio from the task's client."""
    task = await _leased(connection, lease)
    number, start, end = part
    if (await connection.execute(queries.runs.part_exists(lease.task_id, number))).first():
        return
    if task.client is not None:
        taken = charge or AudioCharge(to_seconds(end - start))
        await client_usage.charge_part(connection, task.client, task.id, number, taken, now)
    row = {"task_id": lease.task_id, "part": number, "part_start": start, "part_end": end}
    await connection.execute(queries.common.insert_rows(PARTS), row)
    if chunks:
        rows = [chunk_codec.chunk_row(lease.task_id, chunk) for chunk in chunks]
        await connection.execute(queries.common.insert_rows(CHUNKS), rows)
    await _change(
        connection, lease, queries.runs.add_audio_total(lease, sum(chunk.duration_s for chunk in chunks), now)
    )


async def save_results(
    connection: AsyncConnection, lease: Lease, results: Sequence[ChunkResult], now: datetime
) -> None:
    """Stores results, once for each chunk."""
    await _leased(connection, lease)
    by_index = {result.index: result for result in reversed(results)}  # of two for one chunk, the first counts
    stored = await connection.scalars(queries.runs.results_among(lease.task_id, by_index.keys()))
    for index in stored:
        del by_index[index]
    if not by_index:
        return
    rows = [
        {"task_id": lease.task_id, "chunk_index": index, "result": chunk_codec.result_to_json(result)}
        for index, result in by_index.items()
    ]
    await connection.execute(queries.common.insert_rows(CHUNK_RESULTS), rows)
    done_s = sum(result.audio_s for result in by_index.values())
    await _change(connection, lease, queries.runs.add_audio_done(lease, done_s, now))


async def stored_chunks(connection: AsyncConnection, task_id: int, note: Note) -> StoredChunks:
    """All that is stored of the task's chunks. ``RecordUnreadable``: a chunk or a part of it is damaged.

    Where the three reads see different moments, the order keeps the whole consistent: a part without its chunks would
    be skipped by whoever resumes.
    """
    if task_id > MAX_ID:
        return StoredChunks()
    results = await stored_results(connection, task_id, 0, note)
    parts = _read_all(
        map(chunk_codec.read_part, (await connection.execute(queries.runs.parts(task_id))).mappings()), note
    )
    chunks = _read_all(
        map(chunk_codec.read_chunk, (await connection.execute(queries.runs.chunks(task_id))).mappings()), note
    )
    committed = {part for part, _start, _end in parts}
    return StoredChunks(tuple(chunk for chunk in chunks if chunk.part in committed), results, tuple(parts))


async def stored_results(connection: AsyncConnection, task_id: int, first: int, note: Note) -> tuple[ChunkResult, ...]:
    """The results of the chunk ``first`` and of those after it, without such as are damaged: they are decoded again."""
    if task_id > MAX_ID:
        return ()
    rows = (await connection.execute(queries.runs.results(task_id, first))).mappings()
    return tuple(result for result in _read_each(map(chunk_codec.read_result, rows), note) if result is not None)


def _read_each(read: Iterable[tuple[T, RecordDefect | None]], note: Note) -> Iterator[T]:
    for value, defect in read:
        if defect is not None:
            note(defect)
        yield value


def _read_all(read: Iterable[tuple[T, RecordDefect | None]], note: Note) -> list[T]:
    """All the values, or ``RecordUnreadable``."""
    values = []
    for value, defect in read:
        if defect is not None:
            note(defect)
            raise RecordUnreadable(defect.sentence, defect.newer)
        values.append(value)
    return values


async def complete(connection: AsyncConnection, lease: Lease, transcript: Transcript, now: datetime) -> Task:
    """Stores the transcript, drops the chunks, and ends the task, or makes its summary due where one is wanted."""
    task = await _leased(connection, lease)
    row = {"task_id": task.id, "transcript": transcript_codec.transcript_to_json(transcript)}
    await connection.execute(queries.common.insert_rows(TRANSCRIPTS), row)
    for table in PREPARED_TABLES:
        await connection.execute(queries.common.delete_of_task(table, task.id))
    info = transcript.info
    facts = {
        "language": info.language,
        "language_probability": info.language_probability,
        "file_duration_s": info.duration,
    }
    if task.summary_options is None:
        return await _finish(connection, task, Status.COMPLETED, None, now, facts)
    values = queries.summaries.summary_is_due(now) | _error_columns(None) | facts
    await _change(connection, lease, queries.runs.change_leased(lease, values))
    return await _read(connection, task.id)


async def fail(
    connection: AsyncConnection,
    lease: Lease,
    error: TaskError,
    retry_at: datetime | None,
    now: datetime,
    *,
    keep_prepared: bool,
    counted: bool = True,
) -> Task:
    """Ends the task as failed, or queues it again for later."""
    task = await _leased(connection, lease)
    if not keep_prepared:
        await _forget_prepared(connection, lease)
    if retry_at is None:
        return await _fail(connection, task, error, now)
    changes = _error_columns(error) | {"available_at": retry_at, "failures": task.failures + counted}
    return await _requeue(connection, lease, task.attempts, changes, now)


async def _forget_prepared(connection: AsyncConnection, lease: Lease) -> None:
    for table in PREPARED_TABLES:
        await connection.execute(queries.common.delete_of_task(table, lease.task_id))
    await _change(connection, lease, queries.runs.change_leased(lease, queries.common.UNPREPARED))


async def release(connection: AsyncConnection, lease: Lease, now: datetime) -> None:
    """Gives the task back as if this attempt had not been; the fence stays, so no late write gets in."""
    task = await _leased(connection, lease)
    await _requeue(connection, lease, task.attempts - 1, {}, now)


async def _requeue(
    connection: AsyncConnection, lease: Lease, attempts: int, changes: dict[str, Any], now: datetime
) -> Task:
    values = (
        queries.common.NO_OWNER | {"status": Status.QUEUED.value, "attempts": attempts, "updated_at": now} | changes
    )
    await _change(connection, lease, queries.runs.change_leased(lease, values))
    return await _read(connection, lease.task_id)


async def _fail(connection: AsyncConnection, task: Task, error: TaskError, now: datetime) -> Task:
    return await _finish(connection, task, Status.FAILED, error, now, {"failures": task.failures + 1})


async def _finish(
    connection: AsyncConnection,
    task: Task,
    status: Status,
    error: TaskError | None,
    now: datetime,
    facts: dict[str, Any],
) -> Task:
    """Ends a run and, in the same transaction, writes the callback it owes."""
    lease = Lease(task.id, task.fence)
    ended = {"status": status.value, "finished_at": now, "updated_at": now}
    values = queries.common.NO_OWNER | ended | _error_columns(error) | facts
    await _change(connection, lease, queries.runs.change_leased(lease, values))
    await callback_outbox.enqueue_callback(connection, task, now)
    return await _read(connection, task.id)


def _error_columns(error: TaskError | None) -> dict[str, Any]:
    return {"error_code": error and error.code, "error_message": error and error.message}


async def _leased(connection: AsyncConnection, lease: Lease) -> Task:
    row = (await connection.execute(queries.runs.lock_leased(lease))).mappings().one_or_none()
    if row is None:
        raise _lease_lost_error(lease)
    return task_codec.read_task(row)


async def _change(connection: AsyncConnection, lease: Lease, statement: Update) -> None:
    if not (await connection.execute(statement)).rowcount:
        raise _lease_lost_error(lease)


async def _read(connection: AsyncConnection, task_id: int) -> Task:
    return task_codec.read_task((await connection.execute(queries.records.task(task_id))).mappings().one())


def _lease_lost_error(lease: Lease) -> LeaseLost:
    return LeaseLost(f"Task {lease.task_id} passed to another owner, or ended, after fence {lease.fence}.")
