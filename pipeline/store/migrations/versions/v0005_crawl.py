"""Links: what a task's ``file_url`` is, and what a site says about the recording."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005_crawl"
down_revision = "0004_losses"
branch_labels = None
depends_on = None

MYSQL = ("mysql", "mariadb")
OPTIONS: dict[str, Any] = {
    f"{dialect}_{name}": value
    for dialect in MYSQL
    for name, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def upgrade() -> None:
    row_id = sa.Integer().with_variant(sa.BigInteger(), *MYSQL)
    long_text = sa.Text().with_variant(mysql.LONGTEXT(), *MYSQL)
    op.add_column("tasks", sa.Column("link_kind", sa.String(16)))
    op.add_column("tasks", sa.Column("link_extractor", sa.String(100)))
    op.add_column("tasks", sa.Column("link_keep_record", sa.Boolean()))
    op.create_table(
        "crawl_records",
        sa.Column("task_id", row_id, nullable=False, autoincrement=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_crawl_records_task_id", ondelete="CASCADE"),
        sa.Column("record", long_text, nullable=False),
        sa.PrimaryKeyConstraint("task_id"),
        **OPTIONS,
    )
