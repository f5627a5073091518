"""Transactions on the records of tasks: what clients do to them, and housekeeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Select, Update
from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline.domain.links.platforms import CrawlRecord
from pipeline.domain.tasks.client import Client
from pipeline.domain.tasks.lifecycle import CANCEL_REFUSED, RETRY_REFUSED, refusal_sentence
from pipeline.domain.tasks.record_defect import RecordDefect
from pipeline.domain.tasks.task import IdempotencyClaim, NewTask, Priority, Status, Task
from pipeline.errors import IdempotencyConflict, QuotaExceeded, RecordUnreadable, TaskNotFound, TaskStateConflict
from pipeline.ports import QueueStats, TaskPage, TaskQuery
from pipeline.store import queries
from pipeline.store.rows import crawl_codec, task_codec
from pipeline.store.rows.row_reader import RowReader, media_prefix
from pipeline.store.tables import CHUNK_RESULTS, CHUNKS, IDEMPOTENCY_KEYS, MAX_ID, PARTS, TASKS
from pipeline.store.transactions import client_usage

IDS_PER_QUERY = 500
"""Values in one ``IN (…)``; SQLite takes at most 32,766 parameters."""


async def create(
    connection: AsyncConnection,
    new: NewTask,
    claim: IdempotencyClaim | None,
    client: Client | None,
    now: datetime,
    expires_at: datetime,
) -> tuple[Task, bool]:
    """A new task, or the one its key stands for. ``IntegrityError``: another process was faster with the same key."""
    if claim and (task_id := await _original(connection, claim, now)):
        return await get(connection, task_id), False
    if client:
        await client_usage.refuse_beyond_limits(connection, client, now)
    result = await connection.execute(queries.common.insert_rows(TASKS), task_codec.new_task_row(new, now))
    task_id = cast("tuple[int]", result.inserted_primary_key)[0]
    if claim:
        digest = task_codec.key_digest(claim.key)
        await connection.execute(queries.records.forget_expired_key(digest, now))
        row = {"key_sha256": digest, "fingerprint": claim.fingerprint, "task_id": task_id, "expires_at": expires_at}
        await connection.execute(queries.common.insert_rows(IDEMPOTENCY_KEYS), row)
    return await get(connection, task_id), True


async def get(connection: AsyncConnection, task_id: int, *, with_result: bool = False) -> Task:
    """The task, or ``TaskNotFound``."""
    if not 0 < task_id <= MAX_ID:
        raise _not_found(task_id)
    result = await connection.execute(queries.records.task(task_id, with_result=with_result))
    row = result.mappings().one_or_none()
    if row is None:
        raise _not_found(task_id)
    # A transcript of hours takes a second to read.
    return await asyncio.to_thread(task_codec.read_task, dict(row)) if with_result else task_codec.read_task(row)


async def crawl_record(
    connection: AsyncConnection, task_id: int, note: Callable[[RecordDefect], None]
) -> CrawlRecord | None:
    """What is kept of the task's link. ``RecordUnreadable``: it is damaged."""
    await get(connection, task_id)
    row = (await connection.execute(queries.records.crawl_record(task_id))).mappings().one_or_none()
    if row is None:
        return None
    record, defect = crawl_codec.read_crawl(row)
    if defect is not None:
        note(defect)
        raise RecordUnreadable(defect.sentence, defect.newer)
    return record


async def page(connection: AsyncConnection, query: TaskQuery) -> TaskPage:
    """The tasks that match."""
    total_count = (await connection.execute(queries.records.task_count(query))).scalar_one()
    ids = (await connection.scalars(queries.records.task_page(query))).all()
    rows = await connection.execute(queries.records.tasks(ids, with_result=query.include_result))
    tasks = {row["id"]: task_codec.read_task(row) for row in rows.mappings()}
    return TaskPage(tuple(tasks[task_id] for task_id in ids if task_id in tasks), total_count)


async def stats(connection: AsyncConnection, now: datetime) -> QueueStats:
    """How much waits and runs."""
    density = (await connection.execute(queries.records.recent_density())).one()
    seconds_per_byte = float(density.seconds) / float(density.size_bytes) if density.size_bytes else 0.0
    rows: list[Any] = list(await connection.execute(queries.records.live_totals(seconds_per_byte)))
    known = [row for row in rows if row.priority_rank in task_codec.PRIORITY_OF_RANK]
    queued = [row for row in known if row.status == Status.QUEUED]
    since = {task_codec.PRIORITY_OF_RANK[row.priority_rank]: _since(row.oldest, now) for row in queued}
    oldest = min(since.values(), default=now)
    ages = {priority: (now - moment).total_seconds() for priority, moment in since.items()}
    return QueueStats(
        queued_tasks=dict.fromkeys(Priority, 0)
        | {task_codec.PRIORITY_OF_RANK[row.priority_rank]: row.tasks for row in queued},
        processing_tasks=sum(row.tasks for row in known if row.status == Status.PROCESSING),
        pending_audio_s=float(sum(row.pending_audio_s for row in known)),
        oldest_queued_s=max(0.0, (now - oldest).total_seconds()),
        oldest_s={priority: max(0.0, ages.get(priority, 0.0)) for priority in Priority},
        waiting_callbacks=(await connection.execute(queries.callbacks.waiting_callbacks())).scalar_one(),
        left_tasks=sum(row.tasks for row in rows if row not in known) + await _left(connection),
    )


def _since(oldest: object, now: datetime) -> datetime:
    return oldest if isinstance(oldest, datetime) else now


async def _left(connection: AsyncConnection) -> int:
    """How many tasks are a newer version's, apart from those of a rank that this one does not know."""
    statements = queries.records.left_tasks(), queries.records.tasks_of_unknown_status()
    return sum([(await connection.execute(statement)).scalar_one() for statement in statements])


async def count_queued_with_error(connection: AsyncConnection, code: str) -> int:
    """How many queued tasks show an error of this code."""
    return int((await connection.execute(queries.records.waiting_count(code))).scalar_one())


async def cancel(connection: AsyncConnection, task_id: int, now: datetime) -> Task:
    """Ends a task that waits or runs."""
    return await _move(connection, task_id, queries.records.cancel_task(task_id, now), CANCEL_REFUSED)


async def retry(connection: AsyncConnection, task_id: int, now: datetime, client: Client | None = None) -> Task:
    """Queues a failed or cancelled task again, for its summary if that is all that is missing."""
    refusal = await _refusal_of_retry(connection, task_id, now, client)
    task = await _move(connection, task_id, queries.records.requeue_task(task_id, now), RETRY_REFUSED)
    if refusal:  # a conflict goes first; the transaction takes the move back
        raise refusal
    await connection.execute(queries.callbacks.withdraw_callbacks(task_id))
    if (await connection.execute(queries.summaries.resume_summary(task_id, now))).rowcount:
        return await get(connection, task_id)
    return task


async def _refusal_of_retry(
    connection: AsyncConnection, task_id: int, now: datetime, client: Client | None
) -> QuotaExceeded | None:
    """Why the client may not have the task in the queue again; audio that was taken already is no reason."""
    if client is None or not client.limited:
        return None
    task = await get(connection, task_id)
    if task.client != client.name:  # an administrator's word for somebody else
        return None
    try:
        await client_usage.refuse_beyond_limits(
            connection, replace(client, max_audio_s=None) if task.split_done else client, now
        )
    except QuotaExceeded as refusal:
        return refusal
    return None


async def extend_wait(connection: AsyncConnection, task_id: int, until: datetime) -> None:
    """Moves on the time until which the task is waited for."""
    await connection.execute(queries.records.extend_wait(task_id, until))


async def remove(connection: AsyncConnection, task_id: int) -> str:
    """Deletes a task and returns its media prefix."""
    task = await get(connection, task_id)
    if not (await connection.execute(queries.records.delete_tasks([task_id]))).rowcount:
        raise _not_found(task_id)  # deleted by another since
    return task.media_prefix


async def expire(connection: AsyncConnection, older_than: datetime, limit: int) -> list[str]:
    """Deletes the oldest finished tasks and returns their media prefixes."""
    return await _forget(connection, queries.records.expired_records(older_than, limit))


async def delete_unawaited(connection: AsyncConnection, now: datetime, limit: int) -> list[str]:
    """Deletes tasks nobody waits for any more and returns their media prefixes."""
    return await _forget(connection, queries.records.unawaited_records(now, limit))


async def _forget(connection: AsyncConnection, chosen: Select[Any]) -> list[str]:
    rows = (await connection.execute(chosen)).all()
    if rows:
        await connection.execute(queries.records.delete_tasks([row.id for row in rows]))
    return _prefixes(rows)


def _prefixes(rows: Sequence[Any]) -> list[str]:
    """The folders of tasks, as far as they can be read: what is left out is swept as an orphan's."""
    readers = [RowReader("tasks", {"id": row.id, "media_prefix": row.media_prefix}) for row in rows]
    prefixes = [reader.read("media_prefix", media_prefix, "") for reader in readers]
    return [prefix for prefix in prefixes if prefix]


async def delete_expired_media(
    connection: AsyncConnection, older_than: datetime, limit: int, statuses: Collection[Status]
) -> list[str]:
    """Takes the recordings from finished tasks and returns their media prefixes."""
    rows = (await connection.execute(queries.records.finished_recordings(older_than, limit, statuses))).all()
    if rows:
        await connection.execute(queries.records.clear_recordings([row.id for row in rows]))
    for row in rows:
        for table in (CHUNK_RESULTS, CHUNKS, PARTS):
            await connection.execute(queries.common.delete_of_task(table, row.id))
    return _prefixes(rows)


async def prune_callbacks(connection: AsyncConnection, older_than: datetime, limit: int) -> int:
    """Deletes callbacks with which nothing more will happen."""
    ids = (await connection.scalars(queries.callbacks.settled_callbacks(older_than, limit))).all()
    if ids:
        await connection.execute(queries.callbacks.delete_callbacks(ids))
    return len(ids)


async def prune_idempotency_keys(connection: AsyncConnection, now: datetime, limit: int) -> int:
    """Deletes idempotency keys that have expired."""
    digests = (await connection.scalars(queries.records.expired_keys(now, limit))).all()
    if digests:
        await connection.execute(queries.records.delete_keys(digests, now))
    return len(digests)


async def live_prefixes(connection: AsyncConnection, prefixes: Collection[str], *, transcribed: bool) -> set[str]:
    """Which of these media prefixes belong to a task."""
    names, found = sorted(prefixes), set[str]()
    for start in range(0, len(names), IDS_PER_QUERY):
        some = names[start : start + IDS_PER_QUERY]
        found.update(await connection.scalars(queries.records.prefixes_in_use(some, transcribed=transcribed)))
    return found


async def _original(connection: AsyncConnection, claim: IdempotencyClaim, now: datetime) -> int | None:
    digest = task_codec.key_digest(claim.key)
    result = await connection.execute(queries.records.idempotency_key(digest, now))
    known = result.one_or_none()
    if known is None:
        return None
    if known.fingerprint != claim.fingerprint:
        raise IdempotencyConflict("This Idempotency-Key was already used for another request; use a new key.")
    if isinstance(known.task_id, int) and (await connection.execute(queries.records.exists(known.task_id))).first():
        return known.task_id
    await connection.execute(queries.records.forget_key(digest))  # damaged: it leads nowhere
    return None


async def _move(connection: AsyncConnection, task_id: int, statement: Update, otherwise: str) -> Task:
    """Runs a conditional update; where it touched nothing, says why."""
    moved = task_id <= MAX_ID and (await connection.execute(statement)).rowcount
    task = await get(connection, task_id)
    if not moved:
        raise TaskStateConflict(refusal_sentence(task, otherwise))
    return task


def _not_found(task_id: int) -> TaskNotFound:
    return TaskNotFound(f"There is no task {task_id}.")
