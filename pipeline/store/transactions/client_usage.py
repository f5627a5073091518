"""The tasks that each client has in the queue, the audio it has used, and its quotas.

A quota is checked and used in one transaction that holds the client's lock (``lock``). Without the lock, two
transactions that count at the same time would both take the last place.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Delete,
    Insert,
    Select,
    Update,
    delete,
    func,
    literal,
    select,
    union_all,
    update,
)

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
from pipeline.store.tables import CLIENTS, EXTRACTED_AUDIO, TAKEN_AUDIO, TASKS
from pipeline.store.transactions.columns import LIVE, MAX_AUDIO_S, QUEUED
from pipeline.store.transactions.queue_stats import MAX_COUNTED_BYTES, seconds_per_byte


def client_load(connection: Connection, client: str, now: datetime) -> ClientLoad:
    """Return a client's queued tasks, and the audio it has used in the last 24 hours."""
    queued = connection.execute(_select_number_queued(client)).scalar_one()
    used = connection.execute(_select_used_audio(client, now - DAY)).all()
    return ClientLoad(
        queued_tasks=queued,
        audio_s=sum(float(row.audio_s or 0.0) for row in used),
        oldest_at=min((row.oldest for row in used if isinstance(row.oldest, datetime)), default=None),
        pending_s=_pending_audio_s(connection, client),
    )


def lock(connection: Connection, client: str) -> None:
    """Make every other transaction that counts for this client wait until this one ends.

    An upsert locks the row whether it exists or not. SQLite needs no lock: it has one writer at a time.
    """
    upsert = dialect_of(connection.dialect).locking_upsert(CLIENTS, {"name": client})
    if upsert is not None:
        connection.execute(upsert)


def refuse_beyond_limits(connection: Connection, client: Client, now: datetime) -> None:
    """Raise ``QuotaExceeded`` if the client may not have another task now; hold its lock if it has a quota."""
    if client.limited:
        lock(connection, client.name)
        refuse_over_quota(client, client_load(connection, client.name, now), now)


def charge_part(
    connection: Connection, client: str, task_id: int, part: int, charge: AudioCharge, now: datetime
) -> None:
    """Charge a part of a recording to its client, once. Raises ``QuotaExceeded`` if the client's audio is used up."""
    if connection.execute(_select_charged(task_id, part)).first():
        return  # the recording is split again, and the part was charged the first time
    if charge.max_audio_s is not None:
        _refuse_more_audio(connection, client, charge.max_audio_s, now)
    row = {"task_id": task_id, "part": part, "client": client, "audio_s": charge.audio_s, "taken_at": now}
    connection.execute(TAKEN_AUDIO.insert(), row)


def charge_recording(connection: Connection, task_id: int, now: datetime) -> None:
    """Charge a whole recording, unless a part of it was charged. Splitters of earlier versions charge no parts."""
    if not connection.execute(_select_charged(task_id)).first():
        connection.execute(_insert_charge(task_id, now))


def begin_extraction(
    connection: Connection, client: Client, extraction_id: str, size_bytes: int, now: datetime
) -> float:
    """Charge the client for the audio of an extraction, as estimated from the recording's size; return the seconds.

    Raises ``QuotaExceeded`` if the client's audio is used up.
    """
    if client.max_audio_s is not None:
        _refuse_more_audio(connection, client.name, client.max_audio_s, now)
    estimate_s = size_bytes * seconds_per_byte(connection, SECONDS_PER_BYTE)
    row = {"id": extraction_id, "client": client.name, "audio_s": estimate_s, "taken_at": now}
    connection.execute(EXTRACTED_AUDIO.insert(), row)
    return estimate_s


def charge_extraction(connection: Connection, extraction_id: str, audio_s: float) -> None:
    """Replace the estimate by the seconds that were decoded, so far or in all."""
    connection.execute(_update_estimate(extraction_id, audio_s))


def delete_old_usage(connection: Connection, now: datetime) -> None:
    """Delete usage that is too old to count towards any quota."""
    for statement in _delete_used_before(now - USAGE_RETENTION):
        connection.execute(statement)


def _refuse_more_audio(connection: Connection, client: str, max_audio_s: float, now: datetime) -> None:
    lock(connection, client)
    refuse_more_audio(max_audio_s, client_load(connection, client, now), now)


def _pending_audio_s(connection: Connection, client: str) -> float:
    """Return the estimated seconds of the client's recordings that are still to be decoded."""
    size_bytes = connection.execute(_select_bytes_to_split(client)).scalar_one()
    if not size_bytes:
        return 0.0
    charged_s = connection.execute(_select_charged_of_unsplit(client)).scalar_one()
    return max(0.0, float(size_bytes) * seconds_per_byte(connection, SECONDS_PER_BYTE) - float(charged_s or 0.0))


def _select_number_queued(client: str) -> Select[int]:
    return select(func.count()).select_from(TASKS).where(TASKS.c.client == client, TASKS.c.status == QUEUED)


def _select_used_audio(client: str, since: datetime) -> CompoundSelect[Any]:
    """Select the seconds of audio charged since a time, and the time of the first charge.

    One row is for tasks, one for extractions.
    """
    return union_all(
        *(
            select(func.sum(table.c.audio_s).label("audio_s"), func.min(table.c.taken_at).label("oldest")).where(
                table.c.client == client,
                table.c.taken_at > since,
                table.c.audio_s.between(0.0, MAX_AUDIO_S),  # a damaged number does not count
            )
            for table in (TAKEN_AUDIO, EXTRACTED_AUDIO)
        )
    )


def _select_bytes_to_split(client: str) -> Select[int]:
    """Select the total size of the client's recordings that are not split to their end."""
    return select(func.sum(TASKS.c.file_size_bytes)).where(
        TASKS.c.client == client,
        TASKS.c.status.in_(LIVE),
        TASKS.c.split_done.is_(False),
        TASKS.c.file_size_bytes.between(0, MAX_COUNTED_BYTES),
    )


def _select_charged_of_unsplit(client: str) -> Select[float]:
    """Select the seconds that were charged already for the recordings of ``_select_bytes_to_split``."""
    return (
        select(func.sum(TAKEN_AUDIO.c.audio_s))
        .join(TASKS, TASKS.c.id == TAKEN_AUDIO.c.task_id)
        .where(
            TASKS.c.client == client,
            TASKS.c.status.in_(LIVE),
            TASKS.c.split_done.is_(False),
            TAKEN_AUDIO.c.audio_s.between(0.0, MAX_AUDIO_S),
        )
    )


def _select_charged(task_id: int, part: int | None = None) -> Select[int]:
    """Select a row if the part of the task was charged, or any part."""
    statement = select(TAKEN_AUDIO.c.task_id).where(TAKEN_AUDIO.c.task_id == task_id)
    return statement.limit(1) if part is None else statement.where(TAKEN_AUDIO.c.part == part)


def _insert_charge(task_id: int, now: datetime) -> Insert:
    """Charge a task's recording, if the task has a client and the recording a known length."""
    columns = ("task_id", "part", "client", "audio_s", "taken_at")
    values = select(TASKS.c.id, literal(0), TASKS.c.client, TASKS.c.file_duration_s, literal(now, UtcDateTime())).where(
        TASKS.c.id == task_id, TASKS.c.client.is_not(None), TASKS.c.file_duration_s.is_not(None)
    )
    return TAKEN_AUDIO.insert().from_select(columns, values)


def _update_estimate(extraction_id: str, audio_s: float) -> Update:
    return update(EXTRACTED_AUDIO).where(EXTRACTED_AUDIO.c.id == extraction_id).values(audio_s=audio_s)


def _delete_used_before(moment: datetime) -> Collection[Delete]:
    return [delete(table).where(table.c.taken_at <= moment) for table in (TAKEN_AUDIO, EXTRACTED_AUDIO)]
