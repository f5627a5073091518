"""Writing what must not be lost, through an absence of the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pipeline.errors import DatabaseUnavailable
from pipeline.ports import Clock

Result = TypeVar("Result")

DATABASE_RETRY_S = 1.0
"""Pause between attempts to write while the database is away; the lease decides when that is too late."""


async def insist(write: Callable[[], Awaitable[Result]], clock: Clock) -> Result:
    """Writes again while the database is away; a lease that ran out meanwhile shows as ``LeaseLost``."""
    while True:
        try:
            return await write()
        except DatabaseUnavailable:
            await clock.sleep(DATABASE_RETRY_S)
