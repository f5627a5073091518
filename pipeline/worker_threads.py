"""Running blocking functions in threads, away from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in one of the event loop's worker threads, as ``in_worker`` does."""
    return await in_worker(None, function, *args, **kwargs)


async def in_worker(worker: Executor | None, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in a thread of the executor, or of the event loop's own if ``worker`` is ``None``.

    Unlike with ``asyncio.to_thread``, a cancelled caller waits until the function has returned, so that nobody closes a
    file that is still being read or written. The function must therefore be short: one block at a time.
    """
    context = copy_context()
    future = asyncio.get_running_loop().run_in_executor(worker, lambda: context.run(function, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # retrieved here, since asyncio logs exceptions that nobody retrieves
        raise
