"""Blocking work off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs the function in a worker thread.

    Unlike ``asyncio.to_thread``, a cancelled caller waits for the thread to return before it goes on, so that nobody
    closes a file that is still being read or written. The function must therefore be short: one block at a time.
    """
    context = copy_context()
    future = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(function, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # fetched, or asyncio would log it as one nobody looked at
        raise
