"""Transactions on the run of a task: from the claim to its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Update
from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline.domain.audio import Chunk
from pipeline.domain.claims import Candidate, ClaimRule, Holdings, known_order
from pipeline.domain.crawl import CrawlRecord
from pipeline.domain.lifecycle import attempts_exhausted
from pipeline.domain.task import Priority, Status, Task, TaskError
from pipeline.domain.transcript import ChunkResult, Transcript
from pipeline.errors import LeaseLost
from pipeline.ports import Lease, StoredChunks
from pipeline.store import callbacks, codec, queries, usage
from pipeline.store.engine import MYSQL_DIALECTS
from pipeline.store.tables import CHUNK_RESULTS, CHUNKS, CRAWL_RECORDS, LARGEST_ID, PARTS, TRANSCRIPTS

PREPARED = (CHUNK_RESULTS, CHUNKS, PARTS)
"""What is kept of a task only until it is completed."""
LOOKAHEAD = 32
"""Candidates beyond the limit: others may claim the first ones in the same moment."""
MAX_GROUPS = 12
"""Clients and ranks of which one claim looks at more than the first task."""
FULL_GROUPS = len(Priority)
"""As many of them are looked at as deep as a claim may reach; where there are more, each less deep."""
LEAST_DEPTH = 8
"""Tasks that are looked at of any of them."""
EXPIRED = timedelta(seconds=1)
"""How long ago a lease that is ended has expired."""


async def candidates(
    connection: AsyncConnection,
    ranks: Collection[int],
    now: datetime,
    max_losses: int,
    limit: int,
    ageing_s: float,
    holdings: Holdings,
) -> list[int]:
    """Ids of tasks that may be claimed, in the order of the claim; more than ``limit``, so that losing some is fine.

    Of few clients at a time: those whose turn it is. Where more have their turn, there may be fewer ids than that.
    """
    rule = ClaimRule(holdings, now, ageing_s)
    loose_scans = connection.dialect.name in MYSQL_DIALECTS
    rows = await connection.execute(queries.runs.claim_heads(frozenset(ranks), loose_scans=loose_scans), {"now": now})
    heads = [_candidate(row) for row in rows if row.id is not None]
    chosen = [(one.rank, one.client) for _, one in rule.places(heads)[:MAX_GROUPS]]
    depth = max(LEAST_DEPTH, (limit + LOOKAHEAD) * FULL_GROUPS // max(FULL_GROUPS, len(chosen)))
    values = {"now": now, "max_losses": max_losses, "depth": depth}
    values |= {f"client_{number}": client for number, (_, client) in enumerate(chosen) if client is not None}
    pattern = tuple((rank, client is not None) for rank, client in chosen)
    groups: dict[tuple[int, str | None], list[Candidate]] = {group: [] for group in chosen}
    lost: list[Candidate] = []
    for row in await connection.execute(queries.runs.claim_candidates(pattern, frozenset(ranks)), values):
        (lost if row.group == queries.runs.LOST else groups[chosen[row.group]]).append(_candidate(row))
    return known_order(rule, heads, groups, depth, lost)


def _candidate(row: Row[Any]) -> Candidate:
    return Candidate(row.id, row.priority_rank, row.client, row.created_at)


async def claim(
    connection: AsyncConnection,
    waiting: Sequence[int],
    limit: int,
    now: datetime,
    max_losses: int,
    owner: str,
    lease_expires_at: datetime,
) -> list[Task]:
    """Takes the first ``limit`` of the candidates that are still to be had, in their order."""
    won: list[int] = []
    while waiting and len(won) < limit:
        wanted, waiting = waiting[: limit - len(won)], waiting[limit - len(won) :]
        locked = set(await connection.scalars(queries.runs.lock_claimable(wanted, now, max_losses)))
        won.extend(task_id for task_id in wanted if task_id in locked)
    if not won:
        return []
    await connection.execute(queries.runs.claim_tasks(won, now, max_losses, owner, lease_expires_at))
    rows = await connection.execute(queries.records.tasks(won))
    taken = {row["id"]: codec.task_of_row(row) for row in rows.mappings()}
    return [taken[task_id] for task_id in won]


async def heartbeat(connection: AsyncConnection, leases: Sequence[Lease], lease_expires_at: datetime) -> frozenset[int]:
    """Renews leases; returns the tasks that are no longer the caller's."""
    await connection.execute(queries.runs.renew_leases(leases, lease_expires_at))
    rows = await connection.execute(queries.runs.running_fences([lease.task_id for lease in leases]))
    held = {Lease(row.id, row.fence) for row in rows}
    return frozenset(lease.task_id for lease in leases if lease not in held)


async def any_exhausted(connection: AsyncConnection, now: datetime, max_losses: int) -> bool:
    """Whether there is anything to bury: asked at every claim, so that the many with nothing need no lock."""
    return (await connection.execute(queries.runs.any_exhausted(now, max_losses))).first() is not None


async def bury(connection: AsyncConnection, now: datetime, max_losses: int) -> list[Task]:
    """Fails the tasks whose lease expired once too often."""
    rows = (await connection.execute(queries.runs.lock_exhausted(now, max_losses))).mappings().all()
    lost = [codec.task_of_row(row) for row in rows]
    return [await _fail(connection, task, attempts_exhausted(task.losses + 1), now) for task in lost]


async def owners(connection: AsyncConnection, now: datetime) -> frozenset[str]:
    """Who holds a lease."""
    return frozenset(await connection.scalars(queries.runs.owners(now)))


async def disown(connection: AsyncConnection, owner: str, now: datetime) -> None:
    """Ends every lease of an owner."""
    await connection.execute(queries.runs.disown_tasks(owner, now - EXPIRED))
    await connection.execute(queries.runs.disown_callbacks(owner, now))
    await connection.execute(queries.runs.disown_summaries(owner, now))


async def update(connection: AsyncConnection, lease: Lease, changes: Mapping[str, Any], now: datetime) -> None:
    """Sets columns of the task."""
    await _change(connection, lease, queries.runs.change_leased(lease, codec.columns_of(changes) | {"updated_at": now}))
    if changes.get("split_done"):
        await usage.take_audio(connection, lease.task_id, now)


async def save_crawl(connection: AsyncConnection, lease: Lease, record: CrawlRecord, now: datetime) -> None:
    """Keeps a record of the task's link, in the place of an earlier one."""
    await _leased(connection, lease)
    await connection.execute(queries.common.delete_of_task(CRAWL_RECORDS, lease.task_id))
    row = {"task_id": lease.task_id, "record": codec.crawl_to_json(record)}
    await connection.execute(queries.common.insert_rows(CRAWL_RECORDS), row)
    await _change(connection, lease, queries.runs.change_leased(lease, {"updated_at": now}))


async def add_part(
    connection: AsyncConnection, lease: Lease, part: tuple[int, int, int], chunks: Sequence[Chunk], now: datetime
) -> None:
    """Commits a part (number, start, end) with its chunks, once."""
    await _leased(connection, lease)
    number, start, end = part
    if (await connection.execute(queries.runs.part_exists(lease.task_id, number))).first():
        return
    row = {"task_id": lease.task_id, "part": number, "part_start": start, "part_end": end}
    await connection.execute(queries.common.insert_rows(PARTS), row)
    if chunks:
        rows = [codec.chunk_row(lease.task_id, chunk) for chunk in chunks]
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
        {"task_id": lease.task_id, "chunk_index": index, "result": codec.result_to_json(result)}
        for index, result in by_index.items()
    ]
    await connection.execute(queries.common.insert_rows(CHUNK_RESULTS), rows)
    done_s = sum(result.audio_s for result in by_index.values())
    await _change(connection, lease, queries.runs.add_audio_done(lease, done_s, now))


async def stored_chunks(connection: AsyncConnection, task_id: int) -> StoredChunks:
    """All that is stored of the task's chunks.

    Where the three reads see different moments, the order keeps the whole consistent: a part without its chunks would
    be skipped by whoever resumes.
    """
    if task_id > LARGEST_ID:
        return StoredChunks()
    results = await stored_results(connection, task_id, 0)
    parts = [(row.part, row.part_start, row.part_end) for row in await connection.execute(queries.runs.parts(task_id))]
    committed = {part for part, _start, _end in parts}
    rows = await connection.execute(queries.runs.chunks(task_id))
    chunks = [codec.chunk_of_row(row) for row in rows.mappings() if row["part"] in committed]
    return StoredChunks(tuple(chunks), results, tuple(parts))


async def stored_results(connection: AsyncConnection, task_id: int, first: int) -> tuple[ChunkResult, ...]:
    """The results of the chunk ``first`` and of those after it."""
    if task_id > LARGEST_ID:
        return ()
    return tuple(codec.result_of_json(text) for text in await connection.scalars(queries.runs.results(task_id, first)))


async def complete(connection: AsyncConnection, lease: Lease, transcript: Transcript, now: datetime) -> Task:
    """Stores the transcript, drops the chunks, and ends the task, or makes its summary due where one is wanted."""
    task = await _leased(connection, lease)
    row = {"task_id": task.id, "transcript": codec.transcript_to_json(transcript)}
    await connection.execute(queries.common.insert_rows(TRANSCRIPTS), row)
    for table in PREPARED:
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
) -> Task:
    """Ends the task as failed, or queues it again for later."""
    task = await _leased(connection, lease)
    if not keep_prepared:
        await _forget_prepared(connection, lease)
    if retry_at is None:
        return await _fail(connection, task, error, now)
    changes = _error_columns(error) | {"available_at": retry_at, "failures": task.failures + 1}
    return await _requeue(connection, lease, task.attempts, changes, now)


async def _forget_prepared(connection: AsyncConnection, lease: Lease) -> None:
    for table in PREPARED:
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
    await callbacks.owe(connection, task, now)
    return await _read(connection, task.id)


def _error_columns(error: TaskError | None) -> dict[str, Any]:
    return {"error_code": error and error.code, "error_message": error and error.message}


async def _leased(connection: AsyncConnection, lease: Lease) -> Task:
    row = (await connection.execute(queries.runs.lock_leased(lease))).mappings().one_or_none()
    if row is None:
        raise _lost(lease)
    return codec.task_of_row(row)


async def _change(connection: AsyncConnection, lease: Lease, statement: Update) -> None:
    if not (await connection.execute(statement)).rowcount:
        raise _lost(lease)


async def _read(connection: AsyncConnection, task_id: int) -> Task:
    return codec.task_of_row((await connection.execute(queries.records.task(task_id))).mappings().one())


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"Task {lease.task_id} passed to another owner, or ended, after fence {lease.fence}.")
