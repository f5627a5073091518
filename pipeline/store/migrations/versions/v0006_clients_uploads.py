"""Whose a task is, what was taken from a client, and resumable uploads."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006_clients_uploads"
down_revision = "0005_crawl"
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
    op.add_column("tasks", sa.Column("client", sa.String(64)))
    op.create_index("ix_tasks_client_status", "tasks", ["client", "status"])
    _create_taken_audio()
    _create_uploads()


def _create_taken_audio() -> None:
    op.create_table(
        "taken_audio",
        sa.Column("task_id", ROW_ID, nullable=False, autoincrement=False),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("audio_s", sa.Double(), nullable=False),
        sa.Column("taken_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("task_id"),
        **OPTIONS,
    )
    op.create_index("ix_taken_audio_client_taken_at", "taken_audio", ["client", "taken_at"])
    op.create_index("ix_taken_audio_taken_at", "taken_audio", ["taken_at"])


def _create_uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("client", sa.String(64)),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
        sa.Column("upload_metadata", LONG_TEXT, nullable=False),
        sa.Column("expires_at", UTC, nullable=False),
        sa.Column("task_id", ROW_ID),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], "fk_uploads_task_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        **OPTIONS,
    )
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"])
    op.create_index("ix_uploads_task_id", "uploads", ["task_id"])
    op.create_index("ix_uploads_client", "uploads", ["client"])
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", sa.String(32), nullable=False),
        sa.Column("part_start", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_key", sa.String(255), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"], "fk_upload_parts_upload_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("upload_id", "part_start"),
        **OPTIONS,
    )
