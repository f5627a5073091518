"""A complete service without Ray: the application's fakes with a Dispatcher behind them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fastapi import FastAPI
from typing_extensions import override

from pipeline.domain.tasks.task import Task
from pipeline.ports import NullMetrics, TaskQuery
from pipeline.settings import Settings
from pipeline.system_clock import SystemClock
from pipeline.testing.fake_dispatcher import FakeDispatcher
from pipeline.testing.fake_splitter import FakeSplitter, make_chunks
from pipeline.testing.fake_transcriber import FakeTranscriber
from pipeline.testing.manual_clock import ManualClock
from pipeline.testing.memory_task_store import MemoryTaskStore
from pipeline.testing.memory_uploads import MemoryUploadStore
from pipeline.usecases.dispatch.dispatcher import Dispatcher
from pipeline.usecases.task_notifier import TaskNotifier
from tests.unit.deployments.api.world import World

AUDIO = ("talk.mp3", b"ID3 audio")


class InProcessSignals(FakeDispatcher):
    """Signals to a Dispatcher in this process, which also record the cancelled tasks."""

    def __init__(self, dispatcher: Dispatcher, notifier: TaskNotifier) -> None:
        super().__init__(ManualClock())
        self._dispatcher = dispatcher
        self._notifier = notifier

    @override
    async def wake(self) -> None:
        self._dispatcher.wake()

    @override
    async def watch(self, task_id: int, seen: int, timeout_s: float) -> int:
        return await self._notifier.watch(task_id, seen, timeout_s)

    @override
    async def watch_end(self, task_id: int, timeout_s: float) -> None:
        await self._notifier.watch_end(task_id, timeout_s)

    @override
    async def cancel(self, task_id: int) -> None:
        await super().cancel(task_id)
        await self._dispatcher.cancel(task_id)


@dataclass
class Service(World):
    """A complete service, which transcribes any recording as five chunks of ten seconds."""

    splitter: FakeSplitter = field(default_factory=lambda: FakeSplitter(make_chunks(5)))
    fleet: FakeTranscriber = field(default_factory=FakeTranscriber)

    def __post_init__(self) -> None:
        self.clock = SystemClock()  # type: ignore[assignment]  # a Dispatcher works in real time
        self.store = MemoryTaskStore(self.clock)
        self.uploads = MemoryUploadStore(self.clock)
        notifier = TaskNotifier()
        self.task_dispatcher = Dispatcher(
            owner="test",
            store=self.store,
            media=self.media,
            splitter=self.splitter,
            transcriber=self.fleet,
            clock=self.clock,
            settings=Settings(dispatch={"poll_s": 0.01, "retry_base_s": 0.001}),
            metrics=NullMetrics(),
            notifier=notifier,
        )
        self.dispatcher = InProcessSignals(self.task_dispatcher, notifier)
        self.sent = 0

    async def tasks(self) -> tuple[Task, ...]:
        return (await self.store.query(TaskQuery(include_result=False))).tasks

    async def until_gone(self, api: FastAPI) -> None:
        """Wait until no task and no media are left."""
        async with asyncio.timeout(5):
            await api.state.services.background.join()
            while await self.tasks() or self.media.keys:
                await asyncio.sleep(0)

    async def until_decoding(self) -> None:
        """Wait until a replica is decoding."""
        async with asyncio.timeout(5):
            while not self.fleet.units:
                await asyncio.sleep(0)
