"""Which version has left a task to a newer one, which store this is, and indexes that answer queries alone."""

import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008_rows"
down_revision = "0007_tracks"
branch_labels = None
depends_on = None

MYSQL = ("mysql", "mariadb")
OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value
    for dialect in MYSQL
    for name, value in {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}.items()
}

FILTERED = ["engine_name", "task_type", "language", "error_code", "platform"]
INDEXES = {
    "ix_tasks_filters_of_status": ["status", "priority_rank", "created_at", "id", "client", *FILTERED],
    "ix_tasks_filters_of_client": ["client", "created_at", "id", "status", "priority_rank", *FILTERED],
    "ix_tasks_filters": ["created_at", "id", "status", "priority_rank", "client", *FILTERED],
    "ix_tasks_load": [
        "status",
        "priority_rank",
        "created_at",
        "left_by",
        "available_at",
        "split_done",
        "file_size_bytes",
        "audio_total_s",
        "audio_done_s",
    ],
}


def upgrade() -> None:
    op.add_column("tasks", sa.Column("left_by", sa.String(16)))
    op.create_index("ix_tasks_left_by", "tasks", ["left_by"])
    if op.get_bind().dialect.name in MYSQL:  # which has no index over all of a TEXT
        op.execute("UPDATE tasks SET platform = LEFT(platform, 255) WHERE CHAR_LENGTH(platform) > 255")
        op.alter_column("tasks", "platform", type_=sa.String(255, collation="utf8mb4_bin"), existing_nullable=True)
    for name, columns in INDEXES.items():
        op.create_index(name, "tasks", columns)
    identity = op.create_table("store_identity", sa.Column("identity", sa.String(32), primary_key=True), **OPTIONS)
    op.bulk_insert(identity, [{"identity": uuid.uuid4().hex}])
