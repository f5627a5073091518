"""Tasks that are only wanted while a client waits for them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002_awaited"
down_revision = "0001"
branch_labels = None
depends_on = None

UTC = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    op.add_column("tasks", sa.Column("awaited_until", UTC))
    op.create_index("ix_tasks_awaited_until", "tasks", ["awaited_until"])
