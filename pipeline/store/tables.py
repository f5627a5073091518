"""The tables of the task store, as SQLModel rows. ``migrations`` creates them; a test compares the two."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Double, Index, MetaData, SmallInteger
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from pipeline.domain.tasks.task import LARGEST_TASK_ID
from pipeline.store.connection.column_types import IndexedText, LongText, RowId, UtcDateTime
from pipeline.store.connection.dialects import TABLE_OPTIONS, UNREUSED_ID_OPTIONS

METADATA = MetaData(  # primary keys have no names of their own in MySQL
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

MAX_ID = LARGEST_TASK_ID
"""The largest id of any table."""


class StoreRow(SQLModel, registry=registry(metadata=METADATA)):
    """A row of this store; it has a registry of its own, so that no other SQLModel in the process adds tables."""


FILTERED = ("engine_name", "task_type", "language", "error_code", "platform")
"""Columns that a query may filter by: together in an index, they answer it without reading rows."""
LOAD = ("left_by", "available_at", "split_done", "file_size_bytes", "audio_total_s", "audio_done_s")
"""Columns that the statistics add up."""


class TaskRow(StoreRow, table=True):
    """One task. ``priority_rank`` is that of ``Priority``; ``task_type`` repeats the option for filters."""

    __tablename__ = "tasks"
    __table_args__ = (
        Index(None, "status", "priority_rank", "client", "created_at", "id", "available_at"),  # what a claim walks
        Index(None, "status", "lease_expires_at"),  # expired leases
        Index("ix_tasks_filters_of_status", "status", "priority_rank", "created_at", "id", "client", *FILTERED),
        Index("ix_tasks_filters_of_client", "client", "created_at", "id", "status", "priority_rank", *FILTERED),
        Index("ix_tasks_filters", "created_at", "id", "status", "priority_rank", "client", *FILTERED),
        Index("ix_tasks_load", "status", "priority_rank", "created_at", *LOAD),  # how much waits
        Index(None, "finished_at"),  # retention
        Index(None, "media_prefix"),  # sweeping orphans
        Index(None, "awaited_until"),  # tasks nobody waits for any more
        Index(None, "summary_due_at", "id"),  # summaries to be written
        Index(None, "client", "status"),  # what a client has in the queue
        Index(None, "left_by"),  # tasks left to a newer version
        {**TABLE_OPTIONS, **UNREUSED_ID_OPTIONS},
    )

    id: int | None = Field(default=None, sa_type=RowId, primary_key=True)
    status: str = Field(max_length=16)
    priority_rank: int = Field(sa_type=SmallInteger)
    engine_name: str = Field(max_length=32)
    task_type: str = Field(max_length=16)
    options: str = Field(sa_type=LongText)
    media_prefix: str = Field(max_length=255)
    created_at: datetime = Field(sa_type=UtcDateTime)
    updated_at: datetime = Field(sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    stage: str | None = Field(default=None, max_length=16)
    attempts: int = 0
    failures: int = 0
    losses: int = 0
    owner: str | None = Field(default=None, max_length=255)
    fence: int = 0
    lease_expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    available_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    platform: str | None = Field(default=None, sa_type=IndexedText)
    media_key: str | None = Field(default=None, sa_type=LongText)
    file_url: str | None = Field(default=None, sa_type=LongText)
    file_name: str | None = Field(default=None, sa_type=LongText)
    file_size_bytes: int | None = Field(default=None, sa_type=BigInteger)
    link_kind: str | None = Field(default=None, max_length=16)
    link_extractor: str | None = Field(default=None, max_length=100)
    link_keep_record: bool | None = None
    file_duration_s: float | None = Field(default=None, sa_type=Double)
    audio_total_s: float = Field(default=0.0, sa_type=Double)
    audio_done_s: float = Field(default=0.0, sa_type=Double)
    split_done: bool = False
    truncated: bool = False
    tracks: str | None = Field(default=None, sa_type=LongText)
    language: str | None = Field(default=None, max_length=32)
    language_probability: float | None = Field(default=None, sa_type=Double)
    error_code: str | None = Field(default=None, max_length=64)
    error_message: str | None = Field(default=None, sa_type=LongText)
    callback_url: str | None = Field(default=None, sa_type=LongText)
    callback_status_code: int | None = None
    callback_message: str | None = Field(default=None, sa_type=LongText)
    callback_time: datetime | None = Field(default=None, sa_type=UtcDateTime)
    awaited_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    summary_options: str | None = Field(default=None, sa_type=LongText)
    summary: str | None = Field(default=None, sa_type=LongText)
    summary_error_code: str | None = Field(default=None, max_length=64)
    summary_error_message: str | None = Field(default=None, sa_type=LongText)
    summary_attempts: int = 0
    summary_owner: str | None = Field(default=None, max_length=255)
    summary_due_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    client: str | None = Field(default=None, max_length=64)
    left_by: str | None = Field(default=None, max_length=16)
    """The ``vocabulary_digest`` of the version that left this row to a newer one."""


def _task_id(**arguments: Any) -> Any:
    """Return a column that refers to a task; the row is deleted with the task."""
    return Field(sa_type=RowId, foreign_key="tasks.id", ondelete="CASCADE", **arguments)


def _number_in_task() -> Any:
    """Return a column with a number that forms the primary key together with the task's id."""
    return Field(primary_key=True, sa_column_kwargs={"autoincrement": False})


class PartRow(StoreRow, table=True):
    """A committed part of prepared audio; ``part_start`` and ``part_end`` in samples."""

    __tablename__ = "parts"
    __table_args__ = (TABLE_OPTIONS,)

    task_id: int = _task_id(primary_key=True)
    part: int = _number_in_task()
    part_start: int = Field(sa_type=BigInteger)
    part_end: int = Field(sa_type=BigInteger)


class ChunkRow(StoreRow, table=True):
    """A chunk; ``spans`` is a JSON list of ``[start, end]`` in samples."""

    __tablename__ = "chunks"
    __table_args__ = (TABLE_OPTIONS,)

    task_id: int = _task_id(primary_key=True)
    chunk_index: int = _number_in_task()
    part: int
    part_start: int = Field(sa_type=BigInteger)
    spans: str = Field(sa_type=LongText)


class ChunkResultRow(StoreRow, table=True):
    """The result of a chunk. It has its own table, whose primary key admits only one result a chunk."""

    __tablename__ = "chunk_results"
    __table_args__ = (TABLE_OPTIONS,)

    task_id: int = _task_id(primary_key=True)
    chunk_index: int = _number_in_task()
    result: str = Field(sa_type=LongText)


class TranscriptRow(StoreRow, table=True):
    """The transcript of a completed task, as JSON. It has its own table, because ``tasks`` is read far more often."""

    __tablename__ = "transcripts"
    __table_args__ = (TABLE_OPTIONS,)

    task_id: int = _task_id(primary_key=True, sa_column_kwargs={"autoincrement": False})
    transcript: str = Field(sa_type=LongText)


class CrawlRow(StoreRow, table=True):
    """The crawl record of a task, as JSON: it is shown as a whole and never searched."""

    __tablename__ = "crawl_records"
    __table_args__ = (TABLE_OPTIONS,)

    task_id: int = _task_id(primary_key=True, sa_column_kwargs={"autoincrement": False})
    record: str = Field(sa_type=LongText)


class IdempotencyRow(StoreRow, table=True):
    """An idempotency key, as the SHA-256 of its text: of fixed length, and of no use to a thief."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "task_id"), Index(None, "expires_at"), TABLE_OPTIONS)

    key_sha256: str = Field(max_length=64, primary_key=True)
    fingerprint: str = Field(max_length=64)
    task_id: int = _task_id()
    expires_at: datetime = Field(sa_type=UtcDateTime)


class OutboxRow(StoreRow, table=True):
    """A callback. It waits until ``due_at``; claiming it moves that by the lease; ``NULL``: nothing is left to do."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index(None, "due_at", "id"),
        Index(None, "task_id"),
        Index(None, "created_at"),  # retention
        {**TABLE_OPTIONS, **UNREUSED_ID_OPTIONS},
    )

    id: int | None = Field(default=None, sa_type=RowId, primary_key=True)
    message_id: str = Field(max_length=64, unique=True)
    task_id: int = _task_id()
    url: str = Field(sa_type=LongText)
    attempts: int = 0
    owner: str | None = Field(default=None, max_length=255)
    due_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    created_at: datetime = Field(sa_type=UtcDateTime)
    delivered_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class ClientRow(StoreRow, table=True):
    """A client that has limits. A transaction that counts its usage locks this row, so that no two count at once."""

    __tablename__ = "clients"
    __table_args__ = (TABLE_OPTIONS,)

    name: str = Field(max_length=64, primary_key=True)


class TakenAudioRow(StoreRow, table=True):
    """A part of a recording, charged to a client. It outlives its task: deleting a task gives no audio back."""

    __tablename__ = "taken_audio"
    __table_args__ = (Index(None, "client", "taken_at"), Index(None, "taken_at"), TABLE_OPTIONS)

    task_id: int = Field(sa_type=RowId, primary_key=True, sa_column_kwargs={"autoincrement": False})
    part: int = _number_in_task()
    client: str = Field(max_length=64)
    audio_s: float = Field(sa_type=Double)
    taken_at: datetime = Field(sa_type=UtcDateTime)


class ExtractedAudioRow(StoreRow, table=True):
    """The audio of an extraction, charged to a client. An extraction has no task."""

    __tablename__ = "extracted_audio"
    __table_args__ = (Index(None, "client", "taken_at"), Index(None, "taken_at"), TABLE_OPTIONS)

    id: str = Field(max_length=32, primary_key=True)
    client: str = Field(max_length=64)
    audio_s: float = Field(sa_type=Double)
    taken_at: datetime = Field(sa_type=UtcDateTime)


class UploadRow(StoreRow, table=True):
    """A resumable upload. After it became a task it stays until it expires, for repeated requests."""

    __tablename__ = "uploads"
    __table_args__ = (Index(None, "expires_at"), Index(None, "task_id"), Index(None, "client"), TABLE_OPTIONS)

    id: str = Field(max_length=32, primary_key=True)
    client: str | None = Field(default=None, max_length=64)
    size_bytes: int = Field(sa_type=BigInteger)
    received_bytes: int = Field(default=0, sa_type=BigInteger)
    upload_metadata: str = Field(sa_type=LongText)
    expires_at: datetime = Field(sa_type=UtcDateTime)
    task_id: int | None = Field(default=None, sa_type=RowId, foreign_key="tasks.id", ondelete="CASCADE")


class UploadPartRow(StoreRow, table=True):
    """An upload part, which lies in the media store under ``media_key``."""

    __tablename__ = "upload_parts"
    __table_args__ = (TABLE_OPTIONS,)

    upload_id: str = Field(max_length=32, primary_key=True, foreign_key="uploads.id", ondelete="CASCADE")
    part_start: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    size_bytes: int = Field(sa_type=BigInteger)
    media_key: str = Field(max_length=255)


class StoreIdentityRow(StoreRow, table=True):
    """The only row of its table: the identity of this store, which every backup of it has too."""

    __tablename__ = "store_identity"
    __table_args__ = (TABLE_OPTIONS,)

    identity: str = Field(max_length=32, primary_key=True)


TASKS = METADATA.tables["tasks"]
PARTS = METADATA.tables["parts"]
CHUNKS = METADATA.tables["chunks"]
CHUNK_RESULTS = METADATA.tables["chunk_results"]
TRANSCRIPTS = METADATA.tables["transcripts"]
CRAWL_RECORDS = METADATA.tables["crawl_records"]
IDEMPOTENCY_KEYS = METADATA.tables["idempotency_keys"]
OUTBOX = METADATA.tables["outbox"]
CLIENTS = METADATA.tables["clients"]
EXTRACTED_AUDIO = METADATA.tables["extracted_audio"]
TAKEN_AUDIO = METADATA.tables["taken_audio"]
UPLOADS = METADATA.tables["uploads"]
UPLOAD_PARTS = METADATA.tables["upload_parts"]
