"""Task stores on a database, with the limits that tests count on."""

from __future__ import annotations

from pipeline.ports import Clock
from pipeline.store.sql_task_store import SqlTaskStore

AGEING_S = 600.0
IDEMPOTENCY_TTL_S = 3600.0
MAX_LOSSES = 3


def sql_store(url: str, clock: Clock, busy_timeout_s: float = 10.0) -> SqlTaskStore:
    """Open a store; the caller migrates and closes it."""
    return SqlTaskStore(
        url,
        clock,
        busy_timeout_s=busy_timeout_s,
        idempotency_ttl_s=IDEMPOTENCY_TTL_S,
        ageing_s=AGEING_S,
        max_losses=MAX_LOSSES,
    )


async def migrate(store: SqlTaskStore) -> None:
    """Make a store's tables, and close it."""
    await store.migrate()
    await store.close()
