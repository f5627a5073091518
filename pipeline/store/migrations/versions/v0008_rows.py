"""Which version has left a task to a newer one, and which store this is."""

import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008_rows"
down_revision = "0007_tracks"
branch_labels = None
depends_on = None

OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value
    for dialect in ("mysql", "mariadb")
    for name, value in {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}.items()
}


def upgrade() -> None:
    op.add_column("tasks", sa.Column("left_by", sa.String(16)))
    op.create_index("ix_tasks_left_by", "tasks", ["left_by"])
    identity = op.create_table("store_identity", sa.Column("identity", sa.String(32), primary_key=True), **OPTIONS)
    op.bulk_insert(identity, [{"identity": uuid.uuid4().hex}])
