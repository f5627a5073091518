"""Waiting for an event with a timeout."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def wait_for_event(event: asyncio.Event, timeout_s: float) -> None:
    """Wait until the event is set, for up to ``timeout_s``."""
    # not `asyncio.wait_for`, which on Python 3.11 can swallow a cancellation
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
