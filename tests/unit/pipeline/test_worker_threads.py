from __future__ import annotations

import asyncio
import threading

import pytest

from pipeline.worker_threads import in_thread


async def test_runs_off_the_event_loop() -> None:
    assert await in_thread(threading.get_ident) != threading.get_ident()


async def test_errors_come_back() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)


async def test_a_cancelled_caller_waits_for_the_thread() -> None:
    entered, release, left = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        release.wait(5)
        left.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(entered.wait, 5)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left.is_set()
