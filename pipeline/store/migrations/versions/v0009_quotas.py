"""Quotas that hold: audio is taken part by part, extractions count, and a client's limits are checked one at a time."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0009_quotas"
down_revision = "0008_rows"
branch_labels = None
depends_on = None

MYSQL = ("mysql", "mariadb")
UTC = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *MYSQL)
OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value
    for dialect in MYSQL
    for name, value in {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}.items()
}


def upgrade() -> None:
    op.create_table(
        "clients", sa.Column("name", sa.String(64), nullable=False), sa.PrimaryKeyConstraint("name"), **OPTIONS
    )
    op.create_table(
        "extracted_audio",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("audio_s", sa.Double(), nullable=False),
        sa.Column("taken_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **OPTIONS,
    )
    _index("extracted_audio")
    if op.get_bind().dialect.name in MYSQL:  # in one step: processes of the version before may be at work
        op.execute(
            "ALTER TABLE taken_audio ADD COLUMN part INTEGER NOT NULL DEFAULT 0 AFTER task_id,"
            " DROP PRIMARY KEY, ADD PRIMARY KEY (task_id, part)"
        )
    else:
        _rebuild_taken_audio()


def _rebuild_taken_audio() -> None:
    """SQLite can't change a primary key."""
    op.rename_table("taken_audio", "taken_audio_before")
    op.drop_index("ix_taken_audio_client_taken_at")
    op.drop_index("ix_taken_audio_taken_at")
    op.create_table(
        "taken_audio",
        sa.Column("task_id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("part", sa.Integer(), nullable=False, autoincrement=False, server_default="0"),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("audio_s", sa.Double(), nullable=False),
        sa.Column("taken_at", UTC, nullable=False),
        sa.PrimaryKeyConstraint("task_id", "part"),
    )
    op.execute(
        "INSERT INTO taken_audio (task_id, client, audio_s, taken_at)"
        " SELECT task_id, client, audio_s, taken_at FROM taken_audio_before"
    )
    op.drop_table("taken_audio_before")
    _index("taken_audio")


def _index(table: str) -> None:
    op.create_index(f"ix_{table}_client_taken_at", table, ["client", "taken_at"])
    op.create_index(f"ix_{table}_taken_at", table, ["taken_at"])
