"""What clients have in the queue and what was taken from them: statements and transactions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Delete, Insert, Select, delete, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline.domain.access import DAY, ClientLoad
from pipeline.store.engine import UtcDateTime
from pipeline.store.queries.common import LONGEST_S, QUEUED
from pipeline.store.tables import TAKEN_AUDIO, TASKS


async def client_load(connection: AsyncConnection, client: str, now: datetime) -> ClientLoad:
    """See ``ports.TaskRecords``."""
    queued = (await connection.execute(queued_of(client))).scalar_one()
    taken = (await connection.execute(audio_taken_from(client, now - DAY))).one()
    oldest = taken.oldest if isinstance(taken.oldest, datetime) else None
    return ClientLoad(queued, float(taken.audio_s or 0.0), oldest)


async def take_audio(connection: AsyncConnection, task_id: int, now: datetime) -> None:
    """Counts a recording that was split, once; nothing where the task is no client's."""
    if not (await connection.execute(taken_for(task_id))).first():
        await connection.execute(take(task_id, now))


async def forget(connection: AsyncConnection, now: datetime) -> None:
    """Drops what has left the window."""
    await connection.execute(taken_before(now - DAY))


def queued_of(client: str) -> Select[int]:
    """How many tasks of a client wait."""
    return select(func.count()).select_from(TASKS).where(TASKS.c.client == client, TASKS.c.status == QUEUED)


def audio_taken_from(client: str, since: datetime) -> Select[float, datetime]:
    """Seconds of audio counted since then, and when the first of it was."""
    return select(
        func.sum(TAKEN_AUDIO.c.audio_s).label("audio_s"), func.min(TAKEN_AUDIO.c.taken_at).label("oldest")
    ).where(
        TAKEN_AUDIO.c.client == client,
        TAKEN_AUDIO.c.taken_at > since,
        TAKEN_AUDIO.c.audio_s.between(0.0, LONGEST_S),  # what was damaged counts for nothing
    )


def taken_for(task_id: int) -> Select[int]:
    """Whether a task was counted before."""
    return select(TAKEN_AUDIO.c.task_id).where(TAKEN_AUDIO.c.task_id == task_id)


def take(task_id: int, now: datetime) -> Insert:
    """Counts a task's recording, if the task has a client and the recording a length."""
    columns = ("task_id", "client", "audio_s", "taken_at")
    values = select(TASKS.c.id, TASKS.c.client, TASKS.c.file_duration_s, literal(now, UtcDateTime())).where(
        TASKS.c.id == task_id, TASKS.c.client.is_not(None), TASKS.c.file_duration_s.is_not(None)
    )
    return TAKEN_AUDIO.insert().from_select(columns, values)


def taken_before(moment: datetime) -> Delete:
    """What has left the window."""
    return delete(TAKEN_AUDIO).where(TAKEN_AUDIO.c.taken_at <= moment)
