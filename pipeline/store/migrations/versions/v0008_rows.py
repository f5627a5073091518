"""Which version has left a task to a newer one."""

import sqlalchemy as sa
from alembic import op

revision = "0008_rows"
down_revision = "0007_tracks"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tasks", sa.Column("left_by", sa.String(16)))
    op.create_index("ix_tasks_left_by", "tasks", ["left_by"])
