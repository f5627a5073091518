from __future__ import annotations

import asyncio
from contextvars import ContextVar

from deployments.api.concurrency.background_tasks import BackgroundTasks

request: ContextVar[str] = ContextVar("request", default="none")


async def test_an_errand_outlives_its_request_and_knows_nothing_of_it() -> None:
    errands, go, seen = BackgroundTasks(), asyncio.Event(), []

    async def errand() -> None:
        await go.wait()
        seen.append(request.get())

    async def handler() -> None:
        request.set("the client's")
        errands.send(errand())
        await asyncio.Event().wait()

    handling = asyncio.create_task(handler())
    await asyncio.sleep(0)
    handling.cancel()
    await asyncio.gather(handling, return_exceptions=True)
    go.set()
    await errands.done()
    assert seen == ["none"]
    await errands.done()  # nothing is left
