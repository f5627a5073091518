"""The index that a claim walks: each client's tasks of a priority apart. Two that begin others are dropped."""

from alembic import op

revision = "0010_claims"
down_revision = "0009_quotas"
branch_labels = None
depends_on = None

BEGINNINGS = (
    "ix_tasks_status_priority_rank_created_at_id",  # of ix_tasks_filters_of_status
    "ix_tasks_created_at_id",  # of ix_tasks_filters
)
COLUMNS = ["status", "priority_rank", "client", "created_at", "id", "available_at"]


def upgrade() -> None:
    op.create_index("ix_tasks_status_priority_rank_client_created_at_id_available_at", "tasks", COLUMNS)
    for name in BEGINNINGS:
        op.drop_index(name, "tasks")
