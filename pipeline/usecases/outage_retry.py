"""Pauses and retries after an outage: of the database, or of a replica."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pipeline.errors import DatabaseUnavailable
from pipeline.ports import Clock

Result = TypeVar("Result")

DATABASE_RETRY_S = 1.0
"""Pause between two calls while the database is unavailable."""

REPLICA_LOSS_PAUSE_S = 0.5
"""Pause before work of a lost replica is sent again; until then Serve may still send calls to the dead one."""


async def retry_until_available(call: Callable[[], Awaitable[Result]], clock: Clock) -> Result:
    """Repeat a call until the database is available, and return its result.

    There is no deadline. A write under a lease raises ``LeaseLost`` once the lease has expired meanwhile.
    """
    while True:
        try:
            return await call()
        except DatabaseUnavailable:
            await clock.sleep(DATABASE_RETRY_S)
