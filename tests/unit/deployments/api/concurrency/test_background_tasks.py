from __future__ import annotations

import asyncio
from contextvars import ContextVar

from deployments.api.concurrency.background_tasks import BackgroundTasks

request: ContextVar[str] = ContextVar("request", default="none")


async def test_a_spawned_coroutine_outlives_its_request_without_its_context() -> None:
    background, go, seen = BackgroundTasks(), asyncio.Event(), []

    async def work() -> None:
        await go.wait()
        seen.append(request.get())

    async def handler() -> None:
        request.set("the client's")
        background.spawn(work())
        await asyncio.Event().wait()

    handling = asyncio.create_task(handler())
    await asyncio.sleep(0)
    handling.cancel()
    await asyncio.gather(handling, return_exceptions=True)
    go.set()
    await background.join()
    assert seen == ["none"]
    await background.join()  # nothing is left
