"""The audio tracks of a task's recording."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007_tracks"
down_revision = "0006_clients_uploads"
branch_labels = None
depends_on = None


def upgrade() -> None:
    long_text = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    op.add_column("tasks", sa.Column("tracks", long_text))
