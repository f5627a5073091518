"""Work that outlives the request which asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any


class BackgroundTasks:
    """Coroutines that run to their end whatever becomes of the request they were sent from.

    They run outside the request's context: in there, Serve cancels a call to another deployment as soon as the client
    is gone.
    """

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Any]] = set()

    def send(self, errand: Coroutine[Any, Any, Any]) -> None:
        """Starts one and returns at once. What it raises is logged by the event loop."""
        task = asyncio.get_running_loop().create_task(errand, context=Context())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def done(self) -> None:
        """Returns when every errand sent so far has ended."""
        await asyncio.gather(*self._under_way)
