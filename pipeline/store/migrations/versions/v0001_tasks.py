"""Tasks, their chunks and transcripts, idempotency keys, and the outbox."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MYSQL = ("mysql", "mariadb")
ROW_ID = sa.Integer().with_variant(sa.BigInteger(), *MYSQL)
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), *MYSQL)
UTC = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *MYSQL)
OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value
    for dialect in MYSQL
    for name, value in {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}.items()
}


def upgrade() -> None:
    _create_tasks()
    _create_chunks()
    _create_idempotency_keys()
    _create_outbox()


def _task_id(table: str) -> tuple[sa.Column[int], sa.ForeignKeyConstraint]:
    """The reference to a task, and its constraint."""
    return (
        sa.Column("task_id", ROW_ID, nullable=False, autoincrement=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], f"fk_{table}_task_id", ondelete="CASCADE"),
    )


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("priority_rank", sa.SmallInteger(), nullable=False),
        sa.Column("engine_name", sa.String(32), nullable=False),
        sa.Column("task_type", sa.String(16), nullable=False),
        sa.Column("options", LONG_TEXT, nullable=False),
        sa.Column("media_prefix", sa.String(255), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.Column("started_at", UTC),
        sa.Column("finished_at", UTC),
        sa.Column("stage", sa.String(16)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("lease_expires_at", UTC),
        sa.Column("available_at", UTC),
        sa.Column("platform", LONG_TEXT),
        sa.Column("media_key", LONG_TEXT),
        sa.Column("file_url", LONG_TEXT),
        sa.Column("file_name", LONG_TEXT),
        sa.Column("file_size_bytes", sa.BigInteger()),
        sa.Column("file_duration_s", sa.Double()),
        sa.Column("audio_total_s", sa.Double(), nullable=False),
        sa.Column("audio_done_s", sa.Double(), nullable=False),
        sa.Column("split_done", sa.Boolean(), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("language", sa.String(32)),
        sa.Column("language_probability", sa.Double()),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", LONG_TEXT),
        sa.Column("callback_url", LONG_TEXT),
        sa.Column("callback_status_code", sa.Integer()),
        sa.Column("callback_message", LONG_TEXT),
        sa.Column("callback_time", UTC),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    for columns in (
        ["status", "priority_rank", "created_at", "id"],
        ["status", "lease_expires_at"],
        ["created_at", "id"],
        ["finished_at"],
        ["media_prefix"],
    ):
        op.create_index(f"ix_tasks_{'_'.join(columns)}", "tasks", columns)


def _create_chunks() -> None:
    op.create_table(
        "parts",
        *_task_id("parts"),
        sa.Column("part", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("part_start", sa.BigInteger(), nullable=False),
        sa.Column("part_end", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "part"),
        **OPTIONS,
    )
    op.create_table(
        "chunks",
        *_task_id("chunks"),
        sa.Column("chunk_index", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("part_start", sa.BigInteger(), nullable=False),
        sa.Column("spans", LONG_TEXT, nullable=False),
        sa.PrimaryKeyConstraint("task_id", "chunk_index"),
        **OPTIONS,
    )
    op.create_table(
        "chunk_results",
        *_task_id("chunk_results"),
        sa.Column("chunk_index", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("result", LONG_TEXT, nullable=False),
        sa.PrimaryKeyConstraint("task_id", "chunk_index"),
        **OPTIONS,
    )
    op.create_table(
        "transcripts",
        *_task_id("transcripts"),
        sa.Column("transcript", LONG_TEXT, nullable=False),
        sa.PrimaryKeyConstraint("task_id"),
        **OPTIONS,
    )


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("key_sha256", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        *_task_id("idempotency_keys"),
        sa.Column("expires_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("key_sha256"),
        **OPTIONS,
    )
    op.create_index("ix_idempotency_keys_task_id", "idempotency_keys", ["task_id"])


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("message_id", sa.String(64), nullable=False),
        *_task_id("outbox"),
        sa.Column("url", LONG_TEXT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("due_at", UTC),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("delivered_at", UTC),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("message_id", name="uq_outbox_message_id"),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_index("ix_outbox_due_at_id", "outbox", ["due_at", "id"])
    op.create_index("ix_outbox_task_id", "outbox", ["task_id"])
