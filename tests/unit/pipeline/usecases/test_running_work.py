from __future__ import annotations

import asyncio
import logging

import pytest

from pipeline.usecases.running_work import RunningWork


class Work:
    """Work that runs until it is let go, and records what happens to it."""

    def __init__(self) -> None:
        self.ends = 0
        self.events: list[str] = []
        self.go = asyncio.Event()
        self.running: RunningWork[int, str] = RunningWork("work", "work failed because of a defect", self._count_end)

    def _count_end(self) -> None:
        self.ends += 1

    def start(self, key: int, item: str) -> asyncio.Task[None]:
        return self.running.start(key, item, lambda: self._run(item), {"task_id": key})

    async def _run(self, item: str) -> None:
        self.events.append(f"{item} began")
        try:
            await self.go.wait()
            self.events.append(f"{item} ended")
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.events.append(f"{item} was cancelled")
            raise


async def test_work_is_known_by_its_key_until_it_has_ended() -> None:
    work = Work()
    work.start(1, "a")
    work.start(2, "b")
    assert (len(work.running), work.running.items, work.running.get(2)) == (2, ["a", "b"], "b")
    work.go.set()
    await work.running.wait()
    assert (len(work.running), work.running.get(2), work.ends) == (0, None, 2)
    await work.running.wait()


async def test_work_can_be_cancelled_alone() -> None:
    work = Work()
    work.start(1, "a")
    work.start(2, "b")
    await asyncio.sleep(0)
    await work.running.cancel(1)
    await work.running.cancel(3)
    assert work.events == ["a began", "b began", "a was cancelled"]
    assert work.running.items == ["b"]
    assert await work.running.cancel_all() == ["b"]
    assert (len(work.running), work.ends) == (0, 2)


async def test_stale_work_ends_before_the_next_of_its_key_begins() -> None:
    work = Work()
    work.start(1, "a")
    await asyncio.sleep(0)
    second = work.start(1, "b")
    assert work.running.items == ["b"]
    work.go.set()
    await second
    assert work.events == ["a began", "a was cancelled", "b began", "b ended"]
    assert len(work.running) == 0


async def test_a_defect_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    work, error = Work(), ValueError("rank 7")

    async def fail() -> None:
        raise error

    work.running.start(7, "a", fail, {"task_id": 7})
    await work.running.wait()
    await asyncio.sleep(0)
    [record] = caplog.records
    assert record.exc_info
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "work failed because of a defect")
    assert (record.exc_info[1], vars(record)["task_id"]) == (error, 7)
    assert work.ends == 1
