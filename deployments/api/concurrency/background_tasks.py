"""Work that continues after the request that started it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any


class BackgroundTasks:
    """Coroutines that run to completion whatever happens to the request that spawned them.

    They run in a context of their own: inside a request's context, Serve cancels calls to other deployments as soon as
    the client disconnects.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Start a coroutine and return at once. The event loop logs any exception that it raises."""
        task = asyncio.get_running_loop().create_task(coroutine, context=Context())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def join(self) -> None:
        """Wait until every coroutine spawned so far has ended."""
        await asyncio.gather(*self._running)
