from __future__ import annotations

import asyncio

import pytest

from pipeline.usecases import task_notifier as module
from pipeline.usecases.task_notifier import TaskNotifier


async def soon(news: TaskNotifier, task_id: int, seen: int) -> int:
    async with asyncio.timeout(1):
        return await news.watch(task_id, seen, timeout_s=60)


async def test_who_has_seen_nothing_is_answered_at_once() -> None:
    news = TaskNotifier()
    assert await soon(news, 7, seen=-1) == 0
    news.notify(7)
    assert await soon(news, 7, seen=-1) == 1


async def test_news_that_came_between_two_looks_is_not_missed() -> None:
    news = TaskNotifier()
    news.notify(7)
    seen = await soon(news, 7, seen=0)
    news.notify(7)
    assert await soon(news, 7, seen) == 2


async def test_news_wakes_those_who_watch_that_task() -> None:
    news = TaskNotifier()
    watching = asyncio.create_task(soon(news, 7, seen=0))
    other = asyncio.create_task(soon(news, 8, seen=0))
    await asyncio.sleep(0)
    news.notify(7)
    assert await watching == 1
    assert not other.done()
    other.cancel()


async def test_a_watch_ends_with_its_time() -> None:
    assert await TaskNotifier().watch(7, seen=0, timeout_s=0.001) == 0
    await TaskNotifier().watch_end(7, timeout_s=0.001)


async def test_only_the_end_wakes_who_waits_for_the_end() -> None:
    news = TaskNotifier()
    watching = asyncio.create_task(news.watch_end(7, timeout_s=60))
    await asyncio.sleep(0)
    news.begin(7)
    news.notify(7)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not watching.done()
    news.notify_end(7)
    async with asyncio.timeout(1):
        await watching
        await news.watch_end(7, timeout_s=60)  # a late watcher
    assert await soon(news, 7, seen=2) == 3  # the end is news too


async def test_a_task_that_begins_again_has_not_ended() -> None:
    news = TaskNotifier()
    news.notify_end(7)
    news.begin(7)
    watching = asyncio.create_task(news.watch_end(7, timeout_s=60))
    await asyncio.sleep(0.001)
    assert not watching.done()
    watching.cancel()


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED_TASKS", 2)
    news = TaskNotifier()
    for task_id in (1, 2, 3):
        news.notify_end(task_id)
    assert await soon(news, 3, seen=-1) == 1
    assert await soon(news, 1, seen=-1) == 0
    await asyncio.gather(*(news.watch(task_id, 1, 0.001) for task_id in range(5)))
    assert not news._watchers
    assert not news._end_watchers
