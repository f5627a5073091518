"""Parts, chunks and results of a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from pipeline.domain.audio.spans import Chunk, to_seconds
from pipeline.domain.decoding.transcript import ChunkResult
from pipeline.domain.tasks.client import AudioCharge
from pipeline.ports import Lease, StoredChunks
from pipeline.store.rows import chunk_codec
from pipeline.store.tables import CHUNK_RESULTS, CHUNKS, MAX_ID, PARTS, TASKS
from pipeline.store.transactions.client_usage import charge_part
from pipeline.store.transactions.columns import PROGRESS
from pipeline.store.transactions.row_defects import ReportDefect, require_readable
from pipeline.store.transactions.task_leases import change_leased_task, lock_leased_task


def add_part(
    connection: Connection,
    lease: Lease,
    part: tuple[int, int, int],
    chunks: Sequence[Chunk],
    now: datetime,
    charge: AudioCharge | None = None,
) -> None:
    """Store a part (number, start, end) with its chunks, once, and charge its audio to the task's client."""
    task = lock_leased_task(connection, lease)
    number, start, end = part
    if connection.execute(_select_part(lease.task_id, number)).first():
        return
    if task.client is not None:
        due = charge or AudioCharge(to_seconds(end - start))
        charge_part(connection, task.client, task.id, number, due, now)
    row = {"task_id": lease.task_id, "part": number, "part_start": start, "part_end": end}
    connection.execute(insert(PARTS), row)
    if chunks:
        connection.execute(insert(CHUNKS), [chunk_codec.chunk_row(lease.task_id, chunk) for chunk in chunks])
    total_s = TASKS.c.audio_total_s + sum(chunk.duration_s for chunk in chunks)
    change_leased_task(connection, lease, PROGRESS | {"audio_total_s": total_s, "updated_at": now})


def save_results(connection: Connection, lease: Lease, results: Sequence[ChunkResult], now: datetime) -> None:
    """Store results, once for each chunk."""
    lock_leased_task(connection, lease)
    by_index = {result.index: result for result in reversed(results)}  # of two for one chunk, the first counts
    for stored_index in connection.scalars(_select_indexes(lease.task_id, by_index.keys())):
        del by_index[stored_index]
    if not by_index:
        return
    rows = [
        {"task_id": lease.task_id, "chunk_index": index, "result": chunk_codec.result_to_json(result)}
        for index, result in by_index.items()
    ]
    connection.execute(insert(CHUNK_RESULTS), rows)
    done_s = TASKS.c.audio_done_s + sum(result.audio_s for result in by_index.values())
    change_leased_task(connection, lease, PROGRESS | {"audio_done_s": done_s, "updated_at": now})


def stored_chunks(connection: Connection, task_id: int, report_defect: ReportDefect) -> StoredChunks:
    """Return the task's stored chunks. Raises ``RecordUnreadable`` if a chunk or a part is damaged.

    The three reads may see different moments. Their order keeps the whole consistent: a part that was read without its
    chunks would be skipped by the run that resumes.
    """
    if task_id > MAX_ID:
        return StoredChunks()
    results = stored_results(connection, task_id, 0, report_defect)
    part_rows = connection.execute(_select_parts(task_id)).mappings().all()
    parts = [require_readable(chunk_codec.read_part(row), report_defect) for row in part_rows]
    chunk_rows = connection.execute(_select_chunks(task_id)).mappings().all()
    chunks = [require_readable(chunk_codec.read_chunk(row), report_defect) for row in chunk_rows]
    committed = {part for part, _start, _end in parts}
    return StoredChunks(tuple(chunk for chunk in chunks if chunk.part in committed), results, tuple(parts))


def stored_results(
    connection: Connection, task_id: int, first: int, report_defect: ReportDefect
) -> tuple[ChunkResult, ...]:
    """Return the results of the chunk ``first`` and of later ones.

    Damaged ones are omitted, so that their chunks are decoded again.
    """
    if task_id > MAX_ID:
        return ()
    results = []
    for row in connection.execute(_select_results(task_id, first)).mappings().all():
        result, defect = chunk_codec.read_result(row)
        if defect is not None:
            report_defect(defect)
        if result is not None:
            results.append(result)
    return tuple(results)


def _select_part(task_id: int, part: int) -> Select[int]:
    """Select the number of a part, if the part is stored."""
    return select(PARTS.c.part).where(PARTS.c.task_id == task_id, PARTS.c.part == part)


def _select_indexes(task_id: int, indexes: Collection[int]) -> Select[int]:
    """Select those of the chunks' indexes that have a result."""
    return select(CHUNK_RESULTS.c.chunk_index).where(
        CHUNK_RESULTS.c.task_id == task_id, CHUNK_RESULTS.c.chunk_index.in_(indexes)
    )


def _select_results(task_id: int, first: int) -> Select[Any]:
    """Select the results of a task from a chunk on, in order."""
    return (
        select(CHUNK_RESULTS)
        .where(CHUNK_RESULTS.c.task_id == task_id, CHUNK_RESULTS.c.chunk_index >= first)
        .order_by(CHUNK_RESULTS.c.chunk_index)
    )


def _select_parts(task_id: int) -> Select[Any]:
    """Select all parts of a task, in order."""
    return select(PARTS).where(PARTS.c.task_id == task_id).order_by(PARTS.c.part)


def _select_chunks(task_id: int) -> Select[Any]:
    """Select all chunks of a task, in order."""
    return select(CHUNKS).where(CHUNKS.c.task_id == task_id).order_by(CHUNKS.c.chunk_index)
