"""The state of resumable uploads in SQL: the store, its transactions and their statements."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Delete, Select, Update, delete, func, select, update
from typing_extensions import override

from pipeline.domain.tasks.client import Client, refuse_another_upload
from pipeline.domain.tasks.upload import Upload, UploadPart
from pipeline.errors import UploadNotFound, UploadStateConflict
from pipeline.ports import Clock, UploadStore
from pipeline.store.connection.database_access import Database
from pipeline.store.rows.compact_json import to_json
from pipeline.store.rows.row_reader import (
    MIN_TIME,
    RowReader,
    StoredRow,
    json_object,
    media_prefix,
    moment,
    number,
    optional,
    text,
)
from pipeline.store.tables import UPLOAD_PARTS, UPLOADS
from pipeline.store.transactions import client_usage
from pipeline.store.transactions.row_defects import ReportDefect
from pipeline.store.transactions.task_housekeeping import IDS_PER_QUERY


class SqlUploadStore(UploadStore):
    """An upload store in the database of the tasks, whose migrations create its tables.

    Args:
        database: the one of the task store.
        clock: decides which uploads have expired.
        report_defect: receives the defect of each row that can't be read.
    """

    def __init__(self, database: Database, clock: Clock, report_defect: ReportDefect = lambda _: None) -> None:
        self._report_defect = report_defect
        self._database = database
        self._clock = clock

    @override
    async def create(self, upload: Upload, client: Client | None = None) -> None:
        await self._database.write(_insert, upload, client, self._clock.now())

    @override
    async def get(self, upload_id: str) -> Upload:
        return await self._database.read(_get, upload_id, self._clock.now(), self._report_defect)

    @override
    async def open_uploads(self, client: str) -> int:
        return await self._database.read(_open_uploads, client, self._clock.now())

    @override
    async def parts(self, upload_id: str) -> tuple[UploadPart, ...]:
        return await self._database.read(_parts, upload_id, self._report_defect)

    @override
    async def append(self, upload_id: str, parts: Sequence[UploadPart], expires_at: datetime) -> None:
        await self._database.write(_append, upload_id, parts, expires_at, self._clock.now(), self._report_defect)

    @override
    async def close(self, upload_id: str, task_id: int) -> None:
        await self._database.write(_close, upload_id, task_id)

    @override
    async def delete(self, upload_id: str) -> None:
        await self._database.write(_delete, [upload_id])

    @override
    async def expire(self, limit: int) -> list[str]:
        return await self._database.write(_expire, self._clock.now(), limit)

    @override
    async def live_prefixes(self, prefixes: Collection[str]) -> set[str]:
        return await self._database.read(_live, sorted(prefixes))


# --- transactions -----------------------------------------------------------------------------------------------------


def _insert(connection: Connection, upload: Upload, client: Client | None, now: datetime) -> None:
    if client and client.limited:
        client_usage.lock(connection, client.name)
        refuse_another_upload(client, _open_uploads(connection, client.name, now))
    row = {
        "id": upload.id,
        "client": upload.client,
        "size_bytes": upload.size_bytes,
        "received_bytes": upload.received_bytes,
        "upload_metadata": to_json(dict(upload.metadata)),
        "expires_at": upload.expires_at,
    }
    connection.execute(UPLOADS.insert(), row)


def _get(connection: Connection, upload_id: str, now: datetime, report_defect: ReportDefect) -> Upload:
    row = connection.execute(_select_unexpired(upload_id, now)).mappings().one_or_none()
    if row is None:
        raise UploadNotFound("There is no such upload; one to which nothing is added for long is thrown away.")
    return _upload_of_row(row, report_defect)


def _open_uploads(connection: Connection, client: str, now: datetime) -> int:
    return int(connection.execute(_select_open_count(client, now)).scalar_one())


def _parts(connection: Connection, upload_id: str, report_defect: ReportDefect) -> tuple[UploadPart, ...]:
    rows = connection.execute(_select_parts(upload_id)).mappings().all()
    return tuple(_part_of_row(row, report_defect) for row in rows)


def _append(
    connection: Connection,
    upload_id: str,
    parts: Sequence[UploadPart],
    expires_at: datetime,
    now: datetime,
    report_defect: ReportDefect,
) -> None:
    moved = connection.execute(_update_end(upload_id, parts[0].start, parts[-1].end, expires_at))
    if not moved.rowcount:
        upload = _get(connection, upload_id, now, report_defect)
        raise UploadStateConflict(f"The upload is at byte {upload.received_bytes:,}, not at {parts[0].start:,}.")
    rows = [
        {
            "upload_id": upload_id,
            "part_start": part.start,
            "size_bytes": part.end - part.start,
            "media_key": part.media_key,
        }
        for part in parts
    ]
    connection.execute(UPLOAD_PARTS.insert(), rows)


def _close(connection: Connection, upload_id: str, task_id: int) -> None:
    connection.execute(update(UPLOADS).where(UPLOADS.c.id == upload_id).values(task_id=task_id))
    connection.execute(delete(UPLOAD_PARTS).where(UPLOAD_PARTS.c.upload_id == upload_id))


def _delete(connection: Connection, upload_ids: Collection[str]) -> None:
    connection.execute(_delete_uploads(upload_ids))


def _expire(connection: Connection, now: datetime, limit: int) -> list[str]:
    expired = list(connection.scalars(_lock_expired(now, limit)))
    if expired:
        _delete(connection, expired)
    return expired


def _live(connection: Connection, prefixes: Sequence[str]) -> set[str]:
    known_ids = set[str]()
    for start in range(0, len(prefixes), IDS_PER_QUERY):
        known_ids.update(connection.scalars(_select_ids_among(prefixes[start : start + IDS_PER_QUERY])))
    return known_ids


def _upload_of_row(row: StoredRow, report_defect: ReportDefect) -> Upload:
    reader = RowReader("uploads", row)
    upload = Upload(
        id=reader.read("id", text, ""),
        client=reader.read("client", optional(text), None),
        size_bytes=reader.read("size_bytes", number, 0),
        received_bytes=reader.read("received_bytes", number, 0),
        metadata=reader.read("upload_metadata", _metadata_of_json, {}),
        expires_at=reader.read("expires_at", moment, MIN_TIME),
        task_id=reader.read("task_id", optional(number), None),
    )
    _refuse_damaged(reader, report_defect)
    return upload


def _part_of_row(row: StoredRow, report_defect: ReportDefect) -> UploadPart:
    reader = RowReader("upload_parts", row, "upload_id")
    start = reader.read("part_start", number, 0)
    end = start + reader.read("size_bytes", number, 0)
    part = UploadPart(start, end, reader.read("media_key", media_prefix, ""))
    _refuse_damaged(reader, report_defect)
    return part


def _refuse_damaged(reader: RowReader, report_defect: ReportDefect) -> None:
    if reader.defect is not None:
        report_defect(reader.defect)
        raise UploadNotFound("The record of this upload can't be read: upload the file again.")


def _metadata_of_json(value: Any) -> dict[str, str]:
    return {text(name): text(entry) for name, entry in json_object(value).items()}


# --- statements -------------------------------------------------------------------------------------------------------


def _select_unexpired(upload_id: str, now: datetime) -> Select[Any]:
    """Select an upload that has not expired."""
    return select(UPLOADS).where(UPLOADS.c.id == upload_id, UPLOADS.c.expires_at > now)


def _select_open_count(client: str, now: datetime) -> Select[int]:
    """Count the uploads of a client that have neither become a task nor expired."""
    conditions = UPLOADS.c.client == client, UPLOADS.c.task_id.is_(None), UPLOADS.c.expires_at > now
    return select(func.count()).select_from(UPLOADS).where(*conditions)


def _select_parts(upload_id: str) -> Select[Any]:
    """Select the parts of an upload, in order."""
    return select(UPLOAD_PARTS).where(UPLOAD_PARTS.c.upload_id == upload_id).order_by(UPLOAD_PARTS.c.part_start)


def _update_end(upload_id: str, start: int, end: int, expires_at: datetime) -> Update:
    """Move the end of an upload from byte ``start`` to byte ``end``, if it is at ``start`` and not yet a task."""
    return (
        update(UPLOADS)
        .where(UPLOADS.c.id == upload_id, UPLOADS.c.received_bytes == start, UPLOADS.c.task_id.is_(None))
        .values(received_bytes=end, expires_at=expires_at)
    )


def _delete_uploads(upload_ids: Collection[str]) -> Delete:
    """Delete uploads; the foreign keys delete their parts too."""
    return delete(UPLOADS).where(UPLOADS.c.id.in_(upload_ids))


def _lock_expired(now: datetime, limit: int) -> Select[str]:
    """Select expired uploads, oldest first."""
    return (
        select(UPLOADS.c.id)
        .where(UPLOADS.c.expires_at <= now)
        .order_by(UPLOADS.c.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def _select_ids_among(ids: Collection[str]) -> Select[str]:
    """Select those of the ids that belong to a stored upload."""
    return select(UPLOADS.c.id).where(UPLOADS.c.id.in_(ids))
