from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import RayActorError

from deployments.api.concurrency.background_tasks import BackgroundTasks
from deployments.dispatcher_handle import DispatcherHandle, DispatcherState
from pipeline.usecases.task_notifier import TaskNotifier

STATE = DispatcherState(database_ready=True, engine=None)


class ServeHandle:
    """Ray Serve's handle of a Dispatcher in this process, or of one that no call reaches."""

    def __init__(self, *, is_reachable: bool = True) -> None:
        self.calls: list[str] = []
        self.notifier = TaskNotifier()
        self._is_reachable = is_reachable
        self._method = ""

    def options(self, method_name: str) -> ServeHandle:
        self._method = method_name
        return self

    @property
    def state(self) -> ServeHandle:
        return self.options("state")

    async def remote(self, *arguments: Any) -> object:
        self.calls.append(self._method)
        if not self._is_reachable:
            raise RayActorError
        methods: dict[str, Callable[..., Any]] = {
            "watch": self.notifier.watch,
            "watch_end": self.notifier.watch_end,
        }
        if self._method in methods:
            return await methods[self._method](*arguments)
        return STATE if self._method == "state" else None


def adapter(handle: ServeHandle, background: BackgroundTasks | None = None) -> DispatcherHandle:
    return DispatcherHandle(handle, (background or BackgroundTasks()).spawn)


async def test_a_wait_ends_with_the_change_or_the_end() -> None:
    handle = ServeHandle()
    handle.notifier.notify_end(7)
    assert await adapter(handle).watch(7, seen=-1, timeout_s=60) == 1
    await adapter(handle).watch_end(7, timeout_s=60)
    assert await adapter(handle).state() == STATE


async def test_waking_waits_for_nobody() -> None:
    handle, background = ServeHandle(), BackgroundTasks()
    await adapter(handle, background).wake()
    assert handle.calls == []
    await background.join()
    assert handle.calls == ["wake"]


async def test_one_call_wakes_for_all_tasks_that_came_during_another() -> None:
    handle, background = ServeHandle(), BackgroundTasks()
    signals = adapter(handle, background)
    for _ in range(50):
        await signals.wake()
    await background.join()
    assert handle.calls == ["wake"]
    await signals.wake()
    await background.join()
    assert handle.calls == ["wake", "wake"]


async def test_a_task_that_comes_during_a_wake_gets_another_one() -> None:
    background = BackgroundTasks()

    class SlowHandle(ServeHandle):
        async def remote(self, *arguments: Any) -> object:
            if not self.calls:
                await signals.wake()
            return await super().remote(*arguments)

    handle = SlowHandle()
    signals = adapter(handle, background)
    await signals.wake()
    await background.join()
    assert handle.calls == ["wake", "wake"]


async def test_a_dispatcher_out_of_reach_fails_no_caller(caplog: pytest.LogCaptureFixture) -> None:
    handle, background = ServeHandle(is_reachable=False), BackgroundTasks()
    signals = adapter(handle, background)
    assert await signals.watch(7, seen=3, timeout_s=60) == 3
    await signals.watch_end(7, timeout_s=60)
    await signals.cancel(7)
    await signals.wake()
    await background.join()
    assert [record.__dict__["method"] for record in caplog.records] == ["watch", "watch_end", "cancel", "wake"]
    assert await signals.state() is None
