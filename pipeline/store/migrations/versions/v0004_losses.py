"""Failures and losses in a row, and what retention walks: callbacks by age, keys by expiry."""

import sqlalchemy as sa
from alembic import op

revision = "0004_losses"
down_revision = "0003_summaries"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("failures", "losses"):
        op.add_column("tasks", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.create_index("ix_outbox_created_at", "outbox", ["created_at"])
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])
