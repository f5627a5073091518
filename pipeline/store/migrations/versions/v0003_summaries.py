"""A task's summary: what it is to be like, who writes it, and what came of it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003_summaries"
down_revision = "0002_awaited"
branch_labels = None
depends_on = None

MYSQL = ("mysql", "mariadb")
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), *MYSQL)
UTC = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *MYSQL)


def upgrade() -> None:
    for column in (
        sa.Column("summary_options", LONG_TEXT),
        sa.Column("summary", LONG_TEXT),
        sa.Column("summary_error_code", sa.String(64)),
        sa.Column("summary_error_message", LONG_TEXT),
        sa.Column("summary_attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("summary_owner", sa.String(255)),
        sa.Column("summary_due_at", UTC),
    ):
        op.add_column("tasks", column)
    op.create_index("ix_tasks_summary_due_at_id", "tasks", ["summary_due_at", "id"])
