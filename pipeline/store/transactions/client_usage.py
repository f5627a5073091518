"""What clients have in the queue and the audio they have used: statements and transactions.

A limit is checked and used up in one transaction that holds the client's lock (``lock``): two that counted at once
would both find room for one.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import CompoundSelect, Delete, Insert, Select, Update, delete, func, literal, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

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
from pipeline.store.connection.column_types import UtcDateTime
from pipeline.store.connection.dialects import dialect_of
from pipeline.store.queries.common import LIVE, LONGEST_S, QUEUED
from pipeline.store.queries.records import MAX_COUNTED_BYTES, recent_density
from pipeline.store.tables import CLIENTS, EXTRACTED_AUDIO, TAKEN_AUDIO, TASKS


async def client_load(connection: AsyncConnection, client: str, now: datetime) -> ClientLoad:
    """See ``ports.TaskRecords``."""
    queued = (await connection.execute(queued_of(client))).scalar_one()
    used = (await connection.execute(audio_used_by(client, now - DAY))).all()
    return ClientLoad(
        queued_tasks=queued,
        audio_s=sum(float(row.audio_s or 0.0) for row in used),
        oldest_at=min((row.oldest for row in used if isinstance(row.oldest, datetime)), default=None),
        pending_s=await _pending_audio_s(connection, client),
    )


async def lock(connection: AsyncConnection, client: str) -> None:
    """Keep every other transaction that counts for this client waiting until this one ends.

    An upsert locks the row whether it exists or not. SQLite needs no lock: it has one writer at a time.
    """
    upsert = dialect_of(connection.dialect).locking_upsert(CLIENTS, {"name": client})
    if upsert is not None:
        await connection.execute(upsert)


async def refuse_beyond_limits(connection: AsyncConnection, client: Client, now: datetime) -> None:
    """Raise ``QuotaExceeded`` if the client may not have another task now; if it may, nobody counts until the end."""
    if client.limited:
        await lock(connection, client.name)
        refuse_over_quota(client, await client_load(connection, client.name, now), now)


async def charge_part(
    connection: AsyncConnection, client: str, task_id: int, part: int, charge: AudioCharge, now: datetime
) -> None:
    """Take a part of a recording from its client, once. Raises ``QuotaExceeded`` where its audio is used up."""
    if (await connection.execute(charged_audio_of(task_id, part))).first():
        return  # split again: it is paid for
    if charge.max_audio_s is not None:
        await _refuse_more_audio(connection, client, charge.max_audio_s, now)
    row = {"task_id": task_id, "part": part, "client": client, "audio_s": charge.audio_s, "taken_at": now}
    await connection.execute(TAKEN_AUDIO.insert(), row)


async def charge_recording(connection: AsyncConnection, task_id: int, now: datetime) -> None:
    """Take a recording of which no part was taken, as splitters of versions before this one leave it."""
    if not (await connection.execute(charged_audio_of(task_id))).first():
        await connection.execute(take(task_id, now))


async def begin_extraction(
    connection: AsyncConnection, client: Client, extraction_id: str, size_bytes: int, now: datetime
) -> float:
    """See ``ports.TaskRecords``."""
    if client.max_audio_s is not None:
        await _refuse_more_audio(connection, client.name, client.max_audio_s, now)
    estimate_s = size_bytes * await _seconds_per_byte(connection)
    row = {"id": extraction_id, "client": client.name, "audio_s": estimate_s, "taken_at": now}
    await connection.execute(EXTRACTED_AUDIO.insert(), row)
    return estimate_s


async def charge_extraction(connection: AsyncConnection, extraction_id: str, audio_s: float) -> None:
    """See ``ports.TaskRecords``."""
    await connection.execute(replace_estimate(extraction_id, audio_s))


async def forget(connection: AsyncConnection, now: datetime) -> None:
    """Drops what has left the window for good."""
    for statement in used_before(now - USAGE_RETENTION):
        await connection.execute(statement)


async def _refuse_more_audio(connection: AsyncConnection, client: str, max_audio_s: float, now: datetime) -> None:
    await lock(connection, client)
    refuse_more_audio(max_audio_s, await client_load(connection, client, now), now)


async def _pending_audio_s(connection: AsyncConnection, client: str) -> float:
    """Estimated seconds of the client's recordings that are still to be decoded."""
    size_bytes = (await connection.execute(bytes_to_split(client))).scalar_one()
    if not size_bytes:
        return 0.0
    taken_s = (await connection.execute(audio_of_unsplit(client))).scalar_one()
    return max(0.0, float(size_bytes) * await _seconds_per_byte(connection) - float(taken_s or 0.0))


async def _seconds_per_byte(connection: AsyncConnection) -> float:
    density = (await connection.execute(recent_density())).one()
    return float(density.seconds) / float(density.size_bytes) if density.size_bytes else SECONDS_PER_BYTE


def queued_of(client: str) -> Select[int]:
    """How many tasks of a client wait."""
    return select(func.count()).select_from(TASKS).where(TASKS.c.client == client, TASKS.c.status == QUEUED)


def audio_used_by(client: str, since: datetime) -> CompoundSelect[Any]:
    """Seconds of audio counted since then, for tasks and for extractions, and when the first of each was."""
    return union_all(
        *(
            select(func.sum(table.c.audio_s).label("audio_s"), func.min(table.c.taken_at).label("oldest")).where(
                table.c.client == client,
                table.c.taken_at > since,
                table.c.audio_s.between(0.0, LONGEST_S),  # what was damaged counts for nothing
            )
            for table in (TAKEN_AUDIO, EXTRACTED_AUDIO)
        )
    )


def bytes_to_split(client: str) -> Select[int]:
    """Size of the client's recordings that are not split to their end."""
    return select(func.sum(TASKS.c.file_size_bytes)).where(
        TASKS.c.client == client,
        TASKS.c.status.in_(LIVE),
        TASKS.c.split_done.is_(False),
        TASKS.c.file_size_bytes.between(0, MAX_COUNTED_BYTES),
    )


def audio_of_unsplit(client: str) -> Select[float]:
    """What was taken of them already."""
    return (
        select(func.sum(TAKEN_AUDIO.c.audio_s))
        .join(TASKS, TASKS.c.id == TAKEN_AUDIO.c.task_id)
        .where(
            TASKS.c.client == client,
            TASKS.c.status.in_(LIVE),
            TASKS.c.split_done.is_(False),
            TAKEN_AUDIO.c.audio_s.between(0.0, LONGEST_S),
        )
    )


def charged_audio_of(task_id: int, part: int | None = None) -> Select[int]:
    """Whether a part of a task was counted before, or any."""
    statement = select(TAKEN_AUDIO.c.task_id).where(TAKEN_AUDIO.c.task_id == task_id)
    return statement.limit(1) if part is None else statement.where(TAKEN_AUDIO.c.part == part)


def take(task_id: int, now: datetime) -> Insert:
    """Counts a task's recording, if the task has a client and the recording a length."""
    columns = ("task_id", "part", "client", "audio_s", "taken_at")
    values = select(TASKS.c.id, literal(0), TASKS.c.client, TASKS.c.file_duration_s, literal(now, UtcDateTime())).where(
        TASKS.c.id == task_id, TASKS.c.client.is_not(None), TASKS.c.file_duration_s.is_not(None)
    )
    return TAKEN_AUDIO.insert().from_select(columns, values)


def replace_estimate(extraction_id: str, audio_s: float) -> Update:
    """What an extraction has taken so far."""
    return update(EXTRACTED_AUDIO).where(EXTRACTED_AUDIO.c.id == extraction_id).values(audio_s=audio_s)


def used_before(moment: datetime) -> Collection[Delete]:
    """What has left the window for good."""
    return [delete(table).where(table.c.taken_at <= moment) for table in (TAKEN_AUDIO, EXTRACTED_AUDIO)]
