from __future__ import annotations

import asyncio

from pipeline.usecases.task_notifier import TaskNotifier


async def soon(notifier: TaskNotifier, task_id: int, seen: int) -> int:
    async with asyncio.timeout(1):
        return await notifier.watch(task_id, seen, timeout_s=60)


async def test_a_watcher_that_has_seen_nothing_returns_at_once() -> None:
    notifier = TaskNotifier()
    assert await soon(notifier, 7, seen=-1) == 0
    notifier.notify(7)
    assert await soon(notifier, 7, seen=-1) == 1


async def test_a_change_between_two_waits_is_not_missed() -> None:
    notifier = TaskNotifier()
    notifier.notify(7)
    seen = await soon(notifier, 7, seen=0)
    notifier.notify(7)
    assert await soon(notifier, 7, seen) == 2


async def test_a_change_wakes_the_watchers_of_its_task() -> None:
    notifier = TaskNotifier()
    watching = asyncio.create_task(soon(notifier, 7, seen=0))
    other = asyncio.create_task(soon(notifier, 8, seen=0))
    await asyncio.sleep(0)
    notifier.notify(7)
    assert await watching == 1
    assert not other.done()
    other.cancel()


async def test_a_wait_ends_after_its_timeout() -> None:
    assert await TaskNotifier().watch(7, seen=0, timeout_s=0.001) == 0
    await TaskNotifier().watch_end(7, timeout_s=0.001)


async def test_only_the_end_wakes_those_who_wait_for_the_end() -> None:
    notifier = TaskNotifier()
    watching = asyncio.create_task(notifier.watch_end(7, timeout_s=60))
    await asyncio.sleep(0)
    notifier.begin(7)
    notifier.notify(7)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not watching.done()
    notifier.notify_end(7)
    async with asyncio.timeout(1):
        await watching
        await notifier.watch_end(7, timeout_s=60)  # a late watcher
    assert await soon(notifier, 7, seen=2) == 3  # the end counts as a change


async def test_a_task_that_begins_again_has_not_ended() -> None:
    notifier = TaskNotifier()
    notifier.notify_end(7)
    notifier.begin(7)
    watching = asyncio.create_task(notifier.watch_end(7, timeout_s=60))
    await asyncio.sleep(0.001)
    assert not watching.done()
    watching.cancel()


async def test_memory_is_bounded() -> None:
    notifier = TaskNotifier(max_remembered_tasks=2)
    for task_id in (1, 2, 3):
        notifier.notify_end(task_id)
    assert await soon(notifier, 3, seen=-1) == 1
    assert await soon(notifier, 1, seen=-1) == 0
    await asyncio.gather(*(notifier.watch(task_id, 1, 0.001) for task_id in range(5)))
    assert not notifier._watchers
    assert not notifier._end_watchers
